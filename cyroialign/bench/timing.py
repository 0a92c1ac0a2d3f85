"""Measuring: all rows that agree, interleaved."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from cyroialign.bench.ours import FLOOR, floor, ours
from cyroialign.bench.peers import Peer, reason
from cyroialign.bench.problem import Row
from cyroialign.bench.progress import Progress, plural
from cyroialign.bench.workloads import Workload

BATCH = 0.005  # seconds that a call is repeated for at least: a small one alone is below the clock's noise
PAUSE = 0.02  # seconds before each turn, in which the threads of the library before it stop spinning


class Result(NamedTuple):
    """Seconds that a call of each row took, one number a round, and why other rows are not there."""

    operator: str
    workload: Workload
    threads: int
    seconds: dict[str, list[float]]
    excluded: dict[str, str]

    @property
    def baseline(self) -> str:
        """The row that the others are compared with."""
        peers = [f"{library} forward NCHW" for library in ("onnxruntime", "torchvision", "openvino")]
        return next((name for name in peers if name in self.seconds), FLOOR)

    def median(self, name: str) -> float:
        """Return the seconds of a call."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str) -> float:
        """How many times as fast as the baseline the row is."""
        return self.median(self.baseline) / self.median(name)


def measure(
    workload: Workload,
    threads: int,
    rounds: int,
    peers: Sequence[Peer],
    progress: Progress | None = None,
    operator: str = "roi_align",
    dtypes: Sequence[str] = (),
    bound: float = math.inf,
) -> Result:
    """Time all rows that agree, in turns; no further round begins `bound` seconds after the first."""
    progress = progress or Progress()
    place = f"{workload.name}, {plural(threads, 'thread')}"
    progress.show(0, f"{place}, checking that all agree")
    problem = workload.problem(threads, operator, dtypes)
    rows, excluded = ours(problem), {}
    for peer in peers:
        try:
            rows += peer.rows(problem)
        except Exception as error:  # a foreign library may raise anything
            excluded[peer.library] = reason(error)
    rows, disagreeing = agreeing(rows)
    calls = {row.name: row.call for row in rows} | {FLOOR: floor(problem)}
    pause = PAUSE if threads > 1 else 0  # the calls of one thread leave none behind that spin
    say = partial(_say, progress, place)
    seconds = take_turns(calls, rounds, say, bound, pause)
    progress.end_task()
    return Result(operator, workload, threads, seconds, excluded | disagreeing)


def _say(progress: Progress, place: str, part: float, turn: str) -> None:
    progress.show(part, f"{place}, {turn}")


def agreeing(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Call all rows; return those that agree with the first of their direction, and what others did."""
    expected: dict[str, np.ndarray] = {}
    kept, excluded = [], {}
    for row in rows:
        try:
            result = np.asarray(row.call()).copy()  # the next call may use its memory again
            error = _difference(result, expected.setdefault(row.direction, result))
        except Exception as raised:  # a foreign library may raise anything
            excluded[row.name] = reason(raised)
        else:
            if error <= row.tolerance:
                kept.append(row)
            else:
                excluded[row.name] = f"disagrees by {error:.2g} of the largest value"
    return kept, excluded


def _difference(result: np.ndarray, expected: np.ndarray) -> float:
    if result.shape != expected.shape:
        raise ValueError(f"the result has shape {result.shape} instead of {expected.shape}")
    error = result - expected
    return float(np.abs(error, out=error).max() / max(expected.max(), -expected.min()))


def take_turns(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    say: Callable[[float, str], None] = lambda part, turn: None,
    bound: float = math.inf,
    pause: float = PAUSE,
) -> dict[str, list[float]]:
    """Time each call once a round; return its seconds by name, one number a round.

    Calls are interleaved because a shared machine is faster at some times than at others: whatever slows a
    round slows all calls alike, and ratios stay. `say` is told which part is done and whose turn it is. After
    `bound` seconds no further round starts; there is always one.
    """
    start = time.perf_counter()
    repeats = {name: _repeats(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for place, (name, call) in enumerate(calls.items()):
            say((number + place / len(calls)) / rounds, f"{number + 1}/{rounds}: {name}")
            time.sleep(pause)
            if repeats[name] > 1:
                call()  # wakes the threads, which takes as long as a small call
            seconds[name].append(_seconds(call, repeats[name]))
        if time.perf_counter() - start > bound:
            break
    return seconds


def _repeats(call: Callable[[], Any]) -> int:
    """How often a call is repeated for `BATCH` seconds; one below that is tried twice first."""
    took = _seconds(call)
    return math.ceil(BATCH / (took if took > BATCH else min(took, _seconds(call))))


def _seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats

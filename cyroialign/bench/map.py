"""The map of `cyroialign bench --map`: how we fare beside the fastest peer, over a grid of settings."""

import importlib
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from cyroialign._commands import CommandError, write
from cyroialign.bench import grid, machine, map_report
from cyroialign.bench.choices import check_files, choice, narrow, thread_counts
from cyroialign.bench.peers import Peer, installed
from cyroialign.bench.problem import OPERATORS, POSITION_SENSITIVE
from cyroialign.bench.progress import Progress
from cyroialign.bench.report import entries, fastest_peer
from cyroialign.bench.timing import Result, measure
from cyroialign.bench.workloads import Workload

ROUNDS = 5
ROUNDS_BOUND = 1.0  # seconds after which a place has had its last round: few calls of seconds say enough
SETTINGS = (
    "one image, num_threads = threads, out= where there is one; peers are given float32 whatever we are"
)


class Cell(NamedTuple):
    """A setting of the grid, and the seconds of a call there: ours, and the fastest peer's if any has it."""

    channels: int
    bins: int
    rois: int
    window: int
    sampling_ratio: int
    threads: int
    direction: str
    layout: str
    dtype: str
    seconds: float
    peer: str | None
    peer_seconds: float | None

    @property
    def ratio(self) -> float:
        """How many times as fast as the fastest peer; NaN without one."""
        return self.peer_seconds / self.seconds if self.peer_seconds else math.nan


def cells(result: Result) -> Iterator[Cell]:
    """Compare each row of cyroialign with the fastest peer of its direction.

    One of NHWC stands beside peers of either layout, without the transposition that they would need.
    """
    place = grid.settings(result.workload)
    for name in result.seconds:
        library, *words = name.split()
        if library == "cyroialign":
            *dtype, direction, layout = words
            peer = fastest_peer(result.seconds, direction, layout)
            yield Cell(
                **place,
                threads=result.threads,
                direction=direction,
                layout=layout,
                dtype=dtype[0] if dtype else "float32",
                seconds=result.median(name),
                peer=peer.split()[0] if peer else None,
                peer_seconds=result.median(peer) if peer else None,
            )


def survey(
    order: Sequence[tuple[Workload, int]],
    peers: Sequence[Peer],
    operator: str,
    dtypes: Sequence[str],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """Measure one place after the other until all are done, or the time is over."""
    start = clock()
    results: list[Result] = []
    progress = _Progress(len(order), start, seconds, clock)
    for workload, threads in order:
        results.append(measure(workload, threads, ROUNDS, peers, progress, operator, dtypes, ROUNDS_BOUND))
        if clock() - start >= seconds:
            break
    return results


class _Progress(Progress):
    """Of the places or of the time, whichever is further."""

    def __init__(self, tasks: int, start: float, seconds: float, clock: Callable[[], float]) -> None:
        super().__init__(tasks)
        self.start, self.seconds, self.clock = start, seconds, clock

    def show(self, part: float, text: str) -> None:
        passed = min(1, (self.clock() - self.start) / self.seconds)
        super().show(max(part, passed * self.tasks - self.done), text)


def run(
    operators: Sequence[str] | None,
    dtypes: Sequence[str] | None,
    threads: Sequence[int] | None,
    quick: bool,
    seconds: float,
    seed: int,
    json_file: pathlib.Path | None,
    markdown_file: pathlib.Path | None,
    plot_file: pathlib.Path | None,
) -> None:
    """Measure, print the tables, and write the files."""
    known = [name for name in OPERATORS if name not in (*POSITION_SENSITIVE, "multiscale")]
    [operator, *more] = dict.fromkeys(
        choice(name, "operator of a map", known) for name in operators or ["roi_align"]
    )
    if more:
        raise CommandError(f"--map takes one operator, not {operator} and {', '.join(more)}")
    if not seconds > 0:
        raise CommandError(f"--seconds must be above 0, got {seconds:g}")
    types = [narrow(name) for name in dict.fromkeys(dtypes or [])]
    counts = thread_counts(threads)
    check_files({"--json": json_file, "--markdown": markdown_file, "--plot": plot_file})
    if plot_file:
        importlib.import_module("matplotlib.figure")  # fails now, not after minutes of work
    peers, missing = installed(operator)
    axes = grid.CORNERS if quick else grid.AXES
    order = grid.in_turn(grid.places(axes, counts), seed)
    results = survey(order, peers, operator, types, seconds)
    about = machine.about()
    for peer in peers:
        about["versions"] |= peer.versions()
    words = [f"--operator {operator}"] * (operator != "roi_align") + [f"--dtype {name}" for name in types]
    words += [f"--threads {','.join(map(str, counts))}", *["--quick"] * quick]
    words += [f"--seconds {seconds:g} --seed {seed}"]
    about |= {
        "settings": {"cyroialign": f"{OPERATORS[operator]}, {SETTINGS}"}
        | {p.library: p.settings for p in peers},
        "not compared": missing | _left_out(results),
        "command": {"to repeat": " ".join(["python -m cyroialign bench --map", *words])},
        "grid": {name: ", ".join(map(str, values)) for name, values in axes.items()},
    }
    about["grid"] |= {
        "map": f"{grid.HEIGHT} x {grid.WIDTH}, boxes in windows of so many pixels on it",
        "left out": f"more than {grid.SAMPLES:,} samples of all RoIs and channels",
        "measured": f"{len(results)} of {len(order)} settings with their layouts, directions and dtypes",
    }
    found = [cell for result in results for cell in cells(result)]
    tables = map_report.tables(found)
    print(tables)
    print(entries(about))
    title = f"{OPERATORS[operator]} over the fastest peer on {machine.processor()}"
    for path, make in (
        (json_file, partial(_as_json, found, results, about)),
        (markdown_file, partial(_as_markdown, tables, about)),
        (plot_file, partial(map_report.draw, found, axes, title)),
    ):
        if path:
            write(path, make())
            print(f"wrote {path}")


def _left_out(results: Sequence[Result]) -> dict[str, str]:
    """Say which rows were not timed at some places, and why at the first of these."""
    why: dict[str, list[str]] = {}
    for result in results:
        for name, reason in result.excluded.items():
            why.setdefault(name, []).append(f"{reason} ({result.workload.name})")
    return {name: f"at {len(reasons)} settings, first: {reasons[0]}" for name, reasons in why.items()}


def _as_markdown(tables: str, about: Mapping[str, Mapping[str, str]]) -> bytes:
    notes = [
        f"- {topic}: " + "; ".join(f"{key} {value}" for key, value in lines.items())
        for topic, lines in about.items()
        if lines
    ]
    return "\n".join([tables, "", *notes, ""]).encode()


def _as_json(
    found: Sequence[Cell], results: Sequence[Result], about: Mapping[str, Mapping[str, str]]
) -> bytes:
    """Write the cells, and the medians of every row at every place, in milliseconds."""
    places = [
        {
            **grid.settings(result.workload),
            "threads": result.threads,
            "ms": {name: 1e3 * statistics.median(times) for name, times in result.seconds.items()},
            "left out": result.excluded,
        }
        for result in results
    ]
    return json.dumps(
        {**about, "cells": [_plain(cell) for cell in found], "places": places}, indent=1
    ).encode()


def _plain(cell: Cell) -> dict[str, Any]:
    plain = cell._asdict()
    plain["ms"] = 1e3 * plain.pop("seconds")
    theirs = plain.pop("peer_seconds")
    return plain | {
        "peer_ms": theirs and 1e3 * theirs,
        "ratio": None if math.isnan(cell.ratio) else cell.ratio,
    }

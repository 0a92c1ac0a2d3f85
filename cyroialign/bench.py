"""The benchmark: times cyroialign, the other libraries that are installed, and what memory allows."""

import importlib
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cyroialign import _bench_ours, _bench_report, _dtypes, _machine, _peers, get_num_threads
from cyroialign._progress import Progress

ROUNDS, QUICK_ROUNDS = 7, 3
QUICK_SHARE = 10  # --quick takes one RoI in so many
BATCH = 0.005  # seconds that a call is repeated for at least: a small one alone is below the clock's noise
PAUSE = 0.02  # seconds before each turn, in which the threads of the library before it stop spinning
SETTINGS = "one image, num_threads = threads, out= where there is one, float32 unless the row says more"
BY_LEVEL = "a call of roi_align for each level; boxes and results are gathered"


class BenchError(Exception):
    """Something that the user can mend, in one line."""


class Workload(NamedTuple):
    """One image's map, or the levels of its pyramid, and boxes.

    A box has a square root of its area between the two `sizes`, in pixels of the image, drawn uniformly,
    and a width / height from 1/2 to 2, drawn uniformly in the logarithm among those that fit the image.
    """

    name: str
    channels: int
    height: int
    width: int
    rois: int
    bins: int
    sampling_ratio: int
    stride: int
    sizes: tuple[int, int]
    levels: int = 1  # each half as high and wide as the one before

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for `roi_align` and `roi_align_backward`."""
        return {"spatial_scale": 1 / self.stride, "sampling_ratio": self.sampling_ratio, "aligned": True}

    def features(self, level: int = 0) -> np.ndarray:
        """Return a (1, channels, height, width) map of float32."""
        shape = (1, self.channels, self.height >> level, self.width >> level)
        return np.random.default_rng(1 + level).standard_normal(shape, np.float32)

    def boxes(self) -> np.ndarray:
        """Return (rois, 5) rows of (0, x1, y1, x2, y2) in float32, the same ones each time."""
        rng = np.random.default_rng(0)
        image = np.array([self.width, self.height]) * self.stride
        size = rng.uniform(*self.sizes, self.rois)
        lowest = np.log(np.maximum(1 / 2, (size / image[1]) ** 2))
        highest = np.log(np.minimum(2, (image[0] / size) ** 2))
        stretch = np.exp(rng.uniform(lowest, highest) / 2)
        sides = np.stack([size * stretch, size / stretch], axis=1)
        corners = rng.uniform(0, np.maximum(image - sides, 0))
        return np.column_stack([np.zeros(self.rois), corners, corners + sides]).astype(np.float32)

    def problem(
        self, threads: int, operator: str = "roi_align", dtypes: Sequence[str] = ()
    ) -> _bench_ours.Problem:
        """Return what the benchmark gives to every library.

        With other dtypes than float32, maps are of whole numbers up to 255, which every one of them holds.
        """
        boxes, maps = self.boxes(), [self.features(level) for level in range(self.levels)]
        if dtypes:
            maps = [np.clip(np.rint(features * 32 + 128), 0, 255) for features in maps]
        channels = self.channels
        if operator in _bench_ours.POSITION_SENSITIVE:
            channels //= self.bins**2
        shape = (self.rois, channels, self.bins, self.bins)
        return _bench_ours.Problem(
            features=maps[0],
            boxes=boxes,
            corners=boxes[:, 1:].copy(),
            images=boxes[:, 0].astype(np.int64),
            output=np.random.default_rng(2).standard_normal(shape, np.float32),
            bins=self.bins,
            spatial_scale=1 / self.stride,
            sampling_ratio=self.sampling_ratio,
            threads=threads,
            operator=operator,
            dtypes=tuple(dtypes),
            coarser=tuple(maps[1:]),
        )


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("P2-box", 256, 200, 272, 1000, 7, 2, 4, (56, 112)),
        Workload("P2-mask", 256, 200, 272, 100, 14, 2, 4, (56, 112)),
        Workload("P4-box", 256, 50, 68, 1000, 7, 2, 16, (224, 448)),
        Workload("C4-adaptive", 1024, 50, 68, 300, 14, 0, 16, (64, 700)),
        Workload("P2-adaptive-large", 256, 200, 272, 200, 7, 0, 4, (200, 700)),
        Workload("P5-single", 256, 25, 34, 1, 7, 2, 32, (448, 800)),
    )
}
R_FCN = Workload("R-FCN", 21 * 49, 50, 68, 300, 7, 2, 16, (64, 400))  # 20 classes and the background
PYRAMID = Workload("P2-P5", 256, 200, 272, 1000, 7, 2, 4, (16, 700), levels=4)


def workloads_of(operator: str) -> dict[str, Workload]:
    """Return the workloads that an operator has, by name."""
    own = {"ps_roi_align": R_FCN, "ps_roi_pool": R_FCN, "multiscale": PYRAMID}.get(operator)
    return {own.name: own} if own else WORKLOADS


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
        peers = [f"{library} forward NCHW" for library in ("onnxruntime", "torchvision")]
        return next((name for name in peers if name in self.seconds), _bench_ours.FLOOR)

    def median(self, name: str) -> float:
        """Return the seconds of a call."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str) -> float:
        """How many times as fast as the baseline the row is."""
        return self.median(self.baseline) / self.median(name)


def run(
    operator: str,
    workloads: Sequence[str] | None,
    dtypes: Sequence[str] | None,
    threads: Sequence[int] | None,
    quick: bool,
    json_file: pathlib.Path | None,
    markdown_file: pathlib.Path | None,
    plot_file: pathlib.Path | None,
) -> None:
    """Measure, print tables as they are ready, and write the files."""
    known = workloads_of(_choice(operator, "operator", _bench_ours.OPERATORS))
    chosen = [known[_choice(name, "workload", known)] for name in dict.fromkeys(workloads or known)]
    types = [_dtype(name) for name in dict.fromkeys(dtypes or [])]
    counts = _thread_counts(threads)
    files = {"--json": json_file, "--markdown": markdown_file, "--plot": plot_file}
    for option, path in files.items():
        _check_file(option, path)
    if plot_file:
        importlib.import_module("matplotlib.figure")  # fails now, not after minutes of work
    peers, missing = _peers.installed(operator)
    settings = {"cyroialign": f"{_bench_ours.OPERATORS[operator]}, {SETTINGS}"}
    settings |= {"level-by-level": BY_LEVEL} if operator == "multiscale" else {}
    settings |= {peer.library: peer.settings for peer in peers}
    progress = Progress(len(chosen) * len(counts))
    results = []
    for workload in chosen:
        part = workload._replace(rois=math.ceil(workload.rois / QUICK_SHARE)) if quick else workload
        rounds = QUICK_ROUNDS if quick else ROUNDS
        of_workload = [measure(part, count, rounds, peers, progress, operator, types) for count in counts]
        print(_bench_report.table(of_workload, settings), flush=True)
        results += of_workload
    about = _machine.about()
    for peer in peers:
        about["versions"] |= peer.versions()
    about |= {
        "not compared": missing,
        "command": {"to repeat": _command(operator, workloads, types, counts, quick)},
    }
    print(_bench_report.entries(about))
    about["settings"] = settings  # the tables have said them
    if json_file:
        _write(json_file, _bench_report.as_json(results, about))
    if markdown_file:
        _write(markdown_file, _bench_report.markdown(results, about))
    if plot_file:
        _write(
            plot_file,
            _bench_report.draw(
                results, f"{_bench_ours.OPERATORS[operator]} on {_machine.processor()}{' (--quick)' * quick}"
            ),
        )


def measure(
    workload: Workload,
    threads: int,
    rounds: int,
    peers: Sequence[_peers.Peer],
    progress: Progress | None = None,
    operator: str = "roi_align",
    dtypes: Sequence[str] = (),
) -> Result:
    """Time all rows that agree, in turns."""
    progress = progress or Progress()
    place = f"{workload.name}, {_bench_report.plural(threads, 'thread')}"
    progress.show(0, f"{place}, checking that all agree")
    problem = workload.problem(threads, operator, dtypes)
    rows, excluded = _bench_ours.ours(problem), {}
    for peer in peers:
        try:
            rows += peer.rows(problem)
        except Exception as error:  # whatever a foreign library raises
            excluded[peer.library] = _peers.reason(error)
    rows, disagreeing = _peers.agreeing(rows)
    calls = {row.name: row.call for row in rows} | {_bench_ours.FLOOR: _bench_ours.floor(problem)}
    seconds = take_turns(calls, rounds, lambda part, turn: progress.show(part, f"{place}, {turn}"))
    progress.end_task()
    return Result(operator, workload, threads, seconds, excluded | disagreeing)


def take_turns(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    say: Callable[[float, str], None] = lambda part, turn: None,
) -> dict[str, list[float]]:
    """Time each call once a round; return its seconds by name, one number a round.

    In turns, because a shared machine is faster at one time than at another: whatever slows a round slows
    all calls alike, and ratios stay. `say` hears which part is done and whose turn it is.
    """
    repeats = {name: math.ceil(BATCH / min(_seconds(call), _seconds(call))) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for place, (name, call) in enumerate(calls.items()):
            say((number + place / len(calls)) / rounds, f"{number + 1}/{rounds}: {name}")
            time.sleep(PAUSE)
            if repeats[name] > 1:
                call()  # wakes the threads, which takes as long as a small call
            seconds[name].append(_seconds(call, repeats[name]))
    return seconds


def _seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _command(
    operator: str,
    workloads: Sequence[str] | None,
    dtypes: Sequence[str],
    threads: Sequence[int],
    quick: bool,
) -> str:
    words = ["python -m cyroialign bench", *[f"--operator {operator}"] * (operator != "roi_align")]
    words += [f"--workload {name}" for name in dict.fromkeys(workloads or [])]
    words += [f"--dtype {name}" for name in dtypes]
    return " ".join([*words, f"--threads {','.join(map(str, threads))}", *["--quick"] * quick])


def _choice(name: str, what: str, known: Iterable[str]) -> str:
    if name not in known:
        raise BenchError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    return name


def _dtype(name: str) -> str:
    """Check the type of more rows. Of float64 they could differ from float32, whose boxes are rounded."""
    _choice(name, "dtype", _dtypes.NARROW)
    if name == "bfloat16":
        try:
            importlib.import_module("ml_dtypes")  # which tells NumPy of the name
        except ImportError as error:
            raise BenchError(f'{error}; --dtype bfloat16 needs: pip install "cyroialign[bench]"') from error
    return name


def _thread_counts(threads: Sequence[int] | None) -> list[int]:
    cores = _machine.cores()
    counts = sorted(set(threads or [1, min(get_num_threads(), cores)]))
    if counts[0] < 1 or counts[-1] > cores:
        raise BenchError(f"--threads must be from 1 to {cores}, the cores that this process may use")
    return counts


def _check_file(option: str, path: pathlib.Path | None) -> None:
    """Refuse before any work what cannot be written after it."""
    if path and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
        raise BenchError(f"{option} {path} cannot be written")


def _write(path: pathlib.Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}") from error
    print(f"wrote {path}")

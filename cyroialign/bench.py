"""The benchmark: cyroialign, the other libraries that are installed, and what memory allows."""

import importlib
import io
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cyroialign import _peers, get_num_threads, show_config

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDS, QUICK_ROUNDS = 7, 3
QUICK_SHARE = 10  # --quick takes one RoI in so many
BATCH = 0.005  # seconds that a call is repeated for at least: a small one alone is below the clock's noise
PAUSE = 0.02  # seconds before each turn, in which the threads of the library before it stop spinning
FLOOR = "floor"
# Cyroialign's own four rows, then others; told apart by colour-blind eyes.
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#555555", "#888888", "#AAAAAA", "#CCCCCC")
SETTINGS = "float32, aligned=True, one image, out= given, num_threads = threads"


class BenchError(Exception):
    """Something that the user can mend, in one line."""


class Workload(NamedTuple):
    """One image's map and boxes.

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

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for `roi_align` and `roi_align_backward`."""
        return {"spatial_scale": 1 / self.stride, "sampling_ratio": self.sampling_ratio, "aligned": True}

    def features(self) -> np.ndarray:
        """Return a (1, channels, height, width) map of float32."""
        shape = (1, self.channels, self.height, self.width)
        return np.random.default_rng(1).standard_normal(shape, np.float32)

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

    def problem(self, threads: int) -> _peers.Problem:
        """Return what the benchmark gives to every library."""
        boxes = self.boxes()
        return _peers.Problem(
            features=self.features(),
            boxes=boxes,
            corners=boxes[:, 1:].copy(),
            images=boxes[:, 0].astype(np.int64),
            output=np.empty((self.rois, self.channels, self.bins, self.bins), np.float32),
            bins=self.bins,
            spatial_scale=1 / self.stride,
            sampling_ratio=self.sampling_ratio,
            threads=threads,
        )

    def __str__(self) -> str:
        return (
            f"{self.name}: {_plural(self.rois, 'RoI')} of {self.sizes[0]} to {self.sizes[1]} pixels, "
            f"{self.bins} x {self.bins} bins, sampling_ratio {self.sampling_ratio}, "
            f"map {self.channels} x {self.height} x {self.width}, stride {self.stride}"
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


class Result(NamedTuple):
    """Seconds that a call of each row took, one number a round, and why other rows are not there."""

    workload: Workload
    threads: int
    seconds: dict[str, list[float]]
    excluded: dict[str, str]

    @property
    def baseline(self) -> str:
        """The row that the others are compared with."""
        return next((name for name in self.seconds if name.startswith("onnxruntime forward")), FLOOR)

    def median(self, name: str) -> float:
        """Return the seconds of a call."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str) -> float:
        """How many times as fast as the baseline the row is."""
        return self.median(self.baseline) / self.median(name)

    def plain(self) -> dict[str, Any]:
        """Return what JSON can hold, with times in milliseconds."""
        rows: dict[str, dict[str, Any]] = {}
        for name, seconds in self.seconds.items():
            rows[name] = {"ms": 1e3 * self.median(name), "ratio": self.ratio(name)}
            rows[name]["rounds"] = [1e3 * second for second in seconds]
        workload = self.workload._asdict() | {"threads": self.threads}
        return workload | {"baseline": self.baseline, "rows": rows, "left out": self.excluded}


def run(
    workloads: Sequence[str] | None,
    threads: Sequence[int] | None,
    quick: bool,
    json_file: pathlib.Path | None,
    plot_file: pathlib.Path | None,
) -> None:
    """Measure, print tables as they are ready, and write the files."""
    chosen = [_workload(name) for name in dict.fromkeys(workloads or WORKLOADS)]
    counts = _thread_counts(threads)
    _check_file("--json", json_file)
    _check_file("--plot", plot_file)
    if plot_file:
        importlib.import_module("matplotlib.figure")  # fails now, not after minutes of work
    peers, missing = _peers.installed()
    results = []
    for workload in chosen:
        part = workload._replace(rois=math.ceil(workload.rois / QUICK_SHARE)) if quick else workload
        of_workload = [measure(part, count, QUICK_ROUNDS if quick else ROUNDS, peers) for count in counts]
        print(table(of_workload), flush=True)
        results += of_workload
    about = _circumstances(peers, missing) | {"command": {"to repeat": _command(chosen, counts, quick)}}
    for topic, entries in about.items():
        print("\n  ".join([topic, *(f"{key}: {value}" for key, value in entries.items())]))
    if json_file:
        _write(json_file, json.dumps(about | {"results": [r.plain() for r in results]}, indent=1).encode())
    if plot_file:
        _write(plot_file, draw(results, _processor() + " (--quick)" * quick))


def measure(workload: Workload, threads: int, rounds: int, peers: Sequence[_peers.Peer]) -> Result:
    """Time all rows that agree, in turns."""
    place = f"{workload.name}, threads {threads}"
    _progress(f"{place}: checking that all agree")
    problem = workload.problem(threads)
    rows, excluded = _peers.ours(problem), {}
    for peer in peers:
        try:
            rows += peer.rows(problem)
        except Exception as error:  # whatever a foreign library raises
            excluded[peer.library] = _peers.reason(error)
    rows, disagreeing = _peers.agreeing(rows)
    calls = {row.name: row.call for row in rows} | {FLOOR: _peers.floor(problem)}
    return Result(workload, threads, _take_turns(calls, rounds, place), excluded | disagreeing)


def _take_turns(calls: dict[str, Callable[[], Any]], rounds: int, place: str) -> dict[str, list[float]]:
    repeats = {name: math.ceil(BATCH / min(_seconds(call), _seconds(call))) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(1, rounds + 1):
        for name, call in calls.items():
            _progress(f"{place}: round {number} of {rounds}, {name}")
            time.sleep(PAUSE)
            if repeats[name] > 1:
                call()  # wakes the threads, which takes as long as a small call
            seconds[name].append(_seconds(call, repeats[name]))
    _progress("")
    return seconds


def _seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<78.78}\r", end="", file=sys.stderr, flush=True)


def table(results: Sequence[Result]) -> str:
    """Lay out the results of one workload: two columns for each number of threads."""
    names = list(dict.fromkeys(name for result in results for name in result.seconds))
    width = max(map(len, names))
    head = [f"{_plural(result.threads, 'thread'):>12}{'ratio':>8}" for result in results]
    lines = [str(results[0].workload), f"  {'milliseconds':{width}}{''.join(head)}"]
    lines += [f"  {name:{width}}{''.join(_cells(result, name) for result in results)}" for name in names]
    lines.append(f"  ratio: how many times as fast as {_baselines(results)}")
    excluded = {name: why for result in results for name, why in result.excluded.items()}
    lines += [f"  left out: {name}: {why}" for name, why in excluded.items()]
    return "\n".join(lines) + "\n"


def _baselines(results: Sequence[Result]) -> str:
    return " or ".join(dict.fromkeys(result.baseline for result in results))


def _cells(result: Result, name: str) -> str:
    if name not in result.seconds:
        return " " * 20
    return f"{_digits(1e3 * result.median(name), 3):>12}{_digits(result.ratio(name), 3):>8}"


def _digits(value: float, count: int) -> str:
    """Write so many digits that count, without an exponent."""
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(value)))}f}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count > 1)}"


def draw(results: Sequence[Result], title: str) -> bytes:
    """Draw the ratios, a panel for each number of threads, and return a PNG."""
    from matplotlib.figure import Figure

    counts = list(dict.fromkeys(result.threads for result in results))
    figure = Figure((11, 1.3 + 2.7 * len(counts)), 150, layout="constrained")
    panels = figure.subplots(len(counts), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, count in zip(panels, counts, strict=True):
        _draw_panel(axes, [result for result in results if result.threads == count])
        axes.set_title(_plural(count, "thread"), loc="left", size="medium")
    figure.suptitle(f"RoIAlign of float32 on {title}", x=0.01, ha="left")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw_panel(axes: "Axes", results: Sequence[Result]) -> None:
    """Bars rise from the baseline, or sink where a row is slower: on a logarithmic scale both are as tall."""
    from matplotlib.ticker import LogLocator, NullFormatter

    names = list(dict.fromkeys(name for result in results for name in result.seconds))
    names = [name for name in names if name not in (FLOOR, results[0].baseline)]
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        ratios = {place: result.ratio(name) for place, result in enumerate(results) if name in result.seconds}
        places = [place - 0.4 + (number + 0.5) * width for place in ratios]
        rises = [ratio - 1 for ratio in ratios.values()]
        bars = axes.bar(places, rises, width, 1, color=COLOURS[number % len(COLOURS)], label=name)
        axes.bar_label(bars, [_digits(ratio, 2) for ratio in ratios.values()], padding=1, size=7)
    middles = np.arange(len(results))
    floors = [result.ratio(FLOOR) for result in results]
    axes.hlines(
        floors, middles - 0.44, middles + 0.44, "black", "dotted", label="floor (one pass over memory)"
    )
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"as fast as {_baselines(results)}", size="small")
    axes.set_xticks(middles, [result.workload.name for result in results])
    axes.tick_params(length=0, which="both")
    axes.grid(axis="y", color="#E8EAED")
    axes.set_axisbelow(True)
    axes.margins(x=0.01, y=0.12)
    axes.spines[:].set_visible(False)


def _circumstances(peers: Sequence[_peers.Peer], missing: dict[str, str]) -> dict[str, dict[str, str]]:
    config = show_config(as_dict=True)
    own = f"{config['version']} (SIMD {config['simd']}, OpenMP {config['openmp']})"
    versions = {"cyroialign": own, "python": platform.python_version(), "numpy": np.__version__}
    for peer in peers:
        versions |= peer.versions()
    return {
        "machine": {
            "processor": _processor(),
            "cores usable": str(_cores()),
            "caches": _caches(),
            "system": platform.platform(),
        },
        "versions": versions,
        "settings": {"cyroialign": SETTINGS} | {peer.library: peer.settings for peer in peers},
        "not compared": missing,
    }


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _caches() -> str:
    """What Linux tells about the first core, such as "L2 1024K"; caches of instructions left out."""
    caches = []
    for folder in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            caches.append(f"L{level} {size}")
    return ", ".join(caches) or "unknown"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command(workloads: Sequence[Workload], threads: Sequence[int], quick: bool) -> str:
    names = [] if len(workloads) == len(WORKLOADS) else [f"--workload {w.name}" for w in workloads]
    counts = ",".join(map(str, threads))
    return " ".join(["python -m cyroialign bench", *names, f"--threads {counts}", *["--quick"] * quick])


def _workload(name: str) -> Workload:
    if name not in WORKLOADS:
        raise BenchError(f"there is no workload {name!r}; choose from {', '.join(WORKLOADS)}")
    return WORKLOADS[name]


def _thread_counts(threads: Sequence[int] | None) -> list[int]:
    cores = _cores()
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

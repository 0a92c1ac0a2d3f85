"""Curves of how the cost of a call grows, as pictures, tables and numbers.

::

    python benchmarks/curves.py FOLDER [--quick]        # needs: pip install -e ".[bench]"

FOLDER gets a picture and a table for each curve, and curves.json with everything. Times are medians; calls
that are compared take turns. The curves:

size      time against RoIs and against channels: should be straight lines
reach     time against how far boxes reach outside the map, adaptive sampling: should be flat
threads   how many times as fast with more threads; not on one core
float64   time of float64 over time of float32
overhead  microseconds that a call with one RoI takes above its compiled kernel
memory    peak memory of a call beyond its arrays: at most 64 MiB is promised
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import cyroialign
from cyroialign import _kernels, bench
from cyroialign.bench import machine
from cyroialign.bench.ours import ours
from cyroialign.operators import calls as operators

ROUNDS, QUICK_ROUNDS = 7, 1
PASSES = tuple(
    f"{direction} {layout}" for direction in ("forward", "backward") for layout in ("NCHW", "NHWC")
)
MANY_THREADS = 64  # have scratch memory, whether or not there are enough cores


class Curve(NamedTuple):
    """What one picture and one table show."""

    title: str
    y_label: str
    panels: dict[str, "Panel"]
    bars: bool = False
    log_x: bool = False
    guide: float | None = None  # a value of y to draw a line at


class Panel(NamedTuple):
    """One set of axes; each series has a number for each x."""

    x: list[Any]
    series: dict[str, list[float]]


class Session(NamedTuple):
    """How to measure."""

    quick: bool
    cores: int
    progress: Any

    @property
    def workloads(self):
        """The workloads of the benchmark; in a quick run two that are too small to be meaningful."""
        if not self.quick:
            return bench.WORKLOADS
        return {name: bench.WORKLOADS[name]._replace(rois=2, channels=16) for name in ("P4-box", "P2-mask")}

    def seconds(self, name, calls, rounds=ROUNDS):
        """Medians of the calls, in turns."""
        times = bench.take_turns(calls, QUICK_ROUNDS if self.quick else rounds, partial(self.say, name))
        return {call: statistics.median(of_call) for call, of_call in times.items()}

    def say(self, name, part, turn=""):
        """Show what is being done."""
        self.progress.show(part, f"{name} {turn}")


def passes(workload, threads=1, dtype="float32", boxes=None):
    """Return the calls of a workload by pass, with every array that they fill in place."""
    problem = workload.problem(threads)
    boxes = problem.boxes if boxes is None else boxes
    features, gradient = problem.features.astype(dtype), np.ones(problem.gradient.shape, dtype)
    rows = ours(problem._replace(features=features, gradient=gradient, boxes=boxes))
    return {f"{row.direction} {row.layout}": row.call for row in rows}


def by_pass(x, measured):
    """Turn medians for each x into a panel in milliseconds."""
    return Panel(list(x), {name: [1e3 * medians[name] for medians in measured] for name in PASSES})


def size(session):
    """P4-box with fewer or more RoIs and channels."""
    base = session.workloads["P4-box"]
    counts = (1, 2) if session.quick else (125, 250, 500, 1000, 2000)
    widths = (8, 16) if session.quick else (32, 64, 128, 256, 512)
    panels = {}
    for label, field, values in (
        (f"RoIs, {base.channels} channels", "rois", counts),
        (f"channels, {base.rois} RoIs", "channels", widths),
    ):
        calls = {
            (v, name): call for v in values for name, call in passes(base._replace(**{field: v})).items()
        }
        seconds = session.seconds(f"size: {field}", calls)
        panels[label] = by_pass(values, [{name: seconds[v, name] for name in PASSES} for v in values])
    return Curve("Time against RoIs and against channels (P4-box, 1 thread)", "milliseconds", panels)


def reach(session):
    """P4-box, adaptive, with boxes that cover the map and reach a given number of image pixels beyond it."""
    base = session.workloads["P4-box"]._replace(sampling_ratio=0)
    base = base._replace(rois=min(base.rois, 100))
    image = np.array([0, 0, base.width, base.height]) * base.stride
    beyond = [10**power for power in range(10)]
    calls = {}
    for pixels in beyond:
        boxes = np.zeros((base.rois, 5), np.float32)
        boxes[:, 1:] = image + pixels * np.array([-1, -1, 1, 1])
        calls |= {(pixels, name): call for name, call in passes(base, boxes=boxes).items()}
    seconds = session.seconds("reach", calls)
    panel = by_pass(beyond, [{name: seconds[pixels, name] for name in PASSES} for pixels in beyond])
    title = f"Boxes that reach far outside the map ({base.rois} RoIs, P4 map, adaptive, 1 thread)"
    label = "pixels of the image beyond each border"
    return Curve(title, "milliseconds", {label: panel}, log_x=True)


def threads(session):
    """Every workload with 2, 4, ... threads against one."""
    counts = sorted({*(1 << power for power in range(session.cores.bit_length())), session.cores})
    panels = {f"{n} threads": Panel(list(session.workloads), {p: [] for p in PASSES}) for n in counts[1:]}
    for name, workload in session.workloads.items():
        own = passes(workload, threads=None)
        calls = {(n, p): partial(call_with, n, call) for n in counts for p, call in own.items()}
        seconds = session.seconds(f"threads: {name}", calls)
        for n, panel in zip(counts[1:], panels.values(), strict=True):
            for p in PASSES:
                panel.series[p].append(seconds[1, p] / seconds[n, p])
    return Curve("Times as fast as one thread", "times as fast", panels, bars=True)


def call_with(threads, call):
    """Make a call with a given number of threads."""
    with cyroialign.num_threads(threads):
        call()


def float64(session):
    """Every workload in both types."""
    series = {name: [] for name in PASSES}
    for name, workload in session.workloads.items():
        types = ("float32", "float64")
        calls = {(t, p): call for t in types for p, call in passes(workload, dtype=t).items()}
        seconds = session.seconds(f"float64: {name}", calls)
        for p in PASSES:
            series[p].append(seconds["float64", p] / seconds["float32", p])
    panels = {"": Panel(list(session.workloads), series)}
    return Curve("Time of float64 over that of float32, 1 thread", "ratio", panels, bars=True, guide=2)


def kernel_of(call):
    """Return the call of the compiled kernel that a call of a public function ends in."""
    found = []

    class Recorder:
        """Stands where the kernels of a type do."""

        def __init__(self, dtype):
            self.real = _kernels.kernels(dtype)

        def __getattr__(self, name):
            method = getattr(self.real, name)

            def recorded(*given):
                found.append(partial(method, *given))
                return method(*given)

            return recorded if name in ("forward", "backward") else method

    # What reads plain arguments says that these are none: then the kernel is called from here.
    fast = dict.fromkeys(("forward_plain", "backward_plain"), lambda *given: None)
    with mock.patch.multiple(operators, kernels=Recorder, **fast):
        call()
    [kernel] = found
    return kernel


def overhead(session):
    """P5-single with few channels, so that the kernel itself takes little; a (1, 5) array of boxes."""
    workload = bench.WORKLOADS["P5-single"]._replace(channels=8)
    problem = workload.problem(1)
    features, output = problem.features, np.ones_like(problem.gradient)
    given = {**workload.options, "num_threads": 1}
    forward = partial(cyroialign.roi_align, features, problem.boxes, problem.bins, **given)
    backward = partial(cyroialign.roi_align_backward, output, problem.boxes, features.shape, **given)
    public = {
        "forward": forward,
        "forward, out=": partial(forward, out=output.copy()),
        "backward": backward,
        "backward, out=": partial(backward, out=features.copy()),
    }
    kernels = {name: kernel_of(call) for name, call in public.items()}
    calls = {("kernel", n): c for n, c in kernels.items()} | {("public", n): c for n, c in public.items()}
    seconds = session.seconds("overhead", calls, 5 * ROUNDS)  # a difference of times needs more
    inside = [1e6 * seconds["kernel", name] for name in public]
    above = [1e6 * (seconds["public", name] - seconds["kernel", name]) for name in public]
    panel = Panel(list(public), {"the compiled kernel": inside, "above it": above})
    title = "A call with one RoI (8 channels, 25 x 34, 7 x 7 bins), 1 thread"
    return Curve(title, "microseconds", {"": panel}, bars=True)


def memory(session):
    """Every workload, each pass in a separate process."""
    os.environ["MALLOC_PERTURB_"] = "1"  # glibc fills what it allocates: it counts, be it used or not
    context = multiprocessing.get_context("spawn")
    series = {name: [] for name in PASSES}
    for number, workload in enumerate(session.workloads.values()):
        for name in PASSES:
            session.say("memory", number / len(session.workloads), f"{name}, {workload.name}")
            with ProcessPoolExecutor(1, context) as process:
                peak = process.submit(extra_memory, workload, *name.split(), MANY_THREADS).result()
            series[name].append(peak)
    panel = Panel(list(session.workloads), series)
    title = f"Peak memory of a call beyond its arrays, {MANY_THREADS} threads"
    return Curve(title, "MiB", {"": panel}, bars=True, guide=64)


def extra_memory(workload, direction, layout, threads):
    """Return the MiB that the first call of this process takes at its peak, all its arrays being there.

    The kernel's own high-water mark is set back before the call; that of getrusage cannot be, and counts the
    parent of the process too.
    """
    order = (0, 2, 3, 1) if layout == "NHWC" else (0, 1, 2, 3)
    problem = workload.problem(threads)
    features = problem.features.transpose(order).copy()
    output = np.ones([problem.gradient.shape[axis] for axis in order], np.float32)
    options = {**workload.options, "layout": layout, "num_threads": threads}
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    if direction == "forward":
        cyroialign.roi_align(features, problem.boxes, problem.bins, out=output, **options)
    else:
        cyroialign.roi_align_backward(output, problem.boxes, features.shape, out=features, **options)
    return high_water() - before


def high_water():
    """MiB that this process had at most."""
    [line] = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) / 1024


def main(arguments=None):
    """Measure, draw and write."""
    from drawing import draw, table  # beside this script

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=pathlib.Path, help="where to write; made if it is not there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", action="append", choices=CURVES, help="a curve; repeat it for more")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    cores = machine.cores()
    chosen = [name for name in options.only or CURVES if name != "threads" or cores > 1]
    session = Session(options.quick, cores, bench.Progress(len(chosen)))
    found = {}
    for name in chosen:
        found[name] = CURVES[name](session)
        session.progress.end_task()
        draw(found[name], options.folder / f"{name}.png")
        (options.folder / f"{name}.md").write_text(table(found[name]))
        print(f"{found[name].title}\n\n{table(found[name])}")
    plain = {
        name: curve._replace(panels={k: v._asdict() for k, v in curve.panels.items()})._asdict()
        for name, curve in found.items()
    }
    (options.folder / "curves.json").write_text(json.dumps(machine.about() | plain, indent=1))


CURVES = {curve.__name__: curve for curve in (size, reach, threads, float64, overhead, memory)}

if __name__ == "__main__":
    main()

"""Give RoIAlign what no caller should, in every library that is installed, and say what each makes of it.

::

    python benchmarks/hostile.py                                        # writes into docs/reliability.md
    python benchmarks/hostile.py --case "image 10⁹" --library opencv    # prints, no more

Each case is a process of its own, with limits on memory and time, on Linux. All take about ten minutes.

Right is the value that the textbook of tests/reference.py has for RoIAlign with aligned=True, which all
participants compute. Where nobody defines a value, an error is right, and so is what arithmetic makes of it,
such as NaN of NaN. Each case is as lenient as it can be without letting a mistake pass for a result.
"""

import argparse
import importlib
import math
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
from collections import Counter
from typing import NamedTuple

import numpy as np

import cyroialign
from cyroialign.bench import machine, peers
from cyroialign.bench.problem import TOLERANCE, Problem

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
SETUP_SECONDS = 600  # to import a library and to have its first answer
SECONDS = 5  # of processor time, for a call that takes milliseconds where work is bounded
PATIENCE = 30  # times as long may pass on the clock, which other programs share
MEMORY = 2 * 2**30  # bytes above what the process has by then
OF_MEMORY = ("MemoryError", "bad_alloc", "bad_array_new_length", "max_size", "allocate")  # words of errors
SCORES = ("right", "error", "wrong", "memory", "hang", "crash")


# Cases

IMAGES, CHANNELS, HEIGHT, WIDTH = SHAPE = (2, 3, 16, 20)
BINS, THREADS = 7, machine.cores()
PLAIN = ((2.3, 1.2, 15.1, 12.7), (5.6, 3.1, 18.2, 14.4))  # one a map
MANY = 300  # samples a bin, whose mean is that of any larger number of them
FAR = 100  # coordinates and sampling ratios beyond this are for the textbook that visits no sample outside


class Case(NamedTuple):
    """What is given, and what is right: of a result, each box is looked at alone."""

    kind: str
    problem: Problem
    error: bool = False  # an error is right
    ratios: tuple[int, ...] = ()  # the textbook's value for any of these sampling ratios is right
    constants: tuple[float, ...] = ()  # bins of these are right
    leave_out: tuple[str, ...] = ()  # participants whose arguments cannot say this

    def accepts(self, result: np.ndarray) -> bool:
        """Tell whether a result is right."""
        corners, features, bins = self.problem.corners, self.problem.features, self.problem.bins
        if result.shape != (len(corners), features.shape[1], bins, bins):
            return False
        boxes, which = np.unique(self.problem.boxes, axis=0, return_inverse=True)
        return all(self._accepts(box, result[which.ravel() == n]) for n, box in enumerate(boxes))

    def _accepts(self, box: np.ndarray, of_box: np.ndarray) -> bool:
        known = [np.isnan(of_box) if np.isnan(one) else of_box == one for one in self.constants]
        if known and np.logical_or.reduce(known).all():
            return True
        features = self.problem.features
        atol = TOLERANCE * np.abs(features[np.isfinite(features)]).max(initial=0)
        wanted = (self.textbook(box, ratio) for ratio in self.ratios)
        return any(np.allclose(of_box, one, rtol=0, atol=atol, equal_nan=True) for one in wanted)

    def textbook(self, box: np.ndarray, ratio: int) -> np.ndarray:
        """Return the value of a box, sample after sample."""
        if str(ROOT / "tests") not in sys.path:
            sys.path.append(str(ROOT / "tests"))
        import reference
        import reference_bounded

        if not np.isfinite(box).all():
            return np.full((), np.nan)
        problem = self.problem
        book = reference_bounded if max(np.abs(box).max(), ratio) > FAR else reference
        given = ((problem.bins, problem.bins), problem.spatial_scale, ratio, True)
        with np.errstate(all="ignore"):
            return book.roi_align(problem.features, box[None], *given, dtype=np.float32)[0]


def given(corners=PLAIN, images=(0, 1), features=None, bins=BINS, ratio=2, scale=1.0) -> Problem:
    """What every participant is given; corners and images are joined where they fit."""
    corners, images = np.array(corners, np.float32), np.array(images, np.int64)
    if features is None:
        features = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    boxes = corners
    if corners.ndim == 2 and len(images) == len(corners):
        boxes = np.column_stack([images, corners]).astype(np.float32)
    no_gradient = np.zeros(0, np.float32)
    return Problem(features, boxes, corners, images, no_gradient, bins, scale, ratio, THREADS)


def spoiled(value: float) -> np.ndarray:
    """A map one pixel of which is not finite."""
    features = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    features[0, 1, 5, 6] = value
    return features


def around(side: float, count: int = 2) -> tuple[tuple[float, ...], ...]:
    """Boxes of that side, centred on the corner of the map."""
    return ((-side / 2, -side / 2, side / 2, side / 2),) * count


def with_number(value: float) -> tuple[tuple[float, ...], ...]:
    """Boxes of which the last has a number that is not finite."""
    return PLAIN[0], (*PLAIN[1][:3], value)


def empty(*shape: int) -> np.ndarray:
    """A map without pixels."""
    return np.zeros(shape, np.float32)


NAN = float("nan")
INVERTED = ((15.1, 12.7, 2.3, 1.2), (18.2, 14.4, 5.6, 3.1))
POINTS = ((5.3, 6.2, 5.3, 6.2),) * 2
NONE = np.zeros((0, 4))
FIXED, ADAPTIVE = {"ratios": (2,)}, {"ratios": (0,)}
NONE_OR_ONE = {"ratios": (0, 1)}  # samples of a bin
REFUSED = {"error": True}
NO_VALUE = {"error": True, "constants": (0, NAN)}

CASES = {
    "two boxes": Case("plain", given(), **FIXED),
    "two boxes, adaptive": Case("plain", given(ratio=0), **ADAPTIVE),
    "inverted": Case("box", given(INVERTED), constants=(0,), **FIXED),
    "inverted, adaptive": Case("box", given(INVERTED, ratio=0), **NONE_OR_ONE),
    "of no size": Case("box", given(POINTS), constants=(0,), **FIXED),
    "of no size, adaptive": Case("box", given(POINTS, ratio=0), **NONE_OR_ONE),
    "beside the map": Case("box", given(((900, 800, 950, 870),) * 2), **FIXED),
    "NaN for a coordinate": Case("not finite", given(with_number(NAN)), True, (2,), (NAN,)),
    "NaN for a coordinate, adaptive": Case(
        "not finite", given(with_number(NAN), ratio=0), True, (0,), (NAN,)
    ),
    "infinity for a coordinate": Case("not finite", given(with_number(np.inf)), True, (2,), (0, NAN)),
    "infinity for a coordinate, adaptive": Case(
        "not finite", given(with_number(np.inf), ratio=0), True, (0,), (0, NAN)
    ),
    "NaN in the map": Case("not finite", given(features=spoiled(NAN)), **FIXED),
    "infinity in the map": Case("not finite", given(features=spoiled(np.inf)), **FIXED),
    "10⁴ pixels, adaptive": Case("huge", given(around(1e4), ratio=0), **ADAPTIVE),
    "1000 boxes of 5000 pixels, adaptive": Case(
        "huge", given(around(5e3, 1000), [0] * 1000, ratio=0), **ADAPTIVE
    ),
    "10⁶ pixels, adaptive": Case("huge", given(around(1e6), ratio=0), **ADAPTIVE),
    "10⁹ pixels, adaptive": Case("huge", given(around(1e9), ratio=0), **ADAPTIVE),
    "10³⁰ pixels, adaptive": Case("huge", given(around(1e30), ratio=0), **ADAPTIVE),
    "10³⁰ pixels": Case("huge", given(around(1e30)), **FIXED),
    "sampling ratio 32767": Case("huge", given(ratio=32767), ratios=(MANY,)),
    "sampling ratio 2³¹ − 1": Case("huge", given(ratio=2**31 - 1), True, (MANY,)),
    "65536 × 65536 bins": Case("huge", given(bins=2**16), **REFUSED),
    "2³¹ × 2³¹ bins": Case("huge", given(bins=2**31), **REFUSED),
    "corners at ±3·10³⁸": Case("overflow", given(around(6e38)), **NO_VALUE),
    "corners at ±3·10³⁸, adaptive": Case("overflow", given(around(6e38), ratio=0), **NO_VALUE),
    "10³⁰ pixels and a scale of 10³⁰": Case("overflow", given(around(1e30), scale=1e30), **NO_VALUE),
    "a scale of NaN": Case("overflow", given(scale=NAN), **NO_VALUE),
    "a scale of −1": Case("overflow", given(scale=-1.0), True, (2,), (0,)),
    "no boxes": Case("empty", given(NONE, ())),
    "no boxes and no images": Case("empty", given(NONE, (), empty(0, *SHAPE[1:]))),
    "no channels": Case("empty", given(features=empty(2, 0, 16, 20)), **FIXED),
    "no rows of pixels": Case("empty", given(features=empty(2, 3, 0, 20)), **NO_VALUE),
    "no bins": Case("empty", given(bins=0), True, (2,)),
    "image 2 of 2": Case("lie", given(images=(0, 2)), **REFUSED),
    "image −1": Case("lie", given(images=(0, -1)), **REFUSED),
    "image 10⁹": Case("lie", given(images=(0, 10**9)), **REFUSED),
    "boxes of three numbers": Case("lie", given(np.array(PLAIN)[:, :3]), **REFUSED),
    "boxes of five numbers": Case("lie", given(np.tile(PLAIN, 2)[:, :5]), **REFUSED),
    "boxes as one row of numbers": Case("lie", given(np.ravel(PLAIN)), **REFUSED),
    "fewer images than boxes": Case("lie", given(images=(0,)), leave_out=("torchvision",), **REFUSED),
    "more images than boxes": Case("lie", given(images=(0, 1, 1)), leave_out=("torchvision",), **REFUSED),
    "a map of three axes": Case("lie", given(features=empty(*SHAPE[1:])), **REFUSED),
    "a map of five axes": Case("lie", given(features=empty(1, *SHAPE)), **REFUSED),
}


# Participants


def participants():
    """Return what each library makes of a problem, and their versions."""
    found, versions = peers.installed()[0], {"cyroialign": cyroialign.__version__, "numpy": np.__version__}
    for peer in found:
        versions |= peer.versions()
    server = multiprocessing.get_context("forkserver")  # of processes: it imports and does no more
    server.set_forkserver_preload(["cyroialign.bench", *(name for peer in found for name in peer.modules)])
    own = {"cyroialign": with_cyroialign}
    for peer in found:
        own[peer.library] = with_onnxruntime if peer.library == "onnxruntime" else FirstRow(peer.library)
    return own, versions


def with_cyroialign(problem):
    """Images and boxes apart, as the others take them."""
    settings = (problem.bins, problem.spatial_scale, problem.sampling_ratio, True)
    options = {"batch_indices": problem.images, "num_threads": problem.threads}
    return cyroialign.roi_align(problem.features, problem.corners, *settings, **options)


def with_onnxruntime(problem):
    """Without a bound output, whose shape a caller cannot know in some cases."""
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(peers.onnx_model(problem), providers=["CPUExecutionProvider"])
    inputs = {"input": problem.features, "boxes": problem.corners, "images": problem.images}
    return session.run(None, inputs)[0]


class FirstRow:
    """The forward pass that the benchmark times."""

    def __init__(self, library):
        self.library = library

    def __call__(self, problem):
        """Set it up, run it, and copy the result while it is there."""
        [peer] = [peer for peer in peers.PEERS if peer.library == self.library]
        row = peer.rows(problem)[0]
        return np.array(row.call())


# Scores


def score(participant, case, seconds=SECONDS, memory=MEMORY):
    """Tell one of SCORES, and what the participant said or how it ended."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(participant, case.problem, seconds, memory, sender))
    process.start()
    sender.close()
    try:
        kind, what = receiver.recv()
    except EOFError:
        kind, what = "nothing", ""
    process.join()
    if process.exitcode in (-signal.SIGXCPU, -signal.SIGALRM):
        return "hang", f"not done in {seconds} s"
    if process.exitcode:
        return "crash", f"exit status {process.exitcode}"
    if kind == "unusable":
        raise RuntimeError(f"fails at two boxes: {what}")
    if kind == "value":
        return ("right", "its value") if case.accepts(what) else ("wrong", "another value")
    if case.error:
        return "right", what
    return ("memory" if any(word in what for word in OF_MEMORY) else "error"), what


def answer(participant, problem, seconds, memory, sender):
    """Send, from the process of the case, what the participant returns or raises if it lives."""
    import resource  # which Windows lacks

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.setitimer(signal.ITIMER_REAL, SETUP_SECONDS)  # ends the process, as RLIMIT_CPU does
    try:
        participant(CASES["two boxes"].problem)
    except Exception as error:
        sender.send(("unusable", peers.reason(error)))
        return
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + seconds), -1))
    signal.setitimer(signal.ITIMER_REAL, seconds * PATIENCE)
    try:
        sender.send(("value", np.asarray(participant(problem))))
    except Exception as error:
        sender.send(("error", peers.reason(error)))


def table(scores, versions):
    """Write Markdown: a row for each case, a column for each library."""
    libraries = list(next(iter(scores.values())))
    lines = ["| | case | " + " | ".join(libraries) + " |", "| --- | --- |" + " --- |" * len(libraries)]
    kinds = ""
    for name, of_case in scores.items():
        kind = CASES[name].kind
        cells = [kind if kind != kinds else "", name, *(of_case.get(one, "") for one in libraries)]
        kinds = kind
        lines.append("| " + " | ".join(cells) + " |")
    counts = {one: Counter(of_case.get(one) for of_case in scores.values()) for one in libraries}
    for word in SCORES:
        cells = ["sum", word, *(str(counts[one][word]) for one in libraries)]
        lines.append("| " + " | ".join(cells) + " |")
    limits = f"{SECONDS} s of processor time and {MEMORY // 2**30} GiB a call"
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([*lines, "", f"Limits: {limits}. Threads: {THREADS}. Versions: {used}.", ""])


def main(arguments=None):
    """Score all and write, or some and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--case", action="append", choices=CASES, help="a case; repeat it for more")
    parser.add_argument("--library", action="append", help="a library; repeat it for more")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    known, versions = participants()
    libraries = {name: known[name] for name in options.library or known}
    scores = {}
    for name in options.case or CASES:
        scores[name] = {}
        for library, participant in libraries.items():
            if library not in CASES[name].leave_out:
                scores[name][library], what = score(participant, CASES[name])
                print(f"{name}: {library}: {scores[name][library]} ({what[:160]})", flush=True)
    page = table(scores, versions)
    print(page)
    if not options.case and not options.library:
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "hostile.md").write_text(page)
            from figures import fill  # only here: asv imports this file from elsewhere

            fill(options.page, pathlib.Path(folder))


if __name__ == "__main__":
    main()

"""Give RoIAlign what no caller should, in every library that is installed, and say what each makes of it.

::

    python benchmarks/hostile.py                                        # writes into docs/reliability.md
    python benchmarks/hostile.py --case "image 10⁹" --library opencv    # prints, no more

Each case is a process of its own, with limits on memory and time, on Linux. All take about ten minutes.
"""

import argparse
import importlib
import math
import multiprocessing
import os
import pathlib
import signal
import tempfile
from collections import Counter

import numpy as np
from figures import fill
from hostile_cases import CASES, THREADS

import cyroialign
from cyroialign.bench import peers

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "reliability.md"
SETUP_SECONDS = 600  # to import a library and to have its first answer
SECONDS = 5  # of processor time, for a call that takes milliseconds where work is bounded
PATIENCE = 30  # times as long may pass on the clock, which other programs share
MEMORY = 2 * 2**30  # bytes above what the process has by then
OF_MEMORY = (
    "MemoryError",
    "bad_alloc",
    "bad_array_new_length",
    "max_size",
    "allocate",
    "Insufficient memory",
)
SCORES = ("right", "error", "wrong", "memory", "hang", "crash")


def participants():
    """Return what each library makes of a problem, and their versions."""
    found, versions = peers.installed()[0], {"cyroialign": cyroialign.__version__, "numpy": np.__version__}
    for peer in found:
        versions |= peer.versions()
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
    return session.run(None, {"input": problem.features, "boxes": problem.corners, "images": problem.images})[
        0
    ]


class FirstRow:
    """The forward pass that the benchmark times."""

    def __init__(self, library):
        self.library = library

    def __call__(self, problem):
        """Set it up, run it, and copy the result while it is there."""
        [peer] = [peer for peer in peers.PEERS if peer.library == self.library]
        row = peer.rows(problem)[0]
        return np.array(row.call())


def score(participant, case, seconds=SECONDS, memory=MEMORY):
    """Tell one of SCORES, and what the participant said or how it ended."""
    context = multiprocessing.get_context("forkserver")  # which has imported the libraries and done no more
    context.set_forkserver_preload(
        ["hostile_cases", *(name for peer in peers.PEERS for name in peer.modules)]
    )
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
            fill(options.page, pathlib.Path(folder))


if __name__ == "__main__":
    main()

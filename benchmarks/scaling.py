"""How well the schedule shares out the work among more threads than this machine has cores.

::

    python benchmarks/scaling.py [--threads 4,16,64] [--workload NAME] [--quick]

The pieces are those of the real schedule, not of a model of it: each call runs with ``num_threads`` of 4, 16
and 64, and scaling.c, a library that stands between the kernels and GNU's OpenMP runtime, notes each piece
that the loop hands out and the processor time that it took. A model in Python of how ``src/call.pxi`` cuts
the work would be no shorter, would be wrong as soon as that file changes, and would have to guess what a
piece costs: its setup, its cache misses, its empty bins.

What cannot be had without the cores is who works on what, since threads that share a core take pieces in
another order. That part is simulated: in the order in which they are handed out, each piece goes to the
thread that is free first, as ``schedule(dynamic)`` does. All else that limits real threads, memory
bandwidth and shared caches first, is not in these figures: they say what the schedule allows.

outside
    The share of a call with one thread that is not in the pieces: Python, and the tables of the RoIs.
last/mean
    Time of the thread that ends last, over the mean of all: 1 is a perfect balance.
speed-up
    Time of the call with one thread, over the part outside the pieces, as if one thread did it, and then the
    last thread's time. It falls where smaller pieces are more work, and may pass the number of threads
    where they fit the cache better.

Needs Linux, a C compiler, and kernels built by GCC. Medians of rounds, in which the numbers of threads take
turns.
"""

import argparse
import ctypes
import heapq
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

ROUNDS, QUICK_ROUNDS = 3, 1


class Piece(ctypes.Structure):
    """As in scaling.c."""

    _fields_ = (("first", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def load_recorder():
    """Compile and load scaling.c; it only works before anything has loaded the kernels."""
    source = pathlib.Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder, "scaling.so")
        command = ["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-lgomp", "-ldl"]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def record(recorder, call):
    """Make a call; return its seconds outside the pieces and those of each piece, loop after loop."""
    count = ctypes.c_long.in_dll(recorder, "handed_out")
    count.value = 0
    start = time.thread_time()
    call()
    seconds = time.thread_time() - start
    pieces = (Piece * count.value).in_dll(recorder, "pieces")
    loops = []
    seen = {}  # a loop hands out each iteration once
    for piece in pieces:
        number = seen[piece.first] = seen.get(piece.first, -1) + 1
        if number == len(loops):
            loops.append({})
        loops[number][piece.first] = piece.nanoseconds / 1e9
    if any(sorted(loop) != list(range(len(loop))) for loop in loops):
        raise RuntimeError("a loop has handed out something other than its iterations, one by one")
    return seconds, [[loop[first] for first in range(len(loop))] for loop in loops]


def typical(recordings):
    """The median of each piece over the rounds."""
    return [
        [statistics.median(costs) for costs in zip(*same_loop, strict=True)]
        for same_loop in zip(*recordings, strict=True)
    ]


def finish(costs, threads):
    """When each thread ends, if each piece in turn goes to the thread that is free first."""
    free = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return free


def simulate(record_with, counts, rounds):
    """Return the share outside the pieces, and for each number of threads what the head of this file says."""
    recordings = {count: [] for count in (1, *counts)}
    for _ in range(rounds + 1):
        for count, of_count in recordings.items():
            of_count.append(record_with(count))
    for of_count in recordings.values():
        del of_count[0]  # it warmed up
    whole = statistics.median(seconds for seconds, _ in recordings[1])
    outside = statistics.median(seconds - sum(map(sum, loops)) for seconds, loops in recordings[1])
    figures = {}
    for count in counts:
        loops = typical([loops for _, loops in recordings[count]])
        last = sum(max(finish(costs, count)) for costs in loops)
        mean = sum(map(sum, loops)) / count
        figures[count] = {
            "pieces": sum(map(len, loops)),
            "last/mean": last / mean,
            "speed-up": whole / (outside + last),
        }
    return outside / whole, figures


def table(rows, counts):
    """Write Markdown: a line for each workload, direction and layout."""
    head = [f"{column}, {count}" for count in counts for column in ("pieces", "last/mean", "speed-up")]
    lines = [
        f"| workload | pass | outside | {' | '.join(head)} |",
        "| --- | --- |" + " ---: |" * (1 + len(head)),
    ]
    for (workload, name), (outside, figures) in rows.items():
        cells = [f"{of['pieces']} | {of['last/mean']:.2f} | {of['speed-up']:.1f}" for of in figures.values()]
        lines.append(f"| {workload} | {name} | {outside:.1%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments=None):
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", default="4,16,64", help="numbers of threads (default: %(default)s)")
    parser.add_argument("--workload", action="append", help="a workload; repeat it for more (default: all)")
    parser.add_argument("--quick", action="store_true", help="one round")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the core to those that work
    recorder = load_recorder()
    import cyroialign
    from cyroialign import bench
    from cyroialign.bench.ours import ours

    counts = [int(count) for count in options.threads.split(",")]
    rows = {}
    for name in options.workload or bench.WORKLOADS:
        problem = bench.WORKLOADS[name].problem(None)  # number of threads from the context
        for row in ours(problem):

            def record_with(threads, call=row.call):
                with cyroialign.num_threads(threads):
                    return record(recorder, call)

            rounds = QUICK_ROUNDS if options.quick else ROUNDS
            rows[name, f"{row.direction} {row.layout}"] = simulate(record_with, counts, rounds)
    print(table(rows, counts))


if __name__ == "__main__":
    main()

"""How long a call takes while others want the same cores: other processes, or threads of this one that spin.

::

    python benchmarks/busy.py               # needs: pip install -e ".[bench]"; about two minutes
    python benchmarks/busy.py --seconds 20 --rois 1,100 --competitors 0,2

Nothing else should run on the machine meanwhile. The process computes beside 0, 1, 2 and 4 others that never
rest; and it runs a convolution in a session of ONNX Runtime, whose threads spin for a while when it is done,
before each call. Of the calls, the mean, the median and the 99th percentile are shown, in milliseconds, with
the default number of threads and with one. RoiAlign of ONNX Runtime takes turns with them.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np

import cyroialign
from cyroialign import bench
from cyroialign.bench import machine
from cyroialign.bench.ours import ours
from cyroialign.bench.peers import installed

SLICES = 5  # turns that each function takes
PAUSE = 0.02  # seconds before a turn, in which the threads of the function before it stop spinning
SPINNING = "session"  # instead of a number of processes
# It ends by itself, should nobody end it: with its parent, or when its time is over.
COMPETITOR = """
import os, sys, time
parent, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
print(flush=True)
while time.monotonic() < end and os.getppid() == parent:
    sum(range(10_000))
"""
BACKBONE = """
    <ir_version: 8, opset_import: ["": 16]>
    graph (float[n, c, h, w] x) => (float[n, d, p, q] y) { y = Conv <pads = [1, 1, 1, 1]> (x, weights) }"""


class Spread(NamedTuple):
    """What calls took, in milliseconds."""

    mean: float
    p50: float
    p99: float


def spread(seconds):
    """Sum up the times of calls."""
    ordered = sorted(1e3 * second for second in seconds)
    last = min(len(ordered) - 1, int(0.99 * len(ordered)))
    return Spread(statistics.mean(ordered), statistics.median(ordered), ordered[last])


@contextlib.contextmanager
def competitors(count, limit):
    """Let so many processes compute, no longer than `limit` seconds."""
    command = [sys.executable, "-c", COMPETITOR, str(os.getpid()), str(limit)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in processes:
            process.stdout.readline()  # it computes from now on
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def calls_of(rois, channels=256):
    """Return what takes turns, by name: forward of RoIs on a map of 50 by 68 pixels."""
    workload = bench.WORKLOADS["P4-box"]._replace(rois=rois, channels=channels)
    runtime = [peer for peer in installed()[0] if peer.library == "onnxruntime"]
    calls = {
        "cyroialign, 1 thread": ours(workload.problem(1))[0].call,
        "cyroialign": ours(workload.problem(None))[0].call,
    }
    for peer in runtime:
        calls["onnxruntime, 1 thread"] = peer.rows(workload.problem(1))[0].call
        calls["onnxruntime"] = peer.rows(workload.problem(0))[0].call  # as many threads as it likes
    return calls


def spinning():
    """Return a call after which threads of ONNX Runtime spin; None where it is not installed."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(BACKBONE)
    weights = rng.standard_normal((64, 64, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(2, machine.cores())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    feed = {"x": rng.standard_normal((1, 64, 50, 68), np.float32)}
    return lambda: session.run(None, feed)


def take_turns(calls, seconds, before=None, clock=time.perf_counter, sleep=time.sleep):
    """Repeat each call for its share of the seconds, in turns; return what each call took, by name.

    Where calls are longer than their shares, the turns are fewer; one call of each is always made.
    """
    found = {name: [] for name in calls}
    share, over = seconds / SLICES / len(calls), clock() + seconds
    for _ in range(SLICES):
        for name, call in calls.items():
            sleep(PAUSE)
            call()  # wakes its threads
            end = clock() + share
            while True:
                if before:
                    before()
                start = clock()
                call()
                stop = clock()
                found[name].append(stop - start)
                if stop >= end:
                    break
        if clock() >= over:
            break
    return found


def beside(count, calls, seconds):
    """Return the spread of each call beside so many processes, or beside a session whose threads spin."""
    before = spinning() if count == SPINNING else None
    with competitors(0 if count == SPINNING else count, 10 * seconds + 60):
        return {name: spread(found) for name, found in take_turns(calls, seconds, before).items()}


def row(count, rois, spreads):
    """Write a line of the table, and whether the default number of threads keeps what is promised."""
    few = {SPINNING: "an ONNX Runtime session", 0: "nothing", 1: "1 process"}
    words = few.get(count, f"{count} processes")
    cells = [" / ".join(f"{figure:.3g}" for figure in spread) for spread in spreads.values()]
    one, default = spreads["cyroialign, 1 thread"].mean, spreads["cyroialign"].mean
    kept = "yes" if default <= 2 * one + 0.2 else "no"
    return f"| {' | '.join([words, str(rois), *cells, kept])} |"


def numbers(text):
    """Read numbers with commas between them."""
    return [int(number) for number in text.split(",")]


def main(arguments=None):
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=100, help="of all calls together: %(default)s")
    parser.add_argument("--rois", type=numbers, default=[1, 10, 100, 1000], help="RoIs of a call, like 1,100")
    parser.add_argument("--competitors", type=numbers, default=[0, 1, 2, 4], help="processes, like 0,2")
    parser.add_argument("--channels", type=int, default=256, help="default: %(default)s")
    options = parser.parse_args(arguments)
    counts = [*options.competitors, *[SPINNING] * (spinning() is not None)]
    seconds = options.seconds / len(counts) / len(options.rois)
    progress = bench.Progress(len(counts) * len(options.rois))
    rows = []
    for rois in options.rois:
        calls = calls_of(rois, options.channels)
        for count in counts:
            progress.show(0, f"{rois} RoIs beside {count}")
            rows.append(row(count, rois, beside(count, calls, seconds)))
            progress.end_task()
    threads = cyroialign.get_num_threads()
    print(
        f"{machine.processor()}, {os.cpu_count()} cores, {threads} threads by default; RoIAlign of "
        f"{options.channels} channels, 7 x 7 bins; mean / median / 99th percentile in milliseconds; "
        "kept: the mean by default is at most twice that of one thread and 0.2 ms\n"
    )
    head = ["beside", "RoIs", *calls, "kept"]
    print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

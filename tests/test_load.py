"""Threads where nobody says how many: fewer on cores that have other work. Who says how many has those.

Nothing here measures time: it asks what a call would have, and tells what calls took.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time

import busy_calls
import numpy as np
import pytest

import cyroialign
from cyroialign._kernels import _front
from cyroialign.arguments import threads

SECOND = 10**9
MOST = 64
PATIENCE = 30  # seconds, for what the system has to notice

on_linux = pytest.mark.skipif(
    platform.system() != "Linux" or not os.access("/proc/loadavg", os.R_OK),
    reason="nothing tells of others' work",
)
needs_openmp = pytest.mark.skipif(
    cyroialign.show_config(as_dict=True)["openmp"] is None, reason="built without OpenMP: always one thread"
)


def repay():
    """Note a call on one thread that took far longer than all that others lost."""
    _front.note(1, 10**6 * SECOND, 0)


@pytest.fixture(autouse=True)
def clean():
    """Nothing is owed, before and after."""
    repay()
    yield
    repay()


@pytest.fixture
def others():
    """As many processes as there are processors, that compute and want them all."""
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() + 1):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def comes_true(condition):
    """Whether it does before patience ends."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@on_linux
@pytest.mark.usefixtures("others")
def test_one_thread_beside_others():
    assert comes_true(lambda: all(_front.threads_now(n) == 1 for n in (1, 2, MOST)))


@on_linux
def test_one_thread_beside_threads_that_spin():
    """Those of another runtime in this process wait at full speed for their next work."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 16]>
        f (float[n, n] x) => (float[n, n] y) { z = MatMul (x, x) y = MatMul (z, x) }""")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2 * os.cpu_count()
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    feed, done = {"x": np.ones((256, 256), np.float32)}, threading.Event()

    def serve():
        while not done.is_set():
            session.run(None, feed)

    server = threading.Thread(target=serve)
    server.start()
    try:
        assert comes_true(lambda: _front.threads_now(MOST) == 1)
        assert busy_calls.digests() == busy_calls.digests(num_threads=1)
    finally:
        done.set()
        server.join()


@on_linux
@needs_openmp
@pytest.mark.usefixtures("others")
def test_what_is_asked_for_is_what_there_is(run_python):
    """On busy cores, and with lost time to repay: explicit numbers count, each way to give them."""
    code = """
        import os, busy_calls, cyroialign
        from cyroialign._kernels import _front

        def threads():
            return len(os.listdir("/proc/self/task"))

        before = threads()
        _front.note(2, 3600 * 10**9, 10**9)
        expected = busy_calls.digests()
        assert threads() == before  # by default: one thread
        assert busy_calls.digests(num_threads=2) == expected
        assert threads() == before + 1
        with cyroialign.num_threads(3):
            assert busy_calls.digests() == expected
        assert threads() == before + 2
        cyroialign.set_num_threads(5)
        assert busy_calls.digests() == expected
        assert threads() == before + 4
    """
    run_python(code, timeout=180, OMP_NUM_THREADS="4")


@needs_openmp
def test_only_what_nobody_asked_for_may_be_fewer(monkeypatch):
    monkeypatch.setattr(threads, "_process_setting", None)
    assert threads.threads_for(None)[1]
    assert threads.threads_for(threads.AtMost(3)) == (3, True)  # of torch, say
    assert threads.threads_for(3) == (3, False)
    with cyroialign.num_threads(4):
        assert threads.threads_for(None) == (4, False)
        assert threads.threads_for(5) == (5, False)
    cyroialign.set_num_threads(6)
    assert threads.threads_for(None) == (6, False)


# Calls that are noted, (threads, seconds, seconds that all threads computed), and how many threads of MOST
# there are after each, on a system that tells nothing.
COURSES = {
    "lost time": [((2, 4, 1), 1), ((1, 11, 11), 1), ((1, 1.01, 0), MOST)],  # repaid in four times as long
    "losses add up": [((4, 2, 1), 1), ((2, 2, 1), 1), ((4, 2, 1), 1), ((1, 11, 0), 1), ((1, 2, 0), MOST)],
    "no gain": [((2, 1, 1), MOST)],
    "gain": [((2, 1, 2), MOST)],
    "not measured": [((2, 1, 0), MOST)],
    "no credit": [((1, 100, 100), MOST), ((2, 2, 1), 1)],
    "explicit, while there is a debt": [((2, 2, 1), 1), ((2, 1, 2), 1), ((1, 4.01, 0), MOST)],
    "one thread loses nothing": [((1, 9, 1), MOST)],
}


def had(courses):
    """What is had after each note, where /proc/loadavg cannot be opened: for a fresh interpreter."""
    if platform.system() == "Linux":
        import resource

        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        _front.threads_now(1)  # tries once
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    results = {}
    for name, steps in courses.items():
        repay()
        results[name] = []
        for (count, wall, computed), _ in steps:
            _front.note(count, int(wall * SECOND), int(computed * SECOND))
            results[name].append(_front.threads_now(MOST))
    return results


def test_lost_time_is_repaid_by_calls_on_one_thread(run_python):
    code = "import json, test_load; print(json.dumps(test_load.had(test_load.COURSES)))"
    expected = {name: [number for _, number in steps] for name, steps in COURSES.items()}
    assert json.loads(run_python(code, timeout=180).stdout) == expected


def test_a_system_that_tells_nothing_gives_all(run_python):
    """Also beside others: only what calls cost is known there."""
    code = "import test_load as t; t.had({}); print(*(t._front.threads_now(n) for n in (1, 2, t.MOST)))"
    assert run_python(code, timeout=180).stdout.split() == ["1", "2", str(MOST)]

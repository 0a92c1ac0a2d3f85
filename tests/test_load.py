"""How many threads a call has where nobody says: fewer on cores that have other work, and all that are asked for.

Nothing here measures time: it asks what a call would have, and tells what calls took.
"""

import contextlib
import os
import platform
import subprocess
import sys
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
    platform.system() != "Linux" or not os.access("/proc/loadavg", os.R_OK), reason="nothing tells of others' work"
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


@pytest.fixture(scope="module")
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
def test_no_more_threads_than_processors():
    """The linger of our own idle threads does not count as others' work: it is over when this ends."""
    assert comes_true(lambda: 1 <= _front.threads_now(2**30) <= 2**30)
    assert _front.threads_now(1) == 1


def own_threads():
    return len(os.listdir("/proc/self/task"))

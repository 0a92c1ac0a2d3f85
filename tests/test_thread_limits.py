"""Where the system gives no further thread a call runs on those there are, and the process lives on.

Each case is a process that sets a limit for itself: on the processes of its user, as containers have them, or
on its address space. OpenMP's runtime would end it, past `finally`, `except` and `atexit`.
"""

import platform

import pytest

import cyroialign

pytestmark = [
    pytest.mark.skipif(platform.system() != "Linux", reason="limits of Linux"),
    pytest.mark.skipif(
        cyroialign.show_config(as_dict=True)["openmp"] is None,
        reason="built without OpenMP: always one thread",
    ),
]
SINGLE = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # of NumPy: no threads
PRELUDE = """
import atexit, os, resource, threading
import busy_calls

expected = busy_calls.digests(num_threads=1)  # and all that has to be imported
atexit.register(lambda: print("at exit", flush=True))

def threads():
    return len(os.listdir("/proc/self/task"))

def forbid():
    # No further thread; root has no limit, and becomes another user.
    if os.getuid() == 0:
        os.setgid(65534), os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        print("not enforced", flush=True)
    except RuntimeError:
        pass

def leave_room(megabytes):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(megabytes * 2**20),) * 2)

def right(num_threads):
    assert busy_calls.digests(num_threads=num_threads) == expected
    return threads()

assert threads() == 1
"""


@pytest.fixture
def lives(run_python):
    """Run code that asserts; it comes to its end and exits as every program does."""

    def run(code, **variables):
        said = run_python(PRELUDE + code, timeout=180, **SINGLE, **variables).stdout.splitlines()
        if "not enforced" in said:
            pytest.skip("this system does not count the threads of a user")
        assert said == ["at exit"]

    return run


def test_without_a_limit_there_are_threads(lives):
    """Or the other tests would say nothing."""
    lives("assert right(4) == 4")


def test_no_thread_from_the_start(lives):
    lives("forbid(); assert [right(n) for n in (1, 2, 64)] == [1, 1, 1]")


def test_no_thread_by_default(lives):
    lives("forbid(); assert right(None) == 1", OMP_NUM_THREADS="4")


def test_limit_that_comes_after_a_team(lives):
    """The team stays, and does not grow."""
    lives("right(2); forbid(); assert [right(n) for n in (2, 1, 4, 2)] == [2] * 4")


def test_team_that_shrank_before_the_limit(lives):
    lives("right(4); right(2); forbid(); assert right(4) <= 4")


def test_other_python_threads_have_no_team(lives):
    lives("""
from concurrent.futures import ThreadPoolExecutor

start = threading.Barrier(4)
with ThreadPoolExecutor(3) as pool:
    def work(n):
        start.wait()
        return right(n)
    results = [pool.submit(work, n) for n in (1, 2, 3)]  # the threads are there, before the limit
    forbid()
    start.wait()
    right(3)
    assert [one.result() for one in results] == [4] * 3  # Python's, and none beside
""")


def test_threads_of_python_that_grow_their_teams(lives):
    """From 2 to 4 each, all at once, after the limit came."""
    lives("""
from concurrent.futures import ThreadPoolExecutor

start = threading.Barrier(2)
def work(n):
    start.wait()
    return right(n)

with ThreadPoolExecutor(2) as pool:
    list(pool.map(work, (2, 2)))
    before = threads()
    forbid()
    assert max(pool.map(work, (4, 4))) <= before == 5
""")


@pytest.mark.parametrize("megabytes", [4, 12, 28, 150])
def test_little_memory(megabytes, lives):
    """Room for the stacks, of 8 MiB each, of no thread, of one, of some and of all."""
    lives(f"""
resource.setrlimit(resource.RLIMIT_STACK, (2**23, resource.getrlimit(resource.RLIMIT_STACK)[1]))
leave_room({megabytes})
assert [right(n) for n in (2, 4, 3, 4)][0] <= 2
""")


@pytest.mark.parametrize("megabytes", [4, 20])
def test_little_memory_after_a_team(megabytes, lives):
    lives(f"right(2); leave_room({megabytes}); right(2), right(4), right(4)")


@pytest.mark.parametrize("size", ["64M", "16384"])
def test_large_stacks(size, lives):
    """As the variable of OpenMP asks for them: what is measured is a stack of that size."""
    lives("leave_room(12); assert right(4) == 1", OMP_STACKSIZE=size)

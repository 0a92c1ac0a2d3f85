"""What test_faults.py runs beside failing_malloc.c: calls of which each allocation fails in turn."""

import ctypes
import functools
import gc
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from busy_calls import call_of
from operators import DIRECTIONS, in_layout

FILLING = 77
MEMORY = (MemoryError, SystemError)


@functools.cache
def malloc():
    """Return failing_malloc.c, loaded before all else."""
    library = ctypes.CDLL(None)
    library.seen.restype = ctypes.c_long
    library.live.restype = ctypes.c_long
    return library


def fail_each(operator, direction, where, threads):
    """Fail the allocations of a call one after the other; how many there were, and how many ended it."""
    call = call_of(operator)
    keywords = operator.keywords(direction, call, "NCHW") | {"num_threads": threads}
    function = functools.partial(operator.callable(direction), **keywords)
    expected = bytes_of(operator, direction, function())
    out = nothing = None
    if operator.accepts(direction, "out"):
        out = in_layout(operator.run(direction, call)[0], "NCHW")
        nothing = np.full_like(out, FILLING).tobytes()
        function = functools.partial(function, out=out)
    failed = 0
    for n in itertools.count(1):
        if out is not None:
            out.fill(FILLING)
        found, count = (in_new_thread if threads > 1 else apply)(attempt, function, n, where)
        if found is None:
            failed += 1
            assert out is None or out.tobytes() in (nothing, *expected), f"allocation {n}: out is half filled"
        else:
            assert bytes_of(operator, direction, found) == expected, f"allocation {n}: another result"
        if count < n:
            return n - 1, failed


def attempt(function, n, where):
    """Call with one failure: the result, None for an error, and how many allocations there were.

    Short of memory, NumPy leaves some of its functions without saying why, which makes a SystemError.
    """
    found = None
    try:
        malloc().fail_at(n, where)
        found = function()
    except MEMORY:
        pass
    return found, malloc().seen()


def in_new_thread(function, *arguments):
    """Call where OpenMP has no team yet, so that its size has to be found out."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def apply(function, *arguments):
    """Call where OpenMP has what it needs: without memory for its own tables it ends the process."""
    return function(*arguments)


def bytes_of(operator, direction, result):
    """The bytes of what a call returned."""
    return [one.tobytes() for one in operator.results(direction, result, "NCHW")]


def main(where, threads, rounds):
    """Print a line for each direction: how many allocations, how many of them ended the call, and growth.

    That is how many bytes more the process holds after the last round than after the second.
    """
    for operator, direction in DIRECTIONS.values():
        live = []
        for _ in range(rounds):
            count, failed = fail_each(operator, direction, where.encode(), threads)
            gc.collect()
            live.append(malloc().live())
        print(count, failed, live[-1] - live[min(1, rounds - 1)])

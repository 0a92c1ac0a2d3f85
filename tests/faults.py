"""What test_faults.py runs in a process of its own, with failing_malloc.c: each allocation of a call fails in turn."""

import ctypes
import functools
import gc
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from busy_calls import call_of
from operators import DIRECTIONS, in_layout

FILLING, ROUNDS, WARM = 77, 6, 3
library = ctypes.CDLL(None)
library.seen.restype = ctypes.c_long


class Info(ctypes.Structure):
    """What mallinfo2 returns: numbers of bytes, of which one is needed."""

    _fields_ = [(f"number {i}", ctypes.c_size_t) for i in range(10)]


library.mallinfo2.restype = Info


def used():
    """Bytes that are allocated now, by malloc or mmap."""
    gc.collect()
    info = library.mallinfo2()
    return getattr(info, "number 7") + getattr(info, "number 4")


def fail_each(operator, direction, own, threads):
    """Fail the allocations of a call one after the other; how many there were, and how many ended the call."""
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
        found, count = in_new_thread(attempt, function, n, own) if own else attempt(function, n, own)
        if found is None:
            failed += 1
            assert out is None or out.tobytes() in (nothing, *expected), f"allocation {n}: out is half filled"
        else:
            assert bytes_of(operator, direction, found) == expected, f"allocation {n}: another result"
        if count < n:
            return n - 1, failed


def attempt(function, n, own):
    """Call with one failure: the result, None for a MemoryError, and how many allocations there were."""
    found = None
    try:
        library.fail_at(n, own)
        found = function()
    except MemoryError:
        pass
    return found, library.seen()


def in_new_thread(function, *arguments):
    """Call where OpenMP has no team yet, so that its size has to be found out."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def bytes_of(operator, direction, result):
    """The bytes of what a call returned."""
    return [one.tobytes() for one in operator.results(direction, result, "NCHW")]


def main(name, own, threads):
    """Do so some times over; print how many allocations there are, and how memory has grown."""
    operator, direction = DIRECTIONS[name]
    for number in range(ROUNDS):
        if number == WARM:
            before = used()
        count, failed = fail_each(operator, direction, own, threads)
    print(count, failed, used() - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

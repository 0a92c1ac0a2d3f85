"""Nothing is read or written beyond an array: arrays that touch a page without access, at either end."""

import ctypes
import mmap
import sys

import numpy as np
import pytest
from narrow import INSTALLED, dtype_of, result_of
from reference import random_boxes

from cyroialign import roi_align, roi_align_backward

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")

CASES = [  # (shape, output_size, the arguments after it)
    ((1, 1, 3, 5), (1, 1), (1.0, 1, True)),
    ((2, 3, 7, 9), (3, 2), (1.0, 2, True)),
    ((1, 9, 8, 8), (2, 9), (1.0, 0, False)),
    ((2, 17, 1, 11), (1, 7), (1.0, 3, False)),
    ((1, 33, 12, 1), (5, 1), (1.0, 2, True)),
    ((3, 40, 9, 20), (7, 7), (1.0, -1, True)),
]


def guarded(array, at_end):
    """A copy of an array whose end (or beginning) is next to a page that may be neither read nor written."""
    page = mmap.PAGESIZE
    length = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, length + 2 * page)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for guard in (begin, begin + page + length):
        assert libc.mprotect(guard, page, 0) == 0, ctypes.get_errno()
    offset = page + (length - array.nbytes if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def work(at_end):
    """What the other process does: it dies of the first access beyond an array."""
    rng = np.random.default_rng(0)
    for shape, output_size, arguments in CASES:
        for dtype in map(dtype_of, ("float32", "float64", *INSTALLED)):
            result = result_of(dtype)
            input = rng.integers(99, size=shape).astype(dtype)
            grad_output = rng.standard_normal((12, shape[1], *output_size)).astype(result)
            boxes = random_boxes(rng, 12, shape).astype(np.float64)
            boxes[0, 1:] = 0, 0, shape[3], shape[2]  # all of the map
            for layout, order in [("NCHW", (0, 1, 2, 3)), ("NHWC", (0, 2, 3, 1))]:
                maps, grads, rows = (
                    guarded(np.ascontiguousarray(x), at_end)
                    for x in (input.transpose(order), grad_output.transpose(order), boxes)
                )
                for num_threads in (1, 3):
                    settings = {"layout": layout, "num_threads": num_threads}
                    roi_align(maps, rows, output_size, *arguments, **settings, out=guarded(grads, at_end))
                    out = guarded(maps.astype(result), at_end)
                    roi_align_backward(grads, rows, maps.shape, *arguments, **settings, out=out)


@pytest.mark.parametrize("at_end", [False, True])
def test_no_access_beyond_arrays(at_end, run_python):
    run_python(f"import test_guard_pages; test_guard_pages.work({at_end}); print('survived')")


def test_guards_work(run_python):
    code = """
        import numpy as np, test_guard_pages
        array = test_guard_pages.guarded(np.zeros(4, np.float32), at_end=True)
        np.lib.stride_tricks.as_strided(array, (5,)).sum()
    """
    assert run_python(code, check=False).returncode < 0

"""Arrays in memory of all kinds, and how much memory a process has used."""

import ctypes
import mmap
import pathlib

import numpy as np


def unaligned(array):
    """A copy at an odd address."""
    view = np.frombuffer(bytearray(array.nbytes + 1), array.dtype, array.size, offset=1).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned or array.itemsize == 1
    return view


def read_only(array):
    """A copy that may not be written."""
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array):
    """A copy of which every second number is another."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 99, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def swapped(array):
    """A copy in the other order of bytes."""
    return array.astype(array.dtype.newbyteorder())


ODD = {
    "read-only": read_only,
    "strided": strided,
    "reversed": lambda array: array[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "byte-swapped": swapped,
    "unaligned": unaligned,
    "unaligned and byte-swapped": lambda array: unaligned(swapped(array)),
    "subclass": lambda array: array.view(np.recarray),
}


def in_other_order(array, layout):
    """A copy of a map with the memory of the other layout; what is no map stays as it is."""
    if array.ndim != 4:
        return array
    axes = (0, 3, 1, 2) if layout == "NHWC" else (0, 2, 3, 1)
    return np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))


def amid(array, filling, margin):
    """A contiguous copy of an array in the middle of a larger buffer, and that buffer."""
    buffer = np.full(array.size + 2 * margin, filling, array.dtype)
    view = buffer[margin:-margin].reshape(array.shape)
    view[...] = array
    return view, buffer


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


def peak_memory():
    """Peak of resident memory in bytes, or None. Not from getrusage, which counts the parent before exec."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)

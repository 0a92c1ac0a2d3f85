"""What the tests of narrow maps share: their types, numbers of each, and how results are compared."""

import importlib.util

import numpy as np
import pytest

HALVES = ("float16", "bfloat16")
BYTES = ("uint8", "int8")
NARROW = (*HALVES, *BYTES)
ULPS = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}  # of 1
INSTALLED = tuple(name for name in NARROW if name != "bfloat16" or importlib.util.find_spec("ml_dtypes"))


def dtype_of(name):
    """The dtype of a name; skips the test that needs ml_dtypes where that is not installed."""
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def result_of(dtype):
    """The dtype of what is pooled from maps of a dtype, and of its gradients."""
    return np.dtype(np.float32 if dtype in BYTES else dtype)


def numbers(rng, shape, dtype, spoiled=0):
    """Random numbers that a dtype holds, subnormal ones of float16 included.

    spoiled: one of so many is NaN or infinite, where the dtype has that.
    """
    if dtype in BYTES:
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, size=shape, dtype=dtype)
    values = np.ldexp(rng.standard_normal(shape), rng.integers(-24, 13, shape, np.int32))
    if spoiled:
        values.flat[::spoiled] = np.resize([np.nan, np.inf, -np.inf], values.flat[::spoiled].shape)
    return values.astype(dtype)


def rounded(array, dtype):
    """Convert as NumPy and ml_dtypes do: to nearest, ties to even."""
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def bits(array):
    """The bytes of an array, all NaN alike.

    IEEE leaves the sign and payload of a NaN open, and compilers order operands as they like.
    """
    nan = np.isnan(rounded(array, np.float32))
    return np.where(nan, array.dtype.type(np.nan), array).tobytes() if nan.any() else array.tobytes()

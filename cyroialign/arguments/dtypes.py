"""The types that maps come in, and what the kernels see of them.

bfloat16 comes from the package ml_dtypes; it is recognised by its name and the package is never imported.
"""

import numpy as np

GRADIENTS = ("float32", "float64", "float16", "bfloat16")
BYTES = ("uint8", "int8")
MAPS = (*GRADIENTS, *BYTES)
HALVES = ("float16", "bfloat16")
NARROW = (*HALVES, *BYTES)
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)


def name_of(dtype: np.dtype) -> str:
    """Return its name, in any byte order."""
    return dtype.type.__name__


def of_result(dtype: np.dtype) -> np.dtype:
    """Return the type of what is pooled from a map of the given type, and of its gradients."""
    return FLOAT32 if name_of(dtype) in BYTES else dtype


def of_sums(dtype: np.dtype) -> np.dtype:
    """Return the type in which such maps are sampled and summed."""
    return FLOAT64 if dtype.type is np.float64 else FLOAT32


def as_sums(array: np.ndarray) -> np.ndarray:
    """Convert a narrow map to the type of its sums, for operators whose kernels read only that."""
    return array.astype(of_sums(array.dtype), copy=False)


def as_bits(array: np.ndarray) -> np.ndarray:
    """View a map as its kernels take it: Cython knows no half precision, only its 16 bits."""
    return array.view(np.uint16) if name_of(array.dtype) in HALVES else array

"""Other libraries' arrays -> NumPy arrays, without a copy: the numbers that the library means, or an error.

No library is imported here: what only PyTorch has (storages, pending negations, tangents) is recognised by
the names of its methods.
"""

import numbers
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

CPU_DEVICES = (1, 3, 11, 13)  # of DLPack: the CPU, and memory that CUDA and ROCm share with it
DEVICES = {2: "CUDA device", 8: "Metal device", 10: "ROCm device", 14: "oneAPI device"}
NO_MEMORY = (
    "it has a shape, but no memory with numbers in it, as a tensor that is fake, freed or wraps others: give "
    "one that holds its numbers"
)


def as_array(value: Any, name: str) -> np.ndarray:
    """View what NumPy can view without a copy."""
    if type(value) is np.ndarray:
        return value
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name} requires grad, and no gradient is recorded here: give {name}.detach(), or call "
            "the functions of cyroialign.torch"
        )
    try:
        array = _view(value, name)
    except MemoryError:
        raise
    except Exception as error:  # a library's own, of whatever class: the type is what is wrong
        hint = ""
        if str(getattr(value, "dtype", "")).endswith("bfloat16"):
            hint = "; NumPy has no bfloat16: give a view as int16, viewed again as ml_dtypes.bfloat16"
        elif isinstance(value, Mapping):
            hint = "; give one of its values"
        raise TypeError(
            f"{name} must be a NumPy array or something that NumPy can view (__dlpack__, "
            f"__array_interface__, __array__ or the buffer protocol), got {kind(value)}: {error}{hint}"
        ) from error
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would have no effect: give {name}.filled(value), or "
            f"{name}.data to use what the mask hides"
        )
    return np.asarray(array)


def numbers_of(value: Any, name: str) -> np.ndarray:
    """View an array, or read a list of numbers or of rows of numbers; rows may be arrays."""
    if not isinstance(value, (list, tuple)):
        return as_array(value, name)
    plain = (list, tuple, int, float, np.generic)
    rows = [one if isinstance(one, plain) else as_array(one, f"{name}[{i}]") for i, one in enumerate(value)]
    try:
        array = np.asarray(rows)
    except MemoryError:
        raise
    except Exception as error:
        lengths = [len(row) if isinstance(row, (list, tuple)) else np.size(row) for row in rows]
        odd = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
        if odd is None:
            raise TypeError(f"{name} must hold rows of numbers: {error}") from error
        raise ValueError(
            f"{name} must have rows of one length: {name}[0] has {lengths[0]} numbers, "
            f"{name}[{odd}] has {lengths[odd]}"
        ) from error
    if array.dtype.kind not in "biuf":
        _refuse_what_is_no_number(rows, name)
    return array


def _refuse_what_is_no_number(rows: list[Any] | tuple[Any, ...], name: str) -> None:
    for i, one in enumerate(rows):
        if isinstance(one, (list, tuple)):
            _refuse_what_is_no_number(one, f"{name}[{i}]")
        elif not isinstance(one, numbers.Real) and not hasattr(one, "__array__"):
            raise TypeError(f"{name} must hold numbers, and {name}[{i}] is {kind(one)}")


def kind(value: Any) -> str:
    """Name the type of a value, and show the value if it is short.

    An array of another library is not shown: PyTorch ends the process where it has no memory to show.
    """
    name = type(value).__name__
    if hasattr(type(value), "__dlpack__"):
        return name
    shown = repr(value)
    return f"{name} {shown}" if len(shown) < 40 else name


def _view(value: Any, name: str) -> np.ndarray:
    """View by the first protocol that the object supports; only __array__ may copy."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asanyarray(value)
    if hasattr(value, "untyped_storage"):
        return _tensor(value, name)
    if hasattr(value, "__array_interface__"):
        return _of_its_memory(np.asarray(value))
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        device, number = value.__dlpack_device__()
        if device not in CPU_DEVICES:
            where = f"{DEVICES.get(device, f'DLPack device type {int(device)}')} {number}"
            raise ValueError(f"it is in the memory of {where}; copy it to that of the CPU")
        try:
            return _of_its_memory(np.from_dlpack(value))
        except Exception:
            if not hasattr(value, "__array__"):
                raise
    if hasattr(value, "__array__"):
        return np.asanyarray(value)
    return np.asarray(memoryview(value))


def _tensor(value: Any, name: str) -> np.ndarray:
    """View a PyTorch tensor, whose DLPack says nothing about pending signs, tangents and missing memory.

    Its __array__ would prevent resizing of the storage for ever, but has the best errors without a view.
    """
    forward_ad = sys.modules.get("torch.autograd.forward_ad")
    if forward_ad and forward_ad.unpack_dual(value).tangent is not None:
        raise ValueError(
            "it has a tangent of forward-mode differentiation, and no derivative is found here; give "
            f"unpack_dual({name}).primal, or call the functions of cyroialign.torch"
        )
    if value.is_neg():
        value = value.resolve_neg()  # a copy: in its own memory the numbers have the other sign
    try:
        array = np.from_dlpack(value)
    except Exception:
        array = np.asarray(value)
    _of_its_memory(array)
    if not array.size:
        return array
    storage, reach = value.untyped_storage(), array.nbytes
    if not array.flags.c_contiguous:
        steps = zip(array.shape, array.strides, strict=True)
        reach = array.itemsize + sum((n - 1) * stride for n, stride in steps)
    if not storage.data_ptr() or storage.nbytes() < value.storage_offset() * array.itemsize + reach:
        raise ValueError(NO_MEMORY)
    return array


def _of_its_memory(array: np.ndarray) -> np.ndarray:
    """Refuse the view of a null pointer, which NumPy replaces by memory of its own and leaves unwritten."""
    if array.flags.owndata and array.base is not None and array.size:
        raise ValueError(NO_MEMORY)
    return array

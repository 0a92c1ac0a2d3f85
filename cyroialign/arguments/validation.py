"""All that raises about arguments but `_foreign`: errors say what was expected, what came, and where."""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from cyroialign.arguments import dtypes, foreign

MODES = ("avg", "max", "onnx_max")
LAYOUTS = ("NCHW", "NHWC")
CORNERS = ("x1", "y1", "x2", "y2")
ROTATED = ("cx", "cy", "width", "height", "angle")
MAX_SAMPLING_RATIO = 32767
FLOAT32_RANGE = (2.0**-150, 2.0**128 - 2.0**103)  # what lies between, rounds to a float32 above 0 and finite
MAX_LENGTH = 2**31 - 1  # of an axis of a map or a grid of bins: tables number pixels and bins with 32 bits

as_array, _kind = foreign.as_array, foreign.kind


def whole_number(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {_kind(value)}") from None


def thread_count(value: Any, name: str) -> int:
    n = whole_number(value, name)
    if n < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")
    return n


def output_size(value: Any) -> tuple[int, int]:
    if type(value) is int:
        height = width = value
    elif isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        if len(value) != 2:
            raise ValueError(f"output_size must be an int or (height, width), got {value!r}")
        height, width = (whole_number(side, "a side of output_size") for side in value)
    else:
        height = width = whole_number(value, "output_size")
    if not (1 <= height <= MAX_LENGTH and 1 <= width <= MAX_LENGTH):
        raise ValueError(f"output_size must be at least 1 on both axes, got {value!r}")
    return height, width


def spatial_scale(value: Any, single: bool, name: str = "spatial_scale") -> tuple[float, float]:
    """Check one scale or two, (y, x)."""
    if type(value) is float or not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        both = scale(value, single, name)
        return both, both
    if len(value) != 2:
        raise ValueError(f"{name} must be a number or two, (y, x), got {_kind(value)}")
    return scale(value[0], single, f"{name}[0]"), scale(value[1], single, f"{name}[1]")


def scale(value: Any, single: bool, name: str) -> float:
    """Check a scale, also as it is rounded where the geometry is computed in float32."""
    if type(value) is not float and not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    low, high = FLOAT32_RANGE if single else (0.0, math.inf)
    if not low < number < high:
        kind = "float32" if single else "float64"
        raise ValueError(f"{name} must be greater than 0 and finite in {kind}, got {_kind(value)}")
    return number


def sampling_ratio(value: Any) -> int:
    ratio = whole_number(value, "sampling_ratio")
    if ratio > MAX_SAMPLING_RATIO:
        raise ValueError(f"sampling_ratio must be at most {MAX_SAMPLING_RATIO}, got {ratio}")
    return max(ratio, 0)


def flag(value: Any, name: str) -> bool:
    if value is not True and value is not False and not isinstance(value, np.bool_ | int):
        raise TypeError(f"{name} must be True or False, got {_kind(value)}")
    return bool(value)


def choice(value: Any, name: str, choices: Sequence[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {_kind(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def feature_map(value: Any, name: str, types: Sequence[str] = dtypes.MAPS) -> np.ndarray:
    """Check rank and dtype; the strides are free."""
    array = as_array(value, name)
    if dtypes.name_of(array.dtype) not in types:
        raise TypeError(f"{name} must have dtype {', '.join(types[:-1])} or {types[-1]}, got {array.dtype}")
    if array.ndim != 4:
        raise ValueError(f"{name} must have 4 axes, got shape {array.shape}")
    if max(array.shape) > MAX_LENGTH:
        raise ValueError(f"{name} may not be longer than {MAX_LENGTH} on an axis, got shape {array.shape}")
    return array


def gradient(value: Any) -> np.ndarray:
    """Check rank and dtype of grad_output."""
    return feature_map(value, "grad_output", dtypes.GRADIENTS)


def map_of_gradient(value: Any, grad_output: np.ndarray, read: bool) -> np.ndarray:
    """Check the input that was given with a gradient, and whether it can be read if it has to be."""
    if not read:
        return as_array(value, "input")
    array = feature_map(value, "input")
    gradient_dtype(grad_output, array, "input")
    return array


def map_for_gradient(value: Any, mode: str) -> None:
    """Check that there is the input that the gradient of a maximum needs."""
    if value is None:
        raise TypeError(
            f"input is missing: with mode={mode!r} the gradient depends on the feature map, so give the one "
            "that roi_align was given"
        )


def shape_of_input(value: Any) -> tuple[int, int, int, int]:
    try:
        shape = tuple(whole_number(side, "a side of input_shape") for side in value)
    except TypeError as error:
        raise TypeError(f"input_shape must be 4 whole numbers, got {value!r}") from error
    if len(shape) != 4 or min(shape) < 0 or max(shape) > MAX_LENGTH:
        raise ValueError(f"input_shape must be 4 whole numbers, each 0 or more, got {value!r}")
    return shape


def same_shape(array: np.ndarray, name: str, expected: tuple[int, ...], why: str) -> None:
    if array.shape != expected:
        raise ValueError(f"{name} must have shape {expected} ({why}), got {array.shape}")


def channels_of_bins(channels: int, bins: tuple[int, int]) -> int:
    """Return the output channels of a position-sensitive operator."""
    if channels % (bins[0] * bins[1]):
        raise ValueError(
            "input must have as many channels for each bin of output_size, "
            f"a multiple of {bins[0]} * {bins[1]}, got {channels}"
        )
    return channels // (bins[0] * bins[1])


def fitting_gradient(
    grad_output: tuple[int, ...],
    boxes: int,
    input_shape: tuple[int, ...],
    position_sensitive: bool = False,
) -> None:
    """Check that (K, C, PH, PW) fits K boxes and (N, C, H, W), or (N, C * PH * PW, H, W)."""
    shapes = (
        f"grad_output, as (K, C, PH, PW), is {grad_output}, and the input, as (N, C, H, W), {input_shape}"
    )
    if grad_output[0] != boxes:
        raise ValueError(f"grad_output must have one row for each of the {boxes} boxes: {shapes}")
    if not position_sensitive and grad_output[1] != input_shape[1]:
        raise ValueError(f"grad_output must have as many channels as the input: {shapes}")
    if min(grad_output[2:]) < 1:
        raise ValueError(f"grad_output must have bins: {shapes}")
    if position_sensitive and math.prod(grad_output[1:]) != input_shape[1]:
        raise ValueError(f"the input must have C * PH * PW channels: {shapes}")


def gradient_dtype(grad_output: np.ndarray, pooled: np.ndarray, name: str) -> None:
    """Check that a gradient has the type of what was pooled from the map."""
    expected = dtypes.of_result(pooled.dtype)
    if grad_output.dtype.type is not expected.type:
        raise TypeError(
            f"grad_output must have the dtype of what is pooled from {name}, {expected}, "
            f"got {grad_output.dtype}"
        )


def same_dtype(array: np.ndarray, name: str, other: np.ndarray, other_name: str) -> None:
    """Check that two maps hold the same type of number, in whatever order of bytes."""
    if array.dtype.type is not other.dtype.type:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other.dtype}, got {array.dtype}")


def box_array(value: Any, name: str, columns: int, indexed: bool = False) -> np.ndarray:
    """Check dtype and shape of boxes, (K, columns); (0,) is what a list without boxes becomes.

    indexed: the first column has batch indices.
    """
    array = foreign.numbers_of(value, name)
    if array.shape == (0,):
        return np.empty((0, columns), bool)  # no type of its own: beside others it changes none
    if dtypes.name_of(array.dtype) == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiu":
        hint = "; give the arrays of all images as a list" if array.dtype == object else ""
        raise TypeError(f"{name} must have a float or integer dtype, got {array.dtype}{hint}")
    box_shape(array.shape, name, columns, indexed)
    return array


def box_shape(shape: tuple[int, ...], name: str, columns: int, indexed: bool = False) -> None:
    if len(shape) != 2 or shape[1] != columns:
        hint = (
            f"; (K, {columns - 1}) needs batch_indices, or a list of one array an image"
            if indexed and shape[1:] == (columns - 1,)
            else ""
        )
        rows = "L" if name.endswith("]") else "K"
        raise ValueError(f"{name} must have shape ({rows}, {columns}), got {shape}{hint}")


def batch_index_array(value: Any, rows: int) -> np.ndarray:
    array = foreign.numbers_of(value, "batch_indices")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"batch_indices must have an integer dtype, got {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(f"batch_indices must have shape ({rows},), one a row of boxes, got {array.shape}")
    return array


def is_list_of_rows(boxes: list[Any] | tuple[Any, ...], batch_indices: Any = None) -> bool:
    """Tell whether a list holds rows of numbers rather than the boxes of each image."""
    if not boxes:
        return batch_indices is not None
    first = boxes[0]
    return isinstance(first, (list, tuple)) and bool(first) and isinstance(first[0], numbers.Real)


def list_of_boxes(
    boxes: Sequence[Any], batch_indices: Any, images: int, numbers: tuple[str, ...] = CORNERS
) -> None:
    if batch_indices is not None:
        raise ValueError("a list of boxes has one array an image already: leave batch_indices out")
    if len(boxes) != images:
        raise ValueError(
            f"a list of boxes must have one array an image, {images} for this input, got {len(boxes)}; "
            f"rows of (batch_index, {', '.join(numbers)}) must come as one array or as lists of numbers"
        )


def room_for_boxes(height: int, width: int, boxes: int) -> None:
    if boxes and not (height and width):
        raise ValueError(
            f"input must have pixels to pool {boxes} boxes from, got height {height} and width {width}"
        )


def raise_bad_box(
    box: np.ndarray, where: str, images: int, spatial_scale: tuple[float, float], single: bool
) -> NoReturn:
    """Say what is wrong with the box, as a row of its batch index and numbers, that the kernels refused."""
    index, *numbers = box.tolist()
    said = f"({', '.join(ROTATED if len(numbers) == len(ROTATED) else CORNERS)}) = {tuple(numbers)}"
    if not index.is_integer():
        raise ValueError(f"{where} has batch_index {index}, which is not a whole number")
    if not 0 <= index < images:
        raise ValueError(
            f"{where} has batch_index {int(index)}, but input has {images} image{'s' * (images != 1)}"
        )
    if not np.isfinite(box).all():
        raise ValueError(f"{where} must be finite, got {said}")
    kind, (y, x) = "float32" if single else "float64", spatial_scale
    raise ValueError(
        f"{where} is not finite on the feature map: {said} with "
        f"spatial_scale={y if y == x else spatial_scale} exceeds what {kind} can hold"
    )


def output_array(
    out: Any, shape: tuple[int, ...], dtype: np.dtype, order: tuple[int, ...], inputs: Sequence[np.ndarray]
) -> np.ndarray:
    """Check `out`; it is C-contiguous as it is or with its axes in the given order, that of the result."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a NumPy array, got {_kind(out)}")
    if out.dtype != dtype:
        raise TypeError(f"out must have dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    flags = out.flags
    if not (flags.c_contiguous or out.transpose(order).flags.c_contiguous):
        raise ValueError(f"out must be C-contiguous, got strides {out.strides}")
    if not flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    for array in inputs:
        if np.may_share_memory(out, array) and np.shares_memory(out, array):
            raise ValueError("out must not share memory with an input")
    return out

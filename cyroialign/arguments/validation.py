"""Errors about arguments (`foreign` has others): they say what was expected, what was given, and where."""

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
CORNERS_3D = ("x1", "y1", "z1", "x2", "y2", "z2")
ROTATED = ("cx", "cy", "width", "height", "angle")
NUMBERS_OF_BOXES = {len(one): one for one in (CORNERS, CORNERS_3D, ROTATED)}
VOLUME_LAYOUTS = ("NCDHW", "NDHWC")
MAX_SAMPLING_RATIO = 32767
FLOAT32_RANGE = (2.0**-150, 2.0**128 - 2.0**103)  # what lies between, rounds to a float32 above 0 and finite
MAX_LENGTH = 2**31 - 1  # of an axis of a map or a grid of bins: tables number pixels and bins with 32 bits
MAX_ROWS = 2**27 - 1  # of a volume, bins counting twice: an axis of length n has up to 4 * n + 8 * bins taps

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


def output_size(value: Any, name: str = "output_size") -> tuple[int, int]:
    height, width = _bins(value, ("height", "width"), name)
    return height, width


def volume_output_size(value: Any) -> tuple[int, int, int]:
    depth, height, width = _bins(value, ("depth", "height", "width"))
    return depth, height, width


def _bins(value: Any, sides: tuple[str, ...], name: str = "output_size") -> tuple[int, ...]:
    bins: tuple[int, ...]
    if type(value) is int:
        bins = (value,) * len(sides)
    elif isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        if len(value) != len(sides):
            raise ValueError(f"{name} must be an int or ({', '.join(sides)}), got {value!r}")
        bins = tuple(whole_number(side, f"a side of {name}") for side in value)
    else:
        bins = (whole_number(value, name),) * len(sides)
    if not (min(bins) >= 1 and max(bins) <= MAX_LENGTH):
        axes = "both axes" if len(sides) == 2 else "every axis"
        raise ValueError(f"{name} must be at least 1 on {axes}, got {value!r}")
    return bins


def spatial_scale(value: Any, single: bool, name: str = "spatial_scale") -> tuple[float, float]:
    """Check one scale or two, (y, x)."""
    y, x = _scales(value, single, name, "two, (y, x)", 2)
    return y, x


def volume_spatial_scale(value: Any, single: bool) -> tuple[float, float, float]:
    """Check one scale or three, (z, y, x)."""
    z, y, x = _scales(value, single, "spatial_scale", "three, (z, y, x)", 3)
    return z, y, x


def _scales(value: Any, single: bool, name: str, several: str, axes: int) -> tuple[float, ...]:
    if type(value) is float or not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        return (scale(value, single, name),) * axes
    if len(value) != axes:
        raise ValueError(f"{name} must be a number or {several}, got {_kind(value)}")
    return tuple(scale(one, single, f"{name}[{i}]") for i, one in enumerate(value))


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


def feature_map(value: Any, name: str, types: Sequence[str] = dtypes.MAPS, axes: int = 4) -> np.ndarray:
    """Check rank and dtype; the strides are free."""
    array = as_array(value, name)
    if dtypes.name_of(array.dtype) not in types:
        raise TypeError(f"{name} must have dtype {', '.join(types[:-1])} or {types[-1]}, got {array.dtype}")
    if array.ndim != axes:
        raise ValueError(f"{name} must have {axes} axes, got shape {array.shape}")
    if max(array.shape) > MAX_LENGTH:
        raise ValueError(f"{name} may not be longer than {MAX_LENGTH} on an axis, got shape {array.shape}")
    return array


def gradient(value: Any, axes: int = 4) -> np.ndarray:
    """Check rank and dtype of grad_output."""
    return feature_map(value, "grad_output", dtypes.GRADIENTS, axes)


def map_of_gradient(value: Any, grad_output: np.ndarray, read: bool) -> np.ndarray:
    """Check the input that was given with a gradient, and that it can be read if it is needed."""
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


def shape_of_input(value: Any, axes: int = 4, name: str = "input_shape") -> tuple[int, ...]:
    try:
        shape = tuple(whole_number(side, f"a side of {name}") for side in value)
    except TypeError as error:
        raise TypeError(f"{name} must be {axes} whole numbers, got {value!r}") from error
    if len(shape) != axes or min(shape) < 0 or max(shape) > MAX_LENGTH:
        raise ValueError(f"{name} must be {axes} whole numbers, each 0 or more, got {value!r}")
    return shape


def image_shape(value: Any) -> tuple[int, int]:
    try:
        height, width = (whole_number(side, "a side of image_shape") for side in value)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"image_shape must be two whole numbers, (height, width), got {value!r}") from error
    if not (0 <= height <= MAX_LENGTH and 0 <= width <= MAX_LENGTH):
        raise ValueError(f"image_shape must be two whole numbers, each 0 or more, got {value!r}")
    return height, width


def not_negative(value: Any, name: str) -> int:
    n = whole_number(value, name)
    if not 0 <= n <= MAX_LENGTH:
        raise ValueError(f"{name} must be a whole number, 0 or more, got {n}")
    return n


def number(value: Any, name: str) -> float:
    """Check a number, which may be infinite or NaN."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be a number, got {_kind(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def finite_number(value: Any, name: str) -> float:
    finite = number(value, name)
    if not math.isfinite(finite):
        raise ValueError(f"{name} must be finite, got {_kind(value)}")
    return finite


def square_masks(value: Any) -> np.ndarray:
    array = feature_map(value, "masks")
    count, channels, height, width = array.shape
    if channels != 1 or height != width or (count and not height):
        raise ValueError(f"masks must have shape (N, 1, M, M), got {array.shape}")
    return array


def box_a_mask(boxes: tuple[int, ...], masks: tuple[int, ...]) -> None:
    if boxes[0] != masks[0]:
        raise ValueError(f"boxes must have one row for each mask: masks has shape {masks}, boxes {boxes}")


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
    """Check that (K, C, PH, PW) fits K boxes and (N, C, H, W), or (N, C * PH * PW, H, W); so of volumes."""
    bins, pixels = ("PH, PW", "H, W") if len(grad_output) == 4 else ("PD, PH, PW", "D, H, W")
    shapes = (
        f"grad_output, as (K, C, {bins}), is {grad_output}, and the input, as (N, C, {pixels}), {input_shape}"
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
    """Check that two maps hold the same type of number, in any byte order."""
    if array.dtype.type is not other.dtype.type:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other.dtype}, got {array.dtype}")


def box_array(value: Any, name: str, columns: int, indexed: bool = False) -> np.ndarray:
    """Check dtype and shape of boxes, (K, columns); an empty list becomes (0,).

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
            f"; (K, {columns - 1}) needs batch_indices, or a list of one array per image"
            if indexed and shape[1:] == (columns - 1,)
            else ""
        )
        rows = "L" if name.endswith("]") else "K"
        raise ValueError(f"{name} must have shape ({rows}, {columns}), got {shape}{hint}")


def batch_index_array(value: Any, rows: int, name: str = "batch_indices") -> np.ndarray:
    array = foreign.numbers_of(value, name)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} must have an integer dtype, got {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(f"{name} must have shape ({rows},), one per row of boxes, got {array.shape}")
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
        raise ValueError("a list of boxes has one array per image already: omit batch_indices")
    if len(boxes) != images:
        raise ValueError(
            f"a list of boxes must have one array per image, {images} for this input, got {len(boxes)}; "
            f"rows of (batch_index, {', '.join(numbers)}) must come as one array or as lists of numbers"
        )


def room_for_boxes(height: int, width: int, boxes: int, name: str = "input") -> None:
    if boxes and not (height and width):
        raise ValueError(
            f"{name} must have pixels to pool {boxes} boxes from, got height {height} and width {width}"
        )


def room_for_volume_boxes(lengths: Sequence[int], bins: Sequence[int], boxes: int) -> None:
    """Check that a volume of such (D, H, W) has pixels, and that the rows of its slices can be numbered."""
    depth, height, width = lengths
    if boxes and not min(lengths):
        raise ValueError(
            f"input must have pixels to pool {boxes} boxes from, got depth {depth}, height {height} and "
            f"width {width}"
        )
    if boxes and (depth + 2 * bins[0]) * (height + 2 * bins[1]) > MAX_ROWS:
        raise ValueError(
            f"(depth + 2 * {bins[0]}) * (height + 2 * {bins[1]}) of an input that is pooled to "
            f"{' x '.join(map(str, bins))} bins may be at most {MAX_ROWS}, "
            f"got depth {depth} and height {height}"
        )


def raise_bad_box(
    box: np.ndarray, where: str, images: int, spatial_scale: tuple[float, ...], single: bool
) -> NoReturn:
    """Report what is wrong with the box, a row of its batch index and numbers, that the kernels refused."""
    index, *corners = box.tolist()
    names = ", ".join(NUMBERS_OF_BOXES[len(corners)])
    if not index.is_integer():
        raise ValueError(f"{where} has batch_index {index}, which is not a whole number")
    if not 0 <= index < images:
        raise ValueError(
            f"{where} has batch_index {int(index)}, but input has {images} image{'s' * (images != 1)}"
        )
    if not np.isfinite(box).all():
        raise ValueError(f"{where} must be finite, got ({names}) = {tuple(corners)}")
    kind = "float32" if single else "float64"
    shown = spatial_scale[0] if len(set(spatial_scale)) == 1 else spatial_scale
    raise ValueError(
        f"{where} is not finite on the feature map: ({names}) = {tuple(corners)} with "
        f"spatial_scale={shown} exceeds what {kind} can hold"
    )


def raise_bad_share(box: np.ndarray, row: int, images: int, single: bool) -> NoReturn:
    """Say what is wrong with a box (batch_index, x1, y1, x2, y2) of crop_and_resize."""
    index, x1, y1, x2, y2 = box.tolist()
    if not 0 <= index < images:
        raise ValueError(
            f"box_indices[{row}] is {int(index)}, but image has {images} image{'s' * (images != 1)}"
        )
    shown = f"(y1, x1, y2, x2) = {(y1, x1, y2, x2)}"
    if not np.isfinite(box).all():
        raise ValueError(f"boxes[{row}] must be finite, got {shown}")
    kind = "float32" if single else "float64"
    raise ValueError(
        f"boxes[{row}] is not finite in pixels of the image: {shown} exceeds what {kind} can hold"
    )


def raise_bad_corners(corners: np.ndarray, where: str, single: bool) -> NoReturn:
    """Say why a box (x1, y1, x2, y2) cannot be pasted into."""
    shown = f"(x1, y1, x2, y2) = {tuple(corners.tolist())}"
    if not np.isfinite(corners).all():
        raise ValueError(f"{where} must be finite, got {shown}")
    kind = "float32" if single else "float64"
    raise ValueError(f"{where} must have sides that {kind} can hold, also once it is grown, got {shown}")


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

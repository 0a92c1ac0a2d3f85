"""Memory order: what the kernels read in place, and results in the order of their inputs.

Kernels know two orders, (N, C, H, W) and (N, H, W, C), both C-contiguous. The `layout` of a call names
the order of the axes; an array whose memory has the other order is read through a transposed view.
"""

from typing import Any, TypeAlias

import numpy as np

from cyroialign.arguments import validation

Size: TypeAlias = tuple[int, int, int, int]
TO_CHANNELS_LAST = (0, 2, 3, 1)
TO_CHANNELS_FIRST = (0, 3, 1, 2)


def in_kernel_order(array: np.ndarray, layout: str) -> tuple[np.ndarray, bool]:
    """View a map for the kernels, and tell whether its channels come last; copies what they cannot read."""
    if not (array.flags.aligned and array.dtype.isnative):
        array = array.astype(array.dtype.newbyteorder("="), order="K")
    last = layout == "NHWC"
    if array.flags.c_contiguous:
        return array, last
    other = array.transpose(TO_CHANNELS_FIRST if last else TO_CHANNELS_LAST)
    if other.flags.c_contiguous:
        return other, not last
    return np.ascontiguousarray(array), last


def in_given_order(array: np.ndarray, layout: str, channels_last: bool) -> np.ndarray:
    """View a map for the kernels in the order of another one; copies it if its memory has the other order."""
    if channels_last != (layout == "NHWC"):
        array = array.transpose(TO_CHANNELS_LAST if channels_last else TO_CHANNELS_FIRST)
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def in_layout(array: np.ndarray, layout: str, channels_last: bool) -> np.ndarray:
    """View an array of the kernels with its axes in the order of the layout."""
    if channels_last == (layout == "NHWC"):
        return array
    return array.transpose(TO_CHANNELS_FIRST if channels_last else TO_CHANNELS_LAST)


def sizes(shape: tuple[int, ...], channels_last: bool) -> Size:
    """(N, C, H, W) from a shape in either order."""
    if channels_last:
        n, height, width, channels = shape
    else:
        n, channels, height, width = shape
    return n, channels, height, width


def ordered(size: Size, channels_last: bool) -> Size:
    """The shape in either order from (N, C, H, W)."""
    n, channels, height, width = size
    return (n, height, width, channels) if channels_last else size


def check_out(
    out: Any, size: Size, dtype: np.dtype, layout: str, channels_last: bool, inputs: list[np.ndarray]
) -> None:
    """Check an `out` for a result of the given (N, C, H, W)."""
    last = layout == "NHWC"
    in_order = TO_CHANNELS_LAST if channels_last else TO_CHANNELS_FIRST
    axes = range(4) if channels_last == last else in_order
    validation.output_array(out, ordered(size, last), dtype, tuple(axes), inputs)


def target_for(
    out: np.ndarray | None, size: Size, dtype: np.dtype, layout: str, channels_last: bool
) -> np.ndarray:
    """The array of the given (N, C, H, W) that the kernels fill: `out` itself if type and order fit."""
    if out is not None and out.dtype == dtype:
        same = channels_last == (layout == "NHWC")
        view = out if same else out.transpose(TO_CHANNELS_LAST if channels_last else TO_CHANNELS_FIRST)
        if view.flags.c_contiguous and view.flags.aligned:
            return view
    return np.empty(ordered(size, channels_last), dtype)


def delivered(
    target: np.ndarray, out: np.ndarray | None, dtype: np.dtype, layout: str, channels_last: bool
) -> np.ndarray:
    """The result of a call, of the given type, once the kernels have filled its target."""
    result = in_layout(target, layout, channels_last)
    if out is None and result.dtype == dtype:
        return result
    if out is not None and (target is out or np.may_share_memory(out, target)):
        return out
    with np.errstate(over="ignore", under="ignore"):  # what float16 cannot hold becomes infinite, or 0
        if out is None:
            return result.astype(dtype)
        np.copyto(out, result, casting="unsafe")
    return out

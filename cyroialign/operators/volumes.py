"""What operators on volumes do around their kernels.

A volume is read as one tall map, whose slices lie one below the other: (N, C, D * H, W). So are its bins.
"""

from typing import Any

import numpy as np

from cyroialign._kernels import MEAN
from cyroialign.arguments import dtypes, memory_order, validation
from cyroialign.arguments.boxes import read_boxes_of_volumes
from cyroialign.operators import calls

LAYOUTS = {"NCDHW": "NCHW", "NDHWC": "NHWC"}  # of the volumes and of the maps that they are read as
TO_CHANNELS_LAST = (0, 2, 3, 4, 1)
TO_CHANNELS_FIRST = (0, 4, 1, 2, 3)


def sizes(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """(N, C, D, H, W) from a shape in either layout."""
    return shape if layout == "NCDHW" else tuple(shape[axis] for axis in TO_CHANNELS_FIRST)


def ordered(size: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape in either layout from (N, C, D, H, W)."""
    return size if layout == "NCDHW" else tuple(size[axis] for axis in TO_CHANNELS_LAST)


def stacked(array: np.ndarray, layout: str) -> np.ndarray:
    """View a volume as a tall map; copies it where its strides are not those of either layout."""
    if layout == "NCDHW":
        n, channels, depth, height, width = array.shape
        return array.reshape(n, channels, depth * height, width)
    n, depth, height, width, channels = array.shape
    return array.reshape(n, depth * height, width, channels)


def stacked_size(size: tuple[int, ...]) -> memory_order.Size:
    """(N, C, D * H, W) from (N, C, D, H, W)."""
    n, channels, depth, height, width = size
    return n, channels, depth * height, width


def check_out(
    out: Any,
    size: tuple[int, ...],
    dtype: np.dtype,
    layout: str,
    channels_last: bool,
    inputs: list[np.ndarray],
) -> None:
    """Check an `out` for a result of the given (N, C, D, H, W)."""
    in_order: tuple[int, ...] = TO_CHANNELS_LAST if channels_last else TO_CHANNELS_FIRST
    if channels_last == (layout == "NDHWC"):
        in_order = tuple(range(5))
    validation.output_array(out, ordered(size, layout), dtype, in_order, inputs)


def forward(
    input: Any,
    boxes: Any,
    output_size: Any,
    spatial_scale: Any,
    sampling_ratio: Any,
    aligned: Any,
    *,
    batch_indices: Any,
    layout: Any,
    out: np.ndarray | None,
    num_threads: Any,
) -> np.ndarray:
    """Pool boxes from one volume: the mean of their samples."""
    given = validation.feature_map(input, "input", axes=5)
    validation.choice(layout, "layout", validation.VOLUME_LAYOUTS)
    ratio, aligned = validation.sampling_ratio(sampling_ratio), validation.flag(aligned, "aligned")
    bins = validation.volume_output_size(output_size)
    images, channels, *lengths = sizes(given.shape, layout)
    rois = read_boxes_of_volumes(boxes, batch_indices, images, given.dtype, spatial_scale, aligned)
    validation.room_for_volume_boxes(lengths, bins, len(rois.rows))
    size = (len(rois.rows), channels, *bins)
    of_maps = LAYOUTS[layout]
    maps, channels_last = memory_order.in_kernel_order(stacked(given, layout), of_maps)
    target = None
    if out is not None:
        dtype = dtypes.of_result(maps.dtype)
        check_out(out, size, dtype, layout, channels_last, [given, *rois.given])
        target = stacked(out, layout)
    volume = (lengths[0], bins[0])
    result = calls.pool(
        MEAN,
        (maps,),
        rois,
        stacked_size(size),
        ratio,
        of_maps,
        channels_last,
        num_threads,
        target,
        volume=volume,
    )
    return result.reshape(ordered(size, layout)) if out is None else out


def backward(
    grad_output: Any,
    boxes: Any,
    input_shape: Any,
    spatial_scale: Any,
    sampling_ratio: Any,
    aligned: Any,
    *,
    batch_indices: Any,
    layout: Any,
    out: np.ndarray | None,
    num_threads: Any,
) -> np.ndarray:
    """Sum the gradient to one volume, in the memory order of the gradient."""
    given = validation.gradient(grad_output, axes=5)
    validation.choice(layout, "layout", validation.VOLUME_LAYOUTS)
    ratio, aligned = validation.sampling_ratio(sampling_ratio), validation.flag(aligned, "aligned")
    shape = validation.shape_of_input(input_shape, axes=5)
    images, _, *lengths = size = sizes(shape, layout)
    rois = read_boxes_of_volumes(boxes, batch_indices, images, given.dtype, spatial_scale, aligned)
    of_result = sizes(given.shape, layout)
    validation.fitting_gradient(of_result, len(rois.rows), size)
    validation.room_for_volume_boxes(lengths, of_result[2:], len(rois.rows))
    of_maps = LAYOUTS[layout]
    grads, channels_last = memory_order.in_kernel_order(stacked(given, layout), of_maps)
    target = None
    if out is not None:
        check_out(out, size, grads.dtype, layout, channels_last, [given, *rois.given])
        target = stacked(out, layout)
    volume = (lengths[0], of_result[2])
    (result,) = calls.scatter(
        MEAN,
        grads,
        None,
        rois,
        (stacked_size(size),),
        ratio,
        of_maps,
        channels_last,
        num_threads,
        target,
        volume=volume,
    )
    return result.reshape(ordered(size, layout)) if out is None else out

"""What every operator does around its kernel: gather the arguments, fill the result, deliver it.

A public function is its docstring and one call of these. They check arguments in the order in which users
write them, and write nothing before all are checked.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cyroialign._kernels import (
    BACKWARD,
    BOXES_BACKWARD,
    FORWARD,
    MAX,
    ONNX_MAX,
    PS_ROI_ALIGN,
    PS_ROI_POOL,
    ROI_ALIGN_ROTATED,
    ROI_POOL,
    CallSettings,
    backward_plain,
    forward_plain,
    kernels,
)
from cyroialign.arguments import argmax as winners
from cyroialign.arguments import dtypes, memory_order, validation
from cyroialign.arguments.boxes import Boxes, read_boxes, read_rotated_boxes
from cyroialign.arguments.threads import threads_for

POSITION_SENSITIVE = (PS_ROI_ALIGN, PS_ROI_POOL)  # each bin has channels of its own
A_MAP = (0, 0)  # and no volume
WINNERS = (MAX, ONNX_MAX, ROI_POOL)  # the gradient goes to pixels that are found in the map


def forward(
    pooling: int,
    input: Any,
    boxes: Any,
    output_size: Any,
    spatial_scale: Any,
    sampling_ratio: Any = 0,
    aligned: Any = False,
    clockwise: Any = False,
    *,
    batch_indices: Any,
    layout: Any,
    out: Any,
    num_threads: Any,
    argmax: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Pool boxes from one map; the argmax of roi_pool is put into a list, if one is given."""
    plain = pooling != ROI_ALIGN_ROTATED and batch_indices is None and argmax is None
    if plain and (layout == "NCHW" or layout == "NHWC"):
        settings = (spatial_scale, sampling_ratio, aligned, layout == "NHWC", out, threads_for, num_threads)
        result = forward_plain(pooling, input, boxes, output_size, *settings)
        if result is not None:
            return result
    given = validation.feature_map(input, "input")
    validation.choice(layout, "layout", validation.LAYOUTS)
    ratio, aligned = validation.sampling_ratio(sampling_ratio), validation.flag(aligned, "aligned")
    clockwise = validation.flag(clockwise, "clockwise")
    maps, channels_last = memory_order.in_kernel_order(given, layout)
    bins = validation.output_size(output_size)
    images, channels, height, width = memory_order.sizes(maps.shape, channels_last)
    place = (images, maps.dtype, spatial_scale, aligned)
    rois = boxes_of(pooling, boxes, batch_indices, *place, clockwise)
    validation.room_for_boxes(height, width, len(rois.rows))
    if pooling in POSITION_SENSITIVE:
        channels = validation.channels_of_bins(channels, bins)
    size = (len(rois.rows), channels, *bins)
    if out is not None:
        dtype = dtypes.of_result(maps.dtype)
        memory_order.check_out(out, size, dtype, layout, channels_last, [given, *rois.given])
    noted = None
    if argmax is not None:
        winners.check_room(height, width)
        noted = np.empty(memory_order.ordered(size, channels_last), winners.DTYPE)
        argmax.append(memory_order.in_layout(noted, layout, channels_last))
    how = (ratio, layout, channels_last, num_threads, out)
    return pool(pooling, (maps,), rois, size, *how, argmax=noted)


def boxes_of(
    pooling: int,
    boxes: Any,
    batch_indices: Any,
    images: int,
    dtype: np.dtype,
    spatial_scale: Any,
    aligned: bool,
    clockwise: bool,
) -> Boxes:
    """Read boxes in the form that the operator has them in."""
    place = (images, dtype, spatial_scale, aligned)
    if pooling == ROI_ALIGN_ROTATED:
        return read_rotated_boxes(boxes, batch_indices, *place, clockwise)
    return read_boxes(boxes, batch_indices, *place)


def pool(
    pooling: int,
    maps: tuple[np.ndarray, ...],
    rois: Boxes,
    size: memory_order.Size,
    ratio: int,
    layout: str,
    channels_last: bool,
    num_threads: Any,
    out: np.ndarray | None = None,
    volume: tuple[int, int] = A_MAP,
    outside: float = 0.0,
    argmax: np.ndarray | None = None,
) -> np.ndarray:
    """Pool checked boxes from checked maps, one a level, into a result of the given (K, C, PH, PW).

    volume: how many slices lie one below the other in the map, and in the bins. outside: what crop_and_resize
    has for bins outside the map. argmax: what roi_pool fills besides, in the order of the kernels.
    """
    threads = threads_for(num_threads)
    dtype = dtypes.of_result(maps[0].dtype)
    if not kernels(maps[0].dtype).can(FORWARD, pooling):
        maps = tuple(map(dtypes.as_sums, maps))
    target = memory_order.target_for(out, size, dtypes.of_result(maps[0].dtype), layout, channels_last)
    if target.size:
        stored = _bytes(outside, target.dtype)
        settings = CallSettings(pooling, *size[2:], ratio, channels_last, *threads, *volume, stored)
        bits = tuple(map(dtypes.as_bits, maps))
        kernels(maps[0].dtype).forward(settings, bits, rois.rois, dtypes.as_bits(target), argmax)
    return memory_order.delivered(target, out, dtype, layout, channels_last)


def _bytes(number: float, dtype: np.dtype) -> bytes | None:
    """A number as it lies in memory; None for 0, which results hold already."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        stored = np.array(number, dtype).tobytes()
    return stored if any(stored) else None


def backward(
    pooling: int,
    grad_output: Any,
    boxes: Any,
    input_shape: Any,
    spatial_scale: Any,
    sampling_ratio: Any = 0,
    aligned: Any = False,
    clockwise: Any = False,
    *,
    input: Any = None,
    output_size: Any = None,
    argmax: Any = None,
    batch_indices: Any,
    layout: Any,
    out: Any,
    num_threads: Any,
) -> np.ndarray:
    """Sum the gradient with respect to one map; a maximum also needs the map, as `input`.

    With the argmax of roi_pool its numbers are not read. The result has the memory order of the gradient or,
    if an output_size is given, of the input.
    """
    plain = pooling != ROI_ALIGN_ROTATED and batch_indices is None and input is None
    if plain and (layout == "NCHW" or layout == "NHWC"):
        settings = (spatial_scale, sampling_ratio, aligned, layout == "NHWC", out, threads_for, num_threads)
        gradient = backward_plain(pooling, grad_output, boxes, input_shape, *settings)
        if gradient is not None:
            return gradient
    given = [validation.gradient(grad_output)]
    validation.choice(layout, "layout", validation.LAYOUTS)
    ratio, aligned = validation.sampling_ratio(sampling_ratio), validation.flag(aligned, "aligned")
    clockwise = validation.flag(clockwise, "clockwise")
    shape = validation.shape_of_input(input_shape)
    if input is not None:
        given.append(validation.map_of_gradient(input, given[0], pooling in WINNERS))
        validation.same_shape(given[1], "input", shape, "that of input_shape")
    images, channels, height, width = size = memory_order.sizes(shape, layout == "NHWC")
    place = (images, given[0].dtype, spatial_scale, aligned)
    rois = boxes_of(pooling, boxes, batch_indices, *place, clockwise)
    if output_size is None:
        grads, channels_last = memory_order.in_kernel_order(given[0], layout)
        validation.fitting_gradient(
            memory_order.sizes(grads.shape, channels_last),
            len(rois.rows),
            size,
            pooling in POSITION_SENSITIVE,
        )
    else:
        result = (len(rois.rows), channels, *validation.output_size(output_size))
        expected = memory_order.ordered(result, layout == "NHWC")
        validation.same_shape(given[0], "grad_output", expected, "from boxes, input and output_size")
        _, channels_last = memory_order.in_kernel_order(given[1], layout)
        grads = memory_order.in_given_order(given[0], layout, channels_last)
    validation.room_for_boxes(height, width, len(rois.rows))
    if argmax is not None:
        winners.check_room(height, width)
        given.append(winners.check(argmax, given[0].shape, height, width))
    if out is not None:
        memory_order.check_out(out, size, grads.dtype, layout, channels_last, [*given, *rois.given])
    maps = (given[1],) if pooling in WINNERS and argmax is None else None
    if argmax is not None:
        argmax = memory_order.in_given_order(argmax, layout, channels_last)
    how = (ratio, layout, channels_last, num_threads, out)
    return scatter(pooling, grads, maps, rois, (size,), *how, argmax=argmax)[0]


def scatter(
    pooling: int,
    grads: np.ndarray,
    maps: tuple[np.ndarray, ...] | None,
    rois: Boxes,
    sizes: Sequence[memory_order.Size],
    ratio: int,
    layout: str,
    channels_last: bool,
    num_threads: Any,
    out: np.ndarray | None = None,
    volume: tuple[int, int] = A_MAP,
    argmax: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Sum checked gradients into those of maps of the given (N, C, H, W), one per level."""
    threads = threads_for(num_threads)
    dtype = grads.dtype
    if not kernels(dtype).can(BACKWARD, pooling):
        grads = dtypes.as_sums(grads)
    targets = [memory_order.target_for(out, size, grads.dtype, layout, channels_last) for size in sizes]
    if grads.size and targets[0].size:
        bins = memory_order.sizes(grads.shape, channels_last)[2:]
        settings = CallSettings(pooling, *bins, ratio, channels_last, *threads, *volume)
        if maps is not None:
            maps = tuple(
                memory_order.in_given_order(one.astype(grads.dtype, copy=False), layout, channels_last)
                for one in maps
            )
        bits = tuple(map(dtypes.as_bits, targets))
        kernels(grads.dtype).backward(settings, dtypes.as_bits(grads), maps, rois.rois, bits, argmax)
    else:
        for target in targets:
            target.fill(0)
    return [memory_order.delivered(target, out, dtype, layout, channels_last) for target in targets]


def boxes_backward(
    pooling: int,
    grad_output: Any,
    input: Any,
    boxes: Any,
    spatial_scale: Any,
    sampling_ratio: Any = 0,
    aligned: Any = False,
    *,
    batch_indices: Any,
    layout: Any,
    num_threads: Any,
) -> np.ndarray:
    """Sum the gradient with respect to the corners of boxes, (K, 4)."""
    validation.choice(layout, "layout", validation.LAYOUTS)
    ratio, aligned = validation.sampling_ratio(sampling_ratio), validation.flag(aligned, "aligned")
    maps, channels_last = memory_order.in_kernel_order(validation.feature_map(input, "input"), layout)
    grads = validation.gradient(grad_output)
    validation.gradient_dtype(grads, maps, "input")
    images, _, height, width = size = memory_order.sizes(maps.shape, channels_last)
    rois = read_boxes(boxes, batch_indices, images, maps.dtype, spatial_scale, aligned)
    validation.fitting_gradient(memory_order.sizes(grads.shape, layout == "NHWC"), len(rois.rows), size)
    validation.room_for_boxes(height, width, len(rois.rows))
    return to_boxes(pooling, maps, grads, rois, ratio, layout, channels_last, num_threads)


def to_boxes(
    pooling: int,
    maps: np.ndarray,
    grads: np.ndarray,
    rois: Boxes,
    ratio: int,
    layout: str,
    channels_last: bool,
    num_threads: Any,
) -> np.ndarray:
    """Sum the gradient to the corners of checked boxes, (x1, y1, x2, y2)."""
    threads = threads_for(num_threads)
    target = np.zeros((len(rois.rows), 4))
    if grads.size:
        if not kernels(maps.dtype).can(BOXES_BACKWARD, pooling):
            maps, grads = dtypes.as_sums(maps), dtypes.as_sums(grads)
        grads = memory_order.in_given_order(grads, layout, channels_last)
        bins = memory_order.sizes(grads.shape, channels_last)[2:]
        settings = CallSettings(pooling, *bins, ratio, channels_last, *threads)
        kernels(maps.dtype).boxes_backward(settings, grads, (maps,), rois.rois, target)
    if not rois.single:
        return target
    with np.errstate(over="ignore", under="ignore"):
        return target.astype(np.float32)

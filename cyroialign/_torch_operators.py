"""What PyTorch dispatches: the operators, the shape and order of their results, and their gradients.

Each takes its maps first, a tensor or the levels of a pyramid, and its boxes as rows of (batch_index, x1, y1,
x2, y2). RoIAlign is linear in the maps: so it and its transpose are the gradient of each other, and have one
and the same gradient to the boxes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

import cyroialign
from cyroialign.pyramid.levels import infer_scales, level_range


def operator(function: Any) -> Any:
    """Make a function on CPU tensors the operator of its name."""
    name = f"cyroialign::{function.__name__}"
    return torch.library.custom_op(name, function, mutates_args=(), device_types="cpu")


def to_array(tensor: Tensor) -> np.ndarray:
    """View a tensor as an array."""
    if tensor.dtype is torch.bfloat16:  # of which torch shows NumPy nothing but the bits
        return to_array(tensor.detach().view(torch.int16)).view(ml_dtypes.bfloat16)
    array: np.ndarray = tensor.detach().numpy()
    return array


def to_tensor(array: np.ndarray) -> Tensor:
    """View an array as a tensor."""
    if array.dtype.type is ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def call(function: Callable[..., np.ndarray], *arguments: Any) -> Tensor:
    """Call a function of arrays with tensors, on as many threads as torch uses."""
    arrays = [to_array(one) if isinstance(one, Tensor) else one for one in arguments]
    return to_tensor(function(*arrays, num_threads=torch.get_num_threads()))


@operator
def roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return call(cyroialign.roi_align, input, boxes, output_size, spatial_scale, sampling_ratio, aligned)


@operator
def roi_align_backward(
    grad_output: Tensor,
    boxes: Tensor,
    input_shape: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings = (input_shape, spatial_scale, sampling_ratio, aligned)
    return call(cyroialign.roi_align_backward, grad_output, boxes, *settings)


@operator
def roi_align_boxes_backward(
    grad_output: Tensor,
    input: Tensor,
    boxes: Tensor,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    gradient = torch.zeros_like(boxes, memory_format=torch.contiguous_format)
    settings = (spatial_scale, sampling_ratio, aligned)
    gradient[:, 1:] = call(cyroialign.roi_align_boxes_backward, grad_output, input, boxes, *settings)
    return gradient


@operator
def ps_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    return call(cyroialign.ps_roi_align, input, boxes, output_size, spatial_scale, sampling_ratio)


@operator
def ps_roi_align_backward(
    grad_output: Tensor,
    boxes: Tensor,
    input_shape: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    settings = (input_shape, spatial_scale, sampling_ratio)
    return call(cyroialign.ps_roi_align_backward, grad_output, boxes, *settings)


@operator
def roi_pool(input: Tensor, boxes: Tensor, output_size: Sequence[int], spatial_scale: float) -> Tensor:
    return call(cyroialign.roi_pool, input, boxes, output_size, spatial_scale)


@operator
def roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
) -> Tensor:
    return call(cyroialign.roi_pool_backward, grad_output, input, boxes, output_size, spatial_scale)


@operator
def roi_align_levels(
    x: Sequence[Tensor],
    boxes: Tensor,
    output_size: Sequence[int],
    image_sizes: Sequence[int],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> Tensor:
    pool = pooler(len(x), output_size, sampling_ratio, canonical_scale, canonical_level)
    maps = dict(zip(pool.featmap_names, map(to_array, x), strict=True))
    shapes = pairs(image_sizes)
    return to_tensor(pool(maps, by_image(boxes, len(x[0])), shapes))


@operator
def roi_align_levels_backward(
    grad_output: Tensor,
    boxes: Tensor,
    x_shapes: Sequence[int],
    image_sizes: Sequence[int],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> list[Tensor]:
    grads = to_array(grad_output)
    shapes = [tuple(x_shapes[i : i + 4]) for i in range(0, len(x_shapes), 4)]
    pool = pooler(len(shapes), grads.shape[2:], sampling_ratio, canonical_scale, canonical_level)
    nothing = np.empty((), grads.dtype)
    maps = {name: np.broadcast_to(nothing, one) for name, one in zip(pool.featmap_names, shapes, strict=True)}
    gradients = pool.backward(grads, maps, by_image(boxes, shapes[0][0]), pairs(image_sizes))
    return [to_tensor(one) for one in gradients.values()]


@operator
def roi_align_levels_boxes_backward(
    grad_output: Tensor,
    x: Sequence[Tensor],
    boxes: Tensor,
    image_sizes: Sequence[int],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> Tensor:
    gradient = torch.zeros_like(boxes, memory_format=torch.contiguous_format)
    if not len(boxes):  # then a map may be without pixels, and so without a scale
        return gradient
    scales = infer_scales([one.shape[2:] for one in x], pairs(image_sizes))
    levels = cyroialign.assign_levels(
        to_array(boxes),
        *level_range(scales),
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
    )
    for level, (input, scale) in enumerate(zip(x, scales, strict=True)):
        rows = torch.from_numpy(np.flatnonzero(levels == level))
        gradient[rows] = roi_align_boxes_backward(
            grad_output[rows], input, boxes[rows], scale, sampling_ratio, False
        )
    return gradient


def pooler(
    levels: int,
    output_size: Sequence[int],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> cyroialign.MultiScaleRoIAlign:
    """The pooler of levels that have no names."""
    return cyroialign.MultiScaleRoIAlign(
        [str(level) for level in range(levels)],
        (output_size[0], output_size[1]),
        sampling_ratio,
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
        num_threads=torch.get_num_threads(),
    )


def pairs(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Put together (height, width), since an operator takes no nested lists."""
    return [numbers[i : i + 2] for i in range(0, len(numbers), 2)]


def by_image(boxes: Tensor, images: int) -> list[np.ndarray]:
    """Take apart the boxes of each image, which follow one another."""
    rows = to_array(boxes)
    return np.split(rows[:, 1:], np.searchsorted(rows[:, 0], np.arange(1, images)))[:images]


def in_order_of(given: Tensor, shape: Sequence[int]) -> Tensor:
    """A result as it is traced: without values, of the type and in the memory order of what was given."""
    last = not given.is_contiguous() and given.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    dtype = torch.float32 if given.dtype is torch.uint8 else given.dtype
    return torch.empty(shape, dtype=dtype, device=given.device, memory_format=order)


# Shapes and orders, for tracing.


def like_bins(input: Tensor, boxes: Tensor, output_size: Sequence[int], *settings: Any) -> Tensor:
    return in_order_of(input, (boxes.shape[0], input.shape[1], *output_size))


def like_position_sensitive_bins(
    input: Tensor, boxes: Tensor, output_size: Sequence[int], *settings: Any
) -> Tensor:
    channels = input.shape[1] // math.prod(output_size)
    return in_order_of(input, (boxes.shape[0], channels, *output_size))


def like_map(grad_output: Tensor, boxes: Tensor, input_shape: Sequence[int], *settings: Any) -> Tensor:
    return in_order_of(grad_output, input_shape)


def like_maps(grad_output: Tensor, boxes: Tensor, shapes: Sequence[int], *settings: Any) -> list[Tensor]:
    return [in_order_of(grad_output, shapes[i : i + 4]) for i in range(0, len(shapes), 4)]


def like_boxes(grad_output: Tensor, maps: Any, boxes: Tensor, *settings: Any) -> Tensor:
    return torch.zeros_like(boxes, memory_format=torch.contiguous_format)


roi_align.register_fake(like_bins)
roi_align_backward.register_fake(like_map)
roi_align_boxes_backward.register_fake(like_boxes)
ps_roi_align.register_fake(like_position_sensitive_bins)
ps_roi_align_backward.register_fake(like_map)
roi_pool.register_fake(like_bins)
roi_pool_backward.register_fake(lambda grad_output, pooled, *settings: in_order_of(pooled, pooled.shape))
roi_align_levels.register_fake(lambda x, *settings: like_bins(x[0], *settings))
roi_align_levels_backward.register_fake(like_maps)
roi_align_levels_boxes_backward.register_fake(like_boxes)


# Gradients.


def linear(pool: Any, transpose: Any, to_boxes: Any = None) -> None:
    """Make a linear operator and its transpose the gradient of each other, and `to_boxes` that of both."""

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        maps, boxes, _, *ctx.settings = inputs
        ctx.several = isinstance(maps, Sequence)
        maps = maps if ctx.several else [maps]
        ctx.shapes = [side for one in maps for side in one.shape]
        ctx.save_for_backward(boxes, *(maps if to_boxes and boxes.requires_grad else ()))

    def differentiate(ctx: Any, grad_output: Tensor) -> Any:
        boxes, *maps = ctx.saved_tensors
        needed, boxes_needed, *_ = ctx.needs_input_grad
        grad_maps = [None] * len(needed) if ctx.several else None
        if any(needed) if ctx.several else needed:
            grad_maps = transpose(grad_output, boxes, ctx.shapes, *ctx.settings)
        grad_boxes = None
        if to_boxes and boxes_needed:
            maps = maps if ctx.several else maps[0]
            grad_boxes = to_boxes(grad_output, maps, boxes, *ctx.settings)
        return grad_maps, grad_boxes, None, *(None for _ in ctx.settings)

    def keep_transposed(ctx: Any, inputs: Any, output: Any) -> None:
        grad_output, boxes, _, *ctx.settings = inputs
        ctx.output_size = grad_output.shape[2:]
        ctx.save_for_backward(boxes, *([grad_output] if to_boxes and boxes.requires_grad else ()))

    def differentiate_transposed(ctx: Any, maps: Any) -> Any:
        """The gradient to grad_output pools `maps`, which is the gradient to the result."""
        boxes, *grad_output = ctx.saved_tensors
        needed, boxes_needed, *_ = ctx.needs_input_grad
        grad_grad_output = pool(maps, boxes, ctx.output_size, *ctx.settings) if needed else None
        grad_boxes = None
        if to_boxes and boxes_needed:
            grad_boxes = to_boxes(*grad_output, maps, boxes, *ctx.settings)
        return grad_grad_output, grad_boxes, None, *(None for _ in ctx.settings)

    pool.register_autograd(differentiate, setup_context=keep)
    transpose.register_autograd(differentiate_transposed, setup_context=keep_transposed)


def keep_winners(ctx: Any, inputs: Any, output: Any) -> None:
    input, boxes, *ctx.settings = inputs
    ctx.save_for_backward(input, boxes)


def differentiate_winners(ctx: Any, grad_output: Tensor) -> Any:
    return roi_pool_backward(grad_output, *ctx.saved_tensors, *ctx.settings), None, None, None


def differentiate_winners_again(ctx: Any, grad_input: Tensor) -> Any:
    """To `input` it is 0, as a small change changes no winner."""
    if ctx.needs_input_grad[0]:
        raise NotImplementedError("the gradient of roi_pool cannot be differentiated once more")
    return None, None, None, None, None


def refuse(ctx: Any, grad_boxes: Tensor) -> Any:
    raise NotImplementedError("the gradient of RoIAlign to its boxes cannot be differentiated once more")


linear(roi_align, roi_align_backward, roi_align_boxes_backward)
linear(roi_align_levels, roi_align_levels_backward, roi_align_levels_boxes_backward)
linear(ps_roi_align, ps_roi_align_backward)
roi_pool.register_autograd(differentiate_winners, setup_context=keep_winners)
roi_pool_backward.register_autograd(differentiate_winners_again)
roi_align_boxes_backward.register_autograd(refuse)
roi_align_levels_boxes_backward.register_autograd(refuse)

"""What PyTorch dispatches: the operators on CPU tensors, and the shape and order of their results.

Each takes its maps first, a tensor or the levels of a pyramid, and its boxes as rows of a batch index and the
numbers of a box. A spatial_scale is two numbers, (y, x), or of volumes three, (z, y, x). `_derivatives` says
how they are differentiated.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

import cyroialign
from cyroialign.arguments.threads import AtMost
from cyroialign.pyramid.levels import infer_scales, level_range

NAMESPACE = "cyroialign"
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
ALL: list[Any] = []  # the operators
BYTES = (torch.uint8, torch.int8)
MOST_RANKS = 2**24  # that float32 has, one for each pixel of a plane


def operator(function: Any) -> Any:
    """Register a function on CPU tensors as the operator of its name, without derivatives.

    `torch.library.custom_op` would add those that it knows, and it knows neither forward mode nor torch.func.
    """
    name = function.__name__
    schema = torch.library.infer_schema(function, mutates_args=())
    LIBRARY.define(f"{name}{schema}", tags=torch.Tag.pt2_compliant_tag)
    LIBRARY.impl(name, function, "CPU")
    ALL.append(getattr(torch.ops.cyroialign, name).default)
    return ALL[-1]


def to_array(tensor: Tensor) -> np.ndarray:
    """View a tensor as an array."""
    reach = tensor.numel()
    if not tensor.is_contiguous():
        reach = 1 + sum(
            (side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
    needed = (tensor.storage_offset() + reach) * tensor.element_size() if tensor.numel() else 0
    held = tensor.untyped_storage().nbytes()
    if held < needed:  # of which torch would show NumPy what lies there now
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} must have memory, {needed} bytes, and its storage has "
            f"{held}: it was freed or resized"
        )
    try:
        return view(tensor)
    except TypeError as error:
        raise TypeError(f"tensors must have a dtype of NumPy, or bfloat16, got {tensor.dtype}") from error


def view(tensor: Tensor) -> np.ndarray:
    """View a tensor that has memory."""
    if tensor.dtype is torch.bfloat16:  # of which torch shows NumPy nothing but the bits
        return view(tensor.detach().view(torch.int16)).view(ml_dtypes.bfloat16)
    array: np.ndarray = tensor.detach().numpy()
    return array


def to_tensor(array: np.ndarray) -> Tensor:
    """View an array as a tensor."""
    if array.dtype.type is ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def scale_of(*scales: float) -> Any:
    """A spatial_scale as the functions of arrays have it: one number where one will do."""
    first = scales[0]
    alike = all(one == first or (math.isnan(one) and math.isnan(first)) for one in scales)
    return first if alike else scales


def call(function: Callable[..., np.ndarray], *arguments: Any) -> Tensor:
    """Call a function of arrays with tensors, on as many threads as torch uses."""
    arrays = [to_array(one) if isinstance(one, Tensor) else one for one in arguments]
    return to_tensor(function(*arrays, num_threads=AtMost(torch.get_num_threads())))


@operator
def roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings = (output_size, scale_of(scale_y, scale_x), sampling_ratio, aligned)
    return call(cyroialign.roi_align, input, boxes, *settings)


@operator
def roi_align_backward(
    grad_output: Tensor,
    boxes: Tensor,
    input_shape: Sequence[int],
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings = (input_shape, scale_of(scale_y, scale_x), sampling_ratio, aligned)
    return call(cyroialign.roi_align_backward, grad_output, boxes, *settings)


@operator
def roi_align_boxes_backward(
    grad_output: Tensor,
    input: Tensor,
    boxes: Tensor,
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    gradient = torch.zeros_like(boxes, memory_format=torch.contiguous_format)
    settings = (scale_of(scale_y, scale_x), sampling_ratio, aligned)
    gradient[:, 1:] = call(cyroialign.roi_align_boxes_backward, grad_output, input, boxes, *settings)
    return gradient


@operator
def roi_align_rotated(
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> Tensor:
    settings = (output_size, scale_of(scale_y, scale_x), sampling_ratio, aligned, clockwise)
    return call(cyroialign.roi_align_rotated, input, boxes, *settings)


@operator
def roi_align_rotated_backward(
    grad_output: Tensor,
    boxes: Tensor,
    input_shape: Sequence[int],
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> Tensor:
    settings = (input_shape, scale_of(scale_y, scale_x), sampling_ratio, aligned, clockwise)
    return call(cyroialign.roi_align_rotated_backward, grad_output, boxes, *settings)


@operator
def prroi_pool(
    input: Tensor, boxes: Tensor, output_size: Sequence[int], scale_y: float, scale_x: float
) -> Tensor:
    return call(cyroialign.prroi_pool, input, boxes, output_size, scale_of(scale_y, scale_x))


@operator
def prroi_pool_backward(
    grad_output: Tensor, boxes: Tensor, input_shape: Sequence[int], scale_y: float, scale_x: float
) -> Tensor:
    scale = scale_of(scale_y, scale_x)
    return call(cyroialign.prroi_pool_backward, grad_output, boxes, input_shape, scale)


@operator
def prroi_pool_boxes_backward(
    grad_output: Tensor, input: Tensor, boxes: Tensor, scale_y: float, scale_x: float
) -> Tensor:
    gradient = torch.zeros_like(boxes, memory_format=torch.contiguous_format)
    scale = scale_of(scale_y, scale_x)
    gradient[:, 1:] = call(cyroialign.prroi_pool_boxes_backward, grad_output, input, boxes, scale)
    return gradient


@operator
def roi_align_3d(
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    scale_z: float,
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings = (output_size, scale_of(scale_z, scale_y, scale_x), sampling_ratio, aligned)
    return call(cyroialign.roi_align_3d, input, boxes, *settings)


@operator
def roi_align_3d_backward(
    grad_output: Tensor,
    boxes: Tensor,
    input_shape: Sequence[int],
    scale_z: float,
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings = (input_shape, scale_of(scale_z, scale_y, scale_x), sampling_ratio, aligned)
    return call(cyroialign.roi_align_3d_backward, grad_output, boxes, *settings)


@operator
def ps_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
) -> Tensor:
    settings = (output_size, scale_of(scale_y, scale_x), sampling_ratio)
    return call(cyroialign.ps_roi_align, input, boxes, *settings)


@operator
def ps_roi_align_backward(
    grad_output: Tensor,
    boxes: Tensor,
    input_shape: Sequence[int],
    scale_y: float,
    scale_x: float,
    sampling_ratio: int,
) -> Tensor:
    settings = (input_shape, scale_of(scale_y, scale_x), sampling_ratio)
    return call(cyroialign.ps_roi_align_backward, grad_output, boxes, *settings)


@operator
def roi_pool(
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    scale_y: float,
    scale_x: float,
) -> Tensor:
    return call(cyroialign.roi_pool, input, boxes, output_size, scale_of(scale_y, scale_x))


@operator
def roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    scale_y: float,
    scale_x: float,
) -> Tensor:
    settings = (output_size, scale_of(scale_y, scale_x))
    return call(cyroialign.roi_pool_backward, grad_output, input, boxes, *settings)


@operator
def roi_pool_at_winners(
    values: Tensor,
    input: Tensor,
    boxes: Tensor,
    output_size: Sequence[int],
    scale_y: float,
    scale_x: float,
) -> Tensor:
    """Of `values` what lies where roi_pool finds the largest pixels of `input`; 0 where it finds none."""
    maps, given = to_array(input), to_array(values)
    pixels = math.prod(maps.shape[2:])
    single = maps.dtype != np.float64
    planes: Any = maps.reshape(*maps.shape[:2], pixels).astype(np.float32 if single else np.float64)
    if pixels > MOST_RANKS and single:
        raise NotImplementedError(
            f"the winners of roi_pool are known for maps of at most {MOST_RANKS} pixels a channel, or of "
            f"float64, got {pixels}"
        )
    # Ranks are pooled instead of pixels, as they tell whose they are; the first of equals has the highest.
    pixel_of = np.argsort(-planes, axis=-1, kind="stable")
    ranks = np.empty_like(planes)
    np.put_along_axis(ranks, pixel_of, np.arange(pixels, 0, -1, dtype=planes.dtype)[None, None], axis=-1)
    ranks[~(planes > -np.inf)] = -np.inf
    settings = (output_size, scale_of(scale_y, scale_x))
    won = to_array(call(cyroialign.roi_pool, torch.from_numpy(ranks.reshape(maps.shape)), boxes, *settings))
    found = won > 0
    images = to_array(boxes)[:, 0].astype(np.intp)[:, None, None, None]
    channels = np.arange(maps.shape[1])[:, None, None]
    order = np.where(found, pixels - won, 0).astype(np.intp)
    result = np.zeros(won.shape, given.dtype)
    if result.size:
        taken = given.reshape(planes.shape)[images, channels, pixel_of[images, channels, order]]
        result[found] = taken[found]
    return in_order_of(values, result.shape).copy_(to_tensor(result))


@operator
def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    image_shape: Sequence[int],
    rule: str,
    padding: int,
    threshold: float | None,
) -> Tensor:
    settings: dict[str, Any] = {"rule": rule, "padding": padding, "threshold": threshold}
    return call(partial(cyroialign.paste_masks, **settings), masks, boxes, image_shape)


@operator
def roi_align_levels(
    x: Sequence[Tensor],
    boxes: Tensor,
    output_size: Sequence[int],
    image_sizes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> Tensor:
    pool = pooler(len(x), output_size, spatial_scales, sampling_ratio, canonical_scale, canonical_level)
    maps = dict(zip(pool.featmap_names, map(to_array, x), strict=True))
    shapes = pairs(image_sizes)
    return to_tensor(pool(maps, by_image(boxes, len(x[0])), shapes))


@operator
def roi_align_levels_backward(
    grad_output: Tensor,
    boxes: Tensor,
    x_shapes: Sequence[int],
    image_sizes: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> list[Tensor]:
    grads = to_array(grad_output)
    shapes = [tuple(x_shapes[i : i + 4]) for i in range(0, len(x_shapes), 4)]
    bins = grads.shape[2:]
    pool = pooler(len(shapes), bins, spatial_scales, sampling_ratio, canonical_scale, canonical_level)
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
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> Tensor:
    gradient = torch.zeros_like(boxes, memory_format=torch.contiguous_format)
    if not len(boxes):  # then a map may be without pixels, and so without a scale
        return gradient
    scales = scales_of(spatial_scales) or infer_scales([one.shape[2:] for one in x], pairs(image_sizes))
    levels = cyroialign.assign_levels(
        to_array(boxes),
        *level_range(scales),
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
    )
    for level, (input, scale) in enumerate(zip(x, scales, strict=True)):
        rows = torch.from_numpy(np.flatnonzero(levels == level))
        settings = (scale, sampling_ratio, False)
        gradient[rows, 1:] = call(
            cyroialign.roi_align_boxes_backward, grad_output[rows], input, boxes[rows], *settings
        )
    return gradient


def pooler(
    levels: int,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    canonical_scale: float,
    canonical_level: int,
) -> cyroialign.MultiScaleRoIAlign:
    """The pooler of levels that have no names."""
    given: dict[str, Any] = {"spatial_scales": scales_of(spatial_scales)} if spatial_scales else {}
    return cyroialign.MultiScaleRoIAlign(
        [str(level) for level in range(levels)],
        (output_size[0], output_size[1]),
        sampling_ratio,
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
        num_threads=AtMost(torch.get_num_threads()),
        **given,
    )


def scales_of(numbers: Sequence[float]) -> list[Any]:
    """The scale of each level, from (y, x) after (y, x)."""
    return [scale_of(*numbers[i : i + 2]) for i in range(0, len(numbers), 2)]


def pairs(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Put together (height, width), since an operator takes no nested lists."""
    return [numbers[i : i + 2] for i in range(0, len(numbers), 2)]


def by_image(boxes: Tensor, images: int) -> list[np.ndarray]:
    """Take apart the boxes of each image, which follow one another."""
    rows = to_array(boxes)
    return np.split(rows[:, 1:], np.searchsorted(rows[:, 0], np.arange(1, images)))[:images]


def in_order_of(given: Tensor, shape: Sequence[int]) -> Tensor:
    """A result as it is traced: without values, of the type and in the memory order of what was given."""
    order = torch.channels_last_3d if given.ndim == 5 else torch.channels_last
    if given.is_contiguous() or not given.is_contiguous(memory_format=order):
        order = torch.contiguous_format
    dtype = torch.float32 if given.dtype in BYTES else given.dtype
    return torch.empty(shape, dtype=dtype, device=given.device, memory_format=order)


# Shapes and orders, for tracing.


def like_bins(input: Tensor, boxes: Tensor, output_size: Sequence[int], *settings: Any) -> Tensor:
    return in_order_of(input, (boxes.shape[0], input.shape[1], *output_size))


def like_position_sensitive_bins(
    input: Tensor, boxes: Tensor, output_size: Sequence[int], *settings: Any
) -> Tensor:
    channels = input.shape[1] // math.prod(output_size)
    return in_order_of(input, (boxes.shape[0], channels, *output_size))


def like_images(
    masks: Tensor, boxes: Tensor, image_shape: Sequence[int], rule: str, padding: int, threshold: float | None
) -> Tensor:
    images = in_order_of(masks[:, :, :0, :0].contiguous(), (masks.shape[0], 1, *image_shape))
    return images if threshold is None else images.to(torch.bool)


def like_map(grad_output: Tensor, boxes: Tensor, input_shape: Sequence[int], *settings: Any) -> Tensor:
    return in_order_of(grad_output, input_shape)


def like_maps(grad_output: Tensor, boxes: Tensor, shapes: Sequence[int], *settings: Any) -> list[Tensor]:
    return [in_order_of(grad_output, shapes[i : i + 4]) for i in range(0, len(shapes), 4)]


def like_boxes(grad_output: Tensor, maps: Any, boxes: Tensor, *settings: Any) -> Tensor:
    return torch.zeros_like(boxes, memory_format=torch.contiguous_format)


def fake(operator: Any, function: Callable[..., Any]) -> None:
    torch.library.register_fake(operator.name(), function, lib=LIBRARY)


fake(roi_align, like_bins)
fake(roi_align_backward, like_map)
fake(roi_align_boxes_backward, like_boxes)
fake(roi_align_rotated, like_bins)
fake(roi_align_rotated_backward, like_map)
fake(prroi_pool, like_bins)
fake(prroi_pool_backward, like_map)
fake(prroi_pool_boxes_backward, like_boxes)
fake(roi_align_3d, like_bins)
fake(roi_align_3d_backward, like_map)
fake(ps_roi_align, like_position_sensitive_bins)
fake(ps_roi_align_backward, like_map)
fake(roi_pool, like_bins)
fake(roi_pool_backward, lambda grad_output, pooled, *settings: in_order_of(pooled, pooled.shape))
fake(roi_pool_at_winners, lambda values, pooled, *settings: like_bins(values, *settings))
fake(paste_masks, like_images)
fake(roi_align_levels, lambda x, *settings: like_bins(x[0], *settings))
fake(roi_align_levels_backward, like_maps)
fake(roi_align_levels_boxes_backward, like_boxes)

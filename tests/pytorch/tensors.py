"""Maps, boxes and pyramids of these tests, as tensors."""

import numpy as np
import pytest
import torch
from reference import random_boxes

import cyroialign
from cyroialign.torch import MultiScaleRoIAlign
from cyroialign.torch import _operators as operators

SHAPE, COUNT, BINS = (2, 24, 14, 19), 15, (3, 2)  # 24 = 4 * 3 * 2: channels for each bin of ps_roi_align
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ORDERS = [torch.contiguous_format, torch.channels_last]
SETTINGS = {  # what follows the output size
    "roi_align": [(0.5, 2, True), (0.7, -1, False)],
    "roi_align_rotated": [(0.5, 2, True, False), (0.7, -1, False, True)],
    "prroi_pool": [(0.5,)],
    "ps_roi_align": [(0.5, 2), (0.7, -1)],
    "roi_pool": [(0.5,)],
}
CASES = [(name, settings) for name in SETTINGS for settings in SETTINGS[name]]
PYRAMID = {"fine": (2, 6, 24, 20), "coarse": (2, 6, 12, 10)}
IMAGES = [(47, 40), (48, 37)]
WITH_TANGENTS = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # by torch itself


def random(shape, dtype=torch.float32, order=torch.contiguous_format, seed=0):
    values = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape))
    return values.to(dtype).contiguous(memory_format=order)


def some_boxes(dtype=torch.float32):
    boxes = random_boxes(np.random.default_rng(1), COUNT, SHAPE)
    return torch.from_numpy(boxes[boxes[:, 0].argsort()]).to(dtype)  # by image, as lists have it


def boxes_for(name, boxes):
    """Boxes in the form that an operator takes: with an angle for `roi_align_rotated`."""
    if name != "roi_align_rotated":
        return boxes
    index, first, last = boxes[:, :1], boxes[:, 1:3], boxes[:, 3:]
    return torch.cat([index, (first + last) / 2, last - first, 0.3 * last.sum(1, keepdim=True)], 1)


def some_volume(order=torch.contiguous_format, dtype=torch.float32):
    order = torch.channels_last_3d if order is torch.channels_last else order
    return random((2, 6, 5, 8, 9), dtype, order)


def some_boxes_3d(dtype=torch.float32):
    """Boxes between whose samples and the edges of voxels there is room."""
    corners = [
        [0, 1.3, 1.2, 0.6, 5.1, 6.7, 3.9],
        [1, -2.2, 3.3, -1.3, 7.3, 9.1, 7.7],
        [1, 2, 3, 1, 4, 9, 2.3],
    ]
    return torch.tensor(corners, dtype=dtype)


def of_images(boxes, images=SHAPE[0]):
    return [boxes[boxes[:, 0] == image, 1:] for image in range(images)]


def pyramid(dtype=torch.float64, order=torch.contiguous_format):
    return {name: random(shape, dtype, order, seed=i) for i, (name, shape) in enumerate(PYRAMID.items())}


def boxes_of_levels(dtype=torch.float64):
    """Boxes of which each level gets some, without a sample on a pixel's edge."""
    first = [[2.1, 2.9, 9.5, 11.1], [0.5, 5.9, 35.7, 41.6], [9.9, 3.1, 13.8, 8.9]]
    second = [[1.3, 1.8, 33.8, 44.4], [20.5, 20.9, 27.5, 29.1]]
    return [torch.tensor(first, dtype=dtype), torch.tensor(second, dtype=dtype)]


def pooler(output_size=BINS, sampling_ratio=2):
    return MultiScaleRoIAlign(
        list(PYRAMID), output_size, sampling_ratio, canonical_scale=20, canonical_level=2
    )


def numpy_pooler(output_size=BINS, sampling_ratio=2):
    return cyroialign.MultiScaleRoIAlign(
        list(PYRAMID), output_size, sampling_ratio, canonical_scale=20, canonical_level=2
    )


def bits(values):
    """Of a tensor or an array, in the order of its axes."""
    array = operators.to_array(values) if isinstance(values, torch.Tensor) else values
    return array.dtype.name, array.shape, array.tobytes()


def smooth_boxes(requires_grad=False):
    """Corners between whose samples and the edges of pixels there is room."""
    corners = torch.tensor([[1.3, 1.2, 5.1, 6.7], [-2.2, 3.3, 7.3, 9.1]], dtype=torch.float64)
    return corners.requires_grad_(requires_grad)


def with_images(corners):
    return torch.cat([torch.arange(2.0).to(corners)[:, None], corners], 1)


def numpy_gradient(name, grad_output, input, boxes, settings):
    function = getattr(cyroialign, f"{name}_backward")
    grad_output, input, boxes = (operators.to_array(one) for one in (grad_output, input, boxes))
    if name == "roi_pool":
        return function(grad_output, input, boxes, BINS, *settings)
    return function(grad_output, boxes, input.shape, *settings)

"""What must hold for RoIAlign with any values: adjointness, linearity, symmetries, independence."""

import itertools

import numpy as np
import pytest
from reference import random_boxes

from cyroialign import roi_align, roi_align_backward

SETTINGS = [
    {"spatial_scale": 0.25, "sampling_ratio": ratio, "aligned": aligned}
    for ratio, aligned in itertools.product([-1, 1, 2, 5], [False, True])
]


def some_call(dtype=np.float64, spatial_scale=0.25, boxes=30, shape=(2, 11, 17, 23)):
    rng = np.random.default_rng(0)
    input = rng.standard_normal(shape).astype(dtype)
    return input, random_boxes(rng, boxes, shape, spatial_scale), rng


@pytest.mark.parametrize("settings", SETTINGS)
def test_constant_map_gives_the_constant(settings):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(2, 60, (2, 40, 2)), axis=0)  # low and high of each box, inside the map
    boxes = np.hstack([np.zeros((40, 1)), *corners])
    output = roi_align(np.full((1, 9, 16, 16), 1.7), boxes, (5, 3), **settings)
    np.testing.assert_allclose(output, 1.7, rtol=1e-14)
    # The weights of a bin sum to 1, so what it is given arrives whole.
    gradient = roi_align_backward(np.ones((40, 9, 5, 3)), boxes, (1, 9, 16, 16), **settings)
    np.testing.assert_allclose(gradient.sum(axis=(0, 2, 3)), 40 * 15, rtol=1e-13)


@pytest.mark.parametrize("shape", [(1, 3, 12, 17), (2, 9, 5, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_box_around_the_map_gives_the_map(shape, dtype):
    input = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    images, _, height, width = shape
    boxes = np.array([[n, 0, 0, width, height] for n in range(images)], dtype)
    settings = {"sampling_ratio": 1, "aligned": True}
    np.testing.assert_array_equal(roi_align(input, boxes, (height, width), **settings), input)
    np.testing.assert_array_equal(roi_align_backward(input, boxes, shape, **settings), input)


def test_mirrored_box_gives_the_mirrored_map():
    input = some_call(shape=(1, 3, 12, 17))[0]
    boxes = np.array([[0.0, 17, 12, 0, 0]])
    output = roi_align(input, boxes, (12, 17), sampling_ratio=1, aligned=True)
    np.testing.assert_array_equal(output, input[:, :, ::-1, ::-1])


def test_crop_of_whole_pixels():
    input = some_call(shape=(1, 3, 12, 17))[0]
    output = roi_align(input, np.array([[0.0, 3, 2, 16, 9]]), (7, 13), aligned=True)
    np.testing.assert_array_equal(output, input[:, :, 2:9, 3:16])


def test_adaptive_bins_of_whole_pixels_are_block_means():
    input = some_call(shape=(1, 3, 12, 18))[0]
    output = roi_align(input, np.array([[0.0, 0, 0, 18, 12]]), (4, 3), aligned=True)
    np.testing.assert_allclose(output[0], input.reshape(3, 4, 3, 3, 6).mean(axis=(2, 4)), rtol=0, atol=1e-15)


def test_moving_box_and_map_together():
    input = some_call(shape=(1, 3, 12, 17))[0]
    boxes = np.array([[0.0, 1.25, 2.5, 7.75, 8]])  # exact in binary, so that sums do not round
    moved = np.zeros((1, 3, 16, 22))
    moved[:, :, 4:, 5:] = input
    output = roi_align(input, boxes, 4, sampling_ratio=2)
    boxes[:, 1:] += [5, 4, 5, 4]
    np.testing.assert_array_equal(roi_align(moved, boxes, 4, sampling_ratio=2), output)

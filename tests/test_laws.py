"""What must hold for RoIAlign whatever its values: adjointness, linearity, symmetries, independence."""

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
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-15)])
def test_backward_is_the_transpose(settings, dtype, tolerance):
    input, boxes, rng = some_call(dtype)
    grad_output = rng.standard_normal((30, 11, 5, 3)).astype(dtype)
    forward = roi_align(input, boxes, (5, 3), **settings).astype(np.float64)
    backward = roi_align_backward(grad_output, boxes, input.shape, **settings).astype(np.float64)
    terms = np.abs(forward * grad_output).sum()
    assert abs((forward * grad_output).sum() - (backward * input).sum()) <= tolerance * terms


@pytest.mark.parametrize("settings", SETTINGS)
def test_both_are_linear(settings):
    a, boxes, rng = some_call()
    b = rng.standard_normal(a.shape)
    g, h = rng.standard_normal((2, 30, 11, 5, 3))
    np.testing.assert_allclose(
        roi_align(2 * a - 3 * b, boxes, (5, 3), **settings),
        2 * roi_align(a, boxes, (5, 3), **settings) - 3 * roi_align(b, boxes, (5, 3), **settings),
        rtol=0,
        atol=1e-13,
    )
    np.testing.assert_allclose(
        roi_align_backward(2 * g - 3 * h, boxes, a.shape, **settings),
        2 * roi_align_backward(g, boxes, a.shape, **settings)
        - 3 * roi_align_backward(h, boxes, a.shape, **settings),
        rtol=0,
        atol=1e-12,
    )


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


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_do_not_depend_on_other_boxes(dtype, layout):
    input, boxes, rng = some_call(dtype)
    if layout == "NHWC":
        input = np.ascontiguousarray(input.transpose(0, 2, 3, 1))
    settings = {"output_size": 7, "spatial_scale": 0.25, "layout": layout}
    output = roi_align(input, boxes, **settings)
    order = rng.permutation(len(boxes))
    assert roi_align(input, boxes[order], **settings).tobytes() == output[order].tobytes()
    for k in range(len(boxes)):
        alone = roi_align(input, boxes[k : k + 1], **settings)
        assert alone.tobytes() == output[k].tobytes()


def test_many_boxes_are_as_those_of_several_calls():
    """Calls with very many boxes are carried out in portions."""
    rng = np.random.default_rng(0)
    shape, count = (2, 1, 64, 64), 20_000
    input, boxes = rng.standard_normal(shape), random_boxes(rng, count, shape)
    output = roi_align(input, boxes, 1)
    gradient, expected = roi_align_backward(output, boxes, shape), 0
    for part in np.array_split(np.arange(count), 40):
        assert roi_align(input, boxes[part], 1).tobytes() == output[part].tobytes()
        expected = expected + roi_align_backward(output[part], boxes[part], shape)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_images_do_not_depend_on_each_other():
    input, boxes, rng = some_call()
    grad_output = rng.standard_normal((30, 11, 7, 7))
    gradient = roi_align_backward(grad_output, boxes, input.shape, 0.25)
    for image in range(2):
        mine = boxes[:, 0] == image
        alone = np.hstack([np.zeros((mine.sum(), 1)), boxes[mine, 1:]])
        expected = roi_align_backward(grad_output[mine], alone, (1, *input.shape[1:]), 0.25)
        assert gradient[image].tobytes() == expected[0].tobytes()


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


def test_scaling_the_values_by_a_power_of_two_is_exact():
    input, boxes, _ = some_call(np.float32)
    np.testing.assert_array_equal(roi_align(input * 8, boxes, 7, 0.25), roi_align(input, boxes, 7, 0.25) * 8)

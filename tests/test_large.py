"""Arrays of more than 2**31 elements are right at their ends. Memory that is only zeros is never touched."""

import numpy as np
import pytest

from cyroialign import roi_align, roi_align_backward

pytestmark = [pytest.mark.heavy, pytest.mark.parametrize("layout", ["NCHW", "NHWC"])]  # 9 GiB each

COUNT, BINS = 2**15 + 5, 2**8  # RoIs and bins a side of more than 2**31 values
LONG, SHORT = 26760, 40  # pixels a side; three channels of the long one are more than 2**31 values


def shape_of(layout, count, channels, side):
    return (count, channels, side, side) if layout == "NCHW" else (count, side, side, channels)


def last_corner(array, layout):
    end = slice(-SHORT, None)
    return array[:, :, end, end] if layout == "NCHW" else array[:, end, end]


def many_boxes():
    boxes = np.zeros((COUNT, 5))
    boxes[-3:, 1:] = [[0, 0, 5, 4], [1, 1, 3.5, 3], [-1, 0.25, 9, 4]]
    return boxes


def corner_boxes(corner):
    """The same boxes in the corner of any map; whole and half pixels, so that positions do not round."""
    boxes = np.array([[0.0, 2, 3, 38, 39.5], [0, 20, 20.5, 45, 45]])
    boxes[:, 1:] += corner
    return boxes


def test_output(layout):
    input, boxes = np.random.default_rng(0).random(shape_of(layout, 1, 1, 5), np.float32), many_boxes()
    output = roi_align(input, boxes, BINS, layout=layout)
    assert output.size > 2**31
    assert output[-3:].tobytes() == roi_align(input, boxes[-3:], BINS, layout=layout).tobytes()


def test_gradient_of_output(layout):
    grad_output, boxes = np.zeros(shape_of(layout, COUNT, 1, BINS), np.float32), many_boxes()
    grad_output[-3:] = np.random.default_rng(0).random(grad_output[-3:].shape)
    input_shape = shape_of(layout, 1, 1, 5)
    gradient = roi_align_backward(grad_output, boxes, input_shape, layout=layout)
    expected = roi_align_backward(grad_output[-3:], boxes[-3:], input_shape, layout=layout)
    np.testing.assert_array_equal(gradient, expected)


def test_input(layout):
    large = np.zeros(shape_of(layout, 1, 3, LONG), np.float32)
    small = np.random.default_rng(0).random(shape_of(layout, 1, 3, SHORT), np.float32)
    last_corner(large, layout)[...] = small
    assert large.size > 2**31
    output = roi_align(large, corner_boxes(LONG - SHORT), 8, layout=layout)
    np.testing.assert_array_equal(output, roi_align(small, corner_boxes(0), 8, layout=layout))


def test_gradient_of_input(layout):
    grad_output = np.random.default_rng(0).random(shape_of(layout, 2, 3, 8), np.float32)
    large, small = (shape_of(layout, 1, 3, side) for side in (LONG, SHORT))
    gradient = roi_align_backward(grad_output, corner_boxes(LONG - SHORT), large, layout=layout)
    expected = roi_align_backward(grad_output, corner_boxes(0), small, layout=layout)
    np.testing.assert_array_equal(last_corner(gradient, layout), expected)
    assert np.count_nonzero(gradient) == np.count_nonzero(expected)

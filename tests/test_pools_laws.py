"""What must hold for RoIPool, PSRoIAlign and PSRoIPool with any values."""

import numpy as np
import pytest
from pools import arguments_of, arrays, backward, forward
from reference import random_boxes

SENSITIVE = ("ps_roi_align", "ps_roi_pool")


def some_call(name, dtype=np.float64, count=40, shape=(2, 11, 17, 23), output_size=(5, 3)):
    """Input, gradient, boxes and arguments; the boxes end before the last row and column of the map."""
    input, grad_output = arrays(name, shape, dtype, count, output_size)
    boxes = random_boxes(np.random.default_rng(0), count, shape, 0.25)
    boxes[:, 1:] = np.minimum(boxes[:, 1:], np.subtract([shape[3], shape[2]] * 2, 2.0) * 4)
    return input, grad_output, boxes, arguments_of(name, 0.25, 2)


def test_ps_roi_pool_of_a_padded_map():
    """Only the means leave out the last row and column, as the docstrings say."""
    input, grad_output = arrays("ps_roi_pool", (1, 3, 9, 8), np.float64, 20, (2, 3))
    boxes = random_boxes(np.random.default_rng(0), 20, (1, 18, 9, 8))
    padded = np.pad(input, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    output = forward("ps_roi_pool", padded, boxes, (2, 3), ())
    gradient = backward("ps_roi_pool", grad_output, input, boxes, (2, 3), ())
    np.testing.assert_allclose((output * grad_output).sum(), (gradient * input).sum(), rtol=1e-13)
    input[:, :, -1] = input[:, :, :, -1] = np.nan
    assert np.isfinite(forward("ps_roi_pool", input, boxes, (2, 3), ())).all()


def test_roi_pool_gives_what_it_takes():
    """Each bin is the number at the pixel that its gradient goes to."""
    input, _, boxes, arguments = some_call("roi_pool")
    output = forward("roi_pool", input, boxes, (5, 3), arguments)
    for k, c, i, j in np.ndindex(4, 11, 5, 3):
        grad_output = np.zeros((1, 11, 5, 3))
        grad_output[0, c, i, j] = 1
        gradient = backward("roi_pool", grad_output, input, boxes[k : k + 1], (5, 3), arguments)
        assert (gradient * input).sum() == output[k, c, i, j]
        assert np.abs(gradient).sum() == (output[k, c, i, j] != 0)


def test_roi_pool_of_whole_blocks():
    input = some_call("roi_pool", shape=(1, 11, 12, 18))[0]
    output = forward("roi_pool", input, np.array([[0.0, 0, 0, 17, 11]]), (4, 3), ())
    np.testing.assert_array_equal(output[0], input.reshape(11, 4, 3, 3, 6).max(axis=(2, 4)))


@pytest.mark.parametrize("name", SENSITIVE)
def test_channels_of_bins(name):
    """Each bin reads its own channels and no other."""
    input = np.broadcast_to(np.arange(30.0)[:, None, None], (1, 30, 12, 13))
    output = forward(name, input, np.array([[0.0, 1, 1, 9, 10]]), (5, 3), ())
    np.testing.assert_allclose(output, np.arange(30).reshape(1, 2, 5, 3), rtol=1e-14, atol=1e-14)

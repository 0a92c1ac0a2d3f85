"""The gradient to the boxes: finite differences, what one can work out by hand, its types."""

import itertools

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cyroialign import roi_align, roi_align_boxes_backward


def channels_last(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def is_smooth(low, high, bins, arguments, margin=1e-3):
    """Whether no sample of an axis crosses a pixel, nor their number changes, when an edge moves a little."""
    scale, _, aligned = arguments
    places = np.concatenate(reference.positions(low, high, bins, *arguments, np.float64) or [[]])
    apart = np.abs(places - np.round(places))
    side = scale * (high - low)
    return (
        (apart > margin).all()
        and abs(side / bins - round(side / bins)) > margin
        and (aligned or abs(side - 1) > margin)
    )


@given(
    st.tuples(*[st.floats(-3, 12)] * 4),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([1.0, 0.37, 2.5]),
    st.integers(-1, 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=300)
def test_finite_differences(corners, output_size, scale, sampling_ratio, aligned, seed):
    """Between its kinks the result is linear in each coordinate, so that any step gives the derivative."""
    x1, y1, x2, y2 = np.array(corners) / scale
    arguments = (scale, sampling_ratio, aligned)
    assume(is_smooth(x1, x2, output_size[1], arguments) and is_smooth(y1, y2, output_size[0], arguments))
    rng = np.random.default_rng(seed)
    input, grad_output = rng.standard_normal((1, 3, 8, 9)), rng.standard_normal((1, 3, *output_size))
    box, step = np.array([[0, x1, y1, x2, y2]]), 1e-4 / scale
    differences = np.empty((1, 4))
    for corner in range(4):
        moved = np.repeat(box, 2, axis=0)
        moved[:, 1 + corner] += [-step, step]
        before, after = (roi_align(input, moved, output_size, *arguments) * grad_output).sum(axis=(1, 2, 3))
        differences[0, corner] = (after - before) / (2 * step)
    actual = roi_align_boxes_backward(grad_output, input, box, *arguments)
    np.testing.assert_allclose(actual, differences, rtol=0, atol=1e-8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("aligned", "sampling_ratio"), list(itertools.product([False, True], [0, 1, 3])))
def test_plane(aligned, sampling_ratio, layout):
    """On f(y, x) = a y + b x + c a bin is the value at its centre, and moves as its centre does."""
    a, b, c, scale, bins = 3.0, -2.0, 5.0, 0.5, (3, 4)
    y, x = np.mgrid[:20.0, :30.0]
    input = (a * y + b * x + c)[None, None]
    boxes = np.array([[0, 4.2, 6.4, 41.0, 33.0], [0, 10.0, 3.0, 13.0, 30.0]])  # inside the map
    for bin in np.ndindex(*bins):
        grad_output = np.zeros((2, 1, *bins))
        grad_output[:, :, *bin] = 1
        u, v = (bin[1] + 0.5) / bins[1], (bin[0] + 0.5) / bins[0]
        expected = scale * np.array([b * (1 - u), a * (1 - v), b * u, a * v])
        if layout == "NHWC":
            grad_output = channels_last(grad_output)
        maps = channels_last(input) if layout == "NHWC" else input
        arguments = (maps, boxes, scale, sampling_ratio, aligned)
        actual = roi_align_boxes_backward(grad_output, *arguments, layout=layout)
        np.testing.assert_allclose(actual, [expected] * 2, rtol=0, atol=1e-13)


def slope_at(place, end="x1"):
    """The gradient of one sample, at `place` on a row of pixels 0, 1, 4, 9, 16, to one edge of its box."""
    input = np.arange(5.0)[None, None, None, :] ** 2 * np.ones((1, 1, 5, 1))
    boxes = np.array([[0, place - 0.5, 1.0, place + 0.5, 3.0]])
    gradient = roi_align_boxes_backward(np.ones((1, 1, 1, 1)), input, boxes, 1.0, 1)
    return gradient[0, ["x1", "y1", "x2", "y2"].index(end)]


@pytest.mark.parametrize(
    ("place", "slope"),
    [
        (-1.5, 0),  # outside: 0 on both sides
        (-1, 0),
        (-0.5, 0),  # clamped to the first pixel
        (0, 1),  # on a pixel: the derivative of the cell to the right, since the left one is clamped
        (0.5, 1),
        (1, 3),
        (3.999, 7),
        (4, 0),  # on the last pixel: clamped
        (4.5, 0),
        (5, 0),
        (5.5, 0),
    ],
)
def test_kinks(place, slope):
    assert slope_at(place, "x1") == pytest.approx(slope / 2, abs=1e-12)
    assert slope_at(place, "x2") == pytest.approx(slope / 2, abs=1e-12)
    assert slope_at(place, "y1") == slope_at(place, "y2") == 0


def test_a_box_narrower_than_a_pixel():
    """The legacy rule makes it a pixel wide: x1 moves all of it, x2 nothing, and the same for y."""
    y, x = np.mgrid[:9.0, :9.0]
    boxes = np.array([[0, 3.2, 2.0, 3.9, 5.0], [0, 3.2, 2.0, 4.4, 2.4], [0, 3.2, 4.0, 2.2, 2.0]])
    grad_output = np.ones((3, 1, 2, 2))
    gradient = roi_align_boxes_backward(grad_output, (5 * y + 7 * x)[None, None], boxes)
    np.testing.assert_allclose(gradient, [[28, 10, 0, 10], [14, 20, 14, 0], [28, 20, 0, 0]], atol=1e-12)
    assert (gradient[[0, 1, 2, 2], [2, 3, 2, 3]] == 0).all()
    gradient = roi_align_boxes_backward(grad_output, (5 * y + 7 * x)[None, None], boxes, 1.0, 2, True)
    np.testing.assert_allclose(gradient, [[14, 10, 14, 10]] * 3, atol=1e-12)


def test_a_constant_map_gives_no_gradient():
    """The weights of a bin do not sum to 1 at the rim, but they do not change there either."""
    boxes = reference.random_boxes(np.random.default_rng(0), 50, (1, 1, 9, 9))
    gradient = roi_align_boxes_backward(np.ones((50, 3, 4, 4)), np.ones((1, 3, 9, 9)), boxes)
    np.testing.assert_allclose(gradient, np.zeros((50, 4)), atol=1e-12)


@pytest.mark.parametrize("aligned", [False, True])
def test_transposition_swaps_x_and_y(aligned):
    rng = np.random.default_rng(0)
    input, grad_output = rng.standard_normal((2, 3, 9, 14)), rng.standard_normal((25, 3, 4, 5))
    boxes = reference.random_boxes(rng, 25, input.shape)
    swapped = roi_align_boxes_backward(
        grad_output.swapaxes(2, 3), input.swapaxes(2, 3), boxes[:, [0, 2, 1, 4, 3]], aligned=aligned
    )
    gradient = roi_align_boxes_backward(grad_output, input, boxes, aligned=aligned)
    np.testing.assert_allclose(gradient, swapped[:, [1, 0, 3, 2]], rtol=0, atol=1e-12)


# Types and refusals

BOXES = np.array([[0, 1, 1, 5, 5], [1, 2, 2, 6, 6], [1, 0, 0, 3, 3]], np.float32)
ARGUMENTS = {
    "grad_output": np.ones((3, 3, 2, 2), np.float32),
    "input": np.ones((2, 3, 8, 9), np.float32),
    "boxes": BOXES,
}


EMPTY = {  # x1, y1, x2, y2 on a map of 9 x 8 pixels
    "inverted": (7, 6, 2, 1),
    "zero-size": (3, 4, 3, 4),
    "zero width": (3, 1, 3, 6),
    "above": (2, -30, 6, -20),
    "right": (30, 2, 40, 6),
    "just outside": (-6, -6, -1.001, -1.001),
}


@pytest.mark.parametrize("name", EMPTY)
def test_bins_without_samples_give_exactly_zero(name):
    """Even where neither the map nor the gradient to these bins is finite."""
    grad_output, input = np.full((1, 2, 3, 3), np.nan), np.full((1, 2, 8, 9), np.inf)
    boxes = np.array([[0, *EMPTY[name]]])
    assert (roi_align_boxes_backward(grad_output, input, boxes, aligned=True) == 0).all()


@pytest.mark.parametrize(
    ("dtype", "box_dtype", "expected"),
    [
        ("f4", "f4", "f4"),
        ("f4", "f2", "f4"),
        ("f4", "i2", "f4"),
        ("f4", "f8", "f8"),
        ("f4", "i8", "f8"),
        ("f8", "f4", "f8"),
    ],
)
def test_dtype_of_the_result(dtype, box_dtype, expected):
    result = roi_align_boxes_backward(
        np.ones((3, 3, 2, 2), dtype), np.ones((2, 3, 8, 9), dtype), BOXES.astype(box_dtype)
    )
    assert result.dtype == np.dtype(expected)


def test_gradient_beyond_float32_is_infinite():
    grad_output, input = np.full((1, 1, 1, 1), 1e30, "f4"), np.arange(4, dtype="f4").reshape(1, 1, 2, 2)
    boxes = np.array([[0, 0, 0, 1e-30, 1e-30]], "f4")
    assert (
        roi_align_boxes_backward(grad_output, input, boxes, spatial_scale=1e30, sampling_ratio=1)[0, 0]
        == np.inf
    )


def refused(error, parts, **arguments):
    with pytest.raises(error) as caught:
        roi_align_boxes_backward(**{**ARGUMENTS, **arguments})
    for part in parts.split("|"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"input": ARGUMENTS["input"].astype(np.int16)}, TypeError, "input must have dtype|int16"),
        ({"input": ARGUMENTS["input"].astype(float)}, TypeError, "from input, float64, got float32"),
        ({"grad_output": ARGUMENTS["grad_output"].astype(int)}, TypeError, "grad_output|int64"),
        ({"grad_output": ARGUMENTS["grad_output"][:2]}, ValueError, "3 boxes|(2, 3, 2, 2)|(2, 3, 8, 9)"),
        ({"grad_output": ARGUMENTS["grad_output"][:, :2]}, ValueError, "channels|(3, 2, 2, 2)|(2, 3, 8, 9)"),
        ({"grad_output": ARGUMENTS["grad_output"][..., :0]}, ValueError, "bins|(3, 3, 2, 0)"),
        ({"input": ARGUMENTS["input"][:, :, :0]}, ValueError, "pixels|3 boxes|height 0 and width 9"),
        ({"input": ARGUMENTS["input"][:1]}, ValueError, "boxes[1] has batch_index 1, but input has 1 image"),
        ({"layout": "NHWC"}, ValueError, "channels|(3, 2, 3, 2)|(2, 9, 3, 8)"),
    ],
)
def test_errors(arguments, error, parts):
    refused(error, parts, **arguments)

"""Modes "max" and "onnx_max", forward and backward: ties, values by hand, laws of their own."""

import numpy as np
import pytest
import reference
import reference_maximum
from hypothesis import given, settings
from hypothesis import strategies as st

from cyroialign import RoIAlign, roi_align, roi_align_backward

MODES = ("max", "onnx_max")
LAYOUTS = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}  # where its axes come from
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def in_layout(layout, *arrays):
    """Contiguous copies of (N, C, H, W) arrays in a layout."""
    return [np.ascontiguousarray(array.transpose(LAYOUTS[layout])) for array in arrays]


def both(input, grad_output, boxes, *arguments, mode, layout="NCHW", **options):
    """Forward and backward by way of a layout, as (N, C, H, W)."""
    input, grad_output = in_layout(layout, input, grad_output)
    bins = grad_output.shape[2:] if layout == "NCHW" else grad_output.shape[1:3]
    options = {"mode": mode, "layout": layout, **options}
    results = (
        roi_align(input, boxes, bins, *arguments, **options),
        roi_align_backward(grad_output, boxes, input.shape, *arguments, input=input, **options),
    )
    return [result.transpose(np.argsort(LAYOUTS[layout])) for result in results]


def some_call(dtype=np.float64, boxes=12, shape=(2, 11, 13, 17), bins=(4, 3)):
    rng = np.random.default_rng(0)
    input = rng.standard_normal(shape).astype(dtype)
    grad_output = rng.standard_normal((boxes, shape[1], *bins)).astype(dtype)
    return input, grad_output, reference.random_boxes(rng, boxes, shape, 0.5).astype(dtype)


SETTINGS = [(0.5, ratio, aligned) for ratio in (-1, 1, 2, 5) for aligned in (False, True)]
every_mode = pytest.mark.parametrize("mode", MODES)
every_setting = pytest.mark.parametrize("arguments", SETTINGS)


# Against the textbook loop over all samples


quarters = st.integers(-12, 60).map(lambda n: n / 4)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 18)),
    st.lists(st.tuples(quarters, quarters, quarters, quarters), min_size=1, max_size=3),
    st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 8])),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
    st.sampled_from(MODES),
    st.sampled_from(list(LAYOUTS)),
    st.sampled_from([-1, 0]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=300)
def test_ties(map_size, corners, bins, sampling_ratio, aligned, mode, layout, least, seed):
    """Small whole numbers and binary fractions: nothing rounds, and most bins have ties."""
    rng = np.random.default_rng(seed)
    input = rng.integers(least, 2 + least, (1, 2, *map_size)).astype(np.float32)
    grad_output = rng.integers(1, 9, (len(corners), 2, *bins)).astype(np.float32)
    boxes = np.hstack([np.zeros((len(corners), 1)), corners]).astype(np.float32)
    arguments, options = (1.0, sampling_ratio, aligned), {"mode": mode, "dtype": np.float32}
    output, grad_input = both(input, grad_output, boxes, *arguments, mode=mode, layout=layout)
    np.testing.assert_array_equal(
        output, reference_maximum.roi_align(input, boxes, bins, *arguments, **options)
    )
    np.testing.assert_array_equal(
        grad_input, reference_maximum.roi_align_backward(grad_output, input, boxes, *arguments, **options)
    )


def test_by_hand():
    input = -np.arange(1.0, 17).reshape(1, 1, 4, 4)
    boxes = np.array([[0.0, 1, 1, 3, 3]])  # one bin; samples at 1 and 2 on each axis
    options = {"sampling_ratio": 2, "aligned": True}
    gradient = {"grad_output": np.ones((1, 1, 1, 1)), "input_shape": input.shape, "input": input}
    assert roi_align(input, boxes, 1, **options, mode="max").item() == -6
    [place] = np.argwhere(roi_align_backward(boxes=boxes, **gradient, **options, mode="max"))
    np.testing.assert_array_equal(place, [0, 0, 1, 1])
    # Samples on pixels have neighbours of weight 0, whose product is the largest.
    assert roi_align(input, boxes, 1, **options, mode="onnx_max").item() == 0
    boxes[0, 1:] += 0.25  # samples at 1.25 and 2.25
    assert roi_align(input, boxes, 1, **options, mode="max").item() == -6 - 0.25 * 5
    assert roi_align(input, boxes, 1, **options, mode="onnx_max").item() == -11 / 16  # of 1/16 * 11
    grad_input = roi_align_backward(boxes=boxes, **gradient, **options, mode="onnx_max")
    assert grad_input[0, 0, 2, 2] == grad_input.sum() == 1 / 16


# Laws


@every_mode
@every_setting
def test_finite_differences(arguments, mode):
    input, grad_output, boxes = some_call()
    grad_input = both(input, grad_output, boxes, *arguments, mode=mode)[1]
    step = 1e-7 * np.random.default_rng(1).standard_normal(input.shape)
    above, below = (
        both(x, grad_output, boxes, *arguments, mode=mode)[0] for x in (input + step, input - step)
    )
    difference = ((above - below) * grad_output).sum() / 2
    assert difference == pytest.approx((grad_input * step).sum(), rel=1e-6)


@every_mode
@every_setting
def test_larger_maps_have_larger_maxima(arguments, mode):
    input, grad_output, boxes = some_call(np.float32)
    more = np.random.default_rng(1).random(input.shape, np.float32)
    smaller, larger = (both(x, grad_output, boxes, *arguments, mode=mode)[0] for x in (input, input + more))
    assert (smaller <= larger).all()
    assert (smaller < larger).any()


@every_setting
def test_mean_lies_between_minimum_and_maximum(arguments):
    input, _, boxes = some_call()
    largest, smallest = (sign * roi_align(sign * input, boxes, 3, *arguments, mode="max") for sign in (1, -1))
    mean = roi_align(input, boxes, 3, *arguments)
    assert (smallest - 1e-13 <= mean).all()
    assert (mean <= largest + 1e-13).all()
    if arguments[1] == 1:
        np.testing.assert_allclose(largest, mean, rtol=0, atol=1e-15)


@every_setting
def test_negative_maps_and_sums_of_weights(arguments):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(2, 30, (2, 20, 2)), axis=0)  # low and high of each box, inside the map
    boxes = np.hstack([np.zeros((20, 1)), *corners])
    input = rng.uniform(-9, -1, (1, 5, 16, 16))
    output, grad_input = both(input, np.ones((20, 5, 4, 3)), boxes, *arguments, mode="max")
    assert (output <= -1).all()
    np.testing.assert_allclose(grad_input.sum(axis=(0, 2, 3)), 20 * 12, rtol=1e-13)
    np.testing.assert_allclose(roi_align(input * 0 - 1.7, boxes, 3, *arguments, mode="max"), -1.7, rtol=1e-15)


# Arguments


@every_mode
def test_class_and_out(mode):
    input, grad_output, boxes = some_call(np.float32)
    output, grad_input = both(input, grad_output, boxes, 0.5, 2, mode=mode)
    pool = RoIAlign((4, 3), 0.5, 2, mode=mode)
    assert pool(input, boxes).tobytes() == output.tobytes()
    assert pool.backward(grad_output, boxes, input.shape, input).tobytes() == grad_input.tobytes()
    out = np.full_like(input, np.nan)
    given = {"input": input, "mode": mode, "out": out}
    assert roi_align_backward(grad_output, boxes, input.shape, 0.5, 2, **given) is out
    assert out.tobytes() == grad_input.tobytes()


# What is not finite, and many samples


@every_mode
def test_gradient_of_nan_goes_to_the_first(mode):
    input = np.array([[[[1, np.nan, 2, np.nan, 3, 4]]]])
    boxes = np.array([[0, 0.5, 0, 4.5, 0]])  # samples at 1, 2, 3 and 4
    grad_input = roi_align_backward(
        np.ones((1, 1, 1, 1)), boxes, input.shape, sampling_ratio=4, mode=mode, input=input
    )
    np.testing.assert_array_equal(grad_input, [[[[0, 1, 0, 0, 0, 0]]]])


@pytest.mark.parametrize("spoiler", [np.nan, np.inf, -np.inf])
def test_weight_zero_hides_what_is_not_finite(spoiler):
    """Samples on pixels, which the rim has too, do not see the neighbours."""
    input = np.full((1, 1, 3, 4), spoiler)
    input[0, 0, 1:, 1:3] = [[1, 2], [-np.inf, 3]]
    boxes = np.array([[0.0, 1, 1, 3, 3]])
    options = {"aligned": True, "sampling_ratio": 1}
    np.testing.assert_array_equal(roi_align(input, boxes, 2, **options, mode="max"), input[:, :, 1:, 1:3])
    grad_input = roi_align_backward(
        np.full((1, 1, 2, 2), np.inf), boxes, input.shape, **options, mode="max", input=input
    )
    expected = np.zeros_like(input)
    expected[:, :, 1:, 1:3] = np.inf
    np.testing.assert_array_equal(grad_input, expected)
    output = roi_align(input, boxes, 2, **options, mode="onnx_max")
    np.testing.assert_array_equal(output, [[[[1, 2], [0, 3]]]])


@every_mode
def test_many_samples_between_two_pixels(mode):
    """Any number of samples takes as long as a few: no loop visits each of the 1e9 of a bin."""
    input, grad_output, boxes = some_call(boxes=3, shape=(2, 1, 13, 17))
    output, grad_input = both(input, grad_output, boxes, 0.5, 32767, mode=mode)
    few = reference_maximum.roi_align(input, boxes, (4, 3), 0.5, 40, mode=mode)
    np.testing.assert_allclose(output, few, rtol=0, atol=0.2)
    assert (grad_input * input).sum() == pytest.approx((output * grad_output).sum(), rel=1e-12)

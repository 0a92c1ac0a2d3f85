"""Modes "max" and "onnx_max", forward and backward: values, laws, arguments."""

import functools

import numpy as np
import pytest
import reference
import reference_maximum
from hypothesis import given, settings
from hypothesis import strategies as st
from test_against_reference import calls

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


@given(calls(), st.sampled_from(MODES), st.sampled_from(list(LAYOUTS)), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_forward(call, mode, layout, seed):
    shape, boxes, output_size, rest, dtype, geometry = call
    input = np.random.default_rng(seed).uniform(-1, 1, (shape[0], min(shape[1], 3), *shape[2:])).astype(dtype)
    expected = reference_maximum.roi_align(input, boxes, output_size, *rest, mode=mode, dtype=geometry)
    [input] = in_layout(layout, input)
    actual = roi_align(input, boxes, output_size, *rest, mode=mode, layout=layout)
    actual = actual.transpose(np.argsort(LAYOUTS[layout]))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype])


@every_mode
@every_setting
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward(layout, dtype, arguments, mode):
    input, grad_output, boxes = some_call(dtype)
    expected = reference_maximum.roi_align_backward(
        grad_output, input, boxes, *arguments, mode=mode, dtype=np.dtype(dtype)
    )
    actual = both(input, grad_output, boxes, *arguments, mode=mode, layout=layout)[1]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=30 * TOLERANCE[dtype])


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
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-15)])
def test_both_directions_agree(dtype, tolerance, arguments, mode):
    """A maximum is as homogeneous as a mean: its value is the product of gradient and map."""
    input, grad_output, boxes = some_call(dtype, boxes=40)
    output, grad_input = both(input, grad_output, boxes, *arguments, mode=mode)
    products = output.astype(float) * grad_output
    assert abs(products.sum() - (input.astype(float) * grad_input).sum()) <= tolerance * abs(products).sum()


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
def test_backward_is_linear_in_its_gradient(mode):
    input, g, boxes = some_call()
    h = np.random.default_rng(1).standard_normal(g.shape)
    of_sum, of_g, of_h = (both(input, x, boxes, 0.5, mode=mode)[1] for x in (2 * g - 3 * h, g, h))
    np.testing.assert_allclose(of_sum, 2 * of_g - 3 * of_h, rtol=0, atol=1e-13)


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


@every_mode
def test_rows_do_not_depend_on_other_boxes(mode):
    input, grad_output, boxes = some_call(np.float32)
    output = both(input, grad_output, boxes, 0.5, mode=mode)[0]
    for k in range(len(boxes)):
        alone = roi_align(input, boxes[k : k + 1], (4, 3), 0.5, mode=mode)
        assert alone.tobytes() == output[k].tobytes()


# Arguments


@every_mode
@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_of_backward_in_any_memory(layout, mode):
    input, grad_output, boxes = some_call(np.float32)
    input, grad_output = in_layout(layout, input, grad_output)
    backward = functools.partial(
        roi_align_backward, grad_output, boxes, input.shape, 0.5, mode=mode, layout=layout
    )
    expected = backward(input=input).tobytes()
    odd = np.empty(input.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(input.shape)
    odd[...] = input
    other = np.ascontiguousarray(input.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for same in (other, np.asfortranarray(input), odd, input.astype(">f4"), memoryview(input)):
        assert backward(input=same).tobytes() == expected
    # The gradient has the memory order of grad_output.
    to_other = (0, 3, 1, 2) if layout == "NHWC" else (0, 2, 3, 1)
    view = np.ascontiguousarray(grad_output.transpose(to_other)).transpose(np.argsort(to_other))
    gradient = roi_align_backward(view, boxes, input.shape, 0.5, mode=mode, layout=layout, input=input)
    assert gradient.transpose(to_other).flags.c_contiguous
    assert gradient.tobytes() == expected


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


@every_mode
def test_empty(mode):
    for shape, count in [((2, 3, 8, 9), 0), ((0, 3, 8, 9), 0), ((2, 0, 8, 9), 4), ((2, 3, 0, 9), 0)]:
        input, grad_output = np.ones(shape), np.ones((count, shape[1], 2, 2))
        output, grad_input = both(input, grad_output, np.zeros((count, 5)), mode=mode)
        assert output.shape == grad_output.shape
        assert grad_input.shape == shape
        assert not grad_input.any()


@every_mode
def test_bins_without_samples(mode):
    boxes = np.array([[0.0, 7, 6, 2, 1], [0, 3, 4, 3, 4], [0, 3, 1, 3, 6], [0, -30, 2, -20, 6]])
    output, grad_input = both(
        np.full((1, 2, 8, 9), -1.0), np.ones((4, 2, 3, 3)), boxes, 1.0, -1, True, mode=mode
    )
    assert not output.any()
    assert not grad_input.any()

"""Forward and backward against the textbook loops, over all that a call can say."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import roi_align as expected_roi_align
from reference import roi_align_backward as expected_roi_align_backward
from reference import type_of_geometry

from cyroialign import roi_align, roi_align_backward

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # of the largest sum of absolute values
BOX_DTYPES = ("float32", "float64", "float16", "longdouble", "int16", "int64")

lengths = st.one_of(st.integers(1, 3), st.integers(4, 20))
places = st.one_of(  # on the axis of a map, as parts of its length
    st.floats(-0.25, 1.25, width=32),
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    st.floats(-10, 10, width=32),
)


@st.composite
def calls(draw):
    """(shape of input, boxes, output_size, the arguments after it, dtype, type of the geometry)."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 20)), draw(lengths), draw(lengths))
    scale = draw(st.sampled_from([1.0, 0.5, 0.25, 1 / 16, 0.37, 3.3]))
    corner = st.tuples(places, places, places, places)
    rows = draw(st.lists(st.tuples(st.integers(0, shape[0] - 1), corner), max_size=4))
    boxes = np.zeros((len(rows), 5))
    for row, (image, corners) in zip(boxes, rows, strict=True):
        row[0], row[1:] = image, np.multiply(corners, [shape[3], shape[2]] * 2) / scale
    dtype, box_dtype = draw(st.sampled_from(list(TOLERANCE))), draw(st.sampled_from(BOX_DTYPES))
    if draw(st.booleans()):
        boxes = boxes.round()
    output_size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rest = (scale, draw(st.integers(-1, 5)), draw(st.booleans()))
    return shape, boxes.astype(box_dtype), output_size, rest, dtype, type_of_geometry(dtype, box_dtype)


def assert_close(actual, expected, largest):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[actual.dtype.name] * largest)


@given(calls(), st.sampled_from(["NCHW", "NHWC"]), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_forward(call, layout, seed):
    shape, boxes, output_size, rest, dtype, geometry = call
    input = np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)
    expected = expected_roi_align(input, boxes, output_size, *rest, dtype=geometry)
    if layout == "NHWC":
        input, expected = input.transpose(0, 2, 3, 1), expected.transpose(0, 2, 3, 1)
        input = np.ascontiguousarray(input)
    assert_close(roi_align(input, boxes, output_size, *rest, layout=layout), expected, 1)


@given(calls(), st.sampled_from(["NCHW", "NHWC"]), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_backward(call, layout, seed):
    shape, boxes, output_size, rest, dtype, geometry = call
    grad_output = np.random.default_rng(seed).uniform(-1, 1, (len(boxes), shape[1], *output_size))
    grad_output = grad_output.astype(dtype)
    expected = expected_roi_align_backward(grad_output, boxes, shape, *rest, dtype=geometry)
    # Every value may be up to 1: this is what the sums of their products with weights may come to.
    ones = np.ones((len(boxes), 1, *output_size))
    largest = expected_roi_align_backward(ones, boxes, (shape[0], 1, *shape[2:]), *rest, dtype=geometry).max(
        initial=0
    )
    if layout == "NHWC":
        grad_output, expected = grad_output.transpose(0, 2, 3, 1), expected.transpose(0, 2, 3, 1)
        grad_output = np.ascontiguousarray(grad_output)
    assert_close(
        roi_align_backward(grad_output, boxes, expected.shape, *rest, layout=layout), expected, largest
    )

"""Values of RoIPool, PSRoIAlign and PSRoIPool: torchvision's, the textbook's, and those of odd boxes.

data/torchvision_pools.npz was made by torchvision 0.29.2 on torch 2.15 from random data; input, boxes and
gradients of RoIPool are those of data/torchvision_roi_align.npz.
"""

import json
import pathlib

import numpy as np
import pytest
import reference_pools
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import LAYOUTS, NAMES, arguments_of, arrays, backward, forward
from reference import random_boxes, type_of_geometry

DATA = pathlib.Path(__file__).parent / "data"
GOLDENS = {**np.load(DATA / "torchvision_roi_align.npz"), **np.load(DATA / "torchvision_pools.npz")}
CASES = json.loads(str(GOLDENS["cases"]))
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # of the largest value
BOX_DTYPES = ("float32", "float64", "float16", "int64")


def assert_close(actual, expected, largest=None):
    assert actual.shape == expected.shape
    largest = np.abs(expected).max(initial=0) if largest is None else largest
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[actual.dtype.name] * largest)


def golden(name, case):
    """Input, grad_output, output and grad_input of a case."""
    if name == "roi_pool":
        names = ("input", "grad_output", "roi_pool", "roi_pool_grad_input")
    else:
        names = ("ps_input", f"{name}_grad_output", name, f"{name}_grad_input")
    return [GOLDENS.get(f"{case:03}/{part}") for part in names]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "case"),
    [
        (name, case)
        for name in NAMES
        for case in range(len(CASES))
        if f"{case:03}/{'roi_pool_grad_input' if name == 'roi_pool' else 'ps_input'}" in GOLDENS
    ],
)
def test_torchvision(name, case, layout):
    input, grad_output, output, grad_input = golden(name, case)
    boxes, output_size = GOLDENS[f"{case:03}/boxes"], CASES[case]["output_size"]
    arguments = arguments_of(name, CASES[case]["spatial_scale"], CASES[case]["sampling_ratio"])
    actual = forward(name, input, boxes, output_size, arguments, layout)
    if name == "roi_pool":
        np.testing.assert_array_equal(actual, output)
    else:  # torchvision's PSRoIAlign of a zero-size box is NaN
        assert_close(actual, np.nan_to_num(output, nan=0))
    assert_close(backward(name, grad_output, input, boxes, output_size, arguments, layout), grad_input)


lengths = st.one_of(st.integers(1, 3), st.integers(4, 20))
places = st.one_of(  # on the axis of a map, as parts of its length
    st.floats(-0.25, 1.25, width=32),
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    st.floats(-10, 10, width=32),
)


@st.composite
def calls(draw):
    """(operator, shape, boxes, output_size, arguments, dtype, type of the geometry)."""
    name = draw(st.sampled_from(NAMES))
    output_size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    most = 20 if name == "roi_pool" else 3
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, most)), draw(lengths), draw(lengths))
    scale = draw(st.sampled_from([1.0, 0.5, 0.25, 1 / 16, 0.37, 3.3]))
    corner = st.tuples(places, places, places, places)
    rows = draw(st.lists(st.tuples(st.integers(0, shape[0] - 1), corner), max_size=4))
    boxes = np.zeros((len(rows), 5))
    for row, (image, corners) in zip(boxes, rows, strict=True):
        row[0], row[1:] = image, np.multiply(corners, [shape[3], shape[2]] * 2) / scale
    if draw(st.booleans()):
        boxes[:, 1:] = (boxes[:, 1:] * 2).round() / 2  # halves are rounded away from zero
    dtype, box_dtype = draw(st.sampled_from(list(TOLERANCE))), draw(st.sampled_from(BOX_DTYPES))
    arguments = arguments_of(name, scale, draw(st.integers(-1, 5)))
    return (
        name,
        shape,
        boxes.astype(box_dtype),
        output_size,
        arguments,
        dtype,
        type_of_geometry(dtype, box_dtype),
    )


@given(calls(), st.sampled_from(list(LAYOUTS)), st.integers(0, 99), st.booleans())
@settings(max_examples=300)
def test_reference(call, layout, seed, ties):
    name, shape, boxes, output_size, arguments, dtype, geometry = call
    input, grad_output = arrays(name, shape, dtype, len(boxes), output_size, seed)
    if ties:
        input = (input * 1.5).round() + 0.0
    outputs = reference_pools.run(name, input, grad_output, boxes, output_size, arguments, geometry)
    assert_close(forward(name, input, boxes, output_size, arguments, layout), outputs[0], 1)
    # Every bin may give as much as 1 to one pixel.
    largest = max(1, grad_output[:, :1].size)
    actual = backward(name, grad_output, input, boxes, output_size, arguments, layout)
    assert_close(actual, outputs[1], largest)


ODD_BOXES = {  # x1, y1, x2, y2 on a map of 9 x 8 pixels
    "inverted": (7, 6, 2, 1),
    "inverted in x": (7, 1, 2, 6),
    "zero-size": (3, 4, 3, 4),
    "zero width": (3, 1, 3, 6),
    "halves": (-0.5, 0.5, 2.5, 3.5),
    "above": (2, -30, 6, -20),
    "right": (30, 2, 40, 6),
    "on the far rim": (9, 8, 9, 8),
    "last row and column": (4, 4, 8, 7),
    "around": (-20, -20, 30, 30),
    "1e6": (-1e6, -1e6, 1e6, 1e6),
    "1e9": (-4e8, -5e8, 6e8, 5e8),
    "1e9, beside the map": (1e9, 2, 2e9, 7),
    "1e9, inverted": (1e9, 1e9, -1e9, -1e9),
    "2**31": (-(2.0**31), 0, 2.0**31, 8),
    "1e12, from the origin": (0, 0, 1e12, 1e12),
    "1e30": (-1e30, -1e30, 1e30, 1e30),
    "largest": (-1.7e38, -1.7e38, 1.7e38, 1.7e38),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("box", ODD_BOXES)
@pytest.mark.parametrize("name", ["roi_pool", "ps_roi_pool"])
def test_odd_boxes(name, box, dtype, layout):
    boxes = np.array([[0, *ODD_BOXES[box]]], dtype)
    input, grad_output = arrays(name, (1, 2, 8, 9), dtype, 1, (3, 2))
    expected = reference_pools.run(name, input, grad_output, boxes, (3, 2), (1.0,), dtype)
    assert_close(forward(name, input, boxes, (3, 2), (1.0,), layout), expected[0])
    assert_close(backward(name, grad_output, input, boxes, (3, 2), (1.0,), layout), expected[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sampling_ratio", [-1, 2, 32767])
@pytest.mark.parametrize("box", ODD_BOXES)
def test_odd_boxes_of_ps_roi_align(box, sampling_ratio, layout):
    """Each bin is what RoIAlign makes of its channels."""
    boxes = np.array([[0, *ODD_BOXES[box]]], np.float32)
    input, grad_output = arrays("ps_roi_align", (1, 2, 8, 9), np.float64, 1, (3, 2))
    whole = forward("roi_align", input, boxes, (3, 2), (1.0, sampling_ratio, True))
    expected = np.einsum("kcijij->kcij", whole.reshape(1, 2, 3, 2, 3, 2))
    assert_close(forward("ps_roi_align", input, boxes, (3, 2), (1.0, sampling_ratio), layout), expected)
    spread = np.einsum("kcij,ip,jq->kcijpq", grad_output, np.eye(3), np.eye(2)).reshape(1, 12, 3, 2)
    expected = backward("roi_align", spread, input, boxes, (3, 2), (1.0, sampling_ratio, True))
    actual = backward("ps_roi_align", grad_output, input, boxes, (3, 2), (1.0, sampling_ratio), layout)
    assert_close(actual, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_nan_never_wins(dtype, layout):
    rng = np.random.default_rng(0)
    input = rng.choice(np.array([np.nan, -np.inf, -1, -0.0, 0, 1, np.inf], dtype), (2, 19, 12, 21))
    input[0, :9, :6] = np.nan
    input[1, 9:, :, :6] = -np.inf
    boxes = random_boxes(rng, 30, input.shape)
    grad_output = rng.random((30, 19, 3, 4)).astype(dtype)
    output, grad_input = reference_pools.run(
        "roi_pool", input, grad_output, boxes, (3, 4), (1.0,), np.float32
    )
    assert np.isneginf(output).any()
    np.testing.assert_array_equal(forward("roi_pool", input, boxes, (3, 4), (1.0,), layout), output)
    actual = backward("roi_pool", grad_output, input, boxes, (3, 4), (1.0,), layout)
    assert_close(actual, grad_input)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("height", [1, 70, 300])
def test_wide_bins(height, layout):
    """Bins of several strips and tiles; equal numbers far apart, so that the first must be found."""
    rng = np.random.default_rng(0)
    input = rng.integers(0, 40, (1, 11, height, 300)).astype(np.float32)
    boxes = np.array([[0, 0, 0, 299, height - 1], [0, 3, 2, 170, 200], [0, 60, -9, 66, 90.0]])
    grad_output = rng.random((3, 11, 2, 2)).astype(np.float32)
    expected = reference_pools.run("roi_pool", input, grad_output, boxes, (2, 2), (1.0,), np.float64)
    np.testing.assert_array_equal(forward("roi_pool", input, boxes, (2, 2), (1.0,), layout), expected[0])
    actual = backward("roi_pool", grad_output, input, boxes, (2, 2), (1.0,), layout)
    assert_close(actual, expected[1])

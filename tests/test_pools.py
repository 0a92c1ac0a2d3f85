"""Values of RoIPool, PSRoIAlign and PSRoIPool: torchvision's, and those of maps with NaN or with wide bins.

data/torchvision_pools.npz was made by torchvision 0.29.2 on torch 2.15 from random data; input, boxes and
gradients of RoIPool are those of data/torchvision_roi_align.npz.
"""

import json
import pathlib

import numpy as np
import pytest
import reference_pools
from pools import LAYOUTS, NAMES, arguments_of, backward, forward
from reference import random_boxes

DATA = pathlib.Path(__file__).parent / "data"
GOLDENS = {**np.load(DATA / "torchvision_roi_align.npz"), **np.load(DATA / "torchvision_pools.npz")}
CASES = json.loads(str(GOLDENS["cases"]))
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # of the largest value


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

"""Equality with torchvision 0.29.2 on torch 2.15, which made data/torchvision_roi_align.npz on random data.

Even cases are float32, odd ones float64; boxes lie inside, across and outside, tiny, zero-size and larger
than the map. data/onnxruntime_max.npz is what ONNX Runtime 1.31.1 makes of the same with mode "max".
"""

import json
import pathlib

import numpy as np
import pytest

from cyroialign import roi_align, roi_align_backward

TOLERANCE = {"float32": 4e-6, "float64": 1e-12}  # of the largest value
DATA = pathlib.Path(__file__).parent / "data"
GOLDENS = np.load(DATA / "torchvision_roi_align.npz")
MAXIMA = np.load(DATA / "onnxruntime_max.npz")
CASES = json.loads(str(GOLDENS["cases"]))


def golden(case, *names):
    return [GOLDENS[f"{case:03}/{name}"] for name in names]


def assert_close(actual, expected):
    assert actual.dtype == expected.dtype
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[expected.dtype.name] * largest)


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_forward(case, layout):
    input, boxes, output = golden(case, "input", "boxes", "output")
    if layout == "NHWC":
        input, output = (np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (input, output))
    assert_close(roi_align(input, boxes, **CASES[case], layout=layout), output)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_onnx_max(case):
    if f"{case:03}/onnx_max" not in MAXIMA:
        pytest.skip("ONNX Runtime refused this case")
    input, boxes = golden(case, "input", "boxes")
    scale = float(np.float32(CASES[case]["spatial_scale"]))  # as an attribute of ONNX holds it
    output = roi_align(input, boxes, **{**CASES[case], "spatial_scale": scale}, mode="onnx_max")
    assert_close(output, MAXIMA[f"{case:03}/onnx_max"])


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_backward(case, layout):
    grad_output, boxes, grad_input = golden(case, "grad_output", "boxes", "grad_input")
    if layout == "NHWC":
        grad_output, grad_input = (
            np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (grad_output, grad_input)
        )
    settings = {name: value for name, value in CASES[case].items() if name != "output_size"}
    assert_close(
        roi_align_backward(grad_output, boxes, grad_input.shape, **settings, layout=layout), grad_input
    )

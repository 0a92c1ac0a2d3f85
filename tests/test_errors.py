"""Every refusal: its type, what its message says, and that `out` is left as it was."""

import numpy as np
import pytest

import cyroialign
from cyroialign import RoIAlign, roi_align, roi_align_backward

NAN, INF = float("nan"), float("inf")
UNTOUCHED = 7
BOXES = np.array([[0, 1, 1, 5, 5], [1, 2, 2, 6, 6], [1, 0, 0, 3, 3]], np.float32)
PER_IMAGE = [BOXES[:1, 1:], BOXES[1:, 1:]]
FORWARD = {"input": np.ones((2, 3, 8, 9), np.float32), "boxes": BOXES, "output_size": 2}
BACKWARD = {"grad_output": np.ones((3, 3, 2, 2), np.float32), "boxes": BOXES, "input_shape": (2, 3, 8, 9)}


def boxes_with(row, column, value, dtype=np.float32):
    boxes = BOXES.astype(dtype)
    boxes[row, column] = value
    return boxes


def check(function, arguments, error, parts, out_shape):
    out = np.full(out_shape, UNTOUCHED, np.float32)
    with pytest.raises(error) as caught:
        function(**{"out": out, **arguments})
    for part in parts.split("|"):
        assert part in str(caught.value)
    assert (out == UNTOUCHED).all()


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"input": FORWARD["input"].tolist()}, TypeError, "input must be a NumPy array|list"),
        ({"input": None}, TypeError, "input must be a NumPy array|None"),
        ({"input": "input"}, TypeError, "input must be a NumPy array|str"),
        ({"input": np.ma.array(FORWARD["input"])}, TypeError, "input is a masked array"),
        ({"input": FORWARD["input"].astype(np.int64)}, TypeError, "bfloat16, uint8 or int8, got int64"),
        ({"input": FORWARD["input"].astype(complex)}, TypeError, "bfloat16, uint8 or int8, got complex128"),
        ({"input": FORWARD["input"][0]}, ValueError, "input must have 4 axes|(3, 8, 9)"),
        ({"input": np.float32(1)}, ValueError, "input must have 4 axes|()"),
        ({"input": FORWARD["input"][:, :, :0]}, ValueError, "pixels|3 boxes|height 0 and width 9"),
        ({"input": FORWARD["input"][:, :, :, :0]}, ValueError, "pixels|3 boxes|height 8 and width 0"),
        ({"input": FORWARD["input"][:0]}, ValueError, "boxes[0] has batch_index 0, but input has 0 images"),
        ({"output_size": 0}, ValueError, "output_size must be at least 1|got 0"),
        ({"output_size": (7, -1)}, ValueError, "output_size must be at least 1|(7, -1)"),
        ({"output_size": (7, 7, 7)}, ValueError, "output_size must be an int or (height, width)|(7, 7, 7)"),
        ({"output_size": 7.0}, TypeError, "output_size must be a whole number|float 7.0"),
        ({"output_size": (7.0, 7)}, TypeError, "output_size must be a whole number|float 7.0"),
        ({"output_size": "77"}, TypeError, "output_size must be a whole number|'77'"),
        ({"output_size": None}, TypeError, "output_size must be a whole number|None"),
    ],
)
def test_forward(arguments, error, parts):
    check(roi_align, {**FORWARD, **arguments}, error, parts, (3, 3, 2, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"grad_output": None}, TypeError, "grad_output must be a NumPy array|None"),
        (
            {"grad_output": BACKWARD["grad_output"].astype(np.uint8)},
            TypeError,
            "grad_output|or bfloat16, got uint8",
        ),
        ({"grad_output": BACKWARD["grad_output"][0]}, ValueError, "grad_output must have 4 axes|(3, 2, 2)"),
        ({"grad_output": BACKWARD["grad_output"][:2]}, ValueError, "grad_output|3|(2, 3, 2, 2)"),
        ({"grad_output": BACKWARD["grad_output"][:, :2]}, ValueError, "(3, 2, 2, 2)|(2, 3, 8, 9)"),
        ({"grad_output": BACKWARD["grad_output"][:, :, :0]}, ValueError, "bins|(3, 3, 0, 2)"),
        ({"input_shape": None}, TypeError, "input_shape must be 4 whole numbers|None"),
        ({"input_shape": (2, 3, 8.0, 9)}, TypeError, "input_shape must be 4 whole numbers|8.0"),
        ({"input_shape": (3, 8, 9)}, ValueError, "input_shape must be 4 whole numbers|(3, 8, 9)"),
        ({"input_shape": (2, 3, -8, 9)}, ValueError, "each 0 or more|(2, 3, -8, 9)"),
        ({"input_shape": (2, 4, 8, 9)}, ValueError, "channels|(3, 3, 2, 2)|(2, 4, 8, 9)"),
        ({"input_shape": (1, 3, 8, 9)}, ValueError, "boxes[1] has batch_index 1, but input has 1 image"),
        ({"input_shape": (2, 3, 0, 9)}, ValueError, "pixels|3 boxes|height 0 and width 9"),
        ({"input_shape": (2, 8, 9, 3), "layout": "NHWC"}, ValueError, "channels|(2, 3, 8, 9)"),
        ({"input": np.ones((2, 3, 8, 8))}, ValueError, "input must have shape (2, 3, 8, 9)|(2, 3, 8, 8)"),
        ({"input": [1]}, TypeError, "input must be a NumPy array|list"),
        ({"mode": "max"}, TypeError, "input is missing|mode='max'"),
        ({"mode": "onnx_max"}, TypeError, "input is missing|mode='onnx_max'"),
        ({"mode": "max", "input": FORWARD["input"].tolist()}, TypeError, "input must be a NumPy array|list"),
        ({"mode": "max", "input": np.ones((2, 3, 8, 9))}, TypeError, "from input, float64, got float32"),
        ({"mode": "max", "input": FORWARD["input"][0]}, ValueError, "input must have 4 axes|(3, 8, 9)"),
        ({"mode": "max", "input": FORWARD["input"][1:]}, ValueError, "shape (2, 3, 8, 9)|(1, 3, 8, 9)"),
    ],
)
def test_backward(arguments, error, parts):
    check(roi_align_backward, {**BACKWARD, **arguments}, error, parts, (2, 3, 8, 9))


def test_row_of_many_boxes():
    boxes = np.repeat(BOXES[:1], 20, axis=0)
    boxes[17, 0] = 3
    with pytest.raises(ValueError, match=r"boxes\[17\] has batch_index 3, but input has 2 images"):
        roi_align(FORWARD["input"], boxes, 2)


@pytest.mark.skipif(np.finfo(np.longdouble).max <= np.finfo(float).max, reason="longdouble is double here")
def test_longdouble_box_beyond_float64():
    boxes = boxes_with(1, 3, np.finfo(np.longdouble).max, np.longdouble)
    check(roi_align, {**FORWARD, "boxes": boxes}, ValueError, "boxes[1]|finite", (3, 3, 2, 2))


def test_gradient_that_shares_memory():
    buffer = np.ones((3, 3, 8, 9), np.float32)
    arguments = {**BACKWARD, "grad_output": buffer[:, :, :2, :2], "out": buffer[1:]}
    check(roi_align_backward, arguments, ValueError, "out must not share memory with an input", ())
    assert (buffer == 1).all()


def test_gradient_over_the_input():
    input = np.ones((2, 3, 8, 9), np.float32)
    arguments = {**BACKWARD, "input": input, "out": input}
    check(roi_align_backward, arguments, ValueError, "out must not share memory with an input", ())
    assert (input == 1).all()


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("output_size", 0, ValueError),
        ("spatial_scale", 0.0, ValueError),
        ("sampling_ratio", 32768, ValueError),
        ("sampling_ratio", 0.5, TypeError),
        ("aligned", "yes", TypeError),
        ("mode", "median", ValueError),
        ("layout", "HWC", ValueError),
        ("num_threads", 0, ValueError),
    ],
)
def test_class_checks_its_settings(name, value, error):
    with pytest.raises(error, match=name):
        RoIAlign(**{"output_size": 7, name: value})


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]
)
def test_settings_of_threads(n, error):
    before = cyroialign.get_num_threads()
    with pytest.raises(error, match="n must be"):
        cyroialign.set_num_threads(n)
    with pytest.raises(error, match="n must be"), cyroialign.num_threads(n):
        pass
    assert cyroialign.get_num_threads() == before

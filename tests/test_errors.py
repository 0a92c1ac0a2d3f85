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


BOTH = [  # arguments of either direction, the error, parts of its message
    ({"boxes": None}, TypeError, "boxes must be|NoneType"),
    ({"boxes": BOXES[0]}, ValueError, "boxes must have shape (K, 5)|got (5,)"),
    ({"boxes": BOXES[:, 1:]}, ValueError, "boxes must have shape (K, 5)|got (3, 4)"),
    ({"boxes": BOXES[None]}, ValueError, "(K, 5)|(1, 3, 5)"),
    ({"boxes": BOXES.astype(complex)}, TypeError, "boxes must have a float or integer dtype|complex128"),
    ({"boxes": BOXES > 1}, TypeError, "float or integer|bool"),
    ({"boxes": BOXES.astype(object)}, TypeError, "float or integer|object"),
    ({"boxes": BOXES.astype(str)}, TypeError, "float or integer|<U32"),
    ({"boxes": np.ma.array(BOXES)}, TypeError, "boxes is a masked array"),
    ({"boxes": PER_IMAGE[:1]}, ValueError, "one array an image, 2|got 1"),
    ({"boxes": [*PER_IMAGE, *PER_IMAGE]}, ValueError, "one array an image, 2|got 4"),
    ({"boxes": []}, ValueError, "one array an image, 2|got 0"),
    ({"boxes": [PER_IMAGE[0], BOXES]}, ValueError, "boxes[1] must have shape (L, 4)|got (3, 5)"),
    ({"boxes": (PER_IMAGE[0], None)}, TypeError, "boxes[1] must be|NoneType"),
    ({"boxes": PER_IMAGE, "batch_indices": [0, 1, 1]}, ValueError, "leave batch_indices out"),
    ({"batch_indices": [0, 1, 1]}, ValueError, "boxes must have shape (K, 4)|got (3, 5)"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [0, 1]}, ValueError, "batch_indices|(3,)|got (2,)"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [[0, 1, 1]]}, ValueError, "(3,)|got (1, 3)"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [0.0, 1, 1]}, TypeError, "integer dtype|float64"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [True] * 3}, TypeError, "integer dtype|bool"),
    ({"boxes": BOXES[:, 1:], "batch_indices": 0}, TypeError, "batch_indices|int"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [0, 2, 1]}, ValueError, "boxes[1] has batch_index 2|2 images"),
    # The first bad row is named, whatever is wrong with it.
    ({"boxes": boxes_with(1, 0, 2)}, ValueError, "boxes[1] has batch_index 2, but input has 2 images"),
    ({"boxes": boxes_with(2, 0, -1)}, ValueError, "boxes[2] has batch_index -1, but input has 2 images"),
    ({"boxes": boxes_with(1, 0, 0.5)}, ValueError, "boxes[1] has batch_index 0.5, which is not a whole"),
    ({"boxes": boxes_with(1, 0, NAN)}, ValueError, "boxes[1] has batch_index nan"),
    ({"boxes": boxes_with(1, 0, INF)}, ValueError, "boxes[1] has batch_index inf"),
    ({"boxes": boxes_with(1, 0, 1e30)}, ValueError, "boxes[1] has batch_index 1"),
    ({"boxes": boxes_with(slice(1, 3), 2, NAN)}, ValueError, "boxes[1] must be finite|(2.0, nan, 6.0, 6.0)"),
    ({"boxes": boxes_with(0, 4, -INF, np.float64)}, ValueError, "boxes[0] must be finite|-inf"),
    ({"boxes": boxes_with(2, 1, INF, np.float16)}, ValueError, "boxes[2] must be finite|inf"),
    ({"boxes": [PER_IMAGE[0], PER_IMAGE[1] * [1, 1, NAN, 1]]}, ValueError, "boxes[1][0] must be finite|nan"),
    ({"boxes": boxes_with(2, 3, 3e38), "spatial_scale": 2.0}, ValueError, "boxes[2] is not finite|float32"),
    ({"boxes": boxes_with(2, 3, 1.7e308, float), "spatial_scale": 2.0}, ValueError, "boxes[2]|float64"),
    ({"boxes": boxes_with(1, slice(1, 5), [-3e38, 0, 3e38, 1])}, ValueError, "boxes[1] is not finite"),
    ({"spatial_scale": 0}, ValueError, "spatial_scale must be greater than 0 and finite|0"),
    ({"spatial_scale": -0.25}, ValueError, "spatial_scale|-0.25"),
    ({"spatial_scale": NAN}, ValueError, "spatial_scale|nan"),
    ({"spatial_scale": INF}, ValueError, "spatial_scale|inf"),
    ({"spatial_scale": 10**400}, ValueError, "spatial_scale|finite"),
    ({"spatial_scale": 1e-50}, ValueError, "spatial_scale|1e-50"),  # 0 in float32
    ({"spatial_scale": None}, TypeError, "spatial_scale must be a number|None"),
    ({"spatial_scale": "1"}, TypeError, "spatial_scale must be a number|'1'"),
    ({"spatial_scale": 1j}, TypeError, "spatial_scale must be a number|1j"),
    ({"spatial_scale": np.complex64(1)}, TypeError, "spatial_scale must be a number|complex64"),
    ({"spatial_scale": np.ones(3)}, ValueError, "spatial_scale must be a number or two|ndarray"),
    ({"sampling_ratio": 32768}, ValueError, "sampling_ratio must be at most 32767|got 32768"),
    ({"sampling_ratio": 2.0}, TypeError, "sampling_ratio must be a whole number|float 2.0"),
    ({"sampling_ratio": None}, TypeError, "sampling_ratio must be a whole number"),
    ({"aligned": None}, TypeError, "aligned must be True or False|None"),
    ({"aligned": "no"}, TypeError, "aligned must be True or False|'no'"),
    ({"mode": "min"}, ValueError, "mode must be one of 'avg', 'max', 'onnx_max'|got 'min'"),
    ({"mode": None}, TypeError, "mode must be a str|None"),
    ({"layout": "CHWN"}, ValueError, "layout must be one of 'NCHW', 'NHWC'|got 'CHWN'"),
    ({"layout": 1}, TypeError, "layout must be a str|int 1"),
    ({"num_threads": 0}, ValueError, "num_threads must be at least 1|got 0"),
    ({"num_threads": 1.5}, TypeError, "num_threads must be a whole number|1.5"),
    ({"out": np.zeros((3, 3, 2, 2)).tolist()}, TypeError, "out must be a NumPy array|list"),
    ({"out": np.zeros((4, 4, 4, 4), np.float32)}, ValueError, "out must have shape|got (4, 4, 4, 4)"),
]


@pytest.mark.parametrize(("arguments", "error", "parts"), BOTH)
def test_forward_and_backward(arguments, error, parts):
    check(roi_align, {**FORWARD, **arguments}, error, parts, (3, 3, 2, 2))
    check(roi_align_backward, {**BACKWARD, **arguments}, error, parts, (2, 3, 8, 9))


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


@pytest.mark.parametrize(
    ("out", "error", "parts"),
    [
        (np.zeros((3, 3, 2, 2)), TypeError, "out must have dtype float32, got float64"),
        (np.zeros((3, 3, 2, 2), ">f4"), TypeError, "out must have dtype float32, got >f4"),
        (np.zeros((3, 3, 2, 4), np.float32)[..., ::2], ValueError, "out must be C-contiguous|strides"),
        (np.zeros((3, 3, 2, 2), np.float32)[::-1], ValueError, "out must be C-contiguous|strides"),
        (np.broadcast_to(np.float32(0), (3, 3, 2, 2)), ValueError, "out must be"),
    ],
)
def test_out(out, error, parts):
    check(roi_align, {**FORWARD, "out": out}, error, parts, ())
    assert not out.any()


def test_read_only_out():
    out = np.zeros((3, 3, 2, 2), np.float32)
    out.flags.writeable = False
    check(roi_align, {**FORWARD, "out": out}, ValueError, "out must be writeable", ())


@pytest.mark.parametrize("shared", ["input", "boxes"])
def test_out_that_shares_memory(shared):
    buffer = np.ones(500, np.float32)
    out = buffer[2:38].reshape(3, 3, 2, 2)
    arrays = {"input": buffer[30 : 30 + 432].reshape(2, 3, 8, 9), "boxes": buffer[37:52].reshape(3, 5)}
    arguments = {**FORWARD, shared: arrays[shared], "out": out}
    check(roi_align, arguments, ValueError, "out must not share memory with an input", ())
    assert (buffer == 1).all()


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

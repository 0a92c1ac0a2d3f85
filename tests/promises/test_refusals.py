"""What every operator refuses: the type, what the message says, and that `out` is left as it was."""

import numpy as np
import pytest
from operators import DIRECTIONS as ALL_DIRECTIONS
from operators import OPERATORS

DIRECTIONS = {name: one for name, one in ALL_DIRECTIONS.items() if one[0].refuses_as_maps}
every_direction = pytest.mark.parametrize(("operator", "direction"), DIRECTIONS.values(), ids=DIRECTIONS)
NAN, INF = float("nan"), float("inf")
UNTOUCHED = 7
BOXES = np.array([[0, 1, 1, 5, 5], [1, 2, 2, 6, 6], [1, 0, 0, 3, 3]], np.float32)
PER_IMAGE = [BOXES[:1, 1:], BOXES[1:, 1:]]
ARGUMENTS = {"spatial_scale": 1.0, "sampling_ratio": -1, "aligned": False}


def boxes_with(row, column, value, dtype=np.float32):
    boxes = BOXES.astype(dtype)
    boxes[row, column] = value
    return boxes


def good(operator, direction):
    """A call that is accepted: 3 boxes of 2 images, bins of 2 x 2."""
    call = operator.make(np.random.default_rng(0), (2, 3, 8, 9), 3, (2, 2), ARGUMENTS, boxes=BOXES)
    keywords = operator.keywords(direction, call, "NCHW")
    if operator.accepts(direction, "out"):
        [result] = operator.run(direction, call)
        keywords["out"] = np.full(result.shape, UNTOUCHED, np.float32)
    return keywords


def check(operator, direction, arguments, error, parts):
    """Call with arguments that are good but for the given ones."""
    keywords = good(operator, direction)
    out = keywords.get("out")
    with pytest.raises(error) as caught:
        operator.callable(direction)(**{**keywords, **arguments})
    for part in parts.split("|"):
        assert part in str(caught.value)
    assert out is None or (out == UNTOUCHED).all()


EVERYWHERE = [  # arguments of any direction, the error, parts of its message
    ({"boxes": None}, TypeError, "boxes must be|NoneType"),
    ({"boxes": BOXES[0]}, ValueError, "boxes must have shape (K, 5)|got (5,)"),
    ({"boxes": BOXES[:, 1:]}, ValueError, "boxes must have shape (K, 5)|got (3, 4)"),
    ({"boxes": BOXES[None]}, ValueError, "(K, 5)|(1, 3, 5)"),
    ({"boxes": BOXES.astype(complex)}, TypeError, "boxes must have a float or integer dtype|complex128"),
    ({"boxes": BOXES > 1}, TypeError, "float or integer|bool"),
    ({"boxes": BOXES.astype(object)}, TypeError, "float or integer|object"),
    ({"boxes": BOXES.astype(str)}, TypeError, "float or integer|<U32"),
    ({"boxes": np.ma.array(BOXES)}, TypeError, "boxes is a masked array"),
    ({"boxes": PER_IMAGE[:1]}, ValueError, "one array per image, 2|got 1"),
    ({"boxes": [*PER_IMAGE, *PER_IMAGE]}, ValueError, "one array per image, 2|got 4"),
    ({"boxes": []}, ValueError, "one array per image, 2|got 0"),
    ({"boxes": [PER_IMAGE[0], BOXES]}, ValueError, "boxes[1] must have shape (L, 4)|got (3, 5)"),
    ({"boxes": (PER_IMAGE[0], None)}, TypeError, "boxes[1] must be|NoneType"),
    ({"boxes": PER_IMAGE, "batch_indices": [0, 1, 1]}, ValueError, "omit batch_indices"),
    ({"batch_indices": [0, 1, 1]}, ValueError, "boxes must have shape (K, 4)|got (3, 5)"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [0, 1]}, ValueError, "batch_indices|(3,)|got (2,)"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [[0, 1, 1]]}, ValueError, "(3,)|got (1, 3)"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [0.0, 1, 1]}, TypeError, "integer dtype|float64"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [True] * 3}, TypeError, "integer dtype|bool"),
    ({"boxes": BOXES[:, 1:], "batch_indices": 0}, TypeError, "batch_indices|int"),
    ({"boxes": BOXES[:, 1:], "batch_indices": [0, 2, 1]}, ValueError, "boxes[1] has batch_index 2|2 images"),
    # The first bad row is named, no matter what is wrong with it.
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


def applicable():
    """Yield the rows for all that have the argument.

    A pyramid, whose boxes come by image, has tests of its own for those.
    """
    by_image_too = {"sampling_ratio", "aligned", "mode", "layout", "num_threads"}
    for name, (operator, direction) in DIRECTIONS.items():
        for number, (arguments, *expected) in enumerate(EVERYWHERE):
            if operator.by_image and not arguments.keys() <= by_image_too:
                continue
            if operator.columns != 5 and not arguments.keys().isdisjoint({"boxes", "batch_indices"}):
                continue  # boxes of another form: tests/test_rotated.py
            if all(operator.accepts(direction, argument) for argument in arguments):
                case = f"{name}-{number}-{'-'.join(arguments)}"
                yield pytest.param(operator, direction, arguments, *expected, id=case)


@pytest.mark.parametrize(("operator", "direction", "arguments", "error", "parts"), list(applicable()))
def test_everywhere(operator, direction, arguments, error, parts):
    check(operator, direction, arguments, error, parts)


ARRAYS = [  # name of an array, how it is changed, the error, parts of the message
    ("input", lambda x: None, TypeError, "input "),
    ("input", lambda x: "input", TypeError, "input must be a NumPy array|str"),
    ("input", np.ndarray.tolist, TypeError, "input must be a NumPy array|list"),
    ("input", np.ma.array, TypeError, "input is a masked array"),
    ("input", lambda x: x.astype(np.int64), TypeError, "input|dtype|int64"),
    ("input", lambda x: x.astype(complex), TypeError, "input|dtype|complex128"),
    ("input", lambda x: x[0], ValueError, "input must have 4 axes|8, 9)"),
    ("grad_output", lambda x: None, TypeError, "grad_output must be a NumPy array|None"),
    ("grad_output", np.ndarray.tolist, TypeError, "grad_output must be a NumPy array|list"),
    ("grad_output", np.ma.array, TypeError, "grad_output is a masked array"),
    ("grad_output", lambda x: x.astype(np.uint8), TypeError, "grad_output|uint8"),
    ("grad_output", lambda x: x.astype(np.int64), TypeError, "grad_output|int64"),
    ("grad_output", lambda x: x[0], ValueError, "grad_output must have 4 axes|2, 2)"),
    ("grad_output", lambda x: x[:2], ValueError, "grad_output|(2, 3, 2, 2)"),
    ("grad_output", lambda x: x[:, :2], ValueError, "grad_output|(3, 2, 2, 2)"),
    ("grad_output", lambda x: x[:, :, :0], ValueError, "grad_output|(3, 3, 0, 2)"),
    ("input_shape", lambda x: None, TypeError, "input_shape must be 4 whole numbers|None"),
    ("input_shape", lambda x: 8, TypeError, "input_shape must be 4 whole numbers|8"),
    ("input_shape", lambda x: (*x[:3], 9.0), TypeError, "input_shape must be 4 whole numbers|9.0"),
    ("input_shape", lambda x: x[1:], ValueError, "input_shape must be 4 whole numbers|8, 9)"),
    ("input_shape", lambda x: (2, x[1], -8, 9), ValueError, "each 0 or more|-8, 9)"),
    ("input_shape", lambda x: (2, x[1] + 1, 8, 9), ValueError, "channels|(3, 3, 2, 2)"),
    ("input_shape", lambda x: (1, *x[1:]), ValueError, "boxes[1] has batch_index 1, but input has 1 image"),
    ("output_size", lambda x: 0, ValueError, "output_size must be at least 1|got 0"),
    ("output_size", lambda x: (7, -1), ValueError, "output_size must be at least 1|(7, -1)"),
    (
        "output_size",
        lambda x: (7, 7, 7),
        ValueError,
        "output_size must be an int or (height, width)|(7, 7, 7)",
    ),
    ("output_size", lambda x: 7.0, TypeError, "output_size must be a whole number|float 7.0"),
    ("output_size", lambda x: (7.0, 7), TypeError, "output_size must be a whole number|float 7.0"),
    ("output_size", lambda x: "77", TypeError, "output_size must be a whole number|'77'"),
    ("output_size", lambda x: None, TypeError, "output_size must be a whole number|None"),
]


@every_direction
@pytest.mark.parametrize("name", sorted({row[0] for row in ARRAYS}))
def test_arrays_and_sizes(operator, direction, name):
    keywords = good(operator, direction)
    for of, change, error, parts in ARRAYS:
        if of != name or name not in keywords:
            continue
        arguments = {name: change(keywords[name])}
        if name == "input_shape" and "input" in keywords and ("channels" in parts or "boxes[1]" in parts):
            arguments["input"] = np.zeros(
                arguments[name], np.float32
            )  # fits, so that this is not what is wrong
        check(operator, direction, arguments, error, parts)


@every_direction
@pytest.mark.parametrize("axis", [2, 3])
def test_maps_without_pixels(operator, direction, axis):
    keywords = good(operator, direction)
    size = [8, 9]
    size[axis - 2] = 0
    parts = f"pixels|height {size[0]} and width {size[1]}"
    if "x" in keywords:
        name = list(keywords["x"])[1]
        empty = np.take(keywords["x"][name], [], axis)
        parts = "pixels|" + parts.split("|")[1].replace("8", "4").replace("9", "5")
        check(operator, direction, {"x": {**keywords["x"], name: empty}}, ValueError, parts)
    elif "input" in keywords and "input_shape" not in keywords:
        arguments = {"input": np.take(keywords["input"], [], axis)}
        if direction == "backward":
            arguments["out"] = None
        check(operator, direction, arguments, ValueError, parts)
    else:
        shape = list(keywords["input_shape"])
        shape[axis] = 0
        given = {"input": np.zeros(shape, np.float32)} if "input" in keywords else {}
        check(operator, direction, {"input_shape": shape, "out": None, **given}, ValueError, parts)


WITH_OUT = {name: one for name, one in DIRECTIONS.items() if one[0].accepts(one[1], "out")}
with_out = pytest.mark.parametrize(("operator", "direction"), WITH_OUT.values(), ids=WITH_OUT)


@with_out
def test_out(operator, direction):
    keywords = good(operator, direction)
    out = keywords["out"]
    read_only = out.copy()
    read_only.flags.writeable = False
    for wrong, error, parts in [
        (out.astype(float), TypeError, "out must have dtype float32, got float64"),
        (out.astype(">f4"), TypeError, "out must have dtype float32, got >f4"),
        (np.repeat(out, 2, axis=3)[..., ::2], ValueError, "out must be C-contiguous|strides"),
        (out[::-1], ValueError, "out must be C-contiguous|strides"),
        (np.broadcast_to(np.float32(UNTOUCHED), out.shape), ValueError, "out must be"),
        (read_only, ValueError, "out must be writeable"),
        (out[1:], ValueError, "out must have shape"),
    ]:
        check(operator, direction, {"out": wrong}, error, parts)
        assert (wrong == UNTOUCHED).all()


@with_out
def test_out_that_shares_memory(operator, direction):
    """With any of the arrays that are read, were it by a few bytes."""
    keywords = good(operator, direction)
    shape = keywords["out"].shape
    for name in ("input", "grad_output", "boxes"):
        if name not in keywords:
            continue
        array = keywords[name]
        buffer = np.ones(array.size + keywords["out"].size, np.float32)
        shared = buffer[: array.size].reshape(array.shape)
        shared[...] = array
        before = buffer.copy()
        for start in (0, array.size - 1):
            out = buffer[start : start + keywords["out"].size].reshape(shape)
            arguments = {name: shared, "out": out}
            check(operator, direction, arguments, ValueError, "out must not share memory with an input")
        np.testing.assert_array_equal(buffer, before)


CHOOSING = {name: one for name, one in OPERATORS.items() if one.fixed and not one.by_image}


@pytest.mark.parametrize("operator", CHOOSING.values(), ids=CHOOSING)
def test_maximum_without_its_map(operator):
    mode = operator.fixed["mode"]
    check(operator, "backward", {"input": None}, TypeError, f"input is missing|mode='{mode}'")


TWO_MAPS = {name: one for name, one in DIRECTIONS.items() if {"grad_output", "input"} <= good(*one).keys()}


@pytest.mark.parametrize(("operator", "direction"), TWO_MAPS.values(), ids=TWO_MAPS)
def test_maps_of_two_types(operator, direction):
    keywords = good(operator, direction)
    arguments = {"input": keywords["input"].astype(float)}
    check(operator, direction, arguments, TypeError, "grad_output must have the dtype of|float64|float32")

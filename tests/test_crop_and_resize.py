"""crop_and_resize and its gradients: TensorFlow's values, a textbook reference, laws, promises, refusals."""

import json
import pathlib

import numpy as np
import pytest
import reference_crop as textbook
from narrow import BYTES, NARROW, dtype_of

from cyroialign import (
    crop_and_resize,
    crop_and_resize_backward,
    crop_and_resize_boxes_backward,
    num_threads,
)

GOLDENS = np.load(pathlib.Path(__file__).parent / "data" / "crop_and_resize.npz")
CASES = json.loads(str(GOLDENS["cases"]))
METHODS, LAYOUTS = ("bilinear", "nearest"), ("NHWC", "NCHW")
SHAPE, CROP = (3, 13, 17, 11), (4, 5)
TOLERANCE = {"float32": 3e-6, "float64": 1e-12, "float16": 2e-3, "bfloat16": 2e-2}  # of the largest value


def golden(case, *names):
    return [GOLDENS[f"{case:02}/{name}"] for name in names]


def turned(array, layout):
    """An array with its channels last, in a layout."""
    return array if layout == "NHWC" else np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def back(array, layout):
    return array if layout == "NHWC" else array.transpose(0, 2, 3, 1)


def close(actual, expected, tolerance):
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=0, atol=tolerance * scale)


def some_image(dtype="float64", seed=0, shape=SHAPE):
    values = np.random.default_rng(seed).uniform(-1, 1, shape)
    if dtype == "uint8":
        return np.uint8(128 + 127 * values)
    return np.int8(127 * values) if dtype == "int8" else values.astype(dtype_of(dtype))


def boxes_of_all_kinds(dtype=np.float64):
    """Inside, across, outside, mirrored, of no size, the whole image, on whole pixels, huge."""
    rng = np.random.default_rng(1)
    first = rng.uniform(0, 0.6, (20, 2))
    extent = rng.uniform(0.1, 0.4, (20, 2))
    first[4:12] += rng.uniform(-0.8, 0.8, (8, 2))
    extent[8:14] *= rng.choice([-1, 1], (6, 2))
    extent[14:16, 0] = extent[16] = 0
    odd = [
        [0, 0, 1, 1],
        [1, 1, 0, 0],
        [2 / 12, 4 / 16, 8 / 12, 12 / 16],
        [-1e9, -1e9, 1e9, 1e9],
        [-1e30, 0, 1e30, 1],
        [0.5, 3e5, 0.7, 3.1e5],
        [-0.5, 0.2, -0.1, 0.8],
    ]
    boxes = np.vstack([np.hstack([first, first + extent]), odd]).astype(dtype)
    return boxes, rng.integers(SHAPE[0], size=len(boxes))


@pytest.mark.promise("textbook", "crop_and_resize")
@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_goldens(case, layout):
    """TensorFlow's, made by data/make_crop_and_resize.py."""
    image, boxes, indices, crops = golden(case, "image", "boxes", "box_indices", "crops")
    result = crop_and_resize(turned(image, layout), boxes, indices, **CASES[case], layout=layout)
    assert result.dtype == np.float32
    close(back(result, layout), crops, TOLERANCE["float32"])
    grad, expected = golden(case, "grad_output", "grad_image")
    method, shape = CASES[case]["method"], turned(image, layout).shape
    result = crop_and_resize_backward(turned(grad, layout), boxes, indices, shape, method, layout=layout)
    close(back(result, layout), expected, TOLERANCE["float32"])
    if method == "bilinear":
        [expected] = golden(case, "grad_boxes")
        given = turned(grad, layout), turned(image, layout), boxes, indices
        result = crop_and_resize_boxes_backward(*given, layout=layout)
        assert result.dtype == np.float32
        close(result, expected, TOLERANCE["float32"])


@pytest.mark.promise("textbook", "crop_and_resize")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("crop_size", [CROP, (1, 1), (1, 3), (7, 2)])
@pytest.mark.parametrize("value", [0.0, -2.5, np.nan])
def test_against_the_textbook(crop_size, method, layout, value):
    image, (boxes, indices) = some_image(), boxes_of_all_kinds()
    result = crop_and_resize(turned(image, layout), boxes, indices, crop_size, method, value, layout=layout)
    expected = textbook.crop_and_resize(image, boxes, indices, crop_size, method, value)
    close(back(result, layout), expected, 1e-12)
    grad = np.random.default_rng(2).uniform(-1, 1, expected.shape)
    shape = turned(image, layout).shape
    result = crop_and_resize_backward(turned(grad, layout), boxes, indices, shape, method, layout=layout)
    close(back(result, layout), textbook.crop_and_resize_backward(grad, boxes, indices, SHAPE, method), 1e-12)


@pytest.mark.promise("textbook", "crop_and_resize")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("crop_size", [CROP, (1, 1), (1, 3)])
def test_gradient_to_boxes(crop_size, layout):
    image, (boxes, indices) = some_image(), boxes_of_all_kinds()
    boxes, indices = boxes[:20], indices[:20]  # no last bit decides whether their samples lie on pixels
    grad = np.random.default_rng(2).uniform(-1, 1, (len(boxes), *crop_size, SHAPE[3]))
    given = turned(grad, layout), turned(image, layout), boxes, indices
    result = crop_and_resize_boxes_backward(*given, layout=layout)
    assert result.dtype == np.float64
    close(result, textbook.crop_and_resize_boxes_backward(grad, image, boxes, indices), 1e-12)


def test_gradient_to_boxes_is_a_derivative():
    """By differences, of boxes whose samples stay between the same pixels."""
    image, grad = some_image(), np.random.default_rng(3).uniform(-1, 1, (1, *CROP, SHAPE[3]))
    box, step = np.array([[0.131, 0.217, 0.703, 0.841]]), 1e-6
    gradient = crop_and_resize_boxes_backward(grad, image, box, [1])[0]
    for corner in range(4):
        moved = [box + sign * step * np.eye(4)[corner] for sign in (1, -1)]
        ahead, behind = (crop_and_resize(image, one, [1], CROP) for one in moved)
        assert ((ahead - behind) * grad).sum() / (2 * step) == pytest.approx(gradient[corner], rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_types(dtype, method, layout):
    """Summed in float32 and rounded once, in both directions."""
    image, (boxes, indices) = turned(some_image(dtype), layout), boxes_of_all_kinds(np.float32)
    given = boxes, indices, CROP, method, 0.3
    result = crop_and_resize(image, *given, layout=layout)
    wide = crop_and_resize(image.astype(np.float32), *given, layout=layout)
    assert result.dtype == (np.float32 if dtype in BYTES else image.dtype)
    np.testing.assert_array_equal(result, wide.astype(result.dtype))
    if dtype in BYTES:
        return
    grad = turned(some_image(dtype, 4, (len(boxes), *CROP, SHAPE[3])), layout)
    result = crop_and_resize_backward(grad, boxes, indices, image.shape, method, layout=layout)
    wide = crop_and_resize_backward(
        grad.astype(np.float32), boxes, indices, image.shape, method, layout=layout
    )
    assert result.dtype == image.dtype
    np.testing.assert_array_equal(result, wide.astype(result.dtype))
    if method == "bilinear":
        result = crop_and_resize_boxes_backward(grad, image, boxes, indices, layout=layout)
        wide = [array.astype(np.float32) for array in (grad, image)]
        expected = crop_and_resize_boxes_backward(*wide, boxes, indices, layout=layout)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, expected)


@pytest.mark.promise("transposition", "crop_and_resize")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_law_of_the_pair(dtype, method, layout):
    image, (boxes, indices) = turned(some_image(dtype), layout), boxes_of_all_kinds(dtype)
    crops = crop_and_resize(image, boxes, indices, CROP, method, layout=layout)
    grad = np.random.default_rng(5).uniform(-1, 1, crops.shape).astype(dtype)
    back = crop_and_resize_backward(grad, boxes, indices, image.shape, method, layout=layout)
    here, there = (np.vdot(a.astype(float), b.astype(float)) for a, b in ((crops, grad), (image, back)))
    assert here == pytest.approx(there, rel=TOLERANCE[dtype] * 10)


@pytest.mark.promise("same_bits", "crop_and_resize")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_bits(dtype, layout):
    """The same for any number of threads, in either order of memory; forward whatever else is in the call."""
    shape = (2, 40, 50, 21)
    image, (boxes, indices) = some_image(dtype, shape=shape), boxes_of_all_kinds(np.float32)
    boxes, indices = np.tile(boxes, (3, 1)), np.tile(indices % 2, 3)
    grad = some_image(dtype, 6, (len(boxes), 7, 6, 21))
    given = turned(image, layout), boxes, indices, (7, 6), "bilinear", 0.5
    results = {}
    for threads in (1, 2, 3, 8):
        with num_threads(threads):
            crops = crop_and_resize(*given, layout=layout)
            turned_grad = turned(grad, layout)
            gradient = crop_and_resize_backward(turned_grad, boxes, indices, given[0].shape, layout=layout)
            corners = crop_and_resize_boxes_backward(turned_grad, given[0], boxes, indices, layout=layout)
        results[threads] = [array.tobytes() for array in (crops, gradient, corners)]
    assert all(one == results[1] for one in results.values())
    other = crop_and_resize(image, boxes, indices, (7, 6), "bilinear", 0.5)
    assert back(crops, layout).tobytes() == other.tobytes()
    for row in range(27):
        alone = crop_and_resize(
            given[0], boxes[row : row + 1], indices[row : row + 1], *given[3:], layout=layout
        )
        assert alone.tobytes() == crops[row : row + 1].tobytes()


@pytest.mark.promise("memory", "crop_and_resize")
def test_order_of_memory():
    """A transposed view is read in place, and the result has its order."""
    image, (boxes, indices) = some_image(), boxes_of_all_kinds()
    view = np.ascontiguousarray(image.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    expected = crop_and_resize(image, boxes, indices, CROP, "bilinear", 4.0)
    result = crop_and_resize(view, boxes, indices, CROP, "bilinear", 4.0)
    assert result.transpose(0, 3, 1, 2).flags.c_contiguous
    np.testing.assert_array_equal(result, expected)
    for out in (np.full_like(expected, 9), np.full_like(result, 9)):
        assert crop_and_resize(view, boxes, indices, CROP, "bilinear", 4.0, out=out) is out
        np.testing.assert_array_equal(out, expected)
    swapped = image.astype(">f8")
    np.testing.assert_array_equal(crop_and_resize(swapped, boxes, indices, CROP, "bilinear", 4.0), expected)


@pytest.mark.promise("defined_results", "crop_and_resize")
@pytest.mark.parametrize("value", [1.5, -0.0, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_extrapolation(method, value):
    """Bins outside on either axis, also of streamed results and of the last row of a chunk."""
    image = np.ones((1, 5, 5, 1), np.float32)
    box = np.array([[-0.5, 0.25, 1.5, 1.25]], np.float32)
    result = crop_and_resize(image, box, [0], 5, method, value)[0, :, :, 0]
    inside = np.array([0, 1, 1, 1, 0])[:, None] * np.array([1, 1, 1, 1, 0])
    expected = np.where(inside, np.float32(1), np.float32(value))
    assert result.tobytes() == expected.tobytes()
    many = crop_and_resize(
        np.ones((1, 5, 5, 40), np.float32), np.repeat(box, 3000, 0), [0] * 3000, 5, method, value
    )
    assert (many == expected[:, :, None]).all()


def test_extrapolation_fits_the_type():
    """What float16 cannot hold is infinite."""
    image = np.ones((1, 5, 5, 1), np.float16)
    assert np.isposinf(crop_and_resize(image, [[2.0, 2, 3, 3]], [0], 1, extrapolation_value=1e9)).all()
    huge = crop_and_resize(image.astype(np.float64), [[2.0, 2, 3, 3]], [0], 1, extrapolation_value=-(10**400))
    assert np.isneginf(huge).all()


@pytest.mark.promise("defined_results", "crop_and_resize")
def test_one_row():
    """An image of one row has one place, which every box touches: also those whose height overflows."""
    image = some_image("float32", shape=(1, 1, 7, 2))
    boxes = np.array([[0.3, 0.1, 0.4, 0.9], [-3e38, 0.1, 3e38, 0.9], [5, 0.1, -5, 0.9]], np.float32)
    result = crop_and_resize(image, boxes, [0, 0, 0], (3, 4))
    assert (result == result[:1, :1]).all()
    grad = crop_and_resize_boxes_backward(result, image, boxes, [0, 0, 0])
    assert (grad[:, [0, 2]] == 0).all()
    assert (grad[:, [1, 3]] != 0).all()


@pytest.mark.promise("locality", "crop_and_resize")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_locality(method, layout):
    """What is not finite reaches the bins whose sample it is a neighbour of, of its channel."""
    image, (boxes, indices) = some_image(), boxes_of_all_kinds()
    clean = crop_and_resize(turned(image, layout), boxes, indices, CROP, method, layout=layout)
    image[1, 6, 8, 3] = np.inf
    spoiled = crop_and_resize(turned(image, layout), boxes, indices, CROP, method, layout=layout)
    with np.errstate(invalid="ignore"):
        expected = textbook.crop_and_resize(image, boxes, indices, CROP, method)
    reached = ~np.isfinite(expected)
    assert reached.any()
    np.testing.assert_array_equal(~np.isfinite(back(spoiled, layout)), reached)
    np.testing.assert_array_equal(back(spoiled, layout)[~reached], back(clean, layout)[~reached])
    grad = np.zeros_like(clean)
    back(grad, layout)[~reached] = np.nan
    with np.errstate(invalid="ignore"):
        expected = textbook.crop_and_resize_backward(back(grad, layout), boxes, indices, SHAPE, method)
    shape = turned(image, layout).shape
    gradient = crop_and_resize_backward(grad, boxes, indices, shape, method, layout=layout)
    np.testing.assert_array_equal(np.isfinite(back(gradient, layout)), np.isfinite(expected))


def test_nearest_rounds_halves_up():
    image = np.arange(5.0).reshape(1, 5, 1, 1)
    crops = crop_and_resize(image, [[0.125, 0, 0.875, 0]], [0], (4, 1), "nearest")
    assert crops.ravel().tolist() == [1, 2, 3, 4]
    below = np.nextafter(0.5, 0)
    assert crop_and_resize(np.arange(2.0).reshape(1, 2, 1, 1), [[below, 0, below, 0]], [0], 1, "nearest") == 0


@pytest.mark.promise("defined_results", "crop_and_resize")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty(layout):
    image = turned(some_image("float32"), layout)
    nothing = np.empty((0, 4)), np.empty(0, int)
    crops = crop_and_resize(image, *nothing, CROP, layout=layout)
    assert back(crops, layout).shape == (0, *CROP, 11)
    assert crop_and_resize(image, [], [], CROP, layout=layout).shape == crops.shape
    gradient = crop_and_resize_backward(crops, *nothing, image.shape, layout=layout)
    assert gradient.shape == image.shape
    assert not gradient.any()
    assert crop_and_resize_boxes_backward(crops, image, *nothing, layout=layout).shape == (0, 4)
    assert back(crop_and_resize(image[:0], *nothing, CROP, layout=layout), layout).shape == (0, *CROP, 11)
    no_channels = turned(np.empty((2, 5, 5, 0), np.float32), layout)
    assert crop_and_resize(no_channels, [[0, 0, 1, 1]], [0], CROP, "bilinear", 2.0, layout=layout).size == 0


IMAGE, BOXES, INDICES = some_image("float32"), np.full((2, 4), 0.5, np.float32), np.array([0, 2])
CROPS = np.ones((2, 3, 3, 11), np.float32)


@pytest.mark.promise("refusals", "crop_and_resize")
@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "image must have dtype float32, .* got int64", {"image": np.ones(SHAPE, int)}),
        (ValueError, "image must have 4 axes", {"image": IMAGE[0]}),
        (ValueError, "image must have pixels to pool 2 boxes from", {"image": IMAGE[:, :0]}),
        (ValueError, r"boxes must have shape \(K, 4\), got \(2, 5\)", {"boxes": np.ones((2, 5))}),
        (ValueError, r"boxes\[1\] must be finite, got \(y1, x1, y2, x2\) = \(0.0, 1.0, nan, 3.0\)",
         {"boxes": [[0, 0, 1, 1], [0, 1, np.nan, 3]]}),
        (ValueError, r"boxes\[0\] is not finite in pixels of the image: .* exceeds what float32 can hold",
         {"boxes": np.float32([[0, 0, 3e38, 1]] * 2)}),
        (ValueError, r"box_indices\[1\] is 3, but image has 3 images", {"box_indices": [0, 3]}),
        (ValueError, r"box_indices\[0\] is -1, but image has 3 images", {"box_indices": [-1, 3]}),
        (TypeError, "box_indices must have an integer dtype, got float64", {"box_indices": [0.0, 1]}),
        (ValueError, r"box_indices must have shape \(2,\), .* got \(3,\)", {"box_indices": [0, 1, 2]}),
        (ValueError, "crop_size must be at least 1 on both axes, got 0", {"crop_size": 0}),
        (ValueError, r"crop_size must be an int or \(height, width\)", {"crop_size": (1, 2, 3)}),
        (TypeError, "a side of crop_size must be a whole number", {"crop_size": (1, 2.5)}),
        (ValueError, "method must be one of 'bilinear', 'nearest', got 'bicubic'", {"method": "bicubic"}),
        (TypeError, "method must be a str", {"method": 1}),
        (TypeError, "extrapolation_value must be a number, got str", {"extrapolation_value": "0"}),
        (TypeError, "extrapolation_value must be a number, got NoneType", {"extrapolation_value": None}),
        (ValueError, "layout must be one of", {"layout": "HWC"}),
        (TypeError, "num_threads must be a whole number", {"num_threads": 1.5}),
        (TypeError, "out must have dtype float32, got float64", {"out": np.ones(CROPS.shape)}),
        (ValueError, "out must have shape", {"out": np.ones((2, 3, 3, 4), np.float32)}),
    ],
)  # fmt: skip
def test_refusals(error, words, arguments):
    given = {"image": IMAGE, "boxes": BOXES, "box_indices": INDICES, "crop_size": 3, **arguments}
    out = given.setdefault("out", np.ones_like(CROPS))
    with pytest.raises(error, match=words):
        crop_and_resize(**given)
    assert (out == 1).all()


@pytest.mark.promise("refusals", "crop_and_resize")
@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "grad_output must have dtype", {"grad_output": CROPS.astype(np.uint8)}),
        (ValueError, "grad_output must have one row for each of the 2 boxes", {"grad_output": CROPS[:1]}),
        (ValueError, "as many channels as the input", {"grad_output": CROPS[..., :3]}),
        (ValueError, "grad_output must have bins", {"grad_output": CROPS[:, :0]}),
        (ValueError, "image_shape must be 4 whole numbers", {"image_shape": (3, 3)}),
        (TypeError, "image_shape must be 4 whole numbers", {"image_shape": 3}),
        (ValueError, "image must have pixels", {"image_shape": (3, 0, 17, 11)}),
        (ValueError, r"box_indices\[1\] is 2, but image has 1 image$", {"image_shape": (1, 3, 3, 11)}),
        (ValueError, "method must be one of", {"method": "cubic"}),
        (ValueError, "out must have shape", {"out": CROPS}),
    ],
)
def test_refusals_of_the_gradient(error, words, arguments):
    given = {"grad_output": CROPS, "boxes": BOXES, "box_indices": INDICES, "image_shape": SHAPE, **arguments}
    with pytest.raises(error, match=words):
        crop_and_resize_backward(**given)


@pytest.mark.promise("refusals", "crop_and_resize")
@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "dtype of what is pooled from image", {"image": IMAGE.astype(float)}),
        (ValueError, "as many channels", {"image": IMAGE[..., :2]}),
        (ValueError, "one row for each of the 1 boxes", {"boxes": BOXES[:1], "box_indices": [0]}),
        (ValueError, r"boxes\[0\] must be finite", {"boxes": np.full((2, 4), np.inf)}),
    ],
)  # fmt: skip
def test_refusals_of_the_gradient_to_boxes(error, words, arguments):
    given = {"grad_output": CROPS, "image": IMAGE, "boxes": BOXES, "box_indices": INDICES, **arguments}
    with pytest.raises(error, match=words):
        crop_and_resize_boxes_backward(**given)

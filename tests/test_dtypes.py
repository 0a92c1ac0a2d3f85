"""Narrow maps, of 16 bits and of bytes: what float32 gives, rounded once, without a converted copy."""

import itertools

import numpy as np
import pytest
from memory import peak_memory, unaligned
from narrow import BYTES, HALVES, NARROW, bits, dtype_of, numbers, result_of, rounded
from reference import random_boxes

import cyroialign as ca

SHAPE, BINS = (2, 18, 13, 11), (3, 2)
BOXES = random_boxes(np.random.default_rng(0), 12, SHAPE, 0.5)
CORNERS = [BOXES[BOXES[:, 0] == image, 1:] for image in range(2)]
SETTINGS = (0.5, 2, True)


def pyramid(x, layout, mode):
    """The pooler of two levels, and what follows the gradient in its calls."""
    coarse = x[..., ::2, ::2] if layout == "NCHW" else x[:, ::2, ::2]
    pool = ca.MultiScaleRoIAlign(["fine", "coarse"], BINS, 2, canonical_scale=16, mode=mode, layout=layout)
    return pool, ({"fine": x, "coarse": coarse}, CORNERS, [(26, 22)] * 2)


def pool_pyramid(x, layout, mode="avg"):
    pool, given = pyramid(x, layout, mode)
    return pool(*given)


def pool_pyramid_backward(g, x, layout, mode="avg"):
    pool, given = pyramid(x, layout, mode)
    return pool.backward(g, *given)["fine"]


FORWARD = {
    "avg": lambda x, **kw: ca.roi_align(x, BOXES, BINS, *SETTINGS, **kw),
    "adaptive": lambda x, **kw: ca.roi_align(x, BOXES, BINS, 0.5, **kw),
    "max": lambda x, **kw: ca.roi_align(x, BOXES, BINS, *SETTINGS, mode="max", **kw),
    "onnx_max": lambda x, **kw: ca.roi_align(x, BOXES, BINS, *SETTINGS, mode="onnx_max", **kw),
    "RoIAlign": lambda x, **kw: ca.RoIAlign(BINS, *SETTINGS, **kw)(x, CORNERS),
    "prroi_pool": lambda x, **kw: ca.prroi_pool(x, BOXES, BINS, 0.5, **kw),
    "PrRoIPool": lambda x, **kw: ca.PrRoIPool(BINS, 0.5, **kw)(x, CORNERS),
    "roi_pool": lambda x, **kw: ca.roi_pool(x, BOXES, BINS, 0.5, **kw),
    "ps_roi_align": lambda x, **kw: ca.ps_roi_align(x, BOXES, BINS, 0.5, 2, **kw),
    "ps_roi_pool": lambda x, **kw: ca.ps_roi_pool(x, BOXES, BINS, 0.5, **kw),
    "pyramid": pool_pyramid,
    "pyramid, max": lambda x, **kw: pool_pyramid(x, mode="max", **kw),
    "pyramid, onnx_max": lambda x, **kw: pool_pyramid(x, mode="onnx_max", **kw),
}
BACKWARD = {
    "avg": lambda g, x, **kw: ca.roi_align_backward(g, BOXES, x.shape, *SETTINGS, **kw),
    "adaptive": lambda g, x, **kw: ca.roi_align_backward(g, BOXES, x.shape, 0.5, **kw),
    "max": lambda g, x, **kw: ca.roi_align_backward(g, BOXES, x.shape, *SETTINGS, mode="max", input=x, **kw),
    "onnx_max": lambda g, x, **kw: ca.roi_align_backward(
        g, BOXES, x.shape, *SETTINGS, mode="onnx_max", input=x, **kw
    ),
    "RoIAlign": lambda g, x, **kw: ca.RoIAlign(BINS, *SETTINGS, **kw).backward(g, CORNERS, x.shape),
    "prroi_pool": lambda g, x, **kw: ca.prroi_pool_backward(g, BOXES, x.shape, 0.5, **kw),
    "PrRoIPool": lambda g, x, **kw: ca.PrRoIPool(BINS, 0.5, **kw).backward(g, CORNERS, x.shape),
    "roi_pool": lambda g, x, **kw: ca.roi_pool_backward(g, x, BOXES, BINS, 0.5, **kw),
    "ps_roi_align": lambda g, x, **kw: ca.ps_roi_align_backward(g, BOXES, x.shape, 0.5, 2, **kw),
    "ps_roi_pool": lambda g, x, **kw: ca.ps_roi_pool_backward(g, BOXES, x.shape, 0.5, **kw),
    "pyramid": pool_pyramid_backward,
    "pyramid, max": lambda g, x, **kw: pool_pyramid_backward(g, x, mode="max", **kw),
    "pyramid, onnx_max": lambda g, x, **kw: pool_pyramid_backward(g, x, mode="onnx_max", **kw),
}
TAKE_OUT = [name for name in FORWARD if "RoI" not in name and "pyramid" not in name]


def last(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


MEMORY = {  # how an array (N, C, H, W) lies in memory, and the layout that it is given with
    "NCHW": (lambda x: x, "NCHW"),
    "NHWC": (last, "NHWC"),
    "channels last": (lambda x: last(x).transpose(0, 3, 1, 2), "NCHW"),
    "channels first": (lambda x: x.transpose(0, 2, 3, 1), "NHWC"),
    "byte-swapped": (lambda x: x.astype(x.dtype.newbyteorder()), "NCHW"),
    "unaligned": (unaligned, "NCHW"),
    "strided": (lambda x: np.repeat(x, 2, 3)[..., ::2], "NCHW"),
    "read-only": (lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape), "NHWC"),
}


def arrays(dtype, spoiled=0, position_sensitive=False):
    """A map and a gradient to what is pooled from it."""
    rng = np.random.default_rng(1)
    channels = SHAPE[1] // 6 if position_sensitive else SHAPE[1]
    input = numbers(rng, SHAPE, dtype, spoiled)
    return input, numbers(rng, (len(BOXES), channels, *BINS), result_of(dtype), spoiled)


def as_float32(array):
    return rounded(array, np.float32)


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("memory", MEMORY)
def test_forward_is_float32_rounded(memory, dtype, name):
    dtype, (arrange, layout) = dtype_of(dtype), MEMORY[memory]
    for spoiled in (0, 101):
        input = arrays(dtype, spoiled)[0]
        if memory == "read-only":
            input = last(input)
        expected = FORWARD[name](arrange(as_float32(input)), layout=layout)
        result = FORWARD[name](arrange(input), layout=layout)
        assert result.dtype == result_of(dtype)
        assert result.dtype.isnative
        assert result.strides == tuple(s * result.itemsize // 4 for s in expected.strides)
        assert bits(result) == bits(rounded(expected, result.dtype))


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("memory", MEMORY)
def test_backward_is_float32_rounded(memory, dtype, name):
    """Of maps of bytes the gradients are of float32, as what is pooled from them."""
    dtype, (arrange, layout) = dtype_of(dtype), MEMORY[memory]
    for spoiled in (0, 101):
        input, gradient = arrays(dtype, spoiled, position_sensitive=name.startswith("ps"))
        if memory == "read-only":
            input, gradient = last(input), last(gradient)
        expected = BACKWARD[name](arrange(as_float32(gradient)), arrange(as_float32(input)), layout=layout)
        result = BACKWARD[name](arrange(gradient), arrange(input), layout=layout)
        assert result.dtype == gradient.dtype
        assert result.dtype.isnative
        assert result.any()
        assert bits(result) == bits(rounded(expected, gradient.dtype))


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("memory", MEMORY)
def test_gradient_of_boxes(memory, dtype):
    """Its sums are float64 and its result is float32 for every map."""
    dtype, (arrange, layout) = dtype_of(dtype), MEMORY[memory]
    input, gradient = arrays(dtype)
    if memory == "read-only":
        input, gradient = last(input), last(gradient)
    settings = (BOXES, *SETTINGS)
    expected = ca.roi_align_boxes_backward(
        arrange(as_float32(gradient)), arrange(as_float32(input)), *settings, layout=layout
    )
    result = ca.roi_align_boxes_backward(arrange(gradient), arrange(input), *settings, layout=layout)
    assert result.dtype == np.float32
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", TAKE_OUT)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("memory", ["NCHW", "NHWC", "channels last", "byte-swapped"])
def test_out(memory, dtype, name):
    dtype, (arrange, layout) = dtype_of(dtype), MEMORY[memory]
    input, gradient = map(arrange, arrays(dtype, position_sensitive=name.startswith("ps")))
    calls = {
        "forward": lambda **out: FORWARD[name](input, layout=layout, **out),
        "backward": lambda **out: BACKWARD[name](gradient, input, layout=layout, **out),
    }
    for call in calls.values():
        expected = call()
        for out in (np.empty_like(expected), np.empty(expected.shape, expected.dtype)):
            out.fill(77)
            assert call(out=out) is out
            assert bits(out) == bits(expected)
        other = np.float16 if expected.dtype == np.float32 else np.float32
        out = np.full(expected.shape, 77, other)
        with pytest.raises(TypeError, match=f"out must have dtype {expected.dtype}, got {out.dtype}"):
            call(out=out)
        assert (out == 77).all()


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_raises_no_floating_point_errors(dtype, name):
    """Subnormal and infinite results are no errors, even if a program makes its own raise."""
    dtype = dtype_of(dtype)
    input, gradient = arrays(dtype, position_sensitive=name.startswith("ps"))
    input.flat[::7] = gradient.flat[::3] = np.finfo(np.float16).max
    input.flat[::5] = gradient.flat[::5] = every(dtype)[0x7FA0]  # a signalling NaN
    with np.errstate(all="raise"):
        FORWARD[name](input, layout="NCHW")
        result = BACKWARD[name](gradient, input, layout="NCHW")
    if name == "adaptive" and dtype == np.float16:
        assert np.isinf(result).any()


@pytest.mark.parametrize("dtype", NARROW)
def test_rounding_gradients_of_boxes_raises_no_floating_point_errors(dtype):
    input, gradient = arrays(dtype_of(dtype))
    with np.errstate(all="raise"):
        result = ca.roi_align_boxes_backward(gradient, input, BOXES, 1e-44)
    assert result.any()


@pytest.mark.parametrize("dtype", BYTES)
def test_gradients_of_bytes_are_refused(dtype):
    with pytest.raises(
        TypeError, match="grad_output must have dtype float32, float64, float16 or bfloat16, "
    ):
        ca.roi_align_backward(np.ones((12, 18, *BINS), dtype), BOXES, SHAPE)
    with pytest.raises(TypeError, match="the dtype of what is pooled from input, float32, got float16"):
        ca.roi_pool_backward(np.ones((12, 18, *BINS), np.float16), np.ones(SHAPE, dtype), BOXES, BINS, 0.5)


# Every number of 16 bits, through what loads and what stores it.


def every(dtype):
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def finite(dtype):
    return every(dtype)[np.isfinite(rounded(every(dtype), np.float32))]


def check_every_number(name):
    """A map of one pixel has 65536 channels: loads alone or in vectors, as the layout has it."""
    dtype = dtype_of(name)
    for shape, layout in [((1, 1 << 16, 1, 1), "NCHW"), ((1, 1, 1, 1 << 16), "NHWC")]:
        input, box = every(dtype).reshape(shape), np.array([[0, 0, 0, 1, 1]], np.float32)
        settings = (1.0, 1, True)
        output = ca.roi_align(input, box, 1, *settings, layout=layout)
        assert bits(output) == bits(input)
        gradient = ca.roi_align_backward(output, box, shape, *settings, layout=layout)
        minus_zero = input.view(np.uint16) == 0x8000  # which a sum that begins with 0 is not
        assert bits(gradient) == bits(np.where(minus_zero, dtype.type(0), input))


def check_every_finite_number(name):
    """A map whose pixels are bins: loads and stores of whole vectors in either layout."""
    values = finite(dtype_of(name))
    width = 64
    shape = (1, 8, len(values) // (8 * width), width)
    input = values[: np.prod(shape)].reshape(shape)
    box = np.array([[0, 0, 0, width, shape[2]]], np.float32)
    for layout in ("NCHW", "NHWC"):
        given = input if layout == "NCHW" else last(input)
        output = ca.roi_align(given, box, shape[2:], 1.0, 1, True, layout=layout)
        assert (output == given).all()
        gradient = ca.roi_align_backward(output, box, given.shape, 1.0, 1, True, layout=layout)
        assert (gradient == given).all()


def check_every_rounding(name):
    """Between all neighbours: a bin at 1/4, 1/2 and 3/4 of the way from one to the next."""
    dtype = dtype_of(name)
    values = np.sort(finite(dtype))
    values = values[: len(values) // 64 * 64]
    input = np.stack([values[:-1], values[1:]], axis=1).reshape(1, -1, 1, 2)
    quarters = np.arange(5, dtype=np.float32) / 4
    boxes = np.array([[0, x, 0, x + 1, 1] for x in quarters], np.float32)
    even = np.where(values.view(np.uint16)[:-1] % 2 == 0, values[:-1], values[1:])
    expected = np.stack([values[:-1], values[:-1], even, values[1:], values[1:]])
    for layout in ("NCHW", "NHWC"):
        given = input if layout == "NCHW" else last(input)
        output = ca.roi_align(given, boxes, 1, 1.0, 1, True, layout=layout)
        assert (output.reshape(5, -1) == expected).all()


def check_overflow(name):
    """Sums of gradients: the largest number, what still rounds to it, and what becomes infinite."""
    dtype = dtype_of(name)
    largest = values = every(dtype)[0x7BFF if name == "float16" else 0x7F7F]
    ulp = np.float32(largest) - np.float32(every(dtype)[largest.view(np.uint16) - 1])
    added = (np.array([0, 0.25, 0.4375, 0.5, 0.75, 1], np.float32) * ulp).astype(dtype)
    gradient = np.stack([np.full(6, largest), added])
    gradient = np.concatenate([gradient, -gradient], axis=1).reshape(2, 12, 1, 1)
    box = np.zeros((2, 5), np.float32)
    box[:, 3:] = 1
    result = ca.roi_align_backward(gradient, box, (1, 12, 1, 1), 1.0, 1, True).ravel()
    inf = dtype.type(np.inf)
    expected = np.array([values] * 3 + [inf] * 3, dtype)
    assert (result == np.concatenate([expected, -expected])).all()


CHECKS = (check_every_number, check_every_finite_number, check_every_rounding, check_overflow)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("dtype", HALVES)
def test_every_number(dtype, check):
    check(dtype)


def test_every_byte():
    box = np.array([[0, 0, 0, 16, 16]], np.float32)
    for shape in ((1, 256, 1, 1), (1, 1, 16, 16), (1, 16, 4, 4)):
        input = np.arange(256, dtype=np.uint8).reshape(shape)
        box[0, 3:] = shape[3], shape[2]
        for dtype, layout in itertools.product(BYTES, ("NCHW", "NHWC")):
            given = (input if layout == "NCHW" else last(input)).view(dtype)
            output = ca.roi_align(given, box, shape[2:], 1.0, 1, True, layout=layout)
            assert output.dtype == np.float32
            assert (output == given).all()
            if shape[2] == 1:
                output = ca.prroi_pool(given, np.array([[0, -1, -1, 1, 1]]), 1, layout=layout)
                assert (4 * output == given).all()  # half of the box on each axis


# Boxes and geometry: never of half precision.


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    "box_dtype", ["float16", "bfloat16", "float32", "float64", "int16", "int32", "uint8"]
)
def test_boxes_are_taken_as_they_are(box_dtype, dtype):
    """Each with every map: what they are rounded to float64, or the float32 of the contract, says."""
    dtype, box_dtype = dtype_of(dtype), dtype_of(box_dtype)
    input = numbers(np.random.default_rng(0), (2, 3, 100, 90), dtype)
    boxes = np.array([[0, 3, 5, 201, 190], [1, 77, 50, 255, 130.5], [1, 0, 0, 12.75, 3.3]]).astype(box_dtype)
    wide = boxes.astype(np.float64 if box_dtype in (np.float64, np.int32) else np.float32)
    expected = ca.roi_align(as_float32(input), wide, 3, 0.37)
    result = ca.roi_align(input, boxes, 3, 0.37)
    assert bits(result) == bits(rounded(expected, result.dtype))
    listed = [boxes[:1, 1:], boxes[1:, 1:]]
    assert bits(ca.roi_align(input, listed, 3, 0.37)) == bits(result)
    indices = boxes[:, 0].astype(np.int64)
    assert bits(ca.roi_align(input, boxes[:, 1:], 3, 0.37, batch_indices=indices)) == bits(result)


@pytest.mark.parametrize("dtype", NARROW)
def test_precision_of_the_geometry(dtype):
    """A sample a little more than a pixel outside is 0, and one at just a pixel outside is not."""
    input = np.full((1, 1, 8, 8), 9, dtype_of(dtype))
    for box_dtype, least in (("float64", 1e-12), ("float32", 1e-6)):
        for outside, value in ((least, 0), (0, 9)):
            boxes = np.array([[0, -1.5 - outside, 2, -0.5 - outside, 3]], box_dtype)
            assert ca.roi_align(input, boxes, 1, sampling_ratio=1).item() == value
    # In float32 the least of float64 is nothing.
    boxes = np.array([[0, -1.5 - 1e-12, 2, -0.5 - 1e-12, 3]], np.float32)
    assert ca.roi_align(input, boxes, 1, sampling_ratio=1).item() == 9


@pytest.mark.parametrize("dtype", HALVES)
def test_sums_are_float32(dtype):
    """4096 samples of 1, and 4096 gradients: a sum in half precision would stay where its digits end."""
    dtype = dtype_of(dtype)
    input = np.ones((1, 9, 64, 64), dtype)
    box = np.array([[0, 0, 0, 64, 64]], np.float32)
    for layout in ("NCHW", "NHWC"):
        given = input if layout == "NCHW" else last(input)
        assert (ca.roi_align(given, box, 1, aligned=True, layout=layout) == 1).all()
    boxes = np.tile(np.array([[0, 0, 0, 1, 1]], np.float32), (4096, 1))
    gradient = np.ones((4096, 9, 1, 1), dtype)
    result = ca.roi_align_backward(gradient, boxes, (1, 9, 1, 1), 1.0, 1, True)
    assert (result == 4096).all()


# ml_dtypes is optional, and memory is not spent.


def test_ml_dtypes_is_not_needed(run_python):
    code = """
        import sys
        sys.modules["ml_dtypes"] = None
        import numpy as np, cyroialign as ca
        x = np.ones((1, 2, 4, 4), np.float16)
        y = ca.roi_align(x, np.zeros((1, 5)), 2)
        ca.roi_align_backward(y, np.zeros((1, 5)), x.shape)
        try:
            ca.roi_align(x.astype(int), np.zeros((1, 5)), 2)
        except TypeError as error:
            print(error)
    """
    expected = "input must have dtype float32, float64, float16, bfloat16, uint8 or int8, got int64"
    assert run_python(code).stdout.strip() == expected


def test_ml_dtypes_is_not_imported(run_python):
    code = """
        import sys
        import numpy as np, cyroialign as ca
        ca.roi_align(np.ones((1, 2, 4, 4), np.float16), np.zeros((1, 5)), 2)
        assert "ml_dtypes" not in sys.modules
    """
    run_python(code)


SMALL, BIG, MAP_BYTES = (1, 64, 20, 27), (1, 64, 200, 272), 64 * 200 * 272


def growth(name, layout, direction):
    """Peak of memory above arrays that are there, once a small call has loaded the code."""
    dtype = dtype_of(name)
    order = (0, 1, 2, 3) if layout == "NCHW" else (0, 2, 3, 1)
    box = np.array([[0, 10, 20, 200, 150]], np.float32)
    output = np.ones([(1, 64, 7, 7)[axis] for axis in order], result_of(dtype))
    for shape in (SMALL, BIG):
        input = np.ones([shape[axis] for axis in order], dtype)
        before = peak_memory()
        if direction == "forward":
            ca.roi_align(input, box, 7, layout=layout, out=output)
        else:
            ca.roi_align_backward(output, box, input.shape, layout=layout, out=input)
    return -1 if before is None else peak_memory() - before


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", NARROW)
def test_no_converted_copy(dtype, layout, direction, run_python):
    """The gradient's float32 sums are kept for a few rows at a time."""
    if direction == "backward" and dtype in BYTES:
        pytest.skip("it has no gradient")
    dtype_of(dtype)
    code = f"import test_dtypes; print(test_dtypes.growth({dtype!r}, {layout!r}, {direction!r}))"
    assert int(run_python(code).stdout) < MAP_BYTES  # a copy of float32 would be four times as large

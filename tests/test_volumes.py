"""RoIAlign of volumes: against the textbook loops, and what must hold whatever its values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import INSTALLED, bits, dtype_of, numbers, result_of, rounded
from reference import type_of_geometry
from reference_3d import roi_align_3d as expected_forward
from reference_3d import roi_align_3d_backward as expected_backward

from cyroialign import RoIAlign3D, roi_align, roi_align_3d, roi_align_3d_backward, roi_align_backward

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}  # of the largest sum of absolute values
LAYOUTS = ("NCDHW", "NDHWC")
SHAPE = (2, 11, 9, 13, 17)
TO_LAST = (0, 2, 3, 4, 1)
TO_FIRST = (0, 4, 1, 2, 3)

places = st.one_of(  # on an axis, as parts of its length
    st.floats(-0.25, 1.25, width=32),
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    st.floats(-10, 10, width=32),
)


@st.composite
def calls(draw):
    """(shape of input, boxes, output_size, the arguments after it, dtype, type of the geometry)."""
    lengths = draw(st.tuples(*[st.integers(1, 9)] * 3))
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 8, 19])), *lengths)
    scales = draw(st.tuples(*[st.sampled_from([1.0, 0.5, 1 / 16, 0.37, 3.3])] * 3))
    rows = draw(st.lists(st.tuples(st.integers(0, shape[0] - 1), st.tuples(*[places] * 6)), max_size=3))
    boxes = np.zeros((len(rows), 7))
    for row, (image, corners) in zip(boxes, rows, strict=True):
        row[0], row[1:] = image, np.multiply(corners, lengths[::-1] * 2) / (scales[::-1] * 2)
    dtype, box_dtype = (
        draw(st.sampled_from(list(TOLERANCE))),
        draw(st.sampled_from(["float32", "float64", "int64"])),
    )
    output_size = draw(st.tuples(*[st.integers(1, 4)] * 3))
    rest = (scales, draw(st.integers(-1, 3)), draw(st.booleans()))
    return shape, boxes.astype(box_dtype), output_size, rest, dtype, type_of_geometry(dtype, box_dtype)


def in_layout(array, layout):
    return np.ascontiguousarray(array.transpose(TO_LAST)) if layout == "NDHWC" else array


def assert_close(actual, expected, largest):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[actual.dtype.name] * largest)


@given(calls(), st.sampled_from(LAYOUTS), st.integers(0, 2**32 - 1))
@settings(max_examples=120, deadline=None)
def test_forward(call, layout, seed):
    shape, boxes, output_size, rest, dtype, geometry = call
    input = np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)
    expected = expected_forward(input, boxes, output_size, *rest, dtype=geometry)
    actual = roi_align_3d(in_layout(input, layout), boxes, output_size, *rest, layout=layout)
    assert_close(actual, in_layout(expected, layout), 1)


@given(calls(), st.sampled_from(LAYOUTS), st.integers(0, 2**32 - 1))
@settings(max_examples=120, deadline=None)
def test_backward(call, layout, seed):
    shape, boxes, output_size, rest, dtype, geometry = call
    grads = np.random.default_rng(seed).uniform(-1, 1, (len(boxes), shape[1], *output_size)).astype(dtype)
    expected = in_layout(expected_backward(grads, boxes, shape, *rest, dtype=geometry), layout)
    ones = np.ones((len(boxes), 1, *output_size))
    largest = expected_backward(ones, boxes, (shape[0], 1, *shape[2:]), *rest, dtype=geometry).max(initial=0)
    actual = roi_align_3d_backward(in_layout(grads, layout), boxes, expected.shape, *rest, layout=layout)
    assert_close(actual, expected, largest)


def some_boxes(rng, count, scales=(1.0, 1.0, 1.0), shape=SHAPE):
    """Boxes inside, across, outside, inverted and larger than the volume."""
    corners = rng.uniform(-0.3, 1.3, (count, 6)) * (shape[:1:-1] * 2) / (scales[::-1] * 2)
    return np.hstack([rng.integers(shape[0], size=(count, 1)), corners]).astype(np.float32)


SETTINGS = [
    {"spatial_scale": scales, "sampling_ratio": ratio, "aligned": aligned}
    for scales, ratio, aligned in itertools.product(
        [(1.0, 1.0, 1.0), (0.5, 0.25, 2.0)], [-1, 1, 3], [False, True]
    )
]


@pytest.mark.parametrize("dtype", ["float32", "float64", *INSTALLED])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("ratio", "aligned"), [(-1, False), (-1, True), (2, False), (2, True)])
def test_one_slice_is_a_map(dtype, layout, ratio, aligned):
    rng, dtype = np.random.default_rng(0), dtype_of(dtype)
    maps = numbers(rng, (2, 11, 23, 17), dtype)
    boxes = some_boxes(rng, 40, shape=(2, 11, 1, 23, 17))
    boxes[:, 3], boxes[:, 6] = 0, 1
    flat, settings = boxes[:, [0, 1, 2, 4, 5]], {"sampling_ratio": ratio, "aligned": aligned}
    of_maps = {"NCDHW": "NCHW", "NDHWC": "NHWC"}[layout]
    slices = in_layout(maps[:, :, None], layout)
    slice_axis = 2 if layout == "NCDHW" else 1
    expected = roi_align(slices.squeeze(slice_axis), flat, (5, 3), layout=of_maps, **settings)
    actual = roi_align_3d(slices, boxes, (1, 5, 3), layout=layout, **settings)
    assert bits(actual.squeeze(slice_axis)) == bits(expected)
    if dtype.kind not in "ui":
        shape = slices.squeeze(slice_axis).shape
        expected = roi_align_backward(expected, flat, shape, layout=of_maps, **settings)
        actual = roi_align_3d_backward(actual, boxes, slices.shape, layout=layout, **settings)
        assert bits(actual.squeeze(slice_axis)) == bits(expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1), (0, 2, 1)])
def test_no_axis_is_special(settings, order):
    rng = np.random.default_rng(0)
    input, boxes = rng.standard_normal(SHAPE), some_boxes(rng, 30, settings["spatial_scale"])
    expected = roi_align_3d(input, boxes, (2, 3, 4), **settings)
    corners = boxes[:, 1:].reshape(-1, 2, 3)[:, :, ::-1][:, :, list(order)][:, :, ::-1]
    turned = np.hstack([boxes[:, :1], corners.reshape(-1, 6)])
    settings = {**settings, "spatial_scale": tuple(settings["spatial_scale"][axis] for axis in order)}
    axes = (0, 1, *(2 + axis for axis in order))
    size = tuple((2, 3, 4)[axis] for axis in order)
    actual = roi_align_3d(input.transpose(axes), turned, size, **settings)
    np.testing.assert_allclose(actual, expected.transpose(axes), rtol=0, atol=1e-14)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-15)])
def test_backward_is_the_transpose(settings, layout, dtype, tolerance):
    rng = np.random.default_rng(0)
    input = in_layout(rng.standard_normal(SHAPE).astype(dtype), layout)
    boxes = some_boxes(rng, 30, settings["spatial_scale"])
    forward = roi_align_3d(input, boxes, (2, 5, 3), layout=layout, **settings).astype(np.float64)
    grads = rng.standard_normal(forward.shape).astype(dtype)
    backward = roi_align_3d_backward(grads, boxes, input.shape, layout=layout, **settings)
    terms = np.abs(forward * grads).sum()
    assert abs((forward * grads).sum() - (backward.astype(np.float64) * input).sum()) <= tolerance * terms


@pytest.mark.parametrize("layout", LAYOUTS)
def test_constant_volume_gives_the_constant(layout):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 8, (2, 40, 3)), axis=0)
    boxes = np.hstack([np.zeros((40, 1)), *corners])
    input = in_layout(np.full((1, 3, 9, 9, 9), 1.7), layout)
    np.testing.assert_allclose(roi_align_3d(input, boxes, (2, 4, 3), layout=layout), 1.7, rtol=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", *INSTALLED])
@pytest.mark.parametrize("settings", SETTINGS[:4])
def test_bits_do_not_depend_on_threads_or_other_boxes(layout, dtype, settings):
    rng, dtype = np.random.default_rng(0), dtype_of(dtype)
    input = in_layout(numbers(rng, SHAPE, dtype, spoiled=301), layout)
    boxes = some_boxes(rng, 25, settings["spatial_scale"])
    settings = {**settings, "layout": layout}
    one = roi_align_3d(input, boxes, (3, 7, 5), num_threads=1, **settings)
    assert bits(roi_align_3d(input, boxes, (3, 7, 5), num_threads=3, **settings)) == bits(one)
    for k in range(len(boxes)):
        assert bits(roi_align_3d(input, boxes[k : k + 1], (3, 7, 5), **settings)) == bits(one[k])
    if dtype.kind not in "ui":
        gradient = roi_align_3d_backward(one, boxes, input.shape, num_threads=1, **settings)
        several = roi_align_3d_backward(one, boxes, input.shape, num_threads=3, **settings)
        assert bits(several) == bits(gradient)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", INSTALLED)
def test_narrow_volumes_are_rounded_once(layout, dtype):
    rng, dtype = np.random.default_rng(0), dtype_of(dtype)
    input, boxes = in_layout(numbers(rng, SHAPE, dtype, spoiled=301), layout), some_boxes(rng, 25)
    expected = roi_align_3d(input.astype(np.float32), boxes, 4, layout=layout)
    actual = roi_align_3d(input, boxes, 4, layout=layout)
    assert actual.dtype == result_of(dtype)
    assert bits(actual) == bits(rounded(expected, actual.dtype))
    if dtype.kind not in "ui":
        expected = roi_align_3d_backward(actual.astype(np.float32), boxes, input.shape, layout=layout)
        actual = roi_align_3d_backward(actual, boxes, input.shape, layout=layout)
        assert bits(actual) == bits(rounded(expected, dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_memory_of_the_other_layout_is_read_in_place(layout, direction):
    rng = np.random.default_rng(0)
    boxes = some_boxes(rng, 25)
    if direction == "forward":
        array, result = (
            rng.standard_normal(SHAPE),
            lambda array, **named: roi_align_3d(array, boxes, (2, 3, 4), **named),
        )
    else:
        array = rng.standard_normal((25, 11, 2, 3, 4))
        result = lambda array, **named: roi_align_3d_backward(  # noqa: E731
            array,
            boxes,
            SHAPE if named["layout"] == "NCDHW" else tuple(SHAPE[axis] for axis in TO_LAST),
            **named,
        )
    other = LAYOUTS[1 - LAYOUTS.index(layout)]
    there, back = (TO_LAST, TO_FIRST) if layout == "NCDHW" else (TO_FIRST, TO_LAST)
    array = in_layout(array, other)  # C-contiguous in the other one
    view = array.transpose(back)
    expected = result(array, layout=other)
    actual = result(view, layout=layout)
    assert actual.transpose(there).flags.c_contiguous
    assert bits(actual.transpose(there)) == bits(expected)
    np.testing.assert_allclose(result(np.ascontiguousarray(view), layout=layout), actual, rtol=0, atol=1e-13)
    for out in (np.full(actual.shape, np.nan), np.full_like(expected, np.nan).transpose(back)):
        assert result(view, layout=layout, out=out) is out
        assert bits(np.ascontiguousarray(out)) == bits(np.ascontiguousarray(actual))
    strided = np.repeat(view, 2, axis=3)[:, :, :, ::2]
    np.testing.assert_allclose(result(strided, layout=layout), actual, rtol=0, atol=1e-13)


def test_forms_of_boxes():
    rng = np.random.default_rng(0)
    input, boxes = rng.standard_normal(SHAPE), some_boxes(rng, 20)
    boxes = boxes[np.argsort(boxes[:, 0], kind="stable")]
    expected = roi_align_3d(input, boxes, 3, 0.5)
    by_image = [boxes[boxes[:, 0] == i, 1:] for i in range(2)]
    index = boxes[:, 0].astype(np.int64)
    assert bits(roi_align_3d(input, by_image, 3, (0.5, 0.5, 0.5))) == bits(expected)
    assert bits(roi_align_3d(input, boxes[:, 1:], (3, 3, 3), 0.5, batch_indices=index)) == bits(expected)
    pool = RoIAlign3D(3, 0.5)
    assert bits(pool(input, boxes)) == bits(expected)
    gradient = roi_align_3d_backward(expected, by_image, SHAPE, 0.5)
    assert bits(pool.backward(expected, boxes, SHAPE)) == bits(gradient)
    assert eval(repr(pool), {"RoIAlign3D": RoIAlign3D}).__dict__ == pool.__dict__


def test_nothing_to_pool():
    for layout, shape in ((LAYOUTS[0], SHAPE), (LAYOUTS[1], (2, 9, 13, 17, 11))):
        output = roi_align_3d(np.zeros(shape), np.empty((0, 7)), (2, 3, 4), layout=layout)
        assert output.shape == ((0, 11, 2, 3, 4) if layout == "NCDHW" else (0, 2, 3, 4, 11))
        assert not roi_align_3d_backward(output, np.empty((0, 7)), shape, layout=layout).any()
    assert roi_align_3d(np.zeros((1, 2, 0, 3, 3)), [np.empty((0, 6))], 2).shape == (0, 2, 2, 2, 2)
    assert roi_align_3d(np.zeros((1, 0, 3, 3, 3)), np.zeros((4, 7)), 2).shape == (4, 0, 2, 2, 2)


INPUT, BOXES = np.zeros(SHAPE, np.float32), np.zeros((3, 7), np.float32)
CONTIGUOUS = np.zeros((3, 11, 2, 2, 2), np.float32)


def moved(*row):
    return (np.zeros((3, 7)) + row).astype(np.float32)


@pytest.mark.promise("refusals", "roi_align_3d")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input": INPUT[0]}, ValueError, r"input must have 5 axes, got shape \(11, 9, 13, 17\)"),
        ({"input": INPUT.astype(int)}, TypeError, "input must have dtype .* got int64"),
        ({"boxes": BOXES[:, :5]}, ValueError, r"boxes must have shape \(K, 7\), got \(3, 5\)"),
        ({"boxes": BOXES[:, :6]}, ValueError, r"got \(3, 6\); \(K, 6\) needs batch_indices"),
        ({"boxes": [BOXES[:, 1:5]] * 2}, ValueError, r"boxes\[0\] must have shape \(L, 6\), got \(3, 4\)"),
        (
            {"boxes": [BOXES[:, 1:]]},
            ValueError,
            r"2 for this input, got 1; rows of \(batch_index, x1, y1, z1, ",
        ),
        (
            {"boxes": moved(2, 0, 0, 0, 0, 0, 0)},
            ValueError,
            r"boxes\[0\] has batch_index 2, but input has 2",
        ),
        (
            {"boxes": moved(0, 0, 0, np.nan, 0, 0, 0)},
            ValueError,
            r"finite, got \(x1, y1, z1, x2, y2, z2\) =",
        ),
        ({"boxes": moved(0, 0, 0, 0, 0, 0, np.inf)}, ValueError, r"boxes\[0\] must be finite"),
        (
            {"boxes": moved(0, 0, 0, -3e38, 0, 0, 3e38)},
            ValueError,
            r"not finite on the feature map: \(x1, y1, z1, .* spatial_scale=1.0 exceeds what float32",
        ),
        ({"boxes": BOXES.tolist(), "batch_indices": [0, 0, 0]}, ValueError, r"\(K, 6\), got \(3, 7\)"),
        ({"output_size": (2, 2)}, ValueError, r"an int or \(depth, height, width\), got \(2, 2\)"),
        ({"output_size": (2, 0, 2)}, ValueError, r"at least 1 on every axis, got \(2, 0, 2\)"),
        ({"output_size": "222"}, TypeError, "output_size must be a whole number, got "),
        ({"spatial_scale": (1.0, 1.0)}, ValueError, r"a number or three, \(z, y, x\), got "),
        ({"spatial_scale": (1.0, 0.0, 1.0)}, ValueError, r"spatial_scale\[1\] must be greater than 0"),
        ({"layout": "NCHW"}, ValueError, "layout must be one of 'NCDHW', 'NDHWC', got 'NCHW'"),
        (
            {"input": INPUT[:, :, :0]},
            ValueError,
            "pixels to pool 3 boxes from, got depth 0, height 13 and width 17",
        ),
        (
            {"output_size": (2**15, 2**15, 1)},
            ValueError,
            "may be at most 134217727, got depth 9 and height 13",
        ),
        ({"out": CONTIGUOUS[:, :, :, 0]}, ValueError, r"out must have shape \(3, 11, 2, 2, 2\), got"),
        ({"out": CONTIGUOUS.astype("d")}, TypeError, "out must have dtype float32, got float64"),
        ({"out": CONTIGUOUS.transpose(0, 1, 3, 2, 4)}, ValueError, "out must be C-contiguous, got strides"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1, got 0"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        roi_align_3d(**{"input": INPUT, "boxes": BOXES, "output_size": 2} | change)


@pytest.mark.promise("refusals", "roi_align_3d")
def test_out_that_shares_memory():
    memory = np.zeros(9 * 13 * 17 * 2 * 11, np.float32)
    boxes = np.lib.stride_tricks.as_strided(memory, (3, 7), (28, 4))
    out = memory[: CONTIGUOUS.size].reshape(CONTIGUOUS.shape)
    for change in ({"input": memory.reshape(SHAPE)}, {"boxes": boxes}):
        with pytest.raises(ValueError, match="out must not share memory with an input"):
            roi_align_3d(**{"input": INPUT, "boxes": BOXES, "output_size": 2, "out": out} | change)
    with pytest.raises(ValueError, match="out must not share memory with an input"):
        roi_align_3d_backward(out, BOXES, SHAPE, out=memory.reshape(SHAPE))


@pytest.mark.promise("refusals", "roi_align_3d")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grad_output": CONTIGUOUS[0]}, ValueError, "grad_output must have 5 axes"),
        ({"grad_output": CONTIGUOUS.astype(np.uint8)}, TypeError, "grad_output must have dtype .* got uint8"),
        ({"input_shape": SHAPE[1:]}, ValueError, "input_shape must be 5 whole numbers, each 0 or more, got"),
        ({"input_shape": 5}, TypeError, "input_shape must be 5 whole numbers, got 5"),
        (
            {"boxes": BOXES[:2]},
            ValueError,
            r"each of the 2 boxes: grad_output, as \(K, C, PD, PH, PW\), is \(3, 11",
        ),
        (
            {"input_shape": (2, 5, 9, 13, 17)},
            ValueError,
            r"channels as the input: .* as \(N, C, D, H, W\), \(2, 5, ",
        ),
        ({"grad_output": CONTIGUOUS[:, :, :0]}, ValueError, "grad_output must have bins"),
        ({"out": np.zeros(SHAPE[1:])}, TypeError, "out must have dtype float32, got float64"),
    ],
)
def test_errors_of_the_gradient(change, error, message):
    given = {"grad_output": CONTIGUOUS, "boxes": BOXES, "input_shape": SHAPE}
    with pytest.raises(error, match=message):
        roi_align_3d_backward(**given | change)

"""A value that is not finite reaches the bins that sample it and nothing else; nor does what lies outside."""

import numpy as np
import pytest
from narrow import BYTES, NARROW, dtype_of, result_of
from reference import neighbours, random_boxes

from cyroialign import roi_align, roi_align_backward

NOT_FINITE = (np.nan, np.inf, -np.inf)
CASES = {  # name -> (shape, output_size, the arguments after it)
    "wide": ((2, 3, 6, 11), (3, 2), (1.0, 2, True)),
    "narrow": ((1, 9, 7, 5), (2, 9), (1.0, -1, False)),
    "a vector and one": ((1, 1, 5, 9), (9, 3), (1.0, 1, True)),
    "adaptive": ((1, 5, 9, 17), (2, 3), (0.5, 0, True)),
    "one row": ((2, 17, 1, 8), (1, 4), (1.0, 3, False)),
    "one column": ((1, 4, 8, 1), (4, 1), (1.0, 2, True)),
}
VARIANTS = [(name, layout) for name in CASES for layout in ("NCHW", "NHWC")]


def some_call(name, dtype):
    shape, output_size, arguments = CASES[name]
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 6, shape, arguments[0])
    input = rng.standard_normal(shape).astype(dtype)
    return input, boxes, rng.standard_normal((6, shape[1], *output_size)).astype(dtype)


def connections(name, boxes):
    """(pixel, bin, weight) of all the neighbours of all samples; pixel is (n, y, x) and bin (k, i, j)."""
    shape, output_size, arguments = CASES[name]
    for k, box in enumerate(boxes):
        for i, j, y, x, weight in neighbours(box, shape[2:], output_size, *arguments, dtype=np.float32):
            yield (int(box[0]), y, x), (k, i, j), weight


def call_in_layout(function, array, layout, *arguments):
    """The function, of arrays whose channels are at axis 1 whatever the layout."""
    if layout == "NCHW":
        return function(array, *arguments, layout=layout)
    array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    return function(array, *arguments, layout=layout).transpose(0, 3, 1, 2)


def check(actual, clean, channel, must, may):
    """All that must change has, and nothing that may not: neighbours of weight 0 may or may not."""
    not_finite = ~np.isfinite(actual)
    assert set(zip(*np.nonzero(not_finite[:, channel]), strict=True)) >= must
    for place in may:
        actual[place[0], channel, *place[1:]] = clean[place[0], channel, *place[1:]]
    assert actual.tobytes() == clean.tobytes()


@pytest.mark.parametrize(("name", "layout"), VARIANTS)
def test_forward(name, layout):
    input, boxes, _ = some_call(name, np.float32)
    _, output_size, arguments = CASES[name]
    must, may = {}, {}
    for pixel, of_bin, weight in connections(name, boxes):
        may.setdefault(pixel, set()).add(of_bin)
        if weight > 0:
            must.setdefault(pixel, set()).add(of_bin)
    clean = call_in_layout(roi_align, input, layout, boxes, output_size, *arguments).copy()
    images, channels, height, width = input.shape
    for number, pixel in enumerate(np.ndindex(images, height, width)):
        channel = number % channels
        spoiled = input.copy()
        spoiled[pixel[0], channel, *pixel[1:]] = NOT_FINITE[number % 3]
        output = call_in_layout(roi_align, spoiled, layout, boxes, output_size, *arguments).copy()
        check(output, clean, channel, must.get(pixel, set()), may.get(pixel, set()))


@pytest.mark.parametrize(("name", "layout"), VARIANTS)
def test_backward(name, layout):
    _, boxes, grad_output = some_call(name, np.float32)
    shape, output_size, arguments = CASES[name]
    must, may = {}, {}
    for pixel, of_bin, weight in connections(name, boxes):
        may.setdefault(of_bin, set()).add(pixel)
        if weight > 0:
            must.setdefault(of_bin, set()).add(pixel)
    input_shape = shape if layout == "NCHW" else (shape[0], *shape[2:], shape[1])
    clean = call_in_layout(roi_align_backward, grad_output, layout, boxes, input_shape, *arguments).copy()
    for number, of_bin in enumerate(np.ndindex(len(boxes), *output_size)):
        channel = number % shape[1]
        spoiled = grad_output.copy()
        spoiled[of_bin[0], channel, *of_bin[1:]] = NOT_FINITE[number % 3]
        gradient = call_in_layout(roi_align_backward, spoiled, layout, boxes, input_shape, *arguments).copy()
        check(gradient, clean, channel, must.get(of_bin, set()), may.get(of_bin, set()))


def amid(array, filling):
    """A contiguous copy of an array in the middle of a larger buffer, and that buffer."""
    margin = 100
    buffer = np.full(array.size + 2 * margin, filling, array.dtype)
    view = buffer[margin:-margin].reshape(array.shape)
    view[...] = array
    return view, buffer


@pytest.mark.parametrize(("name", "layout"), VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", *NARROW])
def test_surroundings_are_neither_used_nor_written(name, layout, dtype):
    input, boxes, grad_output = some_call(name, np.float32)
    input = (50 * abs(input)).astype(dtype_of(dtype))
    grad_output = grad_output.astype(result_of(input.dtype))
    _, output_size, arguments = CASES[name]
    if layout == "NHWC":
        input, grad_output = (np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in (input, grad_output))
    spoiled_boxes = amid(boxes, np.nan)[0]
    for function, array, then, out in [
        (roi_align, input, output_size, np.empty_like(grad_output)),
        (roi_align_backward, grad_output, input.shape, np.empty(input.shape, grad_output.dtype)),
    ]:
        expected = function(array, boxes, then, *arguments, layout=layout)
        out, buffer = amid(out, 123)
        around = np.iinfo(array.dtype).max if array.dtype in BYTES else np.nan
        function(amid(array, around)[0], spoiled_boxes, then, *arguments, layout=layout, out=out)
        assert out.tobytes() == expected.tobytes()
        assert (buffer[:100] == 123).all()
        assert (buffer[-100:] == 123).all()

"""No undefined result: empty arrays, odd boxes and odd memory have the value that the contract gives them."""

import numpy as np
import pytest
import reference
from narrow import NARROW, dtype_of, result_of

from cyroialign import roi_align, roi_align_backward

LAYOUTS = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}  # where its axes come from


def in_layout(shape, layout):
    return tuple(shape[axis] for axis in LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", *NARROW])
@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((2, 3, 8, 9), 0),
        ((0, 3, 8, 9), 0),
        ((2, 0, 8, 9), 4),
        ((2, 0, 8, 9), 0),
        ((2, 3, 0, 9), 0),
        ((2, 3, 8, 0), 0),
        ((0, 0, 0, 0), 0),
    ],
)
def test_empty(shape, count, dtype, layout):
    boxes, size = np.zeros((count, 5)), (count, shape[1], 7, 5)
    input = np.ones(in_layout(shape, layout), dtype_of(dtype))
    grad_output = np.ones(in_layout(size, layout), result_of(input.dtype))
    output = roi_align(input, boxes, (7, 5), layout=layout)
    assert (output.shape, output.dtype) == (grad_output.shape, grad_output.dtype)
    grad_input = roi_align_backward(grad_output, boxes, input.shape, layout=layout)
    assert (grad_input.shape, grad_input.dtype) == (input.shape, grad_output.dtype)
    assert not grad_input.any()
    # A gradient that is given to be filled is zeroed, even where nothing is added to it.
    out = np.ones_like(grad_input)
    assert roi_align_backward(grad_output, boxes, input.shape, layout=layout, out=out) is out
    assert not out.any()
    assert roi_align(input, boxes, (7, 5), layout=layout, out=output) is output


def test_no_images_and_no_lists_of_boxes():
    assert roi_align(np.ones((0, 3, 8, 9)), [], 2).shape == (0, 3, 2, 2)


def test_images_without_boxes():
    boxes = [np.zeros((0, 4)), np.array([[1.0, 1, 4, 4]]), np.zeros((0, 4))]
    input = np.random.default_rng(0).random((3, 2, 8, 9))
    output = roi_align(input, boxes, 2)
    np.testing.assert_array_equal(output, roi_align(input[1:2], boxes[1:2], 2))
    gradient = roi_align_backward(output, boxes, input.shape)
    assert gradient[1].any()
    assert not gradient[::2].any()


ODD_BOXES = {  # x1, y1, x2, y2 on a map of 9 x 8 pixels
    "inverted": (7, 6, 2, 1),
    "inverted in x": (7, 1, 2, 6),
    "zero-size": (3, 4, 3, 4),
    "zero width": (3, 1, 3, 6),
    "nearly zero-size": (3, 4, 3 + 1e-6, 4 + 1e-6),
    "above": (2, -30, 6, -20),
    "right": (30, 2, 40, 6),
    "on the rim": (-1, -1, -1, -1),
    "on the far rim": (9, 8, 9, 8),
    "just outside": (-6, -6, -1.001, -1.001),
    "around": (-20, -20, 30, 30),
}


@pytest.mark.parametrize("name", ODD_BOXES)
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 1, 2])
def test_odd_boxes(name, aligned, sampling_ratio):
    rng = np.random.default_rng(0)
    input, boxes = rng.standard_normal((1, 2, 8, 9)), np.array([[0, *ODD_BOXES[name]]])
    settings = (1.0, sampling_ratio, aligned)
    grad_output = rng.standard_normal((1, 2, 3, 2))
    expected = reference.roi_align(input, boxes, (3, 2), *settings)
    np.testing.assert_allclose(roi_align(input, boxes, (3, 2), *settings), expected, rtol=0, atol=1e-14)
    expected = reference.roi_align_backward(grad_output, boxes, input.shape, *settings)
    actual = roi_align_backward(grad_output, boxes, input.shape, *settings)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["inverted", "inverted in x", "zero-size", "zero width"])
def test_bins_without_samples_are_zero(name):
    boxes = np.array([[0, *ODD_BOXES[name]]])
    assert not roi_align(np.ones((1, 2, 8, 9)), boxes, 3, aligned=True).any()
    assert not roi_align_backward(np.ones((1, 2, 3, 3)), boxes, (1, 2, 8, 9), aligned=True).any()


def unaligned(array):
    buffer = bytearray(array.nbytes + 1)
    view = np.frombuffer(buffer, array.dtype, array.size, offset=1).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned or array.itemsize == 1
    return view


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array):
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 99, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


ODD_MEMORY = {
    "read-only": read_only,
    "strided": strided,
    "reversed": lambda array: array[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned": unaligned,
    "unaligned and byte-swapped": lambda array: unaligned(array.astype(array.dtype.newbyteorder())),
    "subclass": lambda array: array.view(np.recarray),
}


@pytest.mark.parametrize("name", ODD_MEMORY)
@pytest.mark.parametrize("dtype", ["float32", "float64", *NARROW])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_odd_memory(name, layout, dtype):
    """Of maps and boxes; bytes have no gradients, and float32 boxes."""
    odd, dtype = ODD_MEMORY[name], dtype_of(dtype)
    result = result_of(dtype)
    rng = np.random.default_rng(0)
    shape = in_layout((2, 5, 8, 9), layout)
    input, grad_output = (99 * rng.random(s) for s in (shape, in_layout((12, 5, 3, 2), layout)))
    input, grad_output = input.astype(dtype), grad_output.astype(result)
    boxes = reference.random_boxes(rng, 12, (2, 5, 8, 9)).astype(result)
    expected = roi_align(input, boxes, (3, 2), layout=layout)
    output = roi_align(odd(input), odd(boxes), (3, 2), layout=layout)
    assert (type(output), output.dtype) == (np.ndarray, result)
    assert output.tobytes() == expected.tobytes()
    expected = roi_align_backward(grad_output, boxes, shape, layout=layout)
    grad_input = roi_align_backward(odd(grad_output), odd(boxes), shape, layout=layout)
    assert (type(grad_input), grad_input.dtype) == (np.ndarray, result)
    assert grad_input.tobytes() == expected.tobytes()
    corners, images = boxes[:, 1:], boxes[:, 0].astype(np.int64)
    output = roi_align(input, odd(corners), (3, 2), batch_indices=odd(images), layout=layout)
    assert output.tobytes() == roi_align(input, boxes, (3, 2), layout=layout).tobytes()

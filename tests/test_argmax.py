"""The argmax of roi_pool: which pixels won, and the gradient that goes to them without a search."""

import numpy as np
import pytest
from reference import random_boxes
from reference_pools import max_ranges

import cyroialign

SHAPE, BINS, SCALE = (2, 21, 17, 23), (5, 3), 0.25
LAYOUTS = ("NCHW", "NHWC")


def textbook(input, boxes):
    """Of each bin the first of the largest pixels, row by row; -1 if none is larger than -inf."""
    argmax = np.full((len(boxes), input.shape[1], *BINS), -1, np.int32)
    for k, box in enumerate(boxes):
        for i, j, top, bottom, left, right in max_ranges(box, input.shape[2:], BINS, SCALE, input.dtype):
            for c, plane in enumerate(input[int(box[0])]):
                best = -np.inf
                for y in range(top, bottom):
                    for x in range(left, right):
                        if plane[y, x] > best:
                            best, argmax[k, c, i, j] = plane[y, x], y * input.shape[3] + x
    return argmax


def some_call(dtype=np.float64, count=30):
    """Maps with many equals, NaN and -inf, and boxes of which some lie outside."""
    rng = np.random.default_rng(5)
    input = rng.integers(-3, 3, SHAPE).astype(dtype)
    input[rng.random(SHAPE) < 0.1] = np.nan
    input[0, :3, :9] = -np.inf
    input[1, 3] = np.nan
    boxes = random_boxes(rng, count, SHAPE, SCALE).astype(dtype)
    boxes[-1] = [1, 900, 900, 950, 950]
    grad_output = rng.standard_normal((count, SHAPE[1], *BINS)).astype(dtype)
    return input, boxes, grad_output


def in_layout(array, layout):
    return array if layout == "NCHW" else np.ascontiguousarray(array.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_argmax_and_its_gradient(threads, dtype, layout):
    input, boxes, grad_output = some_call(dtype)
    expected = textbook(input, boxes)
    assert (expected == -1).any()
    assert (expected[-1] == -1).all()
    input, grad_output = in_layout(input, layout), in_layout(grad_output, layout)
    settings = {"spatial_scale": SCALE, "layout": layout, "num_threads": threads}
    output, argmax = cyroialign.roi_pool(input, boxes, BINS, **settings, return_argmax=True)
    assert argmax.dtype == np.int32
    np.testing.assert_array_equal(argmax, in_layout(expected, layout))
    assert output.tobytes() == cyroialign.roi_pool(input, boxes, BINS, **settings).tobytes()
    found_again = cyroialign.roi_pool_backward(grad_output, input, boxes, BINS, **settings)
    gradient = cyroialign.roi_pool_backward(
        grad_output, np.zeros_like(input), boxes, BINS, **settings, argmax=argmax
    )
    assert gradient.any()
    assert gradient.tobytes() == found_again.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_narrow_maps_in_the_other_memory_order(dtype):
    input, boxes, grad_output = some_call(np.float32)
    input = np.ascontiguousarray(np.nan_to_num(abs(input), posinf=7).astype(dtype).transpose(0, 2, 3, 1))
    input = input.transpose(0, 3, 1, 2)
    output, argmax = cyroialign.roi_pool(input, boxes, BINS, SCALE, return_argmax=True)
    assert argmax.strides == tuple(4 * stride // output.itemsize for stride in output.strides)
    np.testing.assert_array_equal(argmax, textbook(input.astype(np.float32), boxes))
    grad_output = grad_output.astype(output.dtype)
    found_again = cyroialign.roi_pool_backward(grad_output, input, boxes, BINS, SCALE)
    for given in (argmax, np.ascontiguousarray(argmax), argmax.astype(">i4")):
        gradient = cyroialign.roi_pool_backward(grad_output, input, boxes, BINS, SCALE, argmax=given)
        assert gradient.tobytes("A") == found_again.tobytes("A")


def test_gradient_of_many_boxes_on_a_tall_map():
    """Rows of the gradient that several pieces of the work share out among them."""
    rng = np.random.default_rng(0)
    shape = (1, 3, 200, 64)
    input = rng.standard_normal(shape).astype(np.float32)
    boxes = random_boxes(rng, 300, shape).astype(np.float32)
    grad_output = rng.standard_normal((300, 3, 7, 7)).astype(np.float32)
    _, argmax = cyroialign.roi_pool(input, boxes, 7, return_argmax=True)
    expected = cyroialign.roi_pool_backward(grad_output, input, boxes, 7, num_threads=1)
    for threads in (1, 2, 3, 4):
        gradient = cyroialign.roi_pool_backward(
            grad_output, input, boxes, 7, argmax=argmax, num_threads=threads
        )
        assert gradient.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pixel_outside_the_rows_of_its_box_gets_nothing(layout):
    input = in_layout(np.zeros((1, 1, 4, 4)), layout)
    settings = {"layout": layout, "argmax": np.full((1, 1, 1, 1), 13, np.int32)}
    boxes = np.array([[0.0, 0, 0, 3, 1]])
    gradient = cyroialign.roi_pool_backward(np.ones((1, 1, 1, 1)), input, boxes, 1, **settings)
    assert not gradient.any()


def test_class():
    input, boxes, grad_output = some_call()
    pool = cyroialign.RoIPool(BINS, SCALE)
    output, argmax = pool(input, boxes, return_argmax=True)
    np.testing.assert_array_equal(output, pool(input, boxes))
    gradient = pool.backward(grad_output, np.zeros_like(input), boxes, argmax=argmax)
    assert gradient.any()
    np.testing.assert_array_equal(gradient, pool.backward(grad_output, input, boxes))


def test_no_boxes():
    input, boxes, grad_output = some_call()
    output, argmax = cyroialign.roi_pool(input, boxes[:0], BINS, return_argmax=True)
    assert argmax.shape == output.shape == (0, SHAPE[1], *BINS)
    gradient = cyroialign.roi_pool_backward(grad_output[:0], input, boxes[:0], BINS, argmax=argmax)
    assert not gradient.any()


@pytest.mark.parametrize("bad", [-2, SHAPE[2] * SHAPE[3], 2**31 - 1, -(2**31)])
def test_pixels_that_do_not_exist(bad):
    input, boxes, grad_output = some_call()
    _, argmax = cyroialign.roi_pool(input, boxes, BINS, SCALE, return_argmax=True)
    argmax[3, 2, 1, 0] = argmax[4, 0, 0, 0] = bad
    out = np.full(SHAPE, 9.0)
    with pytest.raises(ValueError, match=rf"plane of 17 \* 23, got {bad} at \[3, 2, 1, 0\]"):
        cyroialign.roi_pool_backward(grad_output, input, boxes, BINS, SCALE, argmax=argmax, out=out)
    assert (out == 9).all()


def test_wrong_arguments():
    input, boxes, grad_output = some_call()
    argmax = np.zeros(grad_output.shape, np.int32)
    for wrong, error, message in [
        (argmax.astype(np.int64), TypeError, "argmax must be a NumPy array of int32.*got int64"),
        (argmax.tolist(), TypeError, "argmax must be a NumPy array of int32.*got list"),
        (argmax[1:], ValueError, "argmax must have the shape of grad_output"),
    ]:
        with pytest.raises(error, match=message):
            cyroialign.roi_pool_backward(grad_output, input, boxes, BINS, SCALE, argmax=wrong)
    with pytest.raises(TypeError, match="return_argmax must be True or False"):
        cyroialign.roi_pool(input, boxes, BINS, return_argmax="yes")


def test_planes_of_more_pixels_than_an_int32_counts():
    input = np.broadcast_to(np.float32(0), (1, 1, 2**16, 2**15))
    with pytest.raises(ValueError, match="at most 2147483647 pixels a channel"):
        cyroialign.roi_pool_backward(
            np.zeros((1, 1, 1, 1), np.float32),
            input,
            np.array([[0.0, 0, 0, 1, 1]]),
            1,
            argmax=np.zeros((1, 1, 1, 1), np.int32),
        )

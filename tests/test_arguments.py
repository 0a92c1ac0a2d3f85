"""Scalars of NumPy, classes, and an `out` beside an input: other ways to say the same call."""

import numpy as np
import pytest
from reference import random_boxes

from cyroialign import RoIAlign, roi_align, roi_align_backward

SHAPE, COUNT, BINS = (3, 5, 12, 17), 20, (4, 3)
RNG = np.random.default_rng(0)
INPUT = RNG.standard_normal(SHAPE).astype(np.float32)
GRAD_OUTPUT = RNG.standard_normal((COUNT, SHAPE[1], *BINS)).astype(np.float32)
BOXES = random_boxes(RNG, COUNT, SHAPE)
BOXES = BOXES[BOXES[:, 0].argsort()].round()  # by image, as lists have it, and whole, to suit any dtype


def of_images(boxes):
    return [boxes[boxes[:, 0] == image, 1:] for image in range(SHAPE[0])]


def test_scalars_of_numpy():
    output = roi_align(INPUT, BOXES, np.array(BINS), np.float32(0.5), np.int8(2), np.bool_(True))
    assert output.tobytes() == roi_align(INPUT, BOXES, BINS, 0.5, 2, True).tobytes()
    assert roi_align(INPUT, BOXES, np.uint8(4)).tobytes() == roi_align(INPUT, BOXES, (4, 4)).tobytes()


def with_memory(array, layout, channels_last):
    """An (N, C, H, W) array with its axes in the order of layout and its memory in either order."""
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    view = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    return view.transpose(0, 2, 3, 1) if layout == "NHWC" else view


@pytest.mark.parametrize(("layout", "channels_last"), [("NCHW", False), ("NHWC", True)])
def test_out_in_neither_order(layout, channels_last):
    out = with_memory(np.zeros(GRAD_OUTPUT.shape, np.float32), layout, not channels_last)
    with pytest.raises(ValueError, match="out must be C-contiguous"):
        roi_align(with_memory(INPUT, layout, channels_last), BOXES, BINS, layout=layout, out=out)


def test_out_beside_an_input():
    """Neighbours in one buffer share no memory."""
    buffer = np.zeros(GRAD_OUTPUT.size + INPUT.size, np.float32)
    input, out = buffer[: INPUT.size].reshape(SHAPE), buffer[INPUT.size :].reshape(GRAD_OUTPUT.shape)
    input[...] = INPUT
    roi_align(input, BOXES, BINS, out=out)
    assert out.tobytes() == roi_align(INPUT, BOXES, BINS).tobytes()
    assert (input == INPUT).all()


def test_class():
    pool = RoIAlign(BINS, 0.5, 2, True, layout="NCHW", num_threads=2)
    assert pool(INPUT, BOXES).tobytes() == roi_align(INPUT, BOXES, BINS, 0.5, 2, True).tobytes()
    gradient = pool.backward(GRAD_OUTPUT, BOXES, SHAPE, INPUT)
    assert gradient.tobytes() == roi_align_backward(GRAD_OUTPUT, BOXES, SHAPE, 0.5, 2, True).tobytes()


def test_class_in_the_other_layout():
    input = np.ascontiguousarray(INPUT.transpose(0, 2, 3, 1))
    pool = RoIAlign(BINS, layout="NHWC")
    output = pool(input, of_images(BOXES))
    assert output.tobytes() == roi_align(input, BOXES, BINS, layout="NHWC").tobytes()
    gradient = pool.backward(output, of_images(BOXES), input.shape)
    assert gradient.tobytes() == roi_align_backward(output, BOXES, input.shape, layout="NHWC").tobytes()


def test_repr_of_the_class_makes_it_again():
    pool = RoIAlign((7, 5), 1 / 16, sampling_ratio=2, aligned=True, num_threads=3)
    assert repr(pool) == (
        "RoIAlign(output_size=(7, 5), spatial_scale=0.0625, sampling_ratio=2, aligned=True, "
        "mode='avg', layout='NCHW', num_threads=3)"
    )
    assert vars(eval(repr(pool))) == vars(pool)

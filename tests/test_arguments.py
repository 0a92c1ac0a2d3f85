"""Every way to say the same call gives the same bits: box formats, `out`, memory orders."""

import tracemalloc

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
SINGLE, DOUBLE = ("float16", "int8", "int16"), ("float64", "longdouble", "int32", "int64")


def of_images(boxes):
    return [boxes[boxes[:, 0] == image, 1:] for image in range(SHAPE[0])]


FORMATS = {
    "array": lambda boxes: {"boxes": boxes},
    "list": lambda boxes: {"boxes": of_images(boxes)},
    "tuple": lambda boxes: {"boxes": tuple(of_images(boxes))},
    "nested lists": lambda boxes: {"boxes": [np.asarray(b).tolist() for b in of_images(boxes)]},
    "batch_indices": lambda boxes: {"boxes": boxes[:, 1:], "batch_indices": boxes[:, 0].astype(np.int64)},
    "list of batch_indices": lambda boxes: {
        "boxes": boxes[:, 1:],
        "batch_indices": boxes[:, 0].astype(int).tolist(),
    },
    "unsigned batch_indices": lambda boxes: {
        "boxes": boxes[:, 1:],
        "batch_indices": boxes[:, 0].astype(np.uint8),
    },
}


@pytest.mark.parametrize("name", FORMATS)
def test_box_formats(name):
    boxes = BOXES.astype(np.float64)  # as nested lists become
    arguments = FORMATS[name](boxes)
    output = roi_align(INPUT, output_size=BINS, **arguments)
    assert output.tobytes() == roi_align(INPUT, boxes, BINS).tobytes()
    gradient = roi_align_backward(GRAD_OUTPUT, input_shape=SHAPE, **arguments)
    assert gradient.tobytes() == roi_align_backward(GRAD_OUTPUT, boxes, SHAPE).tobytes()


@pytest.mark.parametrize("name", ["array", "list", "batch_indices"])
@pytest.mark.parametrize("dtype", [*SINGLE, *DOUBLE])
def test_box_dtypes(dtype, name):
    """Narrow types are as float32, wide ones as float64: the scale makes the two differ."""
    single, double = (roi_align(INPUT, BOXES.astype(t), BINS, 0.37).tobytes() for t in ("f4", "f8"))
    assert single != double
    output = roi_align(INPUT, output_size=BINS, spatial_scale=0.37, **FORMATS[name](BOXES.astype(dtype)))
    assert output.tobytes() == (single if dtype in SINGLE else double)


def test_mixed_box_dtypes_are_promoted():
    one, two, three = of_images(BOXES)
    mixed = [one.astype(np.float16), two.astype(np.float64), three]
    expected = roi_align(INPUT, BOXES.astype(np.float64), BINS, 0.37)
    assert roi_align(INPUT, mixed, BINS, 0.37).tobytes() == expected.tobytes()


def test_scalars_of_numpy():
    output = roi_align(INPUT, BOXES, np.array(BINS), np.float32(0.5), np.int8(2), np.bool_(True))
    assert output.tobytes() == roi_align(INPUT, BOXES, BINS, 0.5, 2, True).tobytes()
    assert roi_align(INPUT, BOXES, np.uint8(4)).tobytes() == roi_align(INPUT, BOXES, (4, 4)).tobytes()


def with_memory(array, layout, channels_last):
    """An (N, C, H, W) array with its axes in the order of layout and its memory in either order."""
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    view = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    return view.transpose(0, 2, 3, 1) if layout == "NHWC" else view


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_memory_order_is_kept(layout):
    """A transposed view gives what a copy of it gives, and its result has the same memory order."""
    to_other = (0, 3, 1, 2) if layout == "NHWC" else (0, 2, 3, 1)
    input, view = (with_memory(INPUT, layout, last) for last in (layout == "NHWC", layout == "NCHW"))
    expected, output = (roi_align(x, BOXES, BINS, layout=layout) for x in (input, view))
    assert expected.flags.c_contiguous
    assert output.transpose(to_other).flags.c_contiguous
    assert output.tobytes() == expected.tobytes()
    gradient = roi_align_backward(output, BOXES, input.shape, layout=layout)
    assert gradient.transpose(to_other).flags.c_contiguous
    np.testing.assert_allclose(
        gradient, roi_align_backward(expected, BOXES, input.shape, layout=layout), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_either_memory_order_is_read_in_place(channels_last, layout):
    input = with_memory(np.ones((1, 8, 200, 200), np.float32), layout, channels_last)
    tracemalloc.start()  # NumPy tells it of its arrays
    roi_align(input, BOXES[:1], BINS, layout=layout)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < input.nbytes / 10


@pytest.mark.parametrize(
    ("layout", "channels_last", "out_channels_last"),
    [
        ("NCHW", False, False),
        ("NCHW", True, True),
        ("NCHW", True, False),
        ("NHWC", True, True),
        ("NHWC", False, False),
        ("NHWC", False, True),
    ],
)
def test_out_is_filled_and_returned(layout, channels_last, out_channels_last):
    """`out` is C-contiguous, or has the memory order of the result."""
    forward = (with_memory(INPUT, layout, channels_last), BOXES, BINS)
    expected = roi_align(*forward, layout=layout)
    out = with_memory(np.full(GRAD_OUTPUT.shape, np.nan, np.float32), layout, out_channels_last)
    assert roi_align(*forward, layout=layout, out=out) is out
    assert out.tobytes() == expected.tobytes()
    backward = (with_memory(GRAD_OUTPUT, layout, channels_last), BOXES, forward[0].shape)
    expected = roi_align_backward(*backward, layout=layout)
    out = with_memory(np.full(SHAPE, np.nan, np.float32), layout, out_channels_last)
    assert roi_align_backward(*backward, layout=layout, out=out) is out
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("layout", "channels_last"), [("NCHW", False), ("NHWC", True)])
def test_out_in_neither_order(layout, channels_last):
    out = with_memory(np.zeros(GRAD_OUTPUT.shape, np.float32), layout, not channels_last)
    with pytest.raises(ValueError, match="out must be C-contiguous"):
        roi_align(with_memory(INPUT, layout, channels_last), BOXES, BINS, layout=layout, out=out)


def test_unaligned_out():
    buffer = np.zeros(GRAD_OUTPUT.nbytes + 1, np.uint8)
    out = buffer[1:].view(np.float32).reshape(GRAD_OUTPUT.shape)
    assert roi_align(INPUT, BOXES, BINS, out=out) is out
    assert out.tobytes() == roi_align(INPUT, BOXES, BINS).tobytes()


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

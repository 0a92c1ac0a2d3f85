"""RoIPool, PSRoIAlign and PSRoIPool: refusals, empty and odd arrays, `out`, classes, the rims of memory."""

import numpy as np
import pytest
from pools import LAYOUTS, NAMES, arguments_of, arrays, backward, forward, in_layout
from reference import random_boxes
from test_guard_pages import guarded
from test_guard_pages import pytestmark as needs_mprotect

import cyroialign

NAN = float("nan")
BOXES = np.array([[0, 1, 1, 5, 5], [1, 2, 2, 6, 6], [1, 0, 0, 3, 3]], np.float32)
SENSITIVE = ("ps_roi_align", "ps_roi_pool")
INPUT, GRADS = np.ones((2, 8, 6, 9), np.float32), np.ones((3, 2, 2, 2), np.float32)


def check(name, direction, arguments, error, parts):
    """Call with arguments that are good but for the given ones."""
    function = getattr(cyroialign, name + direction)
    channels = 8 if name == "roi_pool" else 2
    grads = np.ones((3, channels, 2, 2), np.float32)
    good = {"boxes": BOXES, "output_size": 2, "input": INPUT}
    out = np.full(grads.shape, 7, np.float32)
    if direction:
        good, out = {**good, "grad_output": grads}, np.full(INPUT.shape, 7, np.float32)
        if name != "roi_pool":
            good = {"boxes": BOXES, "grad_output": grads, "input_shape": INPUT.shape}
    with pytest.raises(error) as caught:
        function(**{**good, "out": out, **arguments})
    for part in parts.split("|"):
        assert part in str(caught.value)
    assert (out == 7).all()


@pytest.mark.parametrize("direction", ["", "_backward"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"boxes": None}, TypeError, "boxes must be|NoneType"),
        ({"boxes": BOXES[:, 1:]}, ValueError, "boxes must have shape (K, 5)|got (3, 4)"),
        ({"boxes": [BOXES[:1, 1:]]}, ValueError, "one array an image, 2|got 1"),
        ({"boxes": BOXES[:, 1:], "batch_indices": [0, 2, 1]}, ValueError, "boxes[1] has batch_index 2"),
        ({"boxes": BOXES * [1, 1, NAN, 1, 1]}, ValueError, "boxes[0] must be finite"),
        (
            {"boxes": BOXES * np.float32([1, 1, 1, 5e37, 1]), "spatial_scale": 9.0},
            ValueError,
            "boxes[0]|float32",
        ),
        ({"spatial_scale": 0}, ValueError, "spatial_scale must be greater than 0"),
        ({"layout": "CHWN"}, ValueError, "layout must be one of"),
        ({"layout": 1}, TypeError, "layout must be a str"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1"),
        ({"out": [1.0]}, TypeError, "out must be a NumPy array"),
        ({"out": np.zeros((4, 4, 4, 4), np.float32)}, ValueError, "out must have shape"),
        ({"out": np.zeros((3, 2, 2, 2))}, TypeError, "out must have dtype float32"),
    ],
)
def test_either_direction(name, direction, arguments, error, parts):
    check(name, direction, arguments, error, parts)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"input": INPUT.tolist()}, TypeError, "input must be a NumPy array|list"),
        ({"input": INPUT.astype(np.int64)}, TypeError, "bfloat16, uint8 or int8, got int64"),
        ({"input": INPUT[0]}, ValueError, "input must have 4 axes"),
        ({"input": INPUT[:, :, :0]}, ValueError, "pixels|3 boxes|height 0 and width 9"),
        ({"output_size": 0}, ValueError, "output_size must be at least 1"),
        ({"output_size": 2.0}, TypeError, "output_size must be a whole number"),
    ],
)
def test_forward(name, arguments, error, parts):
    check(name, "", arguments, error, parts)


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize("output_size", [3, (2, 3)])
def test_channels_that_are_no_multiple_of_the_bins(name, output_size):
    check(name, "", {"output_size": output_size}, ValueError, "a multiple of|* 3|got 8")


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        (
            {"grad_output": GRADS[:2]},
            ValueError,
            "grad_output must have one row for each of the 3 boxes|(2, 2, 2, 2)",
        ),
        ({"grad_output": GRADS[:, :1]}, ValueError, "C * PH * PW channels|(3, 1, 2, 2)|(2, 8, 6, 9)"),
        ({"grad_output": GRADS[..., :0]}, ValueError, "grad_output must have bins|(3, 2, 2, 0)"),
        ({"grad_output": GRADS[0]}, ValueError, "grad_output must have 4 axes"),
        ({"input_shape": (2, 8, 6)}, ValueError, "input_shape must be 4 whole numbers"),
        ({"input_shape": (2, 8, 0, 9), "out": None}, ValueError, "pixels|height 0"),
        ({"input_shape": 8}, TypeError, "input_shape must be 4 whole numbers"),
    ],
)
def test_backward_of_the_position_sensitive(name, arguments, error, parts):
    check(name, "_backward", arguments, error, parts)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"grad_output": GRADS}, ValueError, "grad_output must have shape (3, 8, 2, 2)|got (3, 2, 2, 2)"),
        ({"output_size": 3}, ValueError, "grad_output must have shape (3, 8, 3, 3)|output_size"),
        (
            {"grad_output": np.ones((3, 8, 2, 2))},
            TypeError,
            "what is pooled from input, float32|got float64",
        ),
        ({"input": None}, TypeError, "input must be a NumPy array"),
        ({"input": INPUT[:, :, :0], "out": None}, ValueError, "pixels|height 0"),
    ],
)
def test_backward_of_roi_pool(arguments, error, parts):
    check("roi_pool", "_backward", arguments, error, parts)


def test_sampling_ratio():
    check("ps_roi_align", "", {"sampling_ratio": 2.0}, TypeError, "sampling_ratio must be a whole number")
    check(
        "ps_roi_align", "_backward", {"sampling_ratio": 32768}, ValueError, "sampling_ratio must be at most"
    )


@pytest.mark.parametrize("name", NAMES)
def test_out_that_shares_memory(name):
    input, grad_output = arrays(name, (1, 3, 6, 9), np.float32, 3, (2, 2))
    boxes = BOXES * np.float32([0, 1, 1, 1, 1])
    shared = input.reshape(-1)[: grad_output.size].reshape(grad_output.shape)
    with pytest.raises(ValueError, match="share memory"):
        forward(name, input, boxes, (2, 2), (), out=shared)
    if name == "roi_pool":
        with pytest.raises(ValueError, match="share memory"):
            cyroialign.roi_pool_backward(grad_output, input, boxes, (2, 2), out=input)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "count"), [((2, 3, 8, 9), 0), ((0, 3, 8, 9), 0), ((2, 0, 8, 9), 3), ((2, 3, 0, 9), 0)]
)
def test_empty(name, shape, count, layout):
    boxes = BOXES[:count]
    input, grad_output = arrays(name, shape, np.float32, count, (7, 5))
    assert forward(name, input, boxes, (7, 5), (), layout).shape == grad_output.shape
    out = np.ones_like(in_layout(input, layout))
    grad_input = backward(name, grad_output, input, boxes, (7, 5), (), layout, out=out)
    assert grad_input.shape == input.shape
    assert not out.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_odd_memory(name, dtype):
    """Strided, byte-swapped, read-only and transposed arrays, and an `out` in either order."""
    input, grad_output = arrays(name, (2, 3, 8, 9), dtype, 20, (3, 2))
    boxes = random_boxes(np.random.default_rng(0), 20, (2, 3, 8, 9)).astype(np.float64)
    output = forward(name, input, boxes, (3, 2), ())
    gradient = backward(name, grad_output, input, boxes, (3, 2), ())
    for odd in (
        lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        lambda x: x.astype(x.dtype.newbyteorder()),
        np.asfortranarray,
        lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
        lambda x: np.ascontiguousarray(x.transpose(0, *range(2, x.ndim), 1)).transpose(
            0, -1, *range(1, x.ndim - 1)
        ),
    ):
        function, transpose = getattr(cyroialign, name), getattr(cyroialign, f"{name}_backward")
        out = np.empty_like(output)
        assert function(odd(input), odd(boxes), (3, 2), out=out) is out
        assert out.tobytes() == output.tobytes()
        assert function(odd(input), odd(boxes), (3, 2)).tobytes() == output.tobytes()
        given = (odd(input), odd(boxes), (3, 2)) if name == "roi_pool" else (odd(boxes), input.shape)
        assert transpose(odd(grad_output), *given).tobytes() == gradient.tobytes()
        out = np.empty_like(gradient)
        if name == "roi_pool":  # arrays in different orders
            assert transpose(odd(grad_output), input, *given[1:]).tobytes() == gradient.tobytes()
            assert transpose(grad_output, *given, out=out).tobytes() == gradient.tobytes()
        else:
            assert transpose(odd(grad_output), *given, out=out).tobytes() == gradient.tobytes()


def test_channels_last_memory_is_answered_in_kind():
    input = in_layout(INPUT, "NHWC").transpose(0, 3, 1, 2)
    for name in NAMES:
        assert getattr(cyroialign, name)(input, BOXES, 2).transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("name", NAMES)
def test_boxes_in_other_forms(name):
    input, _ = arrays(name, (2, 3, 8, 9), np.float32, 3, (2, 2))
    expected = forward(name, input, BOXES, (2, 2), ())
    per_image = [BOXES[:1, 1:], BOXES[1:, 1:]]
    np.testing.assert_array_equal(forward(name, input, per_image, (2, 2), ()), expected)
    np.testing.assert_array_equal(
        forward(name, input, BOXES[:, 1:], (2, 2), (), batch_indices=[0, 1, 1]), expected
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "class_name"), [(NAMES[0], "RoIPool"), (NAMES[1], "PSRoIAlign"), (NAMES[2], "PSRoIPool")]
)
def test_classes(name, class_name, layout):
    arguments = arguments_of(name, 0.5, 3)
    pool = getattr(cyroialign, class_name)((2, 2), *arguments, layout=layout, num_threads=1)
    input, grad_output = (in_layout(x, layout) for x in arrays(name, (2, 3, 8, 9), np.float32, 3, (2, 2)))
    function, transpose = getattr(cyroialign, name), getattr(cyroialign, f"{name}_backward")
    expected = function(input, BOXES, (2, 2), *arguments, layout=layout)
    np.testing.assert_array_equal(pool(input, BOXES), expected)
    if name == "roi_pool":
        actual = pool.backward(grad_output, input, BOXES)
        expected = transpose(grad_output, input, BOXES, (2, 2), *arguments, layout=layout)
    else:
        actual = pool.backward(grad_output, BOXES, input.shape)
        expected = transpose(grad_output, BOXES, input.shape, *arguments, layout=layout)
    np.testing.assert_array_equal(actual, expected)
    assert repr(pool).startswith(f"{class_name}(output_size=(2, 2), spatial_scale=0.5")
    for wrong in ({"output_size": 0}, {"spatial_scale": 0.0}, {"layout": "HWC"}, {"num_threads": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            type(pool)(**{"output_size": 7, **wrong})


def work(at_end):
    """What the other process does: it dies of the first access beyond an array."""
    rng = np.random.default_rng(0)
    for shape, output_size in [
        ((1, 1, 3, 5), (1, 1)),
        ((2, 3, 7, 9), (3, 2)),
        ((1, 9, 8, 8), (2, 9)),
        ((2, 17, 1, 11), (1, 7)),
        ((1, 33, 12, 1), (5, 1)),
        ((3, 20, 9, 20), (7, 7)),
        ((1, 80, 9, 70), (2, 3)),
    ]:
        boxes = random_boxes(rng, 12, shape).astype(np.float64)
        boxes[0, 1:] = 0, 0, shape[3], shape[2]  # all of the map
        boxes = guarded(boxes, at_end)
        for name, dtype, layout, num_threads in np.ndindex(3, 2, 2, 2):
            name, dtype = NAMES[name], (np.float32, np.float64)[dtype]
            layout, num_threads = list(LAYOUTS)[layout], (1, 3)[num_threads]
            maps, grads = (
                guarded(in_layout(x, layout), at_end) for x in arrays(name, shape, dtype, 12, output_size)
            )
            output, gradient = guarded(grads, at_end), guarded(maps, at_end)
            settings = {"layout": layout, "num_threads": num_threads}
            getattr(cyroialign, name)(maps, boxes, output_size, **settings, out=output)
            given = (maps, boxes, output_size) if name == "roi_pool" else (boxes, maps.shape)
            getattr(cyroialign, f"{name}_backward")(grads, *given, **settings, out=gradient)


@needs_mprotect
@pytest.mark.parametrize("at_end", [False, True])
def test_no_access_beyond_arrays(at_end, run_python):
    run_python(f"import test_pools_arguments; test_pools_arguments.work({at_end})")

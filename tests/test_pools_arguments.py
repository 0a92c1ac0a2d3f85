"""RoIPool, PSRoIAlign and PSRoIPool: what they alone refuse, and their classes."""

import numpy as np
import pytest
from pools import LAYOUTS, NAMES, arguments_of, arrays, in_layout

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

"""Every gradient that takes two maps takes them in any order of bytes, as the contract says of inputs."""

import numpy as np
import pytest

import cyroialign as ca

RNG = np.random.default_rng(0)
INPUT = RNG.standard_normal((1, 8, 12, 11))
BOXES = np.array([[0, 1.0, 2.0, 8.0, 9.0], [0, -3.0, 1.0, 4.0, 30.0]])
GRADS = RNG.standard_normal((2, 8, 3, 2))
PYRAMID = ca.MultiScaleRoIAlign(["a", "b"], (3, 2), 2)


def pyramid(grads, input):
    x = {"a": input, "b": input[..., ::2, ::2]}
    return PYRAMID.backward(grads, x, [BOXES[:, 1:]], [(48, 44)])["a"]


CALLS = {
    "max": lambda g, x: ca.roi_align_backward(g, BOXES, x.shape, mode="max", input=x),
    "onnx_max": lambda g, x: ca.roi_align_backward(g, BOXES, x.shape, mode="onnx_max", input=x),
    "roi_pool": lambda g, x: ca.roi_pool_backward(g, x, BOXES, (3, 2)),
    "boxes": lambda g, x: ca.roi_align_boxes_backward(g, x, BOXES),
    "pyramid": pyramid,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(("of_grads", "of_input"), [("<", ">"), (">", "<"), (">", ">")])
def test_swapped(name, dtype, of_grads, of_input):
    expected = CALLS[name](GRADS.astype(dtype), INPUT.astype(dtype))
    result = CALLS[name](GRADS.astype(of_grads + dtype), INPUT.astype(of_input + dtype))
    assert result.dtype.isnative
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", CALLS)
def test_another_type_is_an_error(name):
    with pytest.raises(TypeError, match="must have the dtype of"):
        CALLS[name](GRADS.astype("f4"), INPUT.astype("f8"))

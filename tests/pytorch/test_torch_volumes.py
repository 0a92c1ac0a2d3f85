"""cyroialign.torch.roi_align_3d: the bits of the function of arrays, its derivatives, tracing, refusals."""

import numpy as np
import pytest
import torch
from tensors import DTYPES, ORDERS, WITH_TANGENTS, bits, of_images, some_boxes_3d, some_volume
from torch.autograd import gradcheck, gradgradcheck

import cyroialign
from cyroialign.torch import RoIAlign3D, roi_align_3d
from cyroialign.torch import _operators as operators

BINS = (2, 3, 2)
SETTINGS = [((0.5, 0.7, 1.0), 2, True), (0.7, -1, False)]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("dtype", [*DTYPES, *operators.BYTES])
def test_bits(dtype, order, settings):
    input = some_volume(order, torch.float32)
    input = (input * 99).abs().to(dtype) if dtype in operators.BYTES else input.to(dtype)
    boxes = some_boxes_3d()
    output = roi_align_3d(input, boxes, BINS, *settings)
    expected = cyroialign.roi_align_3d(operators.to_array(input), boxes.numpy(), BINS, *settings)
    assert bits(output) == bits(expected)
    last = torch.channels_last_3d if order is torch.channels_last else order
    assert output.is_contiguous(memory_format=last)
    for given in (of_images(boxes), boxes.double().float()):
        assert bits(RoIAlign3D(BINS, *settings)(input, given)) == bits(output)
    if dtype not in operators.BYTES:
        grads = torch.ones_like(output)
        roi_align_3d(input.requires_grad_(), boxes, BINS, *settings).backward(grads)
        expected = cyroialign.roi_align_3d_backward(
            operators.to_array(grads), boxes.numpy(), input.shape, *settings
        )
        assert bits(input.grad) == bits(expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradcheck(settings):
    def function(input):
        return roi_align_3d(input, some_boxes_3d(torch.float64), BINS, *settings)

    input = some_volume(dtype=torch.float64).requires_grad_()
    assert gradcheck(function, [input])
    assert gradgradcheck(function, [input])


def test_no_gradient_to_boxes():
    input, boxes = some_volume().requires_grad_(), some_boxes_3d().requires_grad_()
    roi_align_3d(input, boxes, BINS).sum().backward()
    assert boxes.grad is None


@WITH_TANGENTS
def test_transforms():
    input, boxes = some_volume(dtype=torch.float64), some_boxes_3d(torch.float64)
    tangent = torch.ones_like(input)
    output, derivative = torch.func.jvp(lambda one: roi_align_3d(one, boxes, BINS), (input,), (tangent,))
    assert torch.equal(derivative, roi_align_3d(tangent, boxes, BINS))
    both = torch.vmap(lambda one: roi_align_3d(one, boxes, BINS))(torch.stack([input, tangent]))
    assert torch.equal(both, torch.stack([output, derivative]))
    with pytest.raises(NotImplementedError, match="roi_align_3d has no forward-mode derivative to its boxes"):
        torch.func.jvp(lambda rows: roi_align_3d(input, rows, BINS), (boxes,), (boxes,))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_compile(order):
    torch.compiler.reset()
    pool = RoIAlign3D(BINS, (1.0, 0.5, 0.5), 2, True)
    traced = torch.compile(lambda *given: pool(*given) * 2, fullgraph=True, backend="aot_eager")
    for count in (3, 2):
        input, boxes = some_volume(order).requires_grad_(), some_boxes_3d()[:count]
        expected, output = pool(input, boxes) * 2, traced(input, boxes)
        assert bits(output) == bits(expected)
        assert output.stride() == expected.stride()
        gradients = [torch.autograd.grad(one.square().sum(), input)[0] for one in (output, expected)]
        assert bits(gradients[0]) == bits(gradients[1])
    assert pool(input.detach().to("meta"), boxes.to("meta")).shape == expected.shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input": torch.zeros(1, 2, 3, 4)}, ValueError, r"input must have 5 axes, got shape \(1, 2, 3, 4\)"),
        ({"input": np.zeros((1, 1, 2, 2, 2))}, TypeError, "input must be a torch.Tensor"),
        ({"boxes": torch.zeros(3, 5)}, ValueError, r"boxes must have shape \(K, 7\), got \(3, 5\)"),
        (
            {"boxes": [torch.zeros(3, 4)] * 2},
            ValueError,
            r"boxes\[0\] must have shape \(L, 6\), got \(3, 4\)",
        ),
        (
            {"boxes": [torch.zeros(3, 6)]},
            ValueError,
            "one array per image, 2 for this input, got 1; rows of .* z2",
        ),
        ({"output_size": (2, 2)}, ValueError, r"an int or \(depth, height, width\)"),
        ({"spatial_scale": (1.0, 1.0)}, ValueError, r"a number or three, \(z, y, x\)"),
        (
            {"spatial_scale": (1.0, 1.0, float("nan"))},
            ValueError,
            r"spatial_scale\[2\] must be greater than 0",
        ),
        ({"spatial_scale": "1"}, TypeError, r"a number or three, \(z, y, x\)"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        roi_align_3d(**{"input": some_volume(), "boxes": some_boxes_3d(), "output_size": 2} | change)


def test_settings_of_the_module_are_shown():
    assert repr(RoIAlign3D(7, 0.5, 2)) == (
        "RoIAlign3D(output_size=7, spatial_scale=0.5, sampling_ratio=2, aligned=False)"
    )

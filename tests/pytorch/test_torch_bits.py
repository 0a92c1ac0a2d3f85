"""cyroialign.torch: NumPy's bits on tensors, without copies."""

import tracemalloc

import pytest
import torch
from tensors import (
    BINS,
    CASES,
    COUNT,
    DTYPES,
    IMAGES,
    ORDERS,
    PYRAMID,
    SHAPE,
    bits,
    boxes_for,
    boxes_of_levels,
    numpy_gradient,
    numpy_pooler,
    of_images,
    pooler,
    pyramid,
    random,
    some_boxes,
)

import cyroialign.torch
from cyroialign.torch import MultiScaleRoIAlign, RoIAlign, roi_align
from cyroialign.torch import _operators as operators


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_same_bits(name, settings, dtype, order):
    input, boxes = random(SHAPE, dtype, order).requires_grad_(), boxes_for(name, some_boxes())
    output = getattr(cyroialign.torch, name)(input, boxes, BINS, *settings)
    expected = getattr(cyroialign, name)(operators.to_array(input), boxes.numpy(), BINS, *settings)
    assert bits(output) == bits(expected)
    assert output.is_contiguous(memory_format=order)
    grad_output = random(output.shape, dtype, order, seed=2)
    [gradient] = torch.autograd.grad(output, input, grad_output)
    assert bits(gradient) == bits(numpy_gradient(name, grad_output, input, boxes, settings))
    assert gradient.is_contiguous(memory_format=order)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_of_levels(dtype, order):
    x, boxes = pyramid(dtype, order), boxes_of_levels(torch.float32)
    for one in x.values():
        one.requires_grad_()
    output = pooler()(x, boxes, IMAGES)
    arrays = {name: operators.to_array(one) for name, one in x.items()}
    corners = [one.numpy() for one in boxes]
    assert bits(output) == bits(numpy_pooler()(arrays, corners, IMAGES))
    assert output.is_contiguous(memory_format=order)
    grad_output = random(output.shape, dtype, order, seed=3)
    gradients = torch.autograd.grad(output, list(x.values()), grad_output)
    expected = numpy_pooler().backward(operators.to_array(grad_output), arrays, corners, IMAGES)
    assert [*map(bits, gradients)] == [*map(bits, expected.values())]
    assert all(one.is_contiguous(memory_format=order) for one in gradients)


@pytest.mark.parametrize("box_dtype", [*DTYPES, torch.int32], ids=str)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8, torch.int8], ids=str)
def test_types_may_differ(dtype, box_dtype):
    input = (random(SHAPE) * 99).abs().to(dtype)
    boxes = some_boxes(box_dtype)
    expected = cyroialign.roi_align(operators.to_array(input), operators.to_array(boxes), BINS, 0.7)
    for given in (boxes, of_images(boxes)):
        assert bits(roi_align(input, given, BINS, 0.7)) == bits(expected)


@pytest.mark.parametrize("box_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_to_boxes_of_any_type(dtype, box_dtype):
    input, boxes = random(SHAPE, dtype), some_boxes(box_dtype).requires_grad_()
    corners = [one.detach().requires_grad_() for one in of_images(boxes)]
    output = roi_align(input, boxes, BINS, 0.7)
    grad_output = random(output.shape, dtype, seed=2)
    output.backward(grad_output)
    roi_align(input, corners, BINS, 0.7).backward(grad_output)
    arrays = [operators.to_array(one) for one in (grad_output, input, boxes)]
    expected = torch.from_numpy(cyroialign.roi_align_boxes_backward(*arrays, 0.7)).to(box_dtype)
    assert expected.abs().max() > 0.1
    assert torch.equal(boxes.grad, torch.nn.functional.pad(expected, (1, 0)))
    assert torch.equal(torch.cat([one.grad for one in corners]), expected)


def test_gradient_to_the_boxes_of_levels():
    x, boxes = pyramid(torch.float32), [one.requires_grad_() for one in boxes_of_levels(torch.float32)]
    output = pooler()(x, boxes, IMAGES)
    grad_output = random(output.shape, seed=3)
    output.backward(grad_output)
    levels = cyroialign.assign_levels(
        [one.detach().numpy() for one in boxes], 1, 2, canonical_scale=20, canonical_level=2
    )
    assert set(levels) == {0, 1}
    rows = torch.cat([torch.nn.functional.pad(one.detach(), (1, 0), value=i) for i, one in enumerate(boxes)])
    for row, level in enumerate(levels):
        arrays = [grad_output[row : row + 1], x[[*PYRAMID][level]], rows[row : row + 1]]
        expected = cyroialign.roi_align_boxes_backward(
            *map(operators.to_array, arrays), 0.5 ** (level + 1), 2
        )
        assert bits(torch.cat([one.grad for one in boxes])[row : row + 1]) == bits(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_boxes_of_many_images(dtype):
    """Neither type has the number 2051 of the last image."""
    input = torch.arange(2052.0).reshape(-1, 1, 1, 1)
    boxes = [torch.zeros(one // 2051, 4, dtype=dtype) for one in range(2052)]
    assert roi_align(input, boxes, 1).item() == 2051


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_a_copy(dtype, order):
    input, boxes = random((1, 64, 200, 200), dtype, order), torch.tensor([[0, 0, 0, 20.0, 20]])
    roi_align(input, boxes, 2)
    tracemalloc.start()
    try:
        roi_align(input, boxes, 2)
        MultiScaleRoIAlign("p", 2, 1)({"p": input}, [boxes[:, 1:]], [(200, 200)])
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_other_strides():
    input, boxes = random((2, 24, 28, 19))[:, :, ::2], some_boxes()
    assert torch.equal(roi_align(input, boxes, BINS), roi_align(input.contiguous(), boxes, BINS))
    grad_output = torch.ones(()).expand(COUNT, 24, *BINS)  # what the gradient of a sum looks like
    input = random(SHAPE).requires_grad_()
    roi_align(input, boxes, BINS).sum().backward()
    expected = numpy_gradient("roi_align", grad_output.contiguous(), input, boxes, ())
    assert bits(input.grad) == bits(expected)


def test_autocast():
    """A network gives a map of bfloat16 there, its head boxes of float32 or the same."""
    input, convolution = random(SHAPE), torch.nn.Conv2d(SHAPE[1], SHAPE[1], 3)
    with torch.autocast("cpu", torch.bfloat16):
        features = convolution(input)
        assert features.dtype is torch.bfloat16
        for boxes in (some_boxes(), some_boxes(torch.bfloat16)):
            output = roi_align(features, boxes, BINS)
            arrays = operators.to_array(features), operators.to_array(boxes)
            assert bits(output) == bits(cyroialign.roi_align(*arrays, BINS))
        boxes = boxes_of_levels(torch.float32)
        assert pooler()(pyramid(torch.bfloat16), boxes, IMAGES).dtype is torch.bfloat16
    output.float().sum().backward()
    assert convolution.weight.grad.abs().max() > 0


def test_modules():
    input, boxes = random(SHAPE), some_boxes()
    module = RoIAlign(BINS, 0.7, 2, aligned=True)
    assert repr(module) == "RoIAlign(output_size=(3, 2), spatial_scale=0.7, sampling_ratio=2, aligned=True)"
    assert torch.equal(module(input, boxes), roi_align(input, boxes, BINS, 0.7, 2, True))
    assert torch.equal(RoIAlign(3, 0.7, 2)(input, boxes), roi_align(input, boxes, (3, 3), 0.7, 2))
    assert repr(pooler()) == (
        "MultiScaleRoIAlign(featmap_names=['fine', 'coarse'], output_size=(3, 2), sampling_ratio=2, "
        "canonical_scale=20, canonical_level=2)"
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_of_torch(threads, monkeypatch):
    before, seen = torch.get_num_threads(), []

    def spy(requested):
        seen.append(requested)
        return 1, False

    monkeypatch.setattr("cyroialign.operators.calls.threads_for", spy)
    torch.set_num_threads(threads)
    try:
        for name, settings in CASES:
            boxes = boxes_for(name, some_boxes())
            pool = getattr(cyroialign.torch, name)
            pool(random(SHAPE).requires_grad_(), boxes, BINS, *settings).sum().backward()
        x = {name: one.requires_grad_() for name, one in pyramid().items()}
        pooler()(x, [one.requires_grad_() for one in boxes_of_levels()], IMAGES).sum().backward()
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {threads}
    assert len(seen) >= 2 * len(CASES) + 4

"""cyroialign.torch: a scale for each axis, and for each level."""

import numpy as np
import pytest
import torch
from tensors import (
    BINS,
    IMAGES,
    PYRAMID,
    SETTINGS,
    SHAPE,
    bits,
    boxes_for,
    boxes_of_levels,
    numpy_gradient,
    pyramid,
    random,
    some_boxes,
)

import cyroialign.torch
from cyroialign.torch import MultiScaleRoIAlign
from cyroialign.torch import _operators as operators


@pytest.mark.parametrize(
    "scale", [(0.7, 0.7), [0.7, 0.7], np.float64([0.7, 0.7]), torch.tensor(0.7).double()]
)
@pytest.mark.parametrize("name", SETTINGS)
def test_two_scales_that_are_one(name, scale):
    pool, input = getattr(cyroialign.torch, name), random(SHAPE)
    boxes = boxes_for(name, some_boxes())
    assert torch.equal(pool(input, boxes, BINS, scale), pool(input, boxes, BINS, 0.7))


@pytest.mark.parametrize("name", SETTINGS)
def test_scale_for_each_axis(name):
    input, scale = random(SHAPE).requires_grad_(), (0.7, 0.4)
    boxes = boxes_for(name, some_boxes()).requires_grad_()
    output = getattr(cyroialign.torch, name)(input, boxes, BINS, scale)
    arrays = [operators.to_array(one) for one in (input, boxes)]
    assert bits(output) == bits(getattr(cyroialign, name)(*arrays, BINS, scale))
    grad_output = random(output.shape, seed=2)
    output.backward(grad_output)
    expected = numpy_gradient(name, grad_output, input, boxes, (scale,))
    assert bits(input.grad) == bits(expected)
    if name == "roi_align":
        expected = cyroialign.roi_align_boxes_backward(operators.to_array(grad_output), *arrays, scale)
        assert bits(boxes.grad[:, 1:].contiguous()) == bits(expected)


@pytest.mark.parametrize("scales", [[0.6, 0.2], [(0.5, 0.6), (0.2, 0.25)]], ids=str)
def test_scales_of_levels(scales):
    settings = {"spatial_scales": scales, "canonical_scale": 20, "canonical_level": 2}
    x, boxes = pyramid(), [one.requires_grad_() for one in boxes_of_levels()]
    for one in x.values():
        one.requires_grad_()
    pool = MultiScaleRoIAlign([*PYRAMID], BINS, 2, **settings)
    assert f"spatial_scales={scales}" in repr(pool)
    output = pool(x, boxes, IMAGES)
    numpy_pool = cyroialign.MultiScaleRoIAlign([*PYRAMID], BINS, 2, **settings)
    arguments = (
        {name: operators.to_array(one) for name, one in x.items()},
        [operators.to_array(one) for one in boxes],
        IMAGES,
    )
    assert bits(output) == bits(numpy_pool(*arguments))
    grad_output = random(output.shape, torch.float64, seed=3)
    output.backward(grad_output)
    expected = numpy_pool.backward(grad_output.numpy(), *arguments)
    assert [bits(one.grad) for one in x.values()] == [*map(bits, expected.values())]
    assert all(one.grad.abs().max() > 0 for one in boxes)
    plain = MultiScaleRoIAlign([*PYRAMID], BINS, 2, canonical_scale=20, canonical_level=2)
    assert not torch.equal(output, plain(x, boxes, IMAGES))

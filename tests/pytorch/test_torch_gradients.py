"""cyroialign.torch: gradients, and gradients of gradients."""

import pytest
import torch
from tensors import (
    BINS,
    COUNT,
    IMAGES,
    SETTINGS,
    SHAPE,
    boxes_for,
    boxes_of_levels,
    pooler,
    pyramid,
    random,
    smooth_boxes,
    some_boxes,
    with_images,
)
from torch.autograd import gradcheck, gradgradcheck

import cyroialign.torch
from cyroialign.torch import PrRoIPool2D, prroi_pool, prroi_pool2d, ps_roi_align, roi_align, roi_pool
from cyroialign.torch import _operators as operators


@pytest.mark.parametrize("name", SETTINGS)
def test_gradcheck_to_the_map(name):
    def function(input):
        pool = getattr(cyroialign.torch, name)
        return pool(input, boxes_for(name, with_images(smooth_boxes())), BINS, *SETTINGS[name][0])

    input = random((2, 6, 8, 9), torch.float64).requires_grad_()
    assert gradcheck(function, [input])
    assert gradgradcheck(function, [input])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [2, -1])
def test_gradcheck_to_the_boxes(sampling_ratio, aligned):
    input = random((2, 3, 8, 9), torch.float64).requires_grad_()

    def function(input, corners):
        return roi_align(input, with_images(corners), BINS, 0.7, sampling_ratio, aligned)

    assert gradcheck(function, [input, smooth_boxes(True)])


def test_gradcheck_of_prroi_pool_to_the_boxes():
    """Anywhere: its gradient is continuous."""
    input = random((2, 3, 8, 9), torch.float64).requires_grad_()
    corners = torch.tensor([[1.0, 2.0, 5.0, 7.0], [-2.2, 3.3, 20.3, 9.1]], dtype=torch.float64)

    def function(input, corners):
        return prroi_pool(input, with_images(corners), BINS, 0.7)

    def backward(grad_output, corners):
        return operators.prroi_pool_backward(grad_output, with_images(corners), [2, 3, 8, 9], 0.7, 0.7)

    assert gradcheck(function, [input, corners.requires_grad_()])
    assert gradcheck(backward, [random((2, 3, *BINS), torch.float64).requires_grad_(), corners])


def test_module_with_the_signature_of_the_original():
    input, boxes = random(SHAPE).requires_grad_(), some_boxes().requires_grad_()
    output = PrRoIPool2D(*BINS, 0.5)(input, boxes)
    assert torch.equal(output, prroi_pool2d(input, boxes, *BINS, 0.5))
    assert torch.equal(output, prroi_pool(input, boxes, BINS, 0.5))
    output.sum().backward()
    assert boxes.grad[:, 1:].any()
    assert not boxes.grad[:, 0].any()
    assert str(PrRoIPool2D(3, 2, 0.5)) == "PrRoIPool2D(pooled_height=3, pooled_width=2, spatial_scale=0.5)"


def test_gradcheck_of_the_gradient_to_the_map():
    """Also to the boxes it depends on."""
    grad_output = random((2, 3, *BINS), torch.float64).requires_grad_()

    def function(grad_output, corners):
        return operators.roi_align_backward(
            grad_output, with_images(corners), [2, 3, 8, 9], 0.7, 0.7, 2, True
        )

    assert gradcheck(function, [grad_output, smooth_boxes(True)])


def test_gradcheck_of_levels():
    def function(fine, coarse, *boxes):
        return pooler()({"fine": fine, "coarse": coarse}, boxes, IMAGES)

    shapes = [(2, 1, 24, 20), (2, 1, 12, 10)]
    maps = [random(shape, torch.float64).requires_grad_() for shape in shapes]
    assert gradcheck(function, [*maps, *(one.requires_grad_() for one in boxes_of_levels())])
    assert gradgradcheck(lambda *maps: function(*maps, *boxes_of_levels()), maps)


def test_gradcheck_of_the_gradient_to_levels():
    shapes = [2, 1, 24, 20, 2, 1, 12, 10]
    grad_output = random((5, 1, *BINS), torch.float64).requires_grad_()
    corners = torch.cat(boxes_of_levels()).requires_grad_()

    def function(grad_output, corners):
        boxes = torch.cat([torch.tensor([0.0, 0, 0, 1, 1])[:, None].to(corners), corners], 1)
        sizes = [side for image in IMAGES for side in image]
        return tuple(operators.roi_align_levels_backward(grad_output, boxes, shapes, sizes, [], 2, 20, 2))

    assert gradcheck(function, [grad_output, corners])


def gradient_penalty(output, *wanted):
    """Differentiate the gradient of a loss, which is not linear in the output, to `wanted`."""
    gradients = torch.autograd.grad(output.square().sum(), wanted, create_graph=True)
    sum(one.square().sum() for one in gradients).backward()


def test_second_derivatives_that_there_are():
    input, corners = random((2, 3, 8, 9), torch.float64).requires_grad_(), smooth_boxes(True)
    gradient_penalty(roi_align(input, with_images(corners), BINS), input)
    assert input.grad.abs().max() > 0.1
    assert corners.grad.abs().max() > 0.1


def test_second_derivatives_that_there_are_not():
    input, corners = random((2, 3, 8, 9), torch.float64).requires_grad_(), smooth_boxes(True)
    for pool in (roi_align, prroi_pool):
        with pytest.raises(NotImplementedError, match=f"gradient of {pool.__name__} to its boxes"):
            gradient_penalty(pool(input, with_images(corners), BINS), corners)
    x = {name: one.requires_grad_() for name, one in pyramid().items()}
    boxes = [one.requires_grad_() for one in boxes_of_levels()]
    with pytest.raises(NotImplementedError, match="gradient of MultiScaleRoIAlign to its boxes"):
        gradient_penalty(pooler()(x, boxes, IMAGES), *boxes)


def test_winners_do_not_change():
    """Of what is linear in the output of roi_pool, the second derivative is 0."""
    input = random((2, 3, 8, 9), torch.float64).requires_grad_()
    output = roi_pool(input, with_images(smooth_boxes()), BINS)
    [gradient] = torch.autograd.grad(output.sum(), input, create_graph=True)
    [second] = torch.autograd.grad(gradient.square().sum(), input, allow_unused=True)
    assert gradient.abs().max() > 0
    assert second is None


def test_no_gradient_to_boxes_as_in_torchvision():
    for pool in (ps_roi_align, roi_pool):
        input, boxes = random(SHAPE).requires_grad_(), some_boxes().requires_grad_()
        pool(input, boxes, BINS).sum().backward()
        assert boxes.grad is None
        assert input.grad is not None


def test_derivatives_have_names():
    output = roi_align(random(SHAPE).requires_grad_(), some_boxes(), BINS)
    assert output.grad_fn.name() == "roi_alignBackward"


@pytest.mark.parametrize("kept", [True, False])
def test_memory_of_the_map_is_kept_for_boxes_alone(kept):
    """The gradient to the map needs its shape, and so lets its memory go."""
    input = random(SHAPE)
    output = roi_align((input * 2).requires_grad_(), some_boxes().requires_grad_(kept), BINS)
    saved = [one.shape for one in output.grad_fn.saved_tensors]
    assert saved == [(COUNT, 5), SHAPE][: 1 + kept]

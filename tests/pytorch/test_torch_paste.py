"""cyroialign.torch.paste_masks: the values of arrays, tracing, tangents, and what is refused."""

import sys
import types

import numpy as np
import pytest
import torch
from tensors import COUNT, DTYPES, WITH_TANGENTS, bits, random, some_boxes

import cyroialign
from cyroialign.torch import _operators as operators
from cyroialign.torch import _torchvision as acceleration
from cyroialign.torch import paste_masks

SHAPE = (20, 31)


def some_masks(dtype=torch.float32):
    return random((COUNT, 1, 7, 7), dtype)


def some_corners(dtype=torch.float32):
    return some_boxes(dtype)[:, 1:]


@pytest.mark.parametrize(
    "settings", [{}, {"rule": "detectron2"}, {"padding": 2}, {"threshold": 0.25}], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_of_arrays(dtype, settings):
    masks, boxes = some_masks(dtype), some_corners()
    result = paste_masks(masks, boxes, SHAPE, **settings)
    assert result.dtype is (torch.bool if "threshold" in settings else dtype)
    arrays = operators.to_array(masks), boxes.numpy()
    assert bits(result) == bits(cyroialign.paste_masks(*arrays, SHAPE, **settings))


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_traced(threshold):
    masks, boxes = some_masks(), some_corners()
    torch.compiler.reset()
    traced = torch.compile(
        lambda *given: paste_masks(*given, SHAPE, threshold=threshold), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(traced(masks, boxes), paste_masks(masks, boxes, SHAPE, threshold=threshold))
    shadow = paste_masks(masks.to("meta"), boxes.to("meta"), SHAPE, threshold=threshold)
    assert shadow.shape == (COUNT, 1, *SHAPE)
    assert shadow.dtype is (torch.float32 if threshold is None else torch.bool)


def test_no_gradient():
    masks, boxes = some_masks().requires_grad_(), some_corners()
    with pytest.raises(NotImplementedError, match="paste_masks has no gradient"):
        paste_masks(masks, boxes, SHAPE).sum().backward()
    assert not paste_masks(masks, boxes, SHAPE, threshold=0.5).requires_grad


@WITH_TANGENTS
def test_tangents():
    masks, boxes, tangent = some_masks(), some_corners(), random((COUNT, 1, 7, 7), seed=9)
    _, result = torch.func.jvp(lambda one: paste_masks(one, boxes, SHAPE), (masks,), (tangent,))
    assert torch.equal(result, paste_masks(tangent, boxes, SHAPE))
    with pytest.raises(NotImplementedError, match="paste_masks has no forward-mode derivative"):
        torch.func.jvp(lambda one: paste_masks(masks, one, SHAPE), (boxes,), (boxes,))


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "masks must be a torch.Tensor", {"masks": np.ones((2, 1, 3, 3))}),
        (ValueError, "masks must have 4 axes", {"masks": torch.ones(2, 3, 3)}),
        (TypeError, "boxes must be a torch.Tensor", {"boxes": [[0, 0, 1, 1]]}),
        (ValueError, "one row for each mask", {"boxes": torch.ones(3, 4)}),
        (ValueError, "all be on the CPU or all on meta", {"boxes": torch.ones(2, 4, device="meta")}),
        (ValueError, r"boxes\[0\] must be finite", {"boxes": torch.full((2, 4), torch.inf)}),
        (TypeError, "image_shape must be two whole numbers", {"image_shape": 7}),
        (ValueError, "rule must be one of", {"rule": "mmdet"}),
        (ValueError, "padding must be a whole number", {"padding": -1}),
        (TypeError, "threshold must be a number", {"threshold": "half"}),
    ],
)
def test_refusals(error, words, arguments):
    given = {"masks": torch.ones(2, 1, 3, 3), "boxes": torch.ones(2, 4), "image_shape": SHAPE, **arguments}
    with pytest.raises(error, match=words):
        paste_masks(**given)


@pytest.fixture
def detectors(monkeypatch):
    """Stand-ins for the modules of torchvision that paste masks."""
    if "torchvision" in sys.modules:
        pytest.skip("test_torchvision.py has the real ones")
    modules = []
    for name in acceleration.PASTES:
        module = types.ModuleType(name)
        module.paste_masks_in_image = lambda *given, **named: "its own"
        monkeypatch.setitem(sys.modules, name, module)
        modules.append(module)
    monkeypatch.setattr(acceleration, "_register", lambda: None)
    return modules


def test_detectors_paste_with_ours(detectors):
    originals = [module.paste_masks_in_image for module in detectors]
    masks, boxes = some_masks(), some_corners()
    with acceleration.accelerate_torchvision():
        for module in detectors:
            result = module.paste_masks_in_image(masks, boxes, SHAPE, padding=2)
            assert torch.equal(result, paste_masks(masks, boxes, SHAPE, padding=2))
            for given in (masks.requires_grad_(), masks.int(), masks.expand(-1, 2, -1, -1)):
                assert module.paste_masks_in_image(given, boxes, SHAPE) == "its own"
            masks = masks.detach()
        with acceleration.accelerate_torchvision():
            pass
        assert detectors[0].paste_masks_in_image is not originals[0]
    assert [module.paste_masks_in_image for module in detectors] == originals

"""accelerate_torchvision, with a stand-in for torchvision."""

import sys
import types

import pytest
import torch
from tensors import (
    BINS,
    COUNT,
    SHAPE,
    WITH_TANGENTS,
    random,
    some_boxes,
)
from torch.func import grad, jvp

from cyroialign.torch import _operators as operators
from cyroialign.torch import accelerate_torchvision, roi_align

SCHEMAS = (
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)


@pytest.fixture
def stand_in(monkeypatch):
    """The operators of torchvision as test_torchvision.py has them, here with kernels that return -1."""
    try:
        import torchvision  # noqa: F401

        pytest.skip("test_torchvision.py has the real one")
    except ImportError:
        pass
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
        library.impl(schema.partition("(")[0], lambda *_: torch.tensor(-1.0), "CPU")
    yield
    del library


def is_accelerated():
    arguments = (random(SHAPE), some_boxes(), 0.5, *BINS, 2, True)
    output = torch.ops.torchvision.roi_align(*arguments)
    grad_output = random((COUNT, SHAPE[1], *BINS))
    backward = torch.ops.torchvision._roi_align_backward
    gradient = backward(grad_output, some_boxes(), 0.5, *BINS, *SHAPE, 2, True)
    if output.ndim == gradient.ndim == 0:
        return False
    assert torch.equal(output, roi_align(*arguments[:2], BINS, 0.5, 2, True))
    expected = operators.roi_align_backward(grad_output, some_boxes(), SHAPE, 0.5, 0.5, 2, True)
    assert torch.equal(gradient, expected)
    return True


@pytest.mark.usefixtures("stand_in")
def test_accelerate():
    assert not is_accelerated()
    with accelerate_torchvision():
        assert is_accelerated()
    assert not is_accelerated()
    acceleration = accelerate_torchvision()
    assert is_accelerated()
    for _ in range(2):
        acceleration.undo()
        assert not is_accelerated()
    with pytest.raises(ZeroDivisionError), accelerate_torchvision():
        1 / 0
    assert not is_accelerated()


@pytest.mark.usefixtures("stand_in")
def test_accelerate_twice():
    for order in ([0, 1], [1, 0]):
        accelerations = [accelerate_torchvision() for _ in range(2)]
        accelerations[order[0]].undo()
        accelerations[order[0]].undo()
        assert is_accelerated()
        accelerations[order[1]].undo()
        assert not is_accelerated()


def test_accelerate_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="torchvision"):
        accelerate_torchvision()


@pytest.mark.usefixtures("stand_in")
@WITH_TANGENTS
def test_accelerated_derivatives():
    """Those of roi_align to the map, in both modes and of second order; boxes have none."""
    boxes, settings = some_boxes().double(), (0.5, *BINS, 2, True)
    input, direction = (random(SHAPE, torch.float64, seed=seed) for seed in range(2))

    def theirs(input, boxes=boxes):
        return torch.ops.torchvision.roi_align(input, boxes, *settings)

    def ours(input):
        return roi_align(input, boxes, BINS, 0.5, 2, True)

    def loss(pool):
        return lambda x: pool(x).pow(3).sum()

    with accelerate_torchvision():
        assert torch.equal(jvp(theirs, (input,), (direction,))[1], ours(direction))
        assert torch.equal(grad(loss(theirs))(input), grad(loss(ours))(input))
        for one in (grad, lambda pool: lambda v: jvp(pool, (v,), (direction,))[1]):
            second = jvp(one(loss(theirs)), (input,), (direction,))[1]
            assert second.abs().max() > 0.1
            assert torch.equal(second, jvp(one(loss(ours)), (input,), (direction,))[1])
        steep = [lambda x, pool=pool: grad(loss(pool))(x).square().sum() for pool in (theirs, ours)]
        assert torch.equal(*(grad(one)(input) for one in steep))
        with pytest.raises(NotImplementedError, match=r"torchvision\.ops\.roi_align has no forward-mode"):
            jvp(lambda boxes: theirs(input, boxes), (boxes,), (boxes,))
        leaf, rows = input.clone().requires_grad_(), boxes.clone().requires_grad_()
        output = theirs(leaf, rows)
    with pytest.raises(RuntimeError, match=r"roi_align.* invalid gradient"):  # which is the stand-in's
        output.sum().backward()


@pytest.mark.usefixtures("stand_in")
def test_accelerated_interrupts(monkeypatch):
    def interrupted(requested):
        raise KeyboardInterrupt

    with accelerate_torchvision():
        leaf = random(SHAPE).requires_grad_()
        output = torch.ops.torchvision.roi_align(leaf, some_boxes(), 0.5, *BINS, 2, True)
        monkeypatch.setattr("cyroialign.operators.calls.threads_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            torch.ops.torchvision.roi_align(leaf, some_boxes(), 0.5, *BINS, 2, True)
        with pytest.raises(KeyboardInterrupt):
            output.sum().backward()

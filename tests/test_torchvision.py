"""Beside torchvision itself: results of its operators, and its detectors with kernels of cyroialign.

    python -m pytest -m torchvision tests/test_torchvision.py

It takes minutes, and many where other processes compute: OMP_NUM_THREADS=1 helps there.
"""

import math

import numpy as np
import pytest
from reference import random_boxes

import cyroialign

pytestmark = pytest.mark.torchvision
torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytest.importorskip("ml_dtypes")

from torchvision.models.detection import (  # noqa: E402
    FasterRCNN,
    maskrcnn_resnet50_fpn_v2,
    roi_heads,
    transform,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402

import cyroialign.torch  # noqa: E402
from cyroialign.torch import accelerate_torchvision  # noqa: E402

SHAPE, COUNT = (2, 24, 30, 43), 60
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.float16: 1e-2}  # torchvision rounds each step
DETECTIONS, MASKS = 1e-4, 1e-3  # without training, masks are steep: a box's last bits show
GRADIENTS = 1e-9  # of the largest of a parameter's, in float64; some are 0 but for rounding


def some_call(seed, dtype):
    """A map, boxes of all kinds, bins whose number divides the channels, and settings."""
    rng = np.random.default_rng(seed)
    input = torch.from_numpy(rng.uniform(-1, 1, SHAPE)).to(dtype)
    boxes = random_boxes(rng, COUNT, SHAPE)
    low, high = np.minimum(boxes[:, 1:3], boxes[:, 3:]), np.maximum(boxes[:, 1:3], boxes[:, 3:])
    boxes[:, 1:] = np.hstack([low, high + 0.1])  # ps_roi_align has NaN for others
    output_size = [(2, 3), (1, 1), (4, 2), (2, 2)][seed % 4]
    scale, sampling_ratio = float(rng.choice([0.25, 0.37, 1, 1.6])), int(rng.integers(-1, 4))
    return input, torch.from_numpy(boxes).to(dtype), output_size, scale, sampling_ratio


def close(actual, expected, dtype, largest=1):
    assert actual.dtype is expected.dtype is dtype
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= TOLERANCE[dtype] * largest


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["roi_align", "ps_roi_align", "roi_pool"])
def test_operators(name, dtype, seed):
    input, boxes, *rest, sampling_ratio = some_call(seed, dtype)
    if name != "roi_pool":
        rest.append(sampling_ratio)
    if name == "roi_align":
        rest.append(bool(seed % 2))
    results = []
    for module in (cyroialign.torch, torchvision.ops):
        map = input.clone().requires_grad_()
        output = getattr(module, name)(map, boxes, *rest)
        (output * torch.linspace(-1, 1, output.numel(), dtype=dtype).view_as(output)).sum().backward()
        results.append((output.detach(), map.grad))
    (output, gradient), (expected, expected_gradient) = results
    close(output, expected, dtype)
    close(gradient, expected_gradient, dtype, largest=max(1, expected_gradient.abs().max().item()))


@pytest.mark.parametrize("seed", range(6))
def test_half_precision(seed):
    """The other rounds coordinates to float16 as well: these are exact there."""
    input, boxes, *_ = some_call(seed, torch.float16)
    boxes[:, 1:] = boxes[:, 1:].clamp(-5, 99).round()
    arguments = (input, boxes, 2, 0.5, 2, True)
    close(cyroialign.torch.roi_align(*arguments), torchvision.ops.roi_align(*arguments), torch.float16)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # by torch itself
def test_what_differs():
    """What the documentation says of torchvision."""
    input = torch.rand(1, 4, 5, 5)
    point = torch.tensor([[0.0, 2, 2, 2, 2]])
    assert torchvision.ops.ps_roi_align(input, point, 2).isnan().all()
    assert (cyroialign.torch.ps_roi_align(input, point, 2) == 0).all()
    nothing = torch.full((1, 1, 2, 2), math.nan)
    whole = torch.tensor([[0.0, 0, 0, 1, 1]])
    assert torchvision.ops.roi_pool(nothing, whole, 1).item() == torch.finfo(torch.float32).min
    assert cyroialign.torch.roi_pool(nothing, whole, 1).item() == -math.inf
    with pytest.raises(RuntimeError, match="not implemented for 'BFloat16'"):
        torchvision.ops.roi_align(input.bfloat16(), whole.bfloat16(), 2)
    last = input.to(memory_format=torch.channels_last)
    assert torchvision.ops.roi_align(last, whole, 2).is_contiguous()
    pool = torchvision.ops.MultiScaleRoIAlign(["a", "b"], 2, 2)
    assert pool({"a": input}, [whole[:, 1:]], [(5, 5)]).shape == (1, 4, 2, 2)
    tangent = torch.func.jvp(lambda x: torchvision.ops.roi_align(x, whole, 2), (input,), (input,))[1]
    assert (tangent == 0).all()
    output = torchvision.ops.roi_pool(input.requires_grad_(), whole, 2)
    [gradient] = torch.autograd.grad(output.square().sum(), input, create_graph=True)
    with pytest.raises(RuntimeError, match="double backwards on roi_pool not supported"):
        gradient.sum().backward()


def pyramid(order=torch.contiguous_format):
    rng = np.random.default_rng(0)
    x = {
        str(level): torch.from_numpy(rng.uniform(-1, 1, (2, 8, 64 >> level, 80 >> level))).float()
        for level in range(4)
    }
    sides = 2 ** rng.uniform(3, 8, (2, 50, 2))
    start = rng.uniform(-10, 200, sides.shape)
    boxes = torch.from_numpy(np.concatenate([start, start + sides], axis=2)).float()
    maps = {name: one.contiguous(memory_format=order) for name, one in x.items()}
    return maps, [*boxes], [(256, 320), (240, 300)]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_multi_scale(order):
    arguments = (["0", "1", "2", "3"], 7, 2)
    settings = {"canonical_scale": 80, "canonical_level": 4}
    results = []
    for module in (cyroialign.torch, torchvision.ops):
        x, boxes, shapes = pyramid(order)
        for map in x.values():
            map.requires_grad_()
        output = module.MultiScaleRoIAlign(*arguments, **settings)(x, boxes, shapes)
        output.square().sum().backward()
        results.append([output.detach(), *(map.grad for map in x.values())])
    for actual, expected in zip(*results, strict=True):
        assert expected.abs().max() > 0.5
        close(actual, expected, torch.float32, largest=max(1, expected.abs().max().item()))


def test_accelerated_operators():
    """The bits of cyroialign, in torchvision's memory order; afterwards torchvision's bits."""
    input, boxes, output_size, *settings = some_call(1, torch.float32)
    results = {}
    for order in (torch.contiguous_format, torch.channels_last):
        map = input.contiguous(memory_format=order).requires_grad_()
        for name in ("before", "within", "after"):
            acceleration = accelerate_torchvision() if name == "within" else None
            output = torchvision.ops.roi_align(map, boxes, output_size, *settings)
            [gradient] = torch.autograd.grad(output.square().sum(), map)
            results[name] = output, gradient
            if acceleration:
                acceleration.undo()
        assert results["within"][0].is_contiguous()
        expected = cyroialign.torch.roi_align(map, boxes, output_size, *settings)
        assert torch.equal(results["within"][0], expected)
        [gradient] = torch.autograd.grad(expected.square().sum(), map)
        close(results["within"][1], gradient, torch.float32, largest=gradient.abs().max().item())
        for one, other in zip(results["before"], results["after"], strict=True):
            assert torch.equal(one, other)
        assert not torch.equal(results["before"][0], results["within"][0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # by torch itself
def test_accelerated_derivatives():
    """In forward mode and of second order, where torchvision has zeros and errors, as of cyroialign's own."""
    input, boxes, output_size, *settings = some_call(2, torch.float64)
    direction = input.flip(3)

    def loss(module):
        return lambda x: module.ops.roi_align(x, boxes, output_size, *settings).pow(3).sum()

    def ours(x):
        return cyroialign.torch.roi_align(x, boxes, output_size, *settings).pow(3).sum()

    for way in (
        lambda one: torch.func.jvp(one, (input,), (direction,))[1],
        lambda one: torch.func.grad(one)(input),
        lambda one: torch.func.jvp(torch.func.grad(one), (input,), (direction,))[1],
        lambda one: torch.func.grad(lambda x: torch.func.grad(one)(x).square().sum())(input),
    ):
        with accelerate_torchvision():
            derivative = way(loss(torchvision))
        assert derivative.abs().max() > 0
        assert torch.equal(derivative, way(ours))
    with accelerate_torchvision(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda rows: torchvision.ops.roi_align(input, rows, 2), (boxes,), (boxes,))


def test_accelerated_under_autocast():
    input, boxes, output_size, *settings = some_call(1, torch.float32)
    with torch.autocast("cpu", torch.bfloat16), accelerate_torchvision():
        output = torchvision.ops.roi_align(input.bfloat16(), boxes, output_size, *settings)
    expected = cyroialign.torch.roi_align(input.bfloat16(), boxes, output_size, *settings)
    assert output.dtype is torch.bfloat16
    assert torch.equal(output, expected)


def test_accelerated_and_compiled():
    input, boxes, output_size, *settings = some_call(1, torch.float32)
    input = input.contiguous(memory_format=torch.channels_last)
    torch.compiler.reset()
    traced = torch.compile(torchvision.ops.roi_align, backend="aot_eager")
    with accelerate_torchvision():
        output = traced(input, boxes, output_size, *settings)
        assert torch.equal(output, torchvision.ops.roi_align(input, boxes, output_size, *settings))


# Detectors.


def mobilenet():
    torch.manual_seed(0)
    backbone = torchvision.models.mobilenet_v2(weights=None).features
    backbone.out_channels = 1280
    return FasterRCNN(
        backbone,
        num_classes=5,
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
        min_size=160,
        max_size=224,
        box_score_thresh=0.01,
    )


def mask_rcnn():
    torch.manual_seed(0)
    return maskrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=5, min_size=160, max_size=224, box_score_thresh=0.01
    )


def photographs():
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.random((3, *size))).float() for size in ((160, 220), (156, 190))]


def targets(images):
    for image in images:
        height, width = image.shape[1:]
        boxes = torch.tensor([[20.0, 30, 110, 120], [60, 50, width - 10, height - 20]])
        masks = torch.zeros(2, height, width, dtype=torch.uint8)
        masks[0, 40:110, 30:100] = masks[1, 60:130, 70:170] = 1
        yield {"boxes": boxes.double(), "labels": torch.tensor([1, 3]), "masks": masks}


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of cyroialign's kernels for torchvision."""
    counts = {"roi_align": 0, "roi_align_backward": 0}

    def counted(name, function):
        def call(*arguments, **settings):
            counts[name] += 1
            return function(*arguments, **settings)

        return call

    for name in counts:
        monkeypatch.setattr(cyroialign, name, counted(name, getattr(cyroialign, name)))
    return counts


def detections(model):
    model.eval()
    with torch.no_grad():
        return model(photographs())


def same_detections(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        assert len(other["boxes"]) > 20
        for name, expected_one in other.items():
            tolerance = MASKS if name == "masks" else DETECTIONS
            torch.testing.assert_close(one[name], expected_one, rtol=tolerance, atol=tolerance)


def gradients(model):
    """One training step: the loss and the gradients of all parameters.

    In float64, as batch normalisation of a network that has learned nothing makes much of float32's rounding.
    """
    model.train()
    model.zero_grad()
    torch.manual_seed(1)  # of the samples that the heads are trained with
    images = [image.double() for image in photographs()]
    losses = model(images, list(targets(images)))
    sum(losses.values()).backward()
    found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return {name: one.item() for name, one in losses.items()}, found


@pytest.mark.parametrize("make", [mobilenet, mask_rcnn])
def test_detections(make, calls):
    model = make()
    expected = detections(model)
    assert calls["roi_align"] == 0
    with accelerate_torchvision():
        same_detections(detections(model), expected)
    assert calls["roi_align"] >= (2 if make is mask_rcnn else 1)
    torch.testing.assert_close(detections(model), expected, rtol=0, atol=0)


@pytest.mark.parametrize("make", [mobilenet, mask_rcnn])
def test_training_step(make, calls):
    model = make().double()
    state = {name: one.clone() for name, one in model.state_dict().items()}
    losses, expected = gradients(model)
    assert calls["roi_align_backward"] == 0
    model.load_state_dict(state)
    with accelerate_torchvision():
        accelerated, actual = gradients(model)
    assert calls["roi_align_backward"] >= (2 if make is mask_rcnn else 1)
    assert accelerated == pytest.approx(losses, rel=GRADIENTS)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        difference = (actual[name] - gradient).abs().max().item()
        assert difference <= GRADIENTS * gradient.abs().max().item() + 1e-12, name


def test_our_pooler_in_its_place():
    model = mask_rcnn()
    expected = detections(model)
    names = model.roi_heads.box_roi_pool.featmap_names
    model.roi_heads.box_roi_pool = cyroialign.torch.MultiScaleRoIAlign(names, 7, 2)
    model.roi_heads.mask_roi_pool = cyroialign.torch.MultiScaleRoIAlign(names, 14, 2)
    same_detections(detections(model), expected)


def some_detections(dtype):
    rng = np.random.default_rng(3)
    corners = rng.uniform(-9, 60, (20, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 60, (20, 2))]).clip(0, [83, 67, 83, 67])
    return torch.rand((20, 1, 28, 28), dtype=dtype), torch.from_numpy(boxes).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_paste_masks(dtype, padding):
    masks, boxes = some_detections(dtype)
    expected = roi_heads.paste_masks_in_image(masks, boxes, (67, 83), padding)
    assert expected.max() > 0.5
    close(cyroialign.torch.paste_masks(masks, boxes, (67, 83), padding=padding), expected, dtype, largest=10)


@pytest.mark.parametrize("module", [roi_heads, transform], ids=str)
def test_accelerated_pasting(module):
    """The bits of cyroialign within, but where a gradient is asked for; afterwards those of torchvision."""
    masks, boxes = some_detections(torch.float32)
    own = module.paste_masks_in_image
    expected = own(masks, boxes, (67, 83))
    with accelerate_torchvision():
        pasted = module.paste_masks_in_image(masks, boxes, (67, 83))
        assert torch.equal(pasted, cyroialign.torch.paste_masks(masks, boxes, (67, 83)))
        differentiable = module.paste_masks_in_image(masks.clone().requires_grad_(), boxes, (67, 83))
        assert differentiable.requires_grad
        assert torch.equal(differentiable, expected)
    assert module.paste_masks_in_image is own
    assert not torch.equal(pasted, expected)
    close(pasted, expected, torch.float32, largest=10)

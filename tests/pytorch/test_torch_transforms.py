"""cyroialign.torch: forward mode, and the transforms of torch.func, one and several at once."""

import pytest
import torch
from tensors import (
    BINS,
    CASES,
    IMAGES,
    SHAPE,
    WITH_TANGENTS,
    boxes_for,
    boxes_of_levels,
    pooler,
    pyramid,
    random,
    smooth_boxes,
    with_images,
)
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import cyroialign.torch
from cyroialign.torch import MultiScaleRoIAlign

pytestmark = WITH_TANGENTS

SMALL = (2, 6, 8, 9)
SMALL_BOXES = with_images(smooth_boxes())
NAMES = ["roi_align", "roi_align_rotated", "prroi_pool", "ps_roi_align", "roi_pool", "MultiScaleRoIAlign"]


def function(name, boxes=SMALL_BOXES):
    """One of the operators, on maps of one shape."""
    if name == "MultiScaleRoIAlign":
        pool = MultiScaleRoIAlign(["p", "q"], BINS, 2, canonical_scale=8, canonical_level=1)
        corners, images = [boxes[:1, 1:], boxes[1:, 1:]], [(8, 9)] * 2
        return lambda x: pool({"p": x, "q": x[:, :, ::2, ::2]}, corners, images)
    settings = (0.7, 2, True)[: {"ps_roi_align": 2, "prroi_pool": 1, "roi_pool": 1}.get(name)]
    rows = boxes_for(name, boxes)
    return lambda x: getattr(cyroialign.torch, name)(x, rows, BINS, *settings)


def cubed(name, boxes=SMALL_BOXES):
    """What has second and third derivatives."""
    return lambda x: (function(name, boxes)(x) ** 3).sum()


def maps(count=1):
    drawn = [random(SMALL, torch.float64, seed=seed) for seed in range(count)]
    return drawn if count > 1 else drawn[0]


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_forwards(name):
    input, pool = maps().requires_grad_(), function(name)
    assert gradcheck(pool, [input], check_forward_ad=True)
    assert gradgradcheck(pool, [input], check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tangent_is_the_result_of_the_tangent(name, settings, dtype):
    input, tangent = random(SHAPE, dtype), random(SHAPE, dtype, torch.channels_last, seed=5)
    boxes = boxes_for(name, with_images(smooth_boxes().float()))

    def pool(input):
        return getattr(cyroialign.torch, name)(input, boxes, BINS, *settings)

    output, forwards = jvp(pool, (input,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(pool(forward_ad.make_dual(input, tangent)))
    assert torch.equal(output, pool(input))
    assert torch.equal(dual.primal, output)
    assert torch.equal(dual.tangent, forwards)
    assert forwards.abs().max() > 0.1
    if name != "roi_pool":
        assert torch.equal(forwards, pool(tangent))
    else:  # which is not linear, but the transpose of its gradient
        weights = random(output.shape, dtype, seed=6)
        [gradient] = vjp(pool, input)[1](weights)
        expected = (gradient.double() * tangent.double()).sum().item()
        tolerance = 1e-5 if dtype is torch.float32 else 0.2
        assert (weights.double() * forwards.double()).sum().item() == pytest.approx(
            expected, rel=0, abs=tolerance
        )


def test_tangents_of_some_levels():
    x, boxes = pyramid(), boxes_of_levels()

    def pool(coarse):
        return pooler()({"fine": x["fine"], "coarse": coarse}, boxes, IMAGES)

    tangent = random(x["coarse"].shape, torch.float64, seed=5)
    expected = pooler()({"fine": torch.zeros_like(x["fine"]), "coarse": tangent}, boxes, IMAGES)
    assert expected.abs().max() > 0.1
    assert torch.equal(jvp(pool, (x["coarse"],), (tangent,))[1], expected)


@pytest.mark.parametrize("name", ["roi_align", "roi_align_rotated", "ps_roi_align", "MultiScaleRoIAlign"])
def test_boxes_have_no_tangent(name):
    """What would be lost is refused, also where the map has a tangent, and in the gradient."""
    boxes, tangent = SMALL_BOXES, torch.ones_like(SMALL_BOXES)
    with pytest.raises(NotImplementedError, match=f"^{name} has no forward-mode derivative to its boxes"):
        jvp(lambda boxes: function(name, boxes)(maps()), (boxes,), (tangent,))
    with pytest.raises(NotImplementedError, match=f"^{name} has no forward-mode derivative to its boxes"):
        jvp(lambda boxes: grad(cubed(name, boxes))(maps()), (boxes,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(boxes, tangent)
        with pytest.raises(NotImplementedError, match=r"unpack_dual\(boxes\)\.primal"):
            function(name, dual)(maps())
        assert function(name, forward_ad.unpack_dual(dual).primal)(maps()).abs().max() > 0


def test_rounded_boxes_have_the_tangent_0():
    boxes = (SMALL_BOXES,)
    output, tangent = jvp(
        lambda boxes: function("roi_pool", boxes)(maps()), boxes, (torch.ones(2, 5).double(),)
    )
    assert output.abs().max() > 0
    assert (tangent == 0).all()


@pytest.mark.parametrize("name", ["roi_align", "MultiScaleRoIAlign"])
def test_tangent_of_the_gradient_to_the_boxes(name):
    """That of a loss depends on the map twice: by what the output is, and by what moving a box brings."""
    input, direction = maps(2)
    step = 1e-6

    def to_boxes(input):
        return grad(lambda boxes: cubed(name, boxes)(input))(SMALL_BOXES)

    expected = (to_boxes(input + step * direction) - to_boxes(input - step * direction)) / (2 * step)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(jvp(to_boxes, (input,), (direction,))[1], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_transforms_of_transforms(name):
    """Every way to the second derivative goes to the same, which differences confirm."""
    input, direction, other = maps(3)
    loss, step = cubed(name), 1e-6
    expected = (grad(loss)(input + step * direction) - grad(loss)(input - step * direction)) / (2 * step)
    assert expected.abs().max() > 0.1
    ways = {
        "forward over reverse": lambda: jvp(grad(loss), (input,), (direction,))[1],
        "reverse over forward": lambda: grad(lambda v: jvp(loss, (v,), (direction,))[1])(input),
        "reverse over reverse": lambda: grad(lambda v: (grad(loss)(v) * direction).sum())(input),
        "hessian": lambda: (hessian(loss)(input).flatten(4) @ direction.flatten()).reshape(SMALL),
    }
    for way, derivative in ways.items():
        torch.testing.assert_close(derivative(), expected, rtol=1e-5, atol=1e-7, msg=way)
    twice = jvp(lambda v: jvp(loss, (v,), (direction,))[1], (input,), (other,))[1]
    torch.testing.assert_close(twice, (expected * other).sum(), rtol=1e-5, atol=1e-7)
    with torch.no_grad():  # of which torch.func makes nothing
        torch.testing.assert_close(ways["reverse over reverse"](), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_jacobians(name):
    forwards, backwards = jacfwd(function(name))(maps()), jacrev(function(name))(maps())
    assert forwards.abs().max() > 0.1
    torch.testing.assert_close(forwards, backwards)


@pytest.mark.parametrize("name", NAMES)
def test_vmap(name):
    """The bits of call after call, whichever arguments have the further axis."""
    inputs = torch.stack(maps(3))
    boxes = SMALL_BOXES + torch.linspace(0, 0.3, 3)[:, None, None] * torch.tensor([0, 1, 1, 1, 1.0])

    def pool(input, boxes):
        return function(name, boxes)(input)

    def gradient(input, boxes):
        return grad(cubed(name, boxes))(input)

    for one in (pool, gradient):
        both = torch.stack([one(*pair) for pair in zip(inputs, boxes, strict=True)])
        assert torch.equal(vmap(one)(inputs, boxes), both)
        last = inputs.movedim(0, -1)
        assert torch.equal(vmap(one, (-1, 0), -1)(last, boxes), both.movedim(0, -1))
        of_inputs = torch.stack([one(input, SMALL_BOXES) for input in inputs])
        assert torch.equal(vmap(one, (0, None))(inputs, SMALL_BOXES), of_inputs)
        of_boxes = torch.stack([one(inputs[0], one_of) for one_of in boxes])
        assert torch.equal(vmap(one, (None, 0))(inputs[0], boxes), of_boxes)
    twice = vmap(vmap(pool, (0, None)), (None, 0))(inputs, boxes)
    assert torch.equal(twice, torch.stack([vmap(pool, (0, None))(inputs, one) for one in boxes]))
    assert vmap(function(name))(inputs[:0]).shape == (0, *function(name)(inputs[0]).shape)


@pytest.mark.parametrize("name", NAMES)
def test_functionalize(name):
    assert torch.equal(functionalize(function(name))(maps()), function(name)(maps()))


@pytest.mark.parametrize("name", NAMES)
def test_compiled_transforms(name):
    input, tangent = maps(2)
    for transformed in (
        lambda x, tangent: jvp(function(name), (x,), (tangent,))[1],
        lambda x, tangent: grad(cubed(name))(x),
        lambda x, tangent: vmap(function(name))(torch.stack([x, tangent])),
    ):
        torch.compiler.reset()
        traced = torch.compile(transformed, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(traced(input, tangent), transformed(input, tangent))


def test_exported_forwards():
    class Exported(torch.nn.Module):
        forward = staticmethod(function("roi_align"))

    input, tangent = maps(2)
    program = torch.export.export(Exported(), (input,)).module()
    assert torch.equal(jvp(program, (input,), (tangent,))[1], function("roi_align")(tangent))

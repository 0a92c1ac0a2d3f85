"""cyroialign.torch: NumPy's bits on tensors, without copies; gradients; tracing; refusals."""

import sys
import tracemalloc
import types

import numpy as np
import pytest
from reference import random_boxes

import cyroialign

torch = pytest.importorskip("torch")
pytest.importorskip("ml_dtypes")
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import cyroialign.torch  # noqa: E402
from cyroialign import _torch_operators as operators  # noqa: E402
from cyroialign.torch import (  # noqa: E402
    MultiScaleRoIAlign,
    RoIAlign,
    accelerate_torchvision,
    ps_roi_align,
    roi_align,
    roi_pool,
)

SHAPE, COUNT, BINS = (2, 24, 14, 19), 15, (3, 2)  # 24 = 4 * 3 * 2: channels for each bin of ps_roi_align
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ORDERS = [torch.contiguous_format, torch.channels_last]
SETTINGS = {  # what follows the output size
    "roi_align": [(0.5, 2, True), (0.7, -1, False)],
    "ps_roi_align": [(0.5, 2), (0.7, -1)],
    "roi_pool": [(0.5,)],
}
CASES = [(name, settings) for name in SETTINGS for settings in SETTINGS[name]]
PYRAMID = {"fine": (2, 6, 24, 20), "coarse": (2, 6, 12, 10)}
IMAGES = [(47, 40), (48, 37)]
NAN = float("nan")


def random(shape, dtype=torch.float32, order=torch.contiguous_format, seed=0):
    values = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape))
    return values.to(dtype).contiguous(memory_format=order)


def some_boxes(dtype=torch.float32):
    boxes = random_boxes(np.random.default_rng(1), COUNT, SHAPE)
    return torch.from_numpy(boxes[boxes[:, 0].argsort()]).to(dtype)  # by image, as lists have it


def of_images(boxes, images=SHAPE[0]):
    return [boxes[boxes[:, 0] == image, 1:] for image in range(images)]


def pyramid(dtype=torch.float64, order=torch.contiguous_format):
    return {name: random(shape, dtype, order, seed=i) for i, (name, shape) in enumerate(PYRAMID.items())}


def boxes_of_levels(dtype=torch.float64):
    """Boxes of which each level gets some, without a sample on a pixel's edge."""
    first = [[2.1, 2.9, 9.5, 11.1], [0.5, 5.9, 35.7, 41.6], [9.9, 3.1, 13.8, 8.9]]
    second = [[1.3, 1.8, 33.8, 44.4], [20.5, 20.9, 27.5, 29.1]]
    return [torch.tensor(first, dtype=dtype), torch.tensor(second, dtype=dtype)]


def pooler(output_size=BINS, sampling_ratio=2):
    return MultiScaleRoIAlign(
        list(PYRAMID), output_size, sampling_ratio, canonical_scale=20, canonical_level=2
    )


def numpy_pooler(output_size=BINS, sampling_ratio=2):
    return cyroialign.MultiScaleRoIAlign(
        list(PYRAMID), output_size, sampling_ratio, canonical_scale=20, canonical_level=2
    )


def bits(values):
    """Of a tensor or an array, in the order of its axes."""
    array = operators.to_array(values) if isinstance(values, torch.Tensor) else values
    return array.dtype.name, array.shape, array.tobytes()


def numpy_gradient(name, grad_output, input, boxes, settings):
    function = getattr(cyroialign, f"{name}_backward")
    grad_output, input, boxes = (operators.to_array(one) for one in (grad_output, input, boxes))
    if name == "roi_pool":
        return function(grad_output, input, boxes, BINS, *settings)
    return function(grad_output, boxes, input.shape, *settings)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_same_bits(name, settings, dtype, order):
    input, boxes = random(SHAPE, dtype, order).requires_grad_(), some_boxes()
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
@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8], ids=str)
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
        return 1

    monkeypatch.setattr("cyroialign.arguments.threads.threads_for", spy)
    torch.set_num_threads(threads)
    try:
        for name, settings in CASES:
            getattr(cyroialign.torch, name)(
                random(SHAPE).requires_grad_(), some_boxes(), BINS, *settings
            ).sum().backward()
        x = {name: one.requires_grad_() for name, one in pyramid().items()}
        pooler()(x, [one.requires_grad_() for one in boxes_of_levels()], IMAGES).sum().backward()
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {threads}
    assert len(seen) >= 2 * len(CASES) + 4


# Derivatives.


def smooth_boxes(requires_grad=False):
    """Corners between whose samples and the edges of pixels there is room."""
    corners = torch.tensor([[1.3, 1.2, 5.1, 6.7], [-2.2, 3.3, 7.3, 9.1]], dtype=torch.float64)
    return corners.requires_grad_(requires_grad)


def with_images(corners):
    return torch.cat([torch.arange(2.0).to(corners)[:, None], corners], 1)


@pytest.mark.parametrize("name", SETTINGS)
def test_gradcheck_to_the_map(name):
    def function(input):
        pool = getattr(cyroialign.torch, name)
        return pool(input, with_images(smooth_boxes()), BINS, *SETTINGS[name][0])

    input = random((2, 6, 8, 9), torch.float64).requires_grad_()
    assert gradcheck(function, [input])
    if name != "roi_pool":
        assert gradgradcheck(function, [input])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [2, -1])
def test_gradcheck_to_the_boxes(sampling_ratio, aligned):
    input = random((2, 3, 8, 9), torch.float64).requires_grad_()

    def function(input, corners):
        return roi_align(input, with_images(corners), BINS, 0.7, sampling_ratio, aligned)

    assert gradcheck(function, [input, smooth_boxes(True)])


def test_gradcheck_of_the_gradient_to_the_map():
    """Also to the boxes it depends on."""
    grad_output = random((2, 3, *BINS), torch.float64).requires_grad_()

    def function(grad_output, corners):
        return operators.roi_align_backward(grad_output, with_images(corners), [2, 3, 8, 9], 0.7, 2, True)

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
        return tuple(operators.roi_align_levels_backward(grad_output, boxes, shapes, sizes, 2, 20, 2))

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
    with pytest.raises(NotImplementedError, match="gradient of RoIAlign to its boxes"):
        gradient_penalty(roi_align(input, with_images(corners), BINS), corners)
    x = {name: one.requires_grad_() for name, one in pyramid().items()}
    boxes = [one.requires_grad_() for one in boxes_of_levels()]
    with pytest.raises(NotImplementedError, match="gradient of RoIAlign to its boxes"):
        gradient_penalty(pooler()(x, boxes, IMAGES), *boxes)
    with pytest.raises(NotImplementedError, match="gradient of roi_pool"):
        gradient_penalty(roi_pool(input, with_images(smooth_boxes()), BINS), input)


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


# Tracing.


def opchecked():
    boxes, corners = some_boxes(), boxes_of_levels()
    rows = torch.cat([torch.nn.functional.pad(one, (1, 0), value=i) for i, one in enumerate(corners)])
    sizes = [side for image in IMAGES for side in image]
    for order in ORDERS:
        input, grad_output = random(SHAPE, order=order), random((COUNT, SHAPE[1], *BINS), order=order)
        ps_grad_output = random((COUNT, 4, *BINS), order=order)
        x, grad_levels = [*pyramid(order=order).values()], random((5, 6, *BINS), torch.float64, order)
        shapes = [side for one in x for side in one.shape]
        yield "roi_align", (input.requires_grad_(), boxes.requires_grad_(), BINS, 0.7, 2, True)
        yield "roi_align", (input.detach().half(), boxes.detach().double(), BINS, 0.7, -1, False)
        yield "roi_align", ((input.detach() * 99).byte(), boxes.detach(), BINS, 0.7, -1, False)
        yield "roi_align", (input.detach(), boxes[:0].detach(), BINS, 0.7, -1, False)
        yield "roi_align_backward", (grad_output.requires_grad_(), boxes, SHAPE, 0.7, 2, True)
        yield "roi_align_boxes_backward", (grad_output.detach(), input.detach(), boxes.detach(), 0.7, 2, True)
        yield "ps_roi_align", (input, boxes.detach(), BINS, 0.7, 2)
        yield "ps_roi_align_backward", (ps_grad_output.requires_grad_(), boxes.detach(), SHAPE, 0.7, 2)
        yield "roi_pool", (input, boxes.detach(), BINS, 0.7)
        yield "roi_pool_backward", (grad_output.detach(), input.detach(), boxes.detach(), BINS, 0.7)
        x = [one.requires_grad_() for one in x]
        yield "roi_align_levels", (x, rows.requires_grad_(), BINS, sizes, 2, 20.0, 2)
        yield "roi_align_levels_backward", (grad_levels.requires_grad_(), rows, shapes, sizes, 2, 20.0, 2)
        settled = [one.detach() for one in x]
        arguments = (grad_levels.detach(), settled, rows.detach(), sizes, 2, 20.0, 2)
        yield "roi_align_levels_boxes_backward", arguments


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own, torch 2.14
@pytest.mark.parametrize(("name", "arguments"), [*opchecked()])
def test_opcheck(name, arguments):
    torch.library.opcheck(getattr(torch.ops.cyroialign, name).default, arguments)


def test_every_operator_was_checked():
    defined = {
        name for name in vars(operators) if isinstance(vars(operators)[name], torch.library.CustomOpDef)
    }
    assert {name for name, _ in opchecked()} == defined


class Detector(torch.nn.Module):
    """All of it at once, as a detector has it."""

    def __init__(self):
        super().__init__()
        self.pool = pooler()
        self.align = RoIAlign(BINS, 0.5, 2, True)

    def forward(self, fine, coarse, boxes):
        """What they all pool from the same boxes, which differ a little for the second image."""
        x = {"fine": fine * 2, "coarse": coarse}
        crops = self.pool(x, [boxes, boxes + 0.25], IMAGES) + 1
        rows = torch.nn.functional.pad(boxes, (1, 0))
        others = ps_roi_align(fine, rows, (3, 2), 0.5), roi_pool(coarse, rows, 2, 0.25)
        return crops, self.align(fine, [boxes, boxes[:1]]), *others


def detected(detector, count=3, order=torch.contiguous_format):
    x = [one.requires_grad_() for one in pyramid(order=order).values()]
    boxes = boxes_of_levels()[0][:count].requires_grad_()
    results = detector(*x, boxes)
    sum((one * one).sum() for one in results).backward()
    return [one.detach() for one in (*results, *(one.grad for one in (*x, boxes)))]


def alike(results, expected):
    """That what is traced gives the bits, in the memory order, that it gives otherwise."""
    assert [*map(bits, results[:4])] == [*map(bits, expected[:4])]
    assert [one.stride() for one in results[:4]] == [one.stride() for one in expected[:4]]
    torch.testing.assert_close(results[4:], expected[4:], rtol=1e-12, atol=1e-12)  # sums in another order


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.heavy)])
def test_compile(backend, order):
    torch.compiler.reset()
    traced = torch.compile(Detector(), fullgraph=True, backend=backend)
    for count in (3, 2, 1):  # the second makes the number of boxes a symbol
        alike(detected(traced, count, order), detected(Detector(), count, order))


def test_compile_with_boxes_that_it_cannot_count():
    torch.compiler.reset()

    def function(input, boxes, keep):
        return roi_align(input, boxes[keep], BINS) + 1

    input, boxes = random(SHAPE), some_boxes()
    keep = torch.arange(COUNT) % 3 > 0
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        traced = torch.compile(function, fullgraph=True, backend="aot_eager")
        assert torch.equal(traced(input, boxes, keep), function(input, boxes, keep))


def test_export():
    x, boxes = pyramid(), boxes_of_levels()[0]
    count = torch.export.Dim("count", min=2)
    program = torch.export.export(Detector(), (*x.values(), boxes), dynamic_shapes=[None, None, {0: count}])
    called = {str(node.target) for node in program.graph.nodes}
    for name in ("roi_align", "roi_align_levels", "ps_roi_align", "roi_pool"):
        assert f"cyroialign.{name}.default" in called
    for given in (boxes, boxes[:2]):
        results, expected = program.module()(*x.values(), given), Detector()(*x.values(), given)
        assert [*map(bits, results)] == [*map(bits, expected)]


def test_meta_tensors_have_the_shape():
    input, boxes = random(SHAPE, order=torch.channels_last).to("meta"), some_boxes().to("meta")
    output = roi_align(input, boxes, BINS)
    assert output.device.type == "meta"
    assert output.shape == (COUNT, SHAPE[1], *BINS)
    assert output.is_contiguous(memory_format=torch.channels_last)


# Refusals.


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU, which the machine need not have."""

    device = torch.device("cuda:0")


def test_other_devices():
    input, boxes = random(SHAPE), some_boxes()
    input_there, boxes_there = input.as_subclass(Elsewhere), boxes.as_subclass(Elsewhere)
    for pool in (roi_align, ps_roi_align, roi_pool):
        for arguments in ((input_there, boxes), (input, boxes_there), (input, of_images(boxes_there))):
            with pytest.raises(ValueError, match="on the CPU, got a tensor on cuda:0"):
                pool(*arguments, BINS)
    with pytest.raises(ValueError, match="on the CPU, got a tensor on cuda:0"):
        MultiScaleRoIAlign("p", 2, 1)({"p": input_there}, of_images(boxes), IMAGES)


BOX = torch.tensor([[0.0, 1, 1, 3, 3]])


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        (torch.tensor([[2.0, 1, 1, 3, 3]]), ValueError, r"boxes\[0\] has batch_index 2, but input has 2"),
        (torch.tensor([[0.0, 1, 1, NAN, 3]]), ValueError, r"boxes\[0\] must be finite"),
        (BOX[:, 1:], ValueError, r"boxes must have shape \(K, 5\), got \(1, 4\)"),
        (BOX.bool(), TypeError, "boxes must have a float or integer dtype, got bool"),
        ([BOX[:, 1:]], ValueError, "one array an image, 2 for this input, got 1"),
        ([BOX[:, 1:], BOX], ValueError, r"boxes\[1\] must have shape \(L, 4\), got \(1, 5\)"),
        ([BOX[:, 1:], BOX[0, 1:]], ValueError, r"boxes\[1\] must have shape \(L, 4\), got \(4,\)"),
    ],
)
def test_boxes_that_are_wrong(boxes, error, message):
    with pytest.raises(error, match=message):
        roi_align(random(SHAPE), boxes, BINS)


def test_maps_that_are_wrong():
    with pytest.raises(TypeError, match=r"dtype float32.*got complex64"):
        roi_align(random(SHAPE).to(torch.complex64), BOX, BINS)
    with pytest.raises(ValueError, match="output_size must be at least 1"):
        roi_align(random(SHAPE), BOX, 0)
    with pytest.raises(ValueError, match=r"multiple of 5 \* 5, got 24"):
        ps_roi_align(random(SHAPE), BOX, 5)


def test_pyramids_that_are_wrong():
    x, boxes = pyramid(), boxes_of_levels()
    with pytest.raises(ValueError, match=r"it lacks \['coarse'\]"):
        pooler()({"fine": x["fine"]}, boxes, IMAGES)
    with pytest.raises(TypeError, match="boxes must be a list"):
        pooler()(x, boxes[0], IMAGES)
    with pytest.raises(ValueError, match="one size an image, 2 here, got 1"):
        pooler()(x, boxes, IMAGES[:1])
    with pytest.raises(TypeError, match="must have the dtype of"):
        pooler()({**x, "coarse": x["coarse"].float()}, boxes, IMAGES)
    with pytest.raises(ValueError, match="must be finite"):
        pooler()(x, [boxes[0], boxes[1] * NAN], IMAGES)


@pytest.mark.parametrize("count", [0, 1])
def test_no_images_or_boxes(count):
    output = roi_align(torch.zeros(count, 3, 4, 4), [torch.zeros(0, 4)] * count, 2)
    assert output.shape == (0, 3, 2, 2)
    x = {"fine": torch.zeros(count, 3, 0, 4), "coarse": torch.zeros(count, 3, 4, 4)}
    boxes = [torch.zeros(0, 4, requires_grad=True)] * count
    output = pooler()(x, boxes, [(8, 8)] * count)
    assert output.shape == (0, 3, *BINS)
    if count:
        output.sum().backward()
        assert boxes[0].grad.shape == (0, 4)


def test_the_package_does_not_import_torch(run_python):
    run_python("import cyroialign, sys; assert not {'torch', 'ml_dtypes'} & {*sys.modules}")


# torchvision's kernels.

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
    expected = operators.roi_align_backward(grad_output, some_boxes(), SHAPE, 0.5, 2, True)
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

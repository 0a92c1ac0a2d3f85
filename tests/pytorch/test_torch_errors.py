"""cyroialign.torch: what it refuses, and the least that it takes."""

import pytest
import torch
from tensors import (
    BINS,
    IMAGES,
    SHAPE,
    boxes_of_levels,
    of_images,
    pooler,
    pyramid,
    random,
    some_boxes,
)

import cyroialign.torch
from cyroialign.torch import MultiScaleRoIAlign, RoIAlign, ps_roi_align, roi_align, roi_pool

NAN = float("nan")


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
NUMPY = random(SHAPE).numpy()
ROWS = [[1.0, 1, 3, 3]]


def every_function(input, boxes):
    """Call after call, each with the map and the boxes."""
    for pool in (roi_align, ps_roi_align, roi_pool):
        yield lambda pool=pool: pool(input, boxes, BINS)
    yield lambda: RoIAlign(BINS, 1.0, 2)(input, boxes)
    if isinstance(boxes, list):
        yield lambda: MultiScaleRoIAlign("p", BINS, 2)({"p": input}, boxes, [(14, 19)] * 2)


@pytest.mark.parametrize(
    ("input", "boxes", "message"),
    [
        (NUMPY, some_boxes(), "^input must be a torch.Tensor, got ndarray: give torch.as_tensor"),
        (NUMPY, [BOX[:, 1:]] * 2, r"^(input|x\['p'\]) must be a torch.Tensor, got ndarray"),
        (NUMPY.tolist(), some_boxes(), "^input must be a torch.Tensor, got list"),
        (None, some_boxes(), "^input must be a torch.Tensor, got NoneType None$"),
        (random(SHAPE), some_boxes().numpy(), "^boxes must be a torch.Tensor, or a list .* got nd"),
        (random(SHAPE), None, "^boxes must be a torch.Tensor, or a list .* got NoneType None$"),
        (random(SHAPE), [BOX[:, 1:], BOX[:, 1:].numpy()], r"^boxes\[1\] must be a torch.Tensor, got nd"),
        (random(SHAPE), [ROWS, ROWS], r"^boxes\[0\] must be a torch.Tensor, got list \[\["),
        (random(SHAPE), [0.0, 1.0], r"^boxes\[0\] must be a torch.Tensor, got float 0.0"),
    ],
)
def test_what_is_no_tensor(input, boxes, message):
    for call in every_function(input, boxes):
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.filterwarnings("ignore:.*(Sparse CSR|nested tensors|quantize|quantization):UserWarning")
@pytest.mark.parametrize(
    ("unlike", "error", "message"),
    [
        (
            lambda one: torch.quantize_per_tensor(one, 0.1, 0, torch.quint8),
            TypeError,
            "not be quantised, got",
        ),
        (
            lambda one: one.to_sparse(),
            TypeError,
            r"dense tensor, got torch.sparse_coo: give \w+.to_dense\(\)",
        ),
        (lambda one: one.to_mkldnn(), TypeError, "dense tensor, got torch._mkldnn"),
        (lambda one: torch.nested.nested_tensor([*one]), TypeError, "dense tensor, got a nested one"),
        (lambda one: one.to(torch.complex64), TypeError, "must have .*dtype.* got complex64"),
        (
            lambda one: one.to(torch.float8_e5m2),
            TypeError,
            "dtype of NumPy, or bfloat16, got torch.float8_e5m2",
        ),
        (lambda one: one.bool(), TypeError, "must have .*dtype.* got bool"),
        (lambda one: freed(one), ValueError, r"must have memory, \d+ bytes, and its storage has 0"),
        (lambda one: one.to("meta"), ValueError, r"all be on the CPU or all on meta, got \['cpu', 'meta'\]"),
    ],
)
def test_tensors_that_no_array_can_show(unlike, error, message):
    """Nothing is read from memory that is not there, and nothing comes out that was never computed."""
    for arguments in ((unlike(random(SHAPE)), some_boxes()), (random(SHAPE), unlike(some_boxes()))):
        for call in every_function(*arguments):
            with pytest.raises(error, match=message):
                call()
    output = roi_align(random(SHAPE).requires_grad_(), some_boxes(), BINS)
    if error is ValueError and "memory" in message:
        with pytest.raises(error, match=message):
            output.backward(unlike(torch.ones_like(output)))


def freed(tensor):
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


def test_memory_that_ends_too_early():
    input = random(SHAPE)
    input.untyped_storage().resize_(input.untyped_storage().nbytes() - 4)
    with pytest.raises(ValueError, match="must have memory, 51072 bytes, and its storage has 51068"):
        roi_align(input, some_boxes(), BINS)
    assert roi_align(input[:, :, :-1], some_boxes(), BINS).abs().max() > 0


def test_signs_that_are_not_in_memory():
    """A tensor with the negative bit, or real parts of a conjugate, has other numbers than its memory."""
    input, boxes = random(SHAPE), some_boxes()
    turned = torch.complex(torch.zeros_like(input), -input).conj().imag
    boxes_turned = torch.complex(torch.zeros_like(boxes), -boxes).conj().imag
    assert turned.is_neg()
    assert boxes_turned.is_neg()
    for name in ("roi_align", "ps_roi_align", "roi_pool"):
        pool = getattr(cyroialign.torch, name)
        expected = pool(input, boxes, BINS)
        assert torch.equal(pool(turned, boxes_turned, BINS), expected)
        assert torch.equal(pool(turned, of_images(boxes_turned), BINS), expected)
        differentiable = input.clone().requires_grad_()
        output = pool(differentiable, boxes_turned, BINS)
        grad_output = torch.complex(output.detach(), -output.detach()).conj().imag
        [gradient] = torch.autograd.grad(output, differentiable, grad_output, retain_graph=True)
        [expected] = torch.autograd.grad(output, differentiable, output.detach())
        assert torch.equal(gradient, expected)


class Renamed(torch.Tensor):
    """A subclass that changes nothing."""


def test_subclasses_and_zeros():
    input, boxes = random(SHAPE), some_boxes()
    output = roi_align(input.as_subclass(Renamed), boxes.as_subclass(Renamed), BINS)
    assert isinstance(output, Renamed)
    assert torch.equal(output.as_subclass(torch.Tensor), roi_align(input, boxes, BINS))
    assert torch.equal(roi_align(torch.nn.Parameter(input), boxes, BINS), roi_align(input, boxes, BINS))
    assert (roi_align(torch._efficientzerotensor(SHAPE), boxes, BINS) == 0).all()


@pytest.mark.parametrize("nothing", [torch.tensor([]), torch.zeros(0, 4), [], ()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.float16], ids=str)
def test_image_without_boxes(nothing, dtype):
    """It does not change the bits of those of others, which float32 may not hold."""
    boxes = some_boxes(dtype)[:5]
    boxes[:, 0] = 1
    if dtype is torch.int64:
        boxes = boxes * torch.tensor([1] + [2**24 + 1] * 4)
    for call, expected in zip(
        every_function(random(SHAPE), [nothing, boxes[:, 1:]]),
        every_function(random(SHAPE), [torch.zeros(0, 4, dtype=dtype), boxes[:, 1:]]),
        strict=True,
    ):
        assert torch.equal(call(), expected())
    nobody = roi_align(random(SHAPE), [nothing, nothing], BINS)
    assert nobody.shape == (0, SHAPE[1], *BINS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("2",), TypeError, "output_size must be a whole number, got str '2'"),
        ((2.0,), TypeError, "output_size must be a whole number, got float 2.0"),
        (((2, 2, 2),), ValueError, "output_size must be an int or .height, width."),
        ((2, "1"), TypeError, r"spatial_scale must be a number or two, \(y, x\), got str '1'"),
        ((2, None), TypeError, r"spatial_scale must be a number or two, \(y, x\), got NoneType None"),
        ((2, (1.0, 2.0, 3.0)), ValueError, r"spatial_scale must be a number or two, \(y, x\), got tuple"),
        ((2, (1.0, "2")), TypeError, r"spatial_scale must be a number or two, \(y, x\), got str '2'"),
        ((2, 10**400), ValueError, "spatial_scale must be greater than 0 and finite"),
        ((2, NAN), ValueError, "spatial_scale must be greater than 0 and finite"),
        ((2, 1.0, 2.5), TypeError, "sampling_ratio must be a whole number, got float 2.5"),
        ((2, 1.0, 10**30), ValueError, "sampling_ratio must be at most 32767"),
        ((2, 1.0, 2, None), TypeError, "aligned must be True or False, got NoneType None"),
    ],
)
def test_settings_that_are_wrong(arguments, error, message):
    with pytest.raises(error, match=message):
        roi_align(random(SHAPE), some_boxes(), *arguments)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"output_size": 2.5}, TypeError, "output_size must be a whole number"),
        ({"sampling_ratio": 2.5}, TypeError, "sampling_ratio must be a whole number"),
        ({"canonical_scale": "x"}, TypeError, "canonical_scale must be a number"),
        ({"canonical_level": 1.5}, TypeError, "canonical_level must be a whole number"),
    ],
)
def test_settings_of_levels_that_are_wrong(changed, error, message):
    with pytest.raises(error, match=message):
        MultiScaleRoIAlign(**{"featmap_names": "p", "output_size": 2, "sampling_ratio": 2, **changed})


@pytest.mark.parametrize("images", [[8, 8], [(8.5, 8)] * 2, None, [(8, 8, 8)] * 2, [(0, 8)] * 2])
def test_images_that_are_wrong(images):
    with pytest.raises((TypeError, ValueError), match="image_shapes"):
        pooler()(pyramid(), boxes_of_levels(), images)


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        (torch.tensor([[2.0, 1, 1, 3, 3]]), ValueError, r"boxes\[0\] has batch_index 2, but input has 2"),
        (torch.tensor([[0.0, 1, 1, NAN, 3]]), ValueError, r"boxes\[0\] must be finite"),
        (BOX[:, 1:], ValueError, r"boxes must have shape \(K, 5\), got \(1, 4\)"),
        (BOX.bool(), TypeError, "boxes must have a float or integer dtype, got bool"),
        ([BOX[:, 1:]], ValueError, "one array per image, 2 for this input, got 1"),
        ([BOX[:, 1:], BOX], ValueError, r"boxes\[1\] must have shape \(L, 4\), got \(1, 5\)"),
        ([BOX[:, 1:], BOX[:, 1:].bool()], TypeError, r"boxes\[1\] must have a float or .*, got torch.bool"),
        ([BOX[:, 1:], BOX[0, 1:]], ValueError, r"boxes\[1\] must have shape \(L, 4\), got \(4,\)"),
    ],
)
def test_boxes_that_are_wrong(boxes, error, message):
    with pytest.raises(error, match=message):
        roi_align(random(SHAPE), boxes, BINS)


def test_maps_that_are_wrong():
    with pytest.raises(TypeError, match=r"dtype float32.*got complex64"):
        roi_align(random(SHAPE).to(torch.complex64), BOX, BINS)
    with pytest.raises(ValueError, match=r"input must have 4 axes, got shape \(24, 14, 19\)"):
        roi_align(random(SHAPE)[0], [BOX[:, 1:]] * 2, BINS)
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


@pytest.mark.parametrize("missing", ["torch", "ml_dtypes"])
def test_without_what_it_needs(run_python, missing):
    code = """
        import sys
        sys.modules["MISSING"] = None
        try:
            import cyroialign.torch
        except ImportError as error:
            print(error)
        """
    done = run_python(code.replace("MISSING", missing))
    assert 'pip install "cyroialign[torch]"' in done.stdout
    assert missing in done.stdout

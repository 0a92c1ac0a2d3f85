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

from cyroialign.torch import MultiScaleRoIAlign, ps_roi_align, roi_align, roi_pool

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

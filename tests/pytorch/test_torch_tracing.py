"""cyroialign.torch: torch.compile, torch.export and tensors without values."""

import pytest
import torch
from tensors import (
    BINS,
    COUNT,
    IMAGES,
    ORDERS,
    SHAPE,
    bits,
    boxes_for,
    boxes_of_levels,
    pooler,
    pyramid,
    random,
    some_boxes,
    some_boxes_3d,
    some_volume,
)

from cyroialign.torch import RoIAlign, prroi_pool, ps_roi_align, roi_align, roi_align_rotated, roi_pool
from cyroialign.torch import _operators as operators


def opchecked():
    boxes, corners = some_boxes(), boxes_of_levels()
    rows = torch.cat([torch.nn.functional.pad(one, (1, 0), value=i) for i, one in enumerate(corners)])
    sizes = [side for image in IMAGES for side in image]
    for order in ORDERS:
        input, grad_output = random(SHAPE, order=order), random((COUNT, SHAPE[1], *BINS), order=order)
        ps_grad_output = random((COUNT, 4, *BINS), order=order)
        x, grad_levels = [*pyramid(order=order).values()], random((5, 6, *BINS), torch.float64, order)
        shapes = [side for one in x for side in one.shape]
        yield "roi_align", (input.requires_grad_(), boxes.requires_grad_(), BINS, 0.7, 0.7, 2, True)
        yield "roi_align", (input.detach().half(), boxes.detach().double(), BINS, 0.7, 0.7, -1, False)
        yield "roi_align", ((input.detach() * 99).char(), boxes.detach(), BINS, 0.7, 0.7, -1, False)
        yield "roi_align", (input.detach(), boxes[:0].detach(), BINS, 0.7, 0.7, -1, False)
        yield "roi_align_backward", (grad_output.requires_grad_(), boxes, SHAPE, 0.7, 0.7, 2, True)
        settled = (grad_output.detach(), input.detach(), boxes.detach())
        yield "roi_align_boxes_backward", (*settled, 0.7, 0.7, 2, True)
        rotated, settings = boxes_for("roi_align_rotated", boxes.detach()), (0.7, 0.7, -1, True, False)
        yield "roi_align_rotated", (input, rotated, BINS, *settings)
        yield "roi_align_rotated_backward", (grad_output, rotated, SHAPE, *settings)
        yield "prroi_pool", (input, boxes, BINS, 0.7, 0.7)
        yield "prroi_pool_backward", (grad_output, boxes, SHAPE, 0.7, 0.7)
        yield "prroi_pool_boxes_backward", (*settled, 0.7, 0.7)
        yield "ps_roi_align", (input, boxes.detach(), BINS, 0.7, 0.7, 2)
        yield "ps_roi_align_backward", (ps_grad_output.requires_grad_(), boxes.detach(), SHAPE, 0.7, 0.7, 2)
        yield "roi_pool", (input, boxes.detach(), BINS, 0.7, 0.7)
        yield "roi_pool_backward", (grad_output.requires_grad_(), *settled[1:], BINS, 0.7, 0.7)
        values = random(SHAPE, order=order, seed=4).requires_grad_()
        yield "roi_pool_at_winners", (values, *settled[1:], BINS, 0.7, 0.7)
        volume, rows_3d = some_volume(order), some_boxes_3d()
        yield "roi_align_3d", (volume.requires_grad_(), rows_3d, (2, 3, 2), 1.0, 0.7, 0.7, 2, True)
        grad_3d = torch.ones(len(rows_3d), volume.shape[1], 2, 3, 2).requires_grad_()
        yield "roi_align_3d_backward", (grad_3d, rows_3d, volume.shape, 1.0, 0.7, 0.7, 2, True)
        masks, places = random((COUNT, 1, 7, 7), order=order), boxes[:, 1:].detach()
        yield "paste_masks", (masks, places, [20, 31], "torchvision", 1, None)
        yield "paste_masks", (masks.half(), places.double(), [20, 31], "detectron2", 1, None)
        yield "paste_masks", (masks, places, [20, 31], "detectron2", 1, 0.5)
        x = [one.requires_grad_() for one in x]
        yield "roi_align_levels", (x, rows.requires_grad_(), BINS, sizes, [], 2, 20.0, 2)
        yield "roi_align_levels_backward", (grad_levels.requires_grad_(), rows, shapes, sizes, [], 2, 20.0, 2)
        maps = [one.detach() for one in x]
        arguments = (grad_levels.detach(), maps, rows.detach(), sizes, [], 2, 20.0, 2)
        yield "roi_align_levels_boxes_backward", arguments


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own, torch 2.14
@pytest.mark.parametrize(("name", "arguments"), [*opchecked()])
def test_opcheck(name, arguments):
    torch.library.opcheck(getattr(torch.ops.cyroialign, name).default, arguments)


def test_every_operator_was_checked():
    assert {f"cyroialign::{name}" for name, _ in opchecked()} == {one.name() for one in operators.ALL}


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
        turned = torch.nn.functional.pad(boxes.detach(), (0, 1), value=0.4)
        others += (roi_align_rotated(fine, [turned, turned[:1]], 2, 0.5),)
        others = *others, prroi_pool(fine, rows, 2, 0.25)
        return crops, self.align(fine, [boxes, boxes[:1]]), *others


def detected(detector, count=3, order=torch.contiguous_format):
    x = [one.requires_grad_() for one in pyramid(order=order).values()]
    boxes = boxes_of_levels()[0][:count].requires_grad_()
    results = detector(*x, boxes)
    sum((one * one).sum() for one in results).backward()
    return [one.detach() for one in (*results, *(one.grad for one in (*x, boxes)))]


def alike(results, expected):
    """That what is traced gives the bits, in the memory order, that it gives otherwise."""
    assert [*map(bits, results[:5])] == [*map(bits, expected[:5])]
    assert [one.stride() for one in results[:5]] == [one.stride() for one in expected[:5]]
    torch.testing.assert_close(results[5:], expected[5:], rtol=1e-12, atol=1e-12)  # sums in another order


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
    for name in (
        "roi_align",
        "roi_align_rotated",
        "roi_align_levels",
        "prroi_pool",
        "ps_roi_align",
        "roi_pool",
    ):
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

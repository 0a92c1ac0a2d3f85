"""What accelerate_torchvision changes in torchvision's detectors: the RoI stage and the whole.

::

    python benchmarks/torchvision_models.py         # needs: pip install -e ".[torch]" torchvision

Both kinds of kernels take turns on the same model, weights and images; of the times, the medians are shown.
Weights are random: they do not matter for the time, as every proposal and 100 detections an image are kept.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

from cyroialign.bench import machine


def faster_rcnn(**settings):
    """Build a Faster R-CNN on one map of stride 32 with 1280 channels."""
    import torchvision  # here and not above: asv imports each file of this folder
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    backbone = torchvision.models.mobilenet_v2(weights=None).features
    backbone.out_channels = 1280
    return FasterRCNN(
        backbone,
        num_classes=91,
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
        **settings,
    )


def mask_rcnn(**settings):
    """Build a Mask R-CNN on four maps with 256 channels."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **settings)


MODELS = {"FasterRCNN, mobilenet_v2": faster_rcnn, "maskrcnn_resnet50_fpn_v2": mask_rcnn}


class Stage:
    """A stopwatch of the poolers of a model, which also counts what they pool."""

    def __init__(self, model):
        self.seconds, self.rois = 0.0, 0
        for name in ("box_roi_pool", "mask_roi_pool"):
            pooler = getattr(model.roi_heads, name, None)
            if pooler is not None:
                pooler.register_forward_pre_hook(self._start)
                pooler.register_forward_hook(self._stop)

    def _start(self, *_):
        self._started = time.perf_counter()

    def _stop(self, pooler, arguments, output):
        self.seconds += time.perf_counter() - self._started
        self.rois += len(output)


def photograph_and_target(size):
    """Make an image of noise, and two objects on it."""
    import torch

    height, width = size
    corners = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.3, 0.2, 0.9, 0.9]])
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    boxes = corners * torch.tensor([width, height, width, height])
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return torch.rand(3, height, width), {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}


def detect(model, image, target):
    """Detect objects on one image."""
    import torch

    model.eval()
    with torch.inference_mode():
        model([image])


def train(model, image, target):
    """Do one step on one image, without the optimiser."""
    import torch

    model.train()
    model.zero_grad()
    torch.manual_seed(0)  # which proposals the heads are trained with
    sum(model([image], [target]).values()).backward()


def measure(model, run, given, repeat):
    """Find the median seconds of stage and whole, without and with cyroialign, and the number of RoIs."""
    from cyroialign.torch import accelerate_torchvision

    stage, times = Stage(model), {nullcontext: [], accelerate_torchvision: []}
    for turn in range(repeat + 1):
        for context, all in times.items():
            stage.seconds = stage.rois = 0
            with context():
                start = time.perf_counter()
                run(model, *given)
                whole = time.perf_counter() - start
            if turn:  # the first warms up
                all.append((stage.seconds, whole))
    medians = [[statistics.median(column) for column in zip(*all, strict=True)] for all in times.values()]
    return *medians, stage.rois


def main(arguments=None):
    """Measure and print a table."""
    import torch
    import torchvision

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1088), help="of the image: %(default)s")
    parser.add_argument("--repeat", type=int, default=5, help="turns: %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    given = photograph_and_target(options.size)
    sides = {"min_size": min(options.size), "max_size": max(options.size), "box_score_thresh": 0.0}
    print(
        f"{machine.processor()}; torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"{options.threads} threads, one image of {options.size[0]} by {options.size[1]}, "
        f"medians of {options.repeat}, milliseconds: torchvision -> cyroialign\n"
    )
    print("| model | | RoIs | RoI stage, forward | whole |\n| --- | --- | --- | --- | --- |")
    for name, build in MODELS.items():
        for what, run in (("inference", detect), ("training step", train)):
            before, after, rois = measure(build(**sides), run, given, options.repeat)
            cells = [
                f"{1e3 * one:.0f} -> {1e3 * other:.0f} ({one / other:.2f} times as fast)"
                for one, other in zip(before, after, strict=True)
            ]
            print(f"| {name} | {what} | {rois}", *cells, sep=" | ", end=" |\n", flush=True)


if __name__ == "__main__":
    main()

"""Make the goldens torchvision_*.npz: what torchvision makes of random numbers.

    python tests/data/make_torchvision.py              make all of them anew
    python tests/data/make_torchvision.py --check      compare what they hold with what is made of their own
                                                       inputs today
    python tests/data/make_torchvision.py --only torchvision_fpn

The files of today were made by torchvision 0.29.2 on torch 2.15, from other random numbers of the same kinds.
A file made anew holds others again: the tests read all they need from it.
"""

import argparse
import json
import pathlib
from collections import OrderedDict

import numpy as np
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import (
    FeaturePyramidNetwork,
    MultiScaleRoIAlign,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_pool,
)
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

HERE = pathlib.Path(__file__).parent
CASES = 48
MOST_BINS = 24  # of a position-sensitive case: its maps have as many channels
TOLERANCE = {"float32": 4e-6, "float64": 1e-12}  # of the largest value
POOLS = {"roi_pool": roi_pool, "ps_roi_align": ps_roi_align, "ps_roi_pool": ps_roi_pool}


def tensor(array, grad=False):
    return torch.from_numpy(np.ascontiguousarray(array)).requires_grad_(grad)


def pooled(function, input, boxes, grad_output, *arguments, **settings):
    """The output, and the gradient to the input, of one call."""
    leaf = tensor(input, grad=True)
    output = function(leaf, tensor(boxes), *arguments, **settings)
    if not len(boxes):
        return output.detach().numpy(), np.zeros_like(input)
    [gradient] = torch.autograd.grad(output, leaf, tensor(grad_output))
    return output.detach().numpy(), gradient.numpy()


# RoIAlign: boxes inside, across, outside, tiny, zero-size and larger than the map; odd cases are float64


def draw_box(rng, width, height):
    """A box in pixels of a map, by one of the six kinds."""
    size = np.array([width, height])
    center, side = rng.uniform(0, 1, 2) * size, rng.uniform(0.1, 0.9, 2) * size
    kind = rng.integers(6)
    if kind == 1:
        center = rng.integers(2, size=2) * size
    elif kind == 2:
        center = center + rng.choice([-2, 2], 2) * size
    elif kind == 3:
        side = rng.uniform(0, 0.1, 2)
    elif kind == 4:
        side = np.zeros(2)
    elif kind == 5:
        side = rng.uniform(2, 5, 2) * size
    return np.concatenate([center - side / 2, center + side / 2])


def draw_roi_align(rng):
    files, cases = {}, []
    for case in range(CASES):
        dtype = np.float64 if case % 2 else np.float32
        shape = (rng.integers(1, 3), rng.choice([1, 3, 9]), *rng.integers(1, 28, 2))
        sides = [int(side) for side in rng.choice([1, 2, 3, 5, 7, 8, 9, 14, 16], 2)]
        settings = {
            "output_size": [7, 7] if rng.random() < 0.3 else sides,
            "spatial_scale": float(rng.choice([0.0625, 0.25, 0.37, 0.5, 1.0])),
            "sampling_ratio": int(rng.integers(-1, 5)),
            "aligned": bool(rng.integers(2)),
        }
        count = 0 if case % 20 == 0 else int(rng.choice([1, 3, 6]))
        boxes = np.zeros((count, 5))
        for box in boxes:
            box[0] = rng.integers(shape[0])
            box[1:] = draw_box(rng, shape[3], shape[2]) / settings["spatial_scale"]
        cases.append(settings)
        files[f"{case:03}/input"] = rng.standard_normal(shape).astype(dtype)
        files[f"{case:03}/boxes"] = boxes.round(2).astype(dtype)
        grads = rng.standard_normal((count, shape[1], *settings["output_size"]))
        files[f"{case:03}/grad_output"] = grads.astype(dtype)
    return {"cases": np.array(json.dumps(cases)), **files}


def of_roi_align(given):
    results = {}
    for case, settings in enumerate(json.loads(str(given["cases"]))):
        input, boxes, grads = (given[f"{case:03}/{name}"] for name in ("input", "boxes", "grad_output"))
        output, grad_input = pooled(roi_align, input, boxes, grads, **settings)
        results |= {f"{case:03}/output": output, f"{case:03}/grad_input": grad_input}
    return results


# The pools: RoIPool of the same maps, the position-sensitive ones of maps with a channel for each bin


def with_roi_align(given):
    """The settings and arrays of torchvision_roi_align.npz, which those of the pools belong to."""
    return {**np.load(HERE / "torchvision_roi_align.npz"), **given}


def draw_pools(rng):
    given, drawn = with_roi_align({}), {}
    for case, settings in enumerate(json.loads(str(given["cases"]))):
        rows, columns = settings["output_size"]
        input, boxes = given[f"{case:03}/input"], given[f"{case:03}/boxes"]
        if len(boxes) and rows * columns <= MOST_BINS:
            shape = (input.shape[0], rows * columns, *input.shape[2:])
            drawn[f"{case:03}/ps_input"] = rng.standard_normal(shape).astype(input.dtype)
            for name in ("ps_roi_align", "ps_roi_pool"):
                grads = rng.standard_normal((len(boxes), 1, rows, columns)).astype(input.dtype)
                drawn[f"{case:03}/{name}_grad_output"] = grads
    return drawn


def of_pools(drawn):
    given, results = with_roi_align(drawn), {}
    for case, settings in enumerate(json.loads(str(given["cases"]))):
        for name, function in POOLS.items():
            input = f"{case:03}/{'input' if name == 'roi_pool' else 'ps_input'}"
            if input not in given:
                continue
            grads = given[f"{case:03}/{'' if name == 'roi_pool' else name + '_'}grad_output"]
            arguments = [settings["output_size"], settings["spatial_scale"]]
            if name == "ps_roi_align":
                arguments.append(settings["sampling_ratio"])
            output, gradient = pooled(function, given[input], given[f"{case:03}/boxes"], grads, *arguments)
            results[f"{case:03}/{name}"] = output
            if len(output):
                results[f"{case:03}/{name}_grad_input"] = gradient
    return results


# The pyramid: maps of strides 4, 8, ...; images of odd sizes, so that the scales are rounded


def draw_multiscale(rng):
    files, cases = {}, []
    for case, count in enumerate((2, 3, 4, 2)):
        height, width = (int(side) for side in rng.integers(110, 200, 2))
        cases.append(
            {
                "featmap_names": [str(level) for level in range(count)],
                "output_size": [7, 7] if case % 2 else [3, 5],
                "sampling_ratio": 2 if case % 2 else -1,
                "canonical_scale": 56 if case % 2 else 224,
                "canonical_level": 4,
                "image_shapes": [[height, width]] * 2,
            }
        )
        boxes = []
        for _ in range(2):
            corner = rng.uniform(-0.1, 0.9, (int(rng.integers(2, 8)), 2)) * [width, height]
            sides = np.exp(rng.uniform(0, 5, corner.shape))
            boxes.append(np.hstack([corner, corner + sides]).round(1).astype(np.float32))
            files[f"{case:03}/boxes_{len(boxes) - 1}"] = boxes[-1]
        for level in range(count):
            size = [-(-side // 2 ** (level + 2)) for side in (height, width)]
            files[f"{case:03}/feature_{level}"] = rng.standard_normal((2, 5, *size)).astype(np.float32)
        shape = (sum(map(len, boxes)), 5, *cases[-1]["output_size"])
        files[f"{case:03}/grad_output"] = rng.standard_normal(shape).astype(np.float32)
    return {**files, "cases": np.array(json.dumps(cases))}


def of_multiscale(given):
    results = {}
    for case, settings in enumerate(json.loads(str(given["cases"]))):
        shapes = [tuple(shape) for shape in settings.pop("image_shapes")]
        names = settings["featmap_names"]
        x = OrderedDict((name, tensor(given[f"{case:03}/feature_{name}"], grad=True)) for name in names)
        boxes = [tensor(given[f"{case:03}/boxes_{image}"]) for image in range(len(shapes))]
        output = MultiScaleRoIAlign(**settings)(x, boxes, shapes)
        grads = tensor(given[f"{case:03}/grad_output"])
        gradients = torch.autograd.grad(output, list(x.values()), grads, allow_unused=True)
        results[f"{case:03}/output"] = output.detach().numpy()
        for name, gradient in zip(names, gradients, strict=True):
            unused = np.zeros(x[name].shape, np.float32)
            results[f"{case:03}/grad_feature_{name}"] = unused if gradient is None else gradient.numpy()
    return results


# The feature pyramid network


def draw_fpn(rng):
    channels, sizes, out = (6, 10, 14, 18), ((38, 45), (19, 22), (10, 11), (5, 5)), 12
    files = {}
    for level, (count, size) in enumerate(zip(channels, sizes, strict=True), 2):
        files[f"input/c{level}"] = rng.standard_normal((2, count, *size)).astype(np.float32)
    for name, value in FeaturePyramidNetwork(channels, out).state_dict().items():
        files[f"weight/{name}"] = (0.1 * rng.standard_normal(value.shape)).astype(np.float32)
    return files


def of_fpn(given):
    def part(prefix):
        return OrderedDict(
            (name.removeprefix(prefix), tensor(array))
            for name, array in given.items()
            if name.startswith(prefix)
        )

    x, weights = part("input/"), part("weight/")
    out = weights["inner_blocks.0.0.bias"].shape[0]
    network = FeaturePyramidNetwork([one.shape[1] for one in x.values()], out, LastLevelMaxPool())
    network.load_state_dict(weights)
    with torch.no_grad():
        return {f"output/{name}": one.numpy() for name, one in network(x).items()}


# Anchors


def draw_anchors(rng):
    return {
        "sizes": np.array(json.dumps([[32], [64], [128, 181]])),
        "aspect_ratios": np.array(json.dumps([[0.5, 1, 2]] * 3)),
        "image_size": np.array([208, 272]),
        "grid_sizes": np.array([[13, 17], [7, 9], [4, 5]]),
    }


def of_anchors(given):
    sizes, ratios = (json.loads(str(given[name])) for name in ("sizes", "aspect_ratios"))
    generator = AnchorGenerator([tuple(one) for one in sizes], [tuple(one) for one in ratios])
    height, width = given["image_size"].tolist()
    maps = [torch.zeros(1, 1, *size) for size in given["grid_sizes"].tolist()]
    images = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    return {"anchors": generator(images, maps)[0].numpy()}


FILES = {
    "torchvision_roi_align": (draw_roi_align, of_roi_align),
    "torchvision_pools": (draw_pools, of_pools),
    "torchvision_multiscale": (draw_multiscale, of_multiscale),
    "torchvision_fpn": (draw_fpn, of_fpn),
    "torchvision_anchors": (draw_anchors, of_anchors),
}


def check(name, results):
    """Compare results, made of the inputs that a file holds, with those that it holds."""
    given = dict(np.load(HERE / f"{name}.npz"))
    made = results(given)
    for key, array in made.items():
        atol = TOLERANCE[array.dtype.name] * np.nan_to_num(np.abs(given[key])).max(initial=0)
        np.testing.assert_allclose(given[key], array, rtol=0, atol=atol, err_msg=f"{name}: {key}")
    print(f"{name}: {len(made)} results of {len(given)} arrays agree")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", choices=FILES, action="append")
    options = parser.parse_args()
    for name in options.only or FILES:
        draw, results = FILES[name]
        if options.check:
            check(name, results)
        else:
            drawn = draw(np.random.default_rng(0))
            np.savez_compressed(HERE / f"{name}.npz", **drawn, **results(drawn))


if __name__ == "__main__":
    main()

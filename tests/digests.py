"""A grid of calls over all operators, and digests of the bits they gave: data/digests.json.

    python tests/digests.py            compares, and names the calls that differ
    python tests/digests.py --write    records

Recorded before the restructuring of the kernels. Results have the same bits at every SIMD level and for every
number of threads, so a change of bits must be a decision: a commit that records anew says which calls changed
and why.

Each call draws its settings and numbers from its own name, so that a new call leaves the others as they are.
Inputs are made of integers and fractions by exact or correctly rounded steps, and are the same everywhere.
"""

import hashlib
import itertools
import json
import math
import pathlib
import sys
import zlib
from dataclasses import dataclass

import numpy as np
from narrow import BYTES, INSTALLED, NARROW, dtype_of, result_of

import cyroialign

DATA = pathlib.Path(__file__).parent / "data" / "digests.json"
MODES = ("avg", "max", "onnx_max")
FORWARD = tuple(f"{name} {mode}" for name in ("roi_align", "MultiScaleRoIAlign") for mode in MODES)
FORWARD += ("roi_pool", "ps_roi_align", "ps_roi_pool", "prroi_pool")
FORWARD += ("roi_align_3d",)
FORWARD += ("roi_align_rotated",)
FORWARD += ("crop_and_resize bilinear", "crop_and_resize nearest")
PASTES = ("paste_masks torchvision", "paste_masks detectron2", "paste_masks threshold")
DIRECTIONS = (*FORWARD, *(f"{name} backward" for name in FORWARD), "roi_align_boxes_backward")
DIRECTIONS += ("prroi_pool_boxes_backward",)
DIRECTIONS += ("crop_and_resize_boxes_backward", *PASTES)
DTYPES = ("float32", "float64", *NARROW)
WITHOUT_MAPS = ("roi_align avg backward", "ps_roi_align backward", "ps_roi_pool backward")
WITHOUT_MAPS += ("prroi_pool backward",)
WITHOUT_MAPS += ("roi_align_3d backward",)
WITHOUT_MAPS += tuple(f"crop_and_resize {method} backward" for method in ("bilinear", "nearest"))
WITHOUT_MAPS += ("roi_align_rotated backward",)
LAYOUTS = ("NCHW", "NHWC")
BOXES = ("ordinary", "outside", "zero-size", "inverted", "huge", "whole pixels")
SMALL = (*BOXES, "mixed", "spoiled")  # with boxes of all kinds; with NaN, infinities and -0 as well

# What a small call draws from.
CHANNELS = (1, 3, 8, 17, 40)
MAPS = ((1, 1), (5, 1), (8, 3), (9, 7), (1, 40), (16, 24), (23, 31), (4, 150), (37, 18))
SIZES = ((1, 1), (3, 2), (7, 7), (14, 14))
SCALES = (1.0, 0.5, 0.25, 0.0625, 0.37)
RATIOS = (-1, 0, 1, 2, 3)
FINEST = 0.25  # the scale of a pyramid's first map
DEPTH, BINS_Z = 5, 2  # of volumes
BOX_DTYPES = ("float32", "float32", "float64", "int64")


@dataclass(frozen=True)
class Call:
    """One call; `shape` is (N, C, H, W) of the map, C the channels of the result."""

    direction: str
    dtype: str
    layout: str
    boxes: str
    shape: tuple[int, int, int, int]
    rois: int
    output_size: tuple[int, int]
    spatial_scale: float = 0.25
    sampling_ratio: int = 2
    aligned: bool = True
    box_dtype: str = "float32"
    spoiled: bool = False
    threads: tuple[int, ...] = (1,)


def generator(name):
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def draw(rng, choices):
    return choices[rng.integers(len(choices))]


def small(direction, dtype, layout, scene):
    """A call with a drawn value of each setting."""
    rng = generator(f"settings of {direction} {dtype} {layout} {scene}")
    output_size, channels = draw(rng, SIZES), draw(rng, CHANNELS)
    if direction.startswith("ps_") and output_size[0] > 3:
        channels = min(channels, 3)  # the map has as many for each bin
    shape = (draw(rng, (1, 2, 3)), channels, *draw(rng, MAPS))
    rois = draw(rng, (1, 6, 13))
    sampling = (draw(rng, SCALES), draw(rng, RATIOS), draw(rng, (False, True)))
    spoiled = scene == "spoiled"
    boxes = "mixed" if spoiled else scene
    box_dtype = draw(rng, BOX_DTYPES)
    return Call(direction, dtype, layout, boxes, shape, rois, output_size, *sampling, box_dtype, spoiled)


def calls():
    """Return (direction, the rest of the name) -> call."""
    grid = {}
    for direction, dtype, scene in itertools.product(PASTES, DTYPES, SMALL):
        grid[direction, f"{dtype} {scene}"] = small(direction, dtype, "NCHW", scene)
    for direction in PASTES:
        large = Call(direction, "float32", "NCHW", "mixed", (1, 1, 100, 76), 40, (1, 1), threads=(1, 3))
        grid[direction, "float32 large"] = large
    of_maps = (direction for direction in DIRECTIONS if direction not in PASTES)
    for direction, layout in itertools.product(of_maps, LAYOUTS):
        for dtype, scene in itertools.product(DTYPES, SMALL):
            if dtype not in BYTES or direction not in WITHOUT_MAPS:
                grid[direction, f"{dtype} {layout} {scene}"] = small(direction, dtype, layout, scene)
        for dtype in ("float32", "float64", "float16"):
            # So large an adaptive map that kernels plan some 270 to 540 RoIs at a time.
            many = Call(direction, dtype, layout, "ordinary", (2, 2, 200, 272), 600, (3, 2), sampling_ratio=0)
            grid[direction, f"{dtype} {layout} many"] = many
        for dtype in ("float32", "float16"):
            # Enough bins for several threads.
            large = Call(direction, dtype, layout, "mixed", (2, 21, 50, 38), 40, (7, 5), threads=(1, 3))
            grid[direction, f"{dtype} {layout} large"] = large
    averages = ("roi_align avg", "MultiScaleRoIAlign avg")
    for direction, layout, dtype in itertools.product(averages, LAYOUTS, ("float32", "float16")):
        for height, width in ((14, 14), (3, 2)):
            # A little more than 8 MiB of results, which are non-temporal.
            rois = 2**23 // (np.dtype(dtype).itemsize * 40 * height * width) + 1
            streamed = Call(direction, dtype, layout, "ordinary", (1, 40, 20, 24), rois, (height, width))
            grid[direction, f"{dtype} {layout} streamed {height}x{width}"] = streamed
    return grid


def corners_of(rng, kind, count, height, width):
    """Corners (x1, y1, x2, y2) in pixels of the map."""
    if kind == "mixed":
        several = [corners_of(rng, one, count, height, width) for one in BOXES]
        return np.stack(several)[rng.integers(len(BOXES), size=count), np.arange(count)]
    size = np.array([width, height])
    first = (rng.random((count, 2)) - 0.125) * size
    extent = rng.random((count, 2)) * size * (0.5 if kind == "ordinary" else 1)
    some = rng.integers(2, size=(count, 2))
    if kind == "outside":
        first += rng.integers(-1, 2, (count, 2)) * size  # wholly or in part
    elif kind == "zero-size":
        extent *= some
    elif kind == "inverted":
        extent *= 2 * some - 1
    elif kind == "huge":
        first -= 1e9 * some
        extent += 1e9 * rng.integers(2, size=(count, 2))
    corners = np.hstack([first, first + extent])
    return np.floor(corners) if kind == "whole pixels" else corners


def numbers(rng, shape, dtype, layout, spoiled):
    """Numbers of some 16 binades, in the memory order of a layout."""
    if dtype in BYTES:
        values = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, size=shape, dtype=dtype)
    else:
        made_as = np.float64 if dtype == np.float64 else np.float32
        values = np.ldexp(rng.random(shape, made_as) - made_as(0.5), rng.integers(-12, 5, shape, np.int32))
        if spoiled:
            values.flat[::13] = np.resize([np.nan, np.inf, -0.0, -np.inf], values.flat[::13].shape)
        values = values.astype(dtype)
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if layout == "NHWC" else values


def inputs(call, name):
    """Return the maps (those of a pyramid, or one), the gradient to the result, and boxes, one a row."""
    rng = generator(f"numbers of {name}")
    images, channels, height, width = call.shape
    dtype, levels, scale = dtype_of(call.dtype), 1, call.spatial_scale
    if call.direction.startswith("MultiScale"):
        height, levels, scale = max(height, 4), 3, FINEST
    of_map = channels * math.prod(call.output_size) if call.direction.startswith("ps_") else channels
    depth, bins_z = (DEPTH, BINS_Z) if call.direction.startswith("roi_align_3d") else (1, 1)
    shapes = [(images, of_map, depth * height >> i, max(width >> i, 1)) for i in range(levels)]
    maps = [numbers(rng, shape, dtype, call.layout, call.spoiled) for shape in shapes]
    shape = (call.rois, channels, bins_z * call.output_size[0], call.output_size[1])
    grads = numbers(rng, shape, result_of(dtype), call.layout, call.spoiled)
    index = np.sort(rng.integers(images, size=call.rois))
    corners = corners_of(rng, call.boxes, call.rois, height, width) / scale
    if call.direction.startswith("roi_align_rotated"):
        first, last = corners[:, :2], corners[:, 2:]
        corners = np.hstack([(first + last) / 2, last - first, 8 * rng.random((call.rois, 1)) - 4])
    rows = np.column_stack([index, np.floor(corners) if call.box_dtype == "int64" else corners])
    return maps, grads, rows.astype(call.box_dtype)


def results_of_volumes(call, name, num_threads):
    """Return the array that a call gives of the map as so many slices, one below the other."""
    [maps], grads, boxes = inputs(call, name)
    z = corners_of(generator(f"slices of {name}"), call.boxes, call.rois, DEPTH, DEPTH)[:, ::2]
    scales = (call.spatial_scale / 2, call.spatial_scale, call.spatial_scale)
    boxes = np.insert(boxes, [3, 5], (z / scales[0]).astype(call.box_dtype), axis=1)
    rest = (scales, call.sampling_ratio, call.aligned)
    first = call.layout == "NCHW"
    axis = 2 if first else 1
    options = {"layout": "NCDHW" if first else "NDHWC", "num_threads": num_threads}
    maps = maps.reshape(*maps.shape[:axis], DEPTH, -1, *maps.shape[axis + 1 :])
    if not call.direction.endswith(" backward"):
        return [cyroialign.roi_align_3d(maps, boxes, (BINS_Z, *call.output_size), *rest, **options)]
    grads = grads.reshape(*grads.shape[:axis], BINS_Z, -1, *grads.shape[axis + 1 :])
    return [cyroialign.roi_align_3d_backward(grads, boxes, maps.shape, *rest, **options)]


def results(call, name, num_threads):
    """Return the arrays that a call gives: one, or a gradient to each map of a pyramid."""
    if call.direction.startswith("roi_align_3d"):
        return results_of_volumes(call, name, num_threads)
    maps, grads, boxes = inputs(call, name)
    operator, _, mode = call.direction.removesuffix(" backward").partition(" ")
    backward = call.direction.endswith(" backward")
    sampling = (call.spatial_scale, call.sampling_ratio, call.aligned)
    shared = {"layout": call.layout, "num_threads": num_threads}
    if operator == "paste_masks":
        side = call.output_size[0] * 4
        masks = numbers(
            generator(f"masks of {name}"), (call.rois, 1, side, side), maps[0].dtype, "NCHW", call.spoiled
        )
        rule = {"threshold": 0.001} if mode == "threshold" else {"rule": mode}
        return [cyroialign.paste_masks(masks, boxes[:, 1:], call.shape[2:], num_threads=num_threads, **rule)]
    if operator.startswith("crop_and_resize"):
        return [crop(call, maps[0], grads, boxes, shared)]
    if operator == "MultiScaleRoIAlign":
        height, width = maps[0].shape[2:] if call.layout == "NCHW" else maps[0].shape[1:3]
        image = (int(height / FINEST), int(width / FINEST))
        pool = cyroialign.MultiScaleRoIAlign(
            ["0", "1", "2"],
            call.output_size,
            call.sampling_ratio,
            canonical_scale=image[0] / 8,
            canonical_level=3,
            aligned=call.aligned,
            mode=mode,
            **shared,
        )
        by_image = [boxes[boxes[:, 0] == i, 1:] for i in range(len(maps[0]))]
        given = (dict(zip("012", maps, strict=True)), by_image, [image] * len(by_image))
        return list(pool.backward(grads, *given).values()) if backward else [pool(*given)]
    if operator == "roi_align_boxes_backward":
        return [cyroialign.roi_align_boxes_backward(grads, *maps, boxes, *sampling, **shared)]
    if operator == "prroi_pool_boxes_backward":
        return [cyroialign.prroi_pool_boxes_backward(grads, *maps, boxes, call.spatial_scale, **shared)]

    function = getattr(cyroialign, f"{operator}_backward" if backward else operator)
    sampling = sampling[: {"roi_align": 3, "roi_align_rotated": 3, "ps_roi_align": 2}.get(operator, 1)]
    if mode:
        shared["mode"] = mode
    if not backward:
        return [function(*maps, boxes, call.output_size, *sampling, **shared)]
    if operator == "roi_pool":
        return [function(grads, *maps, boxes, call.output_size, *sampling, **shared)]
    if mode in ("max", "onnx_max"):
        shared["input"] = maps[0]
    return [function(grads, boxes, maps[0].shape, *sampling, **shared)]


def crop(call, image, grads, boxes, shared):
    """Return what crop_and_resize or a gradient gives for boxes in pixels of the map, scaled."""
    index = boxes[:, 0].astype(np.int64)
    steps = np.maximum(np.array(call.shape[2:]) - 1, 1) / call.spatial_scale
    shares = boxes[:, [2, 1, 4, 3]] / np.tile(steps, 2).astype("f4" if boxes.dtype == "f4" else "f8")
    method = call.direction.split()[1:2]
    if not method:
        return cyroialign.crop_and_resize_boxes_backward(grads, image, shares, index, **shared)
    if call.direction.endswith(" backward"):
        return cyroialign.crop_and_resize_backward(grads, shares, index, image.shape, *method, **shared)
    return cyroialign.crop_and_resize(image, shares, index, call.output_size, *method, 0.375, **shared)


def digest(call, name):
    """Return the digest of shapes, dtypes and bytes, all NaN alike; several if numbers of threads differ."""
    digests = []
    for num_threads in call.threads:
        digest = hashlib.blake2b(digest_size=8)
        for array in results(call, name, num_threads):
            digest.update(f"{array.dtype.name} {array.shape} ".encode())
            bits = np.array(array, order="C").view(f"u{array.dtype.itemsize}")
            bits[np.isnan(array)] = ~bits.dtype.type(0)
            digest.update(bits.astype(bits.dtype.newbyteorder("<")).tobytes())
        digests.append(digest.hexdigest())
    return " or ".join(sorted(set(digests)))


def digests(direction):
    """Return the rest of the name -> digest, of the calls of one direction whose dtype is installed."""
    return {
        rest: digest(call, f"{direction} {rest}")
        for (whose, rest), call in calls().items()
        if whose == direction and (call.dtype in INSTALLED or call.dtype not in NARROW)
    }


def differing(direction, found):
    """Names of the calls whose digest is not the recorded one."""
    recorded = json.loads(DATA.read_text()).get(direction, {})
    return [f"{direction} {rest}" for rest, digest in found.items() if recorded.get(rest) != digest]


if __name__ == "__main__":
    found = {direction: digests(direction) for direction in DIRECTIONS}
    if sys.argv[1:] == ["--write"]:
        DATA.write_text(json.dumps(found, indent=0) + "\n")
    names = [name for direction in DIRECTIONS for name in differing(direction, found[direction])]
    print(*names, f"{len(names)} of {sum(map(len, found.values()))} calls differ", sep="\n")
    sys.exit(bool(names))

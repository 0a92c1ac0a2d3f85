"""The stages of a detector, from a photograph to pooled regions, with NumPy alone.

    python examples/pipeline.py pipeline.png

    photograph    of an astronaut, from scikit-image
    backbone      fixed filters: three colours, and the edges of each in four directions, at strides 4 to 32
    pyramid       FeaturePyramidNetwork, with weights that make each level the mean of itself and all coarser
    proposals     of the 65 280 boxes of AnchorGenerator, the 2000 with most edges where they are centred
    pooling       MultiScaleRoIAlign to 7 x 7 bins: the mean of their samples, and the maximum

Nothing is learnt, so every channel has a visible meaning. The time of each stage is printed, and
a picture shows some channels of a few regions.
"""

import sys
import time

import matplotlib
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from skimage.data import astronaut

from cyroialign import AnchorGenerator, FeaturePyramidNetwork, MultiScaleRoIAlign

STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
COLOURS = np.array([[1 / 3, 1 / 3, 1 / 3], [1, -1, 0], [-0.5, -0.5, 1]], np.float32)  # of red, green and blue
ANGLES = np.deg2rad([0, 45, 90, 135])  # across the edges: 0 is an upright edge
PROPOSALS = 500  # a level

# What the picture shows: channels, each with its colours and their least value, as a part of the greatest ...
CHANNELS = {
    "brightness": (0, "gray", 0),
    "blue − yellow": (2, "PuOr", -1),
    "upright edges": (3, "magma", 0),
    "level edges": (5, "magma", 0),
}
# ... of the proposals that are nearest to things in the photograph (x1, y1, x2, y2).
THINGS = {
    "face": (160, 10, 300, 190),
    "shuttle": (354, 0, 474, 284),
    "badge": (130, 346, 212, 426),
    "flag": (0, 60, 130, 330),
}
MARKS = ("#56B4E9", "#F0E442", "#E69F00", "#CC79A7")


def backbone(image):
    """(3, H, W) red, green and blue -> for each level a map (1, 15, H / stride, W / stride).

    Channels 0 to 2 are the colours, 3 to 6 the edges of the first in the order of ANGLES, and so on.
    """
    half = halved(np.tensordot(COLOURS, image, 1))
    maps = {}
    for name in STRIDES:
        edges = gabor_energy(half).reshape(-1, *half.shape[1:])
        half = halved(half)
        maps[name] = np.concatenate([half, halved(edges)])[None]
    return maps


def halved(maps):
    """The mean of each two by two pixels."""
    channels, height, width = maps.shape
    return maps.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def gabor_energy(maps):
    """How strong edges are in each direction: (C, H, W) -> (C, 4, H, W).

    A Gabor filter is a wave under a Gaussian. Of two, a quarter of a wave apart, the length of both
    responses does not depend on where in the filter the edge is, nor on which side of it is brighter.
    """
    y, x = np.mgrid[-3:4, -3:4]
    across = np.cos(ANGLES)[:, None, None] * x + np.sin(ANGLES)[:, None, None] * y
    waves = np.exp(1j * np.pi / 2 * across)  # four pixels long
    gauss = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    gauss /= gauss.sum()
    waves -= (waves * gauss).sum(axis=(1, 2), keepdims=True)  # so that a plain ground gives 0
    filters = (2 * waves * gauss).reshape(4, 49)
    filters = np.concatenate([filters.real, filters.imag]).astype(np.float32)
    padded = np.pad(maps, ((0, 0), (3, 3), (3, 3)), "edge")
    windows = sliding_window_view(padded, (7, 7), axis=(1, 2)).reshape(*maps.shape, 49)
    even, odd = np.split(np.moveaxis(windows @ filters.T, 3, 1), 2, axis=1)
    return np.hypot(even, odd)


def averaging_pyramid(channels):
    """A FeaturePyramidNetwork that keeps each channel for itself.

    Its 1 x 1 weights are the identity. So a level is summed with all coarser ones, and its 3 x 3 weights turn
    the sum into a mean, smoothed by (1, 2, 1) / 4 on each axis.
    """
    network = FeaturePyramidNetwork([channels] * len(STRIDES), channels)
    identity, smooth = np.eye(channels, dtype=np.float32)[:, :, None, None], np.array([1, 2, 1]) / 4
    state = network.state_dict()  # its biases are zero
    for level in range(len(STRIDES)):
        state[f"inner_blocks.{level}.0.weight"] = identity
        mean = identity * np.outer(smooth, smooth) / (len(STRIDES) - level)
        state[f"layer_blocks.{level}.0.weight"] = mean.astype(np.float32)
    network.load_state_dict(state)
    return network


def propose(pyramid, image_size):
    """2000 boxes: a detector asks a network for the best of its anchors, this takes those with most edges."""
    anchors = AnchorGenerator(sizes=(40, 80, 160, 320), aspect_ratios=(0.5, 1.0, 2.0))
    maps = [level[0] for level in pyramid.values()]
    boxes = []
    for level, of_level in zip(maps, anchors(image_size, [level.shape[1:] for level in maps]), strict=True):
        edges = level[3:].sum(axis=0).ravel().repeat(3)  # three anchors a pixel
        best = np.argsort(-edges, kind="stable")[:PROPOSALS]
        boxes.append(of_level[best])
    height, width = image_size
    return np.concatenate(boxes).clip(0, [width, height, width, height]).astype(np.float32)


def timed(stage, function, *arguments):
    """Call the function and say how long it took."""
    start = time.perf_counter()
    result = function(*arguments)
    print(f"{stage:52} {1e3 * (time.perf_counter() - start):7.1f} ms")
    return result


def overlap(boxes, box):
    """Intersection over union of each of the boxes with one."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    both = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return both / (areas + np.prod(np.subtract(box[2:], box[:2])) - both)


def plot(photo, boxes, pooled, file):
    """Draw the photograph, and for some regions a few channels of what was pooled, means beside maxima."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(16, 5.4))
    whole = figure.add_axes((0.005, 0.02, 0.32, 0.9))
    whole.imshow(photo, extent=(0, photo.shape[1], photo.shape[0], 0))
    whole.set_title(f"every tenth of {len(boxes)} proposals, and four of them", size="medium")
    whole.axis("off")
    for x1, y1, x2, y2 in boxes[::10]:
        whole.add_patch(pyplot.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", alpha=0.15))

    places = {"left": 0.35, "right": 0.995, "top": 0.87, "bottom": 0.02, "wspace": 0.07, "hspace": 0.07}
    rows = figure.subplots(len(THINGS), 1 + 2 * len(CHANNELS), gridspec_kw=places)
    shown = [overlap(boxes, thing).argmax() for thing in THINGS.values()]
    for number, thing, mark, row in zip(shown, THINGS, MARKS, rows, strict=True):
        x1, y1, x2, y2 = boxes[number]
        whole.add_patch(pyplot.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=mark, linewidth=2.5))
        row[0].imshow(photo[int(y1) : int(y2), int(x1) : int(x2)], aspect="auto")
        row[0].set_ylabel(thing, size="medium")
        for column, (channel, colours, least) in enumerate(CHANNELS.values()):
            high = max(np.abs(crops[shown, channel]).max() for crops in pooled.values())
            for axes, crops in zip(row[1 + 2 * column :], pooled.values(), strict=False):
                axes.imshow(crops[number, channel], colours, vmin=least * high, vmax=high, aspect="auto")
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=mark, linewidth=2)
    rows[0, 0].set_title("proposal", size="medium")
    for column, name in enumerate(CHANNELS):
        first, second = rows[0, 1 + 2 * column : 3 + 2 * column]
        first.set_title("mean", size="medium")
        second.set_title("max", size="medium")
        first.text(1.035, 1.28, name, transform=first.transAxes, ha="center", weight="bold")
    figure.savefig(file, dpi=120)


def main(file):
    """Run the stages, say how long each took, and draw."""
    photo = astronaut()
    image = photo.transpose(2, 0, 1) / np.float32(255)
    size = image.shape[1:]
    maps = timed("backbone, 15 channels, strides 4 to 32", backbone, image)
    pyramid = timed("FeaturePyramidNetwork", averaging_pyramid(15), maps)
    boxes = timed("AnchorGenerator, and the best 2000", propose, pyramid, size)
    pooled = {}
    for how, mode in (("mean", "avg"), ("max", "max")):
        pool = MultiScaleRoIAlign(list(STRIDES), 7, sampling_ratio=2, aligned=True, mode=mode)
        pooled[how] = timed(f"MultiScaleRoIAlign, 7 x 7, mode={mode!r}", pool, pyramid, [boxes], [size])
    timed("picture", plot, photo, boxes, pooled, file)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

"""Refine boxes by gradient ascent on a score map, as the trackers ATOM and DiMP do.

    python examples/refine_boxes.py

A tracker has found its target to a few pixels and draws rough boxes around the place. A network gives a map
of small resolution, here a noisy one: 1 where the target is, 0 elsewhere. The score of a box is

    score = area * (mean of the map in the box - 1/2)

which grows as long as an edge moves over more of the target than of what surrounds it, and is highest where
the box is the target. Precise RoI Pooling gives the mean exactly, and its gradient to the edges of the box,
which is continuous: boxes find their place to a fraction of a pixel of the map. The best three of them vote.
"""

import numpy as np

from cyroialign import prroi_pool, prroi_pool_boxes_backward

STRIDE = 16  # pixels of the image for each of the map
MAP = 22  # pixels of the map on each side
TARGETS = np.array(  # x1, y1, x2, y2 in pixels of the image, each in a frame of its own
    [
        [71.3, 92.8, 190.1, 171.5],
        [150.2, 60.7, 241.9, 282.4],
        [40.5, 210.3, 305.8, 300.6],
        [188.4, 140.9, 286.2, 223.3],
        [100.7, 30.1, 260.6, 310.2],
    ]
)
ROUGH = 10  # boxes that each frame starts from
BEST = 3
STEPS = 40
RATE = 24.0  # pixels that an edge moves in a step, times the map under it less 1/2


def score_maps(rng):
    """The maps, (frames, 1, MAP, MAP): how much of each pixel the target covers, and noise.

    Precise RoI Pooling has the centre of pixel i at i, so that it reaches from i - 1/2 to i + 1/2.
    """
    low = (np.arange(MAP) - 0.5) * STRIDE
    x1, y1, x2, y2 = TARGETS.T[:, :, None]
    across, down = (
        np.clip(np.minimum(low + STRIDE, end) - np.maximum(low, start), 0, None) / STRIDE
        for start, end in ((x1, x2), (y1, y2))
    )
    covered = down[:, :, None] * across[:, None, :]
    return (covered + rng.normal(0, 0.1, covered.shape))[:, None]


def rough_boxes(rng):
    """Boxes of each frame, (frames, ROUGH, 4): moved by up to 1/4 of a side, 0.7 to 1.4 times as large."""
    sides, centres = TARGETS[:, 2:] - TARGETS[:, :2], (TARGETS[:, 2:] + TARGETS[:, :2]) / 2
    shape = (len(TARGETS), ROUGH, 2)
    centres = centres[:, None] + sides[:, None] * rng.uniform(-0.25, 0.25, shape)
    halves = sides[:, None] / 2 * rng.uniform(0.7, 1.4, shape)
    return np.concatenate([centres - halves, centres + halves], axis=2)


def score(maps, boxes):
    """The score of each box (frames, n), and what it gains for each pixel that an edge moves."""
    listed, width, height = list(boxes), *np.moveaxis(boxes[..., 2:] - boxes[..., :2], -1, 0)
    mean = prroi_pool(maps - 0.5, listed, 1, 1 / STRIDE).reshape(width.shape)
    ones = np.ones((mean.size, 1, 1, 1))
    by_edge = prroi_pool_boxes_backward(ones, maps - 0.5, listed, 1 / STRIDE).reshape(boxes.shape)
    grown = np.stack([-height, -width, height, width], axis=-1)  # the area, for each pixel
    area = width * height
    return area * mean, area[..., None] * by_edge + mean[..., None] * grown


def refine(maps, boxes):
    """Move the boxes uphill."""
    for _ in range(STEPS):
        _, gradient = score(maps, boxes)
        sides = boxes[..., 2:] - boxes[..., :2]
        boxes = boxes + RATE * gradient / np.tile(sides[..., ::-1], 2)  # a long edge is pushed by more pixels
    return boxes


def vote(maps, boxes):
    """One box a frame: the mean of those with the highest scores."""
    best = np.argsort(-score(maps, boxes)[0], axis=1)[:, :BEST]
    return np.take_along_axis(boxes, best[..., None], axis=1).mean(axis=1)


def overlap(boxes):
    """Intersection over union of each box (frames, n, 4) with the target of its frame."""
    targets = TARGETS[:, None]
    low, high = np.maximum(boxes[..., :2], targets[..., :2]), np.minimum(boxes[..., 2:], targets[..., 2:])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    one, other = ((b[..., 2:] - b[..., :2]).prod(axis=-1) for b in (boxes, targets))
    return both / (one + other - both)


def main():
    """Refine, and print how well the boxes lie before and after."""
    rng = np.random.default_rng(0)
    maps, rough = score_maps(rng), rough_boxes(rng)
    refined = refine(maps, rough)
    chosen = vote(maps, refined)
    before, after, voted = overlap(rough), overlap(refined), overlap(chosen[:, None])
    for frame in range(len(TARGETS)):
        wrong = np.abs(chosen[frame] - TARGETS[frame]).mean()
        print(
            f"frame {frame}  overlap {before[frame].mean():.2f} -> {after[frame].mean():.2f}, "
            f"voted {voted[frame, 0]:.2f}, edges {wrong:.1f} pixels off"
        )


if __name__ == "__main__":
    main()

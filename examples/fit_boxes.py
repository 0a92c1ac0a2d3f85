"""Fit boxes to a picture by gradient ascent.

    python examples/fit_boxes.py fit_boxes.png

At night some windows of a house are lit. Each box starts near a window, and moves uphill
until it frames the window. What it climbs is a contrast: RoIAlign divides the box, and a frame around it,
into a grid of bins, and

    contrast = mean of the bins inside - mean of the bins of the frame

is highest where the box is the window. Its gradient with respect to the bins is a constant, which
`roi_align_boxes_backward` turns into a gradient with respect to the edges of the box.
"""

import sys

import matplotlib
import numpy as np

from cyroialign import roi_align, roi_align_boxes_backward

HEIGHT, WIDTH = 180, 264
WINDOWS = np.array(  # x1, y1, x2, y2: what is to be found
    [
        [24.3, 21.6, 58.8, 68.2],
        [93.4, 25.1, 143.9, 62.7],
        [184.6, 19.7, 215.2, 72.4],
        [31.2, 112.5, 75.4, 140.8],
        [120.7, 104.3, 156.1, 158.6],
        [190.9, 117.8, 240.3, 151.9],
    ]
)
INSIDE = 4  # bins across a box; the frame around it is one bin wide
BLURS = (12, 6, 3, 1.5)  # pixels: a blurred picture shows a window from afar, a sharp one its edges
STEPS = 80  # in each
RATE = 0.03

# The gradient of the contrast to the bins: the same for each box.
TO_BINS = np.full((INSIDE + 2, INSIDE + 2), -1 / ((INSIDE + 2) ** 2 - INSIDE**2))
TO_BINS[1:-1, 1:-1] = 1 / INSIDE**2

# A box with its frame is boxes @ FRAMED: a bin more on each side.
FRAMED = np.eye(4) + np.kron([[1, -1], [-1, 1]], np.eye(2)) / INSIDE


def contrast(picture, boxes):
    """The contrast of each box (K,), and its gradient to the boxes (K, 4)."""
    features = picture[None, None]  # one image with one channel
    framed = [boxes @ FRAMED]  # for each image its boxes
    crops = roi_align(features, framed, INSIDE + 2, aligned=True)
    to_bins = np.tile(TO_BINS, (len(boxes), 1, 1, 1))
    to_framed = roi_align_boxes_backward(to_bins, features, framed, aligned=True)
    return (crops * to_bins).sum(axis=(1, 2, 3)), to_framed @ FRAMED.T


def climb(picture, boxes):
    """Yield the boxes after each step."""
    yield boxes
    for sigma in BLURS:
        view = blurred(picture, sigma)
        for _ in range(STEPS):
            _, gradient = contrast(view, boxes)
            sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            boxes = boxes + RATE * sides**2 * gradient  # so that large and small boxes move alike
            yield boxes


def night(rng):
    """A noisy picture of the windows: a pixel is as bright as much of it is lit."""
    picture = rng.normal(0.1, 0.08, (HEIGHT, WIDTH))
    y, x = np.arange(HEIGHT), np.arange(WIDTH)
    for x1, y1, x2, y2 in WINDOWS:
        lit_y = np.clip(np.minimum(y + 1, y2) - np.maximum(y, y1), 0, 1)
        lit_x = np.clip(np.minimum(x + 1, x2) - np.maximum(x, x1), 0, 1)
        picture += rng.uniform(0.5, 0.8) * np.outer(lit_y, lit_x)
    return picture


def beside(windows, rng):
    """Boxes to start from: moved by up to 0.4 of a side, and 0.7 to 1.4 times as large."""
    sides, centres = windows[:, 2:] - windows[:, :2], (windows[:, 2:] + windows[:, :2]) / 2
    centres = centres + sides * rng.uniform(-0.4, 0.4, sides.shape)
    halves = sides / 2 * rng.uniform(0.7, 1.4, sides.shape)
    return np.hstack([centres - halves, centres + halves])


def blurred(picture, sigma):
    """The picture blurred by a Gaussian of so many pixels."""
    reach = np.arange(-int(3 * sigma) - 1, int(3 * sigma) + 2)
    kernel = np.exp(-((reach / sigma) ** 2) / 2)
    kernel /= kernel.sum()
    padded = np.pad(picture, len(reach) // 2, "edge")
    for axis in (0, 1):
        padded = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
    return padded


def overlap(boxes):
    """Intersection over union of each box with its window."""
    low, high = np.maximum(boxes[:, :2], WINDOWS[:, :2]), np.minimum(boxes[:, 2:], WINDOWS[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    one, other = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, WINDOWS))
    return both / (one + other - both)


def plot(picture, path, file):
    """Draw the boxes on their way and at its end, and how well they fit after each step."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplot_mosaic([["way", "end"], ["fit", "fit"]], height_ratios=[5, 3])
    colours = pyplot.get_cmap("spring")(np.linspace(0, 1, len(path)))

    def draw(axes, boxes, **style):
        for x1, y1, x2, y2 in boxes:
            axes.add_patch(pyplot.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))

    for name in ("way", "end"):
        # With aligned=True boxes count from the corner of the first pixel: so does this extent.
        panels[name].imshow(picture, "gray", extent=(0, WIDTH, HEIGHT, 0), vmin=0, vmax=1)
        panels[name].axis("off")
    for step in range(0, len(path), 8):
        draw(panels["way"], path[step], color=colours[step], linewidth=0.7)
    draw(panels["way"], path[0], color=colours[0], linewidth=2)
    draw(panels["end"], path[0], color=colours[0], linewidth=1, linestyle="--")
    draw(panels["end"], path[-1], color=colours[-1], linewidth=2)
    fits = np.array([overlap(boxes) for boxes in path])
    for (x1, y1, *_), before, after in zip(path[-1], fits[0], fits[-1], strict=True):
        ground = {"facecolor": "black", "linewidth": 0, "pad": 1}
        words = f"{before:.2f} → {after:.2f}"
        panels["end"].text(x1, y1 - 4, words, color="white", size=9, bbox=ground)
    panels["way"].set_title(f"{len(path) - 1} steps, from magenta to yellow", size="medium", loc="left")
    panels["end"].set_title("start, end, and their overlap with the window", size="medium", loc="left")

    panels["fit"].plot(fits, color="0.6", linewidth=1)
    panels["fit"].plot(fits.mean(axis=1), color="black", linewidth=2, label="mean")
    for number, sigma in enumerate(BLURS):
        panels["fit"].axvline(number * STEPS, color="0.85", zorder=0)
        panels["fit"].text(number * STEPS + 1, 0.02, f"blur {sigma:g} pixels", size=8, color="0.4")
    panels["fit"].set(xlim=(0, len(path) - 1), ylim=(0, 1), xlabel="step", ylabel="intersection over union")
    panels["fit"].legend(loc="center right", frameon=False)
    figure.savefig(file, dpi=120)


def main(file):
    """Fit the boxes, say how well, and draw it."""
    rng = np.random.default_rng(0)
    picture = night(rng)
    path = list(climb(picture, beside(WINDOWS, rng)))
    for when, boxes in (("start", path[0]), ("end", path[-1])):
        wrong = np.abs(boxes - WINDOWS).mean()
        print(f"{when:5}  overlap {overlap(boxes).round(2)}  edges {wrong:.2f} pixels off")
    plot(picture, path, file)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

"""Figures of the recipes, and of the gallery on the first page: see figures.py."""

import numpy as np
from figures import BOX, Drawing, Map, places_of_samples, pooled


def segments():
    """A segment of a sequence, its bins and samples."""
    start, end, bins, ratio = 1.5, 7.5, 3, 2
    drawing = Drawing("A segment of a sequence, its three bins and their samples", 340, 92)
    grid = Map(drawing, 8, 10, 36, 9, 1)
    grid.box((start, 0, end, 1))
    grid.bins((start, 0, end, 1), 1, bins)
    places = places_of_samples((1, 9), (start, 0, end, 1), (1, bins), ratio)
    grid.samples(places[:1])
    for step in range(9):
        drawing.text(grid.at(step + 0.5, 0)[0], 66, f"{step}", "value soft")
    drawing.text(170, 86, "time", "soft")
    return str(drawing)


def clip():
    """The frames of a clip, one behind the other, and a box through all of them."""
    drawing, box, frames = Drawing("One box over five frames", 340, 170), (1.2, 1, 3.4, 4), 5
    places = [(16 + 30 * frame, 44 - 9 * frame) for frame in range(frames)]
    grids = [Map(drawing, *place, 20, 9, 5) for place in reversed(places)]
    for grid in grids:
        grid.box(box, "bin")
    for x in box[::2]:
        for y in box[1::2]:
            drawing.path([grids[0].at(x, y), grids[-1].at(x, y)], "hair")
    grids[-1].box(box)
    return str(drawing)


def prompts():
    """The part of a square that an image fills, and boxes on it."""
    drawing = Drawing("An image at the top of a square, with two boxes; below it padding", 340, 212)
    grid = Map(drawing, 74, 10, 12, 16, 16)
    drawing.rect(*grid.at(0, 0), *grid.at(16, 10.7), "between")
    for box, kind in (((1.4, 1, 6.4, 10), "box"), ((7.1, 0.6, 15.9, 5), "box aligned")):
        grid.box(box, kind)
    drawing.text(*grid.at(8, 13.8), "padding", "soft")
    return str(drawing)


def quantised():
    """Numbers of a quantised row, what they stand for, and the 0 beside them."""
    values, zero, foot = [120, 140, 128, 150, 131], 128, 50
    drawing = Drawing(
        "Numbers of a quantised map about its zero point; beside the map a sample is 0", 340, 148
    )
    for place, value in enumerate([0, *values, 0]):
        left, height = 34 + 42 * place, (value - zero) * 0.55
        kind = "bar" if value else "share"
        drawing.rect(left, foot - max(height, 0), left + 38, foot - min(height, 0), kind)
        drawing.text(left + 19, foot - max(height, 0) - 6, f"{value}", "value" if value else "value orange")
    drawing.path([(34, foot), (334, foot)], "axis")
    drawing.text(28, foot + 5, "128", "value soft", "end")
    drawing.text(53, 142, "off the map", "soft")
    drawing.text(290, 142, "off the map", "soft")
    return str(drawing)


def _flow(title, stages):
    """Boxes in a row with arrows between them; those that are marked stand out."""
    drawing, width = Drawing(title, 340, 84), 320 / len(stages) - 16
    for place, (words, kind) in enumerate(stages):
        left = 10 + place * (width + 24)
        drawing.rect(left, 20, left + width, 60, kind)
        drawing.text(left + width / 2, 45, words, "small strong" if kind != "pixel" else "small")
        if place:
            drawing.arrow(left - 22, 40, left - 3, 40)
    return str(drawing)


def exported():
    """A graph with the standard operator."""
    return _flow("Conv, RoiAlign, Gemm", [("Conv", "pixel"), ("RoiAlign", "box"), ("Gemm", "pixel")])


def there_and_back():
    """A graph whose pooling is on another device."""
    return _flow(
        "Backbone on mps, pooling on the CPU, head on mps",
        [("mps", "pixel"), ("CPU", "box"), ("mps", "pixel")],
    )


def serving():
    """A service that pools."""
    return _flow(
        "Map and boxes, a server, crops", [("map, boxes", "pixel"), ("server", "box"), ("crops", "pixel")]
    )


def levels():
    """Three levels of a pyramid, each with the boxes that suit it."""
    drawing = Drawing("Three levels of a pyramid, and a box on each", 340, 150)
    for x, unit, count, box in (
        (8, 8, 16, (2, 3, 6, 9)),
        (150, 16, 8, (1, 1, 5, 6)),
        (300 - 14, 12, 4, (0.4, 0.5, 3.5, 3.6)),
    ):
        grid = Map(drawing, x, 10, unit, count, count)
        grid.box(box)
    return str(drawing)


def missed():
    """A box that misses its map."""
    drawing = Drawing("A box beside its map: all zeros", 340, 150)
    grid = Map(drawing, 10, 10, 22, 6, 6)
    grid.box((9, 1, 14, 5), "box")
    for row, column in np.ndindex(2, 3):
        drawing.text(*grid.at(9.85 + 1.65 * column, 2.2 + 2 * row), "0", "value orange")
    return str(drawing)


def cropped():
    """A map, and the mean of each bin of a box."""
    drawing = Drawing("A box on a map, and its crop", 340, 150)
    rows, columns = np.indices((6, 8))
    grid = Map(drawing, 10, 10, 22, 8, 6)
    grid.box(BOX)
    grid.bins(BOX, 2, 3)
    drawing.arrow(196, 76, 220, 76)
    crop = Map(drawing, 232, 44, 32, 3, 2)
    values = pooled(8 * rows + columns, BOX, (2, 3), sampling_ratio=2, aligned=True)
    for (row, column), value in np.ndenumerate(values):
        drawing.rect(
            *crop.at(column, row), *crop.at(column + 1, row + 1), "share", float(value / values.max())
        )
    crop.box((0, 0, 3, 2))
    return str(drawing)

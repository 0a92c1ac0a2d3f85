"""Figures of masks that are pasted and of crops that are resized: see figures.py."""

import numpy as np
from figures import Drawing, Map, places_of_samples

from cyroialign import crop_and_resize, paste_masks

MASK = np.array([[0.1, 0.6, 0.7, 0.2], [0.5, 1, 1, 0.6], [0.6, 1, 0.9, 0.3], [0.1, 0.5, 0.3, 0]])
MASK_BOX = (1.4, 0.8, 8.2, 6.4)  # in an image of 10 x 8 pixels
CROP_BOX = (1, 0.75, 5.5, 3.75)  # on a map of 7 x 5 pixels, as edges lie
CROP = (3, 4)


def mask():
    """A mask of four by four pixels."""
    drawing = Drawing("A mask of 4 by 4 pixels", 340, 232)
    grid = Map(drawing, 74, 10, 48, 4, 4)
    _shade(grid, MASK)
    grid.values(MASK)
    grid.box((0, 0, 4, 4))
    return str(drawing)


def pasted():
    """What it is in the image, and the pixels over a threshold."""
    shape = (8, 10)
    given = MASK[None, None], np.array([MASK_BOX]), shape
    values = paste_masks(*given, rule="detectron2")[0, 0]
    over = paste_masks(*given, rule="detectron2", threshold=0.5)[0, 0]
    drawing = Drawing("The mask in the image, and its pixels over one half", 340, 232)
    grid = Map(drawing, 30, 10, 26, *shape[::-1])
    _shade(grid, values)
    for row, column in np.argwhere(over):
        drawing.dot(*grid.at(column + 0.5, row + 0.5), "sample")
    grid.box(MASK_BOX)
    return str(drawing)


def _shade(grid, values):
    for (row, column), value in np.ndenumerate(values):
        grid.drawing.rect(*grid.at(column, row), *grid.at(column + 1, row + 1), "share", float(value))


def corners():
    """Where crop_and_resize takes its samples."""
    rows, columns = np.indices((5, 7), float)
    image = np.stack([columns, rows], axis=2)[None]
    x1, y1, x2, y2 = np.subtract(CROP_BOX, 0.5)  # between the centres of pixels
    shares = np.array([[y1 / 4, x1 / 6, y2 / 4, x2 / 6]])
    places = crop_and_resize(image, shares, [0], CROP)[0] + 0.5
    return _samples(f"The samples of crop_and_resize, {CROP[0]} by {CROP[1]}", places, False)


def middles():
    """Where roi_align takes its samples, one a bin."""
    places = places_of_samples((5, 7), CROP_BOX, CROP, 1)
    return _samples(f"The samples of roi_align, {CROP[0]} by {CROP[1]}", places, True)


def _samples(title, places, bins):
    drawing = Drawing(title, 340, 232)
    grid = Map(drawing, 30, 10, 40, 7, 5)
    grid.centres()
    grid.box(CROP_BOX)
    if bins:
        grid.bins(CROP_BOX, *CROP)
    grid.samples(places)
    return str(drawing)

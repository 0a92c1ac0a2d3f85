"""The figures of the documentation, each a function that returns an SVG.

What can be measured is: positions and weights of samples, values and bins are asked of the package. A map of
the column numbers, pooled with one sample a bin, gives the positions of the samples; the gradient to one bin
gives its weights; `roi_pool` of column numbers gives the pixels of a bin.

Coordinates are continuous: pixel i reaches from i to i + 1, and its centre is i + 1/2. Colours are classes of
_static/pages.css. Drawings are at most 340 wide, so that a phone shows them at full size.
"""

import html

import numpy as np

from cyroialign import (
    prroi_pool,
    roi_align,
    roi_align_3d_backward,
    roi_align_backward,
    roi_align_rotated,
    roi_pool,
)

BOX = (1.3, 0.9, 6.7, 5.2)  # on a map of 8 x 6 pixels
BINS, RATIO = (2, 3), 2
ROTATED_BOX = (4.0, 3.0, 5.0, 2.0, 0.5)
ARANGE = np.arange(25, dtype=np.float32).reshape(5, 5)


class Drawing:
    """An SVG that grows by rectangles, lines, dots and words."""

    def __init__(self, title, width, height):
        """Begin; the title is what a screen reader says."""
        self.title, self.width, self.height, self.parts = title, width, height, []

    def rect(self, x1, y1, x2, y2, kind, opacity=1):
        """Draw the rectangle between two corners."""
        place = f'x="{x1:.4g}" y="{y1:.4g}" width="{x2 - x1:.4g}" height="{y2 - y1:.4g}"'
        self.parts.append(f'<rect class="{kind}" {place} opacity="{opacity:.3g}"/>')

    def path(self, points, kind):
        """Draw a line through points."""
        self.parts.append(f'<path class="{kind}" d="M{" L".join(f"{x:.4g} {y:.4g}" for x, y in points)}"/>')

    def dot(self, x, y, kind, radius=3.5):
        """Draw a dot."""
        self.parts.append(f'<circle class="{kind}" cx="{x:.4g}" cy="{y:.4g}" r="{radius}"/>')

    def text(self, x, y, words, kind="", anchor="middle"):
        """Write words with their base line at y."""
        place = f'x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{kind}" {place}>{html.escape(words)}</text>')

    def arrow(self, x1, y1, x2, y2, kind="arrow"):
        """Draw an arrow."""
        ahead = np.array([x2 - x1, y2 - y1]) / np.hypot(x2 - x1, y2 - y1)
        aside, tip = np.array([-ahead[1], ahead[0]]), np.array([x2, y2])
        self.path([(x1, y1), (x2, y2)], kind)
        self.path([tip - 6 * ahead + 3 * aside, tip, tip - 6 * ahead - 3 * aside], kind)

    def __str__(self):
        size = f'viewBox="0 0 {self.width} {self.height}" style="max-width: {self.width}px"'
        return f'<svg role="img" aria-label="{html.escape(self.title)}" {size}>{"".join(self.parts)}</svg>'


class Map:
    """A grid of pixels in a drawing, with boxes, bins and samples on it."""

    def __init__(self, drawing, x, y, unit, columns, rows):
        """Place it with its top left corner at (x, y), its pixels `unit` wide, and draw its pixels."""
        self.drawing, self.x, self.y, self.unit, self.columns, self.rows = drawing, x, y, unit, columns, rows
        drawing.rect(x, y, *self.at(columns, rows), "ground")
        for column in range(columns + 1):
            drawing.path([self.at(column, 0), self.at(column, rows)], "pixel")
        for row in range(rows + 1):
            drawing.path([self.at(0, row), self.at(columns, row)], "pixel")

    def at(self, x, y):
        """Tell where in the drawing a place of the map is."""
        return self.x + x * self.unit, self.y + y * self.unit

    def values(self, values, kind="value soft", x=0.5, y=0.5):
        """Write a value into each pixel, at (x, y) of it."""
        for (row, column), value in np.ndenumerate(values):
            across, down = self.at(column + x, row + y)
            self.drawing.text(across, down + 5, f"{value:g}".replace("-", "−"), kind)

    def centres(self):
        """Mark the centre of each pixel."""
        for row, column in np.ndindex(self.rows, self.columns):
            self.drawing.dot(*self.at(column + 0.5, row + 0.5), "centre", 1.8)

    def box(self, box, kind="box"):
        """Draw a box."""
        self.drawing.rect(*self.at(*box[:2]), *self.at(*box[2:]), kind)

    def bins(self, box, rows, columns, kind="bin"):
        """Draw the lines between the bins of a box."""
        x1, y1, x2, y2 = box
        for x in np.linspace(x1, x2, columns + 1)[1:-1]:
            self.drawing.path([self.at(x, y1), self.at(x, y2)], kind)
        for y in np.linspace(y1, y2, rows + 1)[1:-1]:
            self.drawing.path([self.at(x1, y), self.at(x2, y)], kind)

    def samples(self, places, kind="sample", radius=3.5):
        """Draw samples at the places that `places_of_samples` found."""
        for x, y in places.reshape(-1, 2):
            self.drawing.dot(*self.at(x, y), kind, radius)


def pooled(features, box, *arguments, **settings):
    """Pool one box of one image: (H, W) or (C, H, W) to bins."""
    features = np.asarray(features, np.float64)
    maps = features.reshape(1, -1, *features.shape[-2:])
    result = roi_align(maps, np.array([[0, *box]], np.float64), *arguments, **settings)
    return result[0, 0] if features.ndim == 2 else result[0]


def places_of_samples(shape, box, bins, ratio, aligned=True):
    """Return (rows, columns, 2): x and y of each sample of a box that lies on the map."""
    rows, columns = np.indices(shape)
    fine = (bins[0] * ratio, bins[1] * ratio)
    places = pooled([columns, rows], box, fine, sampling_ratio=1, aligned=aligned)
    return np.moveaxis(places, 0, -1) + 0.5


def weights(shape, box, bins, **settings):
    """Return the weights of rows (bins_y, H) and of columns (bins_x, W) of a box on the map."""
    one = np.eye(bins[0] * bins[1]).reshape(-1, 1, *bins)
    boxes = np.tile([0.0, *box], (len(one), 1))
    boxes[:, 0] = np.arange(len(one))
    products = roi_align_backward(one, boxes, (len(one), 1, *shape), aligned=True, **settings)
    products = products.reshape(*bins, *shape)
    return products[:, 0].sum(axis=2), products[0].sum(axis=1)


def bins():
    """A box on a map, its bins and their samples."""
    drawing = Drawing("A box on a feature map, its six bins and the four samples of each", 340, 300)
    grid = Map(drawing, 10, 10, 40, 8, 6)
    grid.centres()
    grid.box(BOX)
    grid.bins(BOX, *BINS)
    grid.samples(places_of_samples((6, 8), BOX, BINS, RATIO))
    y = 280
    drawing.rect(12, y - 11, 26, y + 3, "pixel")
    drawing.dot(19, y - 4, "centre", 1.8)
    drawing.text(32, y, "pixel", anchor="start")
    drawing.rect(92, y - 11, 106, y + 3, "box")
    drawing.text(112, y, "box", anchor="start")
    drawing.path([(162, y - 4), (178, y - 4)], "bin")
    drawing.text(184, y, "bins", anchor="start")
    drawing.dot(240, y - 4, "sample")
    drawing.text(250, y, "samples", anchor="start")
    return str(drawing)


def interpolation():
    """A sample between four pixels."""
    corners, (x, y) = np.array([[10.0, 20], [30, 50]]), (0.3, 0.4)
    value = pooled(corners, (x, y, x + 1, y + 1), 1, sampling_ratio=1, aligned=True)[0, 0]
    drawing = Drawing("A sample between the centres of four pixels, each with its weight", 340, 300)
    grid = Map(drawing, 50, 10, 120, 2, 2)
    drawing.rect(*grid.at(0.5, 0.5), *grid.at(1.5, 1.5), "between")
    for row, column in np.ndindex(2, 2):
        centre = grid.at(column + 0.5, row + 0.5)
        weight = (y if row else 1 - y) * (x if column else 1 - x)
        drawing.dot(*centre, "ink")
        above = -14 if row == 0 else 24
        drawing.text(centre[0], centre[1] + above, f"{corners[row, column]:g} × {weight:.2f}", "value")
    drawing.path([grid.at(0.5 + x, 0.5), grid.at(0.5 + x, 1.5)], "hair")
    drawing.path([grid.at(0.5, 0.5 + y), grid.at(1.5, 0.5 + y)], "hair")
    place = grid.at(0.5 + x, 0.5 + y)
    drawing.dot(*place, "sample", 5)
    drawing.text(place[0] + 10, place[1] + 20, f"{value:g}", "value blue", "start")
    terms = " + ".join(
        f"{(y if row else 1 - y) * (x if column else 1 - x) * corners[row, column]:.2g}"
        for row, column in np.ndindex(2, 2)
    )
    drawing.text(170, 284, f"{terms} = {value:g}")
    return str(drawing)


def half_pixel():
    """A box of the image, and where each rule takes it to be on a map of stride 2."""
    stride, box, count, unit = 2, (2, 6), 3, 40
    drawing = Drawing("The same box with and without the half pixel", 340, 292)

    def row(y, size, words):
        drawing.text(10, y - 8, words, anchor="start")
        for pixel in range(320 // size):
            left = 10 + pixel * size
            drawing.rect(left, y, left + size, y + 32, "pixel")
            drawing.text(left + size / 2, y + 21, f"{pixel}", "value soft")

    row(26, unit, "image, with a box from 2 to 6")
    drawing.rect(10 + box[0] * unit, 26, 10 + box[1] * unit, 58, "box")
    row(104, stride * unit, "feature map of stride 2")
    for place, aligned in enumerate((True, False)):
        kind, y = "aligned" if aligned else "legacy", 166 + 66 * place
        places = places_of_samples((1, 4), (box[0] / stride, 0, box[1] / stride, 1), (1, count), 1, aligned)
        xs, half = 10 + places[0, :, 0] * stride * unit, (box[1] - box[0]) * unit / count / 2
        drawing.text(330, y - 6, f"aligned={aligned}", "code", "end")
        drawing.rect(xs[0] - half, y, xs[-1] + half, y + 32, f"box {kind}")
        for x in xs:
            drawing.dot(x, y + 16, f"sample {kind}")
    for x in box:
        for above, below in ((60, 82), (104, 136), (164, 200), (230, 266)):  # words are left out
            drawing.path([(10 + x * unit, above), (10 + x * unit, below)], "hair")
    return str(drawing)


def rule(aligned):
    """5 x 5 pixels that count, the samples of a box, and the bins they make."""
    box, kind = (1, 1, 3, 3), "aligned" if aligned else "legacy"
    places = places_of_samples((5, 5), box, (2, 2), 1, aligned)
    values = pooled(ARANGE, box, 2, aligned=aligned)
    drawing = Drawing(f"aligned={aligned}: where the samples of a box are taken, and their values", 340, 236)
    drawing.text(10, 18, f"aligned={aligned}", "code", "start")
    grid = Map(drawing, 10, 30, 40, 5, 5)
    grid.values(ARANGE, "value soft small", 0.26, 0.2)
    low, high = places.min(axis=(0, 1)) - 0.5, places.max(axis=(0, 1)) + 0.5
    seen = (*low, *high)
    grid.box(seen, f"box {kind}")
    grid.bins(seen, 2, 2, f"bin {kind}")
    grid.samples(places, f"sample {kind}")
    drawing.arrow(218, 130, 240, 130)
    result = Map(drawing, 248, 90, 40, 2, 2)
    result.values(values, "value")
    return str(drawing)


def aligned():
    """The rule with the half pixel."""
    return rule(True)


def legacy():
    """The rule without."""
    return rule(False)


def modes():
    """What the three modes make of the same four samples."""
    values = np.array([[2.0, 6, -4], [8, 20, -8], [-2, 4, -6]])
    box = (0.5, 0.5, 2.5, 2.5)
    places = places_of_samples((3, 3), box, (1, 1), 2)
    samples = pooled(values, box, 2, sampling_ratio=1, aligned=True)
    drawing = Drawing("The four samples of a bin, and what each mode makes of them", 340, 330)
    grid = Map(drawing, 50, 10, 80, 3, 3)
    grid.values(values, "value soft", 0.2, 0.16)
    grid.centres()
    grid.box(box)
    for (x, y), value in zip(places.reshape(-1, 2), samples.ravel(), strict=True):
        across, down = grid.at(x, y)
        drawing.dot(across, down, "sample")
        drawing.text(across + 7, down - 7, f"{value:g}", "value blue", "start")
    for place, mode in enumerate(("avg", "max", "onnx_max")):
        [[value]] = pooled(values, box, 1, sampling_ratio=2, aligned=True, mode=mode)
        x = 60 + 110 * place
        drawing.text(x, 282, mode, "code")
        drawing.text(x, 306, f"{value:g}", "value")
    return str(drawing)


def kept():
    """What RoIAlign makes of the box: nothing moves."""
    drawing = Drawing("RoIAlign: the box and its bins stay where they are", 340, 282)
    drawing.text(10, 18, "RoIAlign", "strong", "start")
    grid = Map(drawing, 10, 30, 40, 8, 6)
    grid.box(BOX)
    grid.bins(BOX, *BINS)
    grid.samples(places_of_samples((6, 8), BOX, BINS, RATIO))
    return str(drawing)


def rounded():
    """What RoIPool makes of the box: bins of whole pixels that overlap."""
    rows, columns = np.indices((6, 8)).astype(np.float32)
    boxes = np.array([[0, *BOX]], np.float32)
    last = roi_pool(np.stack([columns, rows])[None], boxes, BINS)[0] + 1
    first = -roi_pool(-np.stack([columns, rows])[None], boxes, BINS)[0]
    drawing = Drawing("RoIPool: the box is rounded to whole pixels, and its bins outwards", 340, 282)
    drawing.text(10, 18, "RoIPool", "strong", "start")
    grid = Map(drawing, 10, 30, 40, 8, 6)
    for y, x in np.ndindex(*BINS):
        grid.box((*first[:, y, x], *last[:, y, x]), "share")
    for y, x in np.ndindex(*BINS):
        x1, y1, x2, y2 = *first[:, y, x], *last[:, y, x]
        inset = 0.06
        grid.box((x1 + inset, y1 + inset, x2 - inset, y2 - inset), "bin legacy")
    grid.box((*first.min(axis=(1, 2)), *last.max(axis=(1, 2))), "box legacy")
    grid.box(BOX, "box dashed")
    return str(drawing)


def volume():
    """The slices of a volume, and what their pixels give to two bins that lie one behind the other."""
    shape, (x1, y1, z1, x2, y2, z2), unit = (4, 5, 4), (0.6, 0.9, 0.4, 3.4, 4.2, 3.6), 18
    bins = np.eye(2).reshape(2, 1, 2, 1, 1)
    boxes = [[image, x1, y1, z1, x2, y2, z2] for image in range(2)]
    shares = roi_align_3d_backward(bins, boxes, (2, 1, *shape), aligned=True)[:, 0]
    drawing = Drawing("Four slices of a volume, and how much each pixel counts in two bins", 340, 150)
    for z in range(shape[0]):
        grid = Map(drawing, 6 + 86 * z, 8, unit, shape[2], shape[1])
        for kind, of_bin in zip(("cell blue", "cell orange"), shares[:, z], strict=True):
            for (row, column), share in np.ndenumerate(of_bin):
                if share:
                    places = *grid.at(column, row), *grid.at(column + 1, row + 1)
                    drawing.rect(*places, kind, share / shares.max())
        grid.box((x1, y1, x2, y2))
        for place, (kind, share) in enumerate(zip(("blue", "orange"), shares[:, z].sum((1, 2)), strict=True)):
            words = f"{100 * share:.0f} %" if share else "0"
            drawing.text(grid.at(1 + 2 * place, 0)[0], 118, words, f"value small {kind}")
        drawing.text(grid.at(2, 0)[0], 140, f"slice {z}", "soft")
    return str(drawing)


def border():
    """The value of a sample on its way over the rim of a map of five pixels."""
    pixels = np.array([[2.0, 4, 3, 5, 3]])
    low, high, unit, foot, count = -2.0, 7.0, 36, 152, 720
    values = pooled(pixels, (low, 0, high, 1), (1, count), sampling_ratio=1, aligned=True)[0]
    xs = low + (np.arange(count) + 0.5) * (high - low) / count
    drawing = Drawing("The value of a sample that moves across a map of five pixels and beyond", 340, 190)

    def at(x, value):
        return 8 + (x - low) * unit, foot - 28 * value

    for column, value in enumerate(pixels[0]):
        drawing.rect(*at(column, value), *at(column + 1, 0), "bar")
        drawing.text(at(column + 0.5, 0)[0], foot - 8, f"{column}", "value soft")
    drawing.path([at(low, 0), at(high, 0)], "axis")
    drawing.path([at(x, value) for x, value in zip(xs, values, strict=True)], "curve")
    for x in (-0.5, 5.5):
        drawing.path([at(x, 0), (at(x, 0)[0], foot + 6)], "axis")
    drawing.text(at(-0.5, 0)[0], foot + 22, "one pixel before", "soft")
    drawing.text(at(5.5, 0)[0], foot + 22, "one pixel after", "soft")
    drawing.text(at(-1.25, 0)[0], foot - 8, "0", "value orange")
    drawing.text(at(6.25, 0)[0], foot - 8, "0", "value orange")
    return str(drawing)


def pooled_rotated(maps, size, ratio):
    """Pool the rotated box: (C, H, W) to bins."""
    return roi_align_rotated(np.float64([maps]), np.array([[0, *ROTATED_BOX]]), size, 1.0, ratio)[0]


def turned():
    """A rotated box on a map, its bins and their samples."""
    rows, columns = np.indices((6, 8))
    places = np.moveaxis(pooled_rotated([columns, rows], (BINS[0] * RATIO, BINS[1] * RATIO), 1), 0, -1) + 0.5
    # Samples are evenly spaced: half a step beyond the outer ones is the edge of the box.
    across, down = (places[0, 1] - places[0, 0]) / 2, (places[1, 0] - places[0, 0]) / 2
    first, far = (
        places[0, 0] - across - down,
        2 * np.array([BINS[1] * RATIO * across, BINS[0] * RATIO * down]),
    )
    drawing = Drawing("A rotated box on a feature map, its six bins and the four samples of each", 340, 262)
    grid = Map(drawing, 10, 10, 40, 8, 6)

    def at(x, y):
        return grid.at(*(first + x * far[0] + y * far[1]))

    grid.centres()
    for x in np.linspace(0, 1, BINS[1] + 1)[1:-1]:
        drawing.path([at(x, 0), at(x, 1)], "bin")
    for y in np.linspace(0, 1, BINS[0] + 1)[1:-1]:
        drawing.path([at(0, y), at(1, y)], "bin")
    drawing.path([at(0, 0), at(1, 0), at(1, 1), at(0, 1), at(0, 0)], "box")
    grid.samples(places)
    return str(drawing)


def upright():
    """The bins of the rotated box."""
    values = pooled_rotated([np.arange(48.0).reshape(6, 8)], BINS, RATIO)[0]
    drawing = Drawing("The six bins of the rotated box, upright", 340, 262)
    grid = Map(drawing, 65, 55, 70, 3, 2)
    grid.values(values.round(1), "value")
    grid.box((0, 0, 3, 2))
    drawing.text(170, 35, "its mean values, upright")
    return str(drawing)


def integrals():
    """The surface that five pixels span, and the means of three bins under it."""
    pixels, (low, high), bins, unit, foot = np.array([2.0, 4, 3, 5, 3]), (0.5, 3.5), 3, 52, 172

    def means(start, end, count):
        box = np.array([[0, start, 0, end, 2]])
        return prroi_pool(np.tile(pixels, (1, 1, 3, 1)), box, (1, count))[0, 0, 0]

    drawing = Drawing("The mean over each bin of the surface that a row of pixels spans", 340, 200)

    def at(x, value):
        return 14 + (x + 1) * unit, foot - 28 * value

    for bin_, mean in enumerate(means(low, high, bins)):
        edges = low + (high - low) / bins * np.array([bin_, bin_ + 1])
        drawing.rect(*at(edges[0], mean), *at(edges[1], 0), "share")
        drawing.rect(*at(edges[0], mean), *at(edges[1], 0), "bin")
        drawing.text(at(edges.mean(), 0)[0], foot - 8, f"{mean:.4g}", "value")
    drawing.path([at(-1, 0), at(5, 0)], "axis")
    drawing.path([at(*point) for point in zip(np.arange(-1, 6), [0, *pixels, 0], strict=True)], "dashed")
    for x, value in enumerate(pixels):
        [height] = means(x - 1e-6, x + 1e-6, 1)
        np.testing.assert_allclose(height, value, atol=1e-4)
        drawing.dot(*at(x, value), "sample")
        drawing.text(at(x, 0)[0], foot + 20, f"{x}", "value soft")
    return str(drawing)


def separable():
    """The bins of a box as a product of three matrices."""
    shape, box, count = (6, 7), (1.2, 0.8, 6.1, 5.4), (3, 3)
    features = np.random.default_rng(4).random(shape)
    rows, columns = weights(shape, box, count, sampling_ratio=2)
    matrices = (("Y", rows), ("map", features), ("Xᵀ", columns.T), ("bins", rows @ features @ columns.T))
    np.testing.assert_allclose(matrices[3][1], pooled(features, box, count, sampling_ratio=2, aligned=True))
    unit, x, middle = 13, 2, 66
    drawing = Drawing("Y times the map times X transposed is the bins", 340, 140)
    for (name, matrix), sign in zip(matrices, ("·", "·", "=", ""), strict=True):
        high, wide = matrix.shape
        top = middle - high * unit / 2
        drawing.rect(x, top, x + wide * unit, top + high * unit, "ground")
        kind = "cell blue" if name in ("Y", "Xᵀ") else "cell"
        for (row, column), value in np.ndenumerate(matrix / matrix.max()):
            place = x + column * unit, top + row * unit
            if value:
                drawing.rect(*place, place[0] + unit, place[1] + unit, kind, 0.1 + 0.9 * value)
            drawing.rect(*place, place[0] + unit, place[1] + unit, "pixel")
        drawing.text(x + wide * unit / 2, 130, name, "strong")
        x += wide * unit
        drawing.text(x + 15, middle + 6, sign, "large")
        x += 30
    return str(drawing)


def merged():
    """Many samples of two bins along an axis, and the few weights that they become."""
    box, ratio, unit = (0.6, 0, 7.4, 1), 9, 40
    places = places_of_samples((1, 8), box, (1, 2), ratio)[0, :, 0]
    _, columns = weights((1, 8), box, (1, 2), sampling_ratio=ratio)
    drawing = Drawing("The samples of two bins along an axis, and the weights they become", 340, 190)
    drawing.text(10, 18, f"{len(places)} samples of two bins", anchor="start")
    grid = Map(drawing, 10, 30, unit, 8, 1)
    for number, x in enumerate(places):
        drawing.dot(*grid.at(x, 0.5), "sample legacy" if number >= ratio else "sample", 3)
    foot = 160
    drawing.text(10, 92, f"{np.count_nonzero(columns)} weights", anchor="start")
    drawing.path([(10, foot), (10 + 8 * unit, foot)], "axis")
    for (bin_, column), weight in np.ndenumerate(columns):
        left = grid.at(column + 0.2 + 0.32 * bin_, 0)[0]
        kind = "cell orange" if bin_ else "cell blue"
        drawing.rect(left, foot - 150 * weight, left + 0.28 * unit, foot, kind)
    for column in range(8):
        drawing.text(grid.at(column + 0.5, 0)[0], foot + 18, f"{column}", "value soft")
    return str(drawing)


def lanes():
    """Vectors of four and of eight numbers: every sum runs in the same order."""
    drawing = Drawing("Eight channels in vectors of four and of eight: each sum runs downwards", 340, 176)
    for block, width in enumerate((4, 8)):
        x, y, unit = 10 + 172 * block, 30, 18
        drawing.text(x, 18, f"{width} lanes", anchor="start")
        grid = Map(drawing, x, y, unit, 8, 5)
        for row in range(5):
            for lane in range(0, 8, width):
                x1, y1 = grid.at(lane, row)
                drawing.rect(x1 + 2, y1 + 2, x1 + width * unit - 2, y1 + unit - 2, "vector")
        for channel in range(8):
            across = grid.at(channel + 0.5, 0)[0]
            drawing.arrow(across, y + 5, across, y + 5 * unit + 14)
        drawing.text(x + 4 * unit, 162, "8 channels", "soft")
    return str(drawing)

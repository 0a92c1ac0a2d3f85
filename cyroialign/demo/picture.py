"""The picture of the demo. Lengths on the page are inches from its top left corner."""

import io
import itertools
import math
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cyroialign.demo.photograph import box_average
from cyroialign.demo.scene import Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind eyes; the first ones stand out on most photographs. Then
# the same mixed with white, and with black.
COLOURS = (
    *("#56B4E9", "#F0E442", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#0072B2", "#FFFFFF"),
    *("#ABDAF4", "#F8F2A1", "#F3CF80", "#E6BCD3", "#80CFB9", "#EAAF80", "#80B9D9", "#C0C0C0"),
    *("#2B5A75", "#787221", "#735000", "#663D54", "#005039", "#6B2F00", "#003959", "#606060"),
)
INK, GREY, PALE = "#1F2328", "#59636E", "#E8EAED"
DPI = 150
MARGIN, GUTTER, GAP = 0.45, 0.4, 0.14
HEAD, TITLE, CAPTION = 1.12, 0.27, 0.6
PHOTO_SIDE = 5.0
CHIP = 0.11  # half the side of a box's number
FOOT_LETTER, FOOT_LINE = 0.066, 0.16  # mean width of a letter at the foot; distance of lines
TITLES = ("photograph", "feature map", "RoIAlign", "RoIPool")
SIDES = ("left", "top", "right", "bottom")
EXPLANATION = (
    "Both read the feature map. RoIAlign keeps a box where it is (solid lines: box and bins) and averages "
    "bilinear samples (dots, where they fit). RoIPool rounds it to whole feature pixels (dashed), rounds its "
    "bins outwards and takes the maximum of each: its crop shows another part of the photograph, and "
    "brighter."
)
OUTSIDE = " Beside the photograph, where the map ends, features count as 0: bins there are black."


class Layout(NamedTuple):
    """Where boxes go: down in rows, then across in blocks. Panels are side by side; a lone box has 2 by 2.

    cell is the side of the square that a panel fits into; heights are those of the panels of each row.
    """

    cell: float
    across: int
    blocks: int
    heights: list[float]

    @property
    def block_width(self) -> float:
        """Inches that the panels side by side take."""
        return self.across * (self.cell + GAP) - GAP

    def tops(self) -> list[float]:
        """Where the panels of each row start, and at last where all ends."""
        lines = 4 // self.across
        steps = [lines * (height + TITLE) - TITLE + CAPTION for height in self.heights]
        return list(itertools.accumulate(steps, initial=HEAD + TITLE))


def draw(scene: Scene) -> bytes:
    """Draw the picture and return it as a PNG."""
    from matplotlib.figure import Figure

    layout = _layout(scene)
    bottom = max(layout.tops()[-1], HEAD + TITLE + _photo_size(scene, 0.8 * PHOTO_SIDE)[1] + GAP)
    photo_width, photo_height = _photo_size(scene, max(bottom - HEAD - TITLE - CAPTION, 0.8 * PHOTO_SIDE))
    left = MARGIN + photo_width + GUTTER
    width = left + layout.blocks * (layout.block_width + GUTTER) - GUTTER + MARGIN
    words = EXPLANATION + OUTSIDE * _reaches_outside(scene)
    foot = textwrap.wrap(words, int((width - 2 * MARGIN) / FOOT_LETTER))
    figure = Figure((width, bottom + 0.15 + FOOT_LINE * len(foot) + 0.3), DPI, facecolor="white")
    _write_head(figure, scene)
    _text(figure, MARGIN, bottom + 0.15, "\n".join(foot), size=9, color=GREY, va="top")
    _draw_photo(figure, scene, photo_width, photo_height)
    for number in range(len(scene.boxes)):
        _draw_entry(figure, scene, number, layout, left)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _layout(scene: Scene) -> Layout:
    count = len(scene.boxes)
    blocks = 1 if count <= 4 else 2 if count <= 8 else 3
    rows = -(-count // blocks)
    cell = {1: 2.3, 2: 1.9}.get(count, 1.5)  # the head and the caption of a lone box need 2.3
    views = zip(scene.boxes, scene.cut, strict=True)
    heights = [max(_fit(box, cell)[1], _fit(_around(box, cut), cell)[1]) for box, cut in views]
    row_heights = [max(heights[row::rows]) for row in range(rows)]
    return Layout(cell, 2 if count == 1 else 4, blocks, row_heights)


def _write_head(figure: "Figure", scene: Scene) -> None:
    (height, width), (rows, columns) = scene.photo.shape[:2], scene.features.shape[:2]
    bins, ratio = scene.aligned.shape[1], scene.sampling_ratio
    lines = (
        f"A photograph of {width} × {height} pixels, averaged to a feature map of {columns} × {rows} "
        f"(stride {scene.stride}).",
        f"Each box becomes {bins} × {bins} bins; RoIAlign takes {ratio} × {ratio} samples a bin.",
    )
    title = f"RoIAlign and RoIPool, given the same box{'es' * (len(scene.boxes) > 1)}"
    _text(figure, MARGIN, 0.45, title, size=15, weight="bold")
    for line, words in enumerate(lines):
        _text(figure, MARGIN, 0.7 + 0.18 * line, words, size=9.5, color=GREY)


def _text(figure: "Figure", x: float, y: float, words: str, **style: Any) -> None:
    """Write words with their base line at y."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, words, **{"color": INK, "va": "baseline", **style})


def _axes(figure: "Figure", x: float, y: float, width: float, height: float, view: np.ndarray) -> "Axes":
    """Axes at a place on the page, in pixels of the photograph, that show its part in the box `view`."""
    page_width, page_height = figure.get_size_inches()
    place = (x / page_width, 1 - (y + height) / page_height, width / page_width, height / page_height)
    axes = figure.add_axes(place, facecolor=PALE, xticks=[], yticks=[])
    axes.set(xlim=view[[0, 2]], ylim=view[[3, 1]])
    axes.spines[:].set_visible(False)
    return axes


def _show(axes: "Axes", image: np.ndarray, box: np.ndarray, interpolation: str = "nearest") -> None:
    """Draw an image over a box, with crisp pixels unless told otherwise."""
    view = axes.axis()
    x1, y1, x2, y2 = box
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    axes.imshow(pixels, extent=(x1, x2, y2, y1), interpolation=interpolation, aspect="auto")
    axes.axis(view)


def _show_part(axes: "Axes", image: np.ndarray, stride: int, interpolation: str = "nearest") -> None:
    """Draw what the axes show of an image that covers the photograph, averaged to about their pixels.

    Averaging only saves time: matplotlib needs seconds for a large photograph.
    """
    left, right, bottom, top = (edge / stride for edge in axes.axis())
    x1, y1 = max(math.floor(left), 0), max(math.floor(top), 0)
    step = max(1, int((right - left) / axes.bbox.width))
    part = box_average(image[y1 : math.ceil(bottom), x1 : math.ceil(right)], step)
    height, width = part.shape[:2]
    extent = stride * np.array([x1, y1, x1 + step * width, y1 + step * height])
    _show(axes, part, extent, interpolation)


def _fit(view: np.ndarray, width: float, height: float | None = None) -> tuple[float, float]:
    """Return the largest size of a view's shape within width by height; no side under 1/8 of the other."""
    across, down = np.maximum(view[2:] - view[:2], (view[2:] - view[:2]).max() / 8).tolist()
    scale = min(width / across, (height or width) / down)
    return across * scale, down * scale


def _draw_photo(figure: "Figure", scene: Scene, width: float, height: float) -> None:
    axes = _axes(figure, MARGIN, HEAD + TITLE, width, height, _photo_view(scene))
    _show_part(axes, scene.photo, 1, "antialiased")
    for number in range(len(scene.boxes)):
        _draw_geometry(axes, scene, number, 1.8)
    taken: list[tuple[float, float]] = []
    for number, (box, cut) in enumerate(zip(scene.boxes, scene.cut, strict=True)):
        taken.append(_free_corner(axes, _both(box, cut), taken))
        axes.annotate(str(number + 1), taken[-1], xycoords="axes pixels", **_chip(number))


def _photo_view(scene: Scene) -> np.ndarray:
    height, width = scene.photo.shape[:2]
    everything = np.vstack([(0, 0, width, height), scene.boxes, scene.cut])
    return np.concatenate([everything[:, :2].min(axis=0), everything[:, 2:].max(axis=0)])


def _reaches_outside(scene: Scene) -> bool:
    rows, columns = scene.features.shape[:2]
    everything = np.vstack([scene.boxes, scene.cut])
    return bool(
        everything.min() < 0
        or (everything[:, 2:].max(axis=0) > np.multiply(scene.stride, (columns, rows))).any()
    )


def _photo_size(scene: Scene, height: float) -> tuple[float, float]:
    return _fit(_photo_view(scene), max(PHOTO_SIDE, height), height)


def _free_corner(axes: "Axes", box: np.ndarray, taken: list[tuple[float, float]]) -> tuple[float, float]:
    """Return where a number is outside a corner of its box: the first with room for it, or the most."""
    best, most = (0.0, 0.0), -1.0
    for right, below in itertools.product((False, True), repeat=2):
        corner = axes.transData.transform((box[2 if right else 0], box[3 if below else 1]))
        across, down = corner - axes.bbox.p0 + CHIP * DPI * np.where([right, not below], 1, -1)
        room = min((np.hypot(across - u, down - v) for u, v in taken), default=np.inf)
        if most < DPI / 5 and room > most:
            best, most = (across, down), room
    return best


def _chip(number: int) -> dict[str, Any]:
    """Return the style of a box's number."""
    colour = COLOURS[number]
    red, green, blue = bytes.fromhex(colour[1:])
    ink = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 130 else INK
    frame = {"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": INK, "linewidth": 0.6}
    return {"color": ink, "size": 8.5, "weight": "bold", "ha": "center", "va": "center", "bbox": frame}


def _draw_geometry(axes: "Axes", scene: Scene, number: int, width: float) -> None:
    """Draw a box, RoIAlign's bins and samples where there is room for them, and RoIPool's box dashed."""
    colour, bins, ratio = COLOURS[number], scene.aligned.shape[1], scene.sampling_ratio
    x1, y1, x2, y2 = box = scene.boxes[number]
    corners = axes.transData.transform(box.reshape(2, 2))
    room = np.abs(corners[1] - corners[0]).min() * 72 / DPI / bins  # points for a bin
    if room >= 2.5:
        style = {"color": colour, "lw": 0.7, "alpha": min(0.8, 0.1 * room)}
        axes.vlines(np.linspace(x1, x2, bins + 1), y1, y2, **style)
        axes.hlines(np.linspace(y1, y2, bins + 1), x1, x2, **style)
    if room >= 5:
        steps = (np.arange(bins * ratio) + 0.5) / (bins * ratio)
        xs, ys = np.meshgrid(x1 + steps * (x2 - x1), y1 + steps * (y2 - y1))
        size = min(0.3 * room / ratio, 2.2)
        axes.plot(xs.ravel(), ys.ravel(), "o", ms=size, mfc=colour, mec=INK, mew=0.3)
    _outline(axes, scene.cut[number], colour, 0.8 * width, "--")
    _outline(axes, box, colour, width, "-")


def _outline(axes: "Axes", box: np.ndarray, colour: str, width: float, style: str) -> None:
    """Draw a coloured line on a dark one, to be seen on any ground."""
    corners = box[[0, 2, 2, 0, 0]], box[[1, 1, 3, 3, 1]]
    axes.plot(*corners, "-", color=INK, lw=width + 1, clip_on=False, solid_joinstyle="miter")
    axes.plot(*corners, style, color=colour, lw=width, clip_on=False, solid_joinstyle="miter")


def _draw_entry(figure: "Figure", scene: Scene, number: int, layout: Layout, left: float) -> None:
    """Draw the four panels of a box and the words below them."""
    block, row = divmod(number, len(layout.heights))
    x, y = left + block * (layout.block_width + GUTTER), layout.tops()[row]
    step_x, step_y = layout.cell + GAP, layout.heights[row] + TITLE
    cells = [(x + i % layout.across * step_x, y + i // layout.across * step_y) for i in range(4)]
    box, cut = scene.boxes[number], scene.cut[number]
    views = (box, _around(box, cut), box, box)
    panels = [_panel(figure, *cell, layout.cell, view) for cell, view in zip(cells, views, strict=True)]
    _fill_panels(panels, scene, number)
    if row == 0:
        for (cell_x, cell_y), title in zip(cells, TITLES, strict=True):
            _text(figure, cell_x + layout.cell / 2, cell_y - 0.1, title, size=9.5, weight="bold", ha="center")
    words_y = layout.tops()[row + 1] - CAPTION
    _text(figure, x + 0.1, words_y + 0.22, str(number + 1), **_chip(number))
    for line, words in enumerate(_caption(box, cut)):
        _text(figure, x + 0.3, words_y + 0.2 + 0.17 * line, words, size=8.5, color=GREY if line else INK)


def _panel(figure: "Figure", x: float, y: float, cell: float, view: np.ndarray) -> "Axes":
    """Axes of the shape of a view, at the top of a cell."""
    width, height = _fit(view, cell)
    return _axes(figure, x + (cell - width) / 2, y, width, height, view)


def _fill_panels(panels: list["Axes"], scene: Scene, number: int) -> None:
    photograph, features, aligned, pooled = panels
    box, colour = scene.boxes[number], COLOURS[number % len(COLOURS)]
    _show_part(photograph, scene.photo, 1, "antialiased")
    _show_part(features, scene.features, scene.stride)
    _draw_geometry(features, scene, number, 1.2)
    _show(aligned, scene.aligned[number], box)
    _outline(aligned, box, colour, 1.2, "-")
    _show(pooled, scene.pooled[number], box)
    _outline(pooled, box, colour, 1.2, "--")


def _both(box: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Return the box around both."""
    return np.concatenate([np.minimum(box, cut)[:2], np.maximum(box, cut)[2:]])


def _around(box: np.ndarray, cut: np.ndarray) -> np.ndarray:
    low, high = np.split(_both(box, cut), 2)
    margin = 0.08 * (high - low)
    return np.concatenate([low - margin, high + margin])


def _caption(box: np.ndarray, cut: np.ndarray) -> tuple[str, str]:
    """Say in two lines what rounding did to a box."""
    size, cut_size = box[2:] - box[:2], cut[2:] - cut[:2]
    shared = np.maximum(np.minimum(box, cut)[2:] - np.maximum(box, cut)[:2], 0).prod()
    overlap = shared / (size.prod() + cut_size.prod() - shared)
    digits = 0 if size.min() >= 20 else 1
    moves = [f"{move:+.{digits}f}".replace("-", "−") if move else "0" for move in np.round(cut - box, digits)]
    sides = ", ".join(f"{side} {move}" for side, move in zip(SIDES, moves, strict=True))
    return (
        f"{size[0]:.{digits}f} × {size[1]:.{digits}f} pixels; RoIPool cuts {cut_size[0]} × {cut_size[1]}, "
        f"IoU {overlap:.2f}",
        f"rounding moves {sides}",
    )

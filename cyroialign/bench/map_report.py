"""What the map tells: the worst cells and each value of each axis as tables, and all cells as a picture."""

import io
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cyroialign.bench.progress import plural
from cyroialign.bench.report import digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cyroialign.bench.map import Cell

WORST = 20
NAMES = {"rois": "RoIs", "sampling_ratio": "sampling"}
SETTINGS = ("channels", "bins", "rois", "window", "sampling_ratio", "direction", "layout", "dtype", "threads")
LOWEST, HIGHEST = 1 / 8, 64  # beyond these, colours do not differ


def tables(cells: Sequence["Cell"]) -> str:
    """Sum up the cells that have a peer: all, by each value of each axis, and the worst one by one."""
    rated = sorted((cell for cell in cells if cell.peer), key=lambda cell: cell.ratio)
    alone = len(cells) - len(rated)
    if not rated:
        return f"{plural(len(cells), 'cell')}, none of which has a peer here"
    ratios = [cell.ratio for cell in rated]
    below = sum(ratio < 1 for ratio in ratios)
    summary = (
        f"{plural(len(rated), 'cell')}: cyroialign is slower than the fastest peer in {below}; "
        f"the median is {digits(statistics.median(ratios), 3)} times as fast, "
        f"the least {digits(ratios[0], 3)}" + f". {plural(alone, 'more cell')} without a peer." * (alone > 0)
    )
    by_value = []
    for setting in SETTINGS:
        for value in sorted({getattr(cell, setting) for cell in rated}):
            of_value = [cell.ratio for cell in rated if getattr(cell, setting) == value]
            middle = digits(statistics.median(of_value), 3)
            slower = sum(ratio < 1 for ratio in of_value)
            by_value.append([_word(setting, value), len(of_value), slower, digits(min(of_value), 3), middle])
    worst = [
        [
            digits(cell.ratio, 3),
            digits(1e3 * cell.seconds, 3),
            digits(1e3 * (cell.peer_seconds or 0), 3),
            cell.peer,
            *(_value(setting, getattr(cell, setting)) for setting in SETTINGS),
        ]
        for cell in rated[:WORST]
    ]
    head = ["ratio", "ms", "peer's ms", "peer", *(NAMES.get(setting, setting) for setting in SETTINGS)]
    return "\n".join(
        [
            summary,
            "",
            *_table(["where", "cells", "slower", "least", "median"], by_value),
            "",
            f"The {plural(len(worst), 'worst cell')}:",
            "",
            *_table(head, worst),
        ]
    )


def _word(setting: str, value: Any) -> str:
    return f"{NAMES.get(setting, setting)} {_value(setting, value)}"


def _value(setting: str, value: Any) -> str:
    if setting == "sampling_ratio":
        return str(value or "adaptive")
    return f"{value} x {value}" if setting == "bins" else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Write Markdown whose columns are aligned as plain text, too."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]


def draw(cells: Sequence["Cell"], axes: Mapping[str, tuple[int, ...]], title: str) -> bytes:
    """Draw every cell that has a peer, and return a PNG.

    A panel for each dtype, sampling, number of threads, direction and layout: channels and bins to the right,
    RoIs and windows upwards. Blue is faster, red slower; what was not measured is grey.
    """
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure

    rated = [cell for cell in cells if cell.peer]
    rows = sorted({(cell.dtype, -cell.sampling_ratio, cell.threads) for cell in rated}, key=_float32_first)
    columns = sorted(
        {(cell.direction, cell.layout) for cell in rated}, key=lambda one: (one[0] != "forward", one)
    )
    if not rated:
        rows, columns = [("no cell has a peer", 0, 1)], [("", "")]
    width, height = 1.2 + 3.3 * len(columns), 1.4 + 2.2 * len(rows)
    figure = Figure((max(6, width), height), 110, layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    norm = TwoSlopeNorm(0, math.log2(LOWEST), math.log2(HIGHEST))
    image: Any = None
    for (dtype, ratio, threads), line in zip(rows, panels, strict=True):
        for (direction, layout), panel in zip(columns, line, strict=True):
            kind = (dtype, -ratio, threads, direction, layout)
            some: dict[tuple[int, ...], float] = {
                (cell.rois, cell.window, cell.channels, cell.bins): cell.ratio
                for cell in rated
                if (cell.dtype, cell.sampling_ratio, cell.threads, cell.direction, cell.layout) == kind
            }
            image = _draw_panel(panel, some, axes, norm)
            sampling = f"{-ratio} x {-ratio} samples" if ratio else "adaptive"
            panel.set_title(f"{direction} {layout}, {dtype}, {sampling}, {plural(threads, 'thread')}", size=7)
            panel.set_visible(bool(some))  # there is no gradient of bytes
    for panel in panels[-1]:
        panel.set_xlabel("bins on each axis, and channels", size=7)
    for panel in panels[:, 0]:
        panel.set_ylabel("pixels of a window, and RoIs", size=7)
    figure.suptitle(title, x=0.01, ha="left", size="medium")
    ticks = [2.0**power for power in range(int(math.log2(LOWEST)), int(math.log2(HIGHEST)) + 1)]
    bar = figure.colorbar(image, ax=panels, location="bottom", fraction=0.03, aspect=60, pad=0.01)
    bar.set_ticks([math.log2(tick) for tick in ticks], labels=[f"{tick:g}×" for tick in ticks])
    bar.set_label("times as fast as the fastest peer", size="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _float32_first(row: tuple[str, int, int]) -> tuple[bool, tuple[str, int, int]]:
    return row[0] != "float32", row


def _draw_panel(
    panel: "Axes", ratios: Mapping[tuple[int, ...], float], axes: Mapping[str, tuple[int, ...]], norm: Any
) -> Any:
    lines = list(itertools.product(axes["rois"], axes["window"]))
    columns = list(itertools.product(axes["channels"], axes["bins"]))
    values = np.array([[ratios.get((*line, *column), math.nan) for column in columns] for line in lines])
    panel.set_facecolor("#DDDDDD")
    image = panel.imshow(np.log2(values), "RdBu", norm=norm, aspect="auto", origin="lower")
    for y, x in np.argwhere(values < 1):
        colour = "white" if values[y, x] < 0.5 else "black"
        words = f"{min(values[y, x], 0.99):.2f}".lstrip("0")
        panel.text(x, y, words, size=4.5, ha="center", va="center", color=colour)
    bins, windows = len(axes["bins"]), len(axes["window"])
    below = [f"\n{plural(count, 'channel')}" for count in axes["channels"]]
    beside = [f"{plural(count, 'RoI')}   " for count in axes["rois"]]
    # The middle of each group bears its name, too.
    x = [f"{bin}{below[i // bins] * (i % bins == bins // 2)}" for i, (_, bin) in enumerate(columns)]
    y = [
        f"{beside[i // windows] * (i % windows == windows // 2)}{window}"
        for i, (_, window) in enumerate(lines)
    ]
    panel.set_xticks(range(len(columns)), x, size=5)
    panel.set_yticks(range(len(lines)), y, size=5)
    panel.tick_params(length=0, pad=2)
    panel.hlines(
        np.arange(windows, len(lines), windows) - 0.5, -0.5, len(columns) - 0.5, "white", linewidth=1
    )
    panel.vlines(np.arange(bins, len(columns), bins) - 0.5, -0.5, len(lines) - 0.5, "white", linewidth=1)
    panel.spines[:].set_visible(False)
    return image

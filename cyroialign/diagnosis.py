"""Why RoIs come out as zeros: where boxes lie on the map, and which common mistake explains it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cyroialign.arguments import memory_order, validation
from cyroialign.arguments.boxes import read_boxes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SHARES = "the coordinates are shares of the image, from 0 to 1"
INVERTED = "x2 < x1 or y2 < y1"
CENTRED = "(centre x, centre y, width, height)"
TO_PIXELS = "multiply by the width and height of the image"
ADD = "add x1 to x2 and y1 to y2"
HALVE = "take cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2"
EITHER = f"{ADD} if x and y are a corner, or {HALVE} if the centre, which these boxes do not tell"
CAUSES = {
    "": "nothing is wrong",
    "zero input": "the feature map of the image holds nothing but zeros",
    "normalised": f"{SHARES}: {TO_PIXELS}",
    "normalised x, y, w, h": f"{SHARES}, and fit as (x, y, width, height): {TO_PIXELS}, then {ADD}",
    "normalised cx, cy, w, h": f"{SHARES}, and fit as YOLO's and DETR's {CENTRED}: {TO_PIXELS}, then {HALVE}",
    "normalised w, h": f"{SHARES}, with width and height in place of x2 and y2: {TO_PIXELS}, then {EITHER}",
    "x, y, w, h": f"{INVERTED}, and they fit as (x, y, width, height): {ADD}",
    "cx, cy, w, h": f"{INVERTED}, and they fit as {CENTRED}: {HALVE}",
    "w, h": f"{INVERTED}, and they fit with width and height in place of x2 and y2: {EITHER}",
    "inverted": f"{INVERTED}: nothing is between the corners; if they are sizes, mend spatial_scale first",
    "empty": "x2 == x1 or y2 == y1: an aligned RoI with adaptive sampling has no samples",
    "swapped": "they lie on the map once x and y are exchanged: give (x1, y1, x2, y2)",
    "scale": "they reach past the map, as if spatial_scale were too large",
    "feature coordinates": "they fit the map before spatial_scale is applied: scale them once, not twice",
    "outside": "at least half of the RoI lies off the map",
}
FEW = 5  # boxes that are named for each cause
OVER = 0.1  # of its sides, that shares of an image may exceed it by: predictions do
ROUNDING = 0.005  # of the sides, by which boxes may exceed them and still be said to fit


@dataclass(frozen=True)
class Diagnosis:
    """What `why_zero` found; ``str()`` gives a readable summary.

    Attributes
    ----------
    share_outside : (K,) ndarray of float64
        The fraction of the area of each RoI that lies off the map, where samples are zero.
    causes : tuple of K str
        For each box a key of ``CAUSES``, which explains it; "" if nothing is wrong.
    spatial_scale : float or None
        With the cause "scale", the largest power of two that would bring all boxes onto the map.
    """

    share_outside: np.ndarray
    causes: tuple[str, ...]
    spatial_scale: float | None = None

    def __str__(self) -> str:
        lines = [f"{len(self.causes)} boxes, {self.causes.count('')} of them with nothing wrong"]
        for cause, meaning in CAUSES.items():
            boxes = [box for box, one in enumerate(self.causes) if cause and one == cause]
            if boxes:
                more = ", ..." if len(boxes) > FEW else ""
                named = ", ".join(map(str, boxes[:FEW])) + more
                hint = f"; {self.spatial_scale:g} would fit" if cause == "scale" else ""
                lines.append(f"{cause}: {len(boxes)} ({named}): {meaning}{hint}")
        return "\n".join(lines)


def why_zero(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    spatial_scale: float | tuple[float, float] = 1.0,
    aligned: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
) -> Diagnosis:
    """Diagnose why `roi_align` gives zeros, or nearly zeros, for boxes.

    Parameters
    ----------
    input, boxes, spatial_scale, aligned, batch_indices, layout
        As given to `roi_align`.

    Returns
    -------
    Diagnosis
        With ``share_outside`` and ``causes`` for each box; print it to read it.

    Raises
    ------
    TypeError, ValueError
        As in `roi_align`.

    Notes
    -----
    "outside", "inverted", "empty" and "zero input" are facts about a box. The others are guesses from all
    boxes together and are reported for all of them: only if undoing the mistake brings every box onto the
    map or, for those that begin with "normalised", if all coordinates are from 0 to 1, give or take 0.1.
    Whether sizes go with corners or with centres is judged by which form leaves the image less. If several
    apply, the most certain is reported. A cause does not mean that the result is zero everywhere, but that it
    is probably not what was intended.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> features = np.ones((1, 8, 50, 68), np.float32)
    >>> boxes = np.array([[0, 300, 200, 900, 700], [0, 100, 80, 400, 330]])
    >>> print(cyroialign.why_zero(features, boxes))
    2 boxes, 0 of them with nothing wrong
    scale: 2 (0, 1): they reach past the map, as if spatial_scale were too large; 0.0625 would fit
    >>> print(cyroialign.why_zero(features, boxes, spatial_scale=1 / 16))
    2 boxes, 2 of them with nothing wrong
    """
    validation.choice(layout, "layout", validation.LAYOUTS)
    aligned = validation.flag(aligned, "aligned")
    maps = validation.feature_map(input, "input")
    images, _, height, width = memory_order.sizes(maps.shape, layout == "NHWC")
    rois = read_boxes(boxes, batch_indices, images, maps.dtype, spatial_scale, aligned)
    validation.room_for_boxes(height, width, len(rois.rows))
    index, first, second = rois.rows[:, 0].astype(np.intp), rois.rows[:, 1:3], rois.rows[:, 3:]
    if not len(index):
        return Diagnosis(np.empty(0), ())
    sides, scale = np.array([width, height], float), np.array(rois.scales[0])[::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        size = second - first
        inverted, empty = (size < 0).any(axis=1), (size == 0).any(axis=1) & aligned
        share = _share_outside(first * scale, second * scale, sides, aligned)
        outside = share >= 0.5
        fit = _fitting_scale(first, second, sides, scale) if outside.mean() >= 0.5 else None
        swapped = outside.any() and _on_map(first[:, ::-1] * scale, second[:, ::-1] * scale, sides)
        sizes = _form_of_sizes(first * scale, second * scale, sides, 1 / sides) if inverted.any() else ""
        shares = _are_normalised(first, second, sides, scale)
        share_sizes = _form_of_sizes(first, second, np.ones(2)) if shares and inverted.any() else ""
    causes = np.full(len(index), "", object)
    for cause, which in (  # the surer ones come last
        ("outside", outside),
        ("feature coordinates", _are_of_features(first, second, sides, scale)),
        ("scale", fit is not None),
        ("swapped", swapped),
        ("empty", empty),
        ("inverted", inverted),
        (sizes, bool(sizes)),
        (f"normalised {share_sizes}".strip(), shares),
        ("zero input", ~np.asarray(maps.any(axis=(1, 2, 3)))[index]),
    ):
        causes[which] = cause
    return Diagnosis(share, tuple(causes.tolist()), fit if "scale" in causes else None)


def _share_outside(start: np.ndarray, end: np.ndarray, sides: np.ndarray, aligned: bool) -> np.ndarray:
    """Part of the area of RoIs (K, 2), in pixels, where a sample is more than a pixel off the map."""
    if aligned:
        start, end = start - 0.5, end - 0.5
        start, end = np.minimum(start, end), np.maximum(start, end)
    else:
        end = np.maximum(end, start + 1)
    covered = np.clip(end, -1, sides) - np.clip(start, -1, sides)
    inside = np.where(end > start, covered / (end - start), (start >= -1) & (start <= sides))
    return np.asarray(1 - inside.prod(axis=1))


def _on_map(start: np.ndarray, end: np.ndarray, sides: np.ndarray) -> bool:
    """Tell whether all RoIs (K, 2) run forwards and lie on the map, give or take a pixel."""
    return bool((start <= end).all() and (start >= -1).all() and (end <= sides + 1).all())


def _fitting_scale(
    first: np.ndarray, second: np.ndarray, sides: np.ndarray, scale: np.ndarray
) -> float | None:
    """Find the largest power of two below the scale that brings all boxes onto the map."""
    reach = (second / sides).max()
    if not 0 < reach * scale.max() < np.inf:
        return None
    fit = 2.0 ** np.floor(-np.log2(reach))
    return float(fit) if fit < scale.min() and _on_map(first * fit, second * fit, sides) else None


def _are_of_features(first: np.ndarray, second: np.ndarray, sides: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether three boxes or more fill the map without being scaled; fewer would be chance."""
    filled = len(first) >= 3 and bool((second.max(axis=0) > 0.75 * sides).all())
    return bool(scale.max() <= 0.5) and filled and _on_map(first, second, sides)


def _are_normalised(first: np.ndarray, second: np.ndarray, sides: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether all coordinates are shares of an image of more than a few pixels."""
    low, high = np.minimum(first, second).min(), np.maximum(first, second).max()
    return bool(low >= -OVER and high <= 1 + OVER and (sides / scale > 4).all())


def _form_of_sizes(
    first: np.ndarray, size: np.ndarray, sides: np.ndarray, most: float | np.ndarray = np.inf
) -> str:
    """Name the form, with sizes in place of second corners, that leaves the map less, and by `most` of it."""
    if (size < 0).any():
        return ""
    corner, centre = (
        (np.maximum(-start, 0) + np.maximum(start + size - sides, 0)) / sides
        for start in (first, first - size / 2)
    )
    if max(corner.max(), centre.max()) <= ROUNDING:
        return "w, h"
    form, off = ("x, y, w, h", corner) if corner.mean() < centre.mean() else ("cx, cy, w, h", centre)
    return form if (off <= most).all() else ""

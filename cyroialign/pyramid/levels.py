"""Which level of a feature pyramid a box is pooled from, and what the scales of the levels are."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cyroialign.arguments import foreign, pyramids, validation
from cyroialign.arguments.boxes import is_by_image, place_in_list

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

EPSILON = 1e-6  # torchvision's: a box just short of a level's size in rounding belongs to that level


def assign_levels(
    boxes: "ArrayLike | Sequence[ArrayLike]",
    min_level: int,
    max_level: int,
    *,
    canonical_scale: float = 224,
    canonical_level: int = 4,
) -> np.ndarray:
    r"""Find the level of a feature pyramid that each box is pooled from, by its size.

    Parameters
    ----------
    boxes : (K, 4) or (K, 5) array, or sequence of arrays (L_i, 4)
        Rows of (x1, y1, x2, y2), with or without a leading batch_index, which is ignored; or such
        rows for each image, K in all, in that order. In pixels of the image, of any float or integer dtype.
    min_level, max_level : int
        The finest and the coarsest level there are; a map of level k has stride 2**k.
    canonical_scale : float, optional
        Side in pixels of a square box that belongs to `canonical_level`.
    canonical_level : int, optional
        The level of a box of that size.

    Returns
    -------
    (K,) ndarray of int64
        Levels counted from `min_level`: 0 is the finest.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or a level is wrong, or a coordinate is NaN or infinite: the first such row is named.

    Notes
    -----
    With :math:`k_0` the canonical level and :math:`s_0` the canonical scale,

    .. math:: k = \lfloor k_0 + \log_2(\sqrt{\mathrm{width} \cdot \mathrm{height}} / s_0) + 10^{-6} \rfloor

    clamped to the existing levels. As in torchvision, the steps are rounded to float64 for boxes of float64
    (or longdouble), else to float32. A box whose area is zero or negative (inverted on one axis) belongs to
    the finest level; one that is inverted on both axes has the level of its mirror image.

    The small term keeps a box of exactly a level's size at that level in spite of rounding. torchvision adds
    it to the logarithm; detectron2 adds 1e-8, and MMDetection 1e-6, to the quotient. So a box within a few
    millionths of a limit may have another level there; all others have the same. MMDetection's
    ``finest_scale=56`` is ``canonical_scale=56, canonical_level=min_level``.

    References
    ----------
    T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> boxes = np.array([[0, 0, 50, 60], [0, 0, 223, 223], [10, 10, 234, 234], [0, 0, 2000, 900]])
    >>> cyroialign.assign_levels(boxes, min_level=2, max_level=5)
    array([0, 1, 2, 3])
    """
    low, high = pyramids.level_numbers(min_level, max_level)
    origin = pyramids.level_number(canonical_level, "canonical_level")
    unit = validation.scale(canonical_scale, True, "canonical_scale")
    x1, y1, x2, y2 = _corners(boxes).T
    real = np.float32 if x1.dtype.itemsize < 8 or x1.dtype.kind != "f" else np.float64
    if x1.dtype.kind != "f":  # areas of integers are exact before they are rounded
        x1, y1, x2, y2 = (side.astype(np.float64) for side in (x1, y1, x2, y2))
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        area = ((x2 - x1) * (y2 - y1)).astype(real)
        ratio = np.sqrt(area) / real(unit)
        # Rounded from float64, the logarithm is the same on every platform.
        octaves = np.log2(ratio.astype(np.float64)).astype(real)
        levels = np.floor(real(origin) + octaves + real(EPSILON)).astype(np.float64)
    levels = np.fmin(np.fmax(levels, low), high)  # fmax ignores the NaN of a negative area
    return np.asarray(levels - low).astype(np.int64)


def infer_scales(feature_sizes: Sequence[Any], image_shapes: Sequence[Any]) -> list[float]:
    """Infer the spatial_scale of each feature map, a power of two.

    Parameters
    ----------
    feature_sizes : sequence of (int, int)
        (height, width) of each map.
    image_shapes : sequence of (int, int)
        (height, width) of each image, before it was padded to a common size.

    Returns
    -------
    list of float
        ``2 ** round(log2(length of the map / length of the images))`` for each map, along the longer axis
        of the images.

    Raises
    ------
    TypeError, ValueError
        If a size is not (height, width) of whole numbers from 1 up, or there are none.

    Notes
    -----
    The height is that of the tallest image and the width that of the widest; if these are equal,
    heights are compared. torchvision compares only heights, so the padding of a low, wide image makes
    its scales too large by a factor of two or more: 14 x 100 pixels, padded to 32 x 128, have a map of
    8 x 32 pixels, of scale 1/2 there and 1/4 here.

    Examples
    --------
    >>> from cyroialign import infer_scales
    >>> infer_scales([(200, 272), (100, 136), (50, 68)], [(800, 1066), (704, 1088)])
    [0.25, 0.125, 0.0625]
    >>> infer_scales([(8, 32)], [(14, 100)])
    [0.25]
    """
    sizes = pyramids.list_of_sizes(feature_sizes, "feature_sizes")
    image = [max(sides) for sides in zip(*pyramids.list_of_sizes(image_shapes, "image_shapes"), strict=True)]
    axis = 0 if image[0] >= image[1] else 1
    # np.float32: a logarithm halfway between two whole numbers rounds as torchvision's does.
    octaves = (math.log2(np.float32(size[axis] / image[axis])) for size in sizes)
    return [2.0 ** float(np.rint(np.float32(octave))) for octave in octaves]


def level_range(scales: Sequence[float | tuple[float, float]]) -> tuple[int, int]:
    """Tell (min_level, max_level) of maps with the given scales, or pairs (y, x) of them, finest first.

    There are no more levels than maps: if maps skip a level, the last takes what is too large for the others.
    """
    ends = (scales[0], scales[-1])
    means = (math.sqrt(math.prod(one)) if isinstance(one, tuple) else one for one in ends)
    first, last = (round(-math.log2(scale)) for scale in means)
    pyramids.level_numbers(first, last)
    return first, min(last, first + len(scales) - 1)


def _corners(boxes: Any) -> np.ndarray:
    """Read (K, 4) finite corners in their own dtype, float16 as float32 and longdouble as float64."""
    by_image = is_by_image(boxes)
    if by_image:
        parts = [validation.box_array(one, f"boxes[{i}]", 4) for i, one in enumerate(boxes)]
        corners = np.concatenate(parts) if parts else np.empty((0, 4), np.float32)
    else:
        array = foreign.numbers_of(boxes, "boxes")
        columns = 5 if array.shape[1:] == (5,) else 4
        corners = validation.box_array(array, "boxes", columns)[:, columns - 4 :]
    if corners.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite
            corners = corners.astype(np.float64 if corners.dtype.itemsize >= 8 else np.float32)
    bad = ~np.isfinite(corners).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        where = place_in_list(boxes, row) if by_image else f"boxes[{row}]"
        validation.raise_bad_box(np.r_[0, corners[row]], where, 1, (1.0, 1.0), single=False)
    return corners

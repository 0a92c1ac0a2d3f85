"""Every way to write boxes -> rows of (batch_index, x1, y1, x2, y2), or with the numbers of other boxes."""

from typing import Any, NamedTuple

import numpy as np

from cyroialign._kernels import RoIs
from cyroialign.arguments import dtypes, validation


class Boxes(NamedTuple):
    """Checked boxes: for the kernels, and as rows of the batch index and the numbers of a box.

    scales has (y, x), or (z, y, x), for each level; single: T is float32; given: the user's arrays.
    """

    rois: RoIs
    rows: np.ndarray
    scales: tuple[tuple[float, ...], ...]
    single: bool
    given: list[np.ndarray]


def read_boxes(
    boxes: Any, batch_indices: Any, images: int, dtype: np.dtype, spatial_scale: Any, aligned: bool
) -> Boxes:
    """Read the boxes of a call on `images` feature maps of the given dtype."""
    rows, single, given = _read(boxes, batch_indices, images, dtype)
    scales = (validation.spatial_scale(spatial_scale, single),)
    return _checked(boxes, rows, images, scales, None, aligned, single, given)


def read_rotated_boxes(
    boxes: Any,
    batch_indices: Any,
    images: int,
    dtype: np.dtype,
    spatial_scale: Any,
    aligned: bool,
    clockwise: bool,
) -> Boxes:
    """Read rotated boxes: (cx, cy, width, height, angle) in place of corners."""
    rows, single, given = _read(boxes, batch_indices, images, dtype, validation.ROTATED)
    scales = (validation.spatial_scale(spatial_scale, single),)
    return _checked(boxes, rows, images, scales, None, aligned, single, given, clockwise)


def read_boxes_of_volumes(
    boxes: Any, batch_indices: Any, images: int, dtype: np.dtype, spatial_scale: Any, aligned: bool
) -> Boxes:
    """Read the boxes of a call on volumes, rows of (batch_index, x1, y1, z1, x2, y2, z2)."""
    rows, single, given = _read(boxes, batch_indices, images, dtype, validation.CORNERS_3D)
    scales = (validation.volume_spatial_scale(spatial_scale, single),)
    return _checked(boxes, rows, images, scales, None, aligned, single, given)


def read_boxes_of_levels(
    boxes: Any,
    images: int,
    dtype: np.dtype,
    scales: tuple[tuple[float, float], ...],
    levels: np.ndarray,
    aligned: bool,
) -> Boxes:
    """Read a list of boxes, each with the level that it is pooled from; scales has a (y, x) per level."""
    rows, single, given = _read(boxes, None, images, dtype)
    return _checked(boxes, rows, images, scales, levels, aligned, single, given)


def read_shares(boxes: Any, box_indices: Any, images: int, dtype: np.dtype, height: int, width: int) -> Boxes:
    """Read boxes (y1, x1, y2, x2) in shares of the image, from its first pixel to its last."""
    corners = _corners(boxes, "boxes", 4)
    index = validation.batch_index_array(box_indices, len(corners), "box_indices")
    rows = _join(index, corners[:, [1, 0, 3, 2]])
    single, scales = _is_single(dtype, corners.dtype), ((max(height - 1.0, 0.0), max(width - 1.0, 0.0)),)
    rois = RoIs(rows, images, scales, None, False, single)
    if rois.bad >= 0:
        validation.raise_bad_share(rows[rois.bad], rois.bad, images, single)
    return Boxes(rois, rows, scales, single, [corners, index])


def _checked(
    boxes: Any,
    rows: np.ndarray,
    images: int,
    scales: tuple[tuple[float, ...], ...],
    levels: np.ndarray | None,
    aligned: bool,
    single: bool,
    given: list[np.ndarray],
    clockwise: bool = False,
) -> Boxes:
    """Refuse the first box for which no result is defined."""
    rois = RoIs(rows, images, scales, levels, aligned, single, clockwise)
    if rois.bad >= 0:
        row = rois.bad
        where = place_in_list(boxes, row) if is_by_image(boxes) else f"boxes[{row}]"
        scale = scales[0 if levels is None else levels[row]]
        validation.raise_bad_box(rows[row], where, images, scale, single)
    return Boxes(rois, rows, scales, single, given)


def _read(
    boxes: Any,
    batch_indices: Any,
    images: int,
    dtype: np.dtype,
    numbers: tuple[str, ...] = validation.CORNERS,
) -> tuple[np.ndarray, bool, list[np.ndarray]]:
    """Rows of batch index and numbers in float64, in which every index and float32 coordinate is exact.

    Then whether the geometry is computed in float32, the type T of the contract, and the user's arrays.
    """
    if is_by_image(boxes, batch_indices):
        rows, box_dtype, given = _read_list(boxes, batch_indices, images, numbers)
    elif batch_indices is None:
        array = _corners(boxes, "boxes", len(numbers) + 1, indexed=True)
        # Always a copy: the kernels rely on indices that nobody can change after the check.
        rows, box_dtype, given = np.array(array, np.float64, order="C"), array.dtype, [array]
    else:
        array = _corners(boxes, "boxes", len(numbers))
        index = validation.batch_index_array(batch_indices, len(array))
        rows, box_dtype, given = _join(index, array), array.dtype, [array, index]
    return rows, _is_single(dtype, box_dtype), given


def _is_single(dtype: np.dtype, box_dtype: np.dtype) -> bool:
    """Whether the geometry is computed in float32, for maps and boxes of such types."""
    return dtypes.of_sums(dtype) == dtypes.FLOAT32 and np.can_cast(box_dtype, dtypes.FLOAT32)


def is_by_image(boxes: Any, batch_indices: Any = None) -> bool:
    """Tell whether these are the boxes of each image, and not rows of one array."""
    return isinstance(boxes, (list, tuple)) and not validation.is_list_of_rows(boxes, batch_indices)


def _read_list(
    boxes: list[Any] | tuple[Any, ...], batch_indices: Any, images: int, numbers: tuple[str, ...]
) -> tuple[np.ndarray, np.dtype, list[np.ndarray]]:
    validation.list_of_boxes(boxes, batch_indices, images, numbers)
    given = [_corners(one, f"boxes[{i}]", len(numbers)) for i, one in enumerate(boxes)]
    if not given:
        return np.empty((0, len(numbers) + 1)), dtypes.FLOAT32, given
    index = np.repeat(np.arange(images), [len(one) for one in given])
    return _join(index, np.concatenate(given)), np.result_type(*given), given


def _corners(value: Any, name: str, columns: int, indexed: bool = False) -> np.ndarray:
    array = validation.box_array(value, name, columns, indexed)
    if array.dtype.itemsize > 8:  # a longdouble beyond float64 becomes infinite, and that is refused
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    return array


def _join(index: np.ndarray, corners: np.ndarray) -> np.ndarray:
    rows = np.empty((len(corners), 1 + corners.shape[1]))
    rows[:, 0], rows[:, 1:] = index, corners
    return rows


def place_in_list(boxes: list[Any] | tuple[Any, ...], row: int) -> str:
    """Name a row of the boxes of all images as the user would find it."""
    for image, one in enumerate(boxes):
        if row < len(one):
            return f"boxes[{image}][{row}]"
        row -= len(one)
    raise AssertionError("the row lies in one of the arrays")

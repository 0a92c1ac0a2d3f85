"""Anchor boxes: what the region proposals of a feature pyramid start from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cyroialign.arguments import pyramids


class AnchorGenerator:
    """Boxes of several sizes and shapes around each cell of each level of a feature pyramid.

    Parameters
    ----------
    sizes : sequence of sequences of float, one per level
        Side in pixels of a square with the same area as the anchor. A flat sequence has one size per level.
    aspect_ratios : sequence of sequences of float, one per level
        Height divided by width. A flat sequence applies to every level.

    Attributes
    ----------
    cell_anchors : list of (B_l, 4) float32 arrays
        The anchors of a cell at (0, 0), with rounded corners: for each aspect ratio each size.

    Raises
    ------
    TypeError, ValueError
        If a size or ratio is not a finite number above 0, or the two differ in number of levels.

    Notes
    -----
    An anchor of size s and aspect ratio r is ``s * sqrt(r)`` high and ``s / sqrt(r)`` wide, computed in
    float32; halves round to even. This and the order of the anchors are torchvision's. detectron2 does not
    round, orders anchors by size first, and is told how far apart cells are; for its anchors,
    set `cell_anchors` to your own arrays.

    Examples
    --------
    >>> from cyroialign import AnchorGenerator
    >>> anchors = AnchorGenerator(sizes=((32,), (64,)), aspect_ratios=(0.5, 1.0, 2.0))
    >>> anchors.num_anchors_per_location()
    [3, 3]
    >>> [level.shape for level in anchors((800, 1088), [(200, 272), (100, 136)])]
    [(163200, 4), (40800, 4)]
    >>> anchors.cell_anchors[0]
    array([[-23., -11.,  23.,  11.],
           [-16., -16.,  16.,  16.],
           [-11., -23.,  11.,  23.]], dtype=float32)
    """

    def __init__(
        self,
        sizes: Sequence[Any] = ((128, 256, 512),),
        aspect_ratios: Sequence[Any] = ((0.5, 1.0, 2.0),),
    ) -> None:
        self.sizes, self.aspect_ratios = pyramids.sizes_and_ratios(sizes, aspect_ratios)
        self.cell_anchors = list(map(_cell_anchors, self.sizes, self.aspect_ratios))
        pyramids.finite_anchors(self.cell_anchors)

    def __call__(self, image_size: Sequence[int], grid_sizes: Sequence[Any]) -> list[np.ndarray]:
        """Lay the anchors over the cells of each level.

        Parameters
        ----------
        image_size : (int, int)
            Height and width in pixels of the images that the maps were computed from, padding included.
        grid_sizes : sequence of (int, int)
            Height and width of the map of each level.

        Returns
        -------
        list of (A_l, 4) float32 arrays
            Rows of (x1, y1, x2, y2) for each level: cell after cell of a row, row after row, and for
            each cell the anchors of `cell_anchors`. Cells are ``image_size // grid_size`` pixels apart.

        Raises
        ------
        TypeError, ValueError
            If a size is not (height, width) of whole numbers from 1 up, or there is not one grid per level.
        """
        height, width = pyramids.height_and_width(image_size, "image_size")
        grids = pyramids.list_of_sizes(grid_sizes, "grid_sizes", len(self.cell_anchors))
        return [
            _lay(cell, rows, columns, height // rows, width // columns)
            for cell, (rows, columns) in zip(self.cell_anchors, grids, strict=True)
        ]

    def num_anchors_per_location(self) -> list[int]:
        """Count the anchors of a cell, for each level."""
        return [len(cell) for cell in self.cell_anchors]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(sizes={self.sizes}, aspect_ratios={self.aspect_ratios})"


def _cell_anchors(sizes: tuple[float, ...], aspect_ratios: tuple[float, ...]) -> np.ndarray:
    with np.errstate(over="ignore"):
        high = np.sqrt(np.array(aspect_ratios, np.float32))
        heights = np.outer(high, np.array(sizes, np.float32)).ravel()
        widths = np.outer(1 / high, np.array(sizes, np.float32)).ravel()
    return np.rint(np.stack([-widths, -heights, widths, heights], axis=1) / 2)


def _lay(cell: np.ndarray, rows: int, columns: int, down: int, right: int) -> np.ndarray:
    anchors = np.empty((rows, columns, len(cell), 4), np.float32)
    x = (np.arange(columns) * right).astype(np.float32)
    y = (np.arange(rows) * down).astype(np.float32)
    np.add(x[:, None, None], cell[:, 0::2], out=anchors[..., 0::2])
    np.add(y[:, None, None, None], cell[:, 1::2], out=anchors[..., 1::2])
    return anchors.reshape(-1, 4)

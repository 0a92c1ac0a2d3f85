"""What the benchmark gives to every library, and what it is given back: rows to time."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import cyroialign

OPERATORS = {  # by the name that the command line takes
    "roi_align": "RoIAlign, aligned=True",
    "max": "RoIAlign, mode='max', aligned=True",
    "onnx_max": "RoIAlign, mode='onnx_max', aligned=True",
    "boxes_backward": "gradient of RoIAlign to its boxes, aligned=True",
    "roi_align_rotated": "RoIAlignRotated, aligned=True",
    "roi_align_3d": "RoIAlign of volumes, aligned=True",
    "roi_pool": "RoIPool",
    "prroi_pool": "PrRoIPool",
    "ps_roi_align": "PSRoIAlign",
    "ps_roi_pool": "PSRoIPool",
    "multiscale": "MultiScaleRoIAlign",
    "crop_and_resize": "crop_and_resize, bilinear",
}
POSITION_SENSITIVE = ("ps_roi_align", "ps_roi_pool")
TOLERANCE = 1e-4  # of the largest value


class Problem(NamedTuple):
    """What every library is given: arrays that all read and none can write.

    Some read them in place, so it has to live as long as the rows.
    """

    features: np.ndarray  # (1, C, H, W), or of a volume (1, C, D, H, W)
    boxes: np.ndarray  # (K, 5), or (K, 7)
    corners: np.ndarray  # (K, 4), or (K, 6): boxes without the image
    images: np.ndarray  # (K,) of int64
    gradient: np.ndarray  # (K, C, bins, bins), or bins on three axes: the shape of the result
    bins: int
    spatial_scale: float
    sampling_ratio: int
    threads: int
    operator: str = "roi_align"
    dtypes: tuple[str, ...] = ()  # of more rows of cyroialign
    coarser: tuple[np.ndarray, ...] = ()  # the other levels of a pyramid, each half as high and wide

    @property
    def levels(self) -> tuple[np.ndarray, ...]:
        """All maps, the finest first."""
        return (self.features, *self.coarser)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Everything that is shared."""
        return (*self.levels, self.boxes, self.corners, self.images, self.gradient)

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of the image."""
        height, width = self.features.shape[2:]
        return round(height / self.spatial_scale), round(width / self.spatial_scale)

    @property
    def shares(self) -> np.ndarray:
        """Boxes (y1, x1, y2, x2) in shares of the map, as crop_and_resize has them."""
        steps = np.array(self.features.shape[2:], np.float32) - 1
        return (self.corners[:, [1, 0, 3, 2]] * self.spatial_scale / np.tile(steps, 2)).astype(np.float32)

    def rows_of_levels(self) -> list[np.ndarray]:
        """Tell which boxes each level is for."""
        finest = round(-math.log2(self.spatial_scale))
        levels = cyroialign.assign_levels(self.corners, finest, finest + len(self.coarser))
        return [np.flatnonzero(levels == level) for level in range(len(self.levels))]


def rotated(corners: np.ndarray) -> np.ndarray:
    """Return (cx, cy, width, height, angle) of boxes, of which each has another angle."""
    first, last = corners[:, :2], corners[:, 2:]
    angles = np.random.default_rng(3).uniform(-np.pi, np.pi, (len(corners), 1))
    return np.hstack([(first + last) / 2, last - first, angles]).astype(corners.dtype)


class Row(NamedTuple):
    """One thing to time. `call` returns what NumPy can view, with its channels behind the first axis."""

    library: str
    direction: str  # "forward", "backward" or another name of what is computed
    layout: str  # of the memory that it reads
    call: Callable[[], Any]  # writes into memory that no other row reads
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.library} {self.direction} {self.layout}"

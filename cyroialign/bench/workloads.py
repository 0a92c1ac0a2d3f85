"""The workloads: how large a map is, and where the boxes on it lie."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cyroialign.bench.problem import POSITION_SENSITIVE, Problem
from cyroialign.bench.progress import plural


class Workload(NamedTuple):
    """One image's map, or the levels of its pyramid, and boxes.

    The square root of a box's area is drawn uniformly between the two `sizes`, in pixels of the image, and
    its width / height from 1/2 to 2, uniformly in the logarithm, among those that fit the image.
    """

    name: str
    channels: int
    height: int
    width: int
    rois: int
    bins: int
    sampling_ratio: int
    stride: int
    sizes: tuple[int, int]
    levels: int = 1  # each half as high and wide as the one before
    depth: int = 0  # of a volume, of which boxes have as many slices as the square root of their area

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for `roi_align` and `roi_align_backward`."""
        return {"spatial_scale": 1 / self.stride, "sampling_ratio": self.sampling_ratio, "aligned": True}

    @property
    def words(self) -> str:
        """Say in one line what is pooled from what."""
        low, high = self.sizes
        return (
            f"{self.name}: {plural(self.rois, 'RoI')} of {low} to {high} pixels, "
            f"{' x '.join([str(self.bins)] * (3 if self.depth else 2))} bins, "
            f"sampling_ratio {self.sampling_ratio}, {'volume' if self.depth else 'map'} {self.channels} x "
            + f"{self.depth} x " * (self.depth > 0)
            + f"{self.height} x {self.width}, stride {self.stride}"
            + f", and {self.levels - 1} more levels" * (self.levels > 1)
        )

    def features(self, level: int = 0) -> np.ndarray:
        """Return a (1, channels, height, width) map of float32, or a volume."""
        slices = (self.depth,) if self.depth else ()
        shape = (1, self.channels, *slices, self.height >> level, self.width >> level)
        return np.random.default_rng(1 + level).standard_normal(shape, np.float32)

    def boxes(self) -> np.ndarray:
        """Return (rois, 5) rows of (0, x1, y1, x2, y2) in float32, or with z1 and z2; the same each time."""
        rng = np.random.default_rng(0)
        image = np.array([self.width, self.height]) * self.stride
        size = rng.uniform(*self.sizes, self.rois)
        lowest = np.log(np.maximum(1 / 2, (size / image[1]) ** 2))
        highest = np.log(np.minimum(2, (image[0] / size) ** 2))
        stretch = np.exp(rng.uniform(lowest, highest) / 2)
        sides = np.stack([size * stretch, size / stretch], axis=1)
        corners = rng.uniform(0, np.maximum(image - sides, 0))
        if self.depth:
            slices = np.minimum(size, self.depth * self.stride)[:, None]
            corners = np.hstack([corners, rng.uniform(0, self.depth * self.stride - slices)])
            sides = np.hstack([sides, slices])
        return np.column_stack([np.zeros(self.rois), corners, corners + sides]).astype(np.float32)

    def problem(self, threads: int, operator: str = "roi_align", dtypes: Sequence[str] = ()) -> Problem:
        """Return what the benchmark gives to every library.

        With other dtypes than float32, maps are of whole numbers up to 127, which every one of them holds.
        """
        boxes, maps = self.boxes(), [self.features(level) for level in range(self.levels)]
        if dtypes:
            maps = [np.clip(np.rint(features * 16 + 64), 0, 127) for features in maps]
        if operator == "max":  # OpenVINO's maximum begins at 0; what a ReLU leaves is not below it either
            maps = [np.abs(features) for features in maps]
        channels = self.channels
        if operator in POSITION_SENSITIVE:
            channels //= self.bins**2
        shape = (self.rois, channels, *[self.bins] * (3 if self.depth else 2))
        problem = Problem(
            features=maps[0],
            boxes=boxes,
            corners=boxes[:, 1:].copy(),
            images=boxes[:, 0].astype(np.int64),
            gradient=np.random.default_rng(2).standard_normal(shape, np.float32),
            bins=self.bins,
            spatial_scale=1 / self.stride,
            sampling_ratio=self.sampling_ratio,
            threads=threads,
            operator=operator,
            dtypes=tuple(dtypes),
            coarser=tuple(maps[1:]),
        )
        for array in problem.arrays:
            array.flags.writeable = False  # so that no library changes what the next one reads
        return problem


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("P2-box", 256, 200, 272, 1000, 7, 2, 4, (56, 112)),
        Workload("P2-mask", 256, 200, 272, 100, 14, 2, 4, (56, 112)),
        Workload("P4-box", 256, 50, 68, 1000, 7, 2, 16, (224, 448)),
        Workload("C4-adaptive", 1024, 50, 68, 300, 14, 0, 16, (64, 700)),
        Workload("P2-adaptive-large", 256, 200, 272, 200, 7, 0, 4, (200, 700)),
        Workload("P5-single", 256, 25, 34, 1, 7, 2, 32, (448, 800)),
        Workload("Edge-1", 64, 40, 40, 1, 7, 2, 8, (60, 200)),  # one face or hand on an image of 320 pixels
        Workload("Track-10", 128, 36, 36, 10, 5, 2, 8, (40, 140)),  # guesses of a tracker in its window
    )
}
R_FCN = Workload("R-FCN", 21 * 49, 50, 68, 300, 7, 2, 16, (64, 400))  # 20 classes and the background
PYRAMID = Workload("P2-P5", 256, 200, 272, 1000, 7, 2, 4, (16, 700), levels=4)
VOLUME = Workload("CT", 64, 64, 64, 200, 7, 2, 4, (32, 128), depth=48)  # a patch of 192 slices of 256 x 256


def workloads_of(operator: str) -> dict[str, Workload]:
    """Return the workloads that an operator has, by name."""
    own = {
        "ps_roi_align": R_FCN,
        "ps_roi_pool": R_FCN,
        "multiscale": PYRAMID,
        "roi_align_3d": VOLUME,
    }.get(operator)
    return {own.name: own} if own else WORKLOADS

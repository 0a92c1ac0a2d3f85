"""The crops of RoIAlign and RoIPool of boxes on a photograph."""

import statistics
import time
from typing import NamedTuple

import numpy as np

from cyroialign import roi_align, roi_pool
from cyroialign.demo.photograph import box_average

SAMPLING_RATIO = 2
REPEATS = 25


class Scene(NamedTuple):
    """What the picture shows; boxes and cut (RoIPool's boxes) are in pixels of the photograph."""

    photo: np.ndarray
    features: np.ndarray
    stride: int
    boxes: np.ndarray
    cut: np.ndarray
    aligned: np.ndarray
    pooled: np.ndarray
    sampling_ratio: int


def compare(photo: np.ndarray, boxes: np.ndarray, output_size: int, stride: int) -> tuple[Scene, float]:
    """Crop with both operators; also return the median time in seconds of the call of `roi_align`."""
    features = box_average(photo, stride)
    given = (features[None], [boxes], output_size, 1 / stride)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        aligned = roi_align(*given, SAMPLING_RATIO, aligned=True, layout="NHWC")
        times.append(time.perf_counter() - start)
    pooled = roi_pool(*given, layout="NHWC")
    cut = rounded(boxes, 1 / stride) * stride
    scene = Scene(photo, features, stride, boxes, cut, aligned, pooled, SAMPLING_RATIO)
    return scene, statistics.median(times)


def rounded(boxes: np.ndarray, spatial_scale: float) -> np.ndarray:
    """Find the whole feature pixels that RoIPool rounds boxes to: the edges of the first and after the last.

    RoIPool itself is asked: a box that is one point becomes the pixel that the point is rounded to, and its
    maximum on a map of column numbers tells which. Points left of the map round like their mirror images.
    """
    points = np.abs(boxes).reshape(-1, 1) * np.array([1, 0, 1, 0], boxes.dtype)
    columns = np.arange(np.ceil(points.max() * spatial_scale) + 2, dtype=np.float32)
    pixels = roi_pool(columns.reshape(1, 1, 1, -1), [points], 1, spatial_scale)
    edges: np.ndarray = np.copysign(pixels.reshape(boxes.shape), boxes).astype(np.int64)
    edges[:, 2:] += 1
    return edges

"""The demo: a photograph, boxes on it, and what RoIAlign and RoIPool make of them."""

import os
import pathlib
import statistics
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cyroialign import _picture, get_num_threads, roi_align

if TYPE_CHECKING:
    from PIL import Image

Box: TypeAlias = Sequence[float]

ASTRONAUT_BOXES = [(150, 8, 306, 198), (354, 0, 474, 284), (130, 346, 212, 426)]  # head, shuttle, badge
SPREAD_BOXES = [(0.06, 0.11, 0.47, 0.58), (0.53, 0.07, 0.93, 0.41), (0.41, 0.63, 0.88, 0.94)]  # of the image
MAP_SIDE = 32  # feature pixels on the shorter side: enough to recognise things, few enough to see rounding
SAMPLING_RATIO = 2
MAX_BINS = 128  # on an axis: a panel of the picture has not many more pixels
MAX_BOXES = 24
REPEATS = 25


class DemoError(Exception):
    """Something that the user can mend, in one line."""


def run(
    image: pathlib.Path | None,
    boxes: Sequence[Box] | None,
    output_size: int,
    stride: int | None,
    output: pathlib.Path,
) -> None:
    """Crop the boxes, write the picture to `output` and print what was done."""
    if not 1 <= output_size <= MAX_BINS:
        raise DemoError(f"--output-size must be between 1 and {MAX_BINS}, got {output_size}")
    _check_output(output)
    photo = _astronaut() if image is None else _read_image(image)
    if stride is None:
        stride = max(1, min(photo.shape[:2]) // MAP_SIDE)
    elif not 1 <= stride <= max(photo.shape[:2]):
        raise DemoError(f"--stride must be between 1 and the image's longer side, got {stride}")
    if boxes is None:
        boxes = ASTRONAUT_BOXES if image is None else _spread_boxes(photo)
    corners = _checked_boxes(boxes, photo)
    scene, seconds = compare(photo, corners, output_size, stride)
    _write(scene, output)
    name = "the photograph of scikit-image" if image is None else image
    _report(scene, seconds, str(name), output)


def compare(
    photo: np.ndarray, boxes: np.ndarray, output_size: int, stride: int
) -> tuple[_picture.Scene, float]:
    """Crop with both operators; also return the median time in seconds of the call of `roi_align`."""
    features = _picture.box_average(photo, stride)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        aligned = roi_align(
            features[None], [boxes], output_size, 1 / stride, SAMPLING_RATIO, aligned=True, layout="NHWC"
        )
        times.append(time.perf_counter() - start)
    pooled = roi_pool(features, boxes, output_size, 1 / stride)
    cut = quantised(boxes, 1 / stride) * stride
    scene = _picture.Scene(photo, features, stride, boxes, cut, aligned, pooled, SAMPLING_RATIO)
    return scene, statistics.median(times)


def quantised(boxes: np.ndarray, spatial_scale: float) -> np.ndarray:
    """Round boxes to whole feature pixels as RoIPool does: half away from zero, the last one included."""
    scaled = (boxes * boxes.dtype.type(spatial_scale)).astype(np.float64)
    edges: np.ndarray = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)
    edges[:, 2:] += 1
    return edges
    return edges


def roi_pool(features: np.ndarray, boxes: np.ndarray, output_size: int, spatial_scale: float) -> np.ndarray:
    """Pool each box of an (H, W, C) map to (K, output_size, output_size, C) as Fast R-CNN did.

    Bins are rounded outwards, so that neighbours overlap, and keep their largest value; they are 0
    where nothing of the map is left. Something to compare with, written to be read.
    """
    height, width, channels = features.shape
    result = np.zeros((len(boxes), output_size, output_size, channels), features.dtype)
    for box, (x1, y1, x2, y2) in enumerate(quantised(boxes, spatial_scale).tolist()):
        columns = _bins(x1, x2, output_size, width)
        for row, inside in enumerate(_bins(y1, y2, output_size, height)):
            for column, across in enumerate(columns):
                pixels = features[inside, across]
                if pixels.size:
                    result[box, row, column] = pixels.max(axis=(0, 1))
    return result


def _bins(start: int, stop: int, count: int, length: int) -> list[slice]:
    size = stop - start
    edges = [(start + i * size // count, start - (-(i + 1) * size // count)) for i in range(count)]
    return [slice(min(max(low, 0), length), min(max(high, 0), length)) for low, high in edges]


def _astronaut() -> np.ndarray:
    from skimage.data import astronaut

    photo: np.ndarray = astronaut()  # lies in scikit-image's wheel: nothing is downloaded
    return photo


def _read_image(path: pathlib.Path) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return _as_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        raise DemoError(f"{path} is not an image in a format that Pillow reads") from None
    except OSError as error:
        raise DemoError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # decoders raise many kinds when a file is damaged
        raise DemoError(f"cannot read {path} as an image: {error}") from error


def _as_rgb(image: "Image.Image") -> np.ndarray:
    """Transparent pixels on white; more than 8 bits a pixel stretched from darkest to brightest."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        levels = np.asarray(image, np.float64)
        levels = np.nan_to_num(255 * (levels - levels.min()) / max(np.ptp(levels), 1e-12))
        return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, "white")
    return np.asarray(Image.alpha_composite(white, coloured).convert("RGB"))


def _spread_boxes(photo: np.ndarray) -> list[Box]:
    height, width = photo.shape[:2]
    return [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in SPREAD_BOXES]


def _checked_boxes(boxes: Sequence[Box], photo: np.ndarray) -> np.ndarray:
    if len(boxes) > MAX_BOXES:
        raise DemoError(f"at most {MAX_BOXES} boxes fit into the picture, got {len(boxes)}")
    height, width = photo.shape[:2]
    with np.errstate(over="ignore"):
        corners = np.array(boxes, np.float32)
    for number, (x1, y1, x2, y2) in enumerate(corners.tolist(), 1):
        box = f"box {number} ({x1:g},{y1:g},{x2:g},{y2:g})"
        if not np.isfinite((x1, y1, x2, y2)).all():
            raise DemoError(f"{box} must be finite")
        if x2 <= x1 or y2 <= y1:
            raise DemoError(f"{box} is empty: x2 must be greater than x1, and y2 greater than y1")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise DemoError(f"{box} lies outside the image, which has {width} x {height} pixels")
        if x1 < -width or y1 < -height or x2 > 2 * width or y2 > 2 * height:
            raise DemoError(f"{box} reaches too far outside the image, which has {width} x {height} pixels")
    return corners


def _check_output(path: pathlib.Path) -> None:
    """Refuse before any work what cannot be written after it."""
    if path.suffix.lower() != ".png":
        raise DemoError(f"--output must end in .png, got {path}")
    try:
        if path.is_dir():
            raise DemoError(f"--output {path} is a folder")
        if not path.parent.is_dir():
            raise DemoError(f"--output {path}: there is no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise DemoError(f"--output {path} is not writeable")
    except OSError as error:
        raise DemoError(f"cannot write {path}: {error.strerror}") from error


def _write(scene: _picture.Scene, path: pathlib.Path) -> None:
    png = _picture.draw(scene)
    try:
        path.write_bytes(png)
    except OSError as error:
        raise DemoError(f"cannot write {path}: {error.strerror}") from error


def _report(scene: _picture.Scene, seconds: float, name: str, output: pathlib.Path) -> None:
    boxes, bins = scene.aligned.shape[:2]
    height, width = scene.features.shape[:2]
    threads = get_num_threads()
    print(
        f"cropped {boxes} box{'es' * (boxes > 1)} to {bins} x {bins} bins out of {name}, "
        f"averaged to a {width} x {height} feature map (stride {scene.stride})"
    )
    print(
        f"roi_align took {1e6 * seconds:.0f} microseconds "
        f"(median of {REPEATS} calls, {threads} thread{'s' * (threads > 1)})"
    )
    print(f"wrote {output}")

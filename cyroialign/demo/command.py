"""The command `cyroialign demo`: which photograph and boxes, and where the picture goes."""

import pathlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from cyroialign import get_num_threads
from cyroialign._commands import CommandError, check_output, write
from cyroialign.demo import photograph, picture
from cyroialign.demo.scene import REPEATS, Scene, compare

Box: TypeAlias = Sequence[float]

ASTRONAUT_BOXES = [(150, 8, 306, 198), (354, 0, 474, 284), (130, 346, 212, 426)]  # head, shuttle, badge
SPREAD_BOXES = [(0.06, 0.11, 0.47, 0.58), (0.53, 0.07, 0.93, 0.41), (0.41, 0.63, 0.88, 0.94)]  # of the image
MAP_SIDE = 32  # feature pixels on the shorter side: enough to recognise things, few enough to see rounding
MAX_BINS = 128  # on an axis: a panel of the picture has not many more pixels
MAX_BOXES = 24


def run(
    image: pathlib.Path | None,
    boxes: Sequence[Box] | None,
    output_size: int,
    stride: int | None,
    output: pathlib.Path,
) -> None:
    """Crop the boxes, write the picture to `output` and print what was done."""
    if not 1 <= output_size <= MAX_BINS:
        raise CommandError(f"--output-size must be between 1 and {MAX_BINS}, got {output_size}")
    check_output("--output", output, ".png")
    photo = photograph.astronaut() if image is None else photograph.read(image)
    if image and output.exists() and image.samefile(output):
        raise CommandError(f"--output {output} is the image itself, which would be lost")
    if stride is None:
        stride = max(1, min(photo.shape[:2]) // MAP_SIDE)
    elif not 1 <= stride <= max(photo.shape[:2]):
        raise CommandError(f"--stride must be between 1 and the image's longer side, got {stride}")
    if boxes is None:
        boxes = ASTRONAUT_BOXES if image is None else _spread_boxes(photo)
    corners = _checked_boxes(boxes, photo)
    scene, seconds = compare(photo, corners, output_size, stride)
    write(output, picture.draw(scene))
    _report(scene, seconds, "the photograph of scikit-image" if image is None else str(image))
    print(f"wrote {output}")


def _spread_boxes(photo: np.ndarray) -> list[Box]:
    height, width = photo.shape[:2]
    return [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in SPREAD_BOXES]


def _checked_boxes(boxes: Sequence[Box], photo: np.ndarray) -> np.ndarray:
    if len(boxes) > MAX_BOXES:
        raise CommandError(f"at most {MAX_BOXES} boxes fit into the picture, got {len(boxes)}")
    height, width = photo.shape[:2]
    with np.errstate(over="ignore"):
        corners = np.array(boxes, np.float32)
    for number, (x1, y1, x2, y2) in enumerate(corners.tolist(), 1):
        box = f"box {number} ({x1:g},{y1:g},{x2:g},{y2:g})"
        if not np.isfinite((x1, y1, x2, y2)).all():
            raise CommandError(f"{box} must be finite")
        if x2 <= x1 or y2 <= y1:
            raise CommandError(f"{box} is empty: x2 must be greater than x1, and y2 greater than y1")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise CommandError(f"{box} lies outside the image, which has {width} x {height} pixels")
        if x1 < -width or y1 < -height or x2 > 2 * width or y2 > 2 * height:
            raise CommandError(
                f"{box} reaches too far outside the image, which has {width} x {height} pixels"
            )
    return corners


def _report(scene: Scene, seconds: float, name: str) -> None:
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

"""The photograph: scikit-image's or one read from a file, averaged to a feature map."""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cyroialign._commands import CommandError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 200_000_000  # more than any camera takes; reading them needs 2 GB


def astronaut() -> np.ndarray:
    """Return the photograph that comes with scikit-image."""
    from skimage.data import astronaut

    photo: np.ndarray = astronaut()  # lies in scikit-image's wheel: nothing is downloaded
    return photo


def read(path: pathlib.Path) -> np.ndarray:
    """Read an image file of any format and mode to (height, width, 3) bytes."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), _bound(), Image.open(path) as opened:
            return _as_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        raise CommandError(f"{path} is not an image in a format that Pillow reads") from None
    except Image.DecompressionBombError:
        raise CommandError(
            f"{path} has more than {MAX_PIXELS:,} pixels, the most that the demo reads; make it smaller first"
        ) from None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # decoders raise many kinds when a file is damaged
        raise CommandError(f"cannot read {path} as an image: {error}") from error


@contextlib.contextmanager
def _bound() -> Iterator[None]:
    """Let Pillow read up to MAX_PIXELS; its own limit treats a photograph of 100 megapixels as an attack."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above it, and refuses above twice as many
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _as_rgb(image: "Image.Image") -> np.ndarray:
    """Transparent pixels on white; more than 8 bits a pixel stretched from darkest to brightest."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        levels = np.asarray(image, np.float64)
        levels = np.nan_to_num(255 * (levels - levels.min()) / max(np.ptp(levels), 1e-12))
        return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)
    if not {"A", "a"}.intersection(image.getbands()) and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"))
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, "white")
    return np.asarray(Image.alpha_composite(white, coloured).convert("RGB"))


def box_average(image: np.ndarray, stride: int) -> np.ndarray:
    """Average squares of `stride` pixels; those at the right and bottom edge may be smaller."""
    height, width = image.shape[:2]
    rows, columns = np.arange(0, height, stride), np.arange(0, width, stride)
    summed_rows: np.ndarray = np.add.reduceat(image, rows, axis=0, dtype=np.float32)
    sums: np.ndarray = np.add.reduceat(summed_rows, columns, axis=1)
    heights, widths = np.diff(rows, append=height), np.diff(columns, append=width)
    sums /= np.multiply.outer(heights, widths)[:, :, None]
    return sums

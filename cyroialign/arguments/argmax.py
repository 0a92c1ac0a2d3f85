"""Checks of the argmax of `roi_pool`: of each bin the pixel in its plane that won, or -1."""

from typing import Any

import numpy as np

DTYPE = np.dtype(np.int32)
NONE = -1  # of a bin without a winner


def check_room(height: int, width: int) -> None:
    """Check that the pixels of a plane can be numbered."""
    if height * width > np.iinfo(DTYPE).max:
        raise ValueError(
            f"input must have at most {np.iinfo(DTYPE).max} pixels a channel for an argmax of {DTYPE}, "
            f"got {height} * {width}"
        )


def check(argmax: Any, shape: tuple[int, ...], height: int, width: int) -> np.ndarray:
    """Check an argmax for a gradient of this shape, and that its pixels are on the map."""
    if not isinstance(argmax, np.ndarray) or argmax.dtype.type is not DTYPE.type:
        given = argmax.dtype if isinstance(argmax, np.ndarray) else type(argmax).__name__
        raise TypeError(f"argmax must be a NumPy array of {DTYPE}, as roi_pool returns it, got {given}")
    if argmax.shape != shape:
        raise ValueError(f"argmax must have the shape of grad_output, {shape}, got {argmax.shape}")
    if argmax.size and (argmax.min() < NONE or argmax.max() >= height * width):
        bad = np.argwhere((argmax < NONE) | (argmax >= height * width))[0]
        place = tuple(bad.tolist())
        raise ValueError(
            f"argmax must be {NONE} or a pixel of a plane of {height} * {width}, "
            f"got {argmax[place]} at {list(place)}"
        )
    return argmax

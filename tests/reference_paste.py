"""Pasting of masks as slow textbook loops over pixels; they share nothing with the package."""

import math

import numpy as np


def paste_masks(masks, boxes, image_shape, rule="torchvision", padding=1, dtype=np.float64):
    """Paste masks (N, 1, M, M); corners are cut in dtype, everything else is in float64."""
    result = np.zeros((len(masks), 1, *image_shape))
    for n, (mask, box) in enumerate(zip(masks[:, 0].astype(np.float64), boxes.astype(dtype), strict=True)):
        if rule == "torchvision":
            axes = _resized(mask, box, image_shape, padding, np.dtype(dtype).type)
        else:
            axes = _sampled(mask, box.astype(np.float64), image_shape)
        padded, rows, columns = axes
        for (y, v), (x, u) in ((a, b) for a in rows.items() for b in columns.items()):
            result[n, 0, y, x] = _bilinear(padded, v, u)
    return result


def _resized(mask, box, image_shape, padding, real):
    """The padded mask, and for each row and column of the image that it has, where that lies on it."""
    side = len(mask) + 2 * padding
    places = []
    for axis, length in ((1, image_shape[0]), (0, image_shape[1])):
        half = (box[axis + 2] - box[axis]) * real(0.5) * real(side / len(mask))
        middle = (box[axis + 2] + box[axis]) * real(0.5)
        low, high = int(middle - half), int(middle + half)  # whole numbers without bounds
        size = max(high - low + 1, 1)
        places.append(
            {
                pixel: min(max((pixel - low + 0.5) * side / size - 0.5, 0), side - 1)
                for pixel in range(length)
                if low <= pixel <= high
            }
        )
    return np.pad(mask, padding), *places


def _sampled(mask, box, image_shape):
    """The same for the rule of detectron2, on a mask with one pixel of nothing around it."""
    places = []
    for axis, length in ((1, image_shape[0]), (0, image_shape[1])):
        size = box[axis + 2] - box[axis]
        at = {p: (p + 0.5 - box[axis]) / size * len(mask) - 0.5 for p in range(length) if size}
        places.append({pixel: place + 1 for pixel, place in at.items() if -1 < place < len(mask)})
    return np.pad(mask, 1), *places


def _bilinear(mask, v, u):
    y, x = math.floor(v), math.floor(u)
    total = 0
    for i, wy in ((y, 1 - (v - y)), (y + 1, v - y)):
        for j, wx in ((x, 1 - (u - x)), (x + 1, u - x)):
            if wy and wx:
                total += wy * wx * mask[i, j]
    return total

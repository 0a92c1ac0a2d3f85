"""crop_and_resize as slow textbook loops, channels last; they share nothing with the package."""

import math

import numpy as np


def places(low, high, bins, length, dtype):
    """Where the sample of each bin of an axis lies, None outside the image; rounded to dtype step by step."""
    real = np.dtype(dtype).type
    low, high, scale = real(low), real(high), real(length - 1)
    if bins == 1:
        found = [real(0.5) * (low + high) * scale]
    else:
        step = (high - low) * scale / real(bins - 1)
        found = [low * scale + real(i) * step for i in range(bins)]
    return [float(place) if 0 <= place <= length - 1 else None for place in found]


def neighbours(place, method):
    """Yield (pixel, weight, slope) of a sample on one axis."""
    if method == "nearest":
        yield math.floor(place + 0.5), 1.0, 0.0
    elif place == math.floor(place):
        yield int(place), 1.0, 0.0
    else:
        pixel = math.floor(place)
        yield pixel, 1 - (place - pixel), -1.0
        yield pixel + 1, place - pixel, 1.0


def samples(box, shape, crop_size, method, dtype):
    """Yield (row, column, place on the rows, place on the columns) of each bin; a place is None outside."""
    rows = places(box[0], box[2], crop_size[0], shape[1], dtype)
    columns = places(box[1], box[3], crop_size[1], shape[2], dtype)
    for i, j in np.ndindex(*crop_size):
        yield i, j, rows[i], columns[j]


def crop_and_resize(image, boxes, indices, crop_size, method="bilinear", value=0.0, dtype=np.float64):
    result = np.full((len(boxes), *crop_size, image.shape[3]), value, np.float64)
    for k, box in enumerate(boxes):
        for i, j, v, u in samples(box, image.shape, crop_size, method, dtype):
            if v is not None and u is not None:
                result[k, i, j] = 0
                for y, wy, _ in neighbours(v, method):
                    for x, wx, _ in neighbours(u, method):
                        result[k, i, j] += wy * wx * image[indices[k], y, x].astype(np.float64)
    return result


def crop_and_resize_backward(grad, boxes, indices, shape, method="bilinear", dtype=np.float64):
    result = np.zeros(shape)
    for k, box in enumerate(boxes):
        for i, j, v, u in samples(box, shape, grad.shape[1:3], method, dtype):
            if v is not None and u is not None:
                for y, wy, _ in neighbours(v, method):
                    for x, wx, _ in neighbours(u, method):
                        result[indices[k], y, x] += wy * wx * grad[k, i, j].astype(np.float64)
    return result


def crop_and_resize_boxes_backward(grad, image, boxes, indices, dtype=np.float64):
    """The gradient to (y1, x1, y2, x2)."""
    result = np.zeros((len(boxes), 4))
    bins, lengths = grad.shape[1:3], image.shape[1:3]
    for k, box in enumerate(boxes):
        for i, j, v, u in samples(box, image.shape, bins, "bilinear", dtype):
            if v is None or u is None:
                continue
            shares = [n / (count - 1) if count > 1 else 0.5 for n, count in zip((i, j), bins, strict=True)]
            for y, wy, sy in neighbours(v, "bilinear"):
                for x, wx, sx in neighbours(u, "bilinear"):
                    part = (grad[k, i, j].astype(np.float64) * image[indices[k], y, x]).sum()
                    for axis, slope in enumerate((sy * wx, wy * sx)):
                        whole = part * slope * (lengths[axis] - 1)
                        result[k, axis] += whole * (1 - shares[axis])
                        result[k, axis + 2] += whole * shares[axis]
    return result

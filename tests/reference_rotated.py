"""RoIAlignRotated as a textbook would have it: loops over boxes, bins and samples. Slow, and independent."""

import math

import numpy as np


def places(box, bins, sampling_ratio, aligned, clockwise, number):
    """Yield (bin_y, bin_x, y, x, samples of the bin) of each sample of (cx, cy, width, height, angle)."""
    cx, cy, width, height, angle = box
    if not aligned:
        width, height = max(width, number(1)), max(height, number(1))
    angle = -float(angle) if clockwise else float(angle)
    sine, cosine = number(math.sin(angle)), number(math.cos(angle))
    bin_h, bin_w = height / number(bins[0]), width / number(bins[1])
    grid_h = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_h)
    grid_w = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_w)
    for ph, pw in np.ndindex(*bins):
        for iy in range(grid_h):
            yy = -height / number(2) + number(ph) * bin_h
            yy += (number(iy) + number(0.5)) * bin_h / number(grid_h)
            for ix in range(grid_w):
                xx = -width / number(2) + number(pw) * bin_w
                xx += (number(ix) + number(0.5)) * bin_w / number(grid_w)
                y, x = yy * cosine - xx * sine + cy, yy * sine + xx * cosine + cx
                yield ph, pw, y, x, grid_h * grid_w


def neighbours(y, x, height, width):
    """Yield (row, column, weight) of the four pixels of a sample, also of those that weigh 0."""
    if not (-1 <= y <= height and -1 <= x <= width):
        return
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    for row, by_row in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
        for column, by_column in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
            yield row, column, by_row * by_column


def taps(shape, boxes, bins, scale, sampling_ratio, aligned, clockwise, number):
    """Yield (roi, bin_y, bin_x, image, row, column, weight) of all samples of boxes (K, 6)."""
    offset = number(0.5 if aligned else 0)
    scale_y, scale_x = np.broadcast_to(scale, 2).astype(number)
    for k, row in enumerate(boxes):
        cx, cy, width, height, angle = row[1:].astype(number)
        box = (cx * scale_x - offset, cy * scale_y - offset, width * scale_x, height * scale_y, angle)
        for ph, pw, y, x, samples in places(box, bins, sampling_ratio, aligned, clockwise, number):
            for i, j, weight in neighbours(y, x, *shape[2:]):
                yield k, ph, pw, int(row[0]), i, j, weight / samples


def precision(dtype, boxes):
    return np.float32 if dtype != np.float64 and np.can_cast(boxes.dtype, np.float32) else np.float64


def roi_align_rotated(
    input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=True, clockwise=False
):
    bins = tuple(np.broadcast_to(output_size, 2))
    result = np.zeros((len(boxes), input.shape[1], *bins))
    number = precision(input.dtype, boxes)
    for k, ph, pw, image, i, j, weight in taps(
        input.shape, boxes, bins, spatial_scale, sampling_ratio, aligned, clockwise, number
    ):
        result[k, :, ph, pw] += float(weight) * input[image, :, i, j].astype(np.float64)
    return result


def roi_align_rotated_backward(
    grad_output, boxes, input_shape, spatial_scale=1.0, sampling_ratio=-1, aligned=True, clockwise=False
):
    result = np.zeros(input_shape)
    number = precision(grad_output.dtype, boxes)
    for k, ph, pw, image, i, j, weight in taps(
        input_shape, boxes, grad_output.shape[2:], spatial_scale, sampling_ratio, aligned, clockwise, number
    ):
        result[image, :, i, j] += float(weight) * grad_output[k, :, ph, pw]
    return result

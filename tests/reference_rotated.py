"""RoIAlignRotated as a textbook would have it: every sample of a box, its place, its four pixels."""

import functools
import math

import numpy as np

AT_ONCE = 4096  # samples that are looked at one by one, also where samples at one place are found together


def frame(box, bins, scale, sampling_ratio, aligned, clockwise, number):
    """Centre, (sine, cosine), and for y and x (side, bins, samples of a bin), of a box on the map."""
    cx, cy, width, height, angle = (number(one) for one in box)
    scale_y, scale_x = (number(one) for one in np.broadcast_to(scale, 2))
    offset = number(0.5 if aligned else 0)
    axes = []
    for side, n in ((height * scale_y, bins[0]), (width * scale_x, bins[1])):
        side = side if aligned else max(side, number(1))
        adaptive = max(math.ceil(side / number(n)), 0)
        axes.append((side, n, sampling_ratio if sampling_ratio > 0 else adaptive))
    angle = -float(angle) if clockwise else float(angle)
    turn = number(math.sin(angle)), number(math.cos(angle))
    return (cy * scale_y - offset, cx * scale_x - offset), turn, tuple(axes)


def position(axis, bin_, sample, number):
    """Where a sample, or many, lies along an axis of the frame."""
    side, bins, count = axis
    size = side / number(bins)
    return -side / number(2) + number(bin_) * size + (sample + number(0.5)) * size / number(count)


def turned(centre, turn, yy, xx):
    """Where a place of the frame lies on the map."""
    sine, cosine = turn
    return yy * cosine - xx * sine + centre[0], yy * sine + xx * cosine + centre[1]


def one_by_one(centre, turn, axes, bins, part, number):
    """Bin of y, bin of x, y, x and share of the samples of a part of the grid of a bin."""
    along = [
        position(axis, one, np.arange(*ends).astype(number), number)
        for axis, one, ends in zip(axes, bins, part, strict=True)
    ]
    y, x = turned(centre, turn, along[0][:, None], along[1][None, :])
    return [one.ravel() for one in np.broadcast_arrays(*bins, y, x, 1 / (axes[0][2] * axes[1][2]))]


def all_samples(centre, turn, axes, shape, number):
    """Every sample of a box."""
    part = [(0, axis[2]) for axis in axes]
    if not axes[0][2] * axes[1][2]:
        return []
    every = np.ndindex(axes[0][1], axes[1][1])
    return joined([one_by_one(centre, turn, axes, bins, part, number) for bins in every])


def joined(parts):
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


@functools.lru_cache(4096)
def distinct_samples(centre, turn, axes, shape, number):
    """Those that lie on the map, and samples at one place together, by halving the grid of a bin.

    Each coordinate is monotone along the rows and columns of samples, as rounding is: where the corners of
    a part of the grid are at one place, all of it is, and where all lie off one side of the map, so does it.
    """
    found, counts = [], [axis[2] for axis in axes]
    for bins in np.ndindex(axes[0][1], axes[1][1]):
        ends = [finite_samples(axis, one, number) for axis, one in zip(axes, bins, strict=True)]
        parts = [((0, ends[0]), (0, ends[1]))] if all(ends) else []
        while parts:
            part = parts.pop()
            yy, xx = (
                [position(axis, one, number(at), number) for at in (first, last - 1)]
                for axis, one, (first, last) in zip(axes, bins, part, strict=True)
            )
            corners = [[turned(centre, turn, a, b) for b in xx] for a in yy]
            if misses([*corners[0], *corners[1]], shape):
                continue
            by_row = corners[0] != corners[1]
            by_column = any(row[0] != row[1] for row in corners)
            lengths = [last - first for first, last in part]
            if not by_row and not by_column:
                share = (lengths[0] / counts[0]) * (lengths[1] / counts[1])
                found.append([np.array([one]) for one in (*bins, *corners[0][0], share)])
                continue
            if lengths[0] * lengths[1] <= AT_ONCE and max(counts) <= 2**53:
                found.append(one_by_one(centre, turn, axes, bins, part, number))
                continue
            axis = 0 if by_row and not (by_column and lengths[1] > lengths[0]) else 1
            first, last = part[axis]
            middle = first + max(lengths[axis] // 2, 1)
            for half in ((middle, last), (first, middle)):
                parts.append((half, part[1]) if axis == 0 else (part[0], half))
    return joined(found)


def misses(corners, shape):
    """Whether all of a part lies off one side of the map."""
    return any(
        max(one[axis] for one in corners) < -1 or min(one[axis] for one in corners) > shape[axis]
        for axis in (0, 1)
    )


def finite_samples(axis, bin_, number):
    """How many samples of a bin, from the first on, have a finite position."""
    low, high = 0, axis[2]
    while low < high:
        middle = (low + high) // 2
        if np.isfinite(position(axis, bin_, number(middle), number)):
            low = middle + 1
        else:
            high = middle
    return low


def taps(shape, boxes, bins, scale, sampling_ratio, aligned, clockwise, number, samples):
    """Yield (roi, image, bins of y, bins of x, rows, columns, weights) for each of the four pixels."""
    height, width = shape[2:]
    for k, row in enumerate(boxes):
        with np.errstate(over="ignore", invalid="ignore"):
            given = frame(row[1:], bins, scale, sampling_ratio, aligned, clockwise, number)
            found = samples(*given, (height, width), number)
        if not found or not len(found[0]):
            continue
        inside = (found[2] >= -1) & (found[2] <= height) & (found[3] >= -1) & (found[3] <= width)
        bin_y, bin_x, y, x, share = (one[inside] for one in found)
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        top, left = y.astype(int), x.astype(int)
        for rows, by_row in ((top, 1 - (y - top)), (np.minimum(top + 1, height - 1), y - top)):
            for columns, by_column in ((left, 1 - (x - left)), (np.minimum(left + 1, width - 1), x - left)):
                weights = by_row.astype(float) * by_column * share
                yield k, int(row[0]), bin_y, bin_x, rows, columns, weights


def precision(dtype, boxes):
    """The type T of the contract."""
    single = dtype != np.float64 and np.can_cast(boxes.dtype, np.float32)
    return np.float32 if single else np.float64


def roi_align_rotated(
    input,
    boxes,
    output_size,
    spatial_scale=1.0,
    sampling_ratio=-1,
    aligned=True,
    clockwise=False,
    dtype=None,
    samples=all_samples,
):
    bins, dtype = tuple(np.broadcast_to(output_size, 2).tolist()), dtype or precision(input.dtype, boxes)
    result = np.zeros((len(boxes), input.shape[1], *bins))
    settings = (spatial_scale, sampling_ratio, aligned, clockwise, dtype, samples)
    for k, image, bin_y, bin_x, rows, columns, weights in taps(input.shape, boxes, bins, *settings):
        values = input[image][:, rows, columns].astype(float)
        np.add.at(result[k], (slice(None), bin_y, bin_x), weights * values)
    return result


def roi_align_rotated_backward(
    grad_output,
    boxes,
    input_shape,
    spatial_scale=1.0,
    sampling_ratio=-1,
    aligned=True,
    clockwise=False,
    dtype=None,
    samples=all_samples,
):
    dtype = dtype or precision(grad_output.dtype, boxes)
    result = np.zeros(input_shape)
    settings = (spatial_scale, sampling_ratio, aligned, clockwise, dtype, samples)
    for k, image, bin_y, bin_x, rows, columns, weights in taps(
        input_shape, boxes, grad_output.shape[2:], *settings
    ):
        values = grad_output[k][:, bin_y, bin_x].astype(float)
        np.add.at(result[image], (slice(None), rows, columns), weights * values)
    return result

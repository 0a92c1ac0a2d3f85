"""RoIPool, PSRoIAlign and PSRoIPool as slow textbook loops; they share nothing with the package."""

import math

import numpy as np
from reference import neighbours


def ranges(low, high, bins, length, spatial_scale, extra, dtype):
    """The pixels [first, last) of each bin of one axis, on an axis that ends at `length`.

    extra: the pixels that a box whose edges round to one place is wide, before the least of 1 applies.
    """
    real = np.dtype(dtype).type
    start, end = (round_half_away(real(edge) * real(spatial_scale)) for edge in (low, high))
    bin_size = real(max(end - start + extra, 1)) / real(bins)
    places = []
    for i in range(bins):
        first, last = math.floor(real(i) * bin_size), math.ceil(real(i + 1) * bin_size)
        places.append(tuple(min(max(start + place, 0), length) for place in (first, last)))
    return places


def round_half_away(x):
    """The nearest whole number as an int without bounds, halves away from zero."""
    x = float(x)
    away = math.floor(abs(x)) + (abs(x) % 1 >= 0.5)
    return away if x > 0 else -away


def max_ranges(box, map_size, output_size, spatial_scale, dtype):
    """(first row, last row, first column, last column) of each bin of RoIPool."""
    (height, width), (_, x1, y1, x2, y2) = map_size, box
    rows = ranges(y1, y2, output_size[0], height, spatial_scale, 1, dtype)
    columns = ranges(x1, x2, output_size[1], width, spatial_scale, 1, dtype)
    for i, j in np.ndindex(*output_size):
        yield i, j, *rows[i], *columns[j]


def roi_pool(input, boxes, output_size, spatial_scale=1.0, *, dtype=np.float64):
    """RoIPool of input (N, C, H, W) for boxes (K, 5); geometry is rounded to dtype step by step."""
    output = np.zeros((len(boxes), input.shape[1], *output_size), input.dtype)
    for k, box in enumerate(boxes):
        for i, j, top, bottom, left, right in max_ranges(
            box, input.shape[2:], output_size, spatial_scale, dtype
        ):
            if top < bottom and left < right:
                for c, plane in enumerate(input[int(box[0])]):
                    values = plane[top:bottom, left:right]
                    output[k, c, i, j] = max(values[~np.isnan(values)], default=-np.inf)
    return output


def roi_pool_backward(grad_output, input, boxes, output_size, spatial_scale=1.0, *, dtype=np.float64):
    """Send each gradient to the first largest pixel of its bin, row by row."""
    grad_input = np.zeros(input.shape)
    for k, box in enumerate(boxes):
        image = int(box[0])
        for i, j, top, bottom, left, right in max_ranges(
            box, input.shape[2:], output_size, spatial_scale, dtype
        ):
            for c in range(input.shape[1]):
                best, winner = -math.inf, None
                for y in range(top, bottom):
                    for x in range(left, right):
                        if input[image, c, y, x] > best:
                            best, winner = input[image, c, y, x], (y, x)
                if winner is not None:
                    grad_input[(image, c, *winner)] += grad_output[k, c, i, j]
    return grad_input


def mean_neighbours(box, map_size, output_size, spatial_scale, forward, dtype):
    """Yield (bin row, bin column, y, x, weight) for PSRoIPool.

    torchvision leaves the last row and column of the map out of the means, but not out of their gradient.
    """
    height, width = (length - forward for length in map_size)
    _, x1, y1, x2, y2 = box
    rows = ranges(y1, y2, output_size[0], height, spatial_scale, 0, dtype)
    columns = ranges(x1, x2, output_size[1], width, spatial_scale, 0, dtype)
    for i, j in np.ndindex(*output_size):
        area = (rows[i][1] - rows[i][0]) * (columns[j][1] - columns[j][0])
        for y in range(*rows[i]):
            for x in range(*columns[j]):
                yield i, j, y, x, 1 / area


def weighted_pixels(name, direction, box, map_size, output_size, arguments, dtype):
    """Yield (bin row, bin column, y, x, weight) for a position-sensitive operator, forward or backward."""
    if name == "ps_roi_align":
        return neighbours(box, map_size, output_size, *arguments, True, dtype=dtype)
    return mean_neighbours(box, map_size, output_size, *arguments, direction == "forward", dtype)


def position_sensitive(name, input, boxes, output_size, arguments, dtype):
    """Sum the pixels of each bin; bin (i, j) of channel c reads channel (c * PH + i) * PW + j."""
    images, channels, *map_size = input.shape
    channels //= math.prod(output_size)
    groups = input.astype(np.float64).reshape(images, channels, *output_size, *map_size)
    output = np.zeros((len(boxes), channels, *output_size))
    for k, box in enumerate(boxes):
        for i, j, y, x, weight in weighted_pixels(
            name, "forward", box, map_size, output_size, arguments, dtype
        ):
            output[k, :, i, j] += weight * groups[int(box[0]), :, i, j, y, x]
    return output


def position_sensitive_backward(name, grad_output, input_shape, boxes, output_size, arguments, dtype):
    """Scatter with the weights of `position_sensitive`."""
    images, _, *map_size = input_shape
    grad_input = np.zeros((images, *grad_output.shape[1:], *map_size))
    for k, box in enumerate(boxes):
        for i, j, y, x, weight in weighted_pixels(
            name, "backward", box, map_size, output_size, arguments, dtype
        ):
            grad_input[int(box[0]), :, i, j, y, x] += weight * grad_output[k, :, i, j].astype(np.float64)
    return grad_input.reshape(input_shape)


def run_one(name, direction, input, grad_output, boxes, output_size, arguments, dtype):
    """Output or gradient of the operator of that name; arguments: scale and, if it has one, ratio."""
    rest = (boxes, output_size, arguments, dtype)
    if name == "roi_pool" and direction == "forward":
        return roi_pool(input, boxes, output_size, *arguments, dtype=dtype)
    if name == "roi_pool":
        return roi_pool_backward(grad_output, input, boxes, output_size, *arguments, dtype=dtype)
    if direction == "forward":
        return position_sensitive(name, input, *rest)
    return position_sensitive_backward(name, grad_output, input.shape, *rest)


def run(name, input, grad_output, *rest):
    """Output and gradient."""
    return tuple(run_one(name, way, input, grad_output, *rest) for way in ("forward", "backward"))

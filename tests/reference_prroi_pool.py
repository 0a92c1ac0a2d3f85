"""PrRoIPool in float64, pixel by pixel: the area of a hat over a bin; shares nothing with the package."""

import numpy as np


def hat(t):
    return np.maximum(0, 1 - np.abs(t))


def ends(low, high, bins, spatial_scale, dtype):
    """Where the bins of an axis begin and end, (bins, 1); the edges of the box are rounded to dtype."""
    real = np.dtype(dtype).type
    start, end = (float(real(edge) * real(spatial_scale)) for edge in (low, high))
    number, size = np.arange(bins)[:, None], max(end - start, 0) / bins
    return start + number * size, start + (number + 1) * size


def parts(first, last, length):
    """The rising and the falling part of each hat in each bin: slope, share of the bin, and middle.

    The middle as a place, and as a share of the way through the bin, which a short one tells more exactly.
    """
    pixels, size = np.arange(length), last - first
    for slope in (1, -1):
        low = np.maximum(first, pixels - 1 if slope > 0 else pixels)
        high = np.minimum(last, pixels if slope > 0 else pixels + 1)
        through = (low - first) / 2 + (high - first) / 2
        yield slope, np.maximum(high - low, 0) / size, low / 2 + high / 2, through / size


def weights(low, high, bins, length, spatial_scale, dtype):
    """(bins, length): what each pixel of an axis weighs in each bin."""
    first, last = ends(low, high, bins, spatial_scale, dtype)
    if not (first < last).all():
        return np.zeros((bins, length))
    of_parts = parts(first, last, length)
    return sum(share * hat(middle - np.arange(length)) for _, share, middle, _ in of_parts)


def slopes(low, high, bins, length, spatial_scale, dtype):
    """(2, bins, length): how the weights change with low and with high.

    For long bins by the rule of the quotient, which for short ones is a difference of large numbers. There by
    what each point of a bin moves, times the slope of the hat: which is that for long ones.
    """
    first, last = ends(low, high, bins, spatial_scale, dtype)
    if not (first < last).all():
        return np.zeros((2, bins, length))
    pixels, number, size = np.arange(length), np.arange(bins)[:, None], last - first
    if (size >= 1).all():
        mean = weights(low, high, bins, length, spatial_scale, dtype)
        at_first, at_last = hat(first - pixels), hat(last - pixels)
        by_high = (at_last * (number + 1) - at_first * number - mean) / bins / size
        by_low = (at_last * (bins - number - 1) - at_first * (bins - number) + mean) / bins / size
    else:
        by_high = by_low = np.zeros((bins, length))
        for slope, share, _, through in parts(first, last, length):
            u = (number + through) / bins
            by_low, by_high = by_low + slope * share * (1 - u), by_high + slope * share * u
    return np.array([by_low, by_high]) * float(np.dtype(dtype).type(spatial_scale))


def bins_of(function, box, map_size, output_size, spatial_scale, dtype):
    """Yield for each bin its place, its pixels, and what function says of their rows and columns."""
    _, x1, y1, x2, y2 = box
    of_y = (y1, y2, output_size[0], map_size[0], spatial_scale, dtype)
    of_x = (x1, x2, output_size[1], map_size[1], spatial_scale, dtype)
    overlap_y, overlap_x, y, x = weights(*of_y) > 0, weights(*of_x) > 0, function(*of_y), function(*of_x)
    for i, j in np.ndindex(*output_size):
        rows, columns = np.flatnonzero(overlap_y[i]), np.flatnonzero(overlap_x[j])
        yield (i, j), np.ix_(rows, columns), y[..., i, rows], x[..., j, columns]


def prroi_pool(input, boxes, output_size, spatial_scale=1.0, *, dtype=np.float64):
    output = np.zeros((len(boxes), input.shape[1], *output_size))
    for k, box in enumerate(boxes):
        image = input[int(box[0])].astype(float)
        for place, pixels, y, x in bins_of(weights, box, input.shape[2:], output_size, spatial_scale, dtype):
            output[k, :, *place] = y @ image[:, *pixels] @ x
    return output


def prroi_pool_backward(grad_output, boxes, input_shape, spatial_scale=1.0, *, dtype=np.float64):
    grad_input = np.zeros(input_shape)
    for k, box in enumerate(boxes):
        image, grads = grad_input[int(box[0])], grad_output[k].astype(float)
        rest = (box, input_shape[2:], grads.shape[1:], spatial_scale, dtype)
        for place, pixels, y, x in bins_of(weights, *rest):
            image[:, *pixels] += grads[:, *place, None, None] * y[:, None] * x
    return grad_input


def prroi_pool_boxes_backward(grad_output, input, boxes, spatial_scale=1.0, *, dtype=np.float64):
    grad_boxes = np.zeros((len(boxes), 4))
    for k, box in enumerate(boxes):
        image, grads = input[int(box[0])].astype(float), grad_output[k].astype(float)
        rest = (box, input.shape[2:], grads.shape[1:], spatial_scale, dtype)
        both = zip(bins_of(weights, *rest), bins_of(slopes, *rest), strict=True)
        for (place, pixels, y, x), (_, _, by_y, by_x) in both:
            values = image[:, *pixels]
            for edge, (across, along) in enumerate([(y, by_x[0]), (by_y[0], x), (y, by_x[1]), (by_y[1], x)]):
                if values.size:
                    grad_boxes[k, edge] += grads[:, *place] @ (across @ values @ along)
    return grad_boxes

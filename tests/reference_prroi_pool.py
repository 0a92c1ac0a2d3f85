"""PrRoIPool by the antiderivative of a hat, in float64; shares nothing with the package."""

import numpy as np


def hat(t):
    return np.maximum(0, 1 - np.abs(t))


def antiderivative(t):
    """The area under a hat up to t."""
    t = np.clip(t, -1, 1)
    return np.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)


def ends(low, high, bins, spatial_scale, dtype):
    """Where the bins of an axis begin and end, how long they are; edges of the box rounded to dtype."""
    real = np.dtype(dtype).type
    start, end = (float(real(edge) * real(spatial_scale)) for edge in (low, high))
    number, size = np.arange(bins)[:, None], max(end - start, 0) / bins
    return start + number * size, start + (number + 1) * size, size


def weights(low, high, bins, length, spatial_scale, dtype):
    """(bins, length): what each pixel of an axis weighs in each bin."""
    first, last, size = ends(low, high, bins, spatial_scale, dtype)
    if size == 0:
        return np.zeros((bins, length))
    pixels = np.arange(length)
    return (antiderivative(last - pixels) - antiderivative(first - pixels)) / size


def slopes(low, high, bins, length, spatial_scale, dtype):
    """(2, bins, length): how the weights change with low and with high, by the rule of the quotient."""
    first, last, size = ends(low, high, bins, spatial_scale, dtype)
    if size == 0:
        return np.zeros((2, bins, length))
    pixels, share = np.arange(length), np.arange(bins)[:, None] / bins
    mean = weights(low, high, bins, length, spatial_scale, dtype)
    by_edge = []
    for sign, of_first, of_last in ((-1, 1 - share, 1 - share - 1 / bins), (1, share, share + 1 / bins)):
        area = hat(last - pixels) * of_last - hat(first - pixels) * of_first
        by_edge.append((area - mean * sign / bins) / size * spatial_scale)
    return np.array(by_edge)


def axes(function, box, map_size, output_size, spatial_scale, dtype):
    _, x1, y1, x2, y2 = box
    y = function(y1, y2, output_size[0], map_size[0], spatial_scale, dtype)
    return y, function(x1, x2, output_size[1], map_size[1], spatial_scale, dtype)


def prroi_pool(input, boxes, output_size, spatial_scale=1.0, *, dtype=np.float64):
    output = np.zeros((len(boxes), input.shape[1], *output_size))
    for k, box in enumerate(boxes):
        y, x = axes(weights, box, input.shape[2:], output_size, spatial_scale, dtype)
        output[k] = y @ input[int(box[0])].astype(float) @ x.T
    return output


def prroi_pool_backward(grad_output, boxes, input_shape, spatial_scale=1.0, *, dtype=np.float64):
    grad_input = np.zeros(input_shape)
    for k, box in enumerate(boxes):
        y, x = axes(weights, box, input_shape[2:], grad_output.shape[2:], spatial_scale, dtype)
        grad_input[int(box[0])] += y.T @ grad_output[k].astype(float) @ x
    return grad_input


def prroi_pool_boxes_backward(grad_output, input, boxes, spatial_scale=1.0, *, dtype=np.float64):
    grad_boxes = np.zeros((len(boxes), 4))
    for k, box in enumerate(boxes):
        rest = (box, input.shape[2:], grad_output.shape[2:], spatial_scale, dtype)
        (y, x), (by_y, by_x) = axes(weights, *rest), axes(slopes, *rest)
        image, grads = input[int(box[0])].astype(float), grad_output[k].astype(float)
        pairs = [(y, by_x[0]), (by_y[0], x), (y, by_x[1]), (by_y[1], x)]
        grad_boxes[k] = [(bands @ image @ others.T * grads).sum() for bands, others in pairs]
    return grad_boxes

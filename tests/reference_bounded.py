"""RoIAlign as the textbook has it, without a visit to the samples that lie outside: for boxes of any size.

Positions of a bin's samples rise with their number: bisection finds those inside the map and those that
rounding puts at one place. Shares nothing with the package.
"""

import numpy as np
import reference


def first_sample(place, bound, low, high):
    """The first whole number of [low, high) that place puts at the bound or beyond, else high."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if place(middle) >= bound else (middle + 1, high)
    return low


def rising_bins(low, high, bins, *settings):
    """Yield (bin, number of samples, place), place giving where a sample lies, the lowest first.

    A mirrored bin is walked from its other end: its positions fall.
    """
    start, bin_size, grid = reference.geometry(low, high, bins, *settings)
    count = max(int(grid), 0)
    for i in range(bins):

        def place(sample, i=i):
            sample = sample if bin_size >= 0 else count - 1 - sample
            return reference.position(start, bin_size, grid, i, sample)

        yield i, count, place


def runs(place, low, high, count):
    """Yield (position, first sample, end) of samples at one place, for all in [low, high)."""
    sample, end = (first_sample(place, bound, 0, count) for bound in (low, high))
    while sample < end:
        here = place(sample)
        following = first_sample(place, np.nextafter(here, type(here)(np.inf)), sample, end)
        yield here, sample, following
        sample = following


def axis_weights(low, high, bins, length, *settings):
    """(bins, length): how much of each pixel of an axis a bin takes; the last setting is the type T."""
    weights, real = np.zeros((bins, length)), np.dtype(settings[-1]).type
    for i, count, place in rising_bins(low, high, bins, *settings):
        for here, first, end in runs(place, real(-1), np.nextafter(real(length), real(np.inf)), count):
            for pixel, weight in reference.between(float(here), length):
                weights[i, pixel] += weight * (end - first) / count
    return weights


def axis_slopes(low, high, bins, length, spatial_scale, sampling_ratio, aligned, dtype):
    """(2, bins, length): how those weights change with low and with high."""
    real = np.dtype(dtype).type
    derivatives, scale = np.zeros((2, bins, length)), float(real(spatial_scale))
    rigid = not aligned and real(high) * real(spatial_scale) - real(low) * real(spatial_scale) < 1
    mirrored = reference.geometry(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype)[1] < 0
    settings = (spatial_scale, sampling_ratio, aligned, dtype)
    for i, count, place in rising_bins(low, high, bins, *settings):
        for here, first, end in runs(place, real(0), real(length - 1), count):
            middle = (first + end) / 2
            u = 0 if rigid else (i + (count - middle if mirrored else middle) / count) / bins
            for edge, share in enumerate([1 - u, u]):
                moved = scale * share * (end - first) / count
                derivatives[edge, i, int(here)] -= moved
                derivatives[edge, i, int(here) + 1] += moved
    return derivatives


def distinct_positions(low, high, bins, length, *settings):
    """Positions inside the map, equal ones once, with -2 before or after them for those outside."""
    real, lists = np.dtype(settings[-1]).type, []
    mirrored = reference.geometry(low, high, bins, *settings)[1] < 0
    beyond = np.nextafter(real(length), real(np.inf))
    for _, count, place in rising_bins(low, high, bins, *settings):
        inside = list(runs(place, real(-1), beyond, count))
        found = [float(here) for here, _, _ in inside]
        before = first_sample(place, real(-1), 0, count) > 0
        after = first_sample(place, beyond, 0, count) < count
        found = [-2.0] * before + found + [-2.0] * after
        lists.append(found[::-1] if mirrored else found)
    return lists


def axes(box, map_size, bins, settings, of_axis=axis_weights):
    """What `of_axis` makes of rows and of columns."""
    (height, width), (_, x1, y1, x2, y2) = map_size, box
    with np.errstate(over="ignore"):  # the products of huge samples and bins: these samples are outside
        return of_axis(y1, y2, bins[0], height, *settings), of_axis(x1, x2, bins[1], width, *settings)


def roi_align(input, boxes, output_size, *arguments, dtype):
    """`reference.roi_align` by the weights of the axes."""
    output = np.zeros((len(boxes), input.shape[1], *output_size))
    for k, box in enumerate(boxes):
        y, x = axes(box, input.shape[2:], output_size, (*arguments, dtype))
        output[k] = y @ input[int(box[0])].astype(float) @ x.T
    return output


def roi_align_backward(grad_output, boxes, input_shape, *arguments, dtype):
    """`reference.roi_align_backward` by the weights of the axes."""
    grad_input = np.zeros(input_shape)
    for k, box in enumerate(boxes):
        y, x = axes(box, input_shape[2:], grad_output.shape[2:], (*arguments, dtype))
        grad_input[int(box[0])] += y.T @ grad_output[k].astype(float) @ x
    return grad_input


def roi_align_boxes_backward(grad_output, input, boxes, *arguments, dtype):
    """`reference.roi_align_boxes_backward` by the weights of the axes and their derivatives."""
    grad_boxes = np.zeros((len(boxes), 4))
    for k, box in enumerate(boxes):
        given = (box, input.shape[2:], grad_output.shape[2:], (*arguments, dtype))
        (y, x), (by_y, by_x) = axes(*given), axes(*given, axis_slopes)
        image, grads = input[int(box[0])].astype(float), grad_output[k].astype(float)
        for edge, (rows, columns) in enumerate([(y, by_x[0]), (by_y[0], x), (y, by_x[1]), (by_y[1], x)]):
            grad_boxes[k, edge] = (rows @ image @ columns.T * grads).sum()
    return grad_boxes

"""RoIAlign with a maximum as the textbook has it: every sample of a bin in turn, none left out.

Shares nothing with the package. A candidate is a sample with mode "max" and one neighbour of a sample with
"onnx_max"; a bin is the largest candidate, or NaN if there is one, and what it is given goes to the first
candidate that reached that.
"""

import itertools

import numpy as np
import reference


def candidates(image, ys, xs, mode):
    """Yield (value, terms) in order; terms are (row, column, weight) and image is (H, W).

    With "max" the samples are walked row by row, with "onnx_max" the neighbours column by column.
    """
    height, width = image.shape

    def axis(positions, length):
        return [reference.between(p, length) if -1 <= p <= length else None for p in positions]

    rows, columns = axis(ys, height), axis(xs, width)
    if mode == "max":
        for across, along in itertools.product(rows, columns):
            pairs = itertools.product(across, along) if across and along else ()
            terms = [(y, x, wy * wx) for (y, wy), (x, wx) in pairs]
            yield sum((weight * image[y, x] for y, x, weight in terms if weight), 0.0), terms
    else:
        inside = [list(itertools.chain(*filter(None, lists))) for lists in (columns, rows)]
        outside = None in rows or None in columns
        before = (rows and rows[0] is None) or (columns and columns[0] is None)
        if rows and columns and before:
            yield 0.0, []
        for (x, wx), (y, wy) in itertools.product(*inside):
            yield wx * (wy * image[y, x]) if wy * wx else 0.0, [(y, x, wy * wx)]
        if rows and columns and outside and not before:
            yield 0.0, []


def positions(low, high, bins, length, *settings):
    """Where the samples of each bin lie on one axis of the given length."""
    return reference.positions(low, high, bins, *settings)


def winners(
    input, boxes, output_size, spatial_scale, sampling_ratio, aligned, mode, dtype, positions=positions
):
    """Yield (k, c, i, j, value, terms) for every bin that has samples."""
    for k, (n, x1, y1, x2, y2) in enumerate(boxes):
        settings = (spatial_scale, sampling_ratio, aligned, dtype)
        ys = positions(y1, y2, output_size[0], input.shape[2], *settings)
        xs = positions(x1, x2, output_size[1], input.shape[3], *settings)
        for c, image in enumerate(input[int(n)].astype(np.float64)):
            for i, j in np.ndindex(*output_size):
                best = None
                for value, terms in candidates(image, ys[i], xs[j], mode):
                    if best is None or value > best[0] or (np.isnan(value) and not np.isnan(best[0])):
                        best = value, terms
                if best:
                    yield k, c, i, j, *best


def roi_align(
    input,
    boxes,
    output_size,
    spatial_scale=1.0,
    sampling_ratio=-1,
    aligned=False,
    *,
    mode,
    dtype=np.float64,
    **more,
):
    """Largest samples of input (N, C, H, W) for boxes (K, 5); geometry is rounded to dtype step by step."""
    output = np.zeros((len(boxes), input.shape[1], *output_size))
    settings = (spatial_scale, sampling_ratio, aligned, mode, dtype)
    for k, c, i, j, value, _ in winners(input, boxes, output_size, *settings, **more):
        output[k, c, i, j] = value
    return output


def roi_align_backward(
    grad_output,
    input,
    boxes,
    spatial_scale=1.0,
    sampling_ratio=-1,
    aligned=False,
    *,
    mode,
    dtype=np.float64,
    **more,
):
    """Send grad_output (K, C, PH, PW) to the terms of what won, in (N, C, H, W)."""
    grad_input = np.zeros(input.shape)
    settings = (spatial_scale, sampling_ratio, aligned, mode, dtype)
    for k, c, i, j, _, terms in winners(input, boxes, grad_output.shape[2:], *settings, **more):
        for y, x, weight in terms:
            grad_input[int(boxes[k][0]), c, y, x] += weight * grad_output[k, c, i, j]
    return grad_input

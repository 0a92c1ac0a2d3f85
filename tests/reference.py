"""RoIAlign as the textbook has it, sample after sample in float64; shares nothing with the package."""

import itertools

import numpy as np


def roi_align(
    input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False, *, dtype=np.float64
):
    """Average RoIAlign of input (N, C, H, W) for boxes (K, 5); geometry is rounded to dtype step by step."""
    output = np.zeros((len(boxes), input.shape[1], *output_size))
    for k, box in enumerate(boxes):
        image = input[int(box[0])].astype(np.float64)
        for i, j, y, x, weight in neighbours(
            box, input.shape[2:], output_size, spatial_scale, sampling_ratio, aligned, dtype=dtype
        ):
            output[k, :, i, j] += weight * image[:, y, x]
    return output


def roi_align_backward(
    grad_output, boxes, input_shape, spatial_scale=1.0, sampling_ratio=-1, aligned=False, *, dtype=np.float64
):
    """Scatter grad_output (K, C, PH, PW) with the weights of `roi_align` into (N, C, H, W)."""
    grad_input = np.zeros(input_shape)
    for k, box in enumerate(boxes):
        image, grads = grad_input[int(box[0])], grad_output[k].astype(np.float64)
        for i, j, y, x, weight in neighbours(
            box, input_shape[2:], grad_output.shape[2:], spatial_scale, sampling_ratio, aligned, dtype=dtype
        ):
            image[:, y, x] += weight * grads[:, i, j]
    return grad_input


def roi_align_boxes_backward(
    grad_output, input, boxes, spatial_scale=1.0, sampling_ratio=-1, aligned=False, *, dtype=np.float64
):
    """(K, 4): what moving x1, y1, x2, y2 of each box does to (roi_align(input) * grad_output).sum()."""
    grad_boxes = np.zeros((len(boxes), 4))
    bins, (height, width) = grad_output.shape[2:], input.shape[2:]
    for k, (index, x1, y1, x2, y2) in enumerate(boxes):
        image = input[int(index)].astype(np.float64)
        ys = moving_positions(y1, y2, bins[0], spatial_scale, sampling_ratio, aligned, dtype)
        xs = moving_positions(x1, x2, bins[1], spatial_scale, sampling_ratio, aligned, dtype)
        for i, j in np.ndindex(*bins):
            for (y, y_by_y1, y_by_y2), (x, x_by_x1, x_by_x2) in itertools.product(ys[i], xs[j]):
                if y < -1 or y > height or x < -1 or x > width:
                    continue
                (top, over), (bottom, under) = between(y, height)
                (left, before), (right, after) = between(x, width)
                by_y = before * (image[:, bottom, left] - image[:, top, left])
                by_y += after * (image[:, bottom, right] - image[:, top, right])
                by_x = over * (image[:, top, right] - image[:, top, left])
                by_x += under * (image[:, bottom, right] - image[:, bottom, left])
                by_y = (by_y * grad_output[k, :, i, j]).sum() * (0 <= y < height - 1)
                by_x = (by_x * grad_output[k, :, i, j]).sum() * (0 <= x < width - 1)
                moved = np.array([by_x * x_by_x1, by_y * y_by_y1, by_x * x_by_x2, by_y * y_by_y2])
                grad_boxes[k] += moved / (len(ys[i]) * len(xs[j]))
    return grad_boxes


def moving_positions(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype):
    """For each bin of an axis a list of (position, its derivative by low, its derivative by high)."""
    places = positions(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype)
    scale, real = float(np.dtype(dtype).type(spatial_scale)), np.dtype(dtype).type
    offset = real(0.5 if aligned else 0)
    side = (real(high) * real(spatial_scale) - offset) - (real(low) * real(spatial_scale) - offset)
    rigid = not aligned and side < 1
    moving = []
    for i, of_bin in enumerate(places):
        shares = [0 if rigid else (i + (s + 0.5) / len(of_bin)) / bins for s in range(len(of_bin))]
        moving.append([(x, scale * (1 - u), scale * u) for x, u in zip(of_bin, shares, strict=True)])
    return moving


def neighbours(box, map_size, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False, *, dtype):
    """Yield (bin row, bin column, y, x, weight) for the four neighbours of each sample of a box."""
    (height, width), (_, x1, y1, x2, y2) = map_size, box
    ys = positions(y1, y2, output_size[0], spatial_scale, sampling_ratio, aligned, dtype)
    xs = positions(x1, x2, output_size[1], spatial_scale, sampling_ratio, aligned, dtype)
    for i, j in np.ndindex(*output_size):
        count = max(len(ys[i]) * len(xs[j]), 1)
        for y, x in itertools.product(ys[i], xs[j]):
            if y < -1 or y > height or x < -1 or x > width:
                continue
            for (row, across), (column, along) in itertools.product(between(y, height), between(x, width)):
                yield i, j, row, column, across * along / count


def positions(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype):
    """Where the samples of each bin lie on one axis: a list of floats a bin."""
    start, bin_size, grid = geometry(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype)
    samples = np.arange(max(grid, 0))
    return [position(start, bin_size, grid, i, samples).tolist() for i in range(bins)]


def geometry(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype):
    """Start of a RoI, size of its bins and number of samples a bin, on one axis."""
    real = np.dtype(dtype).type
    scale, offset = real(spatial_scale), real(0.5 if aligned else 0)
    start, end = real(low) * scale - offset, real(high) * scale - offset
    size = end - start if aligned else max(end - start, real(1))
    bin_size = size / real(bins)
    return start, bin_size, real(sampling_ratio) if sampling_ratio > 0 else np.ceil(bin_size)


def position(start, bin_size, grid, i, sample):
    """Where a sample (or each of an array of them) of bin i lies, rounded to the type of start."""
    real = type(start)
    sample = np.asarray(sample).astype(real)[()]
    return start + real(i) * bin_size + (sample + real(0.5)) * bin_size / grid


def between(position, length):
    """The two pixels around a position, clamped to the map, each with its weight."""
    position = min(max(position, 0.0), length - 1.0)
    low = int(position)
    return (low, low + 1 - position), (min(low + 1, length - 1), position - low)


def type_of_geometry(dtype, box_dtype):
    """The type T of the contract: float32 if both types are float32 or narrower."""
    narrow = ("float16", "float32", "int8", "uint8", "int16", "uint16")
    return np.float32 if np.dtype(dtype) == np.float32 and np.dtype(box_dtype).name in narrow else np.float64


def random_boxes(rng, boxes, input_shape, spatial_scale=1.0):
    """Boxes (K, 5) float32 inside, across, outside, inverted and larger than the map."""
    images, _, height, width = input_shape
    index = rng.integers(images, size=(boxes, 1))
    corners = rng.uniform(-0.3, 1.3, (boxes, 4)) * [width, height, width, height] / spatial_scale
    return np.hstack([index, corners]).astype(np.float32)

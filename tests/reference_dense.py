"""The registry's operators by dense weights, all boxes of a call at once: for very many small cases.

It is checked against the textbooks in test_fuzz.py, and shares nothing with the package. A linear operator
is the weights of each axis (K, bins, pixels) or, for boxes with an angle, of the map (K, PH, PW, H, W); a
maximum picks among the samples that such weights make.
"""

import functools
import math

import numpy as np
import reference_prroi_pool as hats
import reference_pyramid
from operators import geometry

MOST_SAMPLES = 64  # of a bin along an axis
NEAR = 1e-4  # of the largest value: maxima that rounding may swap


class BeyondReferenceError(Exception):
    """Too many samples, or a maximum that rounding decides: a call for the textbooks."""


# Axes: (low, high, bins, length, settings, real) -> weights (K, bins, length)


def sides(low, high, scale, offset, real):
    """Where sides begin and end on the map."""
    scale, offset = real(scale), real(offset)
    return low.astype(real) * scale - offset, high.astype(real) * scale - offset


def places(start, side, bins, ratio, real):
    """Positions (K, bins, samples), which of the samples there are, and their number in a bin (K,)."""
    size = side / real(bins)
    count = np.full(len(side), ratio, real) if ratio > 0 else np.maximum(np.ceil(size), 0).astype(real)
    most = count.max(initial=0)
    if not most <= MOST_SAMPLES:
        raise BeyondReferenceError
    sample, bin_ = np.arange(int(most), dtype=real), np.arange(bins, dtype=real)[:, None]
    size, count = size[:, None, None], count[:, None, None]
    found = start[:, None, None] + bin_ * size + (sample + real(0.5)) * size / count
    there = np.broadcast_to(sample < count, found.shape)
    return np.where(there, found, real(0)), there, np.maximum(count, real(1))


def samples(low, high, bins, length, settings, real):
    """`places` of RoIAlign, with whether each lies on the map."""
    aligned = settings["aligned"]
    start, end = sides(low, high, settings["spatial_scale"], 0.5 if aligned else 0, real)
    side = end - start if aligned else np.maximum(end - start, real(1))
    found, there, count = places(start, side, bins, settings["sampling_ratio"], real)
    return found, there, count, there & (found >= -1) & (found <= length)


def of_places(found, length):
    """Weights (..., length) of the pixels around each place, which is clamped to the map."""
    clamped = np.clip(found.astype(float), 0, length - 1)
    return np.maximum(0, 1 - np.abs(clamped[..., None] - np.arange(length)))


def sampled(low, high, bins, length, settings, real):
    """Average RoIAlign."""
    found, _, count, inside = samples(low, high, bins, length, settings, real)
    weights = of_places(found, length) * inside[..., None]
    return weights.sum(axis=2) / count.astype(float)


def sampled_slopes(low, high, bins, length, settings, real):
    """How those weights change with low and with high, (2, K, bins, length)."""
    found, there, count, _ = samples(low, high, bins, length, settings, real)
    scale = float(real(settings["spatial_scale"]))
    start, end = sides(low, high, settings["spatial_scale"], 0.5 if settings["aligned"] else 0, real)
    moving = np.ones(len(low), bool) if settings["aligned"] else end - start >= 1
    share = (np.arange(found.shape[2]) + 0.5) / count.astype(float)
    u = (np.arange(bins)[:, None] + share) / bins * moving[:, None, None]
    pixel = np.floor(found.astype(float))[..., None]
    slope = (np.arange(length) == pixel + 1) * 1.0 - (np.arange(length) == pixel)
    slope *= (there & (found >= 0) & (found < length - 1))[..., None]
    by_low, by_high = (scale * one[..., None] * slope / count[..., None] for one in (1 - u, u))
    return np.array([by_low.sum(axis=2), by_high.sum(axis=2)])


def hat_ends(low, high, bins, settings, real):
    """Where the bins of PrRoIPool begin and end, and which boxes have any."""
    start, end = (
        one.astype(float)[:, None, None] for one in sides(low, high, settings["spatial_scale"], 0, real)
    )
    number, size = np.arange(bins)[:, None], np.maximum(end - start, 0) / bins
    first, last = start + number * size, start + (number + 1) * size
    return first, last, (first < last).all(axis=(1, 2))[:, None, None]


def integrated(low, high, bins, length, settings, real):
    """PrRoIPool."""
    first, last, defined = hat_ends(low, high, bins, settings, real)
    parts = hats.parts(first, last, length)
    found = sum(share * hats.hat(middle - np.arange(length)) for _, share, middle, _ in parts)
    return np.where(defined, found, 0)


def integrated_slopes(low, high, bins, length, settings, real):
    """How those weights change with low and with high: see reference_prroi_pool.slopes."""
    first, last, defined = hat_ends(low, high, bins, settings, real)
    pixels, number, size = np.arange(length), np.arange(bins)[:, None], last - first
    mean = integrated(low, high, bins, length, settings, real)
    at_first, at_last = hats.hat(first - pixels), hats.hat(last - pixels)
    long = [
        (at_last * (bins - number - 1) - at_first * (bins - number) + mean) / bins / size,
        (at_last * (number + 1) - at_first * number - mean) / bins / size,
    ]
    short = [0, 0]
    for slope, share, _, through in hats.parts(first, last, length):
        u = (number + through) / bins
        short = [short[0] + slope * share * (1 - u), short[1] + slope * share * u]
    chosen = np.where((size >= 1).all(axis=(1, 2))[:, None, None], long, short)
    return np.where(defined, chosen, 0) * float(real(settings["spatial_scale"]))


def ranges(low, high, bins, length, settings, real, extra):
    """The pixels that each bin of a quantising operator has, (K, bins, length)."""
    start, end = (
        round_half_away(one.astype(float)) for one in sides(low, high, settings["spatial_scale"], 0, real)
    )
    size = np.maximum(end - start + extra, 1).astype(real)[:, None] / real(bins)
    number = np.arange(bins + 1, dtype=real)
    first = np.clip(start[:, None] + np.floor(number[:-1] * size), 0, length)
    last = np.clip(start[:, None] + np.ceil(number[1:] * size), 0, length)
    pixels = np.arange(length)
    return (pixels >= first[..., None]) & (pixels < last[..., None])


def round_half_away(x):
    return np.copysign(np.floor(np.abs(x)) + (np.abs(x) % 1 >= 0.5), x)


def counted(low, high, bins, length, settings, real, without_last):
    """PSRoIPool, which leaves the last pixel out forward."""
    whole = np.zeros((len(low), bins, length))
    length -= without_last
    inside = ranges(low, high, bins, length, settings, real, 0)
    whole[..., :length] = inside / np.maximum(inside.sum(axis=2, keepdims=True), 1)
    return whole


# Linear operators


def axes(call, of_axis, **settings):
    """Weights of y and of x."""
    real, (height, width) = geometry(call), call.maps[0].shape[2:]
    bins, settings = call.output_size, {**call.arguments, **settings}
    _, x1, y1, x2, y2 = call.boxes.T
    return of_axis(y1, y2, bins[0], height, settings, real), of_axis(x1, x2, bins[1], width, settings, real)


def pooled(call, y, x):
    """(K, C, PH, PW) from the weights of the axes."""
    return y[:, None] @ images(call) @ x.transpose(0, 2, 1)[:, None]


def images(call):
    """The image of each box, (K, C, H, W)."""
    return call.maps[0].astype(float)[call.boxes[:, 0].astype(int)]


def summed(call, of_boxes):
    """The gradient (N, C, H, W) from that of each box."""
    result = np.zeros(call.maps[0].shape)
    np.add.at(result, call.boxes[:, 0].astype(int), of_boxes)
    return result


def separable(of_axis, slopes, direction, call, **settings):
    """An operator with weights for each axis."""
    y, x = axes(call, of_axis, **settings)
    if direction == "forward":
        return pooled(call, y, x)
    grads = call.grad_output.astype(float)
    if direction == "backward":
        return summed(call, y.transpose(0, 2, 1)[:, None] @ grads @ x[:, None])
    by_y, by_x = axes(call, slopes, **settings)
    edges = [(y, by_x[0]), (by_y[0], x), (y, by_x[1]), (by_y[1], x)]
    return np.stack([(pooled(call, *one) * grads).sum(axis=(1, 2, 3)) for one in edges], axis=1)


def position_sensitive(of_axis, direction, call, **settings):
    """An operator each of whose bins has its own channels."""
    y, x = axes(call, functools.partial(of_axis, **settings))
    if direction == "forward":
        (count, channels, height, width), bins = images(call).shape, call.output_size
        groups = images(call).reshape(count, channels // math.prod(bins), *bins, height, width)
        return np.einsum("kcijhw,kih,kjw->kcij", groups, y, x)
    of_boxes = np.einsum("kcij,kih,kjw->kcijhw", call.grad_output.astype(float), y, x)
    return summed(call, of_boxes.reshape(len(call.boxes), *call.maps[0].shape[1:]))


def rotated(direction, call):
    """RoIAlignRotated."""
    real, settings = geometry(call), call.arguments
    (height, width), bins = call.maps[0].shape[2:], call.output_size
    _, cx, cy, wide, high, angle = call.boxes.astype(real).T
    scale, offset = real(settings["spatial_scale"]), real(0.5 if settings["aligned"] else 0)
    along = []
    for side, n in ((high * scale, bins[0]), (wide * scale, bins[1])):
        side = side if settings["aligned"] else np.maximum(side, real(1))
        along.append(places(-side / real(2), side, n, settings["sampling_ratio"], real))
    (yy, there_y, count_y), (xx, there_x, count_x) = along
    turn = -angle if settings["clockwise"] else angle
    sine, cosine = (
        np.array([of(one) for one in turn.tolist()], real).reshape(-1, 1, 1, 1, 1)
        for of in (math.sin, math.cos)
    )
    yy, there_y = yy[:, :, None, :, None], there_y[:, :, None, :, None]
    xx, there_x = xx[:, None, :, None, :], there_x[:, None, :, None, :]
    y = yy * cosine - xx * sine + (cy * scale - offset)[:, None, None, None, None]
    x = yy * sine + xx * cosine + (cx * scale - offset)[:, None, None, None, None]
    inside = there_y & there_x & (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    flat = (len(call.boxes), *bins, -1)
    by_row, by_column = (of_places(one.reshape(flat), n) for one, n in ((y, height), (x, width)))
    weights = (by_row * inside.reshape(flat)[..., None]).swapaxes(3, 4) @ by_column
    weights /= (count_y * count_x).astype(float).reshape(-1, 1, 1, 1, 1)
    if direction == "forward":
        return np.einsum("kijhw,kchw->kcij", weights, images(call), optimize=True)
    return summed(call, np.einsum("kcij,kijhw->kchw", call.grad_output.astype(float), weights, optimize=True))


# Maxima


def candidates(call, mode):
    """Weights (K, bins, samples, length) for y and x, those outside the map none; and which there are."""

    def of_axis(low, high, bins, length, settings, real):
        found, there, _, inside = samples(low, high, bins, length, settings, real)
        weights = of_places(found, length) * inside[..., None]
        if mode == "onnx_max":  # each neighbour by itself
            low_pixel = np.minimum(np.clip(found, 0, length - 1), max(length - 2, 0)).astype(int)[..., None]
            first = weights * (np.arange(length) == low_pixel)
            weights, there = np.concatenate([first, weights - first], 2), np.concatenate([there, there], 2)
        return weights, there

    return axes(call, of_axis)


def maximum(mode, direction, call):
    """RoIAlign with a maximum, of maps whose numbers are finite."""
    (y, there_y), (x, there_x) = candidates(call, mode)
    count, bins = len(call.boxes), call.output_size
    by_row, by_column = (one.reshape(count, 1, -1, one.shape[3]) for one in (y, x))
    shape = (count, -1, bins[0], y.shape[2], bins[1], x.shape[2])
    values = (by_row @ images(call) @ by_column.swapaxes(2, 3)).reshape(
        shape[0], call.maps[0].shape[1], *shape[2:]
    )
    there = (there_y[:, None, :, :, None, None] & there_x[:, None, None, None]).reshape(count, 1, *shape[2:])
    values = np.where(there, values, -np.inf)
    best = values.max(axis=(3, 5), keepdims=True, initial=-np.inf)
    if direction == "forward":
        return np.where(np.isfinite(best), best, 0)[:, :, :, 0, :, 0]
    near = there & (values >= best - NEAR * np.abs(images(call)).max(initial=0))
    gradients, rows, columns = [], y.shape[2], x.shape[2]
    numbers = np.arange(1.0, 1 + rows * columns).reshape(rows, 1, columns)
    for shares in (near * 1.0, near * np.sqrt(numbers)):  # alike only if the winner is no question
        shares /= np.maximum(shares.sum(axis=(3, 5), keepdims=True), 1)
        shares *= call.grad_output.astype(float)[:, :, :, None, :, None]
        shares = shares.reshape(count, shares.shape[1], by_row.shape[2], by_column.shape[2])
        gradients.append(summed(call, by_row.swapaxes(2, 3) @ shares @ by_column))
    if np.abs(gradients[0] - gradients[1]).max(initial=0) > 1e-9 * np.abs(call.grad_output).max(initial=0):
        raise BeyondReferenceError
    return gradients[0]


def largest_pixels(direction, call):
    """RoIPool, of maps whose numbers are finite: the first of equal ones wins."""
    y, x = axes(call, functools.partial(ranges, extra=1))
    if direction == "forward":
        rows = np.where(x[:, None, None], images(call)[:, :, :, None], -np.inf).max(axis=4)
        best = np.where(y[:, None, :, None], rows.swapaxes(2, 3)[:, :, None], -np.inf).max(axis=4)
        return np.where(np.isfinite(best), best, 0)
    inside = y[:, None, :, None, :, None] & x[:, None, None, :, None, :]
    flat = np.where(inside, images(call)[:, :, None, None], -np.inf).reshape(*call.grad_output.shape, -1)
    best = flat.max(axis=4)
    first = (flat.argmax(axis=4)[..., None] == np.arange(flat.shape[4])) & np.isfinite(best)[..., None]
    grads = call.grad_output.astype(float)[..., None]
    return summed(call, (first * grads).sum(axis=(2, 3)).reshape(len(call.boxes), *call.maps[0].shape[1:]))


def of_one_map(rule, direction, call):
    """The result of a call, of zeros where there are no boxes."""
    if len(call.boxes):
        return (rule(direction, call),)
    return (
        np.zeros({"forward": call.grad_output.shape, "boxes": (0, 4)}.get(direction, call.maps[0].shape)),
    )


MEAN = functools.partial(separable, sampled, sampled_slopes)
RULES = {
    "roi_align": MEAN,
    "pyramid": MEAN,
    "roi_align_3d": MEAN,
    "roi_pool": largest_pixels,
    "roi_align_rotated": rotated,
    "prroi_pool": functools.partial(separable, integrated, integrated_slopes),
    "ps_roi_align": lambda direction, call: position_sensitive(
        sampled, direction, call._replace(arguments=call.arguments | {"aligned": True})
    ),
    "ps_roi_pool": lambda direction, call: position_sensitive(
        counted, direction, call, without_last=direction == "forward"
    ),
}
for _mode in ("max", "onnx_max"):
    RULES[f"roi_align, {_mode}"] = RULES[f"pyramid, {_mode}"] = functools.partial(maximum, _mode)


def expected(name, direction, call):
    """The results of an operator of the registry; BeyondReferenceError where there is none."""
    rule = functools.partial(of_one_map, RULES[name])
    with np.errstate(all="ignore"):
        if name.startswith("pyramid"):
            return reference_pyramid.by_level(direction, call, rule)
        return rule(direction, call)


def largest(operator, direction, call):
    """What rounding errors are relative to: of the gradient to maps, all that one pixel could be given."""
    if direction != "backward":
        return operator.largest(direction, call)
    most = np.abs(call.grad_output).sum(axis=(0, 2, 3), dtype=float).max(initial=0)
    return (most,) * len(call.maps)

"""Boxes that reach far outside the map: the defined values, in bounded memory and without a hang.

Each case runs in its own process, which is given a minute for what takes milliseconds.
"""

import functools
import pathlib

import numpy as np
import pytest
import reference
from narrow import ULPS

from cyroialign import roi_align, roi_align_backward

SHAPE = (1, 3, 40, 33)
BINS = (7, 5)
GROWTH = 64 * 2**20  # bytes above inputs and results
AROUND = (-0.5, -0.5, 0.5, 0.5)  # of a box centred at the origin
RIGHT = (0.0, 0.0, 1.0, 1.0)  # of a box that begins at the origin
LEFT = (-1.0, -1.0, 0.0, 0.0)
BORDERS = (-2.0, -3.0, 3.0, 4.0)  # of a box whose bins are squares, with the origin between four of them

CASES = {  # name -> (dtype, boxes, sampling_ratio, aligned)
    "1e9": ("float32", np.multiply(AROUND, 1e9), 0, True),
    "1e9, a hundred": ("float32", np.multiply(AROUND, np.linspace(9e8, 1.1e9, 100)[:, None]), 0, True),
    "1e9, float64": ("float64", np.multiply(AROUND, 1e9), 0, True),
    "1e9, legacy": ("float32", np.multiply(AROUND, 1e9), -1, False),
    "1e9, from the origin": ("float32", np.multiply(RIGHT, 1e9), 0, False),
    "1e9, to the origin": ("float64", np.add(np.multiply(LEFT, 1e9), [0, 0, 9, 9]), 0, True),
    "1e9, wide only": ("float32", [-4e8, 3, 6e8, 21], 0, True),
    "1e9, high only": ("float32", [3, -4e8, 21, 6e8], 0, True),
    "1e9, inverted": ("float32", np.multiply(AROUND, -1e9), 0, True),
    "1e9, inverted, legacy": ("float32", np.multiply(LEFT, -1e9), 0, False),
    "1e9, 3 samples": ("float64", np.multiply(AROUND, 1e9), 3, True),
    "1e9, beside the map": ("float64", [1e9, 2, 2e9, 9], 0, True),
    "1e5, 32767 samples": ("float32", np.multiply(AROUND, 1e5), 32767, True),
    "1e5, 32767 samples, mirrored": ("float64", np.multiply(AROUND, -1e5), 32767, True),
    "1e9, 32767 samples": ("float32", np.multiply(AROUND, 1e9), 32767, True),
    "1e12": ("float32", np.multiply(AROUND, 1e12), 0, True),
    "1e16": ("float64", np.multiply(AROUND, 1e16), 0, True),
    "1e17": ("float64", np.multiply(AROUND, 1e17), 0, True),
    "1e18": ("float64", np.multiply(AROUND, 1e18) + 10, 0, True),
    "1e30": ("float32", np.multiply(AROUND, 1e30), 0, True),
    "1e30, from the origin": ("float32", np.multiply(RIGHT, 1e30), 0, False),
    "1e30, 32767 samples": ("float32", np.multiply(AROUND, 1e30), 32767, True),
    "1e300": ("float64", np.multiply(AROUND, 1e300), 0, True),
    "1e300, from the origin": ("float64", np.multiply(RIGHT, 1e300), 0, False),
    "1e300, 32767 samples": ("float64", np.multiply(AROUND, 1e300), 32767, True),
    "borders at the origin": ("float32", np.multiply(BORDERS, 2.0**90), 0, False),
    "borders at the origin, float64": ("float64", np.multiply(BORDERS, 2.0**190), 0, False),
    "many": ("float32", np.multiply(AROUND, np.geomspace(1e3, 1e30, 150)[:, None]), 0, True),
    "many, float64": ("float64", np.multiply(AROUND, np.geomspace(1e3, 1e16, 150)[:, None]), 0, True),
    "many up to 1e300": ("float64", np.multiply(AROUND, np.geomspace(1e16, 1e300, 40)[:, None]), 0, True),
}


def arrays(name):
    dtype, corners, sampling_ratio, aligned = CASES[name]
    corners = np.atleast_2d(corners)
    boxes = np.hstack([np.zeros((len(corners), 1)), corners]).astype(dtype)
    rng = np.random.default_rng(0)
    input = rng.standard_normal(SHAPE).astype(dtype)
    grad_output = rng.standard_normal((len(boxes), SHAPE[1], *BINS)).astype(dtype)
    return input, grad_output, boxes, (1.0, sampling_ratio, aligned)


def peak_memory():
    """Peak of resident memory in bytes, or None. Not from getrusage, which counts the parent before exec."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def work(name, path):
    """What the other process does: both directions, after one small call that starts the threads."""
    input, grad_output, boxes, arguments = arrays(name)
    roi_align(input, boxes[:1] * 0, BINS)
    before = peak_memory()
    output = roi_align(input, boxes, BINS, *arguments)
    grad_input = roi_align_backward(grad_output, boxes, SHAPE, *arguments)
    growth = -1 if before is None else peak_memory() - before - output.nbytes - grad_input.nbytes
    np.savez(path, output=output, grad_input=grad_input, growth=growth)


def first_sample(place, bound, low, high):
    """The first whole number of [low, high) that place puts at the bound or beyond, else high."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if place(middle) >= bound else (middle + 1, high)
    return low


def axis_weights(low, high, bins, length, spatial_scale, sampling_ratio, aligned, dtype):
    """(bins, length): how much of each pixel a bin takes, found without a visit to the samples outside.

    Positions rise with the sample: bisection finds those inside the map, and those at one place.
    """
    start, bin_size, grid = reference.geometry(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype)
    weights, count = np.zeros((bins, length)), max(int(grid), 0)
    beyond = np.nextafter(dtype(length), dtype(np.inf))
    for i, of_bin in enumerate(weights):

        def place(sample, i=i):
            # A mirrored bin is walked from its other end: its positions fall.
            return reference.position(
                start, bin_size, grid, i, sample if bin_size >= 0 else count - 1 - sample
            )

        sample, end = first_sample(place, -1, 0, count), first_sample(place, beyond, 0, count)
        while sample < end:
            here = place(sample)
            following = first_sample(place, np.nextafter(here, dtype(np.inf)), sample, end)
            for pixel, weight in reference.between(float(here), length):
                of_bin[pixel] += weight * (following - sample) / count
            sample = following
    return weights


@functools.cache
def expected(name):
    input, grad_output, boxes, arguments = arrays(name)
    output, grad_input = np.zeros(grad_output.shape), np.zeros(SHAPE)
    with np.errstate(over="ignore"):  # the products of huge samples and bins: these samples are outside
        for k, (_, x1, y1, x2, y2) in enumerate(boxes):
            y = axis_weights(y1, y2, BINS[0], SHAPE[2], *arguments, boxes.dtype.type)
            x = axis_weights(x1, x2, BINS[1], SHAPE[3], *arguments, boxes.dtype.type)
            output[k] = y @ input[0].astype(float) @ x.T
            grad_input[0] += y.T @ grad_output[k].astype(float) @ x
    return output, grad_input


@pytest.mark.parametrize("name", CASES)
def test_value_and_memory(name, run_python, tmp_path):
    path = tmp_path / "results.npz"
    run_python(f"import test_bounded; test_bounded.work({name!r}, {str(path)!r})", timeout=60)
    results = np.load(path)
    # The map is so little of such a box that its share may underflow.
    tolerance, least = {"float32": (1e-6, 1e-37), "float64": (1e-14, 1e-300)}[CASES[name][0]]
    for actual, wanted in zip((results["output"], results["grad_input"]), expected(name), strict=True):
        allowed = tolerance * np.abs(wanted).max(axis=(1, 2, 3)) + least
        assert (np.abs(actual - wanted).max(axis=(1, 2, 3)) <= allowed).all()
    assert results["growth"] <= GROWTH


def test_expected_is_not_all_zero():
    """Or else the cases would prove little."""
    reach = [name for name in CASES if expected(name)[0].any()]
    assert len(reach) > len(CASES) / 2


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 3])
def test_expected_agrees_with_the_textbook_on_small_boxes(sampling_ratio, aligned):
    rng = np.random.default_rng(0)
    input, arguments = rng.standard_normal(SHAPE), (1.0, sampling_ratio, aligned)
    for x1, y1, x2, y2 in reference.random_boxes(rng, 10, SHAPE)[:, 1:]:
        y = axis_weights(y1, y2, BINS[0], SHAPE[2], *arguments, np.float32)
        x = axis_weights(x1, x2, BINS[1], SHAPE[3], *arguments, np.float32)
        boxes = np.array([[0, x1, y1, x2, y2]], np.float32)
        wanted = reference.roi_align(input, boxes, BINS, *arguments, dtype=np.float32)
        np.testing.assert_allclose(y @ input @ x.T, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(2, 3, 20_000, 2), (1, 3, 2, 20_000), (1, 9, 3, 5_000)])
@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tall_and_wide_maps(dtype, shape, ratio):
    """More rows than there can be belts, and few tiles with work: nothing is left out or pooled twice."""
    rng = np.random.default_rng(0)
    boxes = reference.random_boxes(rng, 40, shape)
    boxes[::7, [2, 4]] = boxes[::7, [4, 2]]  # mirrored
    boxes[::9, [1, 3]] = boxes[::9, [3, 1]]
    input = rng.standard_normal(shape).astype(dtype)
    first = roi_align(input, boxes, (5, 3), 1.0, ratio, True)
    last = roi_align(input.transpose(0, 2, 3, 1).copy(), boxes, (5, 3), 1.0, ratio, True, layout="NHWC")
    assert last.transpose(0, 3, 1, 2).tobytes() == first.tobytes()
    gradients = [
        roi_align_backward(first, boxes, shape, 1.0, ratio, True),
        roi_align_backward(
            last, boxes, input.transpose(0, 2, 3, 1).shape, 1.0, ratio, True, layout="NHWC"
        ).transpose(0, 3, 1, 2),
    ]
    first, last = (gradient.astype(float) for gradient in gradients)
    np.testing.assert_allclose(first, last, rtol=0, atol=99 * ULPS[dtype] * abs(first).max())

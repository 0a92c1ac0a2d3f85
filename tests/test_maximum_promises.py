"""What modes "max" and "onnx_max" promise beyond their values: bits, locality, bounds."""

import hashlib
import json

import numpy as np
import pytest
import reference
import reference_maximum
import test_bits
import test_bounded
from narrow import bits, dtype_of, numbers, result_of
from test_guard_pages import guarded
from test_locality import CASES as LOCAL_CASES
from test_locality import connections
from test_maximum import LAYOUTS, MODES, TOLERANCE, both, every_mode, in_layout, some_call

from cyroialign import roi_align, roi_align_backward, show_config

# Bits


def results(name, mode, num_threads=None, layout=None, spoiled=False):
    """Forward and backward results of a call of test_bits as bytes."""
    shape, dtype, its_layout, boxes, output_size, arguments = test_bits.calls()[name]
    rng = np.random.default_rng(1)
    dtype = dtype_of(dtype)
    input = numbers(rng, shape, dtype, 501 * spoiled)
    grad_output = numbers(rng, (len(boxes), shape[1], *output_size), result_of(dtype), 501 * spoiled)
    with np.errstate(invalid="ignore"):
        done = both(
            input,
            grad_output,
            boxes,
            *arguments,
            mode=mode,
            layout=layout or its_layout,
            num_threads=num_threads,
        )
    return [bits(x) for x in done]


def digests():
    return {
        f"{name}, {mode}, {spoiled=}": [
            hashlib.sha256(result).hexdigest() for result in results(name, mode, spoiled=spoiled)
        ]
        for name in test_bits.calls_here()
        for mode in MODES
        for spoiled in (False, True)
    }


@every_mode
@pytest.mark.parametrize("name", test_bits.calls())
def test_threads_and_layouts(name, mode):
    expected = results(name, mode, num_threads=1)
    for num_threads in (2, 64):
        assert results(name, mode, num_threads) == expected, f"differs on {num_threads} threads"
    for layout in LAYOUTS:
        assert results(name, mode, layout=layout) == expected, f"differs in {layout}"


@pytest.fixture(scope="module")
def digests_here():
    return digests()


@pytest.mark.parametrize("level", show_config(as_dict=True)["simd_levels"])
def test_simd_levels(level, digests_here, run_python):
    code = f"""
        import json, test_maximum_promises
        assert test_maximum_promises.show_config(as_dict=True)["simd"] == {level!r}
        print(json.dumps(test_maximum_promises.digests()))
    """
    assert json.loads(run_python(code, CYROIALIGN_SIMD=level, timeout=300).stdout) == digests_here


# Values that are not finite


@every_mode
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LOCAL_CASES)
def test_locality(name, layout, mode):
    shape, bins, arguments = LOCAL_CASES[name]
    rng = np.random.default_rng(0)
    boxes = reference.random_boxes(rng, 6, shape, arguments[0])
    input = rng.standard_normal(shape).astype(np.float32)
    grad_output = rng.standard_normal((6, shape[1], *bins)).astype(np.float32)
    must, may = {}, {}
    for pixel, of_bin, weight in connections(name, boxes):
        may.setdefault(pixel, set()).add(of_bin)
        if weight > 0:
            must.setdefault(pixel, set()).add(of_bin)

    def call(input):
        return [x.copy() for x in both(input, grad_output, boxes, *arguments, mode=mode, layout=layout)]

    clean, gradient = call(input)
    for number, pixel in enumerate(np.ndindex(shape[0], *shape[2:])):
        channel = number % shape[1]
        spoiled = input.copy()
        spoiled[pixel[0], channel, *pixel[1:]] = (np.nan, np.inf, -np.inf)[number % 3]
        output, grad_input = call(spoiled)
        if number % 3 == 0:
            assert all(np.isnan(output[k, channel, i, j]) for k, i, j in must.get(pixel, ()))
        for k, i, j in may.get(pixel, ()):
            output[k, channel, i, j] = clean[k, channel, i, j]
        assert output.tobytes() == clean.tobytes()
        # What is not finite may win, but its weight is finite.
        assert np.isfinite(grad_input).all()
        if pixel not in may:
            assert grad_input.tobytes() == gradient.tobytes()


@every_mode
def test_gradient_of_nan_goes_to_the_first(mode):
    input = np.array([[[[1, np.nan, 2, np.nan, 3, 4]]]])
    boxes = np.array([[0, 0.5, 0, 4.5, 0]])  # samples at 1, 2, 3 and 4
    grad_input = roi_align_backward(
        np.ones((1, 1, 1, 1)), boxes, input.shape, sampling_ratio=4, mode=mode, input=input
    )
    np.testing.assert_array_equal(grad_input, [[[[0, 1, 0, 0, 0, 0]]]])


@pytest.mark.parametrize("spoiler", [np.nan, np.inf, -np.inf])
def test_weight_zero_hides_what_is_not_finite(spoiler):
    """Samples on pixels, which the rim has too, do not see the neighbours."""
    input = np.full((1, 1, 3, 4), spoiler)
    input[0, 0, 1:, 1:3] = [[1, 2], [-np.inf, 3]]
    boxes = np.array([[0.0, 1, 1, 3, 3]])
    options = {"aligned": True, "sampling_ratio": 1}
    np.testing.assert_array_equal(roi_align(input, boxes, 2, **options, mode="max"), input[:, :, 1:, 1:3])
    grad_input = roi_align_backward(
        np.full((1, 1, 2, 2), np.inf), boxes, input.shape, **options, mode="max", input=input
    )
    expected = np.zeros_like(input)
    expected[:, :, 1:, 1:3] = np.inf
    np.testing.assert_array_equal(grad_input, expected)
    output = roi_align(input, boxes, 2, **options, mode="onnx_max")
    np.testing.assert_array_equal(output, [[[[1, 2], [0, 3]]]])


@every_mode
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_beyond_arrays(mode, layout, run_python):
    run_python(f"import test_maximum_promises; test_maximum_promises.touch_guards({mode!r}, {layout!r})")


def touch_guards(mode, layout):
    """What the other process does: it dies of the first access beyond an array."""
    rng = np.random.default_rng(0)
    for shape, bins, *arguments in [
        ((1, 1, 3, 5), (1, 1), 1.0, 1, True),
        ((2, 3, 7, 9), (3, 2), 1.0, 2, True),
        ((2, 17, 1, 11), (1, 7), 1.0, 3, False),
        ((1, 70, 12, 1), (5, 1), 1.0, 2, True),
        ((1, 9, 8, 8), (2, 9), 1.0, 0, False),
    ]:
        for dtype, at_end in [(np.float32, False), (np.float32, True), (np.float64, True)]:
            input = rng.standard_normal(shape).astype(dtype)
            grad_output = rng.standard_normal((9, shape[1], *bins)).astype(dtype)
            boxes = guarded(reference.random_boxes(rng, 9, shape).astype(np.float64), at_end)
            maps, grads = (guarded(x, at_end) for x in in_layout(layout, input, grad_output))
            out, grad_out = guarded(grads, at_end), guarded(maps, at_end)
            options = {"mode": mode, "layout": layout}
            roi_align(maps, boxes, bins, *arguments, **options, out=out)
            roi_align_backward(grads, boxes, maps.shape, *arguments, **options, input=maps, out=grad_out)


# Hostile boxes


def distinct_positions(low, high, bins, length, spatial_scale, sampling_ratio, aligned, dtype):
    """Positions inside the map, equal ones once, with -2 before or after them for those outside."""
    start, bin_size, grid = reference.geometry(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype)
    count, sign = max(int(grid), 0), 1 if bin_size >= 0 else -1
    lists = []
    for i in range(bins):

        def place(sample, i=i):
            return sign * reference.position(start, bin_size, grid, i, sample)

        bounds = sorted([sign * dtype(-1), sign * dtype(length)])
        sample = test_bounded.first_sample(place, bounds[0], 0, count)
        end = test_bounded.first_sample(place, np.nextafter(bounds[1], dtype(np.inf)), sample, count)
        found, later = [-2.0] * (sample > 0), [-2.0] * (end < count)
        while sample < end:
            here = place(sample)
            found.append(float(sign * here))
            sample = test_bounded.first_sample(place, np.nextafter(here, dtype(np.inf)), sample, end)
        lists.append(found + later)
    return lists


def work_on_hostile_boxes(path):
    """What the other process does."""
    done, before = {}, test_bounded.peak_memory()
    for name in test_bounded.CASES:
        input, grad_output, boxes, arguments = test_bounded.arrays(name)
        for mode in MODES:
            found = both(input, grad_output[:3], boxes[:3], *arguments, mode=mode)
            done[f"{name}/{mode}/output"], done[f"{name}/{mode}/grad_input"] = found
    growth = -1 if before is None else test_bounded.peak_memory() - before
    np.savez(path, **done, growth=growth)


@pytest.fixture(scope="module")
def of_hostile_boxes(run_python, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "results.npz"
    run_python(
        f"import test_maximum_promises; test_maximum_promises.work_on_hostile_boxes({str(path)!r})",
        timeout=60,
    )
    return np.load(path)


@every_mode
@pytest.mark.parametrize("name", test_bounded.CASES)
def test_hostile_boxes(name, mode, of_hostile_boxes):
    input, grad_output, boxes, arguments = test_bounded.arrays(name)
    grad_output, boxes = grad_output[:3], boxes[:3]
    options = {"mode": mode, "dtype": boxes.dtype.type, "positions": distinct_positions}
    with np.errstate(over="ignore"):
        output = reference_maximum.roi_align(input, boxes, test_bounded.BINS, *arguments, **options)
        grad_input = reference_maximum.roi_align_backward(grad_output, input, boxes, *arguments, **options)
    tolerance = 10 * TOLERANCE[input.dtype.name]
    for what, expected in [("output", output), ("grad_input", grad_input)]:
        actual = of_hostile_boxes[f"{name}/{mode}/{what}"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def test_memory_of_hostile_boxes(of_hostile_boxes):
    assert of_hostile_boxes["growth"] <= test_bounded.GROWTH


@every_mode
def test_many_samples_between_two_pixels(mode):
    """Any number of samples takes as long as a few: no loop visits each of the 1e9 of a bin."""
    input, grad_output, boxes = some_call(boxes=3, shape=(2, 1, 13, 17))
    output, grad_input = both(input, grad_output, boxes, 0.5, 32767, mode=mode)
    few = reference_maximum.roi_align(input, boxes, (4, 3), 0.5, 40, mode=mode)
    np.testing.assert_allclose(output, few, rtol=0, atol=0.2)
    assert (grad_input * input).sum() == pytest.approx((output * grad_output).sum(), rel=1e-12)

"""Modes "max" and "onnx_max", forward and backward."""

import functools
import hashlib
import json

import numpy as np
import pytest
import reference
import reference_maximum
import test_bits
import test_bounded
from hypothesis import given, settings
from hypothesis import strategies as st
from test_against_reference import calls
from test_guard_pages import guarded
from test_locality import CASES as LOCAL_CASES
from test_locality import connections

from cyroialign import RoIAlign, roi_align, roi_align_backward, show_config

MODES = ("max", "onnx_max")
LAYOUTS = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}  # where its axes come from
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def in_layout(layout, *arrays):
    """Contiguous copies of (N, C, H, W) arrays in a layout."""
    return [np.ascontiguousarray(array.transpose(LAYOUTS[layout])) for array in arrays]


def both(input, grad_output, boxes, *arguments, mode, layout="NCHW", **options):
    """Forward and backward by way of a layout, as (N, C, H, W)."""
    input, grad_output = in_layout(layout, input, grad_output)
    bins = grad_output.shape[2:] if layout == "NCHW" else grad_output.shape[1:3]
    options = {"mode": mode, "layout": layout, **options}
    results = (
        roi_align(input, boxes, bins, *arguments, **options),
        roi_align_backward(grad_output, boxes, input.shape, *arguments, input=input, **options),
    )
    return [result.transpose(np.argsort(LAYOUTS[layout])) for result in results]


def some_call(dtype=np.float64, boxes=12, shape=(2, 11, 13, 17), bins=(4, 3)):
    rng = np.random.default_rng(0)
    input = rng.standard_normal(shape).astype(dtype)
    grad_output = rng.standard_normal((boxes, shape[1], *bins)).astype(dtype)
    return input, grad_output, reference.random_boxes(rng, boxes, shape, 0.5).astype(dtype)


SETTINGS = [(0.5, ratio, aligned) for ratio in (-1, 1, 2, 5) for aligned in (False, True)]
every_mode = pytest.mark.parametrize("mode", MODES)
every_setting = pytest.mark.parametrize("arguments", SETTINGS)


# Against the textbook loop over all samples


@given(calls(), st.sampled_from(MODES), st.sampled_from(list(LAYOUTS)), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_forward(call, mode, layout, seed):
    shape, boxes, output_size, rest, dtype, geometry = call
    input = np.random.default_rng(seed).uniform(-1, 1, (shape[0], min(shape[1], 3), *shape[2:])).astype(dtype)
    expected = reference_maximum.roi_align(input, boxes, output_size, *rest, mode=mode, dtype=geometry)
    [input] = in_layout(layout, input)
    actual = roi_align(input, boxes, output_size, *rest, mode=mode, layout=layout)
    actual = actual.transpose(np.argsort(LAYOUTS[layout]))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype])


@every_mode
@every_setting
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward(layout, dtype, arguments, mode):
    input, grad_output, boxes = some_call(dtype)
    expected = reference_maximum.roi_align_backward(
        grad_output, input, boxes, *arguments, mode=mode, dtype=np.dtype(dtype)
    )
    actual = both(input, grad_output, boxes, *arguments, mode=mode, layout=layout)[1]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=30 * TOLERANCE[dtype])


quarters = st.integers(-12, 60).map(lambda n: n / 4)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 18)),
    st.lists(st.tuples(quarters, quarters, quarters, quarters), min_size=1, max_size=3),
    st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 8])),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
    st.sampled_from(MODES),
    st.sampled_from(list(LAYOUTS)),
    st.sampled_from([-1, 0]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=300)
def test_ties(map_size, corners, bins, sampling_ratio, aligned, mode, layout, least, seed):
    """Small whole numbers and binary fractions: nothing rounds, and most bins have ties."""
    rng = np.random.default_rng(seed)
    input = rng.integers(least, 2 + least, (1, 2, *map_size)).astype(np.float32)
    grad_output = rng.integers(1, 9, (len(corners), 2, *bins)).astype(np.float32)
    boxes = np.hstack([np.zeros((len(corners), 1)), corners]).astype(np.float32)
    arguments, options = (1.0, sampling_ratio, aligned), {"mode": mode, "dtype": np.float32}
    output, grad_input = both(input, grad_output, boxes, *arguments, mode=mode, layout=layout)
    np.testing.assert_array_equal(
        output, reference_maximum.roi_align(input, boxes, bins, *arguments, **options)
    )
    np.testing.assert_array_equal(
        grad_input, reference_maximum.roi_align_backward(grad_output, input, boxes, *arguments, **options)
    )


def test_by_hand():
    input = -np.arange(1.0, 17).reshape(1, 1, 4, 4)
    boxes = np.array([[0.0, 1, 1, 3, 3]])  # one bin; samples at 1 and 2 on each axis
    options = {"sampling_ratio": 2, "aligned": True}
    gradient = {"grad_output": np.ones((1, 1, 1, 1)), "input_shape": input.shape, "input": input}
    assert roi_align(input, boxes, 1, **options, mode="max").item() == -6
    [place] = np.argwhere(roi_align_backward(boxes=boxes, **gradient, **options, mode="max"))
    np.testing.assert_array_equal(place, [0, 0, 1, 1])
    # Samples on pixels have neighbours of weight 0, whose product is the largest.
    assert roi_align(input, boxes, 1, **options, mode="onnx_max").item() == 0
    boxes[0, 1:] += 0.25  # samples at 1.25 and 2.25
    assert roi_align(input, boxes, 1, **options, mode="max").item() == -6 - 0.25 * 5
    assert roi_align(input, boxes, 1, **options, mode="onnx_max").item() == -11 / 16  # of 1/16 * 11
    grad_input = roi_align_backward(boxes=boxes, **gradient, **options, mode="onnx_max")
    assert grad_input[0, 0, 2, 2] == grad_input.sum() == 1 / 16


# Laws


@every_mode
@every_setting
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-15)])
def test_both_directions_agree(dtype, tolerance, arguments, mode):
    """A maximum is as homogeneous as a mean: its value is the product of gradient and map."""
    input, grad_output, boxes = some_call(dtype, boxes=40)
    output, grad_input = both(input, grad_output, boxes, *arguments, mode=mode)
    products = output.astype(float) * grad_output
    assert abs(products.sum() - (input.astype(float) * grad_input).sum()) <= tolerance * abs(products).sum()


@every_mode
@every_setting
def test_finite_differences(arguments, mode):
    input, grad_output, boxes = some_call()
    grad_input = both(input, grad_output, boxes, *arguments, mode=mode)[1]
    step = 1e-7 * np.random.default_rng(1).standard_normal(input.shape)
    above, below = (
        both(x, grad_output, boxes, *arguments, mode=mode)[0] for x in (input + step, input - step)
    )
    difference = ((above - below) * grad_output).sum() / 2
    assert difference == pytest.approx((grad_input * step).sum(), rel=1e-6)


@every_mode
def test_backward_is_linear_in_its_gradient(mode):
    input, g, boxes = some_call()
    h = np.random.default_rng(1).standard_normal(g.shape)
    of_sum, of_g, of_h = (both(input, x, boxes, 0.5, mode=mode)[1] for x in (2 * g - 3 * h, g, h))
    np.testing.assert_allclose(of_sum, 2 * of_g - 3 * of_h, rtol=0, atol=1e-13)


@every_mode
@every_setting
def test_larger_maps_have_larger_maxima(arguments, mode):
    input, grad_output, boxes = some_call(np.float32)
    more = np.random.default_rng(1).random(input.shape, np.float32)
    smaller, larger = (both(x, grad_output, boxes, *arguments, mode=mode)[0] for x in (input, input + more))
    assert (smaller <= larger).all()
    assert (smaller < larger).any()


@every_setting
def test_mean_lies_between_minimum_and_maximum(arguments):
    input, _, boxes = some_call()
    largest, smallest = (sign * roi_align(sign * input, boxes, 3, *arguments, mode="max") for sign in (1, -1))
    mean = roi_align(input, boxes, 3, *arguments)
    assert (smallest - 1e-13 <= mean).all()
    assert (mean <= largest + 1e-13).all()
    if arguments[1] == 1:
        np.testing.assert_allclose(largest, mean, rtol=0, atol=1e-15)


@every_setting
def test_negative_maps_and_sums_of_weights(arguments):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(2, 30, (2, 20, 2)), axis=0)  # low and high of each box, inside the map
    boxes = np.hstack([np.zeros((20, 1)), *corners])
    input = rng.uniform(-9, -1, (1, 5, 16, 16))
    output, grad_input = both(input, np.ones((20, 5, 4, 3)), boxes, *arguments, mode="max")
    assert (output <= -1).all()
    np.testing.assert_allclose(grad_input.sum(axis=(0, 2, 3)), 20 * 12, rtol=1e-13)
    np.testing.assert_allclose(roi_align(input * 0 - 1.7, boxes, 3, *arguments, mode="max"), -1.7, rtol=1e-15)


@every_mode
def test_rows_do_not_depend_on_other_boxes(mode):
    input, grad_output, boxes = some_call(np.float32)
    output = both(input, grad_output, boxes, 0.5, mode=mode)[0]
    for k in range(len(boxes)):
        alone = roi_align(input, boxes[k : k + 1], (4, 3), 0.5, mode=mode)
        assert alone.tobytes() == output[k].tobytes()


# Bits


def results(name, mode, num_threads=None, layout=None, spoiled=False):
    """Forward and backward results of a call of test_bits as bytes."""
    shape, dtype, its_layout, boxes, output_size, arguments = test_bits.calls()[name]
    rng = np.random.default_rng(1)
    input = rng.standard_normal(shape).astype(dtype)
    grad_output = rng.standard_normal((len(boxes), shape[1], *output_size)).astype(dtype)
    if spoiled:
        for array in (input, grad_output):
            array.flat[::501] = np.resize([np.nan, np.inf, -np.inf], array.flat[::501].shape)
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
    return [np.where(np.isnan(x), np.nan, x).astype(dtype).tobytes() for x in done]


def digests():
    return {
        f"{name}, {mode}, {spoiled=}": [
            hashlib.sha256(result).hexdigest() for result in results(name, mode, spoiled=spoiled)
        ]
        for name in test_bits.calls()
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
        import json, test_maximum
        assert test_maximum.show_config(as_dict=True)["simd"] == {level!r}
        print(json.dumps(test_maximum.digests()))
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
    run_python(f"import test_maximum; test_maximum.touch_guards({mode!r}, {layout!r})")


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
    run_python(f"import test_maximum; test_maximum.work_on_hostile_boxes({str(path)!r})", timeout=60)
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


# Arguments


@every_mode
@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_of_backward_in_any_memory(layout, mode):
    input, grad_output, boxes = some_call(np.float32)
    input, grad_output = in_layout(layout, input, grad_output)
    backward = functools.partial(
        roi_align_backward, grad_output, boxes, input.shape, 0.5, mode=mode, layout=layout
    )
    expected = backward(input=input).tobytes()
    odd = np.empty(input.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(input.shape)
    odd[...] = input
    other = np.ascontiguousarray(input.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for same in (other, np.asfortranarray(input), odd, input.astype(">f4"), memoryview(input)):
        assert backward(input=same).tobytes() == expected
    # The gradient has the memory order of grad_output.
    to_other = (0, 3, 1, 2) if layout == "NHWC" else (0, 2, 3, 1)
    view = np.ascontiguousarray(grad_output.transpose(to_other)).transpose(np.argsort(to_other))
    gradient = roi_align_backward(view, boxes, input.shape, 0.5, mode=mode, layout=layout, input=input)
    assert gradient.transpose(to_other).flags.c_contiguous
    assert gradient.tobytes() == expected


@every_mode
def test_class_and_out(mode):
    input, grad_output, boxes = some_call(np.float32)
    output, grad_input = both(input, grad_output, boxes, 0.5, 2, mode=mode)
    pool = RoIAlign((4, 3), 0.5, 2, mode=mode)
    assert pool(input, boxes).tobytes() == output.tobytes()
    assert pool.backward(grad_output, boxes, input.shape, input).tobytes() == grad_input.tobytes()
    out = np.full_like(input, np.nan)
    given = {"input": input, "mode": mode, "out": out}
    assert roi_align_backward(grad_output, boxes, input.shape, 0.5, 2, **given) is out
    assert out.tobytes() == grad_input.tobytes()


@every_mode
def test_empty(mode):
    for shape, count in [((2, 3, 8, 9), 0), ((0, 3, 8, 9), 0), ((2, 0, 8, 9), 4), ((2, 3, 0, 9), 0)]:
        input, grad_output = np.ones(shape), np.ones((count, shape[1], 2, 2))
        output, grad_input = both(input, grad_output, np.zeros((count, 5)), mode=mode)
        assert output.shape == grad_output.shape
        assert grad_input.shape == shape
        assert not grad_input.any()


@every_mode
def test_bins_without_samples(mode):
    boxes = np.array([[0.0, 7, 6, 2, 1], [0, 3, 4, 3, 4], [0, 3, 1, 3, 6], [0, -30, 2, -20, 6]])
    output, grad_input = both(
        np.full((1, 2, 8, 9), -1.0), np.ones((4, 2, 3, 3)), boxes, 1.0, -1, True, mode=mode
    )
    assert not output.any()
    assert not grad_input.any()

"""The promises kept by the gradient to the boxes: bits, bounds, locality, defined values and errors."""

import hashlib

import numpy as np
import pytest
import reference
import test_bits
import test_bounded
from narrow import dtype_of, numbers, result_of
from test_defined import LAYOUTS, ODD_BOXES, ODD_MEMORY, in_layout
from test_errors import BOTH, BOXES
from test_guard_pages import guarded
from test_locality import CASES, NOT_FINITE, VARIANTS, connections, some_call

from cyroialign import roi_align, roi_align_boxes_backward

ARGUMENTS = {
    "grad_output": np.ones((3, 3, 2, 2), np.float32),
    "input": np.ones((2, 3, 8, 9), np.float32),
    "boxes": BOXES,
}


def gradient(call, num_threads=None, layout=None):
    """The result of a call of test_bits, in its own layout or another one."""
    shape, dtype, own_layout, boxes, output_size, arguments = call
    layout = layout or own_layout
    rng = np.random.default_rng(1)
    dtype = dtype_of(dtype)
    input = numbers(rng, shape, dtype)
    grad_output = numbers(rng, (len(boxes), shape[1], *output_size), result_of(dtype))
    input, grad_output = (np.ascontiguousarray(x.transpose(LAYOUTS[layout])) for x in (input, grad_output))
    return roi_align_boxes_backward(
        grad_output, input, boxes, *arguments, layout=layout, num_threads=num_threads
    )


def digests():
    return [hashlib.sha256(gradient(call).tobytes()).hexdigest() for call in test_bits.calls_here().values()]


@pytest.mark.parametrize("name", test_bits.calls())
def test_same_bits_for_threads_and_layouts(name):
    call = test_bits.calls()[name]
    expected = gradient(call, num_threads=1)
    assert np.isfinite(expected).all()
    for num_threads in range(2, 9):
        assert gradient(call, num_threads).tobytes() == expected.tobytes()
    for layout in LAYOUTS:
        assert gradient(call, 2, layout).tobytes() == expected.tobytes()


@pytest.mark.parametrize("level", test_bits.LEVELS)
def test_same_bits_for_simd_levels(level, run_python):
    code = "import test_box_gradient_safety as test; print(*test.digests())"
    assert run_python(code, CYROIALIGN_SIMD=level).stdout.split() == digests()


def test_other_boxes_do_not_matter():
    """More RoIs than are planned at a time, and each as if it were alone."""
    rng = np.random.default_rng(0)
    shape = (2, 1024, 6, 7)
    input, boxes = rng.standard_normal(shape), reference.random_boxes(rng, 700, shape)
    grad_output = rng.standard_normal((700, 1024, 2, 1))
    whole = roi_align_boxes_backward(grad_output, input, boxes)
    for k in range(0, 700, 23):
        alone = roi_align_boxes_backward(grad_output[k : k + 1], input, boxes[k : k + 1])
        assert whole[k].tobytes() == alone[0].tobytes()


def axis_slopes(low, high, bins, length, spatial_scale, sampling_ratio, aligned, dtype):
    """(2, bins, length): how the weights of `test_bounded.axis_weights` change with low and with high."""
    start, bin_size, grid = reference.geometry(low, high, bins, spatial_scale, sampling_ratio, aligned, dtype)
    slopes, count = np.zeros((2, bins, length)), max(int(grid), 0)
    rigid = not aligned and dtype(high) * dtype(spatial_scale) - dtype(low) * dtype(spatial_scale) < 1
    for i in range(bins):

        def place(sample, i=i):
            return reference.position(
                start, bin_size, grid, i, sample if bin_size >= 0 else count - 1 - sample
            )

        sample, end = (test_bounded.first_sample(place, dtype(x), 0, count) for x in (0, length - 1))
        while sample < end:
            here = place(sample)
            following = test_bounded.first_sample(place, np.nextafter(here, dtype(np.inf)), sample, end)
            middle = (sample + following) / 2
            u = 0 if rigid else (i + (middle if bin_size >= 0 else count - middle) / count) / bins
            pixel = int(here)
            for edge, share in enumerate([1 - u, u]):
                slopes[edge, i, pixel] -= spatial_scale * share * (following - sample) / count
                slopes[edge, i, pixel + 1] += spatial_scale * share * (following - sample) / count
            sample = following
    return slopes


def work(path):
    """What the other process does: all the huge boxes, after one small call that starts the threads."""
    results = {}
    input, grad_output, boxes, arguments = test_bounded.arrays("1e9")
    roi_align_boxes_backward(grad_output, input, boxes * 0, *arguments)
    before = test_bounded.peak_memory()
    for name in test_bounded.CASES:
        input, grad_output, boxes, arguments = test_bounded.arrays(name)
        results[name] = roi_align_boxes_backward(grad_output, input, boxes, *arguments)
    results["growth"] = -1 if before is None else test_bounded.peak_memory() - before
    np.savez(path, **results)


def test_huge_boxes(run_python, tmp_path):
    path = tmp_path / "results.npz"
    run_python(f"import test_box_gradient_safety as test; test.work({str(path)!r})", timeout=60)
    results = np.load(path)
    assert results["growth"] <= test_bounded.GROWTH
    moving = 0
    for name in test_bounded.CASES:
        input, grad_output, boxes, arguments = test_bounded.arrays(name)
        dtype, bins, size = boxes.dtype.type, test_bounded.BINS, test_bounded.SHAPE[2:]
        tolerance, least = {"float32": (1e-6, 1e-37), "float64": (1e-14, 1e-300)}[boxes.dtype.name]
        for k in range(0, len(boxes), 11):
            _, x1, y1, x2, y2 = boxes[k]
            with np.errstate(over="ignore"):
                y = test_bounded.axis_weights(y1, y2, bins[0], size[0], *arguments, dtype)
                x = test_bounded.axis_weights(x1, x2, bins[1], size[1], *arguments, dtype)
                by_y = axis_slopes(y1, y2, bins[0], size[0], *arguments, dtype)
                by_x = axis_slopes(x1, x2, bins[1], size[1], *arguments, dtype)
            maps, grads = input[0].astype(float), grad_output[k].astype(float)
            for edge, (bands_y, bands_x) in enumerate(
                [(y, by_x[0]), (by_y[0], x), (y, by_x[1]), (by_y[1], x)]
            ):
                wanted = (bands_y @ maps @ bands_x.T * grads).sum()
                terms = (np.abs(bands_y) @ np.abs(maps) @ np.abs(bands_x).T * np.abs(grads)).sum()
                assert abs(results[name][k, edge] - wanted) <= 4 * tolerance * terms + least
                moving += wanted != 0
    assert moving > 60


@pytest.mark.parametrize("name", ODD_BOXES)
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 1, 2])
def test_odd_boxes(name, aligned, sampling_ratio):
    rng = np.random.default_rng(0)
    input, boxes = rng.standard_normal((1, 2, 8, 9)), np.array([[0, *ODD_BOXES[name]]])
    grad_output, rest = rng.standard_normal((1, 2, 3, 2)), (1.0, sampling_ratio, aligned)
    expected = reference.roi_align_boxes_backward(grad_output, input, boxes, *rest)
    actual = roi_align_boxes_backward(grad_output, input, boxes, *rest)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["inverted", "zero-size", "zero width", "above", "right", "just outside"])
def test_bins_without_samples_give_exactly_zero(name):
    """Even where neither the map nor the gradient to these bins is finite."""
    grad_output, input = np.full((1, 2, 3, 3), np.nan), np.full((1, 2, 8, 9), np.inf)
    boxes = np.array([[0, *ODD_BOXES[name]]])
    assert (roi_align_boxes_backward(grad_output, input, boxes, aligned=True) == 0).all()


@pytest.mark.parametrize(("name", "layout"), VARIANTS)
def test_locality(name, layout):
    """A value that is not finite reaches the boxes that sample it, and no others."""
    input, boxes, grad_output = some_call(name, np.float32)
    images, channels, height, width = input.shape
    sampled, order = {}, LAYOUTS[layout]
    for pixel, (k, _, _), _ in connections(name, boxes):
        sampled.setdefault(pixel, set()).add(k)

    def call(maps, grads):
        arrays = (np.ascontiguousarray(x.transpose(order)) for x in (grads, maps))
        return roi_align_boxes_backward(*arrays, boxes, *CASES[name][2], layout=layout)

    clean = call(input, grad_output)
    reached = 0
    for number, (n, y, x) in enumerate(np.ndindex(images, height, width)):
        spoiled = input.copy()
        spoiled[n, number % channels, y, x] = NOT_FINITE[number % 3]
        result = call(spoiled, grad_output)
        others = [k for k in range(len(boxes)) if k not in sampled.get((n, y, x), ())]
        assert result[others].tobytes() == clean[others].tobytes()
        reached += not np.isfinite(result).all()
    assert reached
    for k in range(len(boxes)):
        spoiled = grad_output.copy()
        spoiled[k] = np.nan
        others = np.arange(len(boxes)) != k
        assert call(input, spoiled)[others].tobytes() == clean[others].tobytes()


def work_beside_guards(at_end):
    rng = np.random.default_rng(0)
    for shape, bins in [
        ((1, 1, 3, 5), (1, 1)),
        ((2, 9, 8, 8), (2, 9)),
        ((1, 33, 12, 1), (5, 1)),
        ((2, 17, 1, 11), (3, 7)),
    ]:
        for dtype, layout in [(d, name) for d in (np.float32, np.float64) for name in LAYOUTS]:
            boxes = reference.random_boxes(rng, 12, shape).astype(np.float64)
            boxes[0, 1:] = 0, 0, shape[3], shape[2]
            arrays = rng.standard_normal((12, shape[1], *bins)), rng.standard_normal(shape)
            grads, maps = (
                guarded(np.ascontiguousarray(x.transpose(LAYOUTS[layout]), dtype), at_end) for x in arrays
            )
            for num_threads in (1, 3):
                roi_align_boxes_backward(
                    grads, maps, guarded(boxes, at_end), layout=layout, num_threads=num_threads
                )


@pytest.mark.parametrize("at_end", [False, True])
def test_no_access_beyond_arrays(at_end, run_python):
    run_python(f"import test_box_gradient_safety as test; test.work_beside_guards({at_end})")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "count"), [((2, 3, 8, 9), 0), ((0, 3, 8, 9), 0), ((2, 0, 8, 9), 4), ((2, 3, 0, 9), 0)]
)
def test_empty(shape, count, dtype, layout):
    input = np.ones(in_layout(shape, layout), dtype)
    grad_output = np.ones(in_layout((count, shape[1], 7, 5), layout), dtype)
    result = roi_align_boxes_backward(grad_output, input, np.ones((count, 5), dtype), layout=layout)
    assert (result.shape, result.dtype) == ((count, 4), np.dtype(dtype))
    assert not result.any()


@pytest.mark.parametrize("name", ODD_MEMORY)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_odd_memory(name, layout):
    odd, rng = ODD_MEMORY[name], np.random.default_rng(0)
    input, grad_output = (rng.random(in_layout(s, layout)) for s in [(2, 5, 8, 9), (12, 5, 3, 2)])
    boxes = reference.random_boxes(rng, 12, (2, 5, 8, 9))
    expected = roi_align_boxes_backward(grad_output, input, boxes, layout=layout)
    result = roi_align_boxes_backward(odd(grad_output), odd(input), odd(boxes), layout=layout)
    assert type(result) is np.ndarray
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_either_memory_order_of_either_array(layout):
    rng = np.random.default_rng(0)
    input, boxes = rng.random(in_layout((2, 5, 8, 9), layout)), BOXES
    grad_output = rng.random(in_layout((3, 5, 3, 2), layout))
    there, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if layout == "NHWC" else ((0, 2, 3, 1), (0, 3, 1, 2))
    expected = roi_align_boxes_backward(grad_output, input, boxes, layout=layout)
    other_input, other_grads = (
        np.ascontiguousarray(x.transpose(there)).transpose(back) for x in (input, grad_output)
    )
    for maps in (input, other_input):
        for grads in (grad_output, other_grads):
            result = roi_align_boxes_backward(grads, maps, boxes, layout=layout)
            assert result.tobytes() == expected.tobytes()


def test_every_way_to_write_boxes():
    rng = np.random.default_rng(0)
    input, grad_output = rng.random((2, 3, 8, 9)), rng.random((3, 3, 2, 2))
    expected = roi_align_boxes_backward(grad_output, input, BOXES)
    per_image = [BOXES[BOXES[:, 0] == n, 1:] for n in range(2)]
    images = BOXES[:, 0].astype(int)
    assert roi_align_boxes_backward(grad_output, input, per_image).tobytes() == expected.tobytes()
    result = roi_align_boxes_backward(grad_output, input, BOXES[:, 1:], batch_indices=images)
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("dtype", "box_dtype", "expected"),
    [
        ("f4", "f4", "f4"),
        ("f4", "f2", "f4"),
        ("f4", "i2", "f4"),
        ("f4", "f8", "f8"),
        ("f4", "i8", "f8"),
        ("f8", "f4", "f8"),
    ],
)
def test_dtype_of_the_result(dtype, box_dtype, expected):
    result = roi_align_boxes_backward(
        np.ones((3, 3, 2, 2), dtype), np.ones((2, 3, 8, 9), dtype), BOXES.astype(box_dtype)
    )
    assert result.dtype == np.dtype(expected)


def test_gradient_beyond_float32_is_infinite():
    grad_output, input = np.full((1, 1, 1, 1), 1e30, "f4"), np.arange(4, dtype="f4").reshape(1, 1, 2, 2)
    boxes = np.array([[0, 0, 0, 1e-30, 1e-30]], "f4")
    assert (
        roi_align_boxes_backward(grad_output, input, boxes, spatial_scale=1e30, sampling_ratio=1)[0, 0]
        == np.inf
    )


def refused(error, parts, **arguments):
    with pytest.raises(error) as caught:
        roi_align_boxes_backward(**{**ARGUMENTS, **arguments})
    for part in parts.split("|"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"), [row for row in BOTH if not row[0].keys() & {"mode", "out"}]
)
def test_errors_of_all_operators(arguments, error, parts):
    refused(error, parts, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"grad_output": None}, TypeError, "grad_output must be a NumPy array|None"),
        ({"input": None}, TypeError, "input must be a NumPy array|None"),
        ({"input": ARGUMENTS["input"].astype(np.int16)}, TypeError, "input must have dtype|int16"),
        ({"input": ARGUMENTS["input"].astype(float)}, TypeError, "from input, float64, got float32"),
        ({"grad_output": ARGUMENTS["grad_output"].astype(int)}, TypeError, "grad_output|int64"),
        ({"grad_output": ARGUMENTS["grad_output"][0]}, ValueError, "grad_output must have 4 axes|(3, 2, 2)"),
        ({"grad_output": ARGUMENTS["grad_output"][:2]}, ValueError, "3 boxes|(2, 3, 2, 2)|(2, 3, 8, 9)"),
        ({"grad_output": ARGUMENTS["grad_output"][:, :2]}, ValueError, "channels|(3, 2, 2, 2)|(2, 3, 8, 9)"),
        ({"grad_output": ARGUMENTS["grad_output"][..., :0]}, ValueError, "bins|(3, 3, 2, 0)"),
        ({"input": ARGUMENTS["input"][:, :, :0]}, ValueError, "pixels|3 boxes|height 0 and width 9"),
        ({"input": ARGUMENTS["input"][:1]}, ValueError, "boxes[1] has batch_index 1, but input has 1 image"),
        ({"layout": "NHWC"}, ValueError, "channels|(3, 2, 3, 2)|(2, 9, 3, 8)"),
    ],
)
def test_errors(arguments, error, parts):
    refused(error, parts, **arguments)


def test_inputs_are_left_alone():
    copies = {name: array.copy() for name, array in ARGUMENTS.items()}
    for array in copies.values():
        array.flags.writeable = False
    assert roi_align(copies["input"], copies["boxes"], 2).shape == copies["grad_output"].shape
    roi_align_boxes_backward(**copies)

"""PrRoIPool: against the antiderivative of a hat, integrals by numbers, finite differences, and its laws."""

import hashlib

import numpy as np
import pytest
import reference_prroi_pool as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import LAYOUTS, in_layout, in_nchw
from reference import random_boxes, type_of_geometry
from test_bounded import GROWTH, peak_memory

from cyroialign import PrRoIPool, prroi_pool, prroi_pool_backward, prroi_pool_boxes_backward, show_config

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
SHAPE, BINS, SCALE = (2, 11, 17, 23), (5, 3), 0.25


def forward(input, boxes, output_size, *scale, layout="NCHW", **more):
    output = prroi_pool(in_layout(input, layout), boxes, output_size, *scale, layout=layout, **more)
    return in_nchw(output, layout)


def backward(grad_output, boxes, shape, *scale, layout="NCHW", **more):
    shape = tuple(shape[axis] for axis in LAYOUTS[layout])
    grads = in_layout(grad_output, layout)
    return in_nchw(prroi_pool_backward(grads, boxes, shape, *scale, layout=layout, **more), layout)


def boxes_backward(grad_output, input, boxes, *scale, layout="NCHW", **more):
    arrays = in_layout(grad_output, layout), in_layout(input, layout)
    return prroi_pool_boxes_backward(*arrays, boxes, *scale, layout=layout, **more)


def some_call(dtype=np.float64, count=40):
    """A map, a gradient to the result, and boxes of all kinds."""
    rng = np.random.default_rng(0)
    input, grad_output = rng.uniform(-1, 1, SHAPE), rng.uniform(-1, 1, (count, SHAPE[1], *BINS))
    return input.astype(dtype), grad_output.astype(dtype), random_boxes(rng, count, SHAPE, SCALE)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 19), st.integers(1, 12), st.integers(1, 20)),
    output_size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    scale=st.sampled_from([1.0, 0.25, 0.37, 3.0]),
    dtypes=st.tuples(*[st.sampled_from(["float32", "float64"])] * 2),
    layout=st.sampled_from(list(LAYOUTS)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200)
def test_against_the_antiderivative(shape, output_size, scale, dtypes, layout, seed):
    rng, (dtype, box_dtype) = np.random.default_rng(seed), dtypes
    boxes = random_boxes(rng, 9, shape, scale).astype(box_dtype)
    boxes[::4] = boxes[::4].round()
    input = rng.uniform(-1, 1, shape).astype(dtype)
    grad_output = rng.uniform(-1, 1, (9, shape[1], *output_size)).astype(dtype)
    geometry, tolerance = type_of_geometry(dtype, box_dtype), TOLERANCE[dtype]
    output = forward(input, boxes, output_size, scale, layout=layout)
    expected = reference.prroi_pool(input, boxes, output_size, scale, dtype=geometry)
    assert (output.shape, output.dtype) == (expected.shape, dtype)
    np.testing.assert_allclose(output, expected, rtol=0, atol=tolerance)
    gradient = backward(grad_output, boxes, shape, scale, layout=layout)
    expected = reference.prroi_pool_backward(grad_output, boxes, shape, scale, dtype=geometry)
    assert (gradient.shape, gradient.dtype) == (shape, dtype)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=9 * tolerance)
    gradient = boxes_backward(grad_output, input, boxes, scale, layout=layout)
    expected = reference.prroi_pool_boxes_backward(grad_output, input, boxes, scale, dtype=geometry)
    assert (gradient.shape, gradient.dtype) == ((9, 4), geometry)
    largest = scale * np.abs(grad_output).sum((1, 2, 3), dtype=float)[:, None]
    narrowest = np.abs(boxes[:, [3, 4, 3, 4]] - boxes[:, [1, 2, 1, 2]]).clip(1e-9) * scale / 6
    assert (np.abs(gradient - expected) <= tolerance * largest * (1 + 1e-3 / narrowest)).all()


def test_against_sums_of_many_points():
    """The definition, without an antiderivative: the surface at 1000 x 1000 points of each bin."""
    rng = np.random.default_rng(0)
    input = rng.standard_normal((7, 9))
    for x1, y1, x2, y2 in [(1.3, 0.2, 7.9, 5.1), (-3.2, -0.4, 4.0, 9.7), (2, 3, 5, 4)]:
        steps = (np.arange(2000) + 0.5) / 2000
        y, x = y1 + (y2 - y1) * steps[:, None], x1 + (x2 - x1) * steps[:, None]
        surface = reference.hat(y - np.arange(7)) @ input @ reference.hat(x - np.arange(9)).T
        expected = surface.reshape(2, 1000, 2, 1000).mean((1, 3))
        output = prroi_pool(input[None, None], np.array([[0, x1, y1, x2, y2]]), 2)
        np.testing.assert_allclose(output[0, 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("output_size", [(1, 1), (2, 3), (7, 5)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_finite_differences(layout, output_size):
    """Everywhere, on whole pixels and at the rim too, since the gradient is continuous."""
    rng, step = np.random.default_rng(0), 1e-6
    input, grad_output = rng.standard_normal((2, 3, 8, 9)), rng.standard_normal((60, 3, *output_size))
    corners = np.sort(rng.uniform(-4, 12, (60, 2, 2)), axis=1).reshape(60, 4)
    corners[:, 2:] += 0.5
    corners[::3] = corners[::3].round() + np.array([0, 0, 1, 1])
    boxes = np.column_stack([rng.integers(2, size=60), corners / SCALE])
    differences = np.empty((60, 4))
    for corner in range(4):
        moved = np.stack([boxes, boxes])
        moved[:, :, 1 + corner] += np.array([[-step], [step]])
        before, after = (prroi_pool(input, one, output_size, SCALE) for one in moved)
        differences[:, corner] = ((after - before) * grad_output).sum((1, 2, 3)) / (2 * step)
    actual = boxes_backward(grad_output, input, boxes, SCALE, layout=layout)
    assert np.abs(actual).max() > 0.1
    np.testing.assert_allclose(actual, differences, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-15)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_is_the_transpose(layout, dtype, tolerance):
    input, grad_output, boxes = some_call(dtype)
    output = forward(input, boxes, BINS, SCALE, layout=layout).astype(float)
    gradient = backward(grad_output, boxes, SHAPE, SCALE, layout=layout).astype(float)
    terms = np.abs(output * grad_output).sum()
    assert abs((output * grad_output).sum() - (gradient * input).sum()) <= tolerance * terms


def test_plane():
    """On f(y, x) = a y + b x + c a bin inside the map is the value at its centre, and moves as that does."""
    a, b, c = 3.0, -2.0, 5.0
    y, x = np.mgrid[:20.0, :30.0]
    input, (x1, y1, x2, y2) = (a * y + b * x + c)[None, None], (2.1, 3.2, 20.5, 16.5)
    rows, columns = y1 + (y2 - y1) * (np.arange(3) + 0.5) / 3, x1 + (x2 - x1) * (np.arange(4) + 0.5) / 4
    boxes = np.array([[0, x1, y1, x2, y2]]) / [1, SCALE, SCALE, SCALE, SCALE]
    output = prroi_pool(input, boxes, (3, 4), SCALE)
    np.testing.assert_allclose(output[0, 0], a * rows[:, None] + b * columns + c, rtol=1e-13)
    for i, j in np.ndindex(3, 4):
        grad_output = np.zeros((1, 1, 3, 4))
        grad_output[0, 0, i, j] = 1
        u, v = (j + 0.5) / 4, (i + 0.5) / 3
        actual = prroi_pool_boxes_backward(grad_output, input, boxes, SCALE)
        expected = SCALE * np.array([b * (1 - u), a * (1 - v), b * u, a * v])
        np.testing.assert_allclose(actual[0], expected, rtol=0, atol=1e-13)


def test_bins_share_what_a_box_has():
    """A box is the mean of its bins, and one that covers the map and a pixel around has the sum of it."""
    input, _, boxes = some_call()
    whole, parts = (prroi_pool(input, boxes, size, SCALE) for size in (1, (7, 9)))
    np.testing.assert_allclose(parts.mean((2, 3), keepdims=True), whole, rtol=0, atol=1e-14)
    _, _, height, width = SHAPE
    covering = np.array([[1, -3, -1, width, height + 8]])
    expected = input[1].sum((1, 2)) / ((width + 3) * (height + 9))
    np.testing.assert_allclose(prroi_pool(input, covering, 1)[0, :, 0, 0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_narrow_boxes(dtype):
    """However narrow, a box is the surface at its place, and moves as that does, until its sides meet."""
    rng = np.random.default_rng(0)
    input = rng.standard_normal((1, 1, 6, 8)).astype(dtype)
    row, x = input[0, 0, 2].astype(float), float(dtype(5.3))
    slope = row[6] - row[5]
    for power in range(2, 60):
        x2 = dtype(x + 2.0**-power)
        boxes = np.array([[0, x, 2 - 1e-9, x2, 2 + 1e-9]], np.float64)
        boxes[0, [2, 4]] = 2, np.nextafter(dtype(2), dtype(9))
        output = prroi_pool(input, boxes.astype(dtype), (1, 7))
        gradient = prroi_pool_boxes_backward(np.ones_like(output), input, boxes.astype(dtype))
        if x2 == dtype(x):
            assert not output.any()
            assert not gradient.any()
            continue
        centres = x + (float(x2) - x) * (np.arange(7) + 0.5) / 7
        expected = row[5] + (centres - 5) * slope
        np.testing.assert_allclose(output[0, 0, 0], expected, rtol=0, atol=8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(gradient[0, [0, 2]], 3.5 * slope, rtol=32 * np.finfo(dtype).eps)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_without_area_are_zero(layout):
    input, grad_output, _ = some_call(count=4)
    boxes = np.array([[0, 5, 5, 5, 30], [1, 5, 30, 40, 5], [1, 40, 30, 5, 5], [0, 5, 5, 5, 5]], float)
    assert not forward(input, boxes, BINS, SCALE, layout=layout).any()
    assert not backward(grad_output, boxes, SHAPE, SCALE, layout=layout).any()
    assert not boxes_backward(grad_output, input, boxes, SCALE, layout=layout).any()


# The promises.

HUGE = [-1e300, -1e30, -1e9, -3.0, 0.0, 4.5, 1e5, 1e17, 1e300]


def huge_boxes(dtype):
    limit = 1e36 if dtype == "float32" else np.inf
    edges = [edge for edge in HUGE if abs(edge) < limit]
    grid = np.stack(np.meshgrid(edges, [-1e9, 2.0], edges, [1e9, 7.0]), -1).reshape(-1, 4)
    return np.hstack([np.zeros((len(grid), 1)), grid]).astype(dtype)


def work_on_huge_boxes(dtype, path):
    rng = np.random.default_rng(0)
    boxes = huge_boxes(dtype)
    input, grad_output = rng.standard_normal((1, 3, 9, 8)), rng.standard_normal((len(boxes), 3, 4, 5))
    input, grad_output = input.astype(dtype), grad_output.astype(dtype)
    prroi_pool(input, boxes[:1] * 0, 2)
    before = peak_memory()
    results = (
        prroi_pool(input, boxes, (4, 5)),
        prroi_pool_backward(grad_output, boxes, input.shape),
        prroi_pool_boxes_backward(grad_output, input, boxes),
    )
    np.savez(path, *results, growth=-1 if before is None else peak_memory() - before)
    return input, grad_output, boxes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_boxes(dtype, run_python, tmp_path):
    """In another process, which is given a minute for what takes milliseconds."""
    path = tmp_path / "results.npz"
    run_python(f"import test_prroi_pool; test_prroi_pool.work_on_huge_boxes({dtype!r}, {str(path)!r})")
    results = np.load(path)
    input, grad_output, boxes = work_on_huge_boxes(dtype, tmp_path / "here.npz")
    assert results["growth"] <= GROWTH
    expected = (
        reference.prroi_pool(input, boxes, (4, 5), dtype=dtype),
        reference.prroi_pool_backward(grad_output, boxes, input.shape, dtype=dtype),
        reference.prroi_pool_boxes_backward(grad_output, input, boxes, dtype=dtype),
    )
    least = {"float32": 1e-37, "float64": 1e-300}[dtype]  # so little of such a box is the map
    for number, one in enumerate(expected):
        largest = np.abs(one).reshape(len(one), -1).max(axis=1)
        assert np.count_nonzero(largest) > len(one) / 4
        error = np.abs(results[f"arr_{number}"] - one).reshape(len(one), -1).max(axis=1)
        assert (error <= 9 * TOLERANCE[dtype] * largest + least).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_for_threads_and_other_boxes(layout, dtype):
    input, grad_output, boxes = some_call(dtype, 300)
    functions = [
        lambda **more: forward(input, boxes, BINS, SCALE, layout=layout, **more),
        lambda **more: backward(grad_output, boxes, SHAPE, SCALE, layout=layout, **more),
        lambda **more: boxes_backward(grad_output, input, boxes, SCALE, layout=layout, **more),
    ]
    for function in functions:
        expected = function(num_threads=1)
        for num_threads in (2, 3, 24):
            assert function(num_threads=num_threads).tobytes() == expected.tobytes()
    assert functions[0]().tobytes() == forward(input, boxes, BINS, SCALE).tobytes()
    assert functions[2]().tobytes() == boxes_backward(grad_output, input, boxes, SCALE).tobytes()
    for k in range(0, 300, 31):
        alone = slice(k, k + 1)
        output = forward(input, boxes[alone], BINS, SCALE, layout=layout)
        assert output.tobytes() == functions[0]()[alone].tobytes()
        gradient = boxes_backward(grad_output[alone], input, boxes[alone], SCALE, layout=layout)
        assert gradient.tobytes() == functions[2]()[alone].tobytes()


def digests():
    results = []
    for dtype in ("float32", "float64", "float16", "int8"):
        input, grad_output, boxes = some_call(np.float16 if dtype == "float16" else np.float32)
        input = (input * 99).astype(dtype)
        grad_output = grad_output.astype("float32" if dtype == "int8" else dtype)
        for layout in LAYOUTS:
            results += [
                forward(input, boxes, BINS, SCALE, layout=layout),
                backward(grad_output, boxes, SHAPE, SCALE, layout=layout),
                boxes_backward(grad_output, input, boxes, SCALE, layout=layout),
            ]
    return [hashlib.sha256(one.tobytes()).hexdigest() for one in results]


@pytest.mark.parametrize("level", show_config(as_dict=True)["simd_levels"])
def test_same_bits_for_simd_levels(level, run_python):
    code = "import test_prroi_pool; print(*test_prroi_pool.digests())"
    assert run_python(code, CYROIALIGN_SIMD=level).stdout.split() == digests()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_locality(layout):
    """A pixel that is not finite reaches the bins that its hat overlaps, and no other."""
    input, grad_output, boxes = some_call()
    size = SHAPE[2:]
    clean = forward(input, boxes, BINS, SCALE, layout=layout)
    clean_slopes = boxes_backward(grad_output, input, boxes, SCALE, layout=layout)
    for image, channel, row, column in [(0, 3, 0, 0), (1, 10, 8, 11), (0, 0, 16, 22)]:
        for value in (np.nan, np.inf, -np.inf):
            spoiled = input.copy()
            spoiled[image, channel, row, column] = value
            output = forward(spoiled, boxes, BINS, SCALE, layout=layout)
            slopes = boxes_backward(grad_output, spoiled, boxes, SCALE, layout=layout)
            for k, box in enumerate(boxes):
                y, x = reference.axes(reference.weights, box, size, BINS, SCALE, np.float64)
                reached = np.zeros(clean.shape[1:], bool)
                reached[channel] = (box[0] == image) & (y[:, row, None] > 0) & (x[:, column] > 0)
                np.testing.assert_array_equal(~np.isfinite(output[k]), reached)
                np.testing.assert_array_equal(output[k][~reached], clean[k][~reached])
                if reached.any():
                    assert not np.isfinite(slopes[k]).all()
                else:
                    np.testing.assert_array_equal(slopes[k], clean_slopes[k])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_locality_of_gradients(layout):
    _, grad_output, boxes = some_call(count=6)
    clean = backward(grad_output, boxes, SHAPE, SCALE, layout=layout)
    grad_output[3, 4, 1, 2] = np.inf
    gradient = backward(grad_output, boxes, SHAPE, SCALE, layout=layout)
    y, x = reference.axes(reference.weights, boxes[3], SHAPE[2:], BINS, SCALE, np.float64)
    reached = np.zeros(SHAPE, bool)
    reached[int(boxes[3, 0]), 4] = (y[1, :, None] > 0) & (x[2] > 0)
    assert reached.any()
    np.testing.assert_array_equal(~np.isfinite(gradient), reached)
    np.testing.assert_array_equal(gradient[~reached], clean[~reached])


# Arguments.


def test_every_way_to_write_boxes():
    input, grad_output, boxes = some_call()
    boxes = boxes[boxes[:, 0].argsort(kind="stable")]
    listed = [boxes[boxes[:, 0] == image, 1:] for image in range(2)]
    pool = PrRoIPool(BINS, SCALE, num_threads=2)
    output = prroi_pool(input, boxes, BINS, SCALE)
    gradient = prroi_pool_backward(grad_output, boxes, SHAPE, SCALE)
    slopes = prroi_pool_boxes_backward(grad_output, input, boxes, SCALE)
    apart = {"batch_indices": boxes[:, 0].astype(int)}
    assert prroi_pool(input, boxes[:, 1:], BINS, SCALE, **apart).tobytes() == output.tobytes()
    other = prroi_pool_backward(grad_output, boxes[:, 1:], SHAPE, SCALE, **apart)
    assert other.tobytes() == gradient.tobytes()
    other = prroi_pool_boxes_backward(grad_output, input, boxes[:, 1:], SCALE, **apart)
    assert other.tobytes() == slopes.tobytes()
    assert pool(input, listed).tobytes() == output.tobytes()
    assert pool.backward(grad_output, listed, SHAPE).tobytes() == gradient.tobytes()
    assert pool.boxes_backward(grad_output, input, listed).tobytes() == slopes.tobytes()
    assert str(pool) == "PrRoIPool(output_size=(5, 3), spatial_scale=0.25, layout='NCHW', num_threads=2)"


def test_scale_of_each_axis():
    input, grad_output, boxes = some_call()
    ratio = np.array([1, SCALE / 0.5, SCALE / 0.125, SCALE / 0.5, SCALE / 0.125])
    output, expected = (
        prroi_pool(input, *given)
        for given in [(boxes * ratio, BINS, (0.125, 0.5)), (boxes.astype(float), BINS, SCALE)]
    )
    np.testing.assert_array_equal(output, expected)
    slopes = prroi_pool_boxes_backward(grad_output, input, boxes * ratio, (0.125, 0.5))
    expected = prroi_pool_boxes_backward(grad_output, input, boxes.astype(float), SCALE)
    np.testing.assert_array_equal(slopes, expected / ratio[1:])


def test_nothing():
    input, grad_output, boxes = some_call()
    assert prroi_pool(input, boxes[:0], BINS).shape == (0, 11, *BINS)
    assert prroi_pool(input[:, :0], boxes, BINS).shape == (40, 0, *BINS)
    assert not prroi_pool_backward(grad_output[:0], boxes[:0], SHAPE).any()
    assert prroi_pool_boxes_backward(grad_output[:0], input, boxes[:0]).shape == (0, 4)
    assert not prroi_pool_boxes_backward(grad_output[:, :0], input[:, :0], boxes).any()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"boxes": [[0, 0, 0, np.nan, 1]] * 3}, ValueError, r"boxes\[0\] must be finite"),
        ({"boxes": [[2, 0, 0, 1, 1]] * 3}, ValueError, r"boxes\[0\] has batch_index 2, but input has 2"),
        ({"boxes": np.float32([[0, 0, 0, 3e38, 1]] * 3), "spatial_scale": 2.0}, ValueError, "not finite on"),
        ({"spatial_scale": 0}, ValueError, "spatial_scale must be greater than 0"),
        ({"layout": "CHW"}, ValueError, "layout must be one of 'NCHW', 'NHWC'"),
        ({"batch_indices": [0]}, ValueError, r"boxes must have shape \(K, 4\)"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1"),
    ],
)  # fmt: skip
def test_errors(change, error, match):
    input, grad_output = np.ones((2, 3, 8, 9), np.float32), np.ones((3, 3, 2, 2), np.float32)
    given = {"boxes": np.float32([[0, 0, 0, 3, 3]] * 3)} | change
    boxes = given.pop("boxes")
    with pytest.raises(error, match=match):
        prroi_pool(input, boxes, 2, **given)
    with pytest.raises(error, match=match):
        prroi_pool_backward(grad_output, boxes, input.shape, **given)
    with pytest.raises(error, match=match):
        prroi_pool_boxes_backward(grad_output, input, boxes, **given)
    given.pop("batch_indices", None)
    if "boxes" not in change and given:
        with pytest.raises(error, match=match):
            PrRoIPool(2, **given)

"""PrRoIPool: its textbook against exact integrals, integrals by numbers, finite differences, and its laws."""

from fractions import Fraction

import numpy as np
import pytest
import reference_prroi_pool as reference
from pools import LAYOUTS, in_layout, in_nchw
from reference import random_boxes

from cyroialign import PrRoIPool, prroi_pool, prroi_pool_backward, prroi_pool_boxes_backward

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


def exact(first, last, number, bins, pixel):
    """Weight and slopes by the antiderivative of a hat and the rule of the quotient, in fractions."""

    def area(t):
        t = min(max(t - pixel, Fraction(-1)), Fraction(1))
        return (1 + t) ** 2 / 2 if t < 0 else 1 - (1 - t) ** 2 / 2

    def hat(t):
        return max(Fraction(0), 1 - abs(t - pixel))

    size = last - first
    weight, u, v = (area(last) - area(first)) / size, Fraction(number, bins), Fraction(number + 1, bins)
    by_low = (hat(last) * (1 - v) - hat(first) * (1 - u) + weight / bins) / size
    return weight, by_low, (hat(last) * v - hat(first) * u - weight / bins) / size


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.3, 6.9), (2, 5), (-3.5, 0.25), (2.625, 2.75), (3, 3 + 2**-30), (-1e9, 4.5), (-1e17, 1e17), (9, 12)],
)
def test_the_textbook_is_exact(low, high):
    bins, length = 3, 7
    first, last = reference.ends(low, high, bins, 1.0, np.float64)
    weights = reference.weights(low, high, bins, length, 1.0, np.float64)
    slopes = reference.slopes(low, high, bins, length, 1.0, np.float64)
    for number, pixel in np.ndindex(bins, length):
        ends = Fraction(first[number, 0]), Fraction(last[number, 0])
        expected = [float(one) for one in exact(*ends, number, bins, pixel)]
        actual = [one[number, pixel] for one in (weights, *slopes)]
        np.testing.assert_allclose(actual, expected, rtol=1e-14, atol=1e-15 / max(high - low, 1))


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

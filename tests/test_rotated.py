"""roi_align_rotated: its values, its laws, and its gradient."""

import math

import numpy as np
import pytest
import reference_rotated as reference

from cyroialign import RoIAlignRotated, roi_align, roi_align_rotated, roi_align_rotated_backward

SHAPE, SCALE, BINS = (2, 21, 17, 23), 0.25, (3, 2)
KINDS = ["ordinary", "outside", "zero-size", "inverted", "large"]
CLOSE = {np.float32: 2e-5, np.float64: 1e-10}


def random_map(rng, dtype=np.float64, shape=SHAPE):
    return rng.uniform(-1, 1, shape).astype(dtype)


def random_boxes(rng, kind="ordinary", count=8, dtype=np.float64):
    """Boxes in pixels of an image four times as large as the map."""
    height, width = SHAPE[2] / SCALE, SHAPE[3] / SCALE
    boxes = np.empty((count, 6))
    boxes[:, 0] = rng.integers(SHAPE[0], size=count)
    boxes[:, 1], boxes[:, 2] = rng.uniform(0, width, count), rng.uniform(0, height, count)
    boxes[:, 3:5] = rng.uniform(4, 90, (count, 2))
    boxes[:, 5] = rng.uniform(-7, 7, count)
    if kind == "outside":
        boxes[:, 1:3] += rng.choice([-60, 0, 60], (count, 2))
    elif kind == "zero-size":
        boxes[:, 3:5] *= rng.integers(2, size=(count, 2))
    elif kind == "inverted":
        boxes[:, 3:5] *= rng.choice([-1, 1], (count, 2))
    elif kind == "large":
        boxes[:, 3:5] *= 20
    return boxes.astype(dtype)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("box_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_values(kind, dtype, box_dtype, layout):
    rng = np.random.default_rng(KINDS.index(kind))
    input, boxes = random_map(rng, dtype), random_boxes(rng, kind, dtype=box_dtype)
    given = input if layout == "NCHW" else np.ascontiguousarray(input.transpose(0, 2, 3, 1))
    for settings in ((SCALE, -1, True, False), (SCALE, 2, False, True), ((0.3, 0.2), 3, True, True)):
        expected = reference.roi_align_rotated(input, boxes, BINS, *settings)
        result = roi_align_rotated(given, boxes, BINS, *settings, layout=layout)
        result = result if layout == "NCHW" else result.transpose(0, 3, 1, 2)
        np.testing.assert_allclose(result, expected, rtol=0, atol=CLOSE[dtype])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, layout):
    rng = np.random.default_rng(KINDS.index(kind))
    boxes = random_boxes(rng, kind)
    gradient = rng.uniform(-1, 1, (len(boxes), SHAPE[1], *BINS))
    axes, back = ((0, 1, 2, 3),) * 2 if layout == "NCHW" else ((0, 2, 3, 1), (0, 3, 1, 2))
    shape = tuple(SHAPE[axis] for axis in axes)
    for settings in ((SCALE, -1, True, False), (SCALE, 2, False, True)):
        expected = reference.roi_align_rotated_backward(gradient, boxes, SHAPE, *settings)
        given = np.ascontiguousarray(gradient.transpose(axes))
        result = roi_align_rotated_backward(given, boxes, shape, *settings, layout=layout)
        np.testing.assert_allclose(result.transpose(back), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", [-1, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_an_angle_of_0_is_roi_align(ratio, aligned):
    rng = np.random.default_rng(3)
    input, boxes = random_map(rng), random_boxes(rng, "outside")
    boxes[:, 5] = 0
    corners = np.hstack([boxes[:, :1], boxes[:, 1:3] - boxes[:, 3:5] / 2, boxes[:, 1:3] + boxes[:, 3:5] / 2])
    settings = (BINS, SCALE, ratio, aligned)
    assert (
        boxes[:, 3:5] * SCALE > 1
    ).all()  # narrower ones grow from their corner there, from their centre here
    result = roi_align_rotated(input, boxes, *settings)
    np.testing.assert_allclose(result, roi_align(input, corners, *settings), rtol=0, atol=1e-12)


@pytest.mark.parametrize("turns", range(-3, 6))
def test_quarter_turns(turns):
    """A box that is turned counter-clockwise sees the map turned clockwise."""
    rng = np.random.default_rng(4)
    input = random_map(rng, shape=(1, 3, 12, 12))
    box = np.array([[0, 6.0, 6.0, 12.0, 12.0, turns * math.pi / 2]])
    result = roi_align_rotated(input, box, 12)
    np.testing.assert_allclose(result, np.rot90(input, -turns, axes=(2, 3)), rtol=0, atol=1e-13)


def test_clockwise_negates_the_angle():
    rng = np.random.default_rng(5)
    input, boxes = random_map(rng, np.float32), random_boxes(rng, dtype=np.float32)
    turned = boxes * np.array([1, 1, 1, 1, 1, -1], np.float32)
    result = roi_align_rotated(input, boxes, BINS, SCALE, clockwise=True)
    assert np.array_equal(result, roi_align_rotated(input, turned, BINS, SCALE))
    assert not np.array_equal(result, roi_align_rotated(input, boxes, BINS, SCALE))


def test_a_negative_side_mirrors():
    rng = np.random.default_rng(6)
    input, boxes = random_map(rng), random_boxes(rng)
    mirrored = boxes * [1, 1, 1, -1, 1, 1]
    expected = roi_align_rotated(input, boxes, BINS, SCALE, 2)[..., ::-1]
    np.testing.assert_allclose(
        roi_align_rotated(input, mirrored, BINS, SCALE, 2), expected, rtol=0, atol=1e-12
    )
    assert not roi_align_rotated(input, mirrored, BINS, SCALE, -1).any()


def places(angles, dtype):
    """Cosine and sine of angles: where the sample at (0, 3/4) of a turned box lies, from maps of ramps."""
    ramps = np.stack(np.mgrid[-2:3, -2:3]).astype(dtype)[None]
    boxes = np.zeros((len(angles), 6), dtype)
    boxes[:, 1:] = 2, 2, 2, 0, 0
    boxes[:, 5] = angles
    result = roi_align_rotated(ramps, boxes, (1, 4), sampling_ratio=2, aligned=False)
    y, x = result[:, 0, 0, 3], result[:, 1, 0, 3]
    return x / dtype(0.75), -y / dtype(0.75)


def test_sine_and_cosine():
    rng = np.random.default_rng(7)
    angles = np.concatenate(
        [rng.uniform(-10, 10, 500), np.arange(-40, 41) * (math.pi / 4), [1e-300, 0, 0.7e5]]
    )
    cosine, sine = places(angles, np.float64)
    np.testing.assert_allclose(cosine, np.cos(angles), rtol=0, atol=4e-16)
    np.testing.assert_allclose(sine, np.sin(angles), rtol=0, atol=4e-16)


def test_huge_angles_are_reduced_exactly():
    """By a textbook's pi of 1200 bits."""
    one = 1 << 1400
    pi = 4 * (4 * arctan_of_inverse(5, one) - arctan_of_inverse(239, one))
    angles = [1e5, -3e9, 1e22, 2.0**200, 1.7e308, -math.ldexp(6381956970095103, 797), 2.0**53 + 2]
    cosine, sine = places(np.array(angles), np.float64)
    for angle, c, s in zip(angles, cosine, sine, strict=True):
        numerator, denominator = angle.as_integer_ratio()
        rest = (numerator * one // denominator) % (2 * pi) / one
        assert math.cos(rest) == pytest.approx(c, abs=4e-16)
        assert math.sin(rest) == pytest.approx(s, abs=4e-16)


def arctan_of_inverse(x, one):
    power = total = one // x
    n = 1
    while power:
        power //= -x * x
        n += 2
        total += power // n
    return total


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_law_of_the_pair(dtype, layout):
    rng = np.random.default_rng(8)
    boxes = np.vstack([random_boxes(rng, kind) for kind in KINDS]).astype(dtype)
    shape = SHAPE if layout == "NCHW" else (SHAPE[0], *SHAPE[2:], SHAPE[1])
    input = random_map(rng, dtype, shape)
    result = roi_align_rotated(input, boxes, BINS, SCALE, layout=layout)
    gradient = random_map(rng, dtype, result.shape)
    back = roi_align_rotated_backward(gradient, boxes, shape, SCALE, layout=layout)
    pair = [
        np.vdot(a.astype(np.float64), b.astype(np.float64)) for a, b in ((result, gradient), (input, back))
    ]
    assert pair[0] == pytest.approx(pair[1], rel=2e-5 if dtype is np.float32 else 1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits(dtype):
    """In either layout, on any number of threads, whichever other boxes there are."""
    rng = np.random.default_rng(9)
    input = random_map(rng, dtype)
    boxes = np.vstack([random_boxes(rng, kind, 12, dtype) for kind in KINDS])
    boxes = np.vstack([boxes, huge_boxes(dtype)])
    last = np.ascontiguousarray(input.transpose(0, 2, 3, 1))
    expected = roi_align_rotated(input, boxes, BINS, SCALE, num_threads=1)
    gradient = random_map(rng, dtype, expected.shape)
    gradient_last = np.ascontiguousarray(gradient.transpose(0, 2, 3, 1))
    back = roi_align_rotated_backward(gradient, boxes, input.shape, SCALE, num_threads=1)
    for n in (1, 2, 5):
        settings = {"num_threads": n, "layout": "NHWC"}
        result = roi_align_rotated(last, boxes, BINS, SCALE, **settings).transpose(0, 3, 1, 2)
        assert np.array_equal(result, expected)
        assert np.array_equal(roi_align_rotated(input, boxes, BINS, SCALE, num_threads=n), expected)
        result = roi_align_rotated_backward(gradient_last, boxes, last.shape, SCALE, **settings)
        assert np.array_equal(result.transpose(0, 3, 1, 2), back)
        result = roi_align_rotated_backward(gradient, boxes, input.shape, SCALE, num_threads=n)
        assert np.array_equal(result, back)
    for k in range(0, len(boxes), 7):
        assert np.array_equal(roi_align_rotated(input, boxes[k : k + 1], BINS, SCALE)[0], expected[k])


def huge_boxes(dtype):
    """Boxes that reach far outside, in part with an edge or a corner on the map."""
    largest = 1e38 if dtype is np.float32 else 1e300
    boxes = []
    for width in (30, 1e6, 1e9, 1e13, 1e20, largest):
        for height in (10, 1e6, 1e13, largest):
            for angle in (0, 0.8, math.pi / 2, 1e-9, -2e30):
                for share in (0, 0.5):
                    with np.errstate(over="ignore"):
                        x = np.float64(40) + share * width * math.cos(angle)
                    boxes.append([0, x, 30 - share * width * math.sin(angle), width, height, angle])
    return np.array(boxes).astype(dtype)


@pytest.mark.parametrize("ratio", [-1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_boxes(dtype, ratio):
    """Of a map of ones: which share of the samples lies on it. Sample by sample it would take for ever."""
    boxes = huge_boxes(dtype)
    ones = np.ones((1, 1, 17, 23), dtype)
    shares = roi_align_rotated(ones, boxes, BINS, SCALE, ratio)
    assert (shares >= 0).all()
    assert (shares <= 1 + 1e-5).all()
    assert (shares > 0).any()
    for k in range(0, len(boxes), 3):
        box = boxes[k : k + 1]
        back = roi_align_rotated_backward(np.ones((1, 1, *BINS), dtype), box, ones.shape, SCALE, ratio)
        assert back.sum(dtype=np.float64) == pytest.approx(
            shares[k].sum(dtype=np.float64), rel=1e-4, abs=1e-35
        )


def test_samples_at_one_place_are_counted():
    """Where float32 counts in millions of pixels, half a million samples fall onto one: as one by one."""
    box = np.array([[0, 20, 15, 1e13, 40, 0]], np.float32)
    share = roi_align_rotated(np.ones((1, 1, 30, 40), np.float32), box, (1, 2))[0, 0, 0, 0]
    start, size = np.float32(-5e12), np.float32(5e12)
    numbers = np.arange(int(size) - 3_000_000, int(size), dtype=np.float64).astype(np.float32)
    x = start + (numbers + np.float32(0.5)) * size / size + np.float32(19.5)
    inside = np.count_nonzero((x >= -1) & (x <= 40))
    rows = 32 / 40  # of 40, a pixel apart from -5 on, those from -1 to 30
    assert inside > 100_000
    assert share == pytest.approx(inside / float(size) * rows, rel=1e-5)


def test_nothing_else_is_touched_by_what_is_not_finite():
    rng = np.random.default_rng(10)
    input, boxes = random_map(rng, np.float32), random_boxes(rng, "ordinary", 20, np.float32)
    expected = roi_align_rotated(input, boxes, BINS, SCALE)
    for value, place in ((np.nan, (0, 3, 8, 11)), (np.inf, (1, 20, 9, 22)), (-np.inf, (1, 0, 16, 8))):
        spoiled = input.copy()
        spoiled[place] = value
        reached = np.zeros(expected.shape, bool)
        settings = (SCALE, -1, True, False, np.float32, reference.all_samples)
        for k, image, bin_y, bin_x, rows, columns, _ in reference.taps(SHAPE, boxes, BINS, *settings):
            hits = (image == place[0]) & (rows == place[2]) & (columns == place[3])
            reached[k, place[1], bin_y[hits], bin_x[hits]] = True
        assert reached.any()
        for layout in ("NCHW", "NHWC"):
            given = spoiled if layout == "NCHW" else np.ascontiguousarray(spoiled.transpose(0, 2, 3, 1))
            result = roi_align_rotated(given, boxes, BINS, SCALE, layout=layout)
            result = result if layout == "NCHW" else result.transpose(0, 3, 1, 2)
            assert np.array_equal(result[~reached], expected[~reached])
            assert not np.isfinite(result[reached]).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
def test_narrow_maps(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(11)
    input = rng.integers(0, 200, SHAPE).astype(dtype)
    boxes = random_boxes(rng, dtype=np.float32)
    result = roi_align_rotated(input, boxes, BINS, SCALE)
    assert result.dtype == ("float32" if dtype == "uint8" else dtype)
    expected = roi_align_rotated(input.astype(np.float32), boxes, BINS, SCALE)
    assert np.array_equal(result, expected.astype(result.dtype))
    if dtype != "uint8":
        back = roi_align_rotated_backward(result, boxes, SHAPE, SCALE)
        expected = roi_align_rotated_backward(result.astype(np.float32), boxes, SHAPE, SCALE)
        assert np.array_equal(back, expected.astype(dtype))


def test_every_way_to_write_boxes():
    rng = np.random.default_rng(12)
    input, boxes = random_map(rng), random_boxes(rng)
    boxes = boxes[boxes[:, 0].argsort(kind="stable")]
    expected = roi_align_rotated(input, boxes, BINS, SCALE)
    by_image = [boxes[boxes[:, 0] == image, 1:] for image in range(SHAPE[0])]
    index = boxes[:, 0].astype(int)
    for given in (by_image, [one.tolist() for one in by_image], boxes.tolist()):
        assert np.array_equal(roi_align_rotated(input, given, BINS, SCALE), expected)
    assert np.array_equal(roi_align_rotated(input, boxes[:, 1:], BINS, SCALE, batch_indices=index), expected)
    assert roi_align_rotated(input, [[], []], BINS).shape == (0, SHAPE[1], *BINS)
    assert roi_align_rotated(input, np.empty((0, 6)), BINS).shape == (0, SHAPE[1], *BINS)
    assert not roi_align_rotated_backward(np.empty((0, 21, 3, 2)), np.empty((0, 6)), SHAPE).any()


@pytest.mark.promise("refusals", "roi_align_rotated")
@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0, 1, 1, 2, 2, np.nan], r"boxes\[1\] must be finite, got \(cx, cy, width, height, angle\)"),
        ([0, 1, 1, np.inf, 2, 0], r"boxes\[1\] must be finite"),
        ([2, 1, 1, 2, 2, 0], r"boxes\[1\] has batch_index 2, but input has 2 images"),
        ([0.5, 1, 1, 2, 2, 0], r"boxes\[1\] has batch_index 0.5, which is not a whole number"),
        ([0, 1, 1, 2, 3e38, 0], r"boxes\[1\] is not finite on the feature map: \(cx, .* float32 can hold"),
    ],
)
def test_boxes_without_a_result(box, message):
    boxes = np.array([[0, 1, 1, 2, 2, 0], box], np.float32)
    with pytest.raises(ValueError, match=message):
        roi_align_rotated(np.zeros(SHAPE, np.float32), boxes, 2, 2.0)


@pytest.mark.promise("refusals", "roi_align_rotated")
def test_wrong_arguments():
    input, boxes = np.zeros(SHAPE, np.float32), np.zeros((3, 6), np.float32)
    with pytest.raises(ValueError, match=r"\(K, 6\), got \(3, 5\); \(K, 5\) needs batch_indices, or a list"):
        roi_align_rotated(input, boxes[:, :5], 2)
    with pytest.raises(ValueError, match=r"shape \(K, 5\), got \(3, 6\)$"):
        roi_align_rotated(input, boxes, 2, batch_indices=[0, 0, 0])
    with pytest.raises(ValueError, match=r"boxes\[1\] must have shape \(L, 5\), got \(3, 4\)$"):
        roi_align_rotated(input, [boxes[:, 1:], boxes[:, :4]], 2)
    with pytest.raises(ValueError, match=r"rows of \(batch_index, cx, cy, width, height, angle\) must come"):
        roi_align_rotated(input, [boxes[:, 1:]], 2)
    with pytest.raises(TypeError, match="clockwise must be True or False, got str"):
        roi_align_rotated(input, boxes, 2, clockwise="yes")
    with pytest.raises(ValueError, match="grad_output must have one row for each of the 3 boxes"):
        roi_align_rotated_backward(np.zeros((2, 21, 2, 2), np.float32), boxes, SHAPE)


def test_class_and_out():
    rng = np.random.default_rng(13)
    input, boxes = random_map(rng), random_boxes(rng)
    pool = RoIAlignRotated(BINS, SCALE, 2, False, True, num_threads=2)
    expected = roi_align_rotated(input, boxes, BINS, SCALE, 2, False, True)
    assert np.array_equal(pool(input, boxes), expected)
    back = roi_align_rotated_backward(expected, boxes, SHAPE, SCALE, 2, False, True)
    assert np.array_equal(pool.backward(expected, boxes, SHAPE), back)
    assert repr(pool) == (
        "RoIAlignRotated(output_size=(3, 2), spatial_scale=0.25, sampling_ratio=2, aligned=False, "
        "clockwise=True, layout='NCHW', num_threads=2)"
    )
    out = np.full_like(expected, np.nan)
    assert roi_align_rotated(input, boxes, BINS, SCALE, 2, False, True, out=out) is out
    assert np.array_equal(out, expected)
    with pytest.raises(TypeError, match="clockwise must be True or False"):
        RoIAlignRotated(2, clockwise=None)


def test_memory_does_not_grow_with_the_box(run_python):
    """Nor do tables of samples exist: 32767 by 32767 of them would fill the memory."""
    code = """
import resource
import numpy as np
from cyroialign import roi_align_rotated, roi_align_rotated_backward

ones = np.ones((1, 8, 64, 64), np.float32)
boxes = np.array([[0, 30, 30, size, size, 0.5] for size in (40, 1e5, 1e9, 1e30)], np.float32)
def both(boxes, ratio=0):
    crops = roi_align_rotated(ones, boxes, 3, 1.0, ratio)
    roi_align_rotated_backward(crops, boxes, ones.shape, 1.0, ratio)
both(boxes[:1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
both(boxes)
both(boxes[1:], 200)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    pytest.importorskip("resource")
    assert int(run_python(code).stdout) < 4096  # kibibytes

"""paste_masks: torchvision's and PyTorch's values, a textbook reference, thresholds, promises, refusals."""

import pathlib
import resource
import sys

import numpy as np
import pytest
from narrow import BYTES, NARROW, dtype_of
from reference_paste import paste_masks as textbook

from cyroialign import num_threads, paste_masks

GOLDENS = np.load(pathlib.Path(__file__).parent / "data" / "paste_masks.npz")
RULES = ("torchvision", "detectron2")
IMAGE = (23, 31)
TOLERANCE = {"float32": 2e-6, "float64": 1e-12, "float16": 1e-3, "bfloat16": 1e-2}


def some_masks(count, side=7, dtype="float64", seed=0):
    masks = np.random.default_rng(seed).uniform(-1, 1, (count, 1, side, side))
    if dtype == "uint8":
        return np.uint8(128 + 127 * masks)
    if dtype == "int8":
        return np.int8(127 * masks)
    return masks.astype(dtype_of(dtype))


def boxes_of_all_kinds():
    """Inside, across each edge, outside on each side, tiny, of no size, inverted, on whole pixels, huge."""
    height, width = IMAGE
    inside = [3.3, 2.1, 17.9, 15.2]
    moved = [[x + dx * 20.0, y + dy * 15.0, x + dx * 20.0 + 14, y + dy * 15.0 + 12]
             for dx in (-2, -1, 0, 1, 2) for dy in (-2, -1, 0, 1, 2) for x, y in [(8.4, 5.7)]]  # fmt: skip
    odd = [
        [5.2, 5.3, 5.4, 5.35],
        [5.5, 5.5, 5.5, 9.5],
        [4.5, 4.5, 12.5, 4.5],
        [20.3, 3.1, 4.4, 15.8],
        [4.4, 15.8, 20.3, 3.1],
        [20.3, 15.8, 4.4, 3.1],
        [2.0, 3.0, 16.0, 17.0],
        [0.0, 0.0, width, height],
        [-1e9, -1e9, 1e9, 1e9],
        [-1e5, 2.0, 9.5, 1e5],
        [1e30, 1e30, 2e30, 2e30],
    ]
    return np.array([inside, *moved, *odd])


@pytest.mark.promise("textbook", "paste_masks")
@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("rule", RULES)
def test_goldens(case, rule):
    masks, boxes, shape, expected = (
        GOLDENS[f"{case}.{name}"] for name in ("masks", "boxes", "image_shape", rule)
    )
    result = paste_masks(masks, boxes, tuple(shape), rule=rule)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)


@pytest.mark.promise("textbook", "paste_masks")
@pytest.mark.parametrize(
    ("rule", "padding"), [("torchvision", 1), ("torchvision", 0), ("torchvision", 3), RULES[::-1]]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", *NARROW])
def test_against_the_textbook(rule, padding, dtype):
    padding = padding if rule == "torchvision" else 1
    boxes = boxes_of_all_kinds()
    if dtype != "float64":
        boxes = boxes.astype(np.float32)
    masks = some_masks(len(boxes), dtype=dtype)
    result = paste_masks(masks, boxes, IMAGE, rule=rule, padding=padding)
    expected = textbook(masks, boxes, IMAGE, rule, padding, boxes.dtype)
    assert result.dtype == (np.float32 if dtype in BYTES else masks.dtype)
    tolerance = TOLERANCE.get(dtype, 255 * 2e-6)
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=0, atol=tolerance)
    assert (expected != 0).any(axis=(1, 2, 3)).sum() > 10


@pytest.mark.parametrize("side", [1, 2, 28])
@pytest.mark.parametrize("rule", RULES)
def test_sides_of_masks(side, rule):
    boxes = boxes_of_all_kinds()
    masks = some_masks(len(boxes), side)
    expected = textbook(masks, boxes, IMAGE, rule)
    np.testing.assert_allclose(paste_masks(masks, boxes, IMAGE, rule=rule), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("threshold", [0.5, 0.1, 1e-300, 0, -0.25, 1e300, np.float32(0.3)])
def test_threshold_compares_values(rule, dtype, threshold):
    boxes = boxes_of_all_kinds()
    masks = some_masks(len(boxes), dtype=dtype)
    values = paste_masks(masks, boxes, IMAGE, rule=rule)
    with np.errstate(over="ignore", under="ignore"):
        expected = values >= values.dtype.type(threshold)
    out = np.random.default_rng(0).integers(0, 2, values.shape).astype(bool)
    for result in (
        paste_masks(masks, boxes, IMAGE, rule=rule, threshold=threshold),
        paste_masks(masks, boxes, IMAGE, rule=rule, threshold=threshold, out=out),
    ):
        assert result.dtype == bool
        np.testing.assert_array_equal(result, expected)
        assert set(np.unique(result.view(np.uint8))) <= {0, 1}
    assert result is out


def test_values_meet_the_threshold_exactly():
    """A threshold of float64 is rounded to the type of the values, as NumPy and PyTorch do."""
    mask = np.full((1, 1, 4, 4), 0.1, np.float32)
    assert paste_masks(mask, [[1, 1, 9, 9]], (12, 12), threshold=0.1).sum() > 40


@pytest.mark.promise("same_bits", "paste_masks")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64", *NARROW])
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_bits(rule, dtype, threshold):
    """The same for every number of threads, alone as in company, into new memory as into old."""
    boxes = np.tile(boxes_of_all_kinds(), (4, 1))
    masks = some_masks(len(boxes), dtype=dtype)
    settings = {"rule": rule, "threshold": threshold}
    expected = paste_masks(masks, boxes, IMAGE, num_threads=1, **settings)
    for threads in (2, 3, 8):
        with num_threads(threads):
            assert paste_masks(masks, boxes, IMAGE, **settings).tobytes() == expected.tobytes()
    alone = [paste_masks(masks[i : i + 1], boxes[i : i + 1], IMAGE, **settings) for i in range(len(boxes))]
    assert np.concatenate(alone).tobytes() == expected.tobytes()
    out = np.full(expected.shape, 1, expected.dtype)
    assert paste_masks(masks, boxes, IMAGE, out=out, **settings) is out
    assert out.tobytes() == expected.tobytes()


@pytest.mark.promise("locality", "paste_masks")
@pytest.mark.parametrize("rule", RULES)
def test_locality(rule):
    """What is not finite reaches the pixels that it is one of four neighbours of, and no other mask."""
    boxes = np.array([[2.2, 3.1, 24.9, 19.5], [2.2, 3.1, 24.9, 19.5]])
    masks = some_masks(2)
    clean = paste_masks(masks, boxes, IMAGE, rule=rule)
    masks[0, 0, 3, 5] = np.nan
    spoiled = paste_masks(masks, boxes, IMAGE, rule=rule)
    weight = np.zeros_like(masks)
    weight[0, 0, 3, 5] = 1
    reached = paste_masks(weight, boxes, IMAGE, rule=rule) != 0
    np.testing.assert_array_equal(np.isnan(spoiled), reached)
    np.testing.assert_array_equal(spoiled[~reached], clean[~reached])
    assert reached.any()
    bits = paste_masks(masks, boxes, IMAGE, rule=rule, threshold=-5)
    np.testing.assert_array_equal(bits, ~reached)


@pytest.mark.promise("bounded_work", "paste_masks")
@pytest.mark.parametrize("rule", RULES)
def test_work_is_bounded_by_the_image(rule):
    """Boxes that a table of their pixels would need terabytes for."""
    boxes = np.array([[-1e12, -1e12, 1e12, 1e12], [0, -1e300, 5, 1e300], [-1e15, 0, -1e14, 9]])
    result = paste_masks(np.ones((3, 1, 28, 28)), boxes, (9, 11), rule=rule)
    assert (result[0] == 1).all()
    assert result[1, 0].any()
    assert not result[2].any()


@pytest.mark.promise("bounded_work", "paste_masks")
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kibibytes there")
def test_memory_with_a_threshold():
    """A result of 300 MB, of which few pages are written, and no image of floats."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    boxes = np.array([[10, 10, 400, 30]] * 30, np.float32)
    result = paste_masks(some_masks(30, 28, "float32"), boxes, (2500, 4000), threshold=0.5)
    assert result.nbytes == 30 * 2500 * 4000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < result.nbytes / 1024


@pytest.mark.promise("box_formats", "paste_masks")
@pytest.mark.promise("memory", "paste_masks")
def test_what_arrays_may_be():
    masks, boxes = some_masks(4), boxes_of_all_kinds()[:4]
    expected = paste_masks(masks, boxes, IMAGE)
    strided = np.repeat(np.repeat(masks, 2, axis=0), 2, axis=3)[::2, :, :, ::2]
    swapped = masks.astype(">f8")
    unaligned = np.frombuffer(b"\0" + masks.tobytes(), np.uint8)[1:].view("f8").reshape(masks.shape)
    read_only = masks.copy()
    read_only.flags.writeable = False
    for given in (strided, swapped, unaligned, read_only):
        assert paste_masks(given, boxes, IMAGE).tobytes() == expected.tobytes()
    for given in (boxes.tolist(), np.asfortranarray(boxes), boxes.astype(">f8")):
        assert paste_masks(masks, given, IMAGE).tobytes() == expected.tobytes()
    whole = np.int64([[1, 2, 12, 13]])
    assert (
        paste_masks(masks[:1], whole, list(IMAGE)) == paste_masks(masks[:1], whole.astype(float), IMAGE)
    ).all()
    odd = np.empty(expected.nbytes + 1, np.uint8)[1:].view("f8").reshape(expected.shape)
    assert paste_masks(masks, boxes, IMAGE, out=odd) is odd
    np.testing.assert_array_equal(odd, expected)


@pytest.mark.promise("defined_results", "paste_masks")
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_empty(threshold):
    nothing = np.empty((0, 1, 28, 28), np.float32)
    for boxes in (np.empty((0, 4)), [], np.empty(0)):
        assert paste_masks(nothing, boxes, IMAGE, threshold=threshold).shape == (0, 1, *IMAGE)
    assert paste_masks(np.empty((0, 1, 0, 0)), [], IMAGE, threshold=threshold).shape == (0, 1, *IMAGE)
    one, box = some_masks(1), [[0, 0, 5, 5]]
    assert paste_masks(one, box, (0, 7), threshold=threshold).shape == (1, 1, 0, 7)
    assert paste_masks(one, box, (7, 0), threshold=threshold).shape == (1, 1, 7, 0)


MASKS, BOXES = some_masks(3), boxes_of_all_kinds()[:3]
LARGE = np.array([[0, 0, 5, 5], [-3e38, 0, 3e38, 5], [0, np.nan, 5, 5]], np.float32)


@pytest.mark.promise("refusals", "paste_masks")
@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "masks must have dtype float32, .* got int64", {"masks": np.ones((3, 1, 4, 4), int)}),
        (TypeError, "masks must have dtype .* got bool", {"masks": np.ones((3, 1, 4, 4), bool)}),
        (ValueError, r"masks must have 4 axes, got shape \(3, 4, 4\)", {"masks": np.ones((3, 4, 4))}),
        (ValueError, r"shape \(N, 1, M, M\), got \(3, 1, 4, 5\)", {"masks": np.ones((3, 1, 4, 5))}),
        (ValueError, r"shape \(N, 1, M, M\), got \(3, 2, 4, 4\)", {"masks": np.ones((3, 2, 4, 4))}),
        (ValueError, r"shape \(N, 1, M, M\), got \(3, 1, 0, 0\)", {"masks": np.ones((3, 1, 0, 0))}),
        (ValueError, r"boxes must have shape \(K, 4\), got \(3, 5\)", {"boxes": np.ones((3, 5))}),
        (ValueError, r"one row for each mask: masks has .* boxes \(2, 4\)", {"boxes": BOXES[:2]}),
        (TypeError, "boxes must have a float or integer dtype, got complex128", {"boxes": BOXES * 1j}),
        (ValueError, r"boxes\[1\] must have sides", {"boxes": LARGE, "masks": np.float32(MASKS)}),
        (ValueError, r"boxes\[2\] must be finite, got .* = \(0.0, nan, 5.0, 5.0\)", {"boxes": LARGE}),
        (ValueError, r"boxes\[0\] must be finite", {"boxes": [[np.inf] * 4] * 3}),
        (TypeError, "image_shape must be two whole numbers", {"image_shape": 7}),
        (TypeError, "image_shape must be two whole numbers", {"image_shape": (7.5, 8)}),
        (ValueError, "image_shape must be two whole numbers", {"image_shape": (7, 8, 3)}),
        (ValueError, "image_shape must be two whole numbers, each 0 or more", {"image_shape": (7, -1)}),
        (ValueError, "rule must be one of 'torchvision', 'detectron2', got 'mmdet'", {"rule": "mmdet"}),
        (TypeError, "rule must be a str", {"rule": 1}),
        (ValueError, "padding must be a whole number, 0 or more, got -1", {"padding": -1}),
        (TypeError, "padding must be a whole number, got float 1.5", {"padding": 1.5}),
        (ValueError, "padding must be a whole number", {"padding": -1, "rule": "detectron2"}),
        (TypeError, "threshold must be a number, got str '0.5'", {"threshold": "0.5"}),
        (TypeError, "threshold must be a number, got bool True", {"threshold": True}),
        (ValueError, "threshold must be finite, got float nan", {"threshold": np.nan}),
        (ValueError, "threshold must be finite", {"threshold": 10**400}),
        (ValueError, "num_threads must be at least 1, got 0", {"num_threads": 0}),
        (TypeError, "out must have dtype float64, got float32", {"out": np.ones((3, 1, *IMAGE), np.float32)}),
        (TypeError, "out must have dtype bool", {"out": np.ones((3, 1, *IMAGE)), "threshold": 0}),
        (ValueError, r"out must have shape \(3, 1, 23, 31\)", {"out": np.ones((3, *IMAGE))}),
        (ValueError, "out must be C-contiguous", {"out": np.ones((3, 1, 31, 23)).transpose(0, 1, 3, 2)}),
    ],
)  # fmt: skip
def test_refusals(error, words, arguments):
    given = {"masks": MASKS, "boxes": BOXES, "image_shape": IMAGE, **arguments}
    out = given.setdefault("out", np.ones((3, 1, *IMAGE), given["masks"].dtype))
    with pytest.raises(error, match=words):
        paste_masks(**given)
    assert (out == 1).all()


@pytest.mark.promise("refusals", "paste_masks")
def test_out_that_shares_memory():
    masks = np.ones((2, 1, 3, 3))
    with pytest.raises(ValueError, match="out must not share memory with an input"):
        paste_masks(masks, [[0, 0, 1, 1]] * 2, (3, 3), out=masks)

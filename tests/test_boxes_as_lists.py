"""Boxes written as lists: images without boxes, rows of numbers, and what neither of them can be."""

import json

import numpy as np
import pytest

from cyroialign import (
    MultiScaleRoIAlign,
    RoIAlign,
    assign_levels,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_align_backward,
    roi_align_boxes_backward,
    roi_pool,
    roi_pool_backward,
    why_zero,
)

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((3, 8, 12, 17)).astype(np.float32)
ROWS = [[0.3, 1.7, 9.1, 8.2], [2, 2, 120, 6.5], [4.1, 0, 16, 11]]  # of image 1, images 0 and 2 have none
BY_INDEX = np.array([[1, *row] for row in ROWS])
SHAPES = [(12, 17)] * 3
POOL = MultiScaleRoIAlign(["0"], 2, 2)


WITHOUT_BOXES = (
    [],
    (),
    *(np.array([], dtype) for dtype in ("f4", "f8", "i8", "O")),
    memoryview(np.array([])),
)


@pytest.mark.parametrize("none", WITHOUT_BOXES)
@pytest.mark.parametrize("dtype", ["list", "float16", "float32", "float64", "int8", "uint16", "int64"])
def test_images_without_boxes(none, dtype):
    """They change neither the crops of the other images nor the type that those are computed in."""
    rows, indexed = ROWS, BY_INDEX
    if dtype != "list":
        rows, indexed = np.array(ROWS).astype(dtype), BY_INDEX.astype(dtype)
    boxes = [none, rows, none]
    expected = roi_align(MAPS, indexed, 3, 0.37)
    assert roi_align(MAPS, boxes, 3, 0.37).tobytes() == expected.tobytes()
    gradient = roi_align_backward(expected, boxes, MAPS.shape, 0.37)
    assert gradient.tobytes() == roi_align_backward(expected, indexed, MAPS.shape, 0.37).tobytes()


OPERATORS = {
    "roi_align": lambda boxes: roi_align(MAPS, boxes, 2),
    "max": lambda boxes: roi_align(MAPS, boxes, 2, mode="max"),
    "RoIAlign": lambda boxes: RoIAlign(2)(MAPS, boxes),
    "roi_align_boxes_backward": lambda boxes: roi_align_boxes_backward(
        np.ones((3, 8, 2, 2), np.float32), MAPS, boxes
    ),
    "roi_pool": lambda boxes: roi_pool(MAPS, boxes, 2),
    "roi_pool_backward": lambda boxes: roi_pool_backward(np.ones((3, 8, 2, 2), np.float32), MAPS, boxes, 2),
    "ps_roi_align": lambda boxes: ps_roi_align(MAPS, boxes, 2),
    "ps_roi_pool": lambda boxes: ps_roi_pool(MAPS, boxes, 2),
    "why_zero": lambda boxes: why_zero(MAPS, boxes).share_outside,
}
BY_IMAGE = {
    "MultiScaleRoIAlign": lambda boxes: POOL({"0": MAPS}, boxes, SHAPES),
    "backward": lambda boxes: POOL.backward(np.ones((3, 8, 2, 2), np.float32), {"0": MAPS}, boxes, SHAPES)[
        "0"
    ],
    "assign_levels": lambda boxes: assign_levels(boxes, 2, 5, canonical_scale=4),
}


@pytest.mark.parametrize("name", [*OPERATORS, *BY_IMAGE])
@pytest.mark.parametrize("none", [[], np.array([])], ids=repr)
def test_wherever_boxes_are_taken(name, none):
    call = (OPERATORS | BY_IMAGE)[name]
    expected = call([np.empty((0, 4)), np.array(ROWS), np.empty((0, 4))])
    assert call([none, ROWS, none]).tobytes() == expected.tobytes()
    assert call((none, tuple(map(tuple, ROWS)), none)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_as_lists(name):
    """A row of numbers cannot be the boxes of an image, so they are rows of one array."""
    expected = OPERATORS[name](BY_INDEX).tobytes()
    assert OPERATORS[name](BY_INDEX.tolist()).tobytes() == expected
    assert OPERATORS[name](tuple(map(tuple, BY_INDEX.tolist()))).tobytes() == expected


def test_as_json():
    boxes = json.loads(json.dumps({"of images": [[], ROWS, []], "rows": BY_INDEX.tolist()}))
    expected = roi_align(MAPS, BY_INDEX, 2).tobytes()
    assert roi_align(MAPS, boxes["of images"], 2).tobytes() == expected
    assert roi_align(MAPS, boxes["rows"], 2).tobytes() == expected
    assert roi_align(MAPS, ROWS, 2, batch_indices=[1, 1, 1]).tobytes() == expected


def test_rows_of_levels():
    expected = assign_levels(np.array(ROWS), 2, 5, canonical_scale=4).tolist()
    for rows in (ROWS, BY_INDEX.tolist(), tuple(map(tuple, ROWS))):
        assert assign_levels(rows, 2, 5, canonical_scale=4).tolist() == expected


def test_rows_that_are_arrays():
    """Other libraries' too, read as they are anywhere else."""
    rows = [np.array(row) for row in ROWS]
    expected = roi_align(MAPS, BY_INDEX, 2).tobytes()
    assert roi_align(MAPS, [[], rows, []], 2).tobytes() == expected
    assert roi_align(MAPS, [[], list(map(memoryview, rows)), []], 2).tobytes() == expected
    with pytest.raises(TypeError, match=r"^boxes\[1\]\[2\] is a masked array"):
        roi_align(MAPS, [[], [*rows[:2], np.ma.array(rows[2])], []], 2)


def test_no_boxes_at_all():
    nothing = (0, 8, 2, 2)
    assert roi_align(MAPS, [[], [], []], 2).shape == nothing
    assert roi_align(MAPS, np.array([]), 2).shape == nothing
    assert roi_align(MAPS, np.array([]), 2, batch_indices=np.array([])).shape == nothing
    assert roi_align(MAPS, [], 2, batch_indices=[]).shape == nothing
    assert roi_align(MAPS, np.empty((0, 4)), 2, batch_indices=[]).shape == nothing
    assert roi_align(MAPS[:0], [], 2).shape == nothing
    assert roi_align(MAPS[:0], np.array([]), 2).shape == nothing
    assert POOL({"0": MAPS}, [[], np.array([]), ()], SHAPES).shape == nothing
    assert POOL({"0": MAPS[:0]}, [], []).shape == nothing
    empty = np.empty(nothing, np.float32)
    assert not roi_align_backward(empty, [[], [], []], MAPS.shape).any()
    assert not POOL.backward(empty, {"0": MAPS}, [[], [], []], SHAPES)["0"].any()
    for boxes in ([], [[]], [[], np.array([])], np.array([])):
        assert assign_levels(boxes, 2, 5).shape == (0,)
    assert why_zero(MAPS, [[], [], []]).causes == ()


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        ([], ValueError, r"one array per image, 3 for this input, got 0"),
        ([[], []], ValueError, r"one array per image, 3 for this input, got 2"),
        (
            [ROWS[0], ROWS[1], ROWS[2]],
            ValueError,
            r"^boxes must have shape \(K, 5\), got \(3, 4\).*a list of",
        ),
        ([[], ROWS[0], []], ValueError, r"^boxes\[1\] must have shape \(L, 4\), got \(4,\)"),
        ([[], [[]], []], ValueError, r"^boxes\[1\] must have shape \(L, 4\), got \(1, 0\)"),
        ([[], np.empty((0, 5)), []], ValueError, r"^boxes\[1\] must have shape \(L, 4\), got \(0, 5\)"),
        (
            [[], [[1, 2, 3, 4], [1, 2, 3]], []],
            ValueError,
            r"^boxes\[1\].*\[0\] has 4 numbers, boxes\[1\]\[1\] has 3",
        ),
        ([[1, 2, 3, 4, 5], [1, 2]], ValueError, r"^boxes must have rows of one length.*boxes\[1\] has 2$"),
        ([[], [[1, 2, "3", 4]], []], TypeError, r"boxes\[1\]\[0\]\[2\] is str '3'"),
        ([[], ["1234"], []], TypeError, r"^boxes\[1\]\[0\] must be .*got str '1234'"),
        ([[], [[1, 2, None, 4]], []], TypeError, r"boxes\[1\]\[0\]\[2\] is NoneType None"),
        ([[], [None], []], TypeError, r"^boxes\[1\]\[0\] must be .*got NoneType None"),
        ([[], None, []], TypeError, r"^boxes\[1\] must be .*got NoneType None"),
        ([[], {"boxes": ROWS}, []], TypeError, r"^boxes\[1\] must be .*got dict.*give one of its values"),
        ([[], [[1, 2, [3], 4]], []], TypeError, r"^boxes\[1\] must hold rows of numbers"),
        (
            [[], [[True, False, True, True]], []],
            TypeError,
            r"^boxes\[1\] must have a float or integer.*got bool",
        ),
        ([[], [[1j, 0, 1, 1]], []], TypeError, r"boxes\[1\]\[0\]\[0\] is complex 1j"),
        ([[], [[10**30, 0, 1, 1]], []], TypeError, r"^boxes\[1\] must have a float or integer.*got object"),
        (
            [[0, 1, 1, 5, 5], [3, 1, 1, 5, 5]],
            ValueError,
            r"^boxes\[1\] has batch_index 3, but input has 3 images",
        ),
        ([[], [*ROWS, [0, 0, np.nan, 1]], []], ValueError, r"^boxes\[1\]\[3\] must be finite"),
        (np.array([[], ROWS, []], object), TypeError, r"got object; give the arrays of all images as a list"),
    ],
)
def test_what_lists_cannot_be(boxes, error, message):
    with pytest.raises(error, match=message):
        roi_align(MAPS, boxes, 2)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, r"^batch_indices must have shape \(3,\).*got \(0,\)"),
        ([1, None, 1], TypeError, r"^batch_indices\[1\] must be .*got NoneType None"),
        ([[1], [1, 1], [1]], ValueError, r"^batch_indices must have rows of one length"),
        (["1", "1", "1"], TypeError, r"^batch_indices\[0\] must be .*got str '1'"),
    ],
)
def test_what_batch_indices_cannot_be(indices, error, message):
    with pytest.raises(error, match=message):
        roi_align(MAPS, ROWS, 2, batch_indices=indices)


def test_rows_of_several_images_with_batch_indices():
    with pytest.raises(ValueError, match="one array per image already: omit batch_indices"):
        roi_align(MAPS, [[], ROWS, []], 2, batch_indices=[1, 1, 1])


def test_tensors_without_boxes():
    torch = pytest.importorskip("torch")
    none, rows = torch.tensor([]), torch.tensor(ROWS)
    expected = roi_align(MAPS, BY_INDEX.astype(np.float32), 2, 0.37).tobytes()
    assert roi_align(MAPS, [none, rows, none], 2, 0.37).tobytes() == expected
    assert roi_align(MAPS, [none, list(rows), none], 2, 0.37).tobytes() == expected
    assert roi_align(MAPS, [none, list(torch._neg_view(-rows)), none], 2, 0.37).tobytes() == expected

"""The level rule: torchvision's results level by level, its definition, odd boxes, scales, refusals."""

import json
import math
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyroialign import assign_levels, roi_align
from cyroialign.pyramid.multiscale import infer_scales, level_range

GOLDENS = np.load(pathlib.Path(__file__).parent / "data" / "torchvision_multiscale.npz")
CASES = json.loads(str(GOLDENS["cases"]))
INF, NAN = math.inf, math.nan


def squares(*sides, dtype=np.float32):
    return np.array([[0, 0, side, side] for side in sides], dtype).reshape(-1, 4)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_equals_torchvision(case):
    """Each box, pooled from the level it is assigned with the inferred scale, is what torchvision pools."""
    settings = CASES[case]
    maps = [GOLDENS[f"{case:03}/feature_{name}"] for name in settings["featmap_names"]]
    boxes = [GOLDENS[f"{case:03}/boxes_{image}"] for image in range(len(maps[0]))]
    scales = infer_scales([array.shape[2:] for array in maps], settings["image_shapes"])
    canonical = {name: settings[name] for name in ("canonical_scale", "canonical_level")}
    levels = assign_levels(boxes, *level_range(scales), **canonical)
    by_level = [
        roi_align(array, boxes, settings["output_size"], scale, settings["sampling_ratio"])
        for array, scale in zip(maps, scales, strict=True)
    ]
    expected = GOLDENS[f"{case:03}/output"]
    for box, level in enumerate(levels):
        np.testing.assert_allclose(by_level[level][box], expected[box], rtol=0, atol=4e-6)
        for other in set(range(len(maps))) - {int(level)}:  # so it is that level and no other
            assert np.abs(by_level[other][box] - expected[box]).max() > 1e-3


@given(
    sides=st.lists(st.tuples(st.floats(0.125, 1e4, width=32), st.floats(0.125, 1e4, width=32)), min_size=1),
    low=st.integers(-3, 5),
    extra=st.integers(0, 6),
    canonical_scale=st.sampled_from([224, 56, 100.5]),
    canonical_level=st.integers(-2, 6),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_definition(sides, low, extra, canonical_scale, canonical_level, dtype):
    """In exact terms, but for boxes so near a border of two levels that rounding decides."""
    boxes = np.array([[1, 2, 1 + width, 2 + height] for width, height in sides], dtype)
    canonical = {"canonical_scale": canonical_scale, "canonical_level": canonical_level}
    levels = assign_levels(boxes, low, low + extra, **canonical)
    assert (levels.dtype, levels.shape) == (np.int64, (len(sides),))
    for box, level in zip(boxes.astype(float), levels, strict=True):
        side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        exact = canonical_level + math.log2(side / canonical_scale)
        near = [math.floor(exact + nudge) for nudge in (-1e-6, 1e-6, 3e-6)]
        assert level + low in np.clip(near, low, low + extra)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", "int16", "int64", "uint16"])
def test_borders(dtype):
    """A square of just the canonical side belongs to the canonical level, one a pixel less does not."""
    boxes = squares(27, 28, 55, 56, 111, 112, 223, 224, 447, 448, 895, 896, 1000, dtype=dtype)
    assert assign_levels(boxes, 2, 5).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert assign_levels(boxes, 0, 9).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


@pytest.mark.parametrize(("dtype", "short"), [("float32", 2e-6), ("float64", 1e-6)])
def test_epsilon(dtype, short):
    """A box just short of a border belongs above it, by the same 1e-6 of a level as in torchvision."""
    sides = 224 * 2.0 ** np.array([-short * 3, -short * 0.4, 0])
    boxes = np.array([[0, 0, side, side] for side in sides], dtype)
    assert assign_levels(boxes, 2, 5).tolist() == [1, 2, 2]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", "int32", "int64"])
def test_arithmetic(dtype):
    """Far from level 0, float32 rounds what float64 tells apart: a square of 2047 and its level of 2048."""
    levels = assign_levels(squares(2047, dtype=dtype), 98, 10**6, canonical_scale=2048, canonical_level=10**5)
    assert levels + 98 == (10**5 - 1 if dtype in ("float64", "longdouble") else 10**5)


def test_formats():
    boxes = squares(60, 230, 460, 10)
    rows = np.hstack([[[7], [-1], [NAN], [0.5]], boxes])  # the first column is not looked at
    expected = [0, 2, 3, 0]
    for form in (
        boxes,
        rows,
        [boxes[:3], boxes[3:]],
        (boxes[:0], boxes),
        [boxes.tolist()],
        memoryview(boxes),
        boxes[::-1][::-1],
        boxes.astype(">f4"),
        boxes.astype(np.int32),
    ):
        assert assign_levels(form, 2, 5).tolist() == expected
    for none in (boxes[:0], rows[:0], [], [boxes[:0]] * 2):
        levels = assign_levels(none, 2, 5)
        assert (levels.dtype, levels.shape) == (np.int64, (0,))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize(
    ("box", "level"),
    [
        ([5, 5, 5, 5], 0),  # a point
        ([5, 5, 5, 900], 0),  # a line
        ([900, 0, 0, 900], 0),  # inverted on one axis
        ([0, 900, 900, 0], 0),
        ([900, 900, 0, 0], 3),  # inverted on both
        ([-450, -450, -1, -1], 3),
        ([-(2**31), -(2**31), 2**31 - 1, 2**31 - 1], 3),
    ],
)
def test_odd_boxes(box, level, dtype):
    assert assign_levels(np.array([box], dtype), 2, 5).tolist() == [level]


@pytest.mark.parametrize(
    ("dtype", "box", "level"),
    [
        ("float32", [-3e38, -3e38, 3e38, 3e38], 3),  # the area is infinite
        ("float32", [-3e38, 5, 3e38, 5], 0),  # infinity times zero
        ("float32", [0, 0, 1e-30, 1e-30], 0),  # the area underflows
        ("float64", [-1.7e308, -1.7e308, 1.7e308, 1.7e308], 3),
        ("float64", [0, 0, 5e-324, 5e-324], 0),
        ("int64", [-(2**63), -(2**63), 2**63 - 1, 2**63 - 1], 3),
        ("uint64", [2**64 - 1, 0, 0, 2**64 - 1], 0),
        ("uint8", [200, 0, 0, 200], 0),  # no wrap-around
    ],
)
def test_extreme_boxes(dtype, box, level):
    assert assign_levels(np.array([box], dtype), 2, 5).tolist() == [level]


@pytest.mark.parametrize(
    ("sizes", "shapes", "scales"),
    [
        ([(200, 272), (100, 136), (50, 68), (25, 34)], [(800, 1088)], [1 / 4, 1 / 8, 1 / 16, 1 / 32]),
        ([(200, 1), (100, 1)], [(500, 9), (800, 2), (799, 700)], [1 / 4, 1 / 8]),
        ([(1, 200), (1, 100)], [(9, 500), (2, 800), (700, 799)], [1 / 4, 1 / 8]),
        ([(8, 32), (4, 16)], [(14, 100)], [1 / 4, 1 / 8]),  # padded to 32 x 128
        ([(16, 176)], [(33, 700)], [1 / 4]),
        ([(8, 7)], [(32, 20), (20, 32)], [1 / 4]),  # as tall as wide: heights
        ([(19, 19), (10, 10), (5, 5)], [(150, 150)], [1 / 8, 1 / 16, 1 / 32]),
        ([(7, 7), (3, 3)], [(31, 31)], [1 / 4, 1 / 8]),
        ([(8, 8)], [(8, 8)], [1]),
        ([(16, 8)], [(8, 8)], [2]),
    ],
)
def test_infer_scales(sizes, shapes, scales):
    assert infer_scales(sizes, shapes) == scales


def test_level_range():
    assert level_range([1 / 4, 1 / 8, 1 / 16, 1 / 32]) == (2, 5)
    assert level_range([1]) == (0, 0)
    assert level_range([2, 1]) == (-1, 0)
    assert level_range([1 / 4, 1 / 8, 1 / 8]) == (2, 3)  # a small image: the last map is not used
    assert level_range([1 / 4, 1 / 8, 1 / 32]) == (2, 4)  # three maps have three levels
    with pytest.raises(ValueError, match="min_level must not exceed max_level, got 3 and 2"):
        level_range([1 / 8, 1 / 4])


BOXES = squares(60, 230, 460)


def with_value(value, dtype=np.float32):
    boxes = BOXES.astype(dtype)
    boxes[1, 2] = value
    return boxes


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"boxes": None}, TypeError, "boxes must be a NumPy array|None"),
        ({"boxes": BOXES > 0}, TypeError, "float or integer dtype, got bool"),
        ({"boxes": BOXES[0]}, ValueError, "(K, 4)|(4,)"),
        ({"boxes": np.ones((3, 6))}, ValueError, "(K, 4)|(3, 6)"),
        ({"boxes": [BOXES, BOXES[0]]}, ValueError, "boxes[1] must have shape (L, 4), got (4,)"),
        ({"boxes": [np.ones((3, 5))]}, ValueError, "boxes[0] must have shape (L, 4), got (3, 5)"),
        ({"boxes": with_value(NAN)}, ValueError, "boxes[1] must be finite|(0.0, 0.0, nan, 230.0)"),
        ({"boxes": with_value(-INF, np.float16)}, ValueError, "boxes[1] must be finite|-inf"),
        ({"boxes": [BOXES[:2], with_value(INF)]}, ValueError, "boxes[1][1] must be finite|inf"),
        ({"boxes": np.insert(with_value(NAN), 0, 0, 1)}, ValueError, "boxes[1] must be finite|nan"),
        ({"min_level": 6}, ValueError, "min_level must not exceed max_level, got 6 and 5"),
        ({"min_level": -(10**400)}, ValueError, "min_level"),
        ({"min_level": 2.0}, TypeError, "min_level must be a whole number, got float 2.0"),
        ({"max_level": None}, TypeError, "max_level must be a whole number"),
        ({"canonical_scale": 0}, ValueError, "canonical_scale must be greater than 0 and finite"),
        ({"canonical_scale": 1e-60}, ValueError, "canonical_scale must be greater than 0"),
        ({"canonical_scale": "224"}, TypeError, "canonical_scale must be a number, got str '224'"),
        ({"canonical_level": 4.5}, TypeError, "canonical_level must be a whole number, got float 4.5"),
        ({"canonical_level": 10**400}, ValueError, "canonical_level"),
    ],
)
def test_refused(arguments, error, parts):
    with pytest.raises(error) as caught:
        assign_levels(**{"boxes": BOXES, "min_level": 2, "max_level": 5, **arguments})
    assert all(words in str(caught.value) for words in parts.split("|")), caught.value


@pytest.mark.parametrize(
    ("sizes", "shapes", "error", "words"),
    [
        ([], [(8, 8)], ValueError, "feature_sizes must have at least one size, got 0"),
        ([(8, 8)], [], ValueError, "image_shapes must have at least one size, got 0"),
        ([(8, 0)], [(8, 8)], ValueError, r"feature_sizes\[0\] must be .height, width., each at least 1"),
        ([(8, 8)], [(8, 8), (8, 8, 3)], ValueError, r"image_shapes\[1\]"),
        ([(8, 8)], [(8.0, 8)], TypeError, r"image_shapes\[0\]"),
        (8, [(8, 8)], TypeError, "feature_sizes must be a sequence"),
    ],
)
def test_refused_sizes(sizes, shapes, error, words):
    with pytest.raises(error, match=words):
        infer_scales(sizes, shapes)

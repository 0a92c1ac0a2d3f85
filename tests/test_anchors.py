"""AnchorGenerator equals torchvision's and its definition, anchor after anchor; refusals."""

import json
import math
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyroialign import AnchorGenerator

GOLDEN = np.load(pathlib.Path(__file__).parent / "data" / "torchvision_anchors.npz")


def reference(sizes, aspect_ratios, image_size, grid_size):
    """The anchors of one level in plain Python; sizes and ratios are such that rounding is no question."""
    rows, columns = grid_size
    down, right = image_size[0] // rows, image_size[1] // columns
    anchors = []
    for row in range(rows):
        for column in range(columns):
            for ratio in aspect_ratios:
                for size in sizes:
                    height, width = size * math.sqrt(ratio), size / math.sqrt(ratio)
                    x, y = column * right, row * down
                    half = [round(-width / 2), round(-height / 2), round(width / 2), round(height / 2)]
                    anchors.append([x + half[0], y + half[1], x + half[2], y + half[3]])
    return anchors


def test_equals_torchvision():
    generator = AnchorGenerator(*(json.loads(str(GOLDEN[name])) for name in ("sizes", "aspect_ratios")))
    levels = generator(GOLDEN["image_size"], GOLDEN["grid_sizes"])
    assert [len(level) for level in levels] == [13 * 17 * 3, 7 * 9 * 3, 4 * 5 * 6]
    assert generator.num_anchors_per_location() == [3, 3, 6]
    for level in levels:
        assert level.dtype == np.float32
        assert level.flags.c_contiguous
    np.testing.assert_array_equal(np.concatenate(levels), GOLDEN["anchors"])


side = st.integers(1, 12)


@given(
    levels=st.lists(
        st.tuples(
            st.lists(st.integers(1, 300).map(lambda n: n + 0.25), min_size=1, max_size=3),
            st.lists(st.sampled_from([0.25, 1.0, 4.0, 16.0]), min_size=1, max_size=3),
            st.tuples(side, side),
        ),
        min_size=1,
        max_size=3,
    ),
    image_size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
)
def test_equals_the_definition(levels, image_size):
    sizes, ratios, grids = zip(*levels, strict=True)
    for level, actual in zip(levels, AnchorGenerator(sizes, ratios)(image_size, grids), strict=True):
        expected = reference(level[0], level[1], image_size, level[2])
        np.testing.assert_array_equal(actual, np.array(expected, np.float32))


def test_halves_round_to_even():
    cell = AnchorGenerator(((5, 7),), ((1,),)).cell_anchors[0]
    assert cell.tolist() == [[-2, -2, 2, 2], [-4, -4, 4, 4]]


def test_flat_settings():
    """Flat sizes are one a level; flat aspect ratios serve every level."""
    generator = AnchorGenerator((32, 64), (0.5, 1, 2))
    assert generator.sizes == ((32.0,), (64.0,))
    assert generator.aspect_ratios == ((0.5, 1.0, 2.0),) * 2
    assert repr(generator) == repr(eval(repr(generator)))
    for size, cell in zip((32, 64), generator.cell_anchors, strict=True):
        np.testing.assert_array_equal(cell, AnchorGenerator(((size,),), ((0.5, 1, 2),)).cell_anchors[0])


def test_defaults_are_torchvisions():
    assert AnchorGenerator().num_anchors_per_location() == [9]


def test_grid_finer_than_the_image():
    (anchors,) = AnchorGenerator(((4,),), ((1,),))((2, 9), [(3, 3)])
    assert anchors.reshape(3, 3, 4)[:, :, 1].tolist() == [[-2] * 3] * 3  # a stride of 0
    assert anchors.reshape(3, 3, 4)[0, :, 0].tolist() == [-2, 1, 4]


@pytest.mark.parametrize(
    ("sizes", "ratios", "error", "words"),
    [
        ((), (1,), ValueError, "sizes must not be empty"),
        (((1,), ()), (1,), ValueError, r"sizes\[1\] must not be empty"),
        (32, (1,), TypeError, "sizes must be numbers, or a sequence of numbers for each level, got int 32"),
        ("32", (1,), TypeError, "sizes must be numbers"),
        ((32, "64"), (1,), TypeError, r"sizes\[1\] must be a number, got str '64'"),
        ((32, (64,)), (1,), TypeError, r"sizes\[1\] must be a number, got tuple"),
        ((("32",),), (1,), TypeError, r"sizes\[0\]\[0\] must be a number"),
        ((((32,),),), (1,), TypeError, r"sizes\[0\]\[0\] must be a number, got tuple"),
        (((32, 0),), (1,), ValueError, r"sizes\[0\]\[1\] must be greater than 0 and finite"),
        (((1e39,),), (1,), ValueError, r"sizes\[0\]\[0\]"),
        ((32,), (-1.0,), ValueError, r"aspect_ratios\[0\] must be greater than 0"),
        ((32,), ((1.0, math.nan),), ValueError, r"aspect_ratios\[0\]\[1\]"),
        ((32, 64), ((1.0,),), ValueError, "same number of levels, got 2 and 1"),
        ((3e38,), (1e-30,), ValueError, "beyond float32"),
    ],
)
def test_refused_settings(sizes, ratios, error, words):
    with pytest.raises(error, match=words):
        AnchorGenerator(sizes, ratios)


@pytest.mark.parametrize(
    ("image_size", "grid_sizes", "error", "words"),
    [
        (64, [(4, 4), (2, 2)], TypeError, "image_size must be .height, width. in whole numbers, got int 64"),
        ((64, 64.0), [(4, 4), (2, 2)], TypeError, "image_size must be"),
        ((64, 64, 3), [(4, 4), (2, 2)], ValueError, "image_size must be .height, width., each at least 1"),
        ((0, 64), [(4, 4), (2, 2)], ValueError, "image_size"),
        ((64, 64), [(4, 4)], ValueError, "grid_sizes must have one size a level, 2 here, got 1"),
        ((64, 64), [], ValueError, "grid_sizes must have one size a level, 2 here, got 0"),
        ((64, 64), 4, TypeError, "grid_sizes must be a sequence"),
        ((64, 64), [(4, 4), (2, 0)], ValueError, r"grid_sizes\[1\] must be"),
        ((64, 64), [4, 4], TypeError, r"grid_sizes\[0\] must be"),
    ],
)
def test_refused_call(image_size, grid_sizes, error, words):
    with pytest.raises(error, match=words):
        AnchorGenerator((32, 64), (1.0,))(image_size, grid_sizes)

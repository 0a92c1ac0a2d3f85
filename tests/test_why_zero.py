"""why_zero names the usual mistakes, and nothing where there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import positions, random_boxes

from cyroialign import roi_align, why_zero
from cyroialign.diagnosis import CAUSES

HEIGHT, WIDTH, SCALE = 50, 68, 1 / 16
MAPS = np.ones((2, 3, HEIGHT, WIDTH), np.float32)
IMAGE = np.array([[0, 300, 200, 1000, 700], [0, 100, 80, 400, 330], [1, 900, 500, 1080, 790]], float)
SHARES = IMAGE / [1, 1088, 800, 1088, 800]


def with_corners(corners):
    return np.hstack([IMAGE[:, :1], corners])


def causes(boxes, spatial_scale=SCALE, maps=MAPS, **settings):
    return why_zero(maps, boxes, spatial_scale, **settings).causes


def test_nothing_wrong():
    found = why_zero(MAPS, IMAGE, SCALE)
    assert found.causes == ("", "", "")
    assert found.spatial_scale is None
    assert not found.share_outside.any()
    assert str(found) == "3 boxes, 3 of them with nothing wrong"


def test_normalised():
    assert causes(SHARES) == ("normalised",) * 3
    assert causes(SHARES, 1.0) == ("normalised",) * 3
    assert causes(SHARES, 1.0, MAPS[:, :, :2, :2]) == ("",) * 3  # a map so small may have such boxes


def test_scale_left_out():
    found = why_zero(MAPS, IMAGE)
    assert found.causes == ("scale",) * 3
    assert found.spatial_scale == SCALE
    assert "0.0625 would fit" in str(found)
    assert causes(IMAGE, found.spatial_scale) == ("",) * 3


def test_scale_of_another_level():
    assert why_zero(MAPS, IMAGE, 1 / 4).spatial_scale == SCALE


def test_scaled_twice():
    assert causes(np.hstack([IMAGE[:, :1], IMAGE[:, 1:] * SCALE])) == ("feature coordinates",) * 3
    assert causes(np.hstack([IMAGE[:, :1], IMAGE[:, 1:] * SCALE])[:2]) == ("", "")  # too few to tell


def test_swapped():
    assert causes(IMAGE[:, [0, 2, 1, 4, 3]]) == ("swapped",) * 3


def test_width_and_height_given():
    sizes = IMAGE[:, 3:] - IMAGE[:, 1:3]
    assert causes(np.hstack([IMAGE[:, :3], sizes])) == ("x, y, w, h",) * 3


# What each form makes of x1, y1, x2, y2.
FORMS = {
    "x, y, w, h": lambda low, high: np.hstack([low, high - low]),
    "cx, cy, w, h": lambda low, high: np.hstack([(low + high) / 2, high - low]),
}
IMAGE_SIZE = np.array([1088.0, 800])


def rows(boxes):
    """Boxes of the first image."""
    return np.column_stack([np.zeros(len(boxes)), boxes])


def random_corners(seed, boxes=20):
    """Right boxes, of 8 pixels to all of the image."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, IMAGE_SIZE - 8, (boxes, 2))
    return low, rng.uniform(low + 8, IMAGE_SIZE)


@pytest.mark.parametrize("form", FORMS)
def test_sizes_in_place_of_corners(form):
    for seed in range(100):
        boxes = FORMS[form](*random_corners(seed))
        assert set(causes(rows(boxes))) == {form}
        assert set(causes(rows(boxes / np.tile(IMAGE_SIZE, 2)))) == {f"normalised {form}"}


@pytest.mark.parametrize("form", FORMS)
def test_sizes_of_predictions(form):
    """Some of which leave the image a little."""
    shares = FORMS[form](np.array([[-0.02, 0.01], [0.5, 0.7]]), np.array([[0.9, 0.4], [0.95, 1.03]]))
    assert causes(rows(shares)) == (f"normalised {form}",) * 2


def test_sizes_that_fit_both_forms():
    """Small boxes in the middle; what to do is said for either."""
    low, high = np.array([[600.0, 400], [500, 300]]), np.array([[680.0, 450], [560, 390]])
    for make in FORMS.values():
        found = why_zero(MAPS, rows(make(low, high)), SCALE)
        assert found.causes == ("w, h",) * 2
        assert "if x and y are a corner, or" in str(found)
        shares = make(low, high) / np.tile(IMAGE_SIZE, 2)
        assert causes(rows(shares)) == ("normalised w, h",) * 2


def test_what_each_cause_says_mends_it():
    low, high = random_corners(0)
    cx, cy, w, h = FORMS["cx, cy, w, h"](low, high).T
    for cause in ("cx, cy, w, h", "normalised cx, cy, w, h"):
        assert "cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2" in CAUSES[cause]
        assert ("multiply by the width and height of the image, then" in CAUSES[cause]) == ("norm" in cause)
    mended = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
    assert set(causes(rows(mended))) == {""}


@given(seed=st.integers(0, 2**32 - 1), boxes=st.integers(1, 20))
def test_right_boxes_have_nothing_wrong(seed, boxes):
    low, high = random_corners(seed, boxes)
    right = np.hstack([low, high])
    assert set(causes(rows(right))) == {""}
    over = right + np.hstack([low - high, high - low]) / 10  # as predictions may be
    assert set(causes(rows(over))) == {""}


def test_one_inverted_box_among_right_ones():
    right = np.hstack(random_corners(1))
    right[7, [0, 2]] = right[7, [2, 0]]
    assert causes(rows(right)) == ("",) * 7 + ("inverted",) + ("",) * 12


def test_negative_sizes_are_none():
    assert causes(rows([[0.5, 0.5, -0.05, 0.2], [0.1, 0.2, 0.3, 0.4]])) == ("normalised",) * 2
    assert causes(rows([[500, 500, -5, 200], [100, 200, 300, 400]])) == ("inverted", "")


def test_inverted():
    assert causes(IMAGE[:, [0, 3, 2, 1, 4]]) == ("inverted",) * 3


def test_empty():
    boxes = IMAGE.copy()
    boxes[1, 3] = boxes[1, 1]
    assert causes(boxes, aligned=True) == ("", "empty", "")
    assert causes(boxes, aligned=False) == ("", "", "")  # a pixel wide
    assert not roi_align(MAPS, boxes, 2, SCALE, aligned=True)[1].any()


def test_outside():
    boxes = IMAGE.copy()
    boxes[1, 1:] += 5000
    found = why_zero(MAPS, boxes, SCALE)
    assert found.causes == ("", "outside", "")
    assert found.share_outside.tolist() == [0, 1, 0]
    assert not roi_align(MAPS, boxes, 2, SCALE)[1].any()


def test_zero_input():
    maps = MAPS.copy()
    maps[0] = 0
    assert causes(IMAGE, maps=maps) == ("zero input", "zero input", "")
    found = why_zero(np.zeros_like(MAPS), IMAGE)  # also scaled wrongly, but that is not what is said
    assert (found.causes, found.spatial_scale) == (("zero input",) * 3, None)


def test_named_boxes_are_few():
    boxes = np.tile([0.0, 5000, 0, 5100, 40], (7, 1))
    boxes = np.vstack([boxes, np.tile(IMAGE, (3, 1))])
    text = str(why_zero(MAPS, boxes, SCALE))
    assert text.splitlines()[0] == "16 boxes, 9 of them with nothing wrong"
    assert "outside: 7 (0, 1, 2, 3, 4, ...): " in text


@pytest.mark.parametrize("aligned", [False, True])
@given(seed=st.integers(0, 2**32 - 1))
def test_share_outside(seed, aligned):
    """The share of the samples of a fine grid."""
    boxes = random_boxes(np.random.default_rng(seed), 5, (2, 3, 12, 17), 0.5)
    found = why_zero(MAPS[:, :, :12, :17], boxes, 0.5, aligned)
    for (_, x1, y1, x2, y2), share in zip(boxes, found.share_outside, strict=True):
        inside = 1.0
        for low, high, length in ((x1, x2, 17), (y1, y2, 12)):
            samples = np.array(positions(low, high, 1, 0.5, 2000, aligned, np.float64)[0])
            inside *= ((samples >= -1) & (samples <= length)).mean()
        assert share == pytest.approx(1 - inside, abs=3e-3)


def test_forms_of_a_call():
    lists = [IMAGE[:2, 1:], IMAGE[2:, 1:]]
    expected = why_zero(MAPS, IMAGE)
    for found in (
        why_zero(MAPS, lists),
        why_zero(MAPS, IMAGE[:, 1:], batch_indices=[0, 0, 1]),
        why_zero(MAPS.transpose(0, 2, 3, 1), IMAGE, layout="NHWC"),
    ):
        assert found.causes == expected.causes
        np.testing.assert_array_equal(found.share_outside, expected.share_outside)


@pytest.mark.parametrize("aligned", [False, True])
def test_no_boxes(aligned):
    for maps, boxes in ((MAPS, IMAGE[:0]), (MAPS[:0], []), (MAPS[:, :, :0], IMAGE[:0])):
        found = why_zero(maps, boxes, aligned=aligned)
        assert (found.share_outside.shape, found.causes) == ((0,), ())
        assert str(found).startswith("0 boxes")


@pytest.mark.parametrize("aligned", [False, True])
def test_huge_boxes(aligned):
    """Finite coordinates whose differences are not, before they are scaled."""
    boxes = np.array([[0, -1e308, -1e308, 1e308, 1e308], [0, 1e308, 0, -1e308, 9], [1, 3e307, 0, 1e308, 9]])
    found = why_zero(MAPS, boxes, SCALE, aligned)
    assert ((found.share_outside >= 0) & (found.share_outside <= 1)).all()
    assert found.share_outside[0] == found.share_outside[2] == 1
    assert found.causes[1] == "inverted"


def test_every_cause_is_explained():
    forms = {*FORMS, "w, h"}
    forms |= {"normalised"} | {f"normalised {form}" for form in forms}
    named = {"scale", "feature coordinates", "swapped", "inverted", "empty", "outside", "zero input"}
    assert {""} | forms | named == set(CAUSES)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"input": None}, TypeError, "input must be a NumPy array"),
        ({"boxes": IMAGE[:, 1:]}, ValueError, "batch_indices"),
        ({"boxes": IMAGE * np.nan}, ValueError, r"boxes\[0\]"),
        ({"spatial_scale": 0}, ValueError, "spatial_scale"),
        ({"aligned": "no"}, TypeError, "aligned"),
        ({"layout": "CHWN"}, ValueError, "layout"),
        ({"input": MAPS[:, :, :0]}, ValueError, "pixels"),
    ],
)
def test_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        why_zero(**{"input": MAPS, "boxes": IMAGE, **arguments})

"""A scale for each axis, in every operator, and the scales of a pyramid."""

import numpy as np
import pytest

import cyroialign as cy

RNG = np.random.default_rng(5)
BOXES = np.array([[0, 1.5, 2, 9, 7.25], [1, -4, 0.5, 30, 12], [1, 3, 3, 3, 5], [0, 40, 40, 50, 44]])
SCALES = (0.5, 2.0)  # powers of two: boxes may be scaled before the call, and no bit changes
SCALED = BOXES * [1, SCALES[1], SCALES[0], SCALES[1], SCALES[0]]
X = RNG.random((2, 12, 17, 23))
G, GROUPED = RNG.random((4, 12, 2, 3)), RNG.random((4, 2, 2, 3))
SHAPE = X.shape

CALLS = {
    "roi_align": lambda b, s: cy.roi_align(X, b, (2, 3), s, 2, True),
    "roi_align adaptive": lambda b, s: cy.roi_align(X, b, (2, 3), s),
    "roi_align max": lambda b, s: cy.roi_align(X, b, (2, 3), s, mode="max"),
    "roi_align onnx_max": lambda b, s: cy.roi_align(X, b, (2, 3), s, mode="onnx_max"),
    "roi_align_backward": lambda b, s: cy.roi_align_backward(G, b, SHAPE, s),
    "roi_align_backward max": lambda b, s: cy.roi_align_backward(G, b, SHAPE, s, mode="max", input=X),
    "roi_pool": lambda b, s: cy.roi_pool(X, b, (2, 3), s),
    "roi_pool_backward": lambda b, s: cy.roi_pool_backward(G, X, b, (2, 3), s),
    "ps_roi_align": lambda b, s: cy.ps_roi_align(X, b, (2, 3), s),
    "ps_roi_align_backward": lambda b, s: cy.ps_roi_align_backward(GROUPED, b, SHAPE, s),
    "ps_roi_pool": lambda b, s: cy.ps_roi_pool(X, b, (2, 3), s),
    "ps_roi_pool_backward": lambda b, s: cy.ps_roi_pool_backward(GROUPED, b, SHAPE, s),
    "RoIAlign": lambda b, s: cy.RoIAlign((2, 3), s)(X, b),
}


@pytest.mark.parametrize("name", CALLS)
def test_scale_of_each_axis(name):
    call = CALLS[name]
    assert call(BOXES, SCALES).tobytes() == call(SCALED, 1.0).tobytes()
    assert call(BOXES, SCALES).tobytes() != call(BOXES, SCALES[::-1]).tobytes()
    assert call(BOXES, np.float64(0.5)).tobytes() == call(BOXES, [0.5, 0.5]).tobytes()


def test_gradient_to_boxes_is_per_unit_of_the_boxes():
    got = cy.roi_align_boxes_backward(G, X, BOXES, SCALES, 2)
    expected = cy.roi_align_boxes_backward(G, X, SCALED, 1.0, 2) * [
        SCALES[1],
        SCALES[0],
        SCALES[1],
        SCALES[0],
    ]
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("scale", "error", "text"),
    [
        ((1.0, 0.0), ValueError, r"spatial_scale\[1\] must be greater than 0"),
        ((np.nan, 1.0), ValueError, r"spatial_scale\[0\] must be greater than 0"),
        ((1.0, "1"), TypeError, r"spatial_scale\[1\] must be a number"),
        ((1.0, 1.0, 1.0), ValueError, r"spatial_scale must be a number or two"),
        ("11", TypeError, "spatial_scale must be a number"),
    ],
)
def test_wrong_scales(scale, error, text):
    with pytest.raises(error, match=text):
        cy.roi_align(X, BOXES, 2, scale)
    with pytest.raises(error, match=text):
        cy.RoIAlign(2, scale)


def test_box_beyond_the_numbers_of_one_axis_alone():
    boxes = np.array([[0, 0, 1e30, 1, 2e30]], np.float32)
    cy.roi_align(X[:1].astype(np.float32), boxes, 2, (1.0, 1e38), 1)
    with pytest.raises(ValueError, match=r"boxes\[0\] is not finite on the feature map"):
        cy.roi_align(X[:1].astype(np.float32), boxes, 2, (1e38, 1.0), 1)


MAPS = {"p2": RNG.random((1, 3, 16, 176)), "p3": RNG.random((1, 3, 8, 88))}
WIDE = [np.array([[100.0, 4, 140, 30], [300, 0, 690, 33]])]


def test_low_wide_image():
    """33 x 700 pixels, padded to 64 x 704: the width tells the scales, the height would say 1/2 and 1/4."""
    pool = cy.MultiScaleRoIAlign(["p2", "p3"], 4, 2, canonical_scale=64, canonical_level=3)
    expected = [
        cy.roi_align(MAPS["p2"], [WIDE[0][:1]], 4, 1 / 4, 2),
        cy.roi_align(MAPS["p3"], [WIDE[0][1:]], 4, 1 / 8, 2),
    ]
    assert pool(MAPS, WIDE, [(33, 700)]).tobytes() == np.concatenate(expected).tobytes()


@pytest.mark.parametrize(
    "scales", [(1 / 4, 1 / 8), [(1 / 4, 1 / 5), (1 / 8, 1 / 10)], np.array([0.25, 0.125])]
)
def test_scales_that_are_given(scales):
    pool = cy.MultiScaleRoIAlign(
        ["p2", "p3"], 4, 2, spatial_scales=scales, canonical_scale=64, canonical_level=3
    )
    of_level = [tuple(one) if np.ndim(one) else float(one) for one in scales]
    expected = [
        cy.roi_align(MAPS[name], [WIDE[0][i : i + 1]], 4, of_level[i], 2) for i, name in enumerate(MAPS)
    ]
    crops = pool(MAPS, WIDE, [(9, 9)])  # which has no say
    assert crops.tobytes() == np.concatenate(expected).tobytes()
    gradients = pool.backward(crops, MAPS, WIDE, [(9, 9)])
    for i, name in enumerate(MAPS):
        one = cy.roi_align_backward(crops[i : i + 1], [WIDE[0][i : i + 1]], MAPS[name].shape, of_level[i], 2)
        assert gradients[name].tobytes() == one.tobytes()


@pytest.mark.parametrize(
    ("scales", "error", "text"),
    [
        ((1 / 4,), ValueError, "one scale per map, 2 here, got 1"),
        (1 / 4, TypeError, "spatial_scales must be a sequence"),
        ((1 / 8, 1 / 4), ValueError, "from the finest map to the coarsest"),
        ((1 / 4, (1 / 8, 0)), ValueError, r"spatial_scales\[1\]\[1\] must be greater than 0"),
    ],
)
def test_wrong_scales_of_a_pyramid(scales, error, text):
    with pytest.raises(error, match=text):
        cy.MultiScaleRoIAlign(["p2", "p3"], 4, 2, spatial_scales=scales)

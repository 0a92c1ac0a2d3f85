"""The recipe of docs/recipes/quantised.md, and what the page says of the maxima, against real maps."""

import doctest
import pathlib

import numpy as np
import pytest
import reference
import reference_maximum

import cyroialign as ca

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "recipes" / "quantised.md"
RNG = np.random.default_rng(0)
SHAPE, BINS = (2, 3, 13, 17), (3, 2)
Q = RNG.integers(0, 256, SHAPE, np.uint8)
BOXES = reference.random_boxes(RNG, 40, SHAPE, 0.5).astype(np.float32)
INSIDE = np.array([[0, 4, 4, 20, 18], [1, 3, 5, 30, 22]], np.float32)
PARAMETERS = [
    (0.05, 128),
    (0.01, 0),
    (0.5, 255),
    (np.array([0.05, 0.2, 1.0])[:, None, None], np.array([128, 7, 255])[:, None, None]),
]


@pytest.fixture(scope="module")
def pool_quantised():
    """Take it from the page, as a reader does."""
    [recipe] = [
        example.source
        for example in doctest.DocTestParser().get_examples(PAGE.read_text(encoding="utf-8"))
        if example.source.startswith("def pool_quantised")
    ]
    names = {"np": np, "roi_align": ca.roi_align}
    exec(recipe, names)
    return names["pool_quantised"]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize(("scale", "zero_point"), PARAMETERS)
def test_recipe(scale, zero_point, sampling_ratio, aligned, pool_quantised):
    settings = BINS, 0.5, sampling_ratio, aligned
    expected = reference.roi_align(scale * (Q - 1.0 * zero_point), BOXES, *settings, dtype=np.float32)
    crops = pool_quantised(Q, scale, zero_point, BOXES, *settings)
    steps = (crops - expected) / scale
    assert np.abs(steps).max() < 1e-4
    taken_as_it_is = scale * (ca.roi_align(Q, BOXES, *settings) - zero_point)
    assert np.array_equal(np.abs(taken_as_it_is - expected).max() < 0.01, np.all(zero_point == 0))


def test_recipe_keeps_float32(pool_quantised):
    assert pool_quantised(Q, 0.05, 128, BOXES, BINS).dtype == np.float32


@pytest.mark.parametrize("zero_point", [-3, 0, 127])
def test_signed_numbers(zero_point, pool_quantised):
    signed = RNG.integers(-128, 128, SHAPE, np.int8)
    crops = pool_quantised(signed, 0.05, zero_point, BOXES, BINS, 0.5, 2)
    expected = reference.roi_align(0.05 * (signed - 1.0 * zero_point), BOXES, BINS, 0.5, 2, dtype=np.float32)
    np.testing.assert_allclose(crops, expected, rtol=0, atol=2e-5)


def test_recipe_with_integrals(pool_quantised, monkeypatch):
    """The page says that it is the same."""
    monkeypatch.setitem(pool_quantised.__globals__, "roi_align", ca.prroi_pool)
    crops = pool_quantised(Q, 0.05, 128, BOXES, BINS, 0.5)
    expected = ca.prroi_pool(0.05 * (Q - 128.0), BOXES.astype(float), BINS, 0.5)
    np.testing.assert_allclose(crops, expected, rtol=0, atol=1e-4)


def difference(boxes, mode):
    settings = BINS, 0.5, 2, True
    real = 0.05 * (Q - 128.0)
    crops = 0.05 * (ca.roi_align(Q, boxes, *settings, mode=mode) - 128)
    expected = reference_maximum.roi_align(real, boxes, *settings, mode=mode)
    return np.abs(crops - expected).max(axis=(1, 2, 3))


def test_maxima():
    assert (difference(INSIDE, "max") < 1e-5).all()
    assert difference(BOXES, "max").max() > 1
    assert (difference(INSIDE, "onnx_max") > 1).all()

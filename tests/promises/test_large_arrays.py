"""Arrays of more than 2**31 elements are right at their ends. Memory that is only zeros is never touched."""

import numpy as np
import pytest
from operators import DIRECTIONS, LAYOUTS, Call

pytestmark = pytest.mark.heavy  # 9 GiB each, and at most twice that

COUNT, BINS = 2**15 + 5, (2**8, 2**8)  # RoIs and bins of more than 2**31 values
LONG, SHORT = 26760, 40  # pixels a side; three channels of the long one are more than 2**31 values
FEW = 3  # boxes that do not miss it
MISSING = [900.0, 900, 910, 910]  # a box that no operator finds pixels for
ARGUMENTS = {"clockwise": False, "spatial_scale": 1.0, "sampling_ratio": -1, "aligned": True}


def variants():
    """RoIAlign in both layouts; the others forward in one and backward in the other, as minutes add up."""
    for name, (operator, direction) in DIRECTIONS.items():
        one = operator.layouts[0 if direction == "forward" else -1]
        for layout in operator.layouts if name.startswith("roi_align-") else [one]:
            yield pytest.param(operator, direction, layout, id=f"{name}-{layout}")


VARIANTS = list(variants())


def in_memory_of(shape, layout):
    """Zeros of (N, C, H, W) that lie in memory as the layout has them, so that giving them copies nothing."""
    array = np.zeros([shape[axis] for axis in LAYOUTS[layout]], np.float32)
    return array.transpose(np.argsort(LAYOUTS[layout]))


def arguments_of(operator):
    """Settings; all boxes of a pyramid belong to its finest map."""
    arguments = {name: ARGUMENTS[name] for name in operator.settings}
    return arguments | ({"canonical_scale": 1e6} if operator.by_image else {})


def call_of(operator, maps, boxes, output_size, grad_output):
    if operator.columns == 6:  # the same boxes with an angle of 0
        index, x1, y1, x2, y2 = boxes.T
        sides = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        boxes = np.stack([index, *sides, np.zeros(len(boxes))], axis=1)
    return Call(tuple(maps), boxes, output_size, arguments_of(operator), grad_output)


def map_sizes(operator, side):
    return [one[0] for one in operator.map_sizes((side, side))]


@pytest.mark.parametrize(("operator", "direction", "layout"), VARIANTS)
def test_many_bins(operator, direction, layout):
    """The last boxes of very many, with what they give or are given: the others miss the map."""
    rng = np.random.default_rng(0)
    channels = BINS[0] * BINS[1] if operator.position_sensitive else 1
    maps = [rng.random((1, channels, side, side), np.float32) for side in map_sizes(operator, 5)]
    boxes = np.tile(np.array([0, *MISSING]), (COUNT, 1))
    boxes[-FEW:, 1:] = [[0, 0, 5, 4], [1, 1, 3.5, 3], [-1, 0.25, 9, 4]]
    if direction == "forward":
        grads = small = np.zeros((0, 1, *BINS), np.float32)
    else:
        grads = in_memory_of((COUNT, 1, *BINS), layout)
        grads[-FEW:] = rng.random((FEW, 1, *BINS), np.float32)
        small = grads[-FEW:].copy()
        assert grads.size > 2**31
    call = call_of(operator, maps, boxes, BINS, grads)
    few = call._replace(boxes=call.boxes[-FEW:], grad_output=small)
    expected = operator.run(direction, few, layout)
    for result, wanted in zip(operator.run(direction, call, layout), expected, strict=True):
        if direction == "forward":
            assert result.size > 2**31
        if direction != "backward":
            result = result[-FEW:]
        np.testing.assert_array_equal(result, wanted)
    assert expected[0].any()


@pytest.mark.parametrize(("operator", "direction", "layout"), VARIANTS)
def test_large_map(operator, direction, layout):
    """Boxes in the last corner; whole and half pixels, so that positions do not round."""
    rng = np.random.default_rng(0)
    output_size = (3, 1) if operator.position_sensitive else (4, 4)
    channels = 1 if operator.position_sensitive else 3
    boxes = np.array([[0.0, 2, 3, 37, 37.5], [0, 20, 20.5, 38, 38]])
    grads = rng.random((2, channels, *output_size), np.float32)
    small, large = [], []
    for number, sides in enumerate(zip(map_sizes(operator, SHORT), map_sizes(operator, LONG), strict=True)):
        corner, whole = (in_memory_of((1, 3, side, side), layout) for side in sides)
        if number == 0:
            corner[...] = rng.random(corner.shape, np.float32)
            whole[..., -SHORT:, -SHORT:] = corner
        small.append(corner)
        large.append(whole)
    assert large[0].size > 2**31
    moved = boxes + np.repeat([0, LONG - SHORT], [1, 4])
    expected = operator.run(direction, call_of(operator, small, boxes, output_size, grads), layout)
    results = operator.run(direction, call_of(operator, large, moved, output_size, grads), layout)
    assert expected[0].any()
    if direction == "backward":
        assert np.count_nonzero(results[0]) == np.count_nonzero(expected[0])
        results = (results[0][..., -SHORT:, -SHORT:],)
        expected = expected[:1]
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)

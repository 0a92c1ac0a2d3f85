"""No undefined result: empty arrays and odd boxes have the contract's value, or an error."""

import itertools
import re

import numpy as np
import pytest
from narrow import INSTALLED, result_of
from operators import FLOATS, assert_textbook, every_direction, every_layout, every_operator, in_layout

ARGUMENTS = {"spatial_scale": 1.0, "sampling_ratio": -1, "aligned": False}
ODD_BOXES = {  # x1, y1, x2, y2 on a map of 9 x 8 pixels
    "inverted": (7, 6, 2, 1),
    "inverted in x": (7, 1, 2, 6),
    "zero-size": (3, 4, 3, 4),
    "zero width": (3, 1, 3, 6),
    "nearly zero-size": (3, 4, 3 + 1e-6, 4 + 1e-6),
    "halves": (-0.5, 0.5, 2.5, 3.5),
    "above": (2, -30, 6, -20),
    "right": (30, 2, 40, 6),
    "on the rim": (-1, -1, -1, -1),
    "on the far rim": (9, 8, 9, 8),
    "just outside": (-6, -6, -1.001, -1.001),
    "last row and column": (4, 4, 8, 7),
    "around": (-20, -20, 30, 30),
}
EXTREMES = (0.0, 5e-324, 1e-40, 1e-30, 0.5, 8.999999, 2.0**24 + 1, 2.0**31, 2.0**53, 2.0**63, 1e30, 3.4e38)


def make(operator, shape=(1, 2, 8, 9), count=1, dtype="float64", boxes=None, bins=(3, 2), **arguments):
    arguments = {**ARGUMENTS, **arguments}
    return operator.make(np.random.default_rng(0), shape, count, bins, arguments, dtype, boxes)


@every_operator
@pytest.mark.parametrize("name", ODD_BOXES)
def test_odd_boxes(operator, name):
    boxes = np.array([[0, *ODD_BOXES[name]]])
    for ratio, aligned, dtype in itertools.product((-1, 1, 2), (False, True), FLOATS):
        call = make(operator, dtype=dtype, boxes=boxes.astype(dtype), sampling_ratio=ratio, aligned=aligned)
        for direction, layout in itertools.product(operator.directions, operator.layouts):
            assert_textbook(operator, direction, call, operator.run(direction, call, layout), least=1e-13)


@every_direction
def test_extreme_coordinates(operator, direction):
    """A defined value or a refusal, never what some memory held: two runs agree, and all is finite."""
    rng, refusals, done = np.random.default_rng(0), [], 0
    signed = [sign * one for one in EXTREMES for sign in (1, -1)]
    for _ in range(300):
        dtype, scale = rng.choice(FLOATS), rng.choice([1e-30, 0.25, 1.0, 1e30])
        larger = 1e269 if dtype == "float64" and rng.random() < 0.2 else 1
        boxes = np.insert(rng.choice(signed, (2, 4)) * larger, 0, 0, axis=1).astype(dtype)
        settings = {"sampling_ratio": int(rng.integers(-1, 3)), "aligned": bool(rng.integers(2))}
        call = make(operator, dtype=dtype, boxes=boxes, **settings)
        if not operator.by_image:  # with the scales of its maps
            call.arguments["spatial_scale"] = scale
        try:
            results = operator.run(direction, call)
        except ValueError as error:
            refusals.append(str(error))
            continue
        done += 1
        for one, two in zip(results, operator.run(direction, call, num_threads=1), strict=True):
            assert one.tobytes() == two.tobytes()
            assert direction == "boxes" or np.isfinite(one).all()
    assert done > 50
    assert refusals or operator.by_image
    assert all(re.search(r"boxes\[.*finite|spatial_scale must be greater than 0", one) for one in refusals)


@every_direction
@every_layout
@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((2, 3, 8, 9), 0),
        ((0, 3, 8, 9), 0),
        ((2, 0, 8, 9), 4),
        ((2, 0, 8, 9), 0),
        ((2, 3, 0, 9), 0),
        ((2, 3, 8, 0), 0),
        ((0, 0, 0, 0), 0),
    ],
)
def test_empty(operator, direction, shape, count, layout):
    """The right shape, and zeros; a gradient that is given to be filled is zeroed all the same."""
    for dtype in operator.dtypes:
        if dtype not in (*FLOATS, *INSTALLED):
            continue
        call = make(operator, (max(shape[0], 1), *(max(side, 1) for side in shape[1:])), count, dtype)
        maps = tuple(array_of(one, shape) for one in call.maps)
        call = call._replace(
            maps=maps,
            boxes=np.zeros((count, operator.columns)),
            grad_output=np.ones((count, shape[1], 3, 2), call.grad_output.dtype),
        )
        shapes = {
            "forward": [call.grad_output.shape],
            "backward": [one.shape for one in maps],
            "boxes": [(count, operator.columns - 1)],
        }[direction]
        results = operator.run(direction, call, layout)
        assert [one.shape for one in results] == shapes
        for one in results:
            assert one.dtype == result_of(maps[0].dtype) or direction == "boxes"
            assert not one.any()
        if operator.accepts(direction, "out"):
            out = np.ones_like(in_layout(results[0], layout))
            operator.run(direction, call, layout, out=out)
            assert not out.any()


def array_of(array, shape):
    """An array of ones, empty along the axes that shape says."""
    sides = [0 if side == 0 else own for side, own in zip(shape, array.shape, strict=True)]
    return np.ones(sides, array.dtype)


@every_operator
def test_images_without_boxes(operator):
    call = make(operator, (3, 2, 8, 9), 1, boxes=np.array([[1.0, 1, 1, 4, 4]]))
    only = call._replace(
        maps=tuple(one[1:2] for one in call.maps), boxes=call.boxes * (np.arange(operator.columns) > 0)
    )
    assert operator.run("forward", call)[0].tobytes() == operator.run("forward", only)[0].tobytes()
    gradients = operator.run("backward", call)
    assert not any(one[::2].any() for one in gradients)
    assert any(one[1].any() for one in gradients)

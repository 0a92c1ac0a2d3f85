"""The registry has every operator, and what it draws is what it says: the promises hold for all."""

import numpy as np
import pytest
from narrow import INSTALLED, result_of
from operators import BOX_DTYPES, DIRECTIONS, FLOATS, every_operator

import cyroialign

OTHER_BOXES = {"crop_and_resize"}  # shares of the image, not RoIs: test_crop_and_resize.py has its promises


def test_every_public_gradient_is_one_of_an_operator():
    """And so is what it is the gradient of: an operator that is not registered inherits no test."""
    known = {one.callable(direction).__name__ for one, direction in DIRECTIONS.values()}
    gradients = {name for name in cyroialign.__all__ if name.endswith("_backward")}
    gradients = {one for one in gradients if whose(one) not in OTHER_BOXES}
    assert gradients <= known
    assert set(map(whose, gradients)) <= known


def whose(gradient):
    return gradient.removesuffix("_boxes_backward").removesuffix("_backward")


@every_operator
@pytest.mark.parametrize("seed", range(20))
def test_draw(operator, seed):
    """The same seed draws the same call, of any types, and every direction takes it."""
    rng = np.random.default_rng(seed)
    dtype = rng.choice([name for name in operator.dtypes if name in (*FLOATS, *INSTALLED)])
    box_dtype = rng.choice(BOX_DTYPES)
    one, two = (operator.draw(np.random.default_rng(seed), dtype, box_dtype) for _ in range(2))
    assert all(first.tobytes() == second.tobytes() for first, second in zip(one.maps, two.maps, strict=True))
    np.testing.assert_array_equal(one.boxes, two.boxes)
    assert one.arguments == two.arguments
    assert one.maps[0].dtype.name == dtype
    assert one.grad_output.dtype == result_of(one.maps[0].dtype)
    assert one.boxes.dtype == np.dtype(box_dtype)
    assert one.boxes.shape[1] == operator.columns
    for direction in operator.directions:
        results = operator.run(direction, one, operator.layouts[seed % len(operator.layouts)])
        shapes = {
            "forward": [one.grad_output.shape],
            "backward": [array.shape for array in one.maps],
            "boxes": [(len(one.boxes), operator.columns - 1)],
        }
        assert [result.shape for result in results] == shapes[direction]

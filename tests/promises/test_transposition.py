"""The law of the pair: <f(x), g> == <x, f^T(g)>; and that both are linear where f is."""

import itertools

import numpy as np
import pytest
from narrow import result_of
from operators import OPERATORS, every_layout, every_operator

TOLERANCE = {"float32": 1e-6, "float64": 1e-15}  # of the sum of all terms
LINEAR = {name: one for name, one in OPERATORS.items() if one.linear}


def make(operator, ratio, aligned, dtype, count=30):
    arguments = {"spatial_scale": 0.25, "sampling_ratio": ratio, "aligned": aligned}
    rng, shape = np.random.default_rng(0), (2, 11, 17, 23)
    boxes = operator.random_boxes(rng, count, shape, 0.25)
    if operator.leaves_out_last:  # forward, but not backward: boxes that end before the last row and column
        boxes[:, 1:] = np.minimum(boxes[:, 1:], np.subtract([23, 17] * 2, 2.0) * 4)
    return operator.make(rng, shape, count, (5, 3), arguments, dtype, boxes)


@every_operator
@every_layout
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_products(operator, layout, dtype):
    """A maximum is as homogeneous as a mean: its value is the product of gradient and map."""
    for ratio, aligned in itertools.product([-1, 1, 2, 5], [False, True]):
        call = make(operator, ratio, aligned, dtype)
        [output], gradients = (operator.run(way, call, layout) for way in ("forward", "backward"))
        assert output.dtype == result_of(call.maps[0].dtype)
        forward = output.astype(float) * call.grad_output
        pairs = zip(gradients, call.maps, strict=True)
        backward = sum((one.astype(float) * array).sum() for one, array in pairs)
        assert abs(forward.sum() - backward) <= TOLERANCE[dtype] * np.abs(forward).sum()
        assert np.abs(forward).sum() > 1


def times(call, name, first, second, a, b):
    """A call with a * first + b * second in place of one of its fields."""
    if name == "maps":
        return call._replace(maps=tuple(a * x + b * y for x, y in zip(first.maps, second.maps, strict=True)))
    return call._replace(grad_output=a * first.grad_output + b * second.grad_output)


@every_operator
@every_layout
def test_gradients_are_linear(operator, layout):
    """In what they are given; a gradient to boxes in the map as well."""
    call = make(operator, 2, True, "float64")
    other = call._replace(
        maps=tuple(one[:, ::-1] ** 3 for one in call.maps), grad_output=call.grad_output[::-1] ** 3
    )
    fields = {"forward": ["maps"], "backward": ["grad_output"], "boxes": ["maps", "grad_output"]}
    for direction in operator.directions:
        for name in fields[direction]:
            if direction == "forward" and not operator.linear:
                continue
            second = call._replace(**{name: getattr(other, name)})
            whole = operator.run(direction, times(call, name, call, other, 2, -3), layout)
            parts = (operator.run(direction, one, layout) for one in (call, second))
            for result, one, two in zip(whole, *parts, strict=True):
                atol = 1e-13 * max(np.abs(one).max(), 1)
                np.testing.assert_allclose(result, 2 * one - 3 * two, rtol=0, atol=atol)


@every_operator
def test_a_power_of_two_is_exact(operator):
    call = make(operator, 2, False, "float32")
    larger = call._replace(maps=tuple(8 * one for one in call.maps), grad_output=call.grad_output)
    [output], [scaled] = (operator.run("forward", one) for one in (call, larger))
    np.testing.assert_array_equal(scaled, 8 * output)
    call = call._replace(grad_output=call.grad_output)
    for one, two in zip(
        operator.run("backward", call),
        operator.run("backward", call._replace(grad_output=8 * call.grad_output)),
        strict=True,
    ):
        np.testing.assert_array_equal(8 * one, two)

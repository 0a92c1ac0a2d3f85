"""Boxes that reach far outside the map: the defined values, in bounded memory and without a hang.

Each operator runs in its own process, which is given two minutes for what takes milliseconds.
"""

import numpy as np
import pytest
import reference
import reference_bounded
from memory import peak_memory
from operators import DIRECTIONS, OPERATORS, TOLERANCE, every_operator

SHAPE = (1, 3, 40, 33)
BINS = (7, 5)
GROWTH = 64 * 2**20  # bytes above inputs and results
LEAST = {"float32": 1e-37, "float64": 1e-300}  # the map is so little of such a box that it may underflow
AROUND = (-0.5, -0.5, 0.5, 0.5)  # of a box centred at the origin
RIGHT = (0.0, 0.0, 1.0, 1.0)  # of a box that begins at the origin
LEFT = (-1.0, -1.0, 0.0, 0.0)
BORDERS = (-2.0, -3.0, 3.0, 4.0)  # of a box whose bins are squares, with the origin between four of them

CASES = {  # name -> (dtype, boxes, sampling_ratio, aligned)
    "1e9": ("float32", np.multiply(AROUND, 1e9), 0, True),
    "1e9, thirty": ("float32", np.multiply(AROUND, np.linspace(9e8, 1.1e9, 30)[:, None]), 0, True),
    "1e9, float64": ("float64", np.multiply(AROUND, 1e9), 0, True),
    "1e9, legacy": ("float32", np.multiply(AROUND, 1e9), -1, False),
    "1e9, from the origin": ("float32", np.multiply(RIGHT, 1e9), 0, False),
    "1e9, to the origin": ("float64", np.add(np.multiply(LEFT, 1e9), [0, 0, 9, 9]), 0, True),
    "1e9, wide only": ("float32", [-4e8, 3, 6e8, 21], 0, True),
    "1e9, high only": ("float32", [3, -4e8, 21, 6e8], 0, True),
    "1e9, inverted": ("float32", np.multiply(AROUND, -1e9), 0, True),
    "1e9, inverted, legacy": ("float32", np.multiply(LEFT, -1e9), 0, False),
    "1e9, 3 samples": ("float64", np.multiply(AROUND, 1e9), 3, True),
    "1e9, beside the map": ("float64", [1e9, 2, 2e9, 9], 0, True),
    "1e5, 32767 samples": ("float32", np.multiply(AROUND, 1e5), 32767, True),
    "1e5, 32767 samples, mirrored": ("float64", np.multiply(AROUND, -1e5), 32767, True),
    "1e9, 32767 samples": ("float32", np.multiply(AROUND, 1e9), 32767, True),
    "2**31": ("float64", [-(2.0**31), 0, 2.0**31, 8], 0, True),
    "1e12": ("float32", np.multiply(AROUND, 1e12), 0, True),
    "1e16": ("float64", np.multiply(AROUND, 1e16), 0, True),
    "1e17": ("float64", np.multiply(AROUND, 1e17), 0, True),
    "1e18": ("float64", np.multiply(AROUND, 1e18) + 10, 0, True),
    "1e30": ("float32", np.multiply(AROUND, 1e30), 0, True),
    "1e30, from the origin": ("float32", np.multiply(RIGHT, 1e30), 0, False),
    "1e30, 32767 samples": ("float32", np.multiply(AROUND, 1e30), 32767, True),
    "largest": ("float32", np.multiply(AROUND, 3.4e38), 0, True),
    "1e300": ("float64", np.multiply(AROUND, 1e300), 0, True),
    "1e300, from the origin": ("float64", np.multiply(RIGHT, 1e300), 0, False),
    "1e300, 32767 samples": ("float64", np.multiply(AROUND, 1e300), 32767, True),
    "borders at the origin": ("float32", np.multiply(BORDERS, 2.0**90), 0, False),
    "borders at the origin, float64": ("float64", np.multiply(BORDERS, 2.0**190), 0, False),
    "many": ("float32", np.multiply(AROUND, np.geomspace(1e3, 1e30, 50)[:, None]), 0, True),
    "many, float64": ("float64", np.multiply(AROUND, np.geomspace(1e3, 1e16, 50)[:, None]), 0, True),
    "many up to 1e300": ("float64", np.multiply(AROUND, np.geomspace(1e16, 1e300, 40)[:, None]), 0, True),
}


def make(operator, name):
    """The call of a case; few boxes where the textbook goes channel by channel."""
    dtype, corners, sampling_ratio, aligned = CASES[name]
    corners = np.atleast_2d(corners)[:: 1 if operator.quick else 13]
    boxes = np.hstack([np.zeros((len(corners), 1)), corners]).astype(dtype)
    arguments = {"spatial_scale": 1.0, "sampling_ratio": sampling_ratio, "aligned": aligned}
    return operator.make(np.random.default_rng(0), SHAPE, len(boxes), BINS, arguments, dtype, boxes)


def work(of, path):
    """What the other process does: all the huge boxes, after small calls that start the threads."""
    operator, results = OPERATORS[of], {}
    calls = {name: make(operator, name) for name in CASES}
    for direction in operator.directions:
        for call in (calls["1e9"], calls["1e300"]):
            operator.run(direction, call._replace(boxes=call.boxes * 0))
    before = peak_memory()
    for name, call in calls.items():
        for direction in operator.directions:
            for number, result in enumerate(operator.run(direction, call)):
                results[f"{name}/{direction}/{number}"] = result
    growth = -1 if before is None else peak_memory() - before
    np.savez(path, **results, growth=growth - sum(one.nbytes for one in results.values()))


@every_operator
def test_value_and_memory(operator, run_python, tmp_path):
    path = tmp_path / "results.npz"
    of = next(name for name, one in OPERATORS.items() if one is operator)
    run_python(f"import test_bounded_work as t; t.work({of!r}, {str(path)!r})", timeout=120)
    results, reached = np.load(path), 0
    assert results["growth"] <= GROWTH
    for name in CASES:
        call = make(operator, name)
        dtype = call.maps[0].dtype.name
        for direction in operator.directions:
            for number, wanted in enumerate(operator.expected(direction, call, bounded=True)):
                actual, axes = results[f"{name}/{direction}/{number}"], tuple(range(1, wanted.ndim))
                allowed = 10 * TOLERANCE[dtype] * np.abs(wanted).max(axis=axes) + LEAST[dtype]
                error = np.abs(actual - wanted).max(axis=axes)
                assert (error <= allowed).all(), (name, direction, error / allowed)
                reached += wanted.any()
    assert reached > len(CASES) / 2, "or else the cases would prove little"


@pytest.mark.parametrize("name", DIRECTIONS)
def test_bounded_textbook_is_the_textbook(name):
    """On boxes that are small enough for both."""
    operator, direction = DIRECTIONS[name]
    for seed in range(20):
        call = operator.draw(np.random.default_rng(seed))
        textbook, bounded = (operator.expected(direction, call, bounded=one) for one in (False, True))
        for one, two in zip(textbook, bounded, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-11)


def test_bisection():
    """Where all samples are at one place, and where each is at its own."""
    assert reference_bounded.first_sample(lambda sample: sample, 5, 0, 9) == 5
    assert reference_bounded.first_sample(lambda sample: 0, 5, 0, 9) == 9
    weights = reference_bounded.axis_weights(0.0, 4.0, 2, 4, 1.0, 2, True, np.float64)
    np.testing.assert_allclose(weights, reference_weights(), atol=1e-15)


def reference_weights():
    weights = np.zeros((2, 4))
    for i, places in enumerate(reference.positions(0.0, 4.0, 2, 1.0, 2, True, np.float64)):
        for place in places:
            for pixel, weight in reference.between(place, 4):
                weights[i, pixel] += weight / len(places)
    return weights

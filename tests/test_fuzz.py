"""The fuzzer: its references equal the textbooks, seeds repeat, and what is wrong does not pass."""

import argparse
import json
import math

import fuzz
import fuzz_draw
import fuzz_workers
import numpy as np
import pytest
import reference_dense
from operators import DIRECTIONS, OPERATORS, Operator

NAMES = {id(operator): name for name, operator in OPERATORS.items()}
NUMBERS = {name: number for number, name in enumerate(DIRECTIONS)}  # seeds of a direction are as far apart
CASES = 40


def seeds(name, count=CASES):
    return range(NUMBERS[name], count * len(DIRECTIONS), len(DIRECTIONS))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_references_are_the_textbooks(name):
    operator, direction = DIRECTIONS[name]
    compared = 0
    for seed in range(15):
        call = operator.draw(np.random.default_rng(seed), "float64")
        try:
            found = reference_dense.expected(NAMES[id(operator)], direction, call)
        except reference_dense.BeyondReferenceError:
            continue
        largest = operator.largest(direction, call)
        for one, two, most in zip(found, operator.expected(direction, call), largest, strict=True):
            assert one.shape == two.shape
            assert (np.abs(one - two) <= 1e-13 * most + 1e-13).all()
        compared += 1
    assert compared > 5


@pytest.mark.parametrize("name", DIRECTIONS)
def test_cases(name):
    """Most are compared with the reference, and most with other calls."""
    counts = dict.fromkeys(fuzz.KINDS, 0)
    for seed in seeds(name):
        for kind, number in fuzz.check(seed).items():
            counts[kind] += number
    assert counts["cases"] == CASES
    assert counts["calls"] > CASES
    assert min(counts["by reference"], counts["by other calls"]) > CASES / 3


def test_seeds_repeat_and_differ():
    assert fuzz.describe(17) == fuzz.describe(17)
    assert len({fuzz.describe(seed) for seed in range(100)}) == 100


def spoiled(change):
    """A public function that gives something else, or does something besides."""

    def of_function(self, direction):
        function = true_callable(self, direction)

        def other(**keywords):
            return change(function, keywords)

        return other

    true_callable = Operator.callable
    return of_function


def write_beyond(function, keywords):
    result = function(**keywords)
    if keywords.get("out") is not None and result.size:
        np.lib.stride_tricks.as_strided(result.reshape(-1), (result.size + 1,))[-1] = 5
    return result


def write_to_input(function, keywords):
    result = function(**keywords)
    boxes = keywords["boxes"]
    if isinstance(boxes, np.ndarray) and boxes.size and boxes.flags.writeable:
        boxes[0, 1] += 1
    return result


def nearly(function, keywords):
    result = function(**keywords)
    result *= 1.001
    return result


def lenient(function, keywords):
    try:
        return function(**keywords)
    except (TypeError, ValueError):
        return np.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nearly, "differs from the reference"),
        (write_beyond, "around out"),
        (write_to_input, "argument has changed"),
        (lenient, "not refused"),
        (lambda function, keywords: function(**keywords)[..., :1], "a result of"),
        (
            lambda function, keywords: function(**{**keywords, "aligned": True}),
            "differs|refused|spatial_scale",
        ),
    ],
)
def test_what_is_wrong_is_found(change, message, monkeypatch):
    monkeypatch.setattr(Operator, "callable", spoiled(change))
    found = []
    for seed in seeds("roi_align-forward", 60):
        try:
            fuzz.check(seed)
        except AssertionError as error:
            found.append(str(error))
    assert any(part in one for one in found for part in message.split("|"))


@pytest.mark.parametrize("kind", ["plain", "layout", "parts"])
def test_other_bits_are_found(kind):
    cases = map(fuzz_draw.draw, seeds("roi_align-forward"))
    case = next(one for one in cases if one.second == kind and one.refused is None and len(one.call.boxes))
    results = case.operator.run(case.direction, case.call, case.layout)
    assert fuzz.by_bits(case, results) > 0
    with pytest.raises(AssertionError, match="other bits"):
        fuzz.by_bits(case, [one + one.dtype.type(1) for one in results])


def options(**more):
    return argparse.Namespace(**{"first": 0, "cases": 40, "jobs": 2, "seconds": math.inf} | more)


def test_a_process_that_ends_is_a_failure_of_its_case():
    def one_case(seed, counts):
        if seed == 7:
            fuzz_workers.os._exit(3)
        assert seed != 9, "is nine"
        counts[seed % 2] += 1

    counts, failures = fuzz_workers.run(one_case, (2,), options())
    assert counts.tolist() == [20, 18]
    assert failures[7] == "the process ended with 3"
    assert failures[9].startswith("AssertionError: is nine")
    assert len(failures) == 2


def test_a_process_that_hangs_is_a_failure_of_its_case(monkeypatch):
    monkeypatch.setattr(fuzz_workers, "PATIENCE", 1)

    def one_case(seed, counts):
        if seed == 7:
            fuzz_workers.time.sleep(600)
        counts[0] += 1

    counts, failures = fuzz_workers.run(one_case, (1,), options())
    assert (counts.tolist(), failures) == ([39], {7: "the process hung"})


def test_runs_are_put_on_record(tmp_path):
    path = tmp_path / "fuzz.json"
    for first in (0, 9):
        fuzz.record(path, {"first": first})
    assert json.loads(path.read_text()) == {"runs": [{"first": 0}, {"first": 9}]}


@pytest.mark.parametrize(
    ("words", "said"), [(["--cases", "60", "--jobs", "2"], " 0 failed"), (["--seed", "7"], "checked: cases")]
)
def test_command(words, said, run_python):
    done = run_python(f"import sys, fuzz; sys.argv = ['fuzz.py', *{words}]; sys.exit(fuzz.main())")
    assert said in done.stdout

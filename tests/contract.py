"""The contract as a table: which tests hold each operator to each promise, as pytest collects them.

A promise is a file of promises/. A test of it counts for the operator that it is parametrized with; any test
counts for what its mark says: ``@pytest.mark.promise("same_bits", "paste_masks")``. Run, it prints JSON.
"""

import collections
import json
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent
OF_THE_REGISTRY = "registry"  # a file of promises/ on the registry itself
NOT_IN_IT = ("crop_and_resize", "paste_masks")  # operators whose boxes are no RoIs
NOT_PROMISED = {("transposition", "paste_masks"): "paste_masks has no gradient"}


def promises():
    """Name the promises: the files of promises/."""
    stems = (path.stem.removeprefix("test_") for path in sorted((TESTS / "promises").glob("test_*.py")))
    return [stem for stem in stems if stem != OF_THE_REGISTRY]


def collected():
    """Return {promise: {operator: {test, as "path.py::function": number of cases}}}, from another process."""
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, cwd=TESTS)
    if run.returncode:
        raise RuntimeError(f"the tests cannot be collected:\n{run.stdout}{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def without_test(table):
    """Name the cells (promise, operator) that have no test."""
    return {(promise, one) for promise, row in table.items() for one, tests in row.items() if not tests}


class Counter:
    """The part of pytest that counts cases."""

    def __init__(self):
        from operators import OPERATORS

        columns = (*OPERATORS, *NOT_IN_IT)
        self.table = {row: {one: collections.Counter() for one in columns} for row in promises()}

    def pytest_collection_finish(self, session):
        """Count a case for each promise and operator that it is about."""
        for item in session.items:
            test = f"{item.path.relative_to(TESTS).as_posix()}::{item.originalname}"
            for promise, operator in about(item):
                self.table[promise][operator][test] += 1


def about(item):
    """Yield (promise, operator) for a case."""
    if item.path.parent.name == "promises":
        operator = operator_of(getattr(item, "callspec", None))
        promise = item.path.stem.removeprefix("test_")
        if operator and promise != OF_THE_REGISTRY:
            yield promise, operator
    for mark in item.iter_markers("promise"):
        promise, *operators = mark.args
        for operator in operators:
            yield promise, operator


def operator_of(callspec):
    """Name the operator that a case is parametrized with, as one, or by its name or that of its direction."""
    from operators import DIRECTIONS, OPERATORS

    names = {id(one): name for name, one in OPERATORS.items()}
    for value in callspec.params.values() if callspec else ():
        if id(value) in names:
            return names[id(value)]
        if isinstance(value, str) and (value in OPERATORS or value in DIRECTIONS):
            return value if value in OPERATORS else names[id(DIRECTIONS[value][0])]
    return None


if __name__ == "__main__":
    counter = Counter()
    options = ["--collect-only", "-qq", "-p", "no:cacheprovider", f"--ignore={TESTS / 'pytorch'}", str(TESTS)]
    status = pytest.main(options, plugins=[counter])
    print(json.dumps(counter.table))
    sys.exit(status)

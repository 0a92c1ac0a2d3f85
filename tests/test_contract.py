"""The table of the contract: no cell without a test, and tests count where they belong."""

import types

import contract
import pytest
from operators import DIRECTIONS, OPERATORS

import cyroialign


@pytest.fixture(scope="module")
def table():
    return contract.collected()


def test_every_promise_has_a_test_for_every_operator(table):
    assert contract.without_test(table) == set(contract.NOT_PROMISED)


def test_all_operators_are_columns(table):
    for row in table.values():
        assert list(row) == [*OPERATORS, *contract.NOT_IN_IT]
    assert set(contract.NOT_IN_IT) <= set(cyroialign.__all__)


def test_what_counts(table):
    """By the operator, by the name of it or of its direction, and by a mark."""
    name = "promises/test_same_bits.py::test_many_boxes"
    assert table["same_bits"]["prroi_pool"][name] == 2
    assert table["memory"]["prroi_pool"]["promises/test_memory.py::test_no_access_beyond_arrays"] == 2
    name = "promises/test_bounded_work.py::test_bounded_textbook_is_the_textbook"
    assert table["bounded_work"]["prroi_pool"][name] == 3
    assert table["refusals"]["roi_align_3d"]["test_volumes.py::test_out_that_shares_memory"] == 1
    assert "promises/test_memory.py::test_guards_work" not in table["memory"]["prroi_pool"]


def test_a_cell_without_a_test_is_found(table):
    for promise, operator in (("locality", "roi_pool"), ("same_bits", "paste_masks")):
        doctored = {**table, promise: {**table[promise], operator: {}}}
        assert contract.without_test(doctored) - contract.NOT_PROMISED.keys() == {(promise, operator)}


def test_names_of_parameters():
    of = types.SimpleNamespace
    assert contract.operator_of(None) is None
    assert contract.operator_of(of(params={"at_end": True, "layout": "NCHW"})) is None
    for name, (operator, _) in DIRECTIONS.items():
        for value in (name, operator):
            assert OPERATORS[contract.operator_of(of(params={"x": 1, "operator": value}))] is operator

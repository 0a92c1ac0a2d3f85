"""The table of the contract: no cell without a test, and tests count where they belong."""

import importlib
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


@pytest.fixture
def promises(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(contract.TESTS.parent / "docs" / "extensions")
    return importlib.import_module("promises")


def test_counts_of_fuzz_cases_add_up(promises):
    """Over runs, of which one had sanitizers; of cases, calls, refusals, references, other calls."""
    common = {"version": "1.0", "level": "avx2", "first": 0, "seconds": 9}
    plain = common | {"cases": 12, "sanitizers": [], "failures": {}}
    plain["counts"] = {"a-forward": [7, 20, 1, 4, 5], "b-forward": [5, 9, 0, 2, 3]}
    checked = common | {"cases": 2, "sanitizers": ["address", "undefined"], "failures": {"3": "crash"}}
    checked["counts"] = {"a-forward": [2, 4, 0, 1, 1]}
    assert promises.by_operator([plain, checked]) == [
        ["a-forward", 9, 2, 1, 5, 6],
        ["b-forward", 5, 0, 0, 2, 3],
        ["all", 14, 2, 1, 7, 9],
    ]
    assert promises.by_run([plain, checked]) == [
        ["1.0", "avx2", "none", 12, 0, 9, 0],
        ["1.0", "avx2", "address, undefined", 2, 0, 9, 1],
    ]


def test_a_soak_in_words(promises):
    soak = {"seconds": 60.0, "threads": 8, "calls": 12345, "forks": 67, "interrupts": 89}
    grown = {"a-forward": 4096, "b-forward": -8192}
    said = promises.soaked({"version": "1.0", "soak": soak, "calls": 100000, "grown": grown})
    assert "8 threads for 60 s, 12,345 calls, 67 forks, 89 interrupts" in said
    assert "In 100,000 calls of one kind, resident memory grew by at most 4,096 bytes." in said

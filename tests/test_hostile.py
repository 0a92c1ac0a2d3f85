"""The hostile suite: who is right, refuses, makes something up, dies, hangs or wants memory is scored so."""

import importlib
import os
import pathlib
import sys
import time

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
VALUE, NO_VALUE = "10³⁰ pixels", "image 2 of 2"  # cases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it limits processes, and reads /proc")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def suite():
    return importlib.import_module("hostile")


class Participant:
    """Right at first, as whoever takes part must be; then it acts."""

    def __init__(self, act, at_first=True):
        self.act, self.right = act, at_first

    def __call__(self, problem):
        """Be right once, or act."""
        act, self.right = right if self.right else self.act, False
        return act(problem)


def right(problem):
    return suite().with_cyroialign(problem)


def makes_up(problem):
    return np.full((len(problem.corners), problem.features.shape[1], problem.bins, problem.bins), 0.5)


def refuses(problem):
    raise ValueError("boxes are odd")


def wants_memory(problem):
    return np.ones(2**40)


def aborts(problem):
    os.abort()


def leaves(problem):
    os._exit(3)


def computes(problem):
    while True:
        pass


def sleeps(problem):
    time.sleep(600)


SCORES = {  # act -> where there is a value, and where there is none
    right: ("right", "right"),
    makes_up: ("wrong", "wrong"),
    refuses: ("error", "right"),
    wants_memory: ("memory", "right"),
    aborts: ("crash", "crash"),
    leaves: ("crash", "crash"),
    computes: ("hang", "hang"),
    sleeps: ("hang", "hang"),
}


@pytest.mark.parametrize("act", SCORES, ids=lambda act: act.__name__)
def test_scores(act):
    hostile = suite()
    seconds = 0.2 if act in (computes, sleeps) else hostile.SECONDS
    scores = [hostile.score(Participant(act), hostile.CASES[name], seconds)[0] for name in (VALUE, NO_VALUE)]
    assert tuple(scores) == SCORES[act]


def test_whoever_fails_at_the_plain_case_takes_no_part():
    hostile = suite()
    with pytest.raises(RuntimeError, match="fails at two boxes: ValueError: boxes are odd"):
        hostile.score(Participant(refuses, at_first=False), hostile.CASES[NO_VALUE])


def test_we_are_right():
    """In every case: with the value, or by a refusal where there is none."""
    for name, case in suite().CASES.items():
        try:
            result = right(case.problem)
        except (TypeError, ValueError, MemoryError):
            assert case.error, name
        else:
            assert case.accepts(result), name


def test_what_is_right_of_a_box_is_not_of_another():
    case = suite().CASES["NaN for a coordinate"]
    plain = right(suite().CASES["two boxes"].problem)
    result = plain.copy()
    result[1] = np.nan
    assert case.accepts(result)
    assert not case.accepts(plain)
    assert not case.accepts(result[:1])
    result[0] = 0
    assert not case.accepts(result)


def test_table():
    hostile = suite()
    scores = {VALUE: {"one": "right", "other": "hang"}, NO_VALUE: {"one": "right"}}
    lines = hostile.table(scores, {"one": "1.0"}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert cells[0] == ["", "case", "one", "other"]
    assert cells[2:4] == [["huge", VALUE, "right", "hang"], ["lie", NO_VALUE, "right", ""]]
    assert ["sum", "right", "2", "0"] in cells
    assert ["sum", "hang", "0", "1"] in cells
    assert "Versions: one 1.0." in lines[-1]


def test_the_page_has_a_place_for_the_table(tmp_path):
    pytest.importorskip("PIL")
    hostile, figures = suite(), importlib.import_module("figures")
    page = tmp_path / "page.md"
    page.write_text(hostile.PAGE.read_text())
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "hostile.md").write_text("new\n")
    figures.fill(page, tmp_path / "made")
    assert page.read_text().count("<!-- hostile -->\n\nnew\n\n<!-- /hostile -->") == 1

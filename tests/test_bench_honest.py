"""The benchmark is honest: no library reads what another one wrote."""

import numpy as np
import pytest
from test_bench import OURS, forward

import cyroialign
from cyroialign import bench
from cyroialign.bench import timing
from cyroialign.bench.ours import ours
from cyroialign.bench.peers import Peer
from cyroialign.bench.problem import OPERATORS, POSITION_SENSITIVE, Row


def backward(problem, gradient):
    """Spread a gradient as a library that is right."""
    given = (problem.spatial_scale, problem.sampling_ratio, True)
    return cyroialign.roi_align_backward(gradient, problem.boxes, problem.features.shape, *given)


def test_peers_with_copies_of_their_own_are_as_good_as_those_without():
    """No matter what ran before, the gradient is what it was when a library copied it."""

    def rows(problem):
        copied = problem.gradient.copy()
        calls = {
            "copies": lambda: backward(problem, copied),
            "reads": lambda: backward(problem, problem.gradient),
            "wrong": lambda: backward(problem, copied * np.float32(1.001)),
        }
        return [Row(name, "backward", "NCHW", call) for name, call in calls.items()]

    result = bench.measure(bench.WORKLOADS["P5-single"], 1, 1, [Peer("fake", (), "", rows)])
    assert [*result.seconds] == [*OURS, "copies backward NCHW", "reads backward NCHW", "floor"]
    assert result.excluded == {"wrong backward NCHW": "disagrees by 0.001 of the largest value"}


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_row_writes_what_another_reads(operator):
    """Neither what all share, nor what the rows of a library share, in any order of calls."""
    workload = next(iter(bench.workloads_of(operator).values()))._replace(rois=20)
    if operator not in POSITION_SENSITIVE:
        workload = workload._replace(channels=9)
    problem = workload.problem(1, operator, ("float16",))
    before = [array.copy() for array in problem.arrays]
    rows = ours(problem)
    found = {row.name: np.array(row.call()) for row in rows}
    for row in reversed(rows):
        np.testing.assert_array_equal(row.call(), found[row.name])
    for array, copied in zip(problem.arrays, before, strict=True):
        np.testing.assert_array_equal(array, copied)
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_peer_that_writes_into_what_all_read_is_left_out():
    def rows(problem):
        def writes():
            problem.features[...] = 0

        calls = {"writes": writes, "right": lambda: forward(problem)}
        return [Row(name, "forward", "NCHW", call) for name, call in calls.items()]

    result = bench.measure(bench.WORKLOADS["P5-single"], 1, 1, [Peer("fake", (), "", rows)])
    assert [*result.seconds] == [*OURS, "right forward NCHW", "floor"]
    assert [*result.excluded] == ["writes forward NCHW"]


def test_a_peer_may_use_its_memory_again():
    """Its forward, whose result the backward overwrites, is compared before that."""

    def rows(problem):
        memory = np.empty(problem.gradient.size + problem.features.size, np.float32)

        def again(result):
            memory[: result.size] = result.ravel()
            return memory[: result.size].reshape(result.shape)

        return [
            Row("first", "forward", "NCHW", lambda: again(forward(problem))),
            Row("first", "backward", "NCHW", lambda: again(backward(problem, problem.gradient))),
            Row("second", "forward", "NCHW", lambda: forward(problem)),
        ]

    agreeing, excluded = timing.agreeing(rows(bench.WORKLOADS["P5-single"].problem(1)))
    assert (len(agreeing), excluded) == (3, {})

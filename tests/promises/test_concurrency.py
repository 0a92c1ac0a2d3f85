"""Calls from many Python threads, in forked children and in spawned ones: the same bits, and no hang."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from operators import DIRECTIONS, OPERATORS, every_operator

CALLERS = 4


def results(operator, seed):
    """All directions of a call that is large enough for several threads, as bytes."""
    rng = np.random.default_rng(seed)
    arguments = {"spatial_scale": 0.5, "sampling_ratio": 2, "aligned": True}
    channels = 2 if operator.position_sensitive else 19
    call = operator.make(rng, (2, channels, 30, 31), 50, (7, 7), arguments)
    return [one.tobytes() for way in operator.directions for one in operator.run(way, call)]


@every_operator
def test_calls_from_many_threads_at_once(operator):
    expected = [results(operator, seed) for seed in range(CALLERS)]
    start = threading.Barrier(CALLERS)

    def work(seed):
        start.wait()
        return [results(operator, seed) for _ in range(4)]

    with ThreadPoolExecutor(CALLERS) as pool:
        for seed, same in enumerate(pool.map(work, range(CALLERS))):
            assert same == [expected[seed]] * 4


@pytest.mark.promise("concurrency", *OPERATORS)
def test_different_operators_at_once():
    expected = {name: results(one, 0) for name, one in OPERATORS.items()}
    start = threading.Barrier(len(OPERATORS))

    def work(name):
        start.wait()
        return results(OPERATORS[name], 0)

    with ThreadPoolExecutor(len(OPERATORS)) as pool:
        assert dict(zip(OPERATORS, pool.map(work, OPERATORS), strict=True)) == expected


@pytest.mark.promise("concurrency", *OPERATORS)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child_of_a_parent_with_threads(run_python):
    code = """
        import os, cyroialign, test_concurrency as t
        with cyroialign.num_threads(4):
            expected = {name: t.results(one, 0) for name, one in t.OPERATORS.items()}
            child = os.fork()
            if not child:
                same = all(t.results(one, 0) == expected[name] for name, one in t.OPERATORS.items())
                os._exit(0 if same and cyroialign.get_num_threads() == 1 else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert all(t.results(one, 0) == expected[name] for name, one in t.OPERATORS.items())
            assert cyroialign.get_num_threads() in (1, 4)
        print("done")
    """
    assert run_python(code).stdout == "done\n"


def all_results(seed):
    """What a spawned child computes."""
    return {name: results(one, seed) for name, one in OPERATORS.items()}


@pytest.mark.promise("concurrency", *OPERATORS)
def test_spawned_children(run_python):
    code = """
        import multiprocessing, test_concurrency as t
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.map(t.all_results, [0]) == [t.all_results(0)]
            print("done")
    """
    assert run_python(code).stdout == "done\n"


def work_on_absurd_numbers(n):
    """What another process does: OpenMP would end it where it is asked for too many threads."""
    for operator, direction in DIRECTIONS.values():
        rng, arguments = (
            np.random.default_rng(0),
            {"spatial_scale": 1.0, "sampling_ratio": 2, "aligned": True},
        )
        call = operator.make(rng, (2, 2, 30, 31), 50, (7, 7), arguments)
        expected = operator.run(direction, call, num_threads=1)
        for one, two in zip(operator.run(direction, call, num_threads=n), expected, strict=True):
            assert one.tobytes() == two.tobytes()


@pytest.mark.promise("concurrency", *OPERATORS)
@pytest.mark.parametrize("n", [100_000, 2**31 - 1, 2**31, 2**70])
def test_absurd_numbers_of_threads_work(n, run_python):
    run_python(f"import test_concurrency; test_concurrency.work_on_absurd_numbers({n})")

"""Random hostile calls of every operator of the registry, each checked: ``python tests/fuzz.py --help``.

A seed is a case: one direction of one operator, with maps, boxes, settings, memory, threads and `out` drawn
from it. Its call must give what reference_dense.py says, up to rounding, and the bits of a second call that
does the same in another way; or the refusal that the contract has for it. Whatever happens, inputs stay as
they were, and so do the numbers around `out`.
"""

import argparse
import ctypes
import json
import os
import pathlib
import sys
import time

import fuzz_draw
import fuzz_workers
import narrow
import numpy as np
import reference_dense
from fuzz_draw import MARGIN
from operators import DIRECTIONS, LAYOUTS, OPERATORS, TOLERANCE

import cyroialign

NAMES = {id(operator): name for name, operator in OPERATORS.items()}
ROUNDINGS = 4  # of the tolerance of the tests, whose sums are not drawn by the hundred thousand
KINDS = ("cases", "calls", "refused", "by reference", "by other calls")
RECORD = pathlib.Path(__file__).parent.parent / "docs" / "reliability" / "fuzz.json"


def check(seed):
    """Carry out a case; return {kind of KINDS: how many}, or raise what is wrong."""
    case = fuzz_draw.draw(seed)
    before = snapshot(case.keywords)
    try:
        with np.errstate(all="ignore"):
            result = case.operator.callable(case.direction)(**case.keywords)
    except (TypeError, ValueError) as error:
        return check_refusal(case, error, before)
    assert case.refused is None or case.may_pass, f"not refused: {case.refused[1]}"
    results = case.operator.results(case.direction, result, case.layout)
    assert snapshot(case.keywords) == before, "an argument has changed"
    if case.around is not None:
        assert result is case.keywords["out"], "out was not returned"
        beyond = np.concatenate([case.around[:MARGIN], case.around[-MARGIN:]])
        assert (beyond == fuzz_draw.FILLING).all(), "numbers around out have changed"
    referred, others = by_reference(case, results), by_bits(case, results)
    return {"cases": 1, "calls": 1 + others, "by reference": referred, "by other calls": others > 0}


def check_refusal(case, error, before):
    """See that the error is the right one, and that the call has changed nothing."""
    assert case.refused is not None, f"refused: {error}"
    kind, word = case.refused
    assert isinstance(error, kind), f"{type(error).__name__}: {error}"
    assert word in str(error), f"the message does not speak of {word}: {error}"
    assert snapshot(case.keywords) == before, "an argument has changed, though the call was refused"
    assert case.around is None or (case.around == fuzz_draw.FILLING).all(), "out has changed"
    return {"cases": 1, "calls": 1, "refused": 1}


def snapshot(keywords):
    """The bytes of all arrays given but `out`."""
    return {
        name: [
            one.tobytes() for one in fuzz_draw.arrays_in(value) if one.dtype != np.longdouble
        ]  # whose padding is none's
        for name, value in keywords.items()
        if name != "out"
    }


def by_reference(case, results):
    """Compare with dense weights; False where they do not reach: huge boxes, numbers that are not finite."""
    name, call = NAMES[id(case.operator)], case.call
    if case.spoiled or case.large:
        return False
    assert case.direction == "boxes" or all(np.isfinite(one.astype(float)).all() for one in results), (
        "not finite"
    )
    try:
        wanted = reference_dense.expected(name, case.direction, call)
        largest = reference_dense.largest(case.operator, case.direction, call)
    except reference_dense.BeyondReferenceError:
        return False
    if not all(np.isfinite(one).all() for one in wanted):  # sides that float64 holds, and their products not
        return False
    dtype = results[0].dtype
    tolerance = ROUNDINGS * TOLERANCE["float64" if call.maps[0].dtype == np.float64 else "float32"]
    relative = narrow.ULPS[dtype.name] if dtype.name in narrow.HALVES else 0
    least = (
        2.0**-24 if dtype == np.float16 else 1e-13
    )  # the smallest number there is, or what vanishes in sums
    for actual, expected, most in zip(results, wanted, largest, strict=True):
        assert actual.shape == expected.shape, f"a result of {actual.shape}, not {expected.shape}"
        error = np.abs(actual.astype(float) - expected)
        allowed = tolerance * most + relative * np.abs(expected) + least
        assert (error <= allowed).all(), f"differs from the reference by {error.max()}, of {np.max(most)}"
    return True


def by_bits(case, results):
    """Compare with the bits of other calls, and say of how many."""
    if case.second is None:
        return 0
    if case.second == "parts":
        return by_parts(case, results)
    [other] = set(LAYOUTS) - {case.layout}
    layout = other if case.second == "layout" else case.layout
    threads = case.threads if case.second == "threads" else 1
    others = case.operator.run(case.direction, case.call, layout, num_threads=threads)
    assert bits(others) == bits(results), f"other bits in plain memory, {layout}, on {threads} threads"
    return 1


def by_parts(case, results):
    """Compare with one RoI at a time; a gradient to maps, with one image at a time."""
    call, to_maps = case.call, case.direction == "backward"
    numbers = range(len(call.maps[0]) if to_maps else len(call.boxes))
    for i in numbers:
        rows = call.boxes[:, 0] == i if to_maps else slice(i, i + 1)
        part = call._replace(boxes=call.boxes[rows], grad_output=call.grad_output[rows])
        alone = case.operator.run(case.direction, part, case.layout)
        alone = [one[i : i + 1] for one in alone] if to_maps else alone
        assert bits(alone) == bits([one[i : i + 1] for one in results]), f"other bits of number {i} alone"
    return len(numbers)


def bits(results):
    return [narrow.bits(np.ascontiguousarray(one)) for one in results]


def sanitizers():
    """Name the sanitizers that this process has."""
    own = ctypes.CDLL(cyroialign._kernels._runtime.__file__)
    marks = {
        "address": "__asan_init",
        "undefined": "__ubsan_handle_builtin_unreachable",
        "thread": "__tsan_init",
    }
    return [name for name, symbol in marks.items() if hasattr(own, symbol)]


def describe(seed):
    """Say what a seed draws."""
    case = fuzz_draw.draw(seed)
    shown = {
        name: [f"{one.dtype} {one.shape}, strides {one.strides}" for one in fuzz_draw.arrays_in(value)]
        or value
        for name, value in case.keywords.items()
    }
    what = f"{NAMES[id(case.operator)]}, {case.direction}, checked by {case.second}"
    return f"{what}: {shown}\nboxes\n{case.call.boxes}"


def record(path, entry):
    """Add what a run found to a file, a run a line, which docs/reliability.md shows as a table."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    lines = ",\n".join(json.dumps(one) for one in [*runs, entry])
    path.write_text(f'{{"runs": [\n{lines}\n]}}\n')


def main():
    """Fuzz as the command line says; the exit status is 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="carry out one case, and say what it is")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="so many cases")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--record", action="store_true", help=f"add the counts to {RECORD.name}")
    options = parser.parse_args()
    if options.seed is not None:
        print(describe(options.seed))
        print("checked:", *check(options.seed))
        return 0
    begin = time.monotonic()
    counts, failures = fuzz_workers.run(counted, (len(DIRECTIONS), len(KINDS)), options)
    entry = {
        "version": cyroialign.__version__,
        "level": cyroialign.show_config(as_dict=True)["simd"],
        "sanitizers": sanitizers(),
        "first": options.first,
        **dict(zip(KINDS, counts.sum(axis=0).tolist(), strict=True)),
        "seconds": round(time.monotonic() - begin),
        "counts": dict(zip(DIRECTIONS, counts.tolist(), strict=True)),
        "failures": failures,
    }
    for seed, message in failures.items():
        print(f"seed {seed}: {message}\n    python tests/fuzz.py --seed {seed}")
    print(
        {name: value for name, value in entry.items() if name not in ("counts", "failures")},
        len(failures),
        "failed",
    )
    if options.record:
        record(RECORD, entry)
    return int(bool(failures))


def counted(seed, counts):
    """Carry out a case, and count it in the row of its operator and direction."""
    for kind, number in check(seed).items():
        counts[seed % len(DIRECTIONS), KINDS.index(kind)] += number


if __name__ == "__main__":
    sys.exit(main())

"""Arrays in any memory give the same bits; nothing is touched beyond them; inputs stay as they are."""

import functools
import itertools
import sys
import tracemalloc

import numpy as np
import pytest
from memory import ODD, amid, guarded, in_other_order, unaligned
from narrow import BYTES, INSTALLED, bits
from operators import (
    DIRECTIONS,
    FLOATS,
    LAYOUTS,
    OPERATORS,
    changed,
    every_direction,
    every_layout,
    in_layout,
)

MARGIN = 100
SHAPES = [  # shape, output_size, spatial_scale, sampling_ratio, aligned
    ((1, 1, 3, 5), (1, 1), 1.0, 1, True),
    ((2, 3, 7, 9), (3, 2), 1.0, 2, True),
    ((1, 9, 8, 8), (2, 9), 1.0, 0, False),
    ((2, 17, 1, 11), (1, 7), 1.0, 3, False),
    ((1, 33, 12, 1), (5, 1), 1.0, 2, True),
    ((1, 70, 12, 3), (5, 1), 1.0, 2, True),
    ((3, 20, 9, 20), (7, 7), 1.0, -1, True),
    ((1, 8, 9, 70), (2, 3), 1.0, 2, True),
]
SMALL_RESULTS = {name: one for name, one in DIRECTIONS.items() if one[1] != "backward"}
WITH_OUT = {name: one for name, one in DIRECTIONS.items() if one[0].accepts(one[1], "out")}
with_out = pytest.mark.parametrize(("operator", "direction"), WITH_OUT.values(), ids=WITH_OUT)


def make(operator, shape=(2, 5, 8, 9), output_size=(3, 2), *arguments, dtype="float32", count=12):
    arguments = dict(
        zip(("spatial_scale", "sampling_ratio", "aligned"), arguments or (1.0, 2, True), strict=True)
    )
    if operator.position_sensitive:  # not so many channels in their maps
        shape = (shape[0], max(shape[1] // (output_size[0] * output_size[1]), 3), *shape[2:])
    return operator.make(np.random.default_rng(0), shape, count, output_size, arguments, dtype)


def arrays_of(keywords):
    """The names of arguments that are arrays, or lists or mappings of them."""
    return [name for name, value in keywords.items() if isinstance(value, np.ndarray | list | dict)]


def run_changed(operator, direction, call, layout, change, names=None, **options):
    """The results where the arguments of these names are changed, or all."""
    keywords = operator.keywords(direction, call, layout)
    names = names or arrays_of(keywords)
    keywords |= {name: changed(keywords[name], change) for name in names}
    result = operator.callable(direction)(**keywords, **options)
    return operator.results(direction, result, layout)


@every_direction
@every_layout
@pytest.mark.parametrize("name", ODD)
def test_odd_memory(operator, direction, layout, name):
    """Of all arrays at once, and of one at a time: the arrays of a call may be of different kinds."""
    odd = ODD[name]
    for dtype in operator.dtypes:
        if dtype not in (*FLOATS, *INSTALLED):
            continue
        call = make(operator, dtype=dtype)
        call = call._replace(boxes=call.boxes.astype(call.grad_output.dtype))
        expected = operator.run(direction, call, layout)
        names = arrays_of(operator.keywords(direction, call, layout))
        for chosen in (names, *([one] for one in names if dtype != "float64")):
            results = run_changed(operator, direction, call, layout, odd, chosen)
            for result, wanted in zip(results, expected, strict=True):
                assert type(result) is np.ndarray
                assert result.dtype == wanted.dtype
                assert result.dtype.isnative
                assert bits(result) == bits(wanted), (dtype, chosen)


@every_direction
@every_layout
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_memory_order(operator, direction, layout, dtype):
    """It is as if the call had the other layout, to the last bit, and the result has that order too."""
    [other] = set(operator.layouts) - {layout}
    call = make(operator, dtype=dtype)
    expected, here = (operator.run(direction, call, one) for one in (other, layout))
    change = functools.partial(in_other_order, layout=layout)
    results = run_changed(operator, direction, call, layout, change)
    for result, wanted in zip(results, expected, strict=True):
        assert result.tobytes() == wanted.tobytes()
        if direction != "boxes":
            assert result.transpose(LAYOUTS[other]).flags.c_contiguous
    for name in arrays_of(operator.keywords(direction, call, layout)):  # one that differs from the others
        for result, *either in zip(
            run_changed(operator, direction, call, layout, change, [name]), expected, here, strict=True
        ):
            assert result.tobytes() in [one.tobytes() for one in either]


@pytest.mark.parametrize(("operator", "direction"), SMALL_RESULTS.values(), ids=SMALL_RESULTS)
@every_layout
def test_either_order_is_read_in_place(operator, direction, layout):
    call = make(operator, (1, 8, 150, 160), count=2)
    for change in (np.asarray, functools.partial(in_other_order, layout=layout)):
        keywords = changed(operator.keywords(direction, call, layout), change)
        tracemalloc.start()  # NumPy tells it of its arrays
        operator.callable(direction)(**keywords)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < call.maps[0].nbytes / 5


@every_direction
@every_layout
def test_inputs_stay_as_they_are(operator, direction, layout):
    keywords = operator.keywords(direction, make(operator), layout)
    copies = changed(keywords, np.copy)
    operator.callable(direction)(**keywords)
    for name in arrays_of(keywords):
        now, before = keywords[name], copies[name]
        pairs = zip(now.values(), before.values(), strict=True) if isinstance(now, dict) else [(now, before)]
        for one, two in pairs:
            np.testing.assert_array_equal(one, two) if isinstance(one, np.ndarray) else None


@with_out
@every_layout
def test_out(operator, direction, layout):
    """It is filled regardless of what it held, in either order, and returned; its surroundings stay."""
    for dtype in operator.dtypes:
        if dtype not in (*FLOATS, *INSTALLED):
            continue
        call = make(operator, dtype=dtype)
        [expected] = operator.run(direction, call, layout)
        expected = in_layout(expected, layout)
        keywords = operator.keywords(direction, call, layout)
        for filling in (77, np.nan):
            out, buffer = amid(np.full_like(expected, filling), 123, MARGIN)
            assert operator.callable(direction)(**keywords, out=out) is out
            assert bits(out) == bits(expected)
            assert (buffer[:MARGIN] == 123).all()
            assert (buffer[-MARGIN:] == 123).all()
        out = unaligned(expected)
        out[...] = 77
        assert operator.callable(direction)(**keywords, out=out) is out
        assert bits(out.copy()) == bits(expected)
        change = functools.partial(in_other_order, layout=layout)
        [wanted] = run_changed(operator, direction, call, layout, change)
        for out in (np.empty_like(expected), change(np.empty_like(expected))):
            out.fill(77)
            run_changed(operator, direction, call, layout, change, out=out)
            assert bits(in_layout(operator.results(direction, out, layout)[0], "NCHW")) == bits(
                in_layout(wanted, "NCHW")
            )


@every_direction
@every_layout
def test_surroundings_are_not_used(operator, direction, layout):
    """Regardless of what lies around the arrays, even NaN."""

    def around(dtype):
        return np.iinfo(dtype).max if dtype in BYTES else np.nan

    for dtype, (shape, *rest) in itertools.product(operator.dtypes, SHAPES):
        if dtype not in (*FLOATS, *INSTALLED):
            continue
        call = make(operator, shape, *rest, dtype=dtype)
        expected = operator.run(direction, call, layout)
        results = run_changed(
            operator,
            direction,
            call,
            layout,
            lambda array: amid(array, around(array.dtype), MARGIN)[0],
        )
        assert [bits(one) for one in results] == [bits(one) for one in expected]


# Arrays that touch a page without access, at either end


def touch_guards(name, at_end):
    """What the other process does: it dies of the first access beyond an array."""
    operator = OPERATORS[name]

    def guard(array):
        return guarded(array, at_end)

    for (shape, *rest), dtype in itertools.product(SHAPES, operator.dtypes):
        if dtype not in (*FLOATS, *INSTALLED):
            continue
        call = make(operator, shape, *rest, dtype=dtype)
        call = call._replace(boxes=call.boxes.astype(np.float64))
        call.boxes[0, 1:5] = 0, 0, shape[3], shape[2]  # all of the map, or of a rotated box its centre
        for direction, layout in itertools.product(operator.directions, operator.layouts):
            options = {}
            if operator.accepts(direction, "out"):
                [result] = operator.run(direction, call, layout)
                options["out"] = guard(in_layout(result, layout))
            for num_threads in (1, 3):
                run_changed(operator, direction, call, layout, guard, **options, num_threads=num_threads)


needs_mprotect = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")


@needs_mprotect
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_no_access_beyond_arrays(name, at_end, run_python):
    done = run_python(f"import test_memory; test_memory.touch_guards({name!r}, {at_end}); print('survived')")
    assert done.stdout == "survived\n"


@needs_mprotect
def test_guards_work(run_python):
    code = """
        import memory, numpy as np
        array = memory.guarded(np.zeros(4, np.float32), at_end=True)
        np.lib.stride_tricks.as_strided(array, (5,)).sum()
    """
    assert run_python(code, check=False).returncode < 0

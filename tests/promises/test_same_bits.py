"""The same bits for any number of threads, any SIMD level and any other boxes in the call."""

import hashlib
import json
import os

import numpy as np
import pytest
from narrow import INSTALLED, ULPS, bits
from operators import DIRECTIONS, FLOATS, every_direction, every_layout, every_operator

import cyroialign

LEVELS = cyroialign.show_config(as_dict=True)["simd_levels"]
FORCED = os.environ.get("CYROIALIGN_SIMD")
THREADS = (2, 3, 64)
CASES = {  # name -> (shape, boxes, output_size, spatial_scale, sampling_ratio, aligned)
    # Small calls always run on one thread: each of these has many thousand bins.
    "one RoI": ((1, 64, 30, 41), 1, (14, 14), 1 / 4, 2, True),
    "fixed": ((2, 64, 50, 43), 60, (7, 7), 1 / 4, 2, True),
    "legacy": ((3, 37, 33, 27), 60, (5, 14), 1 / 16, 3, False),
    "adaptive": ((1, 130, 25, 34), 20, (14, 9), 1 / 16, 0, True),
    "narrow": ((2, 9, 11, 5), 40, (3, 11), 0.37, -1, False),
    "one pixel": ((2, 3, 1, 1), 300, (2, 9), 1.0, 2, False),
    # More rows than a map is cut into pieces, and few pieces with work.
    "tall": ((2, 3, 9_000, 2), 20, (5, 3), 1.0, 2, True),
    "wide": ((1, 3, 2, 9_000), 20, (5, 3), 1.0, 0, True),
    # More RoIs than are planned at once: the gradients of one pixel are summed over several plans.
    "many": ((1, 1, 24, 24), 20_000, (1, 1), 1.0, 0, False),
}
ROWS = {name: variant for name, variant in DIRECTIONS.items() if variant[1] != "backward"}
OF_NARROW = ("fixed", "narrow")


def make(operator, case, dtype="float32", spoiled=None):
    """The call of a case; position-sensitive operators have that many channels in their maps, not outputs."""
    (images, channels, *size), count, output_size, *arguments = CASES[case]
    if operator.position_sensitive:
        channels = max(channels // (output_size[0] * output_size[1]), 2)
    arguments = dict(zip(("spatial_scale", "sampling_ratio", "aligned"), arguments, strict=True))
    rng = np.random.default_rng(0)
    shape = (images, channels, *size)
    return operator.make(rng, shape, count, output_size, arguments, dtype, spoiled=spoiled)


def kinds(operator, case):
    """(dtype, spoiled) for a case: some of the numbers are NaN or infinite, or none is."""
    narrow = [dtype for dtype in operator.dtypes if dtype in INSTALLED and case in OF_NARROW]
    floats = FLOATS if case != "many" else ("float64",)
    return [(dtype, 0) for dtype in (*floats, *narrow)] + [("float32", 501)]


def as_bits(results):
    return [bits(one) for one in results]


@every_direction
@pytest.mark.parametrize("case", CASES)
def test_threads_and_layouts(operator, direction, case):
    """All but the gradient to a map takes the same steps in any layout; that, those that suit the layout."""
    for dtype, spoiled in kinds(operator, case):
        call, first = make(operator, case, dtype, spoiled), None
        for layout in operator.layouts:
            results = operator.run(direction, call, layout, num_threads=1)
            expected = as_bits(results)
            for threads in THREADS if not spoiled and case != "many" else THREADS[1:2]:
                actual = as_bits(operator.run(direction, call, layout, num_threads=threads))
                assert actual == expected, f"{dtype}, {layout}, {spoiled=} differs on {threads} threads"
            first = first or (results, expected)
            if direction != "backward":
                assert expected == first[1], f"{dtype}, {spoiled=} differs in {layout}"
            elif not spoiled:
                for one, two in zip(first[0], results, strict=True):
                    one, two = one.astype(float), two.astype(float)
                    atol = 30 * ULPS[results[0].dtype.name] * np.abs(one).max()
                    np.testing.assert_allclose(one, two, rtol=0, atol=atol)


@pytest.mark.parametrize(("operator", "direction"), ROWS.values(), ids=ROWS)
@every_layout
def test_other_boxes(operator, direction, layout):
    """Each row of an output or of the boxes' gradient is what its box alone gives, in any order of boxes."""
    for case in ("legacy", "narrow"):
        call = make(operator, case)
        [output] = operator.run(direction, call, layout)
        rng = np.random.default_rng(1)
        order = rng.permutation(len(call.boxes))
        order = order[np.argsort(call.boxes[order, 0], kind="stable")] if operator.by_image else order
        for rows in (order, order[::3], *([k] for k in order[:7])):
            [alone] = operator.run(direction, part_of(call, rows), layout)
            assert alone.tobytes() == output[rows].tobytes()


def part_of(call, rows):
    return call._replace(boxes=call.boxes[rows], grad_output=call.grad_output[rows])


@every_operator
@every_layout
def test_many_boxes(operator, layout):
    """Calls with very many boxes are carried out in chunks, which a caller cannot see.

    The gradient to a map is, but for rounding, the sum of what parts of the call give.
    """
    call = make(operator, "many", "float64")
    parts = [part_of(call, rows) for rows in np.array_split(np.arange(len(call.boxes)), 40)]
    for direction in operator.directions:
        whole = operator.run(direction, call, layout)
        of_parts = [operator.run(direction, part, layout) for part in parts]
        for result, *pieces in zip(whole, *of_parts, strict=True):
            if direction != "backward":
                assert result.tobytes() == np.concatenate(pieces).tobytes()
            else:
                atol = 1e-13 * np.abs(result).max()
                np.testing.assert_allclose(result, np.sum(pieces, axis=0), rtol=0, atol=atol)


@every_operator
@every_layout
def test_gradients_of_images(operator, layout):
    """The gradient of an image does not depend on the boxes of others."""
    call = make(operator, "legacy")
    whole = operator.run("backward", call, layout)
    for image in range(3):
        alone = part_of(call, call.boxes[:, 0] == image)
        for result, of_image in zip(whole, operator.run("backward", alone, layout), strict=True):
            assert of_image[image].tobytes() == result[image].tobytes()
            assert not np.delete(of_image, image, axis=0).any()


def digests():
    """Digests of every operator, direction, dtype and layout, in a few calls each."""
    found = {}
    for name, (operator, direction) in DIRECTIONS.items():
        for dtype in operator.dtypes:
            for case in OF_NARROW if dtype in FLOATS else OF_NARROW[1:] if dtype in INSTALLED else ():
                call = make(operator, case, dtype, 0)
                for layout in operator.layouts:
                    results = as_bits(operator.run(direction, call, layout))
                    digest = hashlib.sha256(b"".join(results)).hexdigest()
                    found[f"{name}, {dtype}, {case}, {layout}"] = digest
    return found


@pytest.fixture(scope="module")
def digests_here():
    return digests()


@pytest.mark.skipif(
    bool(FORCED), reason="the suite runs at one level: the run without CYROIALIGN_SIMD compares"
)
@pytest.mark.parametrize("level", LEVELS[:-1])
def test_simd_levels(level, digests_here, run_python):
    """A cheap check: the whole suite should be run at every level, with CYROIALIGN_SIMD."""
    code = f"""
        import json, test_same_bits
        assert test_same_bits.cyroialign.show_config(as_dict=True)["simd"] == {level!r}
        print(json.dumps(test_same_bits.digests()))
    """
    found = json.loads(run_python(code, CYROIALIGN_SIMD=level, timeout=300).stdout)
    assert {name for name in found if found[name] != digests_here[name]} == set()


@pytest.mark.parametrize("level", ["sse9", "AVX2 ", "baseline,avx2"])
def test_unknown_simd_level_is_an_import_error(level, run_python):
    done = run_python("import cyroialign", check=False, CYROIALIGN_SIMD=level)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: CYROIALIGN_SIMD={level!r}")
    assert ", ".join(LEVELS) in message


def test_empty_simd_variable_is_as_none(run_python):
    code = "import cyroialign; print(cyroialign.show_config(as_dict=True)['simd'])"
    assert run_python(code, CYROIALIGN_SIMD="").stdout.strip() == LEVELS[-1]

"""The same bits for every number of threads, every SIMD level and whatever other boxes are in the call."""

import hashlib
import json
import os

import numpy as np
import pytest
from narrow import INSTALLED, NARROW, ULPS, bits
from operators import DIRECTIONS, FLOATS, OPERATORS, every_direction, every_layout, every_operator

import cyroialign

LEVELS = cyroialign.show_config(as_dict=True)["simd_levels"]
FORCED = os.environ.get("CYROIALIGN_SIMD")
THREADS = (2, 3, 8, 64)
CASES = {  # name -> (shape, boxes, output_size, spatial_scale, sampling_ratio, aligned)
    # Small calls run on one thread whatever is asked for: each of these has many thousand bins.
    "one RoI": ((1, 64, 30, 41), 1, (14, 14), 1 / 4, 2, True),
    "fixed": ((2, 64, 50, 43), 60, (7, 7), 1 / 4, 2, True),
    "legacy": ((3, 37, 33, 27), 60, (5, 14), 1 / 16, 3, False),
    "adaptive": ((1, 300, 25, 34), 20, (14, 9), 1 / 16, 0, True),
    "narrow": ((2, 9, 11, 5), 40, (3, 11), 0.37, -1, False),
    "one pixel": ((2, 3, 1, 1), 300, (2, 9), 1.0, 2, False),
    # More RoIs than are planned at once: the gradients of one pixel are summed over several plans.
    "many": ((1, 1, 64, 64), 20_000, (1, 1), 1.0, 0, False),
}
SMALL = ("fixed", "adaptive", "narrow", "many")


def make(operator, case, dtype="float32", spoiled=None):
    """The call of a case; position-sensitive operators have as many channels in their maps, not outputs."""
    (images, channels, *size), count, output_size, *arguments = CASES[case]
    if operator.position_sensitive:
        channels = max(channels // (output_size[0] * output_size[1]), 2)
    arguments = dict(zip(("spatial_scale", "sampling_ratio", "aligned"), arguments, strict=True))
    rng = np.random.default_rng(0)
    shape = (images, channels, *size)
    return operator.make(rng, shape, count, output_size, arguments, dtype, spoiled=spoiled)


def some(case, dtype, layout):
    """Narrow types in some cases, the rest in the first layout alone where the other adds little."""
    return case in SMALL or (dtype in FLOATS and (layout == "NCHW" or dtype == "float32"))


def as_bits(results):
    return [bits(one) for one in results]


@every_direction
@every_layout
@pytest.mark.parametrize("case", CASES)
def test_threads(operator, direction, case, layout):
    for dtype in operator.dtypes:
        if dtype not in (*FLOATS, *INSTALLED) or not some(case, dtype, layout):
            continue
        for spoiled in (0, 501):
            call = make(operator, case, dtype, spoiled)
            expected = as_bits(operator.run(direction, call, layout, num_threads=1))
            for threads in THREADS if not spoiled else THREADS[1:2]:
                actual = as_bits(operator.run(direction, call, layout, num_threads=threads))
                assert actual == expected, f"{dtype}, {spoiled=} differs on {threads} threads"


@every_operator
@pytest.mark.parametrize("case", CASES)
def test_layouts(operator, case):
    """Forward takes the same steps in either layout; backward takes them in the order that suits it."""
    for dtype in operator.dtypes:
        if dtype in NARROW and (dtype not in INSTALLED or case not in SMALL):
            continue
        for direction in operator.directions:
            call = make(operator, case, dtype, 0)
            first, *others = (operator.run(direction, call, layout) for layout in operator.layouts)
            for other in others:
                if direction != "backward":
                    assert as_bits(other) == as_bits(first)
                for one, two in zip(first, other, strict=True):
                    atol = 30 * ULPS[one.dtype.name] * np.abs(one.astype(float)).max()
                    np.testing.assert_allclose(one.astype(float), two.astype(float), rtol=0, atol=atol)


@every_direction
@every_layout
def test_other_boxes(operator, direction, layout):
    """Each row of an output or of the boxes' gradient is what its box alone gives, in any order of boxes.

    A gradient to a map is, but for rounding, the sum of what parts of the call give; that of an image does
    not depend on boxes of other images.
    """
    if direction == "backward":
        pytest.skip("see test_gradients_of_parts")
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
    """Calls with very many boxes are carried out in portions, which a caller cannot tell."""
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
            for case in SMALL[:3] if dtype in (*FLOATS, *INSTALLED) else ():
                for layout in operator.layouts:
                    call = make(operator, case, dtype, 0)
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
    """A cheap look: the suite itself is to be run at every level, with CYROIALIGN_SIMD."""
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

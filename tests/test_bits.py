"""The same bits for every number of threads and every SIMD level; forward for either layout too."""

import hashlib
import json

import numpy as np
import pytest
from narrow import INSTALLED, NARROW, ULPS, bits, dtype_of, numbers, result_of
from reference import random_boxes

from cyroialign import roi_align, roi_align_backward, show_config

LEVELS = show_config(as_dict=True)["simd_levels"]
THREADS = (1, 2, 3, 5, 8, 64)


def calls():
    """A mixed bag: name -> (shape, dtype, layout, boxes, output_size, the arguments after it).

    Small calls run on one thread whatever is asked for: each of these has many thousand bins.
    """
    rng = np.random.default_rng(0)
    bag = {}
    for dtype in ("float32", "float64", *NARROW):
        for layout in ("NCHW", "NHWC"):
            for name, shape, count, output_size, *arguments in [
                ("one RoI", (1, 64, 30, 41), 1, (14, 14), 1 / 4, 2, True),
                ("fixed", (2, 64, 50, 43), 60, (7, 7), 1 / 4, 2, True),
                ("legacy", (3, 37, 33, 27), 60, (5, 14), 1 / 16, 3, False),
                ("adaptive", (1, 300, 25, 34), 20, (14, 9), 1 / 16, 0, True),
                ("narrow", (2, 9, 11, 5), 40, (3, 11), 0.37, -1, False),
                ("one pixel", (2, 3, 1, 1), 300, (2, 9), 1.0, 2, False),
            ]:
                boxes = random_boxes(rng, count, shape, arguments[0])
                if dtype not in NARROW or name in ("fixed", "adaptive", "narrow"):
                    bag[f"{name}, {dtype}, {layout}"] = (shape, dtype, layout, boxes, output_size, arguments)
    shape = (2, 12, 40, 31)
    boxes = random_boxes(rng, 50, shape, 0.37)
    for box_dtype in ("float64", "float16", "int32"):
        bag[f"boxes of {box_dtype}"] = (shape, "float32", "NCHW", boxes.astype(box_dtype), (7, 7), [0.37])
    huge = boxes.astype(np.float64) * [1, 1e6, 1e9, 1e7, 1e8]
    bag["huge"] = (shape, "float32", "NCHW", huge, (7, 7), [0.37])
    bag["huge, float32"] = (shape, "float32", "NCHW", huge.astype(np.float32), (7, 7), [0.37])
    # More RoIs than are planned at once: the gradients of one pixel are summed over several plans.
    shape = (1, 1, 64, 64)
    for dtype in ("float32", "float64", "float16"):
        bag[f"many, {dtype}"] = (shape, dtype, "NCHW", random_boxes(rng, 20_000, shape), (1, 1), [1.0])
    return bag


def calls_here():
    """Those of the dtypes that are installed."""
    return {name: call for name, call in calls().items() if call[1] in INSTALLED or call[1] not in NARROW}


def results(call, num_threads=None, spoiled=False):
    """Forward and backward results as bytes; spoiled: with NaN and infinities here and there."""
    shape, dtype, layout, boxes, output_size, arguments = call
    rng = np.random.default_rng(1)
    dtype = dtype_of(dtype)
    input = numbers(rng, shape, dtype, 501 * spoiled)
    grad_output = numbers(rng, (len(boxes), shape[1], *output_size), result_of(dtype), 501 * spoiled)
    if layout == "NHWC":
        input, grad_output = (np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in (input, grad_output))
    settings = {"layout": layout, "num_threads": num_threads}
    forward = roi_align(input, boxes, output_size, *arguments, **settings)
    backward = roi_align_backward(grad_output, boxes, input.shape, *arguments, **settings)
    if layout == "NHWC":
        forward, backward = (x.transpose(0, 3, 1, 2) for x in (forward, backward))
    return bits(forward), bits(backward)


def digests():
    return {
        f"{name}, {spoiled=}": [
            hashlib.sha256(result).hexdigest() for result in results(call, spoiled=spoiled)
        ]
        for name, call in calls_here().items()
        for spoiled in (False, True)
    }


@pytest.mark.parametrize("name", calls())
def test_threads(name):
    call = calls()[name]
    expected = results(call, num_threads=THREADS[0])
    for num_threads in THREADS[1:]:
        assert results(call, num_threads) == expected, f"differs on {num_threads} threads"


@pytest.mark.parametrize("name", [name for name in calls() if name.endswith("NCHW")])
def test_layouts(name):
    """Forward takes the same steps in either layout; backward takes them in the order that suits it."""
    shape, dtype, _, *rest = calls()[name]
    first, last = (results((shape, dtype, layout, *rest)) for layout in ("NCHW", "NHWC"))
    assert first[0] == last[0]
    dtype = result_of(dtype_of(dtype))
    gradients = [np.frombuffer(result[1], dtype).astype(float) for result in (first, last)]
    atol = 30 * ULPS[dtype.name] * abs(gradients[0]).max()
    np.testing.assert_allclose(*gradients, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def digests_here():
    return digests()


@pytest.mark.parametrize("level", LEVELS)
def test_simd_levels(level, digests_here, run_python):
    code = f"""
        import json, test_bits
        assert test_bits.show_config(as_dict=True)["simd"] == {level!r}
        print(json.dumps(test_bits.digests()))
    """
    assert json.loads(run_python(code, CYROIALIGN_SIMD=level).stdout) == digests_here


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

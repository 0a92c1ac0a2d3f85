"""What RoIAlign of volumes promises: bounded memory, the same bits, no access beyond arrays."""

import hashlib
import json

import numpy as np
import pytest
from memory import guarded, peak_memory
from narrow import INSTALLED, ULPS, bits, dtype_of, numbers, result_of
from reference_bounded import axis_weights
from test_volumes import TO_FIRST, in_layout, some_boxes

from cyroialign import roi_align_3d, roi_align_3d_backward, show_config

SHAPE, BINS = (1, 3, 21, 40, 33), (3, 7, 5)
AROUND = (-0.5, -0.5, 0.5, 0.5)  # of a box centred at the origin
RIGHT = (0.0, 0.0, 1.0, 1.0)  # of a box that begins at the origin
LEFT = (-1.0, -1.0, 0.0, 0.0)
BORDERS = (-2.0, -3.0, 3.0, 4.0)  # of a box with the origin between its bins


def cubes(corners, scale):
    """Boxes that reach as far on z as on y."""
    corners = np.atleast_2d(np.multiply(corners, scale))
    return corners[:, [0, 1, 1, 2, 3, 3]]


CASES = {  # name -> (dtype, boxes, sampling_ratio, aligned)
    "1e9": ("float32", cubes(AROUND, 1e9), 0, True),
    "1e9, float64": ("float64", cubes(AROUND, 1e9), 0, True),
    "1e9, legacy": ("float32", cubes(AROUND, 1e9), -1, False),
    "1e9, from the origin": ("float32", cubes(RIGHT, 1e9), 0, False),
    "1e9, inverted": ("float32", cubes(AROUND, -1e9), 0, True),
    "1e9, deep only": ("float32", [[3, 2, -4e8, 21, 30, 6e8]], 0, True),
    "1e9, beside the volume": ("float64", [[1, 2, 1e9, 21, 30, 2e9]], 0, True),
    "1e5, 999 samples": ("float32", cubes(AROUND, 1e5), 999, True),
    "1e5, 999 samples, mirrored": ("float64", cubes(AROUND, -1e5), 999, True),
    "1e17": ("float64", cubes(AROUND, 1e17), 0, True),
    "1e30, to the origin": ("float32", cubes(LEFT, 1e30), 0, True),
    "1e300": ("float64", cubes(AROUND, 1e300), 0, True),
    "borders at the origin": ("float32", cubes(BORDERS, 2.0**90), 0, False),
    "many": ("float32", cubes(AROUND, np.geomspace(1, 1e30, 150)[:, None]), 0, True),
    "many, float64": (
        "float64",
        cubes(AROUND, np.geomspace(1, 1e16, 150)[:, None] * [-1, 1, -1, 1]),
        0,
        True,
    ),
}


def arrays(name):
    dtype, corners, sampling_ratio, aligned = CASES[name]
    boxes = np.hstack([np.zeros((len(corners), 1)), corners]).astype(dtype)
    rng = np.random.default_rng(0)
    input = rng.standard_normal(SHAPE).astype(dtype)
    grads = rng.standard_normal((len(boxes), SHAPE[1], *BINS)).astype(dtype)
    return input, grads, boxes, (1.0, sampling_ratio, aligned)


def work(name, layout, path):
    """What the other process does: both directions, after one small call that starts the threads."""
    input, grads, boxes, arguments = arrays(name)
    input, grads = in_layout(input, layout), in_layout(grads, layout)
    roi_align_3d(input, boxes[:1] * 0, BINS, layout=layout)
    before = peak_memory()
    output = roi_align_3d(input, boxes, BINS, *arguments, layout=layout)
    gradient = roi_align_3d_backward(grads, boxes, input.shape, *arguments, layout=layout)
    growth = -1 if before is None else peak_memory() - before - output.nbytes - gradient.nbytes
    np.savez(path, output=output, gradient=gradient, growth=growth)


def expected(name):
    input, grads, boxes, arguments = arrays(name)
    output, gradient = np.zeros(grads.shape), np.zeros(SHAPE)
    for k, (_, x1, y1, z1, x2, y2, z2) in enumerate(boxes):
        sides = zip((z1, y1, x1), (z2, y2, x2), BINS, SHAPE[2:], strict=True)
        with np.errstate(over="ignore"):
            z, y, x = (axis_weights(*side, *arguments, boxes.dtype.type) for side in sides)
        output[k] = np.einsum("dz,hy,wx,czyx->cdhw", z, y, x, input[0].astype(float), optimize=True)
        gradient[0] += np.einsum("dz,hy,wx,cdhw->czyx", z, y, x, grads[k].astype(float), optimize=True)
    return output, gradient


@pytest.mark.parametrize("layout", ["NCDHW", "NDHWC"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_memory_of_huge_boxes(name, layout, run_python, tmp_path):
    path = tmp_path / "results.npz"
    run_python(f"import test_volumes_promises as t; t.work({name!r}, {layout!r}, {str(path)!r})", timeout=60)
    results = np.load(path)
    tolerance, least = {"float32": (2e-6, 1e-37), "float64": (1e-14, 1e-300)}[CASES[name][0]]
    for actual, wanted in zip((results["output"], results["gradient"]), expected(name), strict=True):
        actual = actual if layout == "NCDHW" else actual.transpose(TO_FIRST)
        axes = (1, 2, 3, 4)
        allowed = tolerance * np.abs(wanted).max(axis=axes) + least
        assert (np.abs(actual - wanted).max(axis=axes) <= allowed).all()
    assert results["growth"] <= 64 * 2**20


WHOLE = (
    1,
    1,
    400,
    400,
    4,
)  # so many rows that a table for all that boxes might be is far larger than this one


def work_on_whole(layout):
    """What the other process does: a box that is all of the volume, among small ones."""
    low = np.random.default_rng(0).uniform(0, 2, (500, 3))
    corners = np.hstack([low, low + 1.5])
    corners[250] = 0, 0, 0, 4, 400, 400
    input = in_layout(np.ones(WHOLE, np.float32), layout)
    roi_align_3d(input, [corners[:1]], 2, layout=layout, aligned=True)
    before = peak_memory()
    output = roi_align_3d(input, [corners], 2, layout=layout, aligned=True)
    np.testing.assert_allclose(output, 1, rtol=2e-4)
    gradient = roi_align_3d_backward(output, [corners], input.shape, layout=layout, aligned=True)
    np.testing.assert_allclose(gradient.sum(dtype=float), 4000, rtol=1e-4)
    growth = -1 if before is None else peak_memory() - before - output.nbytes - gradient.nbytes
    print(growth)


@pytest.mark.parametrize("layout", ["NCDHW", "NDHWC"])
def test_memory_of_a_whole_volume(layout, run_python):
    done = run_python(f"import test_volumes_promises as t; t.work_on_whole({layout!r})", OMP_NUM_THREADS="2")
    assert int(done.stdout) <= 24 * 2**20


def bag():
    """A mixed bag: name -> (shape, dtype, boxes, output_size, the arguments after it)."""
    calls, rng = {}, np.random.default_rng(0)
    for dtype in ("float32", "float64", *INSTALLED):
        for name, shape, count, output_size, *arguments in [
            ("one RoI", (1, 40, 12, 15, 21), 1, (4, 7, 7), (0.5, 0.25, 0.25), 2, True),
            ("fixed", (2, 37, 12, 25, 23), 30, (3, 7, 5), 0.25, 2, True),
            ("legacy", (3, 9, 5, 13, 17), 30, (5, 3, 9), (1.0, 1 / 8, 1 / 8), 3, False),
            ("adaptive", (1, 70, 9, 25, 14), 10, (2, 5, 6), 1 / 4, 0, True),
            ("narrow", (2, 9, 11, 8, 3), 30, (9, 5, 4), 0.37, -1, False),
            ("one voxel", (2, 3, 1, 1, 1), 300, (1, 2, 9), 1.0, 2, False),
            # More RoIs than are planned at once.
            ("many", (1, 1, 20, 24, 6), 1500, (1, 2, 1), 1.0, 0, True),
        ]:
            scales = np.broadcast_to(arguments[0], 3)
            boxes = some_boxes(rng, count, tuple(scales), shape)
            calls[f"{name}, {dtype}"] = (shape, dtype, boxes, output_size, arguments)
    return calls


def results(call, layout, num_threads=None, spoiled=501):
    """Forward and backward results, in the order of NCDHW."""
    shape, dtype, boxes, output_size, arguments = call
    rng, dtype = np.random.default_rng(1), dtype_of(dtype)
    input = in_layout(numbers(rng, shape, dtype, spoiled), layout)
    grads = numbers(rng, (len(boxes), shape[1], *output_size), result_of(dtype), spoiled)
    settings = {"layout": layout, "num_threads": num_threads}
    forward = roi_align_3d(input, boxes, output_size, *arguments, **settings)
    backward = roi_align_3d_backward(in_layout(grads, layout), boxes, input.shape, *arguments, **settings)
    both = (forward, backward)
    return both if layout == "NCDHW" else tuple(one.transpose(TO_FIRST).copy() for one in both)


@pytest.mark.parametrize("name", bag())
def test_threads_and_layouts(name):
    call = bag()[name]
    one = {layout: results(call, layout, 1) for layout in ("NCDHW", "NDHWC")}
    for num_threads in (2, 5):
        for layout, expected in one.items():
            assert [*map(bits, results(call, layout, num_threads))] == [*map(bits, expected)]
    first, last = one.values()
    assert bits(first[0]) == bits(last[0])
    gradients = [results(call, layout, spoiled=0)[1].astype(float) for layout in one]
    atol = 30 * ULPS[result_of(dtype_of(call[1])).name] * abs(gradients[0]).max()
    np.testing.assert_allclose(*gradients, rtol=0, atol=atol)


@pytest.mark.parametrize("shape", [(1, 33, 2500, 5, 3), (2, 3, 1100, 2, 9)])
@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("mirrored", [[], [3], [2, 3]])
def test_deep_volumes(shape, ratio, mirrored):
    """More slices than there can be tiles, and bins that share them: none is left out or pooled twice."""
    rng = np.random.default_rng(0)
    boxes = some_boxes(rng, 40, shape=shape)
    boxes[:20, 6] = boxes[:20, 3] + 2
    for axis in mirrored:
        boxes[:, [axis, 3 + axis]] = boxes[:, [3 + axis, axis]]
    call = (shape, "float32", boxes, (4, 3, 5), [1.0, ratio, True])
    first, last = (results(call, layout, spoiled=0) for layout in ("NCDHW", "NDHWC"))
    assert bits(first[0]) == bits(last[0])
    np.testing.assert_allclose(first[1], last[1], rtol=0, atol=1e-5 * abs(first[1]).max())


def digests():
    return {
        f"{name}, {layout}": [hashlib.sha256(bits(one)).hexdigest() for one in results(call, layout)]
        for name, call in bag().items()
        for layout in ("NCDHW", "NDHWC")
    }


@pytest.mark.parametrize("level", show_config(as_dict=True)["simd_levels"])
def test_simd_levels(level, run_python):
    code = f"""
        import json, test_volumes_promises as t
        assert t.show_config(as_dict=True)["simd"] == {level!r}
        print(json.dumps(t.digests()))
    """
    assert json.loads(run_python(code, CYROIALIGN_SIMD=level).stdout) == digests()


def work_beside_guards(at_end):
    """What the other process does: it dies of the first access beyond an array."""
    rng = np.random.default_rng(0)
    for shape, output_size, *arguments in [
        ((1, 1, 2, 3, 5), (1, 1, 1), 1.0, 1, True),
        ((2, 3, 4, 7, 9), (2, 3, 2), 1.0, 2, True),
        ((1, 9, 3, 8, 8), (1, 2, 9), 1.0, 0, False),
        ((2, 17, 5, 1, 11), (4, 1, 7), 1.0, 3, False),
        ((1, 33, 6, 5, 1), (2, 5, 1), 1.0, 2, True),
        ((2, 20, 7, 9, 20), (3, 4, 5), 1.0, -1, True),
    ]:
        boxes = some_boxes(rng, 12, shape=shape).astype(np.float64)
        boxes[0, 1:] = 0, 0, 0, *shape[:1:-1]  # all of the volume
        for dtype in map(dtype_of, ("float32", "float64", *INSTALLED)):
            input = rng.integers(99, size=shape).astype(dtype)
            grads = rng.standard_normal((12, shape[1], *output_size)).astype(result_of(dtype))
            for layout in ("NCDHW", "NDHWC"):
                volumes, gradients, rows = (
                    guarded(one, at_end)
                    for one in (in_layout(input, layout), in_layout(grads, layout), boxes)
                )
                settings = {"layout": layout, "num_threads": 2}
                out = guarded(gradients, at_end)
                roi_align_3d(volumes, rows, output_size, *arguments, **settings, out=out)
                out = guarded(volumes.astype(result_of(dtype)), at_end)
                roi_align_3d_backward(gradients, rows, volumes.shape, *arguments, **settings, out=out)


@pytest.mark.skipif("sys.platform == 'win32'", reason="needs mprotect")
@pytest.mark.parametrize("at_end", [False, True])
def test_no_access_beyond_arrays(at_end, run_python):
    run_python(f"import test_volumes_promises as t; t.work_beside_guards({at_end})")

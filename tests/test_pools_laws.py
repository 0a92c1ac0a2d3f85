"""What must hold for RoIPool, PSRoIAlign and PSRoIPool whatever their values; the same bits everywhere."""

import hashlib
import json

import numpy as np
import pytest
import reference_pools
from pools import LAYOUTS, NAMES, arguments_of, arrays, backward, forward
from reference import random_boxes

from cyroialign import show_config

THREADS = (1, 2, 3, 24)
SENSITIVE = ("ps_roi_align", "ps_roi_pool")


def some_call(name, dtype=np.float64, count=40, shape=(2, 11, 17, 23), output_size=(5, 3)):
    """Input, gradient, boxes and arguments; the boxes end before the last row and column of the map."""
    input, grad_output = arrays(name, shape, dtype, count, output_size)
    boxes = random_boxes(np.random.default_rng(0), count, shape, 0.25)
    boxes[:, 1:] = np.minimum(boxes[:, 1:], np.subtract([shape[3], shape[2]] * 2, 2.0) * 4)
    return input, grad_output, boxes, arguments_of(name, 0.25, 2)


@pytest.mark.parametrize("name", SENSITIVE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-15)])
def test_backward_is_the_transpose(name, dtype, tolerance):
    input, grad_output, boxes, arguments = some_call(name, dtype)
    output = forward(name, input, boxes, (5, 3), arguments).astype(np.float64)
    gradient = backward(name, grad_output, input, boxes, (5, 3), arguments).astype(np.float64)
    terms = np.abs(output * grad_output).sum()
    assert abs((output * grad_output).sum() - (gradient * input).sum()) <= tolerance * terms


def test_ps_roi_pool_of_a_padded_map():
    """The last row and column are left out of the means alone: what the docstrings say of them."""
    input, grad_output = arrays("ps_roi_pool", (1, 3, 9, 8), np.float64, 20, (2, 3))
    boxes = random_boxes(np.random.default_rng(0), 20, (1, 18, 9, 8))
    padded = np.pad(input, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    output = forward("ps_roi_pool", padded, boxes, (2, 3), ())
    gradient = backward("ps_roi_pool", grad_output, input, boxes, (2, 3), ())
    np.testing.assert_allclose((output * grad_output).sum(), (gradient * input).sum(), rtol=1e-13)
    input[:, :, -1] = input[:, :, :, -1] = np.nan
    assert np.isfinite(forward("ps_roi_pool", input, boxes, (2, 3), ())).all()


@pytest.mark.parametrize("name", SENSITIVE)
def test_both_are_linear(name):
    a, g, boxes, arguments = some_call(name)
    b, h = a[:, ::-1] ** 3, g[::-1] ** 3

    def pool(input):
        return forward(name, input, boxes, (5, 3), arguments)

    def unpool(grad_output):
        return backward(name, grad_output, a, boxes, (5, 3), arguments)

    np.testing.assert_allclose(pool(2 * a - 3 * b), 2 * pool(a) - 3 * pool(b), rtol=0, atol=1e-14)
    np.testing.assert_allclose(unpool(2 * g - 3 * h), 2 * unpool(g) - 3 * unpool(h), rtol=0, atol=1e-12)


def test_roi_pool_gives_what_it_takes():
    """Each bin is the number at the pixel that its gradient goes to."""
    input, _, boxes, arguments = some_call("roi_pool")
    output = forward("roi_pool", input, boxes, (5, 3), arguments)
    for k, c, i, j in np.ndindex(4, 11, 5, 3):
        grad_output = np.zeros((1, 11, 5, 3))
        grad_output[0, c, i, j] = 1
        gradient = backward("roi_pool", grad_output, input, boxes[k : k + 1], (5, 3), arguments)
        assert (gradient * input).sum() == output[k, c, i, j]
        assert np.abs(gradient).sum() == (output[k, c, i, j] != 0)


def test_roi_pool_of_whole_blocks():
    input = some_call("roi_pool", shape=(1, 11, 12, 18))[0]
    output = forward("roi_pool", input, np.array([[0.0, 0, 0, 17, 11]]), (4, 3), ())
    np.testing.assert_array_equal(output[0], input.reshape(11, 4, 3, 3, 6).max(axis=(2, 4)))


@pytest.mark.parametrize("name", SENSITIVE)
def test_channels_of_bins(name):
    """Each bin reads its own channels and no other."""
    input = np.broadcast_to(np.arange(30.0)[:, None, None], (1, 30, 12, 13))
    output = forward(name, input, np.array([[0.0, 1, 1, 9, 10]]), (5, 3), ())
    np.testing.assert_allclose(output, np.arange(30).reshape(1, 2, 5, 3), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_other_boxes(name, layout):
    input, _, boxes, arguments = some_call(name, np.float32)
    output = forward(name, input, boxes, (5, 3), arguments, layout)
    for k in range(0, len(boxes), 7):
        alone = forward(name, input, boxes[k : k + 1], (5, 3), arguments, layout)
        assert alone.tobytes() == output[k].tobytes()


@pytest.mark.parametrize("name", SENSITIVE)
def test_portions(name):
    """Calls with very many boxes are carried out in portions."""
    shape, count = (2, 1, 64, 64), 5000
    input, grad_output = arrays(name, shape, np.float64, count, (1, 2))
    boxes = random_boxes(np.random.default_rng(0), count, shape)
    output = forward(name, input, boxes, (1, 2), ())
    gradient, expected = backward(name, grad_output, input, boxes, (1, 2), ()), 0
    for part in np.array_split(np.arange(count), 10):
        assert forward(name, input, boxes[part], (1, 2), ()).tobytes() == output[part].tobytes()
        expected = expected + backward(name, grad_output[part], input, boxes[part], (1, 2), ())
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SENSITIVE)
def test_locality(name, layout):
    """What no bin has among its pixels, or neighbours of its samples, does not matter, be it NaN."""
    input, grad_output, boxes, arguments = some_call(name, count=6)

    def pixels(box):
        return reference_pools.weighted_pixels(
            name, "backward", box, input.shape[2:], (5, 3), arguments, np.float64
        )

    used = np.zeros((2, 11, 5, 3, *input.shape[2:]), bool)
    for box in boxes:
        for i, j, y, x, _ in pixels(box):
            used[int(box[0]), :, i, j, y, x] = True
    used = used.reshape(input.shape)
    expected = forward(name, np.where(used, input, 0), boxes, (5, 3), arguments, layout)
    output = forward(name, np.where(used, input, np.nan), boxes, (5, 3), arguments, layout)
    assert output.tobytes() == expected.tobytes()
    clean = backward(name, grad_output, input, boxes, (5, 3), arguments, layout)
    grad_output[5, 4, 1, 2] = np.inf
    may, must = np.zeros((2, *input.shape), bool)
    for _, _, y, x, weight in (n for n in pixels(boxes[5]) if n[:2] == (1, 2)):
        place = int(boxes[5, 0]), (4 * 5 + 1) * 3 + 2, y, x
        may[place], must[place] = True, must[place] or weight > 0
    grad_input = backward(name, grad_output, input, boxes, (5, 3), arguments, layout)
    assert must.any()
    assert not np.isfinite(grad_input[must]).any()
    np.testing.assert_array_equal(grad_input[~may], clean[~may])


def calls():
    """A mixed bag: name -> (operator, shape, dtype, layout, boxes, output_size, arguments)."""
    rng = np.random.default_rng(0)
    bag = {}
    for name in NAMES:
        for dtype in ("float32", "float64"):
            for layout in LAYOUTS:
                many = 24 if name == "roi_pool" else 3
                for kind, shape, count, output_size, scale in [
                    ("one RoI", (1, 2 * many, 30, 41), 1, (14, 9), 1 / 4),
                    ("some", (2, many - 1, 50, 43), 60, (7, 7), 1 / 4),
                    ("narrow", (3, 9, 11, 5), 90, (3, 11), 0.37),
                    ("one channel", (1, 1, 90, 70), 700, (2, 3), 1.0),
                ]:
                    boxes = random_boxes(rng, count, shape, scale)
                    arguments = arguments_of(name, scale, 0 if kind == "some" else 2)
                    bag[f"{name}, {kind}, {dtype}, {layout}"] = (
                        (name, shape, dtype, layout, boxes, output_size, arguments)
                    )  # fmt: skip
    return bag


def results(call, num_threads=None, spoiled=False):
    """Forward and backward results as bytes; spoiled: NaN, infinities and zeros of either sign."""
    name, shape, dtype, layout, boxes, output_size, arguments = call
    input, grad_output = arrays(name, shape, dtype, len(boxes), output_size)
    if spoiled:
        input = np.where(np.abs(input) < 0.9, np.copysign(0, input), -1).astype(dtype)
        for array in (input, grad_output):
            array.flat[::501] = np.resize([np.nan, np.inf, -np.inf], array.flat[::501].shape)
    settings = {"layout": layout, "num_threads": num_threads}
    both = (
        forward(name, input, boxes, output_size, arguments, **settings),
        backward(name, grad_output, input, boxes, output_size, arguments, **settings),
    )
    # IEEE leaves the sign and payload of a NaN open, and compilers order operands as they like.
    return tuple(np.where(np.isnan(x), np.nan, x).astype(dtype).tobytes() for x in both)


@pytest.mark.parametrize("name", calls())
def test_threads(name):
    call = calls()[name]
    for spoiled in (False, True):
        expected = results(call, THREADS[0], spoiled)
        for num_threads in THREADS[1:]:
            assert results(call, num_threads, spoiled) == expected, f"differs on {num_threads} threads"


@pytest.mark.parametrize("name", [name for name in calls() if name.endswith("NCHW")])
def test_layouts(name):
    operator, shape, dtype, _, *rest = calls()[name]
    for spoiled in (False, True):
        expected = results((operator, shape, dtype, "NCHW", *rest), spoiled=spoiled)
        assert results((operator, shape, dtype, "NHWC", *rest), spoiled=spoiled) == expected


def digests():
    return {
        f"{name}, {spoiled=}": [
            hashlib.sha256(result).hexdigest() for result in results(call, spoiled=spoiled)
        ]
        for name, call in calls().items()
        for spoiled in (False, True)
    }


@pytest.mark.parametrize("level", show_config(as_dict=True)["simd_levels"])
def test_simd_levels(level, run_python):
    code = """
        import json, test_pools_laws
        print(json.dumps(test_pools_laws.digests()))
    """
    assert json.loads(run_python(code, CYROIALIGN_SIMD=level).stdout) == digests()

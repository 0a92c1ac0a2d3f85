"""Pooling from all levels at once: torchvision's results, the bits of single levels, laws, refusals."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from narrow import numbers, result_of

from cyroialign import MultiScaleRoIAlign, assign_levels, infer_scales, roi_align, roi_align_backward
from cyroialign.pyramid.levels import level_range

GOLDENS = np.load(pathlib.Path(__file__).parent / "data" / "torchvision_multiscale.npz")
CASES = json.loads(str(GOLDENS["cases"]))
NAMES = ["p2", "p3", "p4", "p5"]
AXES = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}
INF, NAN = float("inf"), float("nan")


def some_call(dtype="float32", layout="NCHW", images=2, channels=11, side=(160, 224), count=30, seed=0):
    """A pyramid of strides 4 to 32, boxes of all sizes, some odd, and the shapes of the images."""
    rng = np.random.default_rng(seed)
    x, boxes = {}, []
    for level, name in enumerate(NAMES, 2):
        size = (images, channels, max(side[0] >> level, 1), max(side[1] >> level, 1))
        x[name] = np.ascontiguousarray(numbers(rng, size, np.dtype(dtype)).transpose(AXES[layout]))
    for _ in range(images):
        sides = 2 ** rng.uniform(2, 9, (count, 2))
        start = rng.uniform(-0.2, 0.9, (count, 2)) * [side[1], side[0]]
        boxes.append(np.hstack([start, start + sides]).astype("float32"))
    boxes[0][:2] = [[50, 60, 20, 10], [30, 30, 30, 30]]  # inverted, and a point
    return x, boxes, [side] * images


every_mode = pytest.mark.parametrize("mode", ["avg", "max", "onnx_max"])


def pooler(output_size=(7, 5), sampling_ratio=2, **settings):
    return MultiScaleRoIAlign(NAMES, output_size, sampling_ratio, canonical_scale=56, **settings)


def levels_of(x, boxes, shapes, layout="NCHW"):
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    scales = infer_scales([[x[name].shape[axis] for axis in axes] for name in NAMES], shapes)
    return scales, assign_levels(boxes, *level_range(scales), canonical_scale=56)


def by_level(x, boxes, shapes, grad_output, layout, output_size, sampling_ratio, aligned, mode="avg"):
    """What the calls of single levels give, gathered: the result and the gradients."""
    scales, levels = levels_of(x, boxes, shapes, layout)
    index = np.repeat(np.arange(len(boxes)), [len(one) for one in boxes])
    rows = np.concatenate(boxes)
    output, gradients = np.empty_like(grad_output), {}
    for level, name in enumerate(NAMES):
        at = levels == level
        settings = {"batch_indices": index[at], "layout": layout, "mode": mode}
        arguments = (scales[level], sampling_ratio, aligned)
        output[at] = roi_align(x[name], rows[at], output_size, *arguments, **settings)
        gradients[name] = roi_align_backward(
            grad_output[at], rows[at], x[name].shape, *arguments, input=x[name], **settings
        )
    return output, gradients


def gradient_for(x, boxes, layout="NCHW", output_size=(7, 5)):
    count, channels = sum(map(len, boxes)), x["p2"].shape[1 if layout == "NCHW" else 3]
    shape = (count, channels, *output_size)
    values = numbers(np.random.default_rng(9), shape, result_of(x["p2"].dtype))
    return np.ascontiguousarray(values.transpose(AXES[layout]))


def same_bits(gradients, expected):
    return all(gradients[name].tobytes() == expected[name].tobytes() for name in NAMES)


@pytest.mark.parametrize("layout", AXES)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_goldens(case, layout):
    settings = {**CASES[case], "layout": layout}
    shapes = settings.pop("image_shapes")
    read = {
        key: np.ascontiguousarray(GOLDENS[f"{case:03}/{key}"].transpose(AXES[layout]))
        for key in ("output", "grad_output", *(f"feature_{n}" for n in settings["featmap_names"]))
    }
    x = {name: read[f"feature_{name}"] for name in settings["featmap_names"]}
    boxes = [GOLDENS[f"{case:03}/boxes_{image}"] for image in range(len(shapes))]
    pool = MultiScaleRoIAlign(**settings)
    np.testing.assert_allclose(pool(x, boxes, shapes), read["output"], rtol=0, atol=4e-6)
    gradients = pool.backward(read["grad_output"], x, boxes, shapes)
    assert list(gradients) == settings["featmap_names"]
    for name, gradient in gradients.items():
        expected = GOLDENS[f"{case:03}/grad_feature_{name}"].transpose(AXES[layout])
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", AXES)
@pytest.mark.parametrize(("sampling_ratio", "aligned"), [(2, False), (0, True)])
@every_mode
def test_bits_are_those_of_single_levels(dtype, layout, sampling_ratio, aligned, mode):
    call = some_call(dtype, layout, channels=37)
    grad_output = gradient_for(*call[:2], layout)
    arguments = {"sampling_ratio": sampling_ratio, "aligned": aligned, "mode": mode}
    expected = by_level(*call, grad_output, layout, (7, 5), **arguments)
    _, levels = levels_of(*call, layout)
    assert set(levels) == {0, 1, 2, 3}
    pool = pooler(**arguments, layout=layout)
    assert pool(*call).tobytes() == expected[0].tobytes()
    assert same_bits(pool.backward(grad_output, *call), expected[1])


@every_mode
@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8"])
def test_bits_of_narrow_maps(dtype, mode):
    call = some_call(dtype)
    grad_output = gradient_for(*call[:2])
    expected = by_level(*call, grad_output, "NCHW", (7, 5), 2, True, mode)
    pool = pooler(aligned=True, mode=mode)
    assert pool(*call).tobytes() == expected[0].tobytes()
    assert same_bits(pool.backward(grad_output, *call), expected[1])


@given(
    seed=st.integers(0, 99),
    images=st.integers(1, 3),
    channels=st.integers(1, 19),
    side=st.tuples(st.integers(8, 200), st.integers(8, 300)),
    count=st.integers(2, 9),
    output_size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sampling_ratio=st.integers(-1, 3),
    aligned=st.booleans(),
    layout=st.sampled_from(list(AXES)),
    num_threads=st.integers(1, 3),
    mode=st.sampled_from(["avg", "max", "onnx_max"]),
)
def test_any_shapes(seed, layout, output_size, sampling_ratio, aligned, num_threads, mode, **sizes):
    call = some_call(layout=layout, seed=seed, **sizes)
    grad_output = gradient_for(*call[:2], layout, output_size)
    expected = by_level(*call, grad_output, layout, output_size, sampling_ratio, aligned, mode)
    options = {"aligned": aligned, "layout": layout, "num_threads": num_threads, "mode": mode}
    pool = pooler(output_size, sampling_ratio, **options)
    assert pool(*call).tobytes() == expected[0].tobytes()
    assert same_bits(pool.backward(grad_output, *call), expected[1])


@every_mode
def test_memory_orders(mode):
    """Maps in mixed memory orders, strides and byte orders; the result has the order of the first."""
    x, *rest = some_call()
    pool = pooler(mode=mode)
    expected, grads = pool(x, *rest), gradient_for(x, rest[0])
    gradients = pool.backward(grads, x, *rest)
    last = {name: np.ascontiguousarray(x[name].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for name in x}
    for mixed in (
        last,
        {**x, "p3": last["p3"]},
        {**last, "p2": x["p2"], "p5": x["p5"].astype(">f4")},
        {**last, "p4": np.repeat(x["p4"], 2, axis=3)[..., ::2]},
    ):
        output = pool(mixed, *rest)
        assert output.tobytes() == expected.tobytes()
        assert output.transpose(0, 2, 3, 1).flags.c_contiguous == (mixed["p2"] is last["p2"])
        assert same_bits(pool.backward(grads, mixed, *rest), gradients)


@pytest.mark.parametrize("layout", AXES)
@every_mode
def test_images_and_levels_without_boxes(layout, mode):
    x, boxes, shapes = some_call(layout=layout)
    pool = pooler(layout=layout, mode=mode)
    for few in ([boxes[0], boxes[1][:0]], [boxes[0][:0], boxes[1]]):
        output, both = pool(x, few, shapes), pool(x, boxes, shapes)
        assert output.tobytes() == (both[:30] if len(few[0]) else both[30:]).tobytes()
        gradients = pool.backward(np.ones_like(output), x, few, shapes)
        empty = 1 if len(few[0]) else 0
        assert all(not gradient[empty].any() for gradient in gradients.values())
        assert all(gradient[1 - empty].any() for gradient in gradients.values())
    _, levels = levels_of(x, boxes, shapes, layout)
    only = [one[part == 2] for one, part in zip(boxes, np.split(levels, [30]), strict=True)]
    grad_output = gradient_for(x, only, layout)
    gradients = pool.backward(grad_output, x, only, shapes)
    assert [name for name in NAMES if gradients[name].any()] == ["p4"]


@every_mode
def test_no_boxes(mode):
    x, boxes, shapes = some_call()
    pool = pooler(mode=mode)
    none = [one[:0] for one in boxes]
    assert pool(x, none, shapes).shape == (0, 11, 7, 5)
    gradients = pool.backward(np.zeros((0, 11, 7, 5), np.float32), x, none, shapes)
    assert all(gradients[name].shape == x[name].shape and not gradients[name].any() for name in NAMES)
    no_images = {name: x[name][:0] for name in x}
    assert pool(no_images, [], []).shape == (0, 11, 7, 5)
    no_channels = {name: x[name][:, :0] for name in x}
    assert pool(no_channels, boxes, shapes).shape == (60, 0, 7, 5)


X, BOXES, SHAPES = some_call(count=3)


def spoiled(row, value):
    boxes = [one.copy() for one in BOXES]
    boxes[1][row] = value
    return boxes


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"x": list(X.values())}, TypeError, "x must be a mapping|list"),
        ({"x": {"p2": X["p2"], "p4": X["p4"]}}, ValueError, "lacks ['p3', 'p5']|has ['p2', 'p4']"),
        ({"x": {**X, "p3": X["p3"].astype("float64")}}, TypeError, "x['p3']|x['p2']|float32|float64"),
        ({"x": {**X, "p3": X["p3"].astype("int32")}}, TypeError, "x['p3'] must have dtype|int32"),
        ({"x": {**X, "p4": X["p4"][0]}}, ValueError, "x['p4'] must have 4 axes"),
        (
            {"x": {**X, "p4": X["p4"][:1]}},
            ValueError,
            "same number of images|x['p4']|(1, 11, 10, 14)|(2, 11, 40, 56)",
        ),
        ({"x": {**X, "p4": X["p4"][:, :3]}}, ValueError, "channels|x['p4']|(2, 3, 10, 14)"),
        ({"x": {**X, "p4": X["p4"][:, :, :0]}}, ValueError, "x['p4'] must have pixels|height 0"),
        ({"x": {**X, "p2": X["p5"], "p5": X["p2"]}}, ValueError, "finest map to the coarsest|0.03125"),
        ({"boxes": BOXES[0]}, TypeError, "boxes must be a list or tuple|ndarray"),
        ({"boxes": BOXES[:1]}, ValueError, "one array per image, 2|got 1"),
        ({"boxes": [BOXES[0], BOXES[1][:, :3]]}, ValueError, "boxes[1] must have shape (L, 4)|(3, 3)"),
        ({"boxes": [BOXES[0], BOXES[1].astype(complex)]}, TypeError, "boxes[1] must have a float"),
        ({"boxes": [BOXES[0], None]}, TypeError, "boxes[1] must be|NoneType"),
        ({"boxes": spoiled(2, NAN)}, ValueError, "boxes[1][2] must be finite"),
        ({"boxes": spoiled(1, [0, 0, INF, 1])}, ValueError, "boxes[1][1] must be finite"),
        (
            {"boxes": spoiled(0, [-3e38, 1, 3e38, 1]), "image_shapes": [(40, 56)] * 2},
            ValueError,
            "boxes[1][0]|float32",
        ),
        ({"image_shapes": SHAPES[:1]}, ValueError, "image_shapes must have one size an image, 2 here, got 1"),
        ({"image_shapes": 5}, TypeError, "image_shapes must be a sequence"),
        ({"image_shapes": [(160, 224), 160]}, TypeError, "image_shapes[1] must be (height, width)"),
        ({"image_shapes": [(160, 224), (0, 4)]}, ValueError, "image_shapes[1]|at least 1"),
        ({"image_shapes": [(160.0, 224), (4, 4)]}, TypeError, "image_shapes[0]"),
    ],
)
@every_mode
def test_refusals(change, error, parts, mode):
    call = {"x": X, "boxes": BOXES, "image_shapes": SHAPES, **change}
    grad_output, pool = np.ones((6, 11, 7, 5), np.float32), pooler(mode=mode)
    for function in (pool, lambda **call: pool.backward(grad_output, **call)):
        with pytest.raises(error) as caught:
            function(**call)
        for part in parts.split("|"):
            assert part in str(caught.value)


@pytest.mark.parametrize(
    ("grad_output", "error", "parts"),
    [
        (np.ones((5, 11, 7, 5), np.float32), ValueError, "one row for each of the 6 boxes|(5, 11, 7, 5)"),
        (np.ones((6, 10, 7, 5), np.float32), ValueError, "as many channels|(6, 10, 7, 5)"),
        (
            np.ones((6, 11, 7, 5)),
            TypeError,
            "grad_output must have the dtype of what is pooled from x['p2'], float32|float64",
        ),
        (None, TypeError, "grad_output must be|NoneType"),
    ],
)
def test_refused_gradients(grad_output, error, parts):
    with pytest.raises(error) as caught:
        pooler().backward(grad_output, X, BOXES, SHAPES)
    for part in parts.split("|"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "part"),
    [
        ({"featmap_names": []}, ValueError, "one or more names"),
        ({"featmap_names": ["p2", "p2"]}, ValueError, "each once"),
        ({"featmap_names": ["p2", 3]}, TypeError, "a str or a sequence of str"),
        ({"featmap_names": 3}, TypeError, "a str or a sequence of str"),
        ({"output_size": 0}, ValueError, "output_size"),
        ({"sampling_ratio": 0.5}, TypeError, "sampling_ratio"),
        ({"canonical_scale": 0}, ValueError, "canonical_scale"),
        ({"canonical_level": 1.5}, TypeError, "canonical_level"),
        ({"aligned": "no"}, TypeError, "aligned"),
        ({"mode": "median"}, ValueError, "mode"),
        ({"layout": "CHWN"}, ValueError, "layout"),
        ({"num_threads": 0}, ValueError, "num_threads"),
    ],
)
def test_refused_settings(change, error, part):
    with pytest.raises(error) as caught:
        MultiScaleRoIAlign(**{"featmap_names": NAMES, "output_size": 7, "sampling_ratio": 2, **change})
    assert part in str(caught.value)


def test_one_map_and_other_names():
    pool = MultiScaleRoIAlign("p4", 7, 2, aligned=True)
    expected = roi_align(X["p4"], BOXES, 7, 1 / 16, 2, True)
    assert pool(X, BOXES, SHAPES).tobytes() == expected.tobytes()
    assert list(pool.backward(expected, X, BOXES, SHAPES)) == ["p4"]
    assert repr(pool) == (
        "MultiScaleRoIAlign(featmap_names=['p4'], output_size=7, sampling_ratio=2, spatial_scales=None, "
        "canonical_scale=224, canonical_level=4, aligned=True, mode='avg', layout='NCHW', num_threads=None)"
    )

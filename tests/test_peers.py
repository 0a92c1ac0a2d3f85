"""Agreement with ONNX Runtime, and the values that detectron2 tests itself with.

onnx and onnxruntime are test requirements, but there are platforms without wheels of them (musl, new
versions of Python): there the tests that need them are skipped and the literal values remain.
"""

import numpy as np
import pytest
from reference import random_boxes

from cyroialign import roi_align

COORDINATES = {True: "half_pixel", False: "output_half_pixel"}
ARANGE = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)


def run_onnxruntime(input, boxes, output_size, spatial_scale, sampling_ratio, aligned, mode="avg"):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    types = [onnx.helper.np_dtype_to_tensor_dtype(input.dtype)] * 2 + [onnx.TensorProto.INT64]
    node = onnx.helper.make_node(
        "RoiAlign",
        ["input", "boxes", "batch_indices"],
        ["output"],
        mode=mode,
        output_height=output_size[0],
        output_width=output_size[1],
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        coordinate_transformation_mode=COORDINATES[aligned],
    )
    graph = onnx.helper.make_graph(
        [node],
        "roi_align",
        [onnx.helper.make_tensor_value_info(*pair, None) for pair in zip(node.input, types, strict=True)],
        [onnx.helper.make_tensor_value_info("output", types[0], None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 16)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"input": input, "boxes": boxes[:, 1:], "batch_indices": boxes[:, 0].astype(np.int64)}
    return session.run(None, feed)[0]


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
def test_onnxruntime(aligned, sampling_ratio, dtype, mode):
    rng = np.random.default_rng(sampling_ratio)
    input = rng.standard_normal((2, 5, 19, 26)).astype(dtype)
    boxes = random_boxes(rng, 50, input.shape, spatial_scale=0.25)
    # ONNX Runtime refuses adaptive boxes of negative size.
    boxes[:, 1::2].sort(axis=1)
    boxes[:, 2::2].sort(axis=1)
    arguments = (boxes.astype(dtype), (7, 4), 0.25, sampling_ratio, aligned)
    # A sum is rounded in another order here, a maximum but once more.
    tolerance = 4e-6 if mode == "avg" else 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(
        roi_align(input, *arguments, mode={"avg": "avg", "max": "onnx_max"}[mode]),
        run_onnxruntime(input, *arguments, mode),
        rtol=0,
        atol=tolerance,
    )


@pytest.mark.parametrize(("aligned", "corner"), [(False, 7.5), (True, 4.5)])
def test_detectron2_arange(aligned, corner):
    output = roi_align(ARANGE, np.array([[0, 1, 1, 3, 3]], np.float32), 4, aligned=aligned)
    expected = corner + np.arange(4) * 0.5 + np.arange(4)[:, None] * 2.5
    np.testing.assert_array_equal(output[0, 0], expected)


def test_detectron2_resized():
    """A box on a map that was shrunk by two has the values of the twice as large box on the map."""
    input = np.random.default_rng(0).random((1, 1, 30, 30), np.float32) * 100
    # Bilinear resizing by one half is the mean of 2 x 2 pixels; the samples lie on whole pixels of both maps.
    halved = input.reshape(1, 1, 15, 2, 15, 2).mean(axis=(3, 5))
    boxes = np.array([[0, 10, 10, 20, 20]], np.float32)
    np.testing.assert_allclose(
        roi_align(input, boxes, 5, aligned=True),
        roi_align(halved, boxes, 5, spatial_scale=0.5, aligned=True),
        rtol=1e-6,
    )


def test_detectron2_empty_box():
    boxes = np.array([[0, 3, 4, 5, 4]], np.float32)
    assert not roi_align(ARANGE, boxes, 7, aligned=True).any()


@pytest.mark.parametrize(
    ("mode", "rule", "aligned", "shift"),
    [
        ("avg", "asymmetric", False, 0),
        ("avg", "half_pixel_for_nn", True, 0),
        ("avg", "half_pixel", True, 0.5),
        ("max", "half_pixel_for_nn", True, 0),
    ],
)
def test_openvino(mode, rule, aligned, shift):
    """What the docstring of roi_align says of its rules, and of its maximum, which starts at 0."""
    openvino = pytest.importorskip("openvino")
    opset = pytest.importorskip("openvino.opset9")
    rng = np.random.default_rng(0)
    input = rng.standard_normal((2, 3, 19, 26)).astype(np.float32)
    low, sides = rng.uniform(8, 30, (20, 2)), rng.uniform(1, 40, (20, 2))
    boxes = np.hstack([rng.integers(0, 2, (20, 1)), low, low + sides]).astype(np.float32)
    maps = opset.parameter(list(input.shape), np.float32)
    corners = opset.parameter([20, 4], np.float32)
    images = opset.constant(boxes[:, 0].astype(np.int32))
    node = opset.roi_align(maps, corners, images, 7, 4, 2, np.float32(0.25), mode, rule)
    compiled = openvino.Core().compile_model(openvino.Model([node], [maps, corners]), "CPU")
    expected = compiled([input, boxes[:, 1:]])[0]
    boxes[:, 1:] += np.float32(shift)
    actual = roi_align(input, boxes, (7, 4), 0.25, 2, aligned, mode=mode)
    if mode == "max":
        assert (actual < 0).any()
        actual = np.maximum(actual, 0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6)

"""Models with RoiAlign for the tests of cyroialign.onnx, what to feed them, and both ways to run them."""

import numpy as np
import pytest
from reference import random_boxes

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
adapter = pytest.importorskip("cyroialign.onnx")
OPERATORS = adapter.OPERATORS

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((2, 5, 19, 26), np.float32)
BOXES = random_boxes(RNG, 30, FEATURES.shape, spatial_scale=0.25).astype(np.float32)
BOXES[:, 1::2].sort(axis=1)  # ONNX Runtime refuses adaptive boxes of negative size
BOXES[:, 2::2].sort(axis=1)
FEED = {"x": FEATURES, "boxes": BOXES[:, 1:].copy(), "images": BOXES[:, 0].astype(np.int64)}
SETTINGS = "output_height = 7, output_width = 4, spatial_scale = 0.25"


def model(opset=16, dtype="float", attributes=SETTINGS):
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        crop ({dtype}[n, c, h, w] x, {dtype}[k, 4] boxes, int64[k] images) => ({dtype}[k, c, p, q] y)
        {{ y = RoiAlign <{attributes}> (x, boxes, images) }}""")


def evaluate(model, feed):
    return adapter.reference_evaluator(model).run(None, feed)[0]


def session(model, **options):
    """A session that does not print the errors that it raises."""
    options.setdefault("sess_options", onnxruntime.SessionOptions()).log_severity_level = 4
    return adapter.inference_session(model, **options)


def run(model, feed, **options):
    return session(model, **options).run(None, feed)[0]


def run_theirs(model, feed):
    plain = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return plain.run(None, feed)[0]


def compute_with(monkeypatch, function):
    """Compute RoiAlign with a function in place of roi_align."""
    standard = OPERATORS["RoiAlign"]._replace(pool=function)
    monkeypatch.setitem(OPERATORS, "RoiAlign", standard)


def graph_with_convolutions():
    """A small detector's shape: a convolution, RoiAlign of its map, a convolution of the crops."""
    detector = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 16]>
        detector (float[n, 3, h, w] x, float[k, 4] boxes, int64[k] images) => (float[k, 4, p, q] y)
        {
            linear = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, stem)
            features = Relu (linear)
            crops = RoiAlign <output_height = 7, output_width = 7, spatial_scale = 0.5, sampling_ratio = 2>
                (features, boxes, images)
            y = Conv (crops, head)
        }""")
    rng = np.random.default_rng(1)
    for name, shape in (("stem", (16, 3, 3, 3)), ("head", (4, 16, 3, 3))):
        weights = rng.standard_normal(shape, np.float32) / 9
        detector.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return detector


IMAGE = np.random.default_rng(2).standard_normal((2, 3, 64, 96), np.float32)

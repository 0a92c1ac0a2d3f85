"""RoiAlign in a session of ONNX Runtime: alone, and between convolutions.

The docstring of `cyroialign.onnx.inference_session` says from where on this package's is the faster one.
"""

import numpy as np

from .common import ALL_THREADS, chosen

ALONE = "y = RoiAlign {settings} (x, boxes, images)"
BETWEEN = """
    stem = Conv <strides = [4, 4], pads = [2, 2, 2, 2]> (x, first)
    rectified = Relu (stem)
    features = Conv (rectified, second)
    crops = RoiAlign {settings} (features, boxes, images)
    y = Conv (crops, third)
"""
SETTINGS = "<output_height = 7, output_width = 7, sampling_ratio = 2, spatial_scale = 0.25>"
MODEL = """
    <ir_version: 8, opset_import: ["": 16]>
    graph (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images) => (float[k, d, p, q] y)
    {{ {nodes} }}"""


class OnnxSuiteBase:
    """Boxes of 16 to 400 pixels on an image of 800 by 1088, whose map has 200 by 272 pixels."""

    def prepare(self, nodes, channels, rois, runtime, threads, **shapes):
        """Make the session and its inputs; `shapes` are those of weights."""
        import onnx
        import onnxruntime

        import cyroialign.onnx

        rng = np.random.default_rng(0)
        model = onnx.parser.parse_model(MODEL.format(nodes=nodes.format(settings=SETTINGS)))
        for name, shape in shapes.items():
            weights = rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:], dtype=np.float32))
            model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if runtime == "cyroialign":
            self.session = cyroialign.onnx.inference_session(model, sess_options=options)
        else:
            self.session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, ["CPUExecutionProvider"]
            )
        first = rng.uniform(0, 600, (rois, 2))
        boxes = np.hstack([first, first + rng.uniform(16, 400, (rois, 2))]).astype(np.float32)
        shape = (1, 3, 800, 1088) if shapes else (1, channels, 200, 272)
        self.feed = {"x": rng.standard_normal(shape, np.float32), "boxes": boxes}
        self.feed["images"] = np.zeros(rois, np.int64)
        self.session.run(None, self.feed)  # allocates


class OnnxAloneSuiteBase(OnnxSuiteBase):
    """Only the node: from how many results on calling Python pays off."""

    params = (chosen([8, 64, 256], [1, 8, 32, 48, 64, 96, 128, 256]), ("cyroialign", "onnxruntime"))
    param_names = ("channels", "runtime")

    def setup(self, channels, runtime):
        self.prepare(ALONE, channels, 1, runtime, 1)


class OnnxAloneSuite(OnnxAloneSuiteBase):
    """One RoI of 7 by 7 bins, one thread."""

    def time_run(self, channels, runtime):
        self.session.run(None, self.feed)


class OnnxGraphSuiteBase(OnnxSuiteBase):
    """A stem, RoiAlign of 256 channels, a convolution of the crops."""

    params = (
        chosen([10, 300], [1, 10, 30, 100, 300, 1000]),
        ("cyroialign", "onnxruntime"),
        tuple(sorted({1, ALL_THREADS})),
    )
    param_names = ("rois", "runtime", "threads")

    def setup(self, rois, runtime, threads):
        shapes = {"first": (64, 3, 8, 8), "second": (256, 64, 1, 1), "third": (64, 256, 3, 3)}
        self.prepare(BETWEEN, 256, rois, runtime, threads, **shapes)


class OnnxGraphSuite(OnnxGraphSuiteBase):
    """The whole graph."""

    def time_run(self, rois, runtime, threads):
        self.session.run(None, self.feed)

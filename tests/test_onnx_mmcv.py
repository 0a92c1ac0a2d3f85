"""RoIAlign of models that MMDetection's and MMRotate's exporters have made, in both evaluators."""

import numpy as np
import pytest
import reference_rotated
from onnx_models import BOXES, FEATURES, evaluate, onnx, onnxruntime, run, session

from cyroialign import roi_align, roi_align_rotated

BOTH = pytest.mark.parametrize("compute", [evaluate, run])
SHARED = "output_height = 7, output_width = 4, spatial_scale = 0.25, sampling_ratio = 2"
ROTATED = np.column_stack([BOXES, np.linspace(-4, 4, len(BOXES))]).astype(np.float32)
ROTATED[:, 3:5] = np.abs(ROTATED[:, 3:5])


def model(
    operator="MMCVRoiAlign", own='mode = "avg", aligned = 1', shared=SHARED, domain="mmdeploy", dtype="float"
):
    numbers = 6 if operator.endswith("Rotated") else 5
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 11, "{domain}": 1]>
        crop ({dtype}[n, c, h, w] x, {dtype}[k, {numbers}] rois) => ({dtype}[k, c, p, q] y)
        {{ [extract] y = {domain}.{operator} <{", ".join(filter(None, (shared, own)))}> (x, rois) }}""")


@BOTH
@pytest.mark.parametrize("domain", ["mmdeploy", "mmcv"])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_bits_of_roi_align(sampling_ratio, aligned, mode, domain, compute):
    shared = SHARED.replace("ratio = 2", f"ratio = {sampling_ratio}")
    one = model(own=f'mode = "{mode}", aligned = {aligned}', shared=shared, domain=domain)
    expected = roi_align(FEATURES, BOXES, (7, 4), 0.25, sampling_ratio, bool(aligned), mode=mode)
    assert compute(one, {"x": FEATURES, "rois": BOXES}).tobytes() == expected.tobytes()


@BOTH
@pytest.mark.parametrize("domain", ["mmdeploy", "mmcv"])
@pytest.mark.parametrize("clockwise", [0, 1])
@pytest.mark.parametrize("aligned", [0, 1])
def test_rotated_boxes(aligned, clockwise, domain, compute):
    one = model("MMCVRoIAlignRotated", f"aligned = {aligned}, clockwise = {clockwise}", domain=domain)
    output = compute(one, {"x": FEATURES, "rois": ROTATED})
    settings = (7, 4), 0.25, 2, bool(aligned), bool(clockwise)
    assert output.tobytes() == roi_align_rotated(FEATURES, ROTATED, *settings).tobytes()
    textbook = reference_rotated.roi_align_rotated(FEATURES, ROTATED, *settings)
    np.testing.assert_allclose(output, textbook, rtol=0, atol=1e-5)


@BOTH
def test_half_precision(compute):
    feed = {"x": FEATURES.astype(np.float16), "rois": BOXES.astype(np.float16)}
    expected = roi_align(feed["x"], feed["rois"], (7, 4), 0.25, 2, True)
    assert compute(model(dtype="float16"), feed).tobytes() == expected.tobytes()


def test_threads_of_the_session_share_the_boxes(monkeypatch):
    """Parts of boxes that begin with their image."""
    import cyroialign.onnx as adapter

    monkeypatch.setattr(adapter, "PART", 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    for one, rois in (
        (model(), BOXES),
        (model("MMCVRoIAlignRotated", "aligned = 1, clockwise = 0"), ROTATED),
    ):
        feed = {"x": FEATURES, "rois": rois}
        parts = session(one, sess_options=options).run(None, feed)[0]
        assert parts.tobytes() == run(one, feed).tobytes() == evaluate(one, feed).tobytes()


def test_they_can_be_chosen_and_left():
    session(model(), nodes=["extract"])
    with pytest.raises(Exception, match="mmdeploy"):  # ONNX Runtime's, which has no such operator
        session(model(), nodes=[])


@BOTH
def test_what_is_wrong(compute):
    feed = {"x": FEATURES, "rois": BOXES}
    with pytest.raises(Exception, match="mode must be"):
        compute(model(own='mode = "sum", aligned = 1'), feed)
    with pytest.raises(Exception, match="aligned"):  # ONNX Runtime's own, or ours
        compute(model(own='mode = "avg"'), feed)
    with pytest.raises(Exception, match=r"boxes\[3\] has batch_index 9"):
        compute(model(), feed | {"rois": np.where(np.arange(len(BOXES))[:, None] == 3, 9, BOXES)})


def test_standard_nodes_beside_them():
    """Older models have both, and the standard's keeps the rule of its opset."""
    both = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 11, "mmcv": 1]>
        crop (float[n, c, h, w] x, float[k, 5] rois, float[k, 4] boxes, int64[k] images)
            => (float[k, c, p, q] y, float[k, c, p, q] z)
        {{
            y = mmcv.MMCVRoiAlign <{SHARED}, mode = "avg", aligned = 1> (x, rois)
            z = RoiAlign <{SHARED}> (x, boxes, images)
        }}""")
    feed = {
        "x": FEATURES,
        "rois": BOXES,
        "boxes": BOXES[:, 1:].copy(),
        "images": BOXES[:, 0].astype(np.int64),
    }
    outputs = session(both).run(None, feed)
    for output, aligned in zip(outputs, (True, False), strict=True):
        assert output.tobytes() == roi_align(FEATURES, BOXES, (7, 4), 0.25, 2, aligned).tobytes()

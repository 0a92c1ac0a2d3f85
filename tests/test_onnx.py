"""The operators in ONNX's reference evaluator and in ONNX Runtime: the values, by the rules of each opset."""

import numpy as np
import pytest
from onnx_models import FEATURES, FEED, SETTINGS, evaluate, model, onnx, run, run_theirs
from reference import random_boxes

from cyroialign import roi_align, roi_pool

OPSETS = (10, 16, 22)
BOTH = pytest.mark.parametrize("compute", [evaluate, run])


@pytest.fixture(scope="module")
def node_cases():
    """ONNX's own cases of RoiAlign: (node, inputs, outputs) by name."""
    from onnx.backend.test.case.node import roialign

    cases = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            roialign,
            "expect",
            lambda node, inputs, outputs, name: cases.update({name: (node, inputs, outputs)}),
        )
        for export in vars(roialign.RoiAlign):
            if export.startswith("export"):
                getattr(roialign.RoiAlign, export)()
    return cases


def model_of(node, opset):
    types = [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64]
    graph = onnx.helper.make_graph(
        [node],
        "case",
        [onnx.helper.make_tensor_value_info(*pair, None) for pair in zip(node.input, types, strict=True)],
        [onnx.helper.make_tensor_value_info(node.output[0], types[0], None)],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


@BOTH
@pytest.mark.parametrize("opset", [16, 22])
def test_node_cases(opset, compute, node_cases):
    assert set(node_cases) >= {
        f"test_roialign_{which}" for which in ("aligned_false", "aligned_true", "mode_max")
    }
    for node, inputs, [expected] in node_cases.values():
        output = compute(model_of(node, opset), dict(zip(node.input, inputs, strict=True)))
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)  # the cases have 4 digits


@BOTH
def test_node_case_of_opset_10(compute, node_cases):
    """The first RoiAlign has no attribute for the shift, and never shifts."""
    node, inputs, [expected] = node_cases["test_roialign_aligned_false"]
    old = onnx.NodeProto()
    old.CopyFrom(node)
    [shift] = [one for one in old.attribute if one.name == "coordinate_transformation_mode"]
    old.attribute.remove(shift)
    output = compute(model_of(old, 10), dict(zip(node.input, inputs, strict=True)))
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)


@BOTH
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bits_of_roi_align(dtype, opset, compute):
    name = {"float16": "float16", "float32": "float", "float64": "double"}[dtype]
    feed = FEED | {key: FEED[key].astype(dtype) for key in ("x", "boxes")}
    expected = roi_align(
        feed["x"], feed["boxes"], (7, 4), 0.25, aligned=opset >= 16, batch_indices=feed["images"]
    )
    output = compute(model(opset, name), feed)
    assert output.dtype == dtype
    assert output.tobytes() == expected.tobytes()


@BOTH
@pytest.mark.parametrize("opset", OPSETS)
def test_defaults(opset, compute):
    """One bin, spatial_scale 1, adaptive sampling, the mean."""
    expected = roi_align(FEATURES, FEED["boxes"], 1, aligned=opset >= 16, batch_indices=FEED["images"])
    assert (
        compute(model(opset, attributes="mode = 'avg'".replace("'", '"')), FEED).tobytes()
        == expected.tobytes()
    )


@BOTH
def test_bfloat16(compute):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    around = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 22]>
        crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images) => (float[k, c, p, q] y)
        {
            narrow_x = Cast <to = 16> (x)
            narrow_boxes = Cast <to = 16> (boxes)
            narrow_y = RoiAlign <output_height = 3> (narrow_x, narrow_boxes, images)
            y = Cast <to = 1> (narrow_y)
        }""")
    features, boxes = (FEED[key].astype(ml_dtypes.bfloat16) for key in ("x", "boxes"))
    expected = roi_align(features, boxes, (3, 1), aligned=True, batch_indices=FEED["images"])
    assert compute(around, FEED).tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("opset", "narrow", "name"),
    [(10, "bfloat16", "bfloat16"), (16, "bfloat16", "bfloat16"), (22, "uint8", "uint8")],
)
def test_types_that_the_opset_lacks(opset, narrow, name):
    pytest.importorskip("ml_dtypes")
    feed = FEED | {"x": FEATURES.astype(narrow), "boxes": FEED["boxes"].astype(narrow)}
    with pytest.raises(TypeError) as raised:
        evaluate(model(opset), feed)
    assert f"RoiAlign {opset} must be one of tensor(" in str(raised.value.__cause__)
    assert f"got tensor({name})" in str(raised.value.__cause__)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("opset", [10, 16])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_onnxruntime_agrees(sampling_ratio, opset, mode):
    """With the rule of each opset, where they compute the same numbers in another order."""
    same = model(opset, attributes=f'{SETTINGS}, mode = "{mode}", sampling_ratio = {sampling_ratio}')
    theirs = run_theirs(same, FEED)
    for compute in (evaluate, run):
        np.testing.assert_allclose(compute(same, FEED), theirs, rtol=0, atol=4e-6)


@pytest.mark.parametrize("pooled", [(7, 5), (1, 1), (30, 40)])
@pytest.mark.parametrize("opset", [16, 22])
def test_max_roi_pool(opset, pooled):
    """Rounding, empty bins and boxes off the map behave as in ONNX Runtime."""
    pool = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        pool (float[n, c, h, w] x, float[k, 5] rois) => (float[k, c, p, q] y)
        {{ y = MaxRoiPool <pooled_shape = [{pooled[0]}, {pooled[1]}], spatial_scale = 0.25> (x, rois) }}""")
    rois = random_boxes(np.random.default_rng(3), 200, FEATURES.shape, spatial_scale=0.25).astype(np.float32)
    rois[::3, 1:] = rois[::3, 1:].round() // 2 * 2  # halves of a pixel, after scaling
    feed = {"x": FEATURES, "rois": rois}
    output = evaluate(pool, feed)
    assert output.tobytes() == roi_pool(FEATURES, rois, pooled, 0.25).tobytes()
    assert (output == 0).any()
    if opset == 16:  # ONNX Runtime 1.32 has no MaxRoiPool 22
        np.testing.assert_array_equal(output, run_theirs(pool, feed))


BRANCHES = """
    <ir_version: 8, opset_import: ["": 16]>
    crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images, bool narrow) => (float[k, c, p, q] y)
    {
        y = If (narrow) <
            then_branch = a () => (float[k, c, p, q] one)
                { one = RoiAlign <output_height = 2> (x, boxes, images) },
            else_branch = b () => (float[k, c, p, q] two)
                { two = RoiAlign <mode = "max"> (x, boxes, images) }
        >
    }"""


@BOTH
@pytest.mark.parametrize("narrow", [True, False])
def test_branches(narrow, compute):
    """Values from outside of the branch reach the operator inside it."""
    output = compute(onnx.parser.parse_model(BRANCHES), FEED | {"narrow": np.array(narrow)})
    size, mode = ((2, 1), "avg") if narrow else (1, "onnx_max")
    expected = roi_align(FEATURES, FEED["boxes"], size, aligned=True, batch_indices=FEED["images"], mode=mode)
    assert output.tobytes() == expected.tobytes()


@BOTH
def test_functions_of_the_model(compute):
    """With attributes that the caller of the function gives, and the function's own opset."""
    calls = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 16, "own": 1]>
        crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images) => (float[k, c, p, q] y)
        { y = own.Crop <size = 3> (x, boxes, images) }
        <domain: "own", opset_import: ["": 10]>
        Crop <size> (x, boxes, images) => (y)
        { y = RoiAlign <output_height: int = @size, output_width: int = @size> (x, boxes, images) }""")
    expected = roi_align(FEATURES, FEED["boxes"], 3, batch_indices=FEED["images"])
    assert compute(calls, FEED).tobytes() == expected.tobytes()

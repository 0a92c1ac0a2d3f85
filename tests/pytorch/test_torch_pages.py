"""The code of the documentation that needs PyTorch, in blocks of ```py: run as a reader would."""

import io
import pathlib
import re

import numpy as np
import pytest
import torch

from cyroialign import roi_align

DOCS = pathlib.Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(page):
    """Run the blocks of a page one after the other; return the names that they made."""
    names = {}
    for block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.fixture
def onnx():
    for name in ("torchvision", "onnxruntime"):
        pytest.importorskip(name)
    return pytest.importorskip("onnx")


def poolings(model):
    return [(node.op_type, node.domain) for node in model.graph.node if "roi" in node.op_type.lower()]


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
def test_an_accelerated_model_is_exported_with_the_standard_operator(onnx):
    pytest.importorskip("onnxscript")
    names = run("recipes/export.md")
    assert poolings(names["exported"]) == [("RoiAlign", "")]
    assert names["crops"].shape == (2, 8, 7, 7)


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
def test_the_older_exporter_keeps_the_operator_too(onnx):
    import torchvision

    from cyroialign.torch import accelerate_torchvision

    file, given = io.BytesIO(), (torch.rand(1, 8, 25, 34), torch.tensor([[0, 32.0, 48, 256, 320]]))
    with accelerate_torchvision():
        torch.onnx.export(
            torchvision.ops.RoIAlign(7, 1 / 16, 2, True), given, file, opset_version=16, dynamo=False
        )
    assert poolings(onnx.load_from_string(file.getvalue())) == [("RoiAlign", "")]


def test_pooling_on_the_cpu():
    names = run("recipes/mps.md")
    assert names["crops"].shape == (1, 8, 7, 7)
    assert names["features"].grad.abs().sum() > 0


def test_the_module_in_place_of_mmcvs():
    module = run("coming_from.md")["RoIAlign"]
    features = torch.rand(2, 3, 20, 30, requires_grad=True)
    rois = torch.tensor([[0, 8.0, 8, 200, 120], [1, 30, 10, 90, 150]])
    crops = module(7, 1 / 8)(features, rois)
    expected = roi_align(features.detach().numpy(), rois.numpy(), 7, 1 / 8, aligned=True)
    np.testing.assert_array_equal(crops.detach(), expected)
    crops.sum().backward()
    assert features.grad is not None
    with pytest.raises(ValueError, match="pool_mode 'max'"):
        module(7, pool_mode="max")

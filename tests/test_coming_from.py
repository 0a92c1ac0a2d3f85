"""What docs/coming_from.md claims of libraries that may be installed here."""

import doctest
import pathlib

import numpy as np
import pytest
from onnx_models import model

import cyroialign

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "coming_from.md"


def test_opencv_takes_one_sample_of_a_box_of_size_zero():
    cv2 = pytest.importorskip("cv2", minversion="5")
    [recipe] = [
        example.source
        for example in doctest.DocTestParser().get_examples(PAGE.read_text(encoding="utf-8"))
        if example.source.startswith("def pool_as_opencv")
    ]
    names = {"np": np, "cyroialign": cyroialign}
    exec(recipe, names)
    features = np.random.default_rng(0).random((1, 3, 20, 30), np.float32)
    boxes = np.array([[8, 8, 100, 72], [50.3, 40.1, 50.3, 40.1]], np.float32)
    attributes = "output_height = 3, output_width = 3, spatial_scale = 0.25"
    net = cv2.dnn.readNetFromONNX(
        np.frombuffer(model(attributes=attributes).SerializeToString(), np.uint8), cv2.dnn.ENGINE_NEW
    )
    for name, array in {"x": features, "boxes": boxes, "images": np.zeros(2, np.int64)}.items():
        net.setInput(array, name)
    theirs = net.forward()
    np.testing.assert_allclose(theirs, names["pool_as_opencv"](features, boxes, 3, 0.25), rtol=0, atol=1e-5)
    assert (theirs[1] != 0).all()
    assert not cyroialign.roi_align(features, [boxes], 3, 0.25, aligned=True)[1].any()

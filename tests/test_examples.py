"""The examples do what they promise."""

import pathlib
import runpy

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def test_fit_boxes(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    example = runpy.run_path(str(EXAMPLES / "fit_boxes.py"))
    example["main"](tmp_path / "boxes.png")
    assert (tmp_path / "boxes.png").read_bytes().startswith(b"\x89PNG")
    start, end = (
        [float(word.strip("[]")) for word in line.partition("  edges")[0].split()[2:] if word != "["]
        for line in capsys.readouterr().out.splitlines()
    )
    assert max(start) < 0.5
    assert min(end) > 0.9


@pytest.fixture
def refinement():
    return runpy.run_path(str(EXAMPLES / "refine_boxes.py"))


def test_refine_boxes(refinement, capsys):
    refinement["main"]()
    words = [line.replace(",", "").split() for line in capsys.readouterr().out.splitlines()]
    before, after, voted, wrong = (np.array([float(line[i]) for line in words]) for i in (3, 5, 7, 9))
    assert len(words) == 5
    assert max(before) < 0.65
    assert min(after) > 0.8
    assert min(voted) > 0.9
    assert max(wrong) < refinement["STRIDE"] / 8


def test_refine_boxes_climbs(refinement):
    """Its gradient is that of its score."""
    rng, step = np.random.default_rng(1), 1e-4
    maps, boxes = refinement["score_maps"](rng), refinement["rough_boxes"](rng)
    _, gradient = refinement["score"](maps, boxes)
    for edge in range(4):
        moved = np.stack([boxes, boxes])
        moved[..., edge] += np.array([-step, step])[:, None, None]
        low, high = (refinement["score"](maps, one)[0] for one in moved)
        np.testing.assert_allclose((high - low) / (2 * step), gradient[..., edge], rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def pipeline():
    pytest.importorskip("matplotlib")
    pytest.importorskip("skimage")
    return runpy.run_path(str(EXAMPLES / "pipeline.py"))


def test_pipeline(pipeline, tmp_path, capsys):
    pipeline["main"](tmp_path / "pipeline.png")
    assert (tmp_path / "pipeline.png").read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(line.endswith(" ms") for line in lines)


@pytest.mark.parametrize("angle", range(4))
def test_pipeline_sees_edges_where_they_are(pipeline, angle):
    across = pipeline["ANGLES"][angle]
    y, x = np.mgrid[:64, :64]
    grey = 0.5 + 0.5 * np.sign(np.cos(across) * (x - 32) + np.sin(across) * (y - 32))
    maps = pipeline["backbone"](np.tile(grey.astype(np.float32), (3, 1, 1)))
    assert [level.shape for level in maps.values()] == [(1, 15, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    edges = maps["p2"][0, 3:7].sum(axis=(1, 2))  # of the brightness
    assert edges.argmax() == angle
    np.testing.assert_allclose(maps["p2"][0, 7:], 0, atol=1e-5)  # grey has no colour


def test_pipeline_pyramid_is_a_mean(pipeline):
    maps = {f"p{i + 2}": np.full((1, 2, 32 >> i, 32 >> i), i, np.float32) for i in range(4)}
    pyramid = pipeline["averaging_pyramid"](2)(maps)
    inner = [float(level[0, 0, level.shape[2] // 2, level.shape[3] // 2]) for level in pyramid.values()]
    assert inner == [1.5, 2, 2.5, 3]


def test_pipeline_proposes_inside_the_image(pipeline):
    maps = {f"p{i + 2}": np.ones((1, 15, 64 >> i, 96 >> i), np.float32) for i in range(4)}
    boxes = pipeline["propose"](maps, (256, 384))
    assert len(boxes) <= 2000
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [384, 256]).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()

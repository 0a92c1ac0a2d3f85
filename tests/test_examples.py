"""The examples do what they promise."""

import pathlib
import runpy

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

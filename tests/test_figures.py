"""The scripts that measure what docs/performance.md shows: that they run, and that they count rightly."""

import importlib
import json
import pathlib
import platform
import shutil
import subprocess
import sys

import pytest

from cyroialign import show_config
from cyroialign.bench import machine

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="they read /proc and use libgomp")


def script(name, *arguments):
    """Run a script as its first lines say; return what it printed."""
    command = [sys.executable, BENCHMARKS / name, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def cells(markdown):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if "|" in line]


def test_curves(tmp_path):
    pytest.importorskip("matplotlib")
    printed = script("curves.py", tmp_path, "--quick")
    found = json.loads((tmp_path / "curves.json").read_text())
    names = {"size", "reach", "float64", "overhead", "memory"}
    if machine.cores() > 1:
        names.add("threads")
    assert set(found) == names | {"machine", "versions"}
    assert {path.stem for path in tmp_path.glob("*.png")} == names
    for name in names:
        assert (tmp_path / f"{name}.md").read_text() in printed
        for panel in found[name]["panels"].values():
            assert all(len(values) == len(panel["x"]) for values in panel["series"].values())
    for panel in found["memory"]["panels"].values():
        assert all(0 < mebibytes <= 64 for values in panel["series"].values() for mebibytes in values)


def test_the_page_has_a_place_for_every_figure(monkeypatch, tmp_path):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.syspath_prepend(BENCHMARKS)
    curves, figures = (importlib.import_module(name) for name in ("curves", "figures"))
    page = tmp_path / "page.md"
    page.write_text(figures.PAGE.read_text())
    measured = tmp_path / "measured"
    measured.mkdir()
    named = {*figures.NAMES, *curves.CURVES} - {"curves"}
    for name in named:
        (measured / f"{name}.md").write_text(f"new {name}\n")
    image.new("RGB", (2, 2)).save(measured / "size.png")
    for _ in range(2):
        figures.fill(page, measured)
    for name in named:
        assert page.read_text().count(f"<!-- {name} -->\n\nnew {name}\n\n<!-- /{name} -->") == 1
    assert (tmp_path / "page" / "size.png").exists()


def test_the_family_is_its_table_and_the_notes(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    figures = importlib.import_module("figures")
    words = (
        "How many times",
        "| operator |",
        "RoIAlign, 1 thread",
        "| | P2-box |",
        "- machine: x\n- versions: y",
    )
    (tmp_path / "family.md").write_text("\n\n".join([*words, ""]))
    figures.shorten(tmp_path / "family.md")
    assert (tmp_path / "family.md").read_text() == "\n\n".join([*words[:2], words[-1]])


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return pytest.importorskip("scaling")


def test_pieces_go_to_the_thread_that_is_free_first(scaling):
    assert scaling.finish([3, 1, 1, 1, 1, 2], 2) == [4, 5]
    assert sorted(scaling.finish([5, 1, 1], 4)) == [0, 1, 1, 5]


def test_medians_are_of_each_piece(scaling):
    assert scaling.typical([[[1, 9], [4]], [[2, 7], [4]], [[9, 8], [5]]]) == [[2, 8], [4]]


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_scaling():
    if not show_config(as_dict=True)["openmp"]:
        pytest.skip("without OpenMP there are no pieces")
    head, _, *rows = cells(script("scaling.py", "--quick", "--workload", "P5-single", "--threads", "1,4"))
    assert head[3:6] == ["pieces, 1", "last/mean, 1", "speed-up, 1"]
    assert len(rows) == 4
    for row in rows:
        assert row[4] == "1.00"  # one thread ends when it ends
        assert int(row[6]) >= 4
        assert 1 <= float(row[7]) <= 4

"""The command line, and that the demo's picture shows what it claims."""

import subprocess
import sys

import numpy as np
import pytest

import cyroialign
from cyroialign.__main__ import main
from cyroialign.demo import photograph, picture, scene

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(capsys):
    """Run a command line; return its exit status, what it printed, and the lines of its errors."""

    def run(*argv):
        try:
            status = main([str(word) for word in argv])
        except SystemExit as stop:
            status = stop.code
        printed, errors = capsys.readouterr()
        return status, printed, errors.splitlines()

    return run


def in_new_python(*argv):
    return subprocess.run([sys.executable, "-W", "error", *argv], capture_output=True, text=True, timeout=60)


def test_version(run):
    assert run("--version") == (0, f"cyroialign {cyroialign.__version__}\n", [])


def test_info_prints_the_configuration(run, capsys):
    cyroialign.show_config()
    expected = capsys.readouterr().out
    assert expected
    assert run("info") == (0, expected, [])


def test_info_needs_numpy_only():
    code = (
        "import sys, cyroialign.__main__ as m; m.main(['info']); "
        "sys.exit(bool({'matplotlib', 'PIL', 'skimage', 'cyroialign.demo'} & set(sys.modules)))"
    )
    done = in_new_python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_runs_as_a_module():
    done = in_new_python("-m", "cyroialign", "demo", "--output-size", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cyroialign: error: --output-size must be between 1 and 128, got 0\n"


@pytest.mark.parametrize("argv", [["--help"], ["info", "--help"], ["demo", "--help"]])
def test_help(run, argv):
    status, printed, errors = run(*argv)
    assert (status, errors) == (0, [])
    assert printed.startswith("usage: cyroialign")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["paint"], "invalid choice: 'paint'"),
        (["info", "more"], "unrecognized arguments: more"),
        (["demo", "{photo}", "--box", "1,2,3"], "a box is four numbers x1,y1,x2,y2, got '1,2,3'"),
        (["demo", "{photo}", "--box", "1,2,3,x"], "a box is four numbers x1,y1,x2,y2, got '1,2,3,x'"),
        (["demo", "{photo}", "--box"], "expected at least one argument"),
        (["demo", "{photo}", "--box", "5,5,5,9"], "box 1 (5,5,5,9) is empty: x2 must be greater than x1"),
        (["demo", "{photo}", "--box", "1,1,9,9", "5,9,9,5"], "box 2 (5,9,9,5) is empty"),
        (["demo", "{photo}", "--box", "nan,1,9,9"], "box 1 (nan,1,9,9) must be finite"),
        (["demo", "{photo}", "--box", "1,1,1e99,9"], "box 1 (1,1,inf,9) must be finite"),
        (["demo", "{photo}", "--box", "40,0,50,9"], "lies outside the image, which has 40 x 30 pixels"),
        (["demo", "{photo}", "--box=-9,-9,0,9"], "lies outside the image, which has 40 x 30 pixels"),
        (["demo", "{photo}", "--box", "-9,-9,0,9"], "lies outside the image, which has 40 x 30 pixels"),
        (["demo", "{photo}", "--box", "-inf,0,0,9"], "box 1 (-inf,0,0,9) must be finite"),
        (["demo", "{photo}", "--box", "-1,2,3"], "a box is four numbers x1,y1,x2,y2, got '-1,2,3'"),
        (["demo", "{photo}", "--output", "-1,2.png"], "argument --output: expected one argument"),
        (["demo", "{photo}", "--output", "{photo}"], "photo.png is the image itself, which would be lost"),
        (["demo", "{photo}", "--box", "0,0,1e9,9"], "reaches too far outside the image"),
        (["demo", "{photo}", "--box", *["1,1,9,9"] * 25], "at most 24 boxes fit into the picture, got 25"),
        (["demo", "{photo}", "--output-size", "seven"], "invalid int value: 'seven'"),
        (["demo", "{photo}", "--output-size", "-1"], "--output-size must be between 1 and 128, got -1"),
        (["demo", "{photo}", "--output-size", "129"], "--output-size must be between 1 and 128, got 129"),
        (
            ["demo", "{photo}", "--stride", "0"],
            "--stride must be between 1 and the image's longer side, got 0",
        ),
        (["demo", "{photo}", "--stride", "41"], "--stride must be between 1 and the image's longer side"),
        (["demo", "{folder}/none.png"], "none.png: No such file or directory"),
        (["demo", "{folder}"], "cannot read"),
        (["demo", "{folder}/text.png"], "text.png is not an image in a format that Pillow reads"),
        (["demo", "{folder}/cut.png"], "cut.png"),
        (["demo", "{photo}", "--output", "{folder}/none/new.png"], "there is no folder"),
        (["demo", "{photo}", "--output", "{photo}/new.png"], "there is no folder"),
        (["demo", "{photo}", "--output", "{folder}/new.jpg"], "--output must end in .png, got"),
        (["demo", "{photo}", "--output", "{folder}/folder.png"], "folder.png is a folder"),
        (["demo", "{photo}", "--output", "{folder}/" + 300 * "x" + ".png"], "cannot write"),
    ],
)
def test_errors_are_one_line_and_status_2(run, photo, monkeypatch, argv, message):
    folder = photo.parent
    monkeypatch.chdir(folder)
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes(photo.read_bytes()[:300])
    (folder / "folder.png").mkdir()
    before = sorted(folder.rglob("*"))
    status, printed, errors = run(*(word.format(photo=photo, folder=folder) for word in argv))
    assert (status, printed, len(errors)) == (2, "", 1)
    assert errors[0].startswith("cyroialign: error: ")
    assert message in errors[0]
    assert sorted(folder.rglob("*")) == before


def test_output_that_is_not_writeable(run, photo, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    status, printed, errors = run("demo", photo, "--output", photo.parent / "new.png")
    assert (status, printed) == (2, "")
    assert errors == [f"cyroialign: error: --output {photo.parent / 'new.png'} is not writeable"]


@pytest.mark.parametrize("module", ["matplotlib.figure", "PIL", "skimage.data"])
def test_missing_extra(run, photo, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    image = [] if module == "skimage.data" else [photo]
    new = photo.parent / "new.png"
    status, printed, errors = run("demo", *image, "--output", new)
    assert (status, printed, len(errors)) == (2, "", 1)
    assert errors[0].startswith("cyroialign: error: ")
    assert errors[0].endswith('the demo needs: pip install "cyroialign[demo]"')
    assert not new.exists()


def colour_spans(path, boxes):
    """Return where a picture has each box's colour, as (first, last) column over its width, and its shape."""
    with Image.open(path) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    spans = []
    for colour in picture.COLOURS[:boxes]:
        columns = np.flatnonzero((pixels == list(bytes.fromhex(colour[1:]))).all(axis=2).any(axis=0))
        spans.append((columns[0] / pixels.shape[1], columns[-1] / pixels.shape[1]))
    return spans, pixels.shape


def test_demo_without_arguments(run, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    status, printed, errors = run("demo")
    assert (status, errors) == (0, [])
    lines = printed.splitlines()
    assert lines[0].startswith("cropped 3 boxes to 7 x 7 bins out of the photograph of scikit-image")
    assert lines[0].endswith("averaged to a 32 x 32 feature map (stride 16)")
    assert lines[1].startswith("roi_align took ")
    assert lines[2] == "wrote cyroialign-demo.png"
    spans, shape = colour_spans("cyroialign-demo.png", 3)
    assert all(
        first < 0.4 and last > 0.9 for first, last in spans
    )  # in the photograph, and round RoIPool's crop
    assert 1500 < shape[1] < 2500


def test_demo_with_own_image_and_boxes(run, photo):
    new = photo.parent / "new.png"
    argv = ["demo", photo, "--box", "3,4,20,21.5", "-5,8,12,28"]
    argv += ["--box", "25,10,50,25", "--output", new]
    shapes = []
    for _ in range(2):
        status, printed, errors = run(*argv, "--output-size", "3", "--stride", "2")
        assert (status, errors) == (0, [])
        assert printed.startswith(
            f"cropped 3 boxes to 3 x 3 bins out of {photo}, averaged to a 20 x 15 feature"
        )
        spans, shape = colour_spans(new, 3)
        assert all(first < 0.5 and last > 0.9 for first, last in spans)
        shapes.append(shape)
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("mode", "size", "argv"),
    [
        ("L", (12, 9), ["--box", "2,1,9,8"]),
        ("I;16", (20, 90), ["--output-size", "32"]),
        ("RGBA", (90, 7), ["--box", *["2,1,9,6"] * 5]),
        ("1", (1, 1), []),
    ],
)
def test_demo_takes_any_image(run, tmp_path, mode, size, argv):
    image, new = tmp_path / "image.png", tmp_path / "new.png"
    Image.new(mode, size, 1).save(image)
    status, _, errors = run("demo", image, "--output", new, *argv)
    assert (status, errors) == (0, [])
    assert new.stat().st_size > 10000


def test_transparent_pixels_are_white(tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (3, 2), (9, 9, 9, 0)).save(path)
    np.testing.assert_array_equal(photograph.read(path), np.full((2, 3, 3), 255))


def test_deep_grey_is_stretched(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[1000, 2000, 3000]], np.uint16)).save(path)
    assert photograph.read(path)[0, :, 0].tolist() == [0, 127, 255]


def test_box_average():
    image = np.arange(15, dtype=np.uint8).reshape(3, 5, 1)
    expected = [[3, 5, 6.5], [10.5, 12.5, 14]]
    np.testing.assert_array_equal(photograph.box_average(image, 2)[:, :, 0], expected)
    np.testing.assert_array_equal(photograph.box_average(image, 1), image)


def test_drawn_boxes_are_those_of_roi_pool():
    features = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    boxes = np.array([[4.0, 4, 26, 26], [15, 5, 24, 14], [-15, -15, 14, 14]], np.float32)
    assert scene.rounded(boxes, 0.1).tolist() == [[0, 0, 4, 4], [2, 1, 3, 2], [-2, -2, 2, 2]]
    whole = cyroialign.roi_pool(features[None], [boxes], 1, 0.1, layout="NHWC").ravel()
    assert whole.tolist() == [15, 6, 5]  # the last pixel of each


def test_bins_lie_where_the_picture_draws_them():
    """On a ramp, whose values are places, each bin holds the place of its middle in the photograph."""
    photo = np.broadcast_to(np.arange(96, dtype=np.uint8)[:, None], (64, 96, 3))
    boxes = np.array([[20.5, 9, 77.3, 50], [30, 20, 33, 23]], np.float32)
    drawn, seconds = scene.compare(photo, boxes, 4, 8)
    assert seconds > 0
    for (x1, _, x2, _), crop in zip(boxes, drawn.aligned, strict=True):
        middles = x1 + (np.arange(4) + 0.5) * (x2 - x1) / 4
        np.testing.assert_allclose(crop[..., 0], np.broadcast_to(middles - 0.5, (4, 4)), rtol=1e-5)

"""The benchmark: that its boxes are what they are said to be, and that it times nothing that is wrong."""

import json
import sys

import numpy as np
import pytest

import cyroialign
from cyroialign import bench
from cyroialign.__main__ import main
from cyroialign.bench import peers as others
from cyroialign.bench import report
from cyroialign.bench.command import QUICK_ROUNDS
from cyroialign.bench.ours import ours
from cyroialign.bench.problem import OPERATORS, POSITION_SENSITIVE, Row, rotated
from cyroialign.bench.progress import Progress

OURS = [
    f"cyroialign {direction} {layout}" for direction in ("forward", "backward") for layout in ("NCHW", "NHWC")
]


def forward(problem):
    """Pool as a library that is right."""
    return cyroialign.roi_align(
        problem.features, problem.boxes, problem.bins, problem.spatial_scale, problem.sampling_ratio, True
    )


@pytest.fixture
def run(capsys):
    """Run the benchmark; return its exit status, what it printed, and the lines of its errors."""

    def run(*words):
        try:
            status = main(["bench", *map(str, words)])
        except SystemExit as stop:
            status = stop.code
        printed, errors = capsys.readouterr()
        return status, printed, errors.splitlines()

    return run


@pytest.fixture
def peers(monkeypatch):
    """Let the benchmark know these functions of a problem, by name, instead of libraries."""

    def peers(**forwards):
        def rows_of(name, forward):
            return lambda problem: [Row(name, "forward", "NCHW", lambda: forward(problem))]

        made = [others.Peer(name, (), "a fake", rows_of(name, forward)) for name, forward in forwards.items()]
        monkeypatch.setattr(others, "PEERS", made)

    return peers


@pytest.mark.parametrize("name", bench.WORKLOADS)
def test_boxes(name):
    workload = bench.WORKLOADS[name]._replace(rois=2000)
    boxes = workload.boxes()
    assert (boxes.shape, boxes.dtype) == ((2000, 5), np.float32)
    assert not boxes[:, 0].any()
    x1, y1, x2, y2 = boxes[:, 1:].astype(float).T
    assert min(x1.min(), y1.min()) >= 0
    assert x2.max() <= workload.width * workload.stride
    assert y2.max() <= workload.height * workload.stride
    size, aspect = np.sqrt((x2 - x1) * (y2 - y1)), (x2 - x1) / (y2 - y1)
    low, high = workload.sizes
    # A uniform variable has its mean in the middle and a deviation of 1/sqrt(12) of the range.
    assert low * 0.9999 < size.min() < size.max() < high * 1.0001
    assert size.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    assert size.std() == pytest.approx((high - low) / 12**0.5, rel=0.05)
    assert 0.4999 < aspect.min() < aspect.max() < 2.0001
    small = size < min(workload.height, workload.width) * workload.stride / 2**0.5  # these fit, however long
    if small.sum() > 1000:
        assert np.log2(aspect[small]).mean() == pytest.approx(0, abs=0.1)
        assert np.log2(aspect[small]).std() == pytest.approx(2 / 12**0.5, rel=0.05)


def test_boxes_and_features_are_the_same_each_time():
    workload = bench.WORKLOADS["P5-single"]
    np.testing.assert_array_equal(workload.boxes(), workload.boxes())
    np.testing.assert_array_equal(workload.features(), workload.features())
    assert workload.features().shape == (1, 256, 25, 34)


def test_quick_run(run, tmp_path):
    """With the libraries that are installed."""
    path = tmp_path / "bench.json"
    status, printed, errors = run("--quick", "--workload", "P5-single", "--threads", 1, "--json", path)
    assert (status, errors) == (0, [])
    written = json.loads(path.read_text())
    [result] = written["results"]
    assert (result["name"], result["threads"], result["rois"]) == ("P5-single", 1, 1)
    assert set(OURS) <= set(result["rows"])
    for name, row in result["rows"].items():
        assert name in printed
        assert len(row["rounds"]) == QUICK_ROUNDS
        assert row["ratio"] == pytest.approx(result["rows"][result["baseline"]]["ms"] / row["ms"])
    peers = set(written["settings"]) - {"cyroialign"} | set(written["not compared"])
    assert peers == {peer.library for peer in others.PEERS if "roi_align" in peer.operators}
    assert not [name for name in result["left out"] if "cyroialign" in name]
    command = written["command"]["to repeat"].split()
    assert command[:4] == ["python", "-m", "cyroialign", "bench"]
    assert command[4:] == ["--workload", "P5-single", "--threads", "1", "--quick"]
    assert " ".join(command) in printed


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtypes", [(), ("float16", "uint8"), ("bfloat16", "int8")])
def test_rows_of_an_operator(operator, dtypes):
    """Every row agrees, and is there: both layouts, both directions, each type."""
    if "bfloat16" in dtypes:
        pytest.importorskip("ml_dtypes")
    both = ("forward", "backward", "boxes")
    own = {"boxes_backward": ("boxes",), "prroi_pool": both, "crop_and_resize": both}
    directions = own.get(operator, ("forward", "backward"))
    libraries = ["cyroialign"] + ["level-by-level"] * (operator == "multiscale")
    libraries += [f"cyroialign {dtype}" for dtype in dtypes]
    workload = next(iter(bench.workloads_of(operator).values()))._replace(rois=20)
    if operator not in POSITION_SENSITIVE:
        workload = workload._replace(channels=9)
    result = bench.measure(workload, 1, 1, [], None, operator, dtypes)
    assert (result.operator, result.excluded) == (operator, {})
    assert list(result.seconds) == [
        f"{library} {direction} {layout}"
        for library in libraries
        for direction in directions
        for layout in ("NCHW", "NHWC")
        if "int8" not in library or direction == "forward"
    ] + ["floor"]


@pytest.mark.parametrize("operator", OPERATORS)
def test_rows_pool_what_they_say(operator):
    """The first row of each direction, which the others are compared with, against plain calls."""
    workload = next(iter(bench.workloads_of(operator).values()))._replace(rois=20)
    problem = workload.problem(1, operator)
    rows = {row.direction: row for row in reversed(ours(problem)) if row.layout == "NCHW"}
    given = (problem.boxes, 7, 1 / workload.stride)

    def turned():
        return np.column_stack([problem.images, rotated(problem.corners)]).astype(np.float32)

    expected = {
        "roi_align": lambda x: cyroialign.roi_align(x, *given, 2, True),
        "max": lambda x: cyroialign.roi_align(x, *given, 2, True, mode="max"),
        "onnx_max": lambda x: cyroialign.roi_align(x, *given, 2, True, mode="onnx_max"),
        "roi_align_rotated": lambda x: cyroialign.roi_align_rotated(x, turned(), *given[1:], 2),
        "roi_align_3d": lambda x: cyroialign.roi_align_3d(x, *given, 2, True),
        "roi_pool": lambda x: cyroialign.roi_pool(x, *given),
        "prroi_pool": lambda x: cyroialign.prroi_pool(x, *given),
        "crop_and_resize": lambda x: cyroialign.crop_and_resize(
            x, problem.shares, problem.images, 7, layout="NCHW"
        ),
        "ps_roi_align": lambda x: cyroialign.ps_roi_align(x, *given, 2),
        "ps_roi_pool": lambda x: cyroialign.ps_roi_pool(x, *given),
    }
    if operator == "boxes_backward":
        wanted = cyroialign.roi_align_boxes_backward(
            problem.gradient, problem.features, problem.boxes, given[2], 2, True
        )
        np.testing.assert_array_equal(rows["boxes"].call(), wanted)
    elif operator == "multiscale":
        pool = cyroialign.MultiScaleRoIAlign(list("0123"), 7, 2)
        x = dict(zip("0123", problem.levels, strict=True))
        image = [(800, 1088)]
        np.testing.assert_array_equal(rows["forward"].call(), pool(x, [problem.corners], image))
        assert sum(map(bool, map(len, problem.rows_of_levels()))) > 1
    else:
        np.testing.assert_array_equal(rows["forward"].call(), expected[operator](problem.features))


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "boxes_backward"])
def test_peers_have_the_operator(operator):
    """All installed ones agree with cyroialign."""
    workload = next(iter(bench.workloads_of(operator).values()))._replace(rois=20)
    if operator not in POSITION_SENSITIVE:
        workload = workload._replace(channels=9)
    found, missing = others.installed(operator)
    assert {peer.library for peer in found} | set(missing) == {
        peer.library for peer in others.PEERS if operator in peer.operators
    }
    result = bench.measure(workload, 1, 1, found, None, operator)
    assert result.excluded == {}
    forward = {name.rpartition(" ")[0] for name in result.seconds}
    assert {f"{peer.library} forward" for peer in found} <= forward


def test_quick_run_of_another_operator(run, tmp_path):
    path = tmp_path / "bench.json"
    words = ("--operator", "roi_pool", "--workload", "P5-single", "--dtype", "uint8", "--threads", 1)
    status, printed, errors = run(*words, "--quick", "--json", path)
    assert (status, errors) == (0, [])
    written = json.loads(path.read_text())
    [result] = written["results"]
    assert result["operator"] == "roi_pool"
    assert {*OURS, "cyroialign uint8 forward NHWC"} < set(result["rows"])
    assert printed.startswith("RoIPool\n")
    command = written["command"]["to repeat"].split()
    assert command == ["python", "-m", "cyroialign", "bench", *map(str, words), "--quick"]


def test_every_operator_in_one_run(run, peers, tmp_path):
    """Each with the workloads that it has; the table of the family comes first."""
    peers(fake=forward)
    path, page = tmp_path / "bench.json", tmp_path / "bench.md"
    words = ("--operator", "all", "--workload", "P5-single", "--threads", 1, "--quick")
    status, printed, errors = run(*words, "--json", path, "--markdown", page)
    assert (status, errors) == (0, [])
    found = [(result["operator"], result["name"]) for result in json.loads(path.read_text())["results"]]
    several = ("multiscale", "roi_align_3d", *POSITION_SENSITIVE)  # these have workloads of their own
    assert found == [(operator, "P5-single") for operator in OPERATORS if operator not in several]
    lines = page.read_text().splitlines()
    assert lines[0].startswith("How many times as fast as the fastest peer")
    [row] = [line for line in lines if line.startswith("| roi_align | forward | 1 |")]
    assert row.endswith("| fake |")
    assert row in printed
    assert "| max | backward | 1 | no peer | no peer |  |" in lines


def test_settings_are_printed_once(run, peers):
    peers(fake=forward)
    words = ("--workload", "P5-single", "--workload", "Edge-1", "--threads", 1, "--quick")
    status, printed, _ = run(*words)
    assert status == 0
    assert printed.count("  fake: a fake\n") == 1


def test_narrow_rows_that_are_wrong_are_not_timed(monkeypatch):
    """Rows of a type have its tolerance and no more."""
    true_call = cyroialign.roi_align

    def off(input, *args, out, **kwargs):
        true_call(input, *args, out=out, **kwargs)
        if input.dtype == np.float16:
            out *= np.float16(1.004)
        return out

    monkeypatch.setattr(cyroialign, "roi_align", off)
    result = bench.measure(bench.WORKLOADS["P5-single"], 1, 1, [], None, "roi_align", ("float16",))
    assert list(result.excluded)[:2] == [
        f"cyroialign float16 forward {layout}" for layout in ("NCHW", "NHWC")
    ]


def test_peers_that_are_wrong_are_not_timed(run, peers, tmp_path):
    def fails(problem):
        raise RuntimeError("not\ntoday")

    peers(
        right=forward,
        close=lambda problem: forward(problem) * np.float32(1.00001),
        wrong=lambda problem: forward(problem) * np.float32(1.001),
        shifted=lambda problem: np.roll(forward(problem), 1),
        undefined=lambda problem: forward(problem) * np.float32(np.nan),
        cut=lambda problem: forward(problem)[:, :, 1:],
        fails=fails,
    )
    path = tmp_path / "bench.json"
    status, printed, errors = run("--quick", "--workload", "P5-single", "--threads", 1, "--json", path)
    assert (status, errors) == (0, [])
    [result] = json.loads(path.read_text())["results"]
    timed = [*OURS, "right forward NCHW", "close forward NCHW", "floor"]
    assert list(result["rows"]) == timed
    assert result["baseline"] == "floor"
    left_out = result["left out"]
    assert list(left_out) == [
        f"{name} forward NCHW" for name in ("wrong", "shifted", "undefined", "cut", "fails")
    ]
    assert left_out["wrong forward NCHW"] == "disagrees by 0.001 of the largest value"
    assert left_out["undefined forward NCHW"] == "disagrees by nan of the largest value"
    assert left_out["cut forward NCHW"].startswith("ValueError: the result has shape (1, 256, 6, 7)")
    assert left_out["fails forward NCHW"] == "RuntimeError: not today"
    assert all(f"left out: {name}: {why}" in printed for name, why in left_out.items())


def test_onnxruntime_is_the_baseline(peers):
    peers(onnxruntime=forward)
    found, missing = others.installed()
    result = bench.measure(bench.WORKLOADS["P5-single"], 1, 1, found)
    assert (result.baseline, missing) == ("onnxruntime forward NCHW", {})
    assert result.ratio(result.baseline) == 1
    assert result.ratio(OURS[0]) == result.median(result.baseline) / result.median(OURS[0])


def test_markdown(run, peers, tmp_path):
    def not_with_7_bins(problem):
        if problem.bins == 7:
            raise RuntimeError("not today")
        return forward(problem)

    peers(picky=not_with_7_bins)
    path = tmp_path / "bench.md"
    words = ("--quick", "--threads", 1, "--workload", "P5-single", "--workload", "P2-mask")
    status, printed, _ = run(*words, "--markdown", path)
    assert status == 0
    assert "picky: a fake" in printed
    lines = path.read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert rows[0] == ["", "P5-single", "P2-mask"]
    assert [row[0] for row in rows[2:]] == [*OURS, "floor", "picky forward NCHW"]
    assert all(len(row) == 3 for row in rows)
    assert (rows[-1][1], rows[-2][1].split()[0]) == ("", "1.00")
    assert "- settings of picky: a fake" in lines


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = Progress(2)
    progress.show(0, "first")
    progress.end_task()
    progress.show(0.5, "second " * 20)
    progress.end_task()
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.split("\r") if line]
    assert [len(line) for line in lines] == [79] * 4 * terminal
    assert [line[14:19].strip() for line in lines] == ["0%", "", "75%", ""][: 4 * terminal]
    assert not lines or lines[2].rstrip() == f"[#########---]  75%  {'second ' * 7}..."


def test_libraries_that_cannot_be_imported(monkeypatch, tmp_path):
    (tmp_path / "leaves.py").write_text("raise SystemExit(127)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        others, "PEERS", [others.Peer(name, (name,), "", list) for name in ("leaves", "nowhere", "json")]
    )
    found, missing = others.installed()
    assert [peer.library for peer in found] == ["json"]
    assert missing == {"leaves": "SystemExit: 127", "nowhere": "no module nowhere"}


def test_plot(run, peers, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    peers(right=forward)
    path = tmp_path / "bench.png"
    status, _, errors = run("--quick", "--workload", "P5-single", "--threads", 1, "--plot", path)
    assert (status, errors) == (0, [])
    with image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    wanted = {tuple(bytes.fromhex(colour[1:])) for colour in report.COLOURS[:3]}
    assert wanted <= colours


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--workload", "P3"],
            "there is no workload 'P3'; choose from P2-box, P2-mask, P4-box, C4-adaptive, ",
        ),
        (["--operator", "nms"], "there is no operator 'nms'; choose from roi_align, max, onnx_max, boxes_"),
        (["--operator", "multiscale", "--workload", "P2-box"], "no workload 'P2-box'; choose from P2-P5"),
        (["--dtype", "int16"], "there is no dtype 'int16'; choose from float16, bfloat16, uint8, int8"),
        (["--threads", "0"], "--threads must be from 1 to"),
        (["--threads", "1,99999"], "--threads must be from 1 to"),
        (["--threads", "two"], "argument --threads: numbers of threads are like 1,2, got 'two'"),
        (["--json", "{folder}"], "is a folder"),
        (["--json", "{folder}/none/bench.json"], "there is no folder"),
        (["--markdown", "{folder}/none/bench.md"], "there is no folder"),
        (["--plot", "{folder}/bench.jpg"], "--plot must end in .png, got"),
        (["--json", "{folder}/a", "--markdown", "{folder}/a"], "--json and --markdown are the same file"),
        (["--plot", "{folder}/none/bench.png"], "there is no folder"),
    ],
)
def test_errors_are_one_line_and_status_2(run, tmp_path, words, message):
    status, printed, errors = run(*(word.format(folder=tmp_path) for word in words))
    assert (status, printed, len(errors)) == (2, "", 1)
    assert errors[0].startswith("cyroialign: error: ")
    assert message in errors[0]
    assert not list(tmp_path.iterdir())


def test_bfloat16_without_ml_dtypes(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    status, printed, errors = run("--dtype", "bfloat16")
    assert (status, printed, len(errors)) == (2, "", 1)
    assert errors[0].endswith('--dtype bfloat16 needs: pip install "cyroialign[bench]"')


def test_plot_without_matplotlib(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, printed, errors = run("--plot", tmp_path / "bench.png")
    assert (status, printed, len(errors)) == (2, "", 1)
    assert errors[0].endswith('--plot needs: pip install "cyroialign[bench]"')

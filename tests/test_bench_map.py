"""The map of the benchmark: what it measures when, and that it tells what was measured."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from cyroialign.__main__ import main
from cyroialign.bench import grid, map_report, timing
from cyroialign.bench import map as bench_map
from cyroialign.bench import peers as others
from cyroialign.bench.problem import Row

TINY = {"channels": (1, 2), "bins": (1, 3), "rois": (1, 5), "window": (4,), "sampling_ratio": (2, 0)}


class Clock:
    """Time that passes only where a call says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        """Tell the time."""
        return self.now

    def sleep(self, seconds):
        """Let it pass."""
        self.now += seconds

    def row(self, library, direction, layout, seconds, result):
        """Return a row whose call takes so many seconds of this clock."""

        def call():
            self.now += seconds
            return result

        return Row(library, direction, layout, call)


@pytest.fixture
def clock(monkeypatch):
    """Let the benchmark read a clock that moves by known times."""
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


@pytest.fixture
def fakes(monkeypatch, clock):
    """Rows of known times instead of all libraries and of cyroialign."""

    def fakes(ours, peers):
        def rows(times, problem):
            results = {"forward": problem.gradient, "backward": problem.features}
            return [
                clock.row(*name.rsplit(" ", 2), seconds, results[name.split()[-2]])
                for name, seconds in times.items()
            ]

        monkeypatch.setattr(timing, "floor", lambda problem: lambda: clock.sleep(0.001))
        monkeypatch.setattr(timing, "ours", lambda problem: rows(ours, problem))
        monkeypatch.setattr(
            others, "PEERS", [others.Peer("fake", (), "a fake", lambda problem: rows(peers, problem))]
        )
        return others.PEERS

    return fakes


OURS = {
    "cyroialign forward NCHW": 1.0,
    "cyroialign forward NHWC": 0.5,
    "cyroialign backward NCHW": 2.0,
    "cyroialign float16 forward NCHW": 4.0,
}
PEERS = {"fast forward NCHW": 2.0, "slow forward NCHW": 9.0, "last forward NHWC": 0.25}


def test_ratios_of_known_times(fakes):
    peers = fakes(OURS, PEERS)
    [result] = bench_map.survey([(grid.place(1, 1, 1, 4, 2), 1)], peers, "roi_align", (), math.inf)
    found = {(cell.direction, cell.layout, cell.dtype): cell for cell in bench_map.cells(result)}
    ratios = {key: (cell.peer, cell.ratio) for key, cell in found.items() if cell.peer}
    assert ratios == {
        ("forward", "NCHW", "float32"): ("fast", pytest.approx(2.0)),
        ("forward", "NHWC", "float32"): ("last", pytest.approx(0.5)),
        ("forward", "NCHW", "float16"): ("fast", pytest.approx(0.5)),
    }
    alone = found["backward", "NCHW", "float32"]
    assert (alone.peer, alone.seconds) == (None, pytest.approx(2.0))
    assert math.isnan(alone.ratio)


def test_time_is_bounded(fakes, clock):
    """By the place at which it runs out, of which few rounds are made as its calls take long."""
    peers = fakes(OURS, PEERS)
    order = grid.in_turn(grid.places(TINY, [1]), 0)
    results = bench_map.survey(order, peers, "roi_align", (), 100.0, clock.perf_counter)
    a_round = sum(OURS.values()) + sum(PEERS.values())
    assert 1 < len(results) < len(order)
    assert 100 <= clock.now < 100 + 4 * a_round
    assert [result.workload for result in results] == [workload for workload, _ in order[: len(results)]]
    assert {len(times) for result in results for times in result.seconds.values()} == {1}


def test_short_calls_have_all_rounds(fakes):
    peers = fakes({name: seconds / 1e4 for name, seconds in OURS.items()}, PEERS and {"a forward NCHW": 1e-3})
    [result] = bench_map.survey([(grid.place(1, 1, 1, 4, 2), 1)], peers, "roi_align", (), math.inf)
    assert {len(times) for times in result.seconds.values()} == {bench_map.ROUNDS}


def test_all_is_measured_once_if_there_is_time():
    places = grid.places(grid.AXES, (1, 2))
    order = grid.in_turn(places, 0)
    assert len(order) == len(set(order)) == len(places) > 800
    assert set(order) == set(places)


def test_the_same_order_for_the_same_seed():
    places = grid.places(grid.CORNERS, (1, 2))
    assert grid.in_turn(places, 3) == grid.in_turn(list(places), 3)
    assert grid.in_turn(places, 3) != grid.in_turn(places, 4)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_beginning_is_a_fair_sample(seed):
    places = grid.places(grid.AXES, (1, 2))
    for count in (30, 120):
        beginning = grid.in_turn(places, seed)[:count]
        for name, values in grid.AXES.items():
            met = Counter(grid.settings(workload)[name] for workload, _ in beginning)
            assert set(met) == set(values)
            assert max(met.values()) - min(met.values()) <= 0.25 * count, name


def test_places_are_what_they_are_called():
    for workload, threads in grid.places(grid.AXES, (1, 7)):
        made = grid.settings(workload)
        assert grid.place(**made) == workload
        assert threads in (1, 7)
        assert all(made[name] in values for name, values in grid.AXES.items())
        assert workload.rois * workload.channels * workload.bins**2 * 4 <= grid.SAMPLES
    boxes = grid.place(1, 7, 300, 16, 2).boxes()[:, 1:]
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)) / grid.STRIDE
    assert sides.mean() == pytest.approx(16, rel=0.02)


def cell(ratio, **settings):
    """Make a cell in which a peer takes a second."""
    named = {"channels": 1, "bins": 1, "rois": 1, "window": 4, "sampling_ratio": 2, "threads": 1}
    named |= {"direction": "forward", "layout": "NCHW", "dtype": "float32"} | settings
    return bench_map.Cell(**named, seconds=1 / ratio, peer="fake", peer_seconds=1.0)


def rows(table):
    return [
        [word.strip() for word in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]


def test_tables_count_and_sort():
    cells = [cell(0.5, channels=3), cell(2.0, channels=3), cell(4.0), cell(8.0, sampling_ratio=0)]
    cells.append(cell(1.0)._replace(peer=None, peer_seconds=None))
    table = map_report.tables(cells)
    assert table.startswith(
        "4 cells: cyroialign is slower than the fastest peer in 1; the median is 3.00 times"
    )
    assert "1 more cell without a peer" in table
    found = rows(table)
    assert ["channels 3", "2", "1", "0.500", "1.25"] in found
    assert ["sampling adaptive", "1", "0", "8.00", "8.00"] in found
    worst = found[found.index([*found[-5]]) :]
    assert [row[0] for row in worst[1:]] == ["0.500", "2.00", "4.00", "8.00"]
    assert worst[1][:5] == ["0.500", "2000", "1000", "fake", "3"]
    assert map_report.tables(cells[-1:]) == "1 cell, none of which has a peer here"


def test_every_cell_has_its_place_and_colour(monkeypatch):
    """Of the picture's panels, read back: no cell is drawn where another belongs."""
    figure_module = pytest.importorskip("matplotlib.figure")
    figures = []

    class Kept(figure_module.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(figure_module, "Figure", Kept)
    names = list(TINY)
    settings = [dict(zip(names, values, strict=True)) for values in itertools.product(*TINY.values())]
    cells = [cell(2.0 ** (number / 8), **setting) for number, setting in enumerate(settings)]
    assert map_report.draw(cells, TINY, "a title").startswith(b"\x89PNG")
    [figure] = figures
    drawn = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert len(drawn) == 2
    for one in cells:
        sampling = "2 x 2 samples" if one.sampling_ratio else "adaptive"
        values = drawn[f"forward NCHW, float32, {sampling}, 1 thread"]
        y = TINY["rois"].index(one.rois)
        x = TINY["channels"].index(one.channels) * 2 + TINY["bins"].index(one.bins)
        assert values[y, x] == pytest.approx(math.log2(one.ratio))


def test_a_map_without_peers_can_be_drawn():
    pytest.importorskip("matplotlib")
    alone = cell(1.0)._replace(peer=None, peer_seconds=None)
    assert map_report.draw([alone], TINY, "a title").startswith(b"\x89PNG")


def test_command(fakes, monkeypatch, capsys, tmp_path):
    fakes(OURS, PEERS)
    monkeypatch.setattr(grid, "CORNERS", TINY)
    files = {option: tmp_path / f"map.{option}" for option in ("json", "markdown")}
    words = [word for option, path in files.items() for word in (f"--{option}", str(path))]
    status = main(["bench", "--map", "--quick", "--threads", "1", "--seconds", "1e9", "--seed", "5", *words])
    printed = capsys.readouterr().out
    assert status == 0
    assert "48 cells: cyroialign is slower than the fastest peer in 32" in printed
    assert (
        "command\n  to repeat: python -m cyroialign bench --map --threads 1 --quick --seconds 1e+09 --seed 5"
        in printed
    )
    written = json.loads(files["json"].read_text())
    assert len(written["cells"]) == 64
    assert len(written["places"]) == 16
    one = written["cells"][0]
    assert one["ratio"] == pytest.approx(one["peer_ms"] / one["ms"])
    assert {round(place["ms"]["slow forward NCHW"]) for place in written["places"]} == {9000}
    assert [cell["ratio"] for cell in written["cells"] if cell["direction"] == "backward"] == [None] * 16
    assert rows(files["markdown"].read_text()) == rows(printed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workload", "P2-box"], "--map has settings of its own: leave out --workload"),
        (
            ["--operator", "multiscale"],
            "there is no operator of a map 'multiscale'; choose from roi_align, max",
        ),
        (["--operator", "max", "--operator", "roi_pool"], "--map takes one operator, not max and roi_pool"),
        (["--seconds", "0"], "--seconds must be above 0, got 0"),
        (["--seconds", "nan"], "--seconds must be above 0, got nan"),
        (["--dtype", "int4"], "there is no dtype 'int4'"),
        (["--plot", "map.jpg"], "--plot must end in .png"),
    ],
)
def test_errors(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--map", *words])
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out) == (2, "")
    assert message in printed.err

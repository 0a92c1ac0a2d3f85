"""The benchmark of busy cores: that its processes compute and end, and that it counts rightly."""

import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("busy")


def test_spread(busy):
    """Of a hundred calls, one of which took a second, one is above the 99th percentile."""
    found = busy.spread([0.001] * 98 + [0.002, 1.0])
    assert found == (pytest.approx(11.0), pytest.approx(1.0), pytest.approx(1000.0))
    assert busy.spread([0.001] * 99 + [0.002, 1.0]).p99 == pytest.approx(2.0)
    assert busy.spread([0.004]) == (4.0, 4.0, 4.0)


def test_calls_take_turns_for_their_share_of_the_time(busy):
    """Their times are noted without that of what runs before each, and of the call that wakes the threads."""
    now, log = [0.0], []

    def takes(name, seconds):
        def call():
            now[0] += seconds
            log.append(name)

        return call

    calls = {"short": takes("short", 0.25), "long": takes("long", 4.0)}
    before, given = takes("before", 0.75), (lambda: now[0], lambda pause: None)
    found = busy.take_turns(calls, 100.0, before, *given)
    assert set(found["short"]) == {0.25}
    assert set(found["long"]) == {4.0}
    # Shares of 10 seconds: 10 and 3 calls. With those that wake threads, four turns are over 100 seconds.
    assert (len(found["short"]), len(found["long"])) == (40, 12)
    assert log[:4] == ["short", "before", "short", "before"]
    found = busy.take_turns(calls, 0.1, before, *given)
    assert found == {"short": [0.25], "long": [4.0]}


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="looks for processes as POSIX has them")
def test_competitors_compute_and_end(busy, monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(
        busy.subprocess, "Popen", lambda *args, **kw: started.append(popen(*args, **kw)) or started[-1]
    )
    with busy.competitors(2, 60):
        assert len(started) == 2
        assert [process.poll() for process in started] == [None, None]
    assert all(process.returncode for process in started)


def test_competitors_end_without_us(busy):
    """When their time is over, or their parent is not there: whoever started them may have been killed."""
    for parent, limit in ((os.getpid(), "0.01"), (1 << 30, "600")):
        command = [sys.executable, "-c", busy.COMPETITOR, str(parent), limit]
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE)


def test_all_participants_pool_the_same(busy):
    results = {name: np.array(call()) for name, call in busy.calls_of(3, 8).items()}
    assert set(results) >= {"cyroialign", "cyroialign, 1 thread"}
    for result in results.values():
        np.testing.assert_allclose(result, results["cyroialign"], rtol=0, atol=1e-5)


def test_table(busy, capsys):
    busy.main(["--seconds", "0.01", "--rois", "1,2", "--competitors", "0,1", "--channels", "4"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    head, _, *rows = rows
    assert head[:4] == ["beside", "RoIs", "cyroialign, 1 thread", "cyroialign"]
    situations = ["nothing", "1 process", "an ONNX Runtime session"][: len(rows) // 2]
    assert [row[:2] for row in rows] == [[words, rois] for rois in "12" for words in situations]
    for row in rows:
        assert len(row) == len(head)
        assert row[-1] in ("yes", "no")
        assert all(len(cell.split(" / ")) == 3 for cell in row[2:-1])


def test_what_is_kept(busy):
    def kept(one, default):
        spreads = {"cyroialign, 1 thread": busy.Spread(one, 0, 0), "cyroialign": busy.Spread(default, 0, 0)}
        return busy.row(0, 1, spreads).split("|")[-2].strip()

    assert kept(1.0, 2.1) == "yes"
    assert kept(1.0, 2.3) == "no"

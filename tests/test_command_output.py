"""The command line where its output cannot go as it is, its photographs are large, or its user stops it."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from cyroialign import demo
from cyroialign.__main__ import main
from cyroialign.demo import photograph

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")

WORDS = {
    "nothing": [],
    "info": ["info"],
    "version": ["--version"],
    "help": ["--help"],
    "demo --help": ["demo", "--help"],
    "bench --help": ["bench", "--help"],
    "demo": ["demo", "küche.png", "--output", "new.png"],
    "bench": ["bench", "--quick", "--workload", "P5-single", "--threads", "1", "--json", "new.json"],
}


@pytest.fixture
def command(tmp_path):
    """Run the command line in a new process, in a folder with a photograph; return what it did."""
    Image.new("RGB", (80, 60), (10, 200, 30)).save(tmp_path / "küche.png")

    def command(*words, stdout=subprocess.PIPE, **variables):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
        environment.pop("PYTHONUNBUFFERED", None)
        tool = [sys.executable, "-W", "error", "-m", "cyroialign", *words]
        return subprocess.run(
            tool, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, timeout=120
        )

    return command


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_reader_that_has_gone_away(command, words, tmp_path):
    """The status is that of a process ended by SIGPIPE; the picture has been written anyway."""
    reading, writing = os.pipe()
    os.close(reading)
    done = command(*words, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert (tmp_path / "new.png").exists() == ("demo" in words and "new.png" in words)


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["info"], ["--help"]])
def test_full_disk(command, words):
    with pathlib.Path("/dev/full").open("w") as full:
        done = command(*words, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "cyroialign: error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_ascii_output(command, words):
    done = command(*words, PYTHONUTF8="0", PYTHONIOENCODING="ascii:strict", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert bool(re.search(r"out of k\?+che.png", done.stdout)) == (words == WORDS["demo"])


def test_a_home_that_matplotlib_cannot_write_to(command):
    done = command(*WORDS["demo"], HOME=os.devnull, XDG_CONFIG_HOME="", XDG_CACHE_HOME="", MPLCONFIGDIR="")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_command_it_says_what_there_is(capsys):
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(name in printed.out for name in ("usage: cyroialign", "info", "demo", "bench"))


def test_interrupt(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr() == ("", "\n")


def test_large_photographs(monkeypatch, tmp_path, capsys):
    """Pillow's own bound does not count, whether it would warn or refuse; ours has an error that says so."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path, new = tmp_path / "large.png", tmp_path / "new.png"
    Image.new("RGB", (40, 30)).save(path)
    assert main(["demo", str(path), "--output", str(new)]) == 0
    assert photograph.MAX_PIXELS >= 96_000_000
    monkeypatch.setattr(photograph, "MAX_PIXELS", 1199)
    with pytest.raises(SystemExit, match="2"):
        main(["demo", str(path), "--output", str(new)])
    error = f"{path} has more than 1,199 pixels, the most that the demo reads; make it smaller first"
    assert capsys.readouterr().err == f"cyroialign: error: {error}\n"
    assert Image.MAX_IMAGE_PIXELS == 100

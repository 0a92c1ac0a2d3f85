"""The Makefile: what it lists, and that the README's commands are in it."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def make(*words):
    """Run make as from a shell, even where make runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *words], check=True, capture_output=True, text=True, cwd=ROOT, env=inherited
    )
    return done.stdout


def test_help_lists_every_target():
    [phony] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^make (\w+)  +\w", make("help"), re.MULTILINE) == phony.split()
    assert make() == make("help")


def test_the_readme_begins_with_one_command_each():
    first, second = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[:2]
    assert (first, second) == ("make demo\n", "make test\n")


@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("demo", ".venv/bin/cyroialign demo a.jpg --stride 8"),
        ("test", ".venv/bin/python -m pytest a.jpg --stride 8"),
    ],
)
def test_one_build_in_place(target, last):
    """An editable one, since the folder of the sources hides a package that is installed elsewhere."""
    commands = make("--dry-run", "--always-make", target, "ARGS=a.jpg --stride 8").splitlines()
    assert [line for line in commands if "install -" in line] == [".venv/bin/pip install -e ."]
    assert commands[-1] == last


def test_levels_leave_out_tests_that_exist():
    ignored = re.findall(r"--ignore=(\S+)", make("--dry-run", "levels"))
    assert len(ignored) > 5
    assert not [path for path in ignored if not (ROOT / path).exists()]

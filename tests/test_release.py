"""What a release consists of says the same everywhere."""

import pathlib
import re
import tomllib

import cyroialign

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = re.compile(r"(\d+\.\d+\.\d+)(\.dev\d+)?")


def test_the_citation_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [cyroialign.__version__]


def test_the_changelog_begins_with_the_version():
    """A version of development stands above its section, which has no date yet."""
    number, development = VERSION.fullmatch(cyroialign.__version__).groups()
    [title, *_] = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    date = r"\(not released yet\)" if development else r"- \d{4}-\d\d-\d\d"
    assert re.fullmatch(f"{re.escape(number)} {date}", title)


def test_a_wheel_for_each_python_that_is_promised():
    classifiers = "\n".join(PROJECT["project"]["classifiers"])
    promised = re.findall(r"^Programming Language :: Python :: 3\.(\d+)$", classifiers, re.MULTILINE)
    built = re.findall(r"cp3(\d+)-\*", PROJECT["tool"]["cibuildwheel"]["build"])
    assert built == promised

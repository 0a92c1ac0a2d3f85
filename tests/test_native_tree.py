"""Native sources depend on each other one way, and loops over threads stand where they may."""

import pathlib
import re

SRC = pathlib.Path(__file__).parent.parent / "src"
# What the files of a folder may include or cimport, beside what comes with C and Python.
MAY_NEED = {
    ".": {"kernels/"},
    "once": {"call", "once/", "geometry/"},
    "geometry": {"geometry/"},
    "kernels": {"call", "kernels/", "geometry/"},  # of a rotated box, which has no tables
}
FOREIGN = ("libc", "cpython", "cython", "Python.h", "numpy")
NEEDS = re.compile(
    r'^\s*(?:include "(.+?)"|cdef extern from "(.+?)"|from (\S+) cimport|#include "(.+?)")', re.MULTILINE
)


def sources():
    return sorted(path for path in SRC.rglob("*") if path.suffix in {".pyx", ".pxi", ".pxd", ".h"})


def needed(path):
    """Name what a file needs, as paths from src/, where compilers look, or beside the file."""
    found = {next(filter(None, names)) for names in NEEDS.findall(path.read_text(encoding="utf-8"))}
    own = {name for name in found if not name.startswith(FOREIGN)}
    return {name if name == "call" or (SRC / name).is_file() else beside(path, name) for name in own}


def beside(path, name):
    return (path.parent / name).resolve().relative_to(SRC).as_posix()


def test_dependencies_go_one_way():
    assert len(sources()) > 25
    for path in sources():
        allowed = MAY_NEED[str(path.relative_to(SRC).parent)]
        for name in needed(path):
            assert any(name == one or (one.endswith("/") and name.startswith(one)) for one in allowed), (
                f"{path.relative_to(SRC)} needs {name}"
            )


def test_what_is_needed_exists():
    for path in sources():
        for name in needed(path) - {"call"}:
            assert (SRC / name).is_file(), f"{path.name}: no {name}"


def test_kernels_and_rules_know_no_python():
    for folder in ("kernels", "geometry"):
        for path in (SRC / folder).glob("*.pxi"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(def |cdef class|raise |with gil)", text, re.MULTILINE), path.name
            assert "malloc" not in text, f"{path.name} allocates"

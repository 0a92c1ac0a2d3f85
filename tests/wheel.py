"""What an installed wheel must pass by each Python: `python tests/wheel.py`, and options of pytest.

It is installed, has OpenMP, leaves the GIL off where Python has none, and keeps its promises.
"""

import pathlib
import sys

import pytest

import cyroialign

HERE = pathlib.Path(__file__).parent
CHOSEN = [
    "promises",
    *(f"test_{name}.py" for name in ("config", "goldens", "load", "onnxruntime", "subinterpreters", "threads")),
]


def check_build():
    """Raise AssertionError if it is not the build that people should get."""
    folder = pathlib.Path(cyroialign.__file__).parent
    assert folder.parent != HERE.parent, f"{folder} is a source folder"
    assert cyroialign.show_config(as_dict=True)["openmp"], "built without OpenMP"


def has_gil():
    return getattr(sys, "_is_gil_enabled", lambda: True)()


if __name__ == "__main__":
    cyroialign.show_config()
    check_build()
    free = "free-threading" in sys.version
    assert has_gil() != free, "importing cyroialign turned the GIL on"
    status = pytest.main([*sys.argv[1:], "-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in CHOSEN)])
    assert has_gil() != free, "a test turned the GIL on"
    sys.exit(status)

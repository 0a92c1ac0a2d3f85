"""What an installed wheel must pass by each Python: `python tests/wheel.py`, and options of pytest.

It is installed, has OpenMP, leaves the GIL off where Python has none, and keeps its promises.
"""

import pathlib
import sys

import pytest

import cyroialign

HERE = pathlib.Path(__file__).parent
TESTS = (
    "promises",
    "test_config.py",
    "test_goldens.py",
    "test_load.py",
    "test_onnxruntime.py",
    "test_subinterpreters.py",
    "test_threads.py",
)


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
    options = ["-q", "-p", "no:cacheprovider", *sys.argv[1:]]
    status = pytest.main([*options, *(str(HERE / name) for name in TESTS)])
    assert has_gil() != free, "a test turned the GIL on"
    sys.exit(status)

"""Settings of the test run, and the fresh interpreters that some tests need."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if "CI" in os.environ else "local")


def pytest_collection_modifyitems(config, items):
    """Skip the tests marked heavy or torchvision unless -m speaks of them."""
    for mark in ("heavy", "torchvision"):
        if mark not in config.option.markexpr:
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=f"{mark}: run with -m {mark}"))


@pytest.fixture(scope="session")
def run_python():
    """Run code in a fresh interpreter with other environment variables; None removes one.

    Levels are compared where the environment names none: a run at one level leaves the others to theirs.
    """

    def run(code, *, timeout=60, check=True, **variables):
        if "CYROIALIGN_SIMD" in variables and os.environ.get("CYROIALIGN_SIMD"):
            pytest.skip("compares SIMD levels: not where CYROIALIGN_SIMD names one")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={name: value for name, value in environment.items() if value is not None},
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr or f"exit status {done.returncode}"
        return done

    return run

"""What Python's limited API, and with it one wheel for all of them, would cost a small call.

::

    python benchmarks/limited_api.py            # needs: pip install -e . cython setuptools; about a minute

Compiles ``src/once``, where Python is spoken, in both ways beside the kernels that are installed. Functions
of both take turns, in one process; the times are the tenth percentiles of 400 rounds.
"""

import importlib
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import cyroialign

ROOT = pathlib.Path(__file__).parent.parent
LIMITED = "-DPy_LIMITED_API=0x030b0000 -DCYTHON_LIMITED_API=1"
ROUNDS, CALLS = 400, 20


def build(folder, flags):
    """Make a package in a folder, of the installed kernels and of new ``src/once``."""
    package = pathlib.Path(cyroialign.__file__).parent
    shutil.copytree(package, folder / "cyroialign", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--force", "--build-lib", str(folder)]
    environment = {**os.environ, "CFLAGS": flags, "CYROIALIGN_LEVELS": "none"}
    subprocess.run([*command, "--build-temp", str(folder / "temp")], check=True, cwd=ROOT, env=environment)


def load(folder):
    """Import the package that lies in a folder, whatever has been imported before."""
    for name in [name for name in sys.modules if name.split(".")[0] == "cyroialign"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("cyroialign")
    finally:
        del sys.path[0]


def calls():
    """Small calls: a name, and what a package is asked."""
    rng = np.random.default_rng(0)
    few, boxes = rng.random((1, 4, 16, 16), np.float32), np.array([[0, 1, 1, 9, 9]], np.float32)
    many, large = rng.random((1, 256, 25, 34), np.float32), np.array([[0, 32, 48, 256, 320]], np.float32)
    bins = np.ones((1, 4, 7, 7), np.float32)
    return {
        "forward, 4 channels": lambda one: one.roi_align(few, boxes, 7, 1.0, 2, True),
        "backward, 4 channels": lambda one: one.roi_align_backward(bins, boxes, few.shape, 1.0, 2, True),
        "forward, boxes as lists": lambda one: one.roi_align(few, boxes.tolist(), 7, 1.0, 2, True),
        "P5-single": lambda one: one.roi_align(many, large, 7, 1 / 32, 2, True, num_threads=1),
    }


def microseconds(call, packages):
    """Time a call of each package, in turns."""
    times = [[] for _ in packages]
    for _ in range(ROUNDS):
        for package, kept in zip(packages, times, strict=True):
            start = time.perf_counter_ns()
            for _ in range(CALLS):
                call(package)
            kept.append((time.perf_counter_ns() - start) / CALLS / 1000)
    return [statistics.quantiles(kept, n=10)[0] for kept in times]


def main():
    """Print a row of a table for each call."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [pathlib.Path(temporary, name) for name in ("ordinary", "limited")]
        for folder, flags in zip(folders, ("", LIMITED), strict=True):
            build(folder, flags)
        packages = [load(folder) for folder in folders]
        print("| call | ordinary, µs | limited API, µs | |\n| --- | --- | --- | --- |")
        for name, call in calls().items():
            ordinary, limited = microseconds(call, packages)
            print(f"| {name} | {ordinary:.2f} | {limited:.2f} | {limited / ordinary - 1:+.0%} |")


if __name__ == "__main__":
    main()

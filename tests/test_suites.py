"""The asv suites: each has the form that asv needs, and the suites of small calls run."""

import importlib
import inspect
import itertools
import pathlib
import subprocess
import sys

import pytest
from narrow import BYTES, NARROW, dtype_of, result_of

from cyroialign.bench import WORKLOADS

ROOT = pathlib.Path(__file__).parent.parent
WITHOUT_OTHERS = """
import importlib, pathlib, sys

class Refuses:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "cyroialign", "benchmarks"}:
            raise ModuleNotFoundError(f"{name} is imported at the top", name=name)

import cyroialign.bench  # NumPy may look for what is not there
sys.meta_path.insert(0, Refuses)
for path in sorted(pathlib.Path("benchmarks").glob("*.py")):
    print(importlib.import_module(f"benchmarks.{path.stem}").__name__)
"""
TOPICS = (
    "backward",
    "box_gradient",
    "crops",
    "competition",
    "corners",
    "dtypes",
    "forward",
    "fpn",
    "grids",
    "imports",
    "latency",
    "layouts",
    "memory",
    "modes",
    "multiscale",
    "onnx_graph",
    "pooling",
    "threads",
    "volumes",
)


@pytest.fixture
def suites(monkeypatch):
    """Import the suites with few parameters, or with all; return those to run, by name."""
    monkeypatch.syspath_prepend(ROOT)

    def suites(which):
        monkeypatch.setenv("CYROIALIGN_BENCHMARKS", which)
        importlib.reload(importlib.import_module("benchmarks.common"))
        found = {}
        for topic in TOPICS:
            module = importlib.reload(importlib.import_module(f"benchmarks.{topic}"))
            found |= {name: suite for name, suite in vars(module).items() if name.endswith("Suite")}
        return found

    return suites


def benchmarks(suite):
    return [name for name in dir(suite) if name.startswith(("time_", "timeraw_", "peakmem_", "track_"))]


def combinations(suite):
    params = getattr(suite, "params", ((),))
    return list(itertools.product(*params)) if isinstance(params[0], tuple) else [(p,) for p in params]


def test_every_file_can_be_imported():
    """With NumPy alone: asv imports all, wherever it runs, and one that cannot be stops it."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OTHERS], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len([*(ROOT / "benchmarks").glob("*.py")])


def test_every_suite_is_among_the_topics(suites):
    found = {suite.__module__.removeprefix("benchmarks.") for suite in suites("few").values()}
    files = (ROOT / "benchmarks").glob("*.py")
    assert found == {path.stem for path in files if "SuiteBase" in path.read_text()}


def test_one_benchmark_a_suite(suites):
    found = suites("few")
    assert len(found) >= 20
    for name, suite in found.items():
        [benchmark] = benchmarks(suite)
        [base] = suite.__bases__
        assert base.__name__.endswith("SuiteBase")
        assert not benchmarks(base)
        taken = list(inspect.signature(getattr(suite, benchmark)).parameters)[1:]
        assert taken == list(getattr(suite, "param_names", ())), name


def test_full_has_all_that_few_has_and_more(suites):
    few = {name: combinations(suite) for name, suite in suites("few").items()}
    full = {name: combinations(suite) for name, suite in suites("full").items()}
    assert all(set(few[name]) <= set(full[name]) for name in few)
    assert sum(map(len, full.values())) > 2 * sum(map(len, few.values()))


@pytest.mark.parametrize(
    "name",
    [
        "LatencyForwardSuite",
        "LatencyBackwardSuite",
        "HugeBoxForwardSuite",
        "AnchorGeneratorSuite",
        "AssignLevelsSuite",
        "FeaturePyramidForwardSuite",
        "PositionSensitiveBackwardSuite",
        "CornersForwardSuite",
        "CornersBackwardSuite",
        "IntegralForwardSuite",
        "IntegralBackwardSuite",
        "IntegralBoxesSuite",
        "PasteThresholdSuite",
        "CropBoxesSuite",
    ],
)
def test_suites_of_small_calls_run(suites, name):
    suite_class = suites("few")[name]
    [benchmark] = benchmarks(suite_class)
    for parameters in combinations(suite_class):
        suite = suite_class()
        suite.setup(*parameters)
        getattr(suite, benchmark)(*parameters)


@pytest.mark.parametrize("dtype", ["float32", "float64", *NARROW])
def test_arrays_of_a_type(suites, dtype):
    """What DtypeForwardSuite and DtypeBackwardSuite are given, on a workload that is small."""
    suites("few")
    common = importlib.import_module("benchmarks.common")
    dtype_of(dtype)
    arrays = common.Arrays()
    arrays.prepare(WORKLOADS["P5-single"]._replace(channels=8), dtype=dtype, threads=1)
    arrays.forward()
    assert arrays.features.dtype.name == dtype
    assert arrays.output.dtype == result_of(arrays.features.dtype)
    assert arrays.output.any()
    if dtype not in BYTES:
        arrays.backward()
        assert arrays.grad_input.any()

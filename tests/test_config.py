"""What show_config and the version tell."""

import importlib.metadata
import re

import pytest

import cyroialign


def test_keys_and_values():
    config = cyroialign.show_config(as_dict=True)
    assert list(config) == ["version", "simd", "simd_levels", "openmp", "num_threads"]
    assert config["version"] == cyroialign.__version__
    assert config["simd_levels"][0] == "baseline"
    assert config["simd"] in config["simd_levels"]
    assert config["openmp"] is None or re.fullmatch(r"20\d\d-\d\d", config["openmp"])
    assert config["num_threads"] == cyroialign.get_num_threads()


def test_shown(capsys):
    with cyroialign.num_threads(1):
        assert cyroialign.show_config() is None
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    config = cyroialign.show_config(as_dict=True)
    assert list(lines) == list(config)
    assert lines["version"] == cyroialign.__version__
    assert lines["simd_levels"] == ", ".join(config["simd_levels"])
    assert lines["num_threads"] == "1"


def test_the_caller_owns_the_dict():
    cyroialign.show_config(as_dict=True)["simd_levels"].clear()
    assert cyroialign.show_config(as_dict=True)["simd_levels"]


def test_version_is_that_of_the_distribution():
    try:
        installed = importlib.metadata.version("cyroialign")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from a source tree that is not installed")
    assert installed == cyroialign.__version__


def test_public_names():
    assert sorted(cyroialign.__all__) == cyroialign.__all__
    assert all(hasattr(cyroialign, name) for name in cyroialign.__all__)

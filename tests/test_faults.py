"""Each allocation of a call fails in turn: an error, nothing lost, `out` whole or untouched."""

import os
import pathlib
import platform
import shutil
import subprocess
import sysconfig

import pytest
from operators import DIRECTIONS

NOISE = 2048  # bytes that a process gains whatever it does; maps and tables are larger
# Where allocations fail, on how many threads, and how often all do: memory is compared after the second round
# and the last. There is one where Python's own fail, which loses arguments of calls then.
PLACES = {"package": ("/_kernels/", 2, 4), "NumPy": ("/numpy/", 1, 4), "everywhere": ("", 1, 1)}

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or not shutil.which("cc")
    or "LD_PRELOAD" in os.environ
    or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="needs a C compiler, and glibc's malloc in the place of Python's",
)


@pytest.fixture(scope="module")
def failing_malloc(tmp_path_factory):
    """The library to load before all others."""
    library = tmp_path_factory.mktemp("faults") / "failing_malloc.so"
    source = pathlib.Path(__file__).parent / "failing_malloc.c"
    subprocess.run(["cc", "-O1", "-fno-builtin", "-shared", "-fPIC", source, "-o", library], check=True)
    return str(library)


@pytest.mark.parametrize("place", PLACES)
def test_every_allocation_fails_in_turn(place, failing_malloc, run_python):
    code = f"import faults; faults.main(*{PLACES[place]!r})"
    done = run_python(code, timeout=600, LD_PRELOAD=failing_malloc, PYTHONMALLOC="malloc")
    for name, line in zip(DIRECTIONS, done.stdout.splitlines(), strict=True):
        allocations, failed, growth = map(int, line.split())
        assert 0 < failed <= allocations, name
        assert growth < NOISE, f"{name} has lost {growth} bytes"

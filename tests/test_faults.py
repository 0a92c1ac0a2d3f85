"""Each allocation of a call fails in turn: an error, nothing lost, `out` whole or untouched."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from operators import DIRECTIONS

HERE = pathlib.Path(__file__).parent
NOISE = 2048  # bytes that a process gains whatever it does; maps and tables are larger
# Where allocations fail, on how many threads, and how often all do: memory is compared after the second round
# and the last. There is one where Python's own fail, which loses arguments of calls then.
PLACES = {"package": ("/_kernels/", 2, 4), "NumPy": ("/numpy/", 1, 4), "everywhere": ("", 1, 1)}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc") or "LD_PRELOAD" in os.environ,
    reason="needs a C compiler and glibc, whose functions it replaces",
)


@pytest.fixture(scope="module")
def failing_malloc(tmp_path_factory):
    """The library to load before all others."""
    library = tmp_path_factory.mktemp("faults") / "failing_malloc.so"
    command = ["cc", "-O1", "-fno-builtin", "-shared", "-fPIC", HERE / "failing_malloc.c", "-o", library]
    if subprocess.run(command, check=False).returncode or "musl" in os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("needs glibc")
    return str(library)


@pytest.mark.parametrize("place", PLACES)
def test_every_allocation_fails_in_turn(place, failing_malloc, run_python):
    code = f"import faults; faults.main(*{PLACES[place]!r})"
    done = run_python(code, timeout=600, LD_PRELOAD=failing_malloc, PYTHONMALLOC="malloc")
    for name, line in zip(DIRECTIONS, done.stdout.splitlines(), strict=True):
        allocations, failed, growth = map(int, line.split())
        assert 0 < failed <= allocations, name
        assert growth < NOISE, f"{name} has lost {growth} bytes"

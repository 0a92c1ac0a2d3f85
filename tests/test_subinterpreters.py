"""Subinterpreters, which mod_wsgi makes for every application: no call ends the process for them.

NumPy 2 can be imported by one interpreter of a process. That one may be any, and calls work there.
"""

import pathlib
import platform
import re
import sys

import busy_calls
import numpy as np
import pytest

SOURCES = pathlib.Path(__file__).parent.parent / "src"
ONCE = "more than once per process"  # as NumPy says it

in_subinterpreters = pytest.mark.skipif(
    platform.python_implementation() != "CPython", reason="another Python: no subinterpreters"
)
only_numpy_2 = pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="NumPy 2 refuses")


@in_subinterpreters
@pytest.mark.parametrize("kept", [False, True])
def test_main_interpreter_works_once_there_was_another(kept, run_python):
    """Every operator and gradient, with threads: Python 3.11 cannot tell then whether the GIL is held."""
    code = f"""
        import busy_calls, subinterpreters
        before = busy_calls.digests(num_threads=3)
        other = subinterpreters.create()
        assert not subinterpreters.run(other, "import math")
        if not {kept}:
            subinterpreters.destroy(other)
        for threads in (1, 2, 5):
            assert busy_calls.digests(num_threads=threads) == before
        print(len(before))
    """
    assert int(run_python(code, timeout=180).stdout) == len(busy_calls.DIRECTIONS)


@in_subinterpreters
def test_main_interpreter_imports_after_another_was_made(run_python):
    code = """
        import subinterpreters
        other = subinterpreters.create()
        import busy_calls
        print(busy_calls.digests(num_threads=3))
    """
    assert run_python(code, timeout=180).stdout.strip() == str(busy_calls.digests(num_threads=1))


@in_subinterpreters
@only_numpy_2
def test_second_interpreter_cannot_import(run_python):
    """It gets NumPy's error, as often as it tries; the first one goes on."""
    code = """
        import busy_calls, subinterpreters
        before = busy_calls.digests(num_threads=2)
        for _ in range(2):
            other = subinterpreters.create()
            for _ in range(2):
                print(subinterpreters.run(other, "import cyroialign"))
            subinterpreters.destroy(other)
        assert busy_calls.digests(num_threads=2) == before
    """
    said = run_python(code, timeout=180).stdout.splitlines()
    assert len(said) == 4
    assert all("ImportError" in line for line in said)
    assert ONCE in said[0]


@in_subinterpreters
@only_numpy_2
def test_first_interpreter_may_be_any(run_python):
    """A subinterpreter that imports first computes, and the main interpreter gets the error."""
    code = """
        import subinterpreters
        first = subinterpreters.create()
        said = subinterpreters.run(first, "import busy_calls")
        assert not said, said
        said = subinterpreters.run(first, "print(busy_calls.digests(num_threads=3), flush=True)")
        assert not said, said
        try:
            import cyroialign
        except ImportError as error:
            print(error)
        said = subinterpreters.run(first, "assert busy_calls.digests(num_threads=2)")
        assert not said, said
    """
    digests, error = run_python(code, timeout=180).stdout.splitlines()
    assert digests == str(busy_calls.digests(num_threads=1))
    assert ONCE in error


@in_subinterpreters
@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has interpreters with a GIL of their own")
@pytest.mark.parametrize("first", [False, True])
def test_interpreter_with_a_gil_of_its_own_cannot_import(first, run_python):
    code = f"""
        import subinterpreters
        if not {first}:
            import cyroialign
        other = subinterpreters.create(isolated=True)
        print(subinterpreters.run(other, "import cyroialign"))
        import busy_calls
        assert busy_calls.digests(num_threads=2)
    """
    assert "ImportError" in run_python(code, timeout=180).stdout


def functions(text):
    """(first lines, body) of the functions of a Cython source."""
    for found in re.finditer(
        r"^( *)c?p?def [^\n]*\([^)]*\)[^\n]*:\n((?:\1 +[^\n]*\n|\n)*)", text, re.MULTILINE
    ):
        yield found[0][: found.start(2) - found.start()], found[2]


def misplaced_loops(text):
    """Heads of functions with parallel loops that are not in `with nogil:` of code that holds the GIL."""
    with_loops = [(head, body) for head, body in functions(text) if "prange(" in body]
    assert sum(body.count("prange(") for _, body in with_loops) == text.count("prange("), (
        "outside of functions"
    )
    return [head for head, body in with_loops if "nogil:" in head or "with nogil:" not in body]


def test_parallel_loops_stand_in_code_that_holds_the_gil_around_them():
    """In functions without the GIL Cython asks for it, which ends the process: see carry_out."""
    texts = [path.read_text() for path in SOURCES.rglob("*.p[xy][ixd]")]
    assert any("prange(" in text for text in texts)
    assert not [head for text in texts for head in misplaced_loops(text)]
    loop = "    for i in prange(n):\n        work(i)\n"
    assert misplaced_loops(f"cdef void f(\n    int n,\n) noexcept nogil:\n{loop}\n\ncdef int g():\n{loop}")

"""Compile the kernels: one source, once for each SIMD level and type of map.

Environment
-----------
CYROIALIGN_OPENMP=0
    Build without OpenMP. Without the variable OpenMP is used where a test program links.
CYROIALIGN_CHECKED=1
    Check indices of memoryviews, the tables of each RoI and undefined behaviour of C: for debugging, slow.
CYROIALIGN_LEVELS=baseline
    Build these SIMD levels only (comma-separated). Without it, all that the compiler can.
"""

import os
import pathlib
import sys
import tempfile
from typing import NamedTuple

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

ROOT = pathlib.Path(__file__).parent
MSVC = sys.platform == "win32"
CHECKED = os.environ.get("CYROIALIGN_CHECKED", "0") != "0"
OPENMP = os.environ.get("CYROIALIGN_OPENMP", "1") != "0"

AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
LEVELS = {"baseline": [], "avx2": AVX2, "avx512": AVX512}  # src/runtime.h tests for the same features

NO_COMPILER = """
cyroialign is built from source here and needs a C compiler with the headers of Python, and a test
program did not compile. Install them, then try again:
    Debian, Ubuntu     apt install gcc python3-dev
    Fedora             dnf install gcc python3-devel
    Alpine             apk add gcc musl-dev python3-dev
    macOS              xcode-select --install     (and `brew install libomp` for threads)
    Windows            Build Tools for Visual Studio, workload "Desktop development with C++"
"""


class MapType(NamedTuple):
    """What Cython is told about the numbers of maps and results; src/storage.h has the truth."""

    pixel: str
    pooled: str
    family: bool  # all operators, not average RoIAlign alone


TYPES = {
    "float32": MapType("float", "float", family=True),
    "float64": MapType("float", "float", family=True),
    "float16": MapType("unsigned short", "unsigned short", family=False),
    "bfloat16": MapType("unsigned short", "unsigned short", family=False),
    "uint8": MapType("unsigned char", "float", family=False),
}
MEMORYVIEWS = "cyroialign._kernels._memoryviews"  # Cython's own code for them, once for all modules
MODULE = """\
cdef extern from "storage.h":
    ctypedef float real
    ctypedef {0.pixel} pixel
    ctypedef {0.pooled} pooled

include "kernels.pyx"
"""


class Flags(NamedTuple):
    compile: list[str]
    link: list[str]


def base_flags() -> Flags:
    """Flags for every module; no contraction to FMA, since that would make bits depend on the level."""
    if MSVC:
        return Flags(["/O2", "/fp:precise"], [])
    compile = ["-ffp-contract=off", "-Wno-psabi"]
    if CHECKED:
        sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
        return Flags([*compile, *sanitize, "-O1", "-g"], sanitize)
    return Flags([*compile, "-O3", "-g0"], ["-Wl,-s"] if sys.platform == "linux" else [])


def openmp_flags() -> Flags:
    if MSVC:
        return Flags(["/openmp"], [])
    if sys.platform == "darwin":
        return Flags(["-Xpreprocessor", "-fopenmp"], ["-lomp"])
    return Flags(["-fopenmp"], ["-fopenmp"])


def kernel_extensions() -> list[Extension]:
    """One extension a level and type, each from a file of a few lines that includes the shared source."""
    sources = ROOT / "build" / "kernels"
    sources.mkdir(parents=True, exist_ok=True)
    extensions = []
    for level in os.environ.get("CYROIALIGN_LEVELS", ",".join(LEVELS)).split(","):
        for name, kind in TYPES.items():
            source = sources / f"{level}_{name}.pyx"
            source.write_text(MODULE.format(kind) + 'include "family.pxi"\n' * kind.family)
            macros = [f"CYROIALIGN_{name.upper()}", *(["CYROIALIGN_CHECKED"] if CHECKED else [])]
            extensions.append(
                Extension(
                    f"cyroialign._kernels.{level}_{name}",
                    [str(source.relative_to(ROOT))],
                    define_macros=[(macro, None) for macro in macros],
                    extra_compile_args=LEVELS[level],
                )
            )
    return extensions


class BuildKernels(build_ext):
    """Finds out what the compiler can before it compiles."""

    def build_extensions(self) -> None:
        if not self.compiles(Flags([], []), "#include <Python.h>\nint main(void) { return 0; }"):
            sys.exit(NO_COMPILER)
        base = base_flags()
        openmp = Flags([], [])
        if OPENMP and self.compiles(
            openmp_flags(), "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"
        ):
            openmp = openmp_flags()
        self.extensions = [
            extension
            for extension in self.extensions
            if self.compiles(Flags(extension.extra_compile_args, []), "int main(void) { return 0; }")
        ]
        for extension in self.extensions:
            extension.include_dirs = [str(ROOT / "src")]
            extension.extra_compile_args = [*extension.extra_compile_args, *base.compile, *openmp.compile]
            extension.extra_link_args = [*base.link, *openmp.link]
        self.parallel = self.parallel or os.cpu_count()
        super().build_extensions()

    def compiles(self, flags: Flags, program: str) -> bool:
        """Compile and link a program, and tell whether that worked."""
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "probe.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], folder, include_dirs=self.include_dirs, extra_postargs=flags.compile
                )
                self.compiler.link_executable(
                    objects, "probe", folder, extra_postargs=flags.link, library_dirs=self.library_dirs
                )
            except (CCompilerError, ExecError, PlatformError):
                return False
            return True


setup(
    ext_modules=cythonize(
        [
            Extension("cyroialign._kernels._runtime", ["src/runtime.pyx"]),
            Extension("cyroialign._kernels._onnxruntime", ["src/onnxruntime.pyx"]),
            Extension(MEMORYVIEWS, ["build/kernels/_memoryviews.c"]),
            *kernel_extensions(),
        ],
        include_path=["src"],
        build_dir="build",
        shared_utility_qualified_name=MEMORYVIEWS,
        compiler_directives={
            "language_level": 3,
            "boundscheck": CHECKED,
            "wraparound": False,
            "initializedcheck": CHECKED,
            "nonecheck": CHECKED,
            "cdivision": True,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    ),
    cmdclass={"build_ext": BuildKernels},
)

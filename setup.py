"""Compile src/: what a folder there holds is compiled once, or once for each SIMD level and type of map.

Environment
-----------
CYROIALIGN_OPENMP=0
    Build without OpenMP; 1 demands it. Without the variable OpenMP is used where a test program links.
CYROIALIGN_CHECKED=1
    Check indices of memoryviews, the tables of each RoI and undefined behaviour of C: for debugging, slow.
CYROIALIGN_LEVELS=baseline
    Build these SIMD levels only (comma-separated). Without it, all that the compiler can.
"""

import os
import pathlib
import sys
import sysconfig
import tempfile
import zlib
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

ROOT = pathlib.Path(__file__).parent
BUILD = pathlib.Path("build")
MSVC = sys.platform == "win32"
CHECKED = os.environ.get("CYROIALIGN_CHECKED", "0") != "0"
OPENMP = os.environ.get("CYROIALIGN_OPENMP")
PACKAGE = "cyroialign._kernels"

AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
OF_X86 = {"avx2": AVX2, "avx512": AVX512}  # src/once/runtime.h tests for the same features
X86 = sysconfig.get_platform().endswith(("x86_64", "amd64", "universal2"))
LEVELS = {"baseline": [], **(OF_X86 if X86 else {})}
TYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int8")  # the longest to compile come first

ONCE = {
    "_front": "src/once/front.pyx",
    "_onnxruntime": "src/once/onnxruntime.pyx",
    "_runtime": "src/once/runtime.pyx",
}
KERNELS = "src/kernels/kernels.pyx"

NO_COMPILER = """
cyroialign is built from source here and needs a C compiler with the headers of Python, and a test
program did not compile. Install them, then try again:
    Debian, Ubuntu     apt install gcc python3-dev
    Fedora             dnf install gcc python3-devel
    Alpine             apk add gcc musl-dev python3-dev
    macOS              xcode-select --install     (and `brew install libomp` for threads)
    Windows            Build Tools for Visual Studio, workload "Desktop development with C++"
"""

MAIN = "int main(void) { return 0; }"
PYTHON_PROBE = f"#include <Python.h>\n{MAIN}"
OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }"
NO_OPENMP = "CYROIALIGN_OPENMP is set, and a test program with OpenMP did not compile and link."
HOMEBREW = ("/opt/homebrew/opt/libomp", "/usr/local/opt/libomp")  # which it links to no usual folder

NO_64_BITS = """
cyroialign needs a Python of 64 bits, and this one has 32: the sizes that its kernels compute would overflow.
"""

# The C of the kernels serves every module of them: it is translated once, and each names its function anew.
MODULE = """\
#define CYROIALIGN_{type}
#define PyInit_kernels PyInit_{name}
#include "{kernels}"
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
        sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-DCYROIALIGN_CHECKED"]
        return Flags([*compile, *sanitize, "-O1", "-g"], ["-fsanitize=undefined"])
    return Flags([*compile, "-O3", "-g0"], ["-Wl,-s"] if sys.platform == "linux" else [])


def openmp_flags() -> Flags:
    if MSVC:
        return Flags(["/openmp"], [])
    if sys.platform == "darwin":
        folders = [folder for folder in HOMEBREW if pathlib.Path(folder).is_dir()]
        return Flags(
            ["-Xpreprocessor", "-fopenmp", *(f"-I{folder}/include" for folder in folders)],
            [*(f"-L{folder}/lib" for folder in folders), "-lomp"],
        )
    return Flags(["-fopenmp"], ["-fopenmp"])


def level_probe(flags: list[str]) -> str:
    """Return a program for a compiler that obeys these flags: others may pass over what they do not know."""
    features = [flag.removeprefix("-m").upper() for flag in flags]
    return "".join(f"#ifndef __{feature}__\n#error\n#endif\n" for feature in features) + MAIN


def kernel_modules() -> list[Extension]:
    """One module for each level and type, from a file of a few lines that includes the C of the kernels."""
    levels = os.environ.get("CYROIALIGN_LEVELS", ",".join(LEVELS)).split(",")
    return [
        Extension(f"{PACKAGE}.{level}_{name}", [f"{BUILD}/kernels/{level}_{name}.c"])
        for name in TYPES
        for level in levels
    ]


class BuildKernels(build_ext):
    """Finds out what the compiler can, and translates and compiles that."""

    def build_extensions(self) -> None:
        if sys.maxsize < 2**32:
            sys.exit(NO_64_BITS)
        if not self.compiles(Flags([], []), PYTHON_PROBE):
            sys.exit(NO_COMPILER)
        levels = {
            name: flags
            for name, flags in LEVELS.items()
            if self.compiles(Flags(flags, []), level_probe(flags))
        }
        self.extensions = [one for one in self.extensions if level_of(one) in {None, *levels}]
        base, openmp = base_flags(), Flags([], [])
        if OPENMP != "0" and self.compiles(openmp_flags(), OPENMP_PROBE):
            openmp = openmp_flags()
        elif OPENMP not in {None, "0"}:
            sys.exit(NO_OPENMP)
        self.translate()
        for extension in self.extensions:
            extension.include_dirs = ["src", "src/kernels"]
            extension.depends = [*map(str, (ROOT / "src").rglob("*.*")), f"{BUILD}/src/kernels/kernels.c"]
            extension.extra_compile_args = [
                *levels.get(level_of(extension), []),
                *base.compile,
                *openmp.compile,
                f"-DCYROIALIGN_SOURCES={checksum()}u",
            ]
            extension.extra_link_args = [*base.link, *openmp.link]
        self.parallel = self.parallel or os.cpu_count()
        super().build_extensions()

    def translate(self) -> None:
        """Turn Cython into C, and write the files that name level and type."""
        from Cython.Build import cythonize  # not needed by those who only ask for metadata

        kernels = f"{PACKAGE}.kernels"
        sources = [Extension(f"{PACKAGE}.{name}", [source]) for name, source in ONCE.items()]
        translated = cythonize(
            [*sources, Extension(kernels, [KERNELS])],
            include_path=["src"],
            build_dir=str(BUILD),
            nthreads=(os.cpu_count() or 1) if sys.platform == "linux" else 0,
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
        )
        c_files = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            if extension.name in c_files:
                extension.sources = c_files[extension.name]
            else:
                write(extension, os.path.relpath(c_files[kernels][0], BUILD / "kernels"))

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


def checksum() -> int:
    """Of all the sources: modules that were built from others do not understand each other."""
    files = sorted(path for path in (ROOT / "src").rglob("*.*") if path.is_file())
    return zlib.crc32(b"".join(path.read_bytes() for path in files))


def level_of(extension: Extension) -> str | None:
    """The SIMD level of a module of the kernels; None for what is compiled once."""
    level = extension.name.removeprefix(f"{PACKAGE}.").split("_")[0]
    return level or None


def write(extension: Extension, kernels: str) -> None:
    """Write the source of a module of the kernels, unless it is there: what is newer is compiled again."""
    name = extension.name.rpartition(".")[2]
    text = MODULE.format(type=name.split("_")[1].upper(), name=name, kernels=pathlib.Path(kernels).as_posix())
    source = pathlib.Path(extension.sources[0])
    source.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists() or source.read_text() != text:
        source.write_text(text)


once = [Extension(f"{PACKAGE}.{name}", [source]) for name, source in ONCE.items()]
setup(ext_modules=[*once, *kernel_modules()], cmdclass={"build_ext": BuildKernels})

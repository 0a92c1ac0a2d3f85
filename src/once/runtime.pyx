# What the processor can run and how many threads OpenMP would use. Compiled for any processor.

cdef extern from "once/runtime.h":
    bint cpu_runs_avx2()
    bint cpu_runs_avx512()
    int OPENMP_DATE
    int omp_get_max_threads()


def cpu_levels():
    """The SIMD levels this processor can run, slowest first."""
    levels = ["baseline"]
    if cpu_runs_avx2():
        levels.append("avx2")
    if cpu_runs_avx512():
        levels.append("avx512")
    return levels


def openmp_date():
    """The OpenMP version of the build as its date, yyyymm; 0 for a build without OpenMP."""
    return OPENMP_DATE


def openmp_max_threads():
    """How many threads OpenMP would use now in this thread; 1 without OpenMP."""
    return omp_get_max_threads()

/* What the processor and the OpenMP runtime say of themselves. */
#ifndef CYROIALIGN_RUNTIME_H
#define CYROIALIGN_RUNTIME_H

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
#include <cpuid.h>
#define CPU_HAS(feature) (__builtin_cpu_supports(feature) != 0)
static inline int cpu_has_f16c(void) /* a name that clang 14 does not know */
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#else
#define CPU_HAS(feature) 0
static inline int cpu_has_f16c(void) { return 0; }
#endif

static inline int cpu_runs_avx2(void)
{
    return CPU_HAS("avx2") && CPU_HAS("fma") && CPU_HAS("bmi") && CPU_HAS("bmi2") && cpu_has_f16c();
}

static inline int cpu_runs_avx512(void)
{
    return cpu_runs_avx2() && CPU_HAS("avx512f") && CPU_HAS("avx512vl") && CPU_HAS("avx512bw") &&
           CPU_HAS("avx512dq");
}

#ifdef _OPENMP
#include <omp.h>
#define OPENMP_DATE _OPENMP
#else
#define OPENMP_DATE 0
static inline int omp_get_max_threads(void) { return 1; }
#endif

#endif

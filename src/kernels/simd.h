/* A vector of LANES numbers that are loaded, weighted and added as one.
 *
 * The flags of the compiler name the SIMD level, numbers.h the type `real`; this header turns both into `lanes`
 * and LANES. Lanes run along pixels or channels, never along a sum, so the width of the vector cannot change a
 * bit of any result. What lies in memory in another form than `real` is in storage.h.
 */
#ifndef CYROIALIGN_SIMD_H
#define CYROIALIGN_SIMD_H

#include "numbers.h"

#include <stddef.h>
#include <string.h>

#if defined(__GNUC__) && !defined(CYROIALIGN_SCALAR)

/* Both branches define, besides sums and products,
 *
 *     larger(a, b)                         NaN if either is, and b if they are equal
 *     where_reached(value, largest, v)     v where a value is what `larger` made of it and others, else 0
 *     unless_reached(value, largest, v)    v where it is not, else 0
 *
 * for the maximum of numbers of which none, one or several may be NaN. */

/* GCC and Clang: the compiler's own vectors, with + and * as for numbers. */
#ifdef __SSE2__
#include <immintrin.h>
#endif
#ifdef __AVX__ /* AVX-512 too, for its 32 registers: with 64 bytes channels-first took a fourth longer */
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16 /* SSE2, NEON */
#endif
#define LANES (VECTOR_BYTES / REAL_BYTES)

/* Cython's inline functions take constants that select their code: to inline them is no matter of taste. */
#undef CYTHON_INLINE
#define CYTHON_INLINE inline __attribute__((always_inline))

typedef real lanes __attribute__((vector_size(VECTOR_BYTES)));
typedef real lanes_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(REAL_BYTES)));
typedef __typeof__(((lanes){0} < (lanes){0})[0]) lane_number; /* a whole number as wide as a lane */
typedef lane_number lane_numbers __attribute__((vector_size(VECTOR_BYTES)));

/* The widest vectors there are, for the sums that wait for memory: see weighted_sum.pxi. */
#ifdef __AVX512F__
#define WIDE_BYTES 64
#else
#define WIDE_BYTES VECTOR_BYTES
#endif
#define WIDE (WIDE_BYTES / VECTOR_BYTES)

typedef real wide __attribute__((vector_size(WIDE_BYTES)));
typedef real wide_anywhere __attribute__((vector_size(WIDE_BYTES), aligned(REAL_BYTES)));
static inline wide load_wide(const real *from) { return *(const wide_anywhere *)from; }
static inline void store_wide(real *to, wide v) { *(wide_anywhere *)to = v; }

static inline lanes zeros(void) { return (lanes){0}; }
static inline lanes all_lanes(real value) { return zeros() + value; }
static inline lanes load(const real *from) { return *(const lanes_anywhere *)from; }
static inline void store(real *to, lanes v) { *(lanes_anywhere *)to = v; }

static inline lanes where_reached(lanes value, lanes largest, lanes v)
{
    return (lanes)(((value == largest) | (value != value)) & (lane_numbers)v);
}

static inline lanes unless_reached(lanes value, lanes largest, lanes v)
{
    return (lanes)(~((value == largest) | (value != value)) & (lane_numbers)v);
}

/* Where a lane of v is greater, that lane, else that of `than`. x86 has an instruction that does just this. */
#if defined(__AVX__) && REAL_BYTES == 4
static inline lanes greater(lanes v, lanes than) { return _mm256_max_ps(v, than); }
#elif defined(__AVX__)
static inline lanes greater(lanes v, lanes than) { return _mm256_max_pd(v, than); }
#elif defined(__SSE2__) && REAL_BYTES == 4
static inline lanes greater(lanes v, lanes than) { return _mm_max_ps(v, than); }
#elif defined(__SSE2__)
static inline lanes greater(lanes v, lanes than) { return _mm_max_pd(v, than); }
#else
static inline lanes greater(lanes v, lanes than)
{
    const lane_numbers chosen = v > than;
    return (lanes)((chosen & (lane_numbers)v) | (~chosen & (lane_numbers)than));
}
#endif

static inline int all_zero(lanes v)
{
    const lane_numbers other = v != 0;
    lane_number any = 0;
    for (int i = 0; i < LANES; ++i)
        any |= other[i];
    return !any;
}

static inline lanes larger(lanes a, lanes b)
{
    const lane_numbers nan = a != a;
    return (lanes)((nan & (lane_numbers)a) | (~nan & (lane_numbers)greater(a, b)));
}

static inline lane_numbers numbers(lane_number value) { return (lane_numbers){0} + value; }
static inline lane_numbers where_greater(lanes v, lanes than, int number, lane_numbers other)
{
    const lane_numbers chosen = v > than;
    return (chosen & number) | (~chosen & other);
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (lane_numbers){__VA_ARGS__})
#endif

#else

/* Any other compiler: vectors of one lane are plain C. */
#define VECTOR_BYTES REAL_BYTES
#define LANES 1
#define WIDE 1
typedef real lanes;
typedef real wide;
static inline wide load_wide(const real *from) { return *from; }
static inline void store_wide(real *to, wide v) { *to = v; }
typedef int lane_number;
typedef int lane_numbers;
static inline lanes zeros(void) { return 0; }
static inline lanes all_lanes(real value) { return value; }
static inline lanes load(const real *from) { return *from; }
static inline void store(real *to, lanes v) { *to = v; }
static inline lanes larger(lanes a, lanes b) { return a > b || a != a ? a : b; }
static inline lanes where_reached(lanes value, lanes largest, lanes v)
{
    return value == largest || value != value ? v : 0;
}
static inline lanes unless_reached(lanes value, lanes largest, lanes v)
{
    return value == largest || value != value ? 0 : v;
}
static inline lanes greater(lanes v, lanes than) { return v > than ? v : than; }
static inline int all_zero(lanes v) { return v == 0; }
static inline lane_numbers numbers(lane_number value) { return value; }
static inline lane_numbers where_greater(lanes v, lanes than, int number, lane_numbers other)
{
    return v > than ? number : other;
}

#endif

/* Bring bytes into the cache that will soon be written, or read. */
#ifdef __GNUC__
#define PREFETCH(at, write) __builtin_prefetch(at, write)
#else
#define PREFETCH(at, write) ((void)(at))
#endif

static inline void prefetch(const void *to, ptrdiff_t bytes)
{
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        PREFETCH((const char *)to + i, 1);
}

static inline void prefetch_source(const void *from, ptrdiff_t bytes)
{
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        PREFETCH((const char *)from + i, 0);
}

/* The largest number that each lane has met, and where: the first of equals. NaN is never greater. */
typedef struct {
    lanes value;
    lane_numbers row, column;
} Winners;

static inline void contest(Winners *winners, lanes v, int row, int column)
{
    winners->row = where_greater(v, winners->value, row, winners->row);
    winners->column = where_greater(v, winners->value, column, winners->column);
    winners->value = greater(v, winners->value);
}

/* The first n < LANES lanes alone, for the ends of arrays. The other lanes of what is loaded are 0.
 * Copies of constant size, since a call of memcpy for a few numbers would cost more than all the rest. */
static inline void copy_first(void *to, const void *from, ptrdiff_t n, size_t size)
{
    char *target = to;
    const char *source = from;
    if (n & 4) {
        memcpy(target, source, 4 * size);
        target += 4 * size, source += 4 * size;
    }
    if (n & 2) {
        memcpy(target, source, 2 * size);
        target += 2 * size, source += 2 * size;
    }
    if (n & 1)
        memcpy(target, source, size);
}

#if defined(__AVX512VL__)
#define FIRST(n) ((__mmask8)((1u << (n)) - 1)) /* n < LANES */
#endif

static inline lanes load_first(const real *from, ptrdiff_t n)
{
    if (n >= LANES)
        return load(from);
#if defined(__AVX512VL__) && REAL_BYTES == 4
    return _mm256_maskz_loadu_ps(FIRST(n), from);
#elif defined(__AVX512VL__)
    return _mm256_maskz_loadu_pd(FIRST(n), from);
#else
    real all[8] = {0};
    copy_first(all, from, n, sizeof(real));
    return load(all);
#endif
}

static inline void store_first(real *to, lanes v, ptrdiff_t n)
{
    if (n >= LANES) {
        store(to, v);
        return;
    }
#if defined(__AVX512VL__) && REAL_BYTES == 4
    _mm256_mask_storeu_ps(to, FIRST(n), v);
#elif defined(__AVX512VL__)
    _mm256_mask_storeu_pd(to, FIRST(n), v);
#else
    real all[8] = {0};
    store(all, v);
    copy_first(to, all, n, sizeof(real));
#endif
}

/* One step of a transposition: of each two vectors d apart, the first gets the numbers FIRST of both,
 * the second the numbers SECOND. */
#define EXCHANGE(v, d, FIRST, SECOND)                                           \
    _Pragma("GCC unroll 16") for (int i_ = 0; i_ < LANES; ++i_) if (!(i_ & d)) { \
        const lanes a_ = v[i_], b_ = v[i_ + d];                                 \
        v[i_] = SHUFFLE(a_, b_, FIRST);                                         \
        v[i_ + d] = SHUFFLE(a_, b_, SECOND);                                    \
    }

/* Vectors 1 and 2 of each four change places. */
#define SWAP_INNER(v)                                                     \
    _Pragma("GCC unroll 4") for (int i_ = 1; i_ + 2 < LANES; i_ += 4) {   \
        const lanes a_ = v[i_];                                           \
        v[i_] = v[i_ + 1];                                                \
        v[i_ + 1] = a_;                                                   \
    }

/* Lane j of v[i] becomes lane i of v[j]. A step stays inside 16 bytes or moves 16 bytes whole, which is
 * one instruction a vector on AVX; the moves are free where vectors are 16 bytes long. */
static inline void transpose(lanes v[LANES])
{
#if REAL_BYTES == 4 && LANES == 8
#define ONES_1 0, 8, 1, 9, 4, 12, 5, 13
#define ONES_2 2, 10, 3, 11, 6, 14, 7, 15
#define TWOS_1 0, 1, 8, 9, 4, 5, 12, 13
#define TWOS_2 2, 3, 10, 11, 6, 7, 14, 15
#define FOURS_1 0, 1, 2, 3, 8, 9, 10, 11
#define FOURS_2 4, 5, 6, 7, 12, 13, 14, 15
    EXCHANGE(v, 1, ONES_1, ONES_2)
    EXCHANGE(v, 2, TWOS_1, TWOS_2)
    EXCHANGE(v, 4, FOURS_1, FOURS_2)
    SWAP_INNER(v)
#elif REAL_BYTES == 4 && LANES == 4
#define ONES_1 0, 4, 1, 5
#define ONES_2 2, 6, 3, 7
#define TWOS_1 0, 1, 4, 5
#define TWOS_2 2, 3, 6, 7
    EXCHANGE(v, 1, ONES_1, ONES_2)
    EXCHANGE(v, 2, TWOS_1, TWOS_2)
    SWAP_INNER(v)
#elif REAL_BYTES == 8 && LANES == 4
#define ONES_1 0, 4, 2, 6
#define ONES_2 1, 5, 3, 7
#define TWOS_1 0, 1, 4, 5
#define TWOS_2 2, 3, 6, 7
    EXCHANGE(v, 1, ONES_1, ONES_2)
    EXCHANGE(v, 2, TWOS_1, TWOS_2)
#elif LANES == 2
#define ONES_1 0, 2
#define ONES_2 1, 3
    EXCHANGE(v, 1, ONES_1, ONES_2)
#else
    (void)v;
#endif
}

#endif

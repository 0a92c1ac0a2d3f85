/* A vector of LANES numbers that are loaded, weighted and added as one: all the C the kernels need.
 *
 * The build names the type of number (-DCYROIALIGN_DOUBLE, else float) and the SIMD level (flags of
 * the compiler); this header turns both into `real`, `lanes` and LANES. Lanes run along pixels or
 * channels, never along a sum, so the width of the vector cannot change a bit of any result.
 */
#ifndef CYROIALIGN_SIMD_H
#define CYROIALIGN_SIMD_H

#include <stddef.h>
#include <string.h>

#ifdef CYROIALIGN_DOUBLE
typedef double real;
#define REAL_BYTES 8
#else
typedef float real;
#define REAL_BYTES 4
#endif

#if defined(__GNUC__) && !defined(CYROIALIGN_SCALAR)

/* GCC and Clang: the compiler's own vectors, with + and * as for numbers. */
#ifdef __AVX__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16 /* SSE2, NEON */
#endif
#define LANES (VECTOR_BYTES / REAL_BYTES)

typedef real lanes __attribute__((vector_size(VECTOR_BYTES)));
typedef real lanes_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(REAL_BYTES), may_alias));

static inline lanes zeros(void) { return (lanes){0}; }
static inline lanes load(const real *from) { return *(const lanes_anywhere *)from; }
static inline void store(real *to, lanes v) { *(lanes_anywhere *)to = v; }

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef __typeof__((lanes){0} < (lanes){0}) lane_numbers;
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (lane_numbers){__VA_ARGS__})
#endif

#else

/* Any other compiler: vectors of one lane are plain C. */
#define VECTOR_BYTES REAL_BYTES
#define LANES 1
typedef real lanes;
static inline lanes zeros(void) { return 0; }
static inline lanes load(const real *from) { return *from; }
static inline void store(real *to, lanes v) { *to = v; }

#endif

/* The first n lanes alone, for the ends of arrays. The other lanes of what is loaded are 0. */
static inline lanes load_first(const real *from, ptrdiff_t n)
{
    real all[LANES] = {0};
    memcpy(all, from, (size_t)n * sizeof(real));
    return load(all);
}

static inline void store_first(real *to, lanes v, ptrdiff_t n)
{
    real all[LANES];
    store(all, v);
    memcpy(to, all, (size_t)n * sizeof(real));
}

/* One step of a transposition: a and b become the two vectors that the lane numbers pick from (a, b). */
#define EXCHANGE(a, b, FIRST, SECOND)       \
    do {                                    \
        const lanes a_ = (a), b_ = (b);     \
        (a) = SHUFFLE(a_, b_, FIRST);       \
        (b) = SHUFFLE(a_, b_, SECOND);      \
    } while (0)

#define SWAP(a, b)            \
    do {                      \
        const lanes a_ = (a); \
        (a) = (b);            \
        (b) = a_;             \
    } while (0)

/* Lane j of v[i] becomes lane i of v[j]. Each step stays inside 16 bytes, or moves 16 bytes whole:
 * one instruction a vector on AVX2, and the moves are free where vectors are 16 bytes long. */
static inline void transpose(lanes v[LANES])
{
#if LANES == 8
#define FIRST_ONES 0, 8, 1, 9, 4, 12, 5, 13
#define SECOND_ONES 2, 10, 3, 11, 6, 14, 7, 15
#define FIRST_TWOS 0, 1, 8, 9, 4, 5, 12, 13
#define SECOND_TWOS 2, 3, 10, 11, 6, 7, 14, 15
#define FIRST_FOURS 0, 1, 2, 3, 8, 9, 10, 11
#define SECOND_FOURS 4, 5, 6, 7, 12, 13, 14, 15
    EXCHANGE(v[0], v[1], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[2], v[3], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[4], v[5], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[6], v[7], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[0], v[2], FIRST_TWOS, SECOND_TWOS);
    EXCHANGE(v[1], v[3], FIRST_TWOS, SECOND_TWOS);
    EXCHANGE(v[4], v[6], FIRST_TWOS, SECOND_TWOS);
    EXCHANGE(v[5], v[7], FIRST_TWOS, SECOND_TWOS);
    EXCHANGE(v[0], v[4], FIRST_FOURS, SECOND_FOURS);
    EXCHANGE(v[1], v[5], FIRST_FOURS, SECOND_FOURS);
    EXCHANGE(v[2], v[6], FIRST_FOURS, SECOND_FOURS);
    EXCHANGE(v[3], v[7], FIRST_FOURS, SECOND_FOURS);
    SWAP(v[1], v[2]);
    SWAP(v[5], v[6]);
#elif LANES == 4 && REAL_BYTES == 4
#define FIRST_ONES 0, 4, 1, 5
#define SECOND_ONES 2, 6, 3, 7
#define FIRST_TWOS 0, 1, 4, 5
#define SECOND_TWOS 2, 3, 6, 7
    EXCHANGE(v[0], v[1], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[2], v[3], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[0], v[2], FIRST_TWOS, SECOND_TWOS);
    EXCHANGE(v[1], v[3], FIRST_TWOS, SECOND_TWOS);
    SWAP(v[1], v[2]);
#elif LANES == 4
#define FIRST_ONES 0, 4, 2, 6
#define SECOND_ONES 1, 5, 3, 7
#define FIRST_TWOS 0, 1, 4, 5
#define SECOND_TWOS 2, 3, 6, 7
    EXCHANGE(v[0], v[1], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[2], v[3], FIRST_ONES, SECOND_ONES);
    EXCHANGE(v[0], v[2], FIRST_TWOS, SECOND_TWOS);
    EXCHANGE(v[1], v[3], FIRST_TWOS, SECOND_TWOS);
#elif LANES == 2
#define FIRST_ONES 0, 2
#define SECOND_ONES 1, 3
    EXCHANGE(v[0], v[1], FIRST_ONES, SECOND_ONES);
#else
    (void)v;
#endif
}

#endif

/* How numbers lie in memory, where that is not how they are summed.
 *
 * Pixels, and what is pooled of them, may be narrower than `real` (see numbers.h): they become lanes of it as
 * they are loaded, and are rounded, to nearest and ties to even, as they are stored.
 *
 * Every level gives the same bits: what a processor converts by an instruction others do by arithmetic on
 * the bits, of which none depends on how the processor treats subnormal numbers.
 */
#ifndef CYROIALIGN_STORAGE_H
#define CYROIALIGN_STORAGE_H

#include "simd.h"

#if defined(CYROIALIGN_UINT8) || defined(CYROIALIGN_INT8)
#define BYTES 1 /* pixels are bytes */
#else
#define BYTES 0
#endif

#if NARROW || BYTES

/* LANES whole numbers as wide as a real, and as they lie in memory. */
#if LANES > 1
typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t signed_words __attribute__((vector_size(VECTOR_BYTES)));
typedef pixel pixels __attribute__((vector_size(LANES * sizeof(pixel)), aligned(sizeof(pixel))));
#define MASK(condition) ((words)(condition))
#define CONVERT(v, type) __builtin_convertvector(v, type)
#define BITS(v) ((words)(v))
#define FROM_BITS(v) ((lanes)(v))
#define ALL(v) ((words){0} + (v))
#else
typedef uint32_t words;
typedef int32_t signed_words;
typedef pixel pixels;
#define MASK(condition) (-(words)(condition))
#define CONVERT(v, type) ((type)(v))
#define ALL(v) ((words)(v))
static inline words BITS(lanes v)
{
    words bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}
static inline lanes FROM_BITS(words bits)
{
    lanes v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
#endif

/* Compilers convert vectors of whole numbers badly for x86. What has 16 bits is the upper half of a word. */
#if defined(__AVX2__) && NARROW
static inline words load_words(const pixel *from)
{
    return (words)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)) << 16;
}
static inline void store_words(pooled *to, words v)
{
    const __m256i halves = _mm256_packus_epi32((__m256i)v, (__m256i)v);
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(_mm256_permute4x64_epi64(halves, 8)));
}
#elif defined(__AVX2__) && defined(CYROIALIGN_INT8)
static inline words load_words(const pixel *from)
{
    return (words)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from));
}
#elif defined(__AVX2__)
static inline words load_words(const pixel *from)
{
    return (words)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from));
}
#elif defined(__SSE2__) && LANES == 4 && NARROW
static inline words load_words(const pixel *from)
{
    return (words)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)from));
}
static inline void store_words(pooled *to, words v) /* SSE2 packs signed words alone */
{
    const __m128i halves = (__m128i)((signed_words)(v << 16) >> 16);
    _mm_storel_epi64((__m128i *)to, _mm_packs_epi32(halves, halves));
}
#elif defined(__SSE2__) && LANES == 4
static inline words load_words(const pixel *from) /* as the upper bytes of words, from where they are shifted */
{
    int bytes;
    memcpy(&bytes, from, 4);
    const __m128i zero = _mm_setzero_si128(), halves = _mm_unpacklo_epi8(zero, _mm_cvtsi32_si128(bytes));
    const __m128i upper = _mm_unpacklo_epi16(zero, halves);
#ifdef CYROIALIGN_INT8
    return (words)_mm_srai_epi32(upper, 24);
#else
    return (words)_mm_srli_epi32(upper, 24);
#endif
}
#else
static inline words load_words(const pixel *from)
{
    return CONVERT(*(const pixels *)from, words) << (NARROW ? 16 : 0);
}
static inline void store_words(pooled *to, words v) { *(pixels *)to = CONVERT(v, pixels); }
#endif
static inline words choose(words mask, words v, words other) { return (mask & v) | (~mask & other); }

/* Of words below 2^31: SSE2 compares signed ones alone. */
static inline words below(words v, words than) { return MASK((signed_words)v < (signed_words)than); }

#endif

#if defined(CYROIALIGN_FLOAT16) && defined(__F16C__)

static inline lanes load_pixels(const pixel *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

static inline void store_pooled(pooled *to, lanes v)
{
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#elif defined(CYROIALIGN_FLOAT16)

/* The exponent has 5 bits and the bias 15, of float 8 and 127. Subnormals are whole multiples of 2^-24: behind
 * the leading digit of 2^-14, which is taken off again. */
static inline lanes load_pixels(const pixel *from)
{
    const words half = load_words(from), sign = half & 0x80000000, digits = (half & 0x7fffffff) >> 3;
    const words tiny = below(digits, ALL(1u << 23)), finite = below(digits, ALL(31u << 23));
    const words biased = digits + (112u << 23) + (tiny & (1u << 23)) + (~finite & (112u << 23));
    return FROM_BITS(sign | BITS(FROM_BITS(biased) - FROM_BITS(tiny & (113u << 23))));
}

/* Added to 1/2, whose last digit is 2^-24, a subnormal is rounded by the addition. NaN stays NaN. */
static inline void store_pooled(pooled *to, lanes v)
{
    const words bits = BITS(v), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    const words tiny = BITS(FROM_BITS(size) + 0.5f) - (126u << 23);
    const words normal = (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    const words nan = 0x7e00 | (size >> 13 & 0x3ff);
    words half = choose(below(size, ALL(113u << 23)), tiny, normal);
    half = choose(below(size, ALL(143u << 23)), half, ALL(0x7c00));
    half = choose(below(ALL(255u << 23), size), nan, half);
    store_words(to, sign | half);
}

#elif defined(CYROIALIGN_BFLOAT16)

/* The upper half of a float. */
static inline lanes load_pixels(const pixel *from) { return FROM_BITS(load_words(from)); }

static inline void store_pooled(pooled *to, lanes v)
{
    const words bits = BITS(v), nan = bits >> 16 | 0x40;
    const words nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    store_words(to, choose(below(ALL(255u << 23), bits & 0x7fffffff), nan, nearest));
}

#elif BYTES

static inline lanes load_pixels(const pixel *from)
{
    return CONVERT((signed_words)load_words(from), lanes);
}

static inline void store_pooled(pooled *to, lanes v) { store(to, v); }

#else

static inline lanes load_pixels(const pixel *from) { return load(from); }
static inline void store_pooled(pooled *to, lanes v) { store(to, v); }

#endif

/* Store past the caches what will not be read from them: its lines are then not fetched before they are
 * written. `to` is a multiple of STREAM_ALIGNMENT. 16 bytes at a time, since results are seldom aligned to
 * more, and the processor gathers them to lines. */
#define STREAM_ALIGNMENT 16
#if defined(__SSE2__) && LANES > 1 && NARROW && VECTOR_BYTES == 32
static inline void stream_pooled(pooled *to, lanes v)
{
    pooled all[LANES];
    store_pooled(all, v);
    _mm_stream_si128((__m128i *)to, _mm_loadu_si128((const __m128i *)all));
}
#elif defined(__SSE2__) && LANES > 1 && !NARROW
static inline void stream_pooled(pooled *to, lanes v)
{
    __m128i parts[VECTOR_BYTES / 16];
    memcpy(parts, &v, sizeof v);
    for (size_t i = 0; i < VECTOR_BYTES / 16; ++i)
        _mm_stream_si128((__m128i *)to + i, parts[i]);
}
#else
static inline void stream_pooled(pooled *to, lanes v) { store_pooled(to, v); }
#endif

/* Numbers before one that can be streamed to. */
static inline ptrdiff_t until_aligned(const pooled *at)
{
    return (ptrdiff_t)(-(uintptr_t)at % STREAM_ALIGNMENT / sizeof(pooled));
}

/* Another thread that hears of this one's end sees all that was streamed. */
static inline void finish_streams(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}

static inline lanes load_first_pixels(const pixel *from, ptrdiff_t n)
{
    if (n >= LANES)
        return load_pixels(from);
#if !NARROW && !BYTES
    return load_first(from, n);
#endif
    pixel all[8] = {0};
    copy_first(all, from, n, sizeof(pixel));
    return load_pixels(all);
}

static inline void store_first_pooled(pooled *to, lanes v, ptrdiff_t n)
{
    if (n >= LANES) {
        store_pooled(to, v);
        return;
    }
#if !NARROW
    store_first(to, v, n);
    return;
#endif
    pooled all[8] = {0};
    store_pooled(all, v);
    copy_first(to, all, n, sizeof(pooled));
}

/* Gradients are stored as results are. */
#if NARROW
static inline lanes load_pooled(const pooled *from) { return load_pixels(from); }
static inline lanes load_first_pooled(const pooled *from, ptrdiff_t n) { return load_first_pixels(from, n); }
#else
static inline lanes load_pooled(const pooled *from) { return load(from); }
static inline lanes load_first_pooled(const pooled *from, ptrdiff_t n) { return load_first(from, n); }
#endif

#endif

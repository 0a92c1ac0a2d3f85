/* Sine and cosine of any finite angle, with the same bits on every machine: integers, and doubles that are
 * only added and multiplied. The C library's differ from machine to machine in their last bit, which can move
 * a sample across a pixel.
 *
 * An angle is reduced exactly, however large: its product with the bits of 2 / pi is kept modulo 4. The errors
 * are below 1 ulp.
 */
#ifndef CYROIALIGN_ANGLES_H
#define CYROIALIGN_ANGLES_H

#include <math.h>
#include <stdint.h>

/* 64 zeros, then the bits of 2 / pi behind the point: enough for the largest double. */
static const uint32_t TWO_OVER_PI[] = {
    0x00000000, 0x00000000, 0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041,
    0xfe5163ab, 0xdebbc561, 0xb7246e3a, 0x424dd2e0, 0x06492eea, 0x09d1921c, 0xfe1deb1c, 0xb129a73e,
    0xe88235f5, 0x2ebb4484, 0xe99c7026, 0xb45f7e41, 0x3991d639, 0x835339f4, 0x9c845f8b, 0xbdf9283b,
    0x1ff897ff, 0xde05980f, 0xef2f118b, 0x5a0a6d1f, 0x6d367ecf, 0x27cb09b7, 0x4f463f66, 0x9e5fea2d,
    0x7527bac7, 0xebe5f17b, 0x3d0739f7, 0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08, 0x56033046, 0xfc7b6bab,
};
#define HALF_PI 0x1.921fb54442d18p+0
#define HALF_PI_REST 0x1.1a62633145c07p-54 /* of pi / 2, to 107 bits */

#define WINDOW 6 /* words of 32 bits that the product keeps */

/* The remainder of an angle >= 0 on division by pi / 2, to the nearest: *high + *low, at most pi / 4 long.
 * Returns the quotient modulo 4. */
static inline int reduced(double angle, double *high, double *low)
{
    *high = angle, *low = 0;
    if (angle <= HALF_PI / 2)
        return 0;
    /* angle = whole * 2^exponent; the bits of 2 / pi down to 2^(2 - exponent) make multiples of 4. */
    int exponent;
    const uint64_t whole = (uint64_t)ldexp(frexp(angle, &exponent), 53);
    exponent -= 53;
    const int skipped = 64 + exponent - 2, shift = skipped % 32;
    const uint32_t factor[2] = {(uint32_t)whole, (uint32_t)(whole >> 32)};
    uint32_t product[WINDOW] = {0}; /* modulo 4, the lowest word first: its unit is 2^(2 - 32 * WINDOW) */
    for (int i = 0; i < 2; ++i) {
        uint64_t carry = 0;
        for (int j = 0; i + j < WINDOW; ++j) {
            const uint32_t *bits = TWO_OVER_PI + skipped / 32 + WINDOW - 1 - j;
            const uint64_t pair = (uint64_t)bits[0] << 32 | bits[1];
            carry += (uint64_t)factor[i] * (uint32_t)(pair >> (32 - shift)) + product[i + j];
            product[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
    }
    int quotient = (int)(product[WINDOW - 1] >> 30);
    product[WINDOW - 1] &= 0x3fffffff;
    const int beyond = product[WINDOW - 1] >> 29; /* more than half: count from the next one */
    if (beyond) {
        quotient += 1;
        uint64_t carry = 1;
        for (int j = 0; j < WINDOW; ++j) {
            carry += (uint32_t)~product[j];
            product[j] = (uint32_t)carry;
            carry >>= 32;
        }
        product[WINDOW - 1] &= 0x3fffffff;
    }
    /* The fraction as a sum of two doubles, from its highest word on. */
    double fraction = 0, rest = 0;
    for (int j = WINDOW - 1; j >= 0; --j) {
        const double part = ldexp((double)product[j], 32 * j + 2 - 32 * WINDOW), sum = fraction + part;
        rest += part - (sum - fraction);
        fraction = sum;
    }
    /* Times pi / 2: halves of 26 bits multiply exactly. */
    const double split = 0x1p27 + 1, a = split * fraction - (split * fraction - fraction), b = fraction - a;
    const double c = split * HALF_PI - (split * HALF_PI - HALF_PI), d = HALF_PI - c;
    const double times = fraction * HALF_PI;
    const double error = ((a * c - times) + a * d + b * c) + b * d;
    const double below = error + (fraction * HALF_PI_REST + rest * HALF_PI), sum = times + below;
    *high = beyond ? -sum : sum;
    *low = beyond ? -(below - (sum - times)) : below - (sum - times);
    return quotient & 3;
}

/* Taylor series of x + low, which end below half an ulp where x is at most pi / 4. */
static inline double sine_near_zero(double x, double low)
{
    const double z = x * x;
    double sum = 1.0 / 355687428096000;
    sum = sum * z - 1.0 / 1307674368000;
    sum = sum * z + 1.0 / 6227020800;
    sum = sum * z - 1.0 / 39916800;
    sum = sum * z + 1.0 / 362880;
    sum = sum * z - 1.0 / 5040;
    sum = sum * z + 1.0 / 120;
    sum = sum * z - 1.0 / 6;
    return x + (x * z * sum + low * (1 - z / 2));
}

static inline double cosine_near_zero(double x, double low)
{
    const double z = x * x, half = z / 2, most = 1 - half;
    double sum = -1.0 / 6402373705728000;
    sum = sum * z + 1.0 / 20922789888000;
    sum = sum * z - 1.0 / 87178291200;
    sum = sum * z + 1.0 / 479001600;
    sum = sum * z - 1.0 / 3628800;
    sum = sum * z + 1.0 / 40320;
    sum = sum * z - 1.0 / 720;
    sum = sum * z + 1.0 / 24;
    return most + (((1 - most) - half) + (z * z * sum - x * low));
}

static inline void find_sine_and_cosine(double angle, double *sine, double *cosine)
{
    double high, low;
    const int quotient = reduced(fabs(angle), &high, &low);
    const double s = sine_near_zero(high, low), c = cosine_near_zero(high, low);
    const double along[4] = {s, c, -s, -c};
    *sine = angle < 0 ? -along[quotient] : along[quotient];
    *cosine = along[(quotient + 1) & 3];
}

#endif

/* The types of a call: `real`, in which sums are kept, `pixel`, of which maps consist, and `pooled`, of which
 * results and gradients do.
 *
 * The build names the type of map (-DCYROIALIGN_FLOAT32 and so on) for the kernels. Without a name, as in the
 * front, which is compiled once for all of them, the types are incomplete: whoever counts or reads such
 * numbers there does not compile.
 *
 *     float32, float64     pixel, pooled and real are that number
 *     float16, bfloat16    pixel and pooled are the 16 bits of a number, real is float
 *     uint8, int8          pixel is a byte, pooled and real are float
 */
#ifndef CYROIALIGN_NUMBERS_H
#define CYROIALIGN_NUMBERS_H

#include <stdint.h>

#if defined(CYROIALIGN_FLOAT64)
#define KIND 1
#define REAL_BYTES 8
typedef double real;
typedef double pixel;
typedef double pooled;
#elif defined(CYROIALIGN_FLOAT32)
#define KIND 0
#define REAL_BYTES 4
typedef float real;
typedef float pixel;
typedef float pooled;
#elif defined(CYROIALIGN_FLOAT16) || defined(CYROIALIGN_BFLOAT16)
#ifdef CYROIALIGN_FLOAT16
#define KIND 2
#else
#define KIND 3
#endif
#define REAL_BYTES 4
typedef float real;
typedef uint16_t pixel;
typedef uint16_t pooled;
#elif defined(CYROIALIGN_UINT8)
#define KIND 4
#define REAL_BYTES 4
typedef float real;
typedef uint8_t pixel;
typedef float pooled;
#elif defined(CYROIALIGN_INT8)
#define KIND 5
#define REAL_BYTES 4
typedef float real;
typedef int8_t pixel;
typedef float pooled;
#else
typedef struct real_of_the_kernels real;
typedef struct pixel_of_the_kernels pixel;
typedef struct pooled_of_the_kernels pooled;
#endif

#if defined(CYROIALIGN_FLOAT16) || defined(CYROIALIGN_BFLOAT16)
#define NARROW 1 /* pooled is narrower than real */
#else
#define NARROW 0
#endif

#if defined(CYROIALIGN_FLOAT32) || defined(CYROIALIGN_FLOAT64)
#define WHOLE_FAMILY 1 /* others are converted before any operator but average RoIAlign reads them */
#else
#define WHOLE_FAMILY 0
#endif

#ifdef CYROIALIGN_CHECKED
#define CHECKED 1
#else
#define CHECKED 0
#endif

#endif

/* lanes: sixteen floats as one value, and the functions the passes need of them.
 *
 *   for (i = 0; i < n; i += LANES)
 *       lanes_write(y, i, type, n, lanes_exp(lanes_next(x, i, type, n)));
 *
 * gcc's vector type, because the same text must run on AVX-512, AVX2 and anything else: the
 * compiler splits it where registers are shorter. Plain loops were tried first; left to the
 * vectoriser the group norms of a U-Net took three times as long. Minimum and maximum are
 * bit selects: as loops over the lanes they became sixty scalar instructions.
 *
 * Everything computes in f32. The element type is a constant at every call of the
 * always-inlined bodies, so the tests for it vanish. bf16 is the upper half of an f32, rounded
 * to nearest even. Included by kernels_body.h only, once per instruction set. */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_LANES_H
#define MYSTI_ENGINE_GRAPH_DNNL_LANES_H

#include "engine/graph/dnnl/kernels.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* elements: less is not worth waking threads for (see threads_for) */
enum { PARALLEL_FROM = 1 << 18 };

INLINE float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

INLINE uint16_t f32_to_bf16(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    u += 0x7fffu + ((u >> 16) & 1u);
    return (uint16_t)(u >> 16);
}

INLINE float get(const void *p, int64_t i, enum elem type)
{
    return type == ELEM_BF16 ? bf16_to_f32(((const uint16_t *)p)[i])
                             : ((const float *)p)[i];
}

INLINE void put(void *p, int64_t i, enum elem type, float value)
{
    if (type == ELEM_BF16)
        ((uint16_t *)p)[i] = f32_to_bf16(value);
    else
        ((float *)p)[i] = value;
}

INLINE const void *at(const void *p, int64_t i, enum elem type)
{
    return (const char *)p + (size_t)i * elem_bytes(type);
}

INLINE void *at_mut(void *p, int64_t i, enum elem type)
{
    return (char *)p + (size_t)i * elem_bytes(type);
}

/* ---- sixteen at a time ---- */

enum { LANES = 16 };

typedef float lanes __attribute__((vector_size(LANES * 4)));
typedef int32_t lanes_int __attribute__((vector_size(LANES * 4)));
typedef uint32_t lanes_bits __attribute__((vector_size(LANES * 4)));
typedef uint16_t lanes_half __attribute__((vector_size(LANES * 2)));
typedef int8_t lanes_bytes __attribute__((vector_size(LANES)));

INLINE lanes lanes_of(float x)
{
    return (lanes){0} + x;
}

INLINE lanes lanes_get(const void *p, int64_t i, enum elem type)
{
    lanes x;

    if (type == ELEM_BF16) {
        lanes_half h;

        memcpy(&h, (const uint16_t *)p + i, sizeof(h));
        return (lanes)(__builtin_convertvector(h, lanes_bits) << 16);
    }
    memcpy(&x, (const float *)p + i, sizeof(x));
    return x;
}

INLINE void lanes_put(void *p, int64_t i, enum elem type, lanes x)
{
    if (type == ELEM_BF16) {
        lanes_bits u = (lanes_bits)x;
        lanes_half h;

        u += 0x7fffu + ((u >> 16) & 1u);
        h = __builtin_convertvector(u >> 16, lanes_half);
        memcpy((uint16_t *)p + i, &h, sizeof(h));
    } else {
        memcpy((float *)p + i, &x, sizeof(x));
    }
}

/* The last n < 16 of a row: the others are zero, and are not written. */
INLINE lanes lanes_get_some(const void *p, int64_t i, enum elem type, int64_t n)
{
    float some[LANES] = {0};

    memcpy(some, (const char *)p + (size_t)i * elem_bytes(type),
           (size_t)n * elem_bytes(type));
    return lanes_get(some, 0, type);
}

INLINE void lanes_put_some(void *p, int64_t i, enum elem type, int64_t n, lanes x)
{
    float some[LANES];

    lanes_put(some, 0, type, x);
    memcpy((char *)p + (size_t)i * elem_bytes(type), some,
           (size_t)n * elem_bytes(type));
}

/* Sixteen of `count` from i on, fewer at the end */
INLINE lanes lanes_next(const void *p, int64_t i, enum elem type, int64_t count)
{
    return count - i >= LANES ? lanes_get(p, i, type)
                              : lanes_get_some(p, i, type, count - i);
}

INLINE void lanes_write(void *p, int64_t i, enum elem type, int64_t count, lanes x)
{
    if (count - i >= LANES)
        lanes_put(p, i, type, x);
    else
        lanes_put_some(p, i, type, count - i, x);
}

INLINE float lanes_sum(lanes x)
{
    float sum = 0;

    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}

/* Per lane a where `which` is all ones, b where it is zero (what comparing gives). */
INLINE lanes lanes_pick(lanes_int which, lanes a, lanes b)
{
    return (lanes)(((lanes_int)a & which) | ((lanes_int)b & ~which));
}

INLINE lanes lanes_max(lanes a, lanes b)
{
    return lanes_pick(a > b, a, b);
}

INLINE lanes lanes_min(lanes a, lanes b)
{
    return lanes_pick(a < b, a, b);
}

/* exp by 2^n times a polynomial (Cephes' expf: relative error 2e-7). The addition of
 * 1.5 * 2^23 rounds to a whole number and leaves it in the low bits. */
INLINE lanes lanes_exp(lanes x)
{
    const float magic = 12582912.0f;
    lanes n, f, p;
    lanes_int bits;

    x = lanes_min(lanes_max(x, lanes_of(-87.0f)), lanes_of(88.0f));
    n = x * 1.44269504f + magic;
    bits = (lanes_int)n;
    n -= magic;
    f = x - n * 0.693359375f;
    f -= n * -2.12194440e-4f;
    p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * (f * f) + f + 1.0f;
    return p * (lanes)((bits - (0x4b400000 - 127)) << 23);
}

/* Abramowitz and Stegun 7.1.26, absolute error 1.5e-7 */
INLINE lanes lanes_erf(lanes x)
{
    const lanes_bits sign = (lanes_bits)x & 0x80000000u;
    lanes z = (lanes)((lanes_bits)x & 0x7fffffffu);
    lanes t = 1.0f / (z * 0.3275911f + 1.0f);
    lanes p = t * 1.061405429f - 1.453152027f;

    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    p = 1.0f - p * t * lanes_exp(-z * z);
    return (lanes)((lanes_bits)p | sign);
}

INLINE lanes lanes_activate(lanes x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return x / (lanes_exp(-x) + 1.0f);
    case ACT_QUICK_GELU:
        return x / (lanes_exp(x * -1.702f) + 1.0f);
    case ACT_GELU:
        return x * 0.5f * (lanes_erf(x * 0.70710678f) + 1.0f);
    case ACT_GELU_TANH: /* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)) */
        return x / (lanes_exp((x * x * x * 0.044715f + x) * -1.5957691216f) + 1.0f);
    case ACT_LEAKY_RELU:
        return lanes_pick(x < 0.0f, x * 0.2f, x);
    case ACT_FIFTH:
        return x * 0.2f;
    case ACT_RELU:
        return lanes_pick(x < 0.0f, lanes_of(0), x);
    case ACT_SOFT_CLAMP: /* tanh(u) = 1 - 2 / (exp(2u) + 1) */
        return 3.0f - 6.0f / (lanes_exp(x * (2.0f / 3.0f)) + 1.0f);
    case ACT_TO_UNIT:
        return x * 0.5f + 0.5f;
    case ACT_TO_SIGNED:
        return x * 2.0f - 1.0f;
    case ACT_NONE:
        break;
    }
    return x;
}

#endif

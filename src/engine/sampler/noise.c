/* Two generators, each reproduced exactly because a seed is a promise: the same seed
 * must give the picture that the user knows from another program.
 *
 * Philox ("nv"): element i of call c has the counter (c, 0, i, 0) and the seed as its
 * key; ten rounds give four words, of which a Box-Muller step uses two and keeps the
 * sine. There is no state between elements, so the numbers do not depend on how much is
 * drawn at once. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
 *
 * Mersenne twister ("cpu"): PyTorch's CPU generator seeds with the low 32 bits. Its
 * randn has two paths, and both are needed: 16 numbers or more fill the output with
 * 24-bit uniforms and transform blocks of 16 in place (the last 16 are drawn anew when
 * the count is no multiple of 16); fewer than 16 are made one by one from 53-bit
 * uniforms and keep the second half of each pair for the next call. Matsumoto and
 * Nishimura 1998.
 *
 * Precision: PyTorch's block path computes in float, its short path in double, Philox
 * in float (the CUDA kernel); the same is done here, and the test vectors hold to 1e-4
 * (log and cos may differ in the last bit between libraries). */
#include "engine/sampler/noise.h"

#include <math.h>
#include <string.h>

enum { MT_N = 624, MT_M = 397, BLOCK = 16 };

static const double two_pi = 6.283185307179586476925286766559;

static void mt_seed(struct noise *n, uint32_t seed)
{
    n->state[0] = seed;
    for (uint32_t i = 1; i < MT_N; i++) {
        uint32_t before = n->state[i - 1];
        n->state[i] = 1812433253U * (before ^ before >> 30) + i;
    }
    n->next = MT_N;
}

static void mt_refill(struct noise *n)
{
    for (unsigned i = 0; i < MT_N; i++) {
        uint32_t y =
            (n->state[i] & 0x80000000U) | (n->state[(i + 1) % MT_N] & 0x7fffffffU);
        uint32_t twist = y & 1 ? 0x9908b0dfU : 0;
        n->state[i] = n->state[(i + MT_M) % MT_N] ^ y >> 1 ^ twist;
    }
    n->next = 0;
}

static uint32_t mt_word(struct noise *n)
{
    if (n->next == MT_N)
        mt_refill(n);
    uint32_t y = n->state[n->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680U;
    y ^= y << 15 & 0xefc60000U;
    return y ^ y >> 18;
}

/* 24 bits in [0, 1) */
static float mt_float(struct noise *n)
{
    return (float)(mt_word(n) & 0xffffffU) * 0x1p-24F;
}

/* 53 bits in [0, 1); the first word is the high one */
static double mt_double(struct noise *n)
{
    uint64_t high = mt_word(n);
    uint64_t low = mt_word(n);

    return (double)((high << 32 | low) & 0x1fffffffffffffULL) * 0x1p-53;
}

static void cpu_fill_block(float d[BLOCK])
{
    for (unsigned j = 0; j < BLOCK / 2; j++) {
        float u1 = 1.0F - d[j];
        float u2 = d[j + BLOCK / 2];
        float radius = sqrtf(-2.0F * logf(u1));
        float theta = (float)two_pi * u2;

        d[j] = radius * cosf(theta);
        d[j + BLOCK / 2] = radius * sinf(theta);
    }
}

static float cpu_one(struct noise *n)
{
    if (n->has_spare) {
        n->has_spare = false;
        return (float)n->spare;
    }
    double u1 = mt_double(n);
    double u2 = mt_double(n);
    double radius = sqrt(-2.0 * log1p(-u2));

    n->spare = radius * sin(two_pi * u1);
    n->has_spare = true;
    return (float)(radius * cos(two_pi * u1));
}

static void cpu_fill(struct noise *n, float *ret, size_t count)
{
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++)
            ret[i] = cpu_one(n);
        return;
    }
    for (size_t i = 0; i < count; i++)
        ret[i] = mt_float(n);
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK)
        cpu_fill_block(ret + i);
    if (count % BLOCK) {
        float *tail = ret + count - BLOCK;
        for (unsigned j = 0; j < BLOCK; j++)
            tail[j] = mt_float(n);
        cpu_fill_block(tail);
    }
}

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
    uint64_t a = (uint64_t)0xD2511F53U * c[0];
    uint64_t b = (uint64_t)0xCD9E8D57U * c[2];
    uint32_t out[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b,
                       (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};

    memcpy(c, out, sizeof(out));
}

static float philox_normal(uint64_t seed, uint32_t call, uint32_t element)
{
    uint32_t c[4] = {call, 0, element, 0};
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    for (int round = 0; round < 10; round++) {
        philox_round(c, k);
        k[0] += 0x9E3779B9U;
        k[1] += 0xBB67AE85U;
    }
    float u = (float)c[0] * 0x1p-32F + 0x1p-33F;
    float v = (float)c[1] * (float)(two_pi * 0x1p-32) + (float)(two_pi * 0x1p-33);

    return sqrtf(-2.0F * logf(u)) * sinf(v);
}

void noise_init(struct noise *n, enum noise_kind kind, uint64_t seed)
{
    memset(n, 0, sizeof(*n));
    n->kind = kind;
    n->seed = seed;
    if (kind == NOISE_CPU)
        mt_seed(n, (uint32_t)seed);
}

void noise_fill(struct noise *n, float *ret, size_t count)
{
    if (n->kind == NOISE_CPU) {
        cpu_fill(n, ret, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        ret[i] = philox_normal(n->seed, n->calls, (uint32_t)i);
    n->calls++;
}

/* ---- variations ---- */

/* the cosine of the angle between two columns */
static double cosine(const float *x, const float *other, size_t rows, size_t columns)
{
    double xx = 0, yy = 0, xy = 0;

    for (size_t i = 0; i < rows; i++) {
        double a = (double)x[i * columns], b = (double)other[i * columns];

        xx += a * a;
        yy += b * b;
        xy += a * b;
    }
    return xy / sqrt(xx * yy);
}

void noise_mix(float *x, const float *other, size_t rows, size_t columns,
               double strength)
{
    double mean = 0;

    for (size_t j = 0; j < columns; j++)
        mean += cosine(x + j, other + j, rows, columns) / (double)columns;
    for (size_t j = 0; j < columns; j++) {
        double dot = cosine(x + j, other + j, rows, columns);
        double angle = acos(dot < -1 ? -1 : dot > 1 ? 1 : dot);
        double keep = sin((1 - strength) * angle) / sin(angle);
        double take = sin(strength * angle) / sin(angle);

        if (mean > 0.9995 || sin(angle) < 1e-6) {
            keep = 1 - strength;
            take = strength;
        }
        for (size_t i = j; i < rows * columns; i += columns)
            x[i] = (float)(keep * (double)x[i] + take * (double)other[i]);
    }
}

/* noise: the random numbers that pictures start from, bit for bit those that other
 * programs draw, so that a seed means the same picture.
 *
 *   struct noise noise;
 *   noise_init(&noise, NOISE_NV, seed + image_index);
 *   noise_fill(&noise, x, 4 * height / 8 * width / 8);     the starting noise
 *   noise_fill(&noise, again, ...);                         the next call's numbers
 *
 * NOISE_NV: Philox 4x32-10 as CUDA's generator uses it (AUTOMATIC1111's default);
 * NOISE_CPU: PyTorch's CPU generator, a Mersenne twister (ComfyUI's default). One
 * image's latent is filled in the order [C, H, W], whatever layout the engine computes
 * in. Plain data, no allocation, never fails. */
#ifndef MYSTI_ENGINE_SAMPLER_NOISE_H
#define MYSTI_ENGINE_SAMPLER_NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum noise_kind {
    NOISE_NV,
    NOISE_CPU,
};

struct noise {
    enum noise_kind kind;
    uint64_t seed;
    uint32_t calls; /* nv: Philox' offset, one per noise_fill */
    /* cpu: the twister's state; PyTorch keeps half a Box-Muller pair between calls
     * shorter than 16 */
    uint32_t state[624];
    unsigned next;
    bool has_spare;
    double spare;
};

void noise_init(struct noise *n, enum noise_kind kind, uint64_t seed);
/* `count` numbers of the standard normal distribution. */
void noise_fill(struct noise *n, float *ret, size_t count);
/* x, other [rows, columns] -> x, moved `strength` of the way to other, 0..1. Along a sphere for each column, so
 * that it stays noise; in a straight line when the two are nearly the same. A latent's rows are H, its columns W C: so
 * AUTOMATIC1111 mixes the noise of a seed with that of a variation. */
void noise_mix(float *x, const float *other, size_t rows, size_t columns,
               double strength);

#endif

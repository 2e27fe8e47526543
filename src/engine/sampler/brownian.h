/* brownian: the noise of the SDE samplers, one path of Brownian motion per picture, so that the noise between two
 * noise levels does not depend on how many steps lie between them.
 *
 *   struct brownian tree = {.kind = NOISE_NV, .seed = seed, .low = sigma_min, .high = sigma_max, ...};
 *   brownian_noise(&tree, sigma, next, ret);      standard normal numbers, [C, H, W]
 *
 * The tree of torchsde (BrownianTree with a tolerance of 1e-6), which k-diffusion, AUTOMATIC1111 and ComfyUI use:
 * same seed, same numbers, up to the rounding of floats. No allocation; never fails. */
#ifndef MYSTI_ENGINE_SAMPLER_BROWNIAN_H
#define MYSTI_ENGINE_SAMPLER_BROWNIAN_H

#include "engine/sampler/noise.h"

enum { BROWNIAN_VECTORS = 4 };

struct brownian {
    enum noise_kind kind;
    uint64_t seed;
    double low, high; /* where the path begins and ends */
    size_t count;
    float *memory; /* [BROWNIAN_VECTORS, count] */
};

void brownian_noise(const struct brownian *tree, double sigma, double next, float *ret);
/* The seed of a node, as numpy's SeedSequence(entropy, spawn_key=(key, depth), pool_size=24) says it; depth -1: of
 * the whole path, which has no spawn_key. */
uint32_t brownian_seed(uint64_t entropy, uint32_t key, int depth);

#endif

/* sampler: walks a latent from noise to a picture along descending sigmas, asking a
 * callback for the denoised latent at each.
 *
 *   noise_init(&noise, NOISE_NV, seed);
 *   noise_fill(&noise, x, count);
 *   for (i...) x[i] *= sigmas[0];
 *   struct sampler_run run = {.sampler = SAMPLER_EULER, .sigmas = sigmas, .steps =
 * steps, .count = count, .noise = &noise, .denoise = my_denoise, .user = me}; if
 * (sampler_run(&run, x, err)) return -1;
 *
 * The callbacks run on the caller's thread. A callback that fails has filled err and
 * ends the walk: that is also how a cancelled job stops (ERR_CANCELLED). Two vectors of
 * the latent's size are allocated for the walk. Formulas: Karras et al. 2022 (Euler,
 * ancestral step), Lu et al. 2022 (DPM-Solver++ 2M), in the sigma form of k-diffusion,
 * whose results the golden vectors hold. */
#ifndef MYSTI_ENGINE_SAMPLER_SAMPLER_H
#define MYSTI_ENGINE_SAMPLER_SAMPLER_H

#include "base/err.h"
#include "engine/sampler/noise.h"
#include "engine/sampler/schedule.h"

#include <stddef.h>

enum sampler {
    SAMPLER_EULER,
    SAMPLER_EULER_A,
    SAMPLER_DPMPP_2M,
    SAMPLER_COUNT,
};

/* x [count] with noise level sigma -> ret_denoised [count] */
typedef int sampler_denoise_fn(void *user, const float *x, double sigma,
                               float *ret_denoised, struct err *err);
/* After step `step` of `steps` (1-based); denoised is what a preview would show. */
typedef int sampler_step_fn(void *user, unsigned step, unsigned steps,
                            const float *denoised, struct err *err);

struct sampler_run {
    enum sampler sampler;
    const double *sigmas; /* [steps + 1], descending, last may be 0 */
    unsigned steps;
    size_t count; /* numbers in the latent */
    struct noise
        *noise; /* goes on where the starting noise ended; unused but by euler_a */
    /* The latent is [H, W, C] with this many channels while noise is drawn in [C, H, W]
     * order; 0 or 1 when the latent is [C, H, W] itself. */
    size_t channels;
    sampler_denoise_fn *denoise;
    sampler_step_fn *on_step; /* may be NULL */
    void *user;
};

int sampler_run(const struct sampler_run *run, float *x, struct err *err) MUST_CHECK;

/* One image's noise in the order other programs draw it, stored as [H, W, channels]
 * (channels 0 or 1: as drawn). `scratch` has room for count numbers and may be NULL
 * when channels is 0 or 1. */
void sampler_noise(struct noise *noise, size_t channels, float *ret, size_t count,
                   float *scratch);

/* denoised = uncond + (cond - uncond) * scale, in place over cond. */
void sampler_guide(float *cond, const float *uncond, size_t count, double scale);

/* Any spelling of Mysti, ComfyUI, AUTOMATIC1111 or stable-diffusion.cpp, case and
 * spaces free. A label such as "DPM++ 2M Karras" also names a scheduler: then
 * *ret_scheduler is set, else it is left alone. An unknown name is an error that lists
 * the known ones. */
int sampler_parse(const char *name, enum sampler *ret, enum scheduler *ret_scheduler,
                  struct err *err) MUST_CHECK;
const char *sampler_name(enum sampler sampler);  /* "dpmpp_2m" */
const char *sampler_label(enum sampler sampler); /* "DPM++ 2M" */
/* all of them in one string, "euler, euler_a, ..." */
const char *sampler_names(void);
/* The scheduler that AUTOMATIC1111's "Automatic" means for this sampler. */
enum scheduler sampler_scheduler(enum sampler sampler);

#endif

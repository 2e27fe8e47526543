/* sampler: walks a latent from noise to a picture along descending sigmas, asking a callback for the denoised latent
 * at each.
 *
 *   noise_init(&noise, NOISE_NV, seed);
 *   noise_fill(&noise, x, count);
 *   for (i...) x[i] *= sigmas[0];
 *   struct sampler_run run = {.sampler = SAMPLER_EULER, .options = sampler_options(SAMPLER_EULER), .sigmas = sigmas,
 *                             .steps = steps, .count = count, .noise = &noise, .schedule = &schedule,
 *                             .denoise = my_denoise, .user = me};
 *   if (sampler_run(&run, x, err)) return -1;
 *
 * The callbacks run on the caller's thread. A callback that fails has filled err and ends the walk: that is also how a
 * cancelled job stops (ERR_CANCELLED). sampler_bytes() are allocated for the walk. docs/sampling.md says for each
 * sampler whose latents it reproduces. */
#ifndef MYSTI_ENGINE_SAMPLER_SAMPLER_H
#define MYSTI_ENGINE_SAMPLER_SAMPLER_H

#include "base/sampling.h"
#include "engine/sampler/noise.h"
#include "engine/sampler/schedule.h"

#include <stddef.h>

/* Where a denoised latent [count] goes. */
struct sampler_denoised {
    float *guided;
    float *uncond; /* what the negative prompt alone says; NULL: not asked for */
};

/* x [count] with noise level sigma -> what it denoises to */
typedef int sampler_denoise_fn(void *user, const float *x, double sigma,
                               const struct sampler_denoised *ret, struct err *err);
/* After step `step` of `steps` (1-based); denoised is what a preview would show. */
typedef int sampler_step_fn(void *user, unsigned step, unsigned steps,
                            const float *denoised, struct err *err);

/* Each is used by the samplers that know it; docs/sampling.md has the table. */
struct sampler_options {
    double eta; /* how much of a step's noise is fresh; tcd: how far below */
    double
        s_churn; /* Karras' stochastic Euler, Heun and DPM2: noise added before a step */
    double s_tmin, s_tmax; /* between these sigmas */
    double s_noise;        /* all fresh noise is multiplied by it */
    double r;              /* dpmpp_sde: where between the levels the second look is */
};

struct sampler_run {
    enum sampler sampler;
    struct sampler_options options;
    const double *sigmas; /* [steps + 1], descending, last may be 0 */
    unsigned steps;       /* dpm_fast: looks; dpm_adaptive goes as many as it needs */
    size_t count;         /* numbers in the latent */
    struct noise *noise;  /* for the samplers that add some on their way */
    uint64_t path_seed;   /* of the Brownian path of the SDE samplers */
    enum noise_kind path_kind;
    /* Where that path begins: the first sigma of the whole schedule, of which an image to image walk is the end; 0:
     * sigmas[0]. */
    double path_high;
    /* The latent is [H, W, C] with this many channels while noise is drawn in [C, H, W] order; 0 or 1 when the latent
     * is [C, H, W] itself. */
    size_t channels;
    const struct schedule *schedule; /* tcd */
    sampler_denoise_fn *denoise;
    sampler_step_fn *on_step; /* may be NULL */
    void *user;
};

/* What AUTOMATIC1111 or ComfyUI takes when nothing is said. */
struct sampler_options sampler_options(enum sampler sampler, enum dialect dialect);
int sampler_run(const struct sampler_run *run, float *x, struct err *err) MUST_CHECK;
/* What sampler_run allocates for a latent of `count` numbers. */
size_t sampler_bytes(enum sampler sampler, size_t count);
/* Asks the callback for `uncond`, even where guidance is off. */
bool sampler_wants_uncond(enum sampler sampler);
/* The schedule is made one step longer and its last but one level left out. */
bool sampler_discards(enum sampler sampler, enum dialect dialect);
/* Asks the callback twice in each step but the last. Not those that ask now more, now less often: PLMS, DPM fast and DPM
 * adaptive. */
bool sampler_is_second_order(enum sampler sampler);
/* Walks A1111's own list of timesteps when the schedule is DDIM's. */
bool sampler_has_timesteps(enum sampler sampler);

/* One image's noise in the order other programs draw it, stored as [H, W, channels] (channels 0 or 1: as drawn).
 * `scratch` has room for count numbers and may be NULL when channels is 0 or 1. */
void sampler_noise(struct noise *noise, size_t channels, float *ret, size_t count,
                   float *scratch);
/* [C, H, W] -> [H, W, C] */
void sampler_order(const float *drawn, size_t channels, float *ret, size_t count);

/* denoised = uncond + (cond - uncond) * scale, in place over cond. */
void sampler_guide(float *cond, const float *uncond, size_t count, double scale);
/* guided += (cond - uncond) * scale: a further condition */
void sampler_guide_more(float *guided, const float *cond, const float *uncond,
                        size_t count, double scale);

#endif

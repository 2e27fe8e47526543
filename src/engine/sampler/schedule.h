/* schedule: how much noise there is at each of the 1,000 training steps, the sigmas a
 * picture is denoised along, and what turns the model's output into a denoised latent.
 *
 *   struct schedule s;
 *   schedule_init(&s, SCHEDULE_SD_BETA_START, SCHEDULE_SD_BETA_END);
 *   double sigmas[SCHEDULE_ROOM(steps)];
 *   struct schedule_options how = {.scheduler = SCHEDULER_KARRAS, .steps = steps};
 *   steps = schedule_sigmas(&s, &how, sigmas);        descending, [steps + 1]
 *
 * Everything in double: the sigmas are few, and a float's error would show in the last
 * steps. Sources: SD's scaled-linear betas (Rombach et al. 2022), sigma space and rho 7
 * (Karras et al. 2022), k-diffusion's linear interpolation of log sigma between
 * training steps. Plain data, any thread, never fails. */
#ifndef MYSTI_ENGINE_SAMPLER_SCHEDULE_H
#define MYSTI_ENGINE_SAMPLER_SCHEDULE_H

#include "base/sampling.h"

#include <stdbool.h>

/* MAX_LEVELS: of the longest list that can be asked for */
enum { SCHEDULE_TRAIN_STEPS = 1000, SCHEDULE_MAX_LEVELS = 10000 };
/* ddim_uniform may give up to twice the steps asked for */
#define SCHEDULE_ROOM(steps) (2 * (steps) + 4)
#define SCHEDULE_SD_BETA_START 0.00085
#define SCHEDULE_SD_BETA_END 0.012

enum prediction {
    PREDICTION_EPS, /* the model returns the noise */
    PREDICTION_V,   /* the model returns v (Salimans and Ho 2022) */
};

struct schedule {
    double sigma[SCHEDULE_TRAIN_STEPS]; /* ascending */
    double log_sigma[SCHEDULE_TRAIN_STEPS];
};

/* denoised = skip * x + out * model(in * x, t) */
struct scaling {
    double in;
    double skip;
    double out;
};

void schedule_init(struct schedule *s, double beta_start, double beta_end);
/* Moves all levels so that nothing of the picture is left at the last (Lin et al. 2024, "zero terminal SNR"); the first
 * stays. The last sigma is 4518.8 instead of infinite, as in A1111 and ComfyUI. */
void schedule_end_in_noise(struct schedule *s);
/* Between training steps both interpolate log sigma linearly. t and sigma are clamped
 * to the table. */
double schedule_sigma(const struct schedule *s, double t);
double schedule_t(const struct schedule *s, double sigma);
/* ComfyUI's time: the number of the nearest training step. */
double schedule_nearest_t(const struct schedule *s, double sigma);

struct schedule_options {
    enum scheduler scheduler;
    unsigned steps; /* 1..SCHEDULE_MAX_LEVELS */
    enum dialect dialect;
    bool discards; /* one level more, the last but one left out */
    bool
        has_timesteps; /* A1111's DDIM, PLMS: its list of timesteps, which does not end at 0; goes before the
                           scheduler when that is ddim_uniform */
    bool is_sdxl; /* ays has a table for each */
    double rho;   /* karras, polyexponential: the exponent; 0: 7 and 1 */
};

/* ret_sigmas[SCHEDULE_ROOM(steps)]: descending noise levels. Returns how many steps lie between them, which is
 * `steps` but for ddim_uniform (more or fewer), beta and polyexponential (fewer, where two would fall together) and the
 * timesteps (one fewer). The last level is 0 but for the timesteps and A1111's kl_optimal. */
unsigned schedule_sigmas(const struct schedule *s, const struct schedule_options *o,
                         double *ret_sigmas);
#define SCHEDULE_KARRAS_RHO 7.0
/* Karras et al.'s levels from high down to low: ret[n]. */
void schedule_karras(double *ret, unsigned n, double high, double low, double rho);
struct scaling schedule_scaling(enum prediction prediction, double sigma);

#endif

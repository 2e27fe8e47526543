/* schedule: how much noise there is at each of the 1,000 training steps, the sigmas a
 * picture is denoised along, and what turns the model's output into a denoised latent.
 *
 *   struct schedule s;
 *   schedule_init(&s, SCHEDULE_SD_BETA_START, SCHEDULE_SD_BETA_END);
 *   double sigmas[steps + 1];
 *   schedule_sigmas(&s, SCHEDULER_KARRAS, steps, sigmas);    descending, the last is 0
 *
 * Everything in double: the sigmas are few, and a float's error would show in the last
 * steps. Sources: SD's scaled-linear betas (Rombach et al. 2022), sigma space and rho 7
 * (Karras et al. 2022), k-diffusion's linear interpolation of log sigma between
 * training steps. Plain data, any thread, never fails. */
#ifndef MYSTI_ENGINE_SAMPLER_SCHEDULE_H
#define MYSTI_ENGINE_SAMPLER_SCHEDULE_H

#include "base/err.h"

enum { SCHEDULE_TRAIN_STEPS = 1000, SCHEDULE_MAX_STEPS = 1000 };
#define SCHEDULE_SD_BETA_START 0.00085
#define SCHEDULE_SD_BETA_END 0.012

enum scheduler {
    SCHEDULER_NORMAL,
    SCHEDULER_KARRAS,
    SCHEDULER_COUNT,
};

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
/* Between training steps both interpolate log sigma linearly. t and sigma are clamped
 * to the table. */
double schedule_sigma(const struct schedule *s, double t);
double schedule_t(const struct schedule *s, double sigma);
/* ret_sigmas[steps + 1]: from sigma_max down to sigma_min, then 0.
 * steps 1..SCHEDULE_MAX_STEPS. */
void schedule_sigmas(const struct schedule *s, enum scheduler scheduler, unsigned steps,
                     double *ret_sigmas);
struct scaling schedule_scaling(enum prediction prediction, double sigma);

/* Any case; also "uniform" (A1111) and "discrete" (stable-diffusion.cpp), which are
 * "normal". "Automatic" is no scheduler but a question to sampler_scheduler(). */
int scheduler_parse(const char *name, enum scheduler *ret, struct err *err) MUST_CHECK;
const char *scheduler_name(enum scheduler scheduler);  /* "karras" */
const char *scheduler_label(enum scheduler scheduler); /* "Karras" */

#endif

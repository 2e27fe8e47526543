/* SD was trained with 1,000 noise levels; everything here is arithmetic on that one
 * table. Both schedulers are those of k-diffusion, which AUTOMATIC1111 and ComfyUI
 * share: normal  equal steps in t from 999 down to 0, sigma read from the table by
 * linear interpolation of log sigma karras  equal steps in sigma^(1/7) between
 * sigma_max and sigma_min The time that the model is told for a sigma between two table
 * entries is the fractional one (k-diffusion, AUTOMATIC1111); ComfyUI rounds it to the
 * nearest entry, a dialect for a later day that needs nothing but a rounding of
 * schedule_t's result. */
#include "engine/sampler/schedule.h"

#include <assert.h>
#include <math.h>
#include <strings.h>

void schedule_init(struct schedule *s, double beta_start, double beta_end)
{
    double first = sqrt(beta_start);
    double last = sqrt(beta_end);
    double alpha_product = 1;

    for (int i = 0; i < SCHEDULE_TRAIN_STEPS; i++) {
        double root = first + (last - first) * i / (SCHEDULE_TRAIN_STEPS - 1);

        alpha_product *= 1 - root * root;
        s->sigma[i] = sqrt((1 - alpha_product) / alpha_product);
        s->log_sigma[i] = log(s->sigma[i]);
    }
}

double schedule_sigma(const struct schedule *s, double t)
{
    const int last = SCHEDULE_TRAIN_STEPS - 1;

    if (!(t > 0))
        return s->sigma[0];
    if (t >= last)
        return s->sigma[last];
    int low = (int)t;
    double w = t - low;
    return exp((1 - w) * s->log_sigma[low] + w * s->log_sigma[low + 1]);
}

double schedule_t(const struct schedule *s, double sigma)
{
    int low = 0;
    int high = SCHEDULE_TRAIN_STEPS - 1;

    if (!(sigma > s->sigma[low]))
        return low;
    if (sigma >= s->sigma[high])
        return high;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (s->sigma[middle] <= sigma)
            low = middle;
        else
            high = middle;
    }
    return low +
           (log(sigma) - s->log_sigma[low]) / (s->log_sigma[high] - s->log_sigma[low]);
}

void schedule_sigmas(const struct schedule *s, enum scheduler scheduler, unsigned steps,
                     double *ret_sigmas)
{
    const double rho = 7;
    const double t_max = SCHEDULE_TRAIN_STEPS - 1;
    const double max = pow(s->sigma[SCHEDULE_TRAIN_STEPS - 1], 1 / rho);
    const double min = pow(s->sigma[0], 1 / rho);

    assert(steps > 0 && steps <= SCHEDULE_MAX_STEPS);
    for (unsigned i = 0; i < steps; i++) {
        double ramp = steps > 1 ? (double)i / (steps - 1) : 0;

        if (scheduler == SCHEDULER_KARRAS)
            ret_sigmas[i] = pow(max + ramp * (min - max), rho);
        else
            ret_sigmas[i] = schedule_sigma(s, t_max * (1 - ramp));
    }
    ret_sigmas[steps] = 0;
}

struct scaling schedule_scaling(enum prediction prediction, double sigma)
{
    double total = sigma * sigma + 1; /* the variance of data and noise together */
    double in = 1 / sqrt(total);

    if (prediction == PREDICTION_V)
        return (struct scaling){.in = in, .skip = 1 / total, .out = -sigma * in};
    return (struct scaling){.in = in, .skip = 1, .out = -sigma};
}

static const struct {
    const char *name;
    const char *label;
} schedulers[] = {
    [SCHEDULER_NORMAL] = {"normal", "Normal"},
    [SCHEDULER_KARRAS] = {"karras", "Karras"},
};

static const struct {
    const char *name;
    enum scheduler scheduler;
} aliases[] = {{"uniform", SCHEDULER_NORMAL}, {"discrete", SCHEDULER_NORMAL}};

int scheduler_parse(const char *name, enum scheduler *ret, struct err *err)
{
    for (int i = 0; i < SCHEDULER_COUNT; i++) {
        if (strcasecmp(name, schedulers[i].name) == 0) {
            *ret = (enum scheduler)i;
            return 0;
        }
    }
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
        if (strcasecmp(name, aliases[i].name) == 0) {
            *ret = aliases[i].scheduler;
            return 0;
        }
    }
    return err_set_param(err, ERR_INVALID, "scheduler",
                         "unknown scheduler '%.80s': known are normal and karras",
                         name);
}

const char *scheduler_name(enum scheduler scheduler)
{
    return schedulers[scheduler].name;
}

const char *scheduler_label(enum scheduler scheduler)
{
    return schedulers[scheduler].label;
}

/* SD was trained with 1,000 noise levels; everything here is arithmetic on that one table. The time that the model is
 * told for a sigma between two table entries is the fractional one (k-diffusion, AUTOMATIC1111) or the nearest entry's
 * (ComfyUI). The lists of levels that a picture is walked along are made in schedulers.c. */
#include "engine/sampler/schedule.h"

#include <math.h>

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

/* of the last step, instead of 0: the number that A1111 and ComfyUI have */
#define LAST_ALPHA_PRODUCT 4.8973451890853435e-08

void schedule_end_in_noise(struct schedule *s)
{
    const int last = SCHEDULE_TRAIN_STEPS - 1;
    double first = 1 / sqrt(1 + s->sigma[0] * s->sigma[0]);
    double end = 1 / sqrt(1 + s->sigma[last] * s->sigma[last]);

    for (int i = 0; i <= last; i++) {
        double root = 1 / sqrt(1 + s->sigma[i] * s->sigma[i]);
        double moved = (root - end) * first / (first - end);
        double product = i < last ? moved * moved : LAST_ALPHA_PRODUCT;

        s->sigma[i] = sqrt((1 - product) / product);
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

double schedule_nearest_t(const struct schedule *s, double sigma)
{
    double t = schedule_t(
        s,
        sigma); /* linear in log sigma between two steps, so this rounds as log sigma does */

    return floor(t + 0.5);
}

struct scaling schedule_scaling(enum prediction prediction, double sigma)
{
    double total = sigma * sigma + 1; /* the variance of data and noise together */
    double in = 1 / sqrt(total);

    if (prediction == PREDICTION_V)
        return (struct scaling){.in = in, .skip = 1 / total, .out = -sigma * in};
    return (struct scaling){.in = in, .skip = 1, .out = -sigma};
}

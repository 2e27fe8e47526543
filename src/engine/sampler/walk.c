/* Per element the arithmetic is double with a rounding to float at the end: it is nothing beside the model's work,
 * and it keeps the coefficients exact near s' = 0. */
#include "engine/sampler/walk.h"

#include <math.h>
#include <string.h>

void walk_blend(const struct walk *w, float *ret, double a, const float *x, double b,
                const float *y)
{
    for (size_t i = 0; i < w->run->count; i++)
        ret[i] = (float)(a * (double)x[i] + b * (double)y[i]);
}

void walk_add(const struct walk *w, float *x, double scale, const float *y)
{
    walk_blend(w, x, 1, x, scale, y);
}

void walk_add_noise(struct walk *w, float *x, double scale)
{
    if (!(scale > 0))
        return;
    sampler_noise(w->run->noise, w->run->channels, w->noise, w->run->count, w->scratch);
    walk_add(w, x, scale, w->noise);
}

void walk_add_path(struct walk *w, float *x, double scale, double sigma, double next)
{
    if (!(scale > 0))
        return;
    if (w->run->channels > 1) {
        brownian_noise(&w->tree, sigma, next, w->scratch);
        sampler_order(w->scratch, w->run->channels, w->noise, w->run->count);
    } else {
        brownian_noise(&w->tree, sigma, next, w->noise);
    }
    walk_add(w, x, scale, w->noise);
}

void walk_euler(const struct walk *w, float *ret, const float *x, const float *denoised,
                double sigma, double next)
{
    double k = next / sigma; /* x + (x - D) / s * (s' - s) = s'/s x + (1 - s'/s) D */

    walk_blend(w, ret, k, x, 1 - k, denoised);
}

void walk_remember(struct walk *w, const float *y)
{
    float *oldest = w->history[w->history_count - 1];

    for (unsigned i = w->history_count - 1; i > 0; i--)
        w->history[i] = w->history[i - 1];
    w->history[0] = oldest;
    memcpy(oldest, y, w->run->count * sizeof(*y));
}

int walk_denoise_other(struct walk *w, double sigma, struct err *err)
{
    struct sampler_denoised ret = {w->second, NULL};

    return w->run->denoise(w->run->user, w->other, sigma, &ret, err);
}

struct ancestral walk_ancestral(double sigma, double next, double eta)
{
    double up = eta * next * sqrt(fmax(0, sigma * sigma - next * next)) / sigma;

    up = fmin(next, up);
    return (struct ancestral){sqrt(next * next - up * up), up};
}

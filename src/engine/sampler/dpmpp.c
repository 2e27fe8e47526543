/* DPM-Solver++ (Lu et al. 2022) in the sigma form of k-diffusion: time is t = -log s, h the step in it, and the
 * denoised latent D is what is integrated:
 *
 *   x' = s'/s x + (1 - e^-h) D'    with D' extrapolated from this step's D and earlier ones
 *
 *   2S a    D' from a second look half way, then ancestral noise
 *   2M      D' from this and the last D
 *   SDE     two looks, noise of the Brownian path at both
 *   2M SDE  2M of the stochastic equation; midpoint or Heun form of the correction
 *   3M SDE  D' from this and the last two
 *
 * The last step, to s' = 0, has an infinite h; its limit is x = D. */
#include "engine/sampler/walk.h"

#include <math.h>
#include <string.h>

static int finish(struct walk *w)
{
    memcpy(w->x, w->denoised, w->run->count * sizeof(float));
    return 0;
}

/* ret = x moved by h towards `denoised` */
static void advance(const struct walk *w, float *ret, double ratio, const float *x,
                    const float *denoised)
{
    walk_blend(w, ret, ratio, x, 1 - ratio, denoised);
}

int move_dpmpp_2s_a(struct walk *w, double sigma, double next, struct err *err)
{
    struct ancestral a = walk_ancestral(sigma, next, w->options->eta);
    double middle = sqrt(sigma * a.down);

    if (a.down <= 0) {
        (void)finish(w);
    } else {
        advance(w, w->other, middle / sigma, w->x, w->denoised);
        if (walk_denoise_other(w, middle, err))
            return -1;
        advance(w, w->x, a.down / sigma, w->x, w->second);
    }
    if (next > 0)
        walk_add_noise(w, w->x, a.up * w->options->s_noise);
    return 0;
}

static double last_h(const struct walk *w, unsigned ago)
{
    return log(w->sigmas[w->step - ago] / w->sigmas[w->step - ago + 1]);
}

int move_dpmpp_2m(struct walk *w, double sigma, double next, struct err *err)
{
    (void)err;
    if (next <= 0)
        return finish(w);
    double before = w->step > 0 ? -log(sigma / next) / (2 * last_h(w, 1)) : 0;
    double gain = 1 - next / sigma;

    advance(w, w->x, next / sigma, w->x, w->denoised);
    if (w->step > 0) {
        walk_add(w, w->x, -before * gain, w->denoised);
        walk_add(w, w->x, before * gain, w->history[0]);
    }
    walk_remember(w, w->denoised);
    return 0;
}

int move_dpmpp_sde(struct walk *w, double sigma, double next, struct err *err)
{
    const struct sampler_options *o = w->options;
    double middle = sigma * pow(next / sigma, o->r), both = 1 / (2 * o->r);
    struct ancestral a;

    if (next <= 0)
        return finish(w);
    a = walk_ancestral(sigma, middle, o->eta);
    advance(w, w->other, a.down / sigma, w->x, w->denoised);
    walk_add_path(w, w->other, a.up * o->s_noise, sigma, middle);
    if (walk_denoise_other(w, middle, err))
        return -1;
    a = walk_ancestral(sigma, next, o->eta);
    walk_blend(w, w->second, both, w->second, 1 - both, w->denoised);
    advance(w, w->x, a.down / sigma, w->x, w->second);
    walk_add_path(w, w->x, a.up * o->s_noise, sigma, next);
    return 0;
}

/* The part that all multistep SDE samplers begin with; returns how far it went. */
static double begin_sde(struct walk *w, double h)
{
    double far = h * (1 + w->options->eta);

    advance(w, w->x, exp(-far), w->x, w->denoised);
    return far;
}

static void end_sde(struct walk *w, double sigma, double next)
{
    double h = log(sigma / next);

    if (w->options->eta > 0)
        walk_add_path(w, w->x,
                      next * sqrt(-expm1(-2 * h * w->options->eta)) *
                          w->options->s_noise,
                      sigma, next);
    walk_remember(w, w->denoised);
}

static int step_2m_sde(struct walk *w, double sigma, double next, bool is_heun)
{
    if (next <= 0)
        return finish(w);
    double h = log(sigma / next), far = begin_sde(w, h);

    if (w->step > 0) {
        double gain = is_heun ? 1 + expm1(-far) / far : -0.5 * expm1(-far);
        double slope = gain * h / last_h(w, 1);

        walk_add(w, w->x, slope, w->denoised);
        walk_add(w, w->x, -slope, w->history[0]);
    }
    end_sde(w, sigma, next);
    return 0;
}

int move_dpmpp_2m_sde(struct walk *w, double sigma, double next, struct err *err)
{
    (void)err;
    return step_2m_sde(w, sigma, next, false);
}

int move_dpmpp_2m_sde_heun(struct walk *w, double sigma, double next, struct err *err)
{
    (void)err;
    return step_2m_sde(w, sigma, next, true);
}

int move_dpmpp_3m_sde(struct walk *w, double sigma, double next, struct err *err)
{
    (void)err;
    if (next <= 0)
        return finish(w);
    double h = log(sigma / next), far = begin_sde(w, h);
    double phi2 = expm1(-far) / far + 1, phi3 = phi2 / far - 0.5;

    if (w->step > 1) {
        /* divided differences of D over the last three levels, in units of h */
        double r0 = last_h(w, 1) / h, r1 = last_h(w, 2) / h;
        double first = phi2 * (1 + r0 / (r0 + r1)) - phi3 / (r0 + r1);
        double second = -phi2 * r0 / (r0 + r1) + phi3 / (r0 + r1);

        walk_add(w, w->x, first / r0, w->denoised);
        walk_add(w, w->x, second / r1 - first / r0, w->history[0]);
        walk_add(w, w->x, -second / r1, w->history[1]);
    } else if (w->step > 0) {
        double slope = phi2 * h / last_h(w, 1);

        walk_add(w, w->x, slope, w->denoised);
        walk_add(w, w->x, -slope, w->history[0]);
    }
    end_sde(w, sigma, next);
    return 0;
}

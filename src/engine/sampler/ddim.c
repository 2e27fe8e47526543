/* Samplers that go by way of the finished picture: x' = D + what is left of the noise + fresh noise.
 *
 *   ddim         Song et al. 2020; in sigma form its eta step is the ancestral step, and with eta 0 it is Euler
 *   ddim_cfg_pp  CFG++ (Chung et al. 2024): what is left of the noise is seen without guidance
 *   lcm          Luo et al. 2023: all noise is fresh
 *   tcd          Zheng et al. 2024: down to the level of time (1 - eta) t', fresh noise up to s'
 *   er_sde       ER-SDE-Solver-3 (Cui et al. 2023)
 */
#include "engine/sampler/walk.h"

#include <math.h>
#include <string.h>

int move_ddim(struct walk *w, double sigma, double next, struct err *err)
{
    return move_euler_a(w, sigma, next, err);
}

int move_ddim_cfg_pp(struct walk *w, double sigma, double next, struct err *err)
{
    struct ancestral a = walk_ancestral(sigma, next, w->options->eta);
    double rest = a.down / sigma;

    (void)err;
    walk_blend(w, w->x, rest, w->x, -rest, w->uncond);
    walk_add(w, w->x, 1, w->denoised);
    if (next > 0)
        walk_add_noise(w, w->x, a.up * w->options->s_noise);
    return 0;
}

int move_lcm(struct walk *w, double sigma, double next, struct err *err)
{
    (void)sigma;
    (void)err;
    memcpy(w->x, w->denoised, w->run->count * sizeof(float));
    if (next > 0)
        walk_add_noise(w, w->x, next * w->options->s_noise);
    return 0;
}

int move_tcd(struct walk *w, double sigma, double next, struct err *err)
{
    double t, down;

    if (next <= 0)
        return move_euler(w, sigma, 0, err);
    t = floor((1 - w->options->eta) * schedule_t(w->run->schedule, next) + 1e-9);
    down = fmin(schedule_sigma(w->run->schedule, t), next);
    walk_euler(w, w->x, w->x, w->denoised, sigma, down);
    walk_add_noise(w, w->x, sqrt(next * next - down * down) * w->options->s_noise);
    return 0;
}

/* how fast er_sde's noise goes */
static double er_scale(double sigma)
{
    return sigma * (exp(pow(sigma, 0.3)) + 10);
}

/* history: the last denoised latent and its slope */
int move_er_sde(struct walk *w, double sigma, double next, struct err *err)
{
    enum { POINTS = 200 };
    double r = er_scale(next) / er_scale(sigma), dt = next - sigma,
           piece = -dt / POINTS;
    double sum = 0, sum_from = 0;

    (void)err;
    if (next <= 0) {
        memcpy(w->x, w->denoised, w->run->count * sizeof(float));
        return 0;
    }
    walk_blend(w, w->x, r, w->x, 1 - r, w->denoised);
    if (w->step > 0) {
        double last = w->sigmas[w->step - 1];

        for (unsigned i = 0; i < POINTS; i++) {
            double at = next + i * piece;

            sum += piece / er_scale(at);
            sum_from += piece * (at - sigma) / er_scale(at);
        }
        walk_blend(w, w->other, 1 / (sigma - last), w->denoised, -1 / (sigma - last),
                   w->history[0]);
        walk_add(w, w->x, dt + sum * er_scale(next), w->other);
        if (w->step > 1) {
            double span = (sigma - w->sigmas[w->step - 2]) / 2;
            double bend = (dt * dt / 2 + sum_from * er_scale(next)) / span;

            walk_add(w, w->x, bend, w->other);
            walk_add(w, w->x, -bend, w->history[1]);
        }
        memcpy(w->history[1], w->other, w->run->count * sizeof(float));
    }
    memcpy(w->history[0], w->denoised, w->run->count * sizeof(float));
    walk_add_noise(w, w->x,
                   w->options->s_noise *
                       sqrt(fmax(0, next * next - sigma * sigma * r * r)));
    return 0;
}

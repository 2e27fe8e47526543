/* The samplers that k-diffusion has from Karras et al. 2022 ("Elucidating the design space", algorithms 1 and 2):
 *
 *   euler    x + d (s' - s),  d = (x - D) / s
 *   heun     the mean of the slope here and the slope where Euler would go
 *   dpm2     the slope at the middle, geometrically, of the two noise levels
 *   euler_a, dpm2_a  the same down to `down`, then fresh noise of `up`: down^2 + up^2 = s'^2
 *
 * The last step of each, to s' = 0, is Euler's: x = D. */
#include "engine/sampler/walk.h"

#include <math.h>

int move_euler(struct walk *w, double sigma, double next, struct err *err)
{
    (void)err;
    walk_euler(w, w->x, w->x, w->denoised, sigma, next);
    return 0;
}

int move_euler_a(struct walk *w, double sigma, double next, struct err *err)
{
    struct ancestral a = walk_ancestral(sigma, next, w->options->eta);

    (void)err;
    walk_euler(w, w->x, w->x, w->denoised, sigma, a.down);
    if (next > 0)
        walk_add_noise(w, w->x, a.up * w->options->s_noise);
    return 0;
}

int move_heun(struct walk *w, double sigma, double next, struct err *err)
{
    double half = (next - sigma) / 2;

    if (next <= 0)
        return move_euler(w, sigma, next, err);
    walk_euler(w, w->other, w->x, w->denoised, sigma, next);
    if (walk_denoise_other(w, next, err))
        return -1;
    /* both slopes: (x - D) / s and (other - second) / s' */
    walk_blend(w, w->x, 1 + half / sigma, w->x, -half / sigma, w->denoised);
    walk_add(w, w->x, half / next, w->other);
    walk_add(w, w->x, -half / next, w->second);
    return 0;
}

/* From sigma to `down` by the slope in the middle. */
static int step_dpm2(struct walk *w, double sigma, double down, struct err *err)
{
    double middle = sqrt(sigma * down);

    if (down <= 0)
        return move_euler(w, sigma, 0, err);
    walk_euler(w, w->other, w->x, w->denoised, sigma, middle);
    if (walk_denoise_other(w, middle, err))
        return -1;
    walk_add(w, w->x, (down - sigma) / middle, w->other);
    walk_add(w, w->x, -(down - sigma) / middle, w->second);
    return 0;
}

int move_dpm2(struct walk *w, double sigma, double next, struct err *err)
{
    return step_dpm2(w, sigma, next, err);
}

int move_dpm2_a(struct walk *w, double sigma, double next, struct err *err)
{
    struct ancestral a = walk_ancestral(sigma, next, w->options->eta);

    if (step_dpm2(w, sigma, a.down, err))
        return -1;
    if (a.down > 0)
        walk_add_noise(w, w->x, a.up * w->options->s_noise);
    return 0;
}

/* walk: what the samplers of this folder share; nobody else includes it.
 *
 * A sampler is one function, its move: at a noise level `sigma`, with w->denoised already asked for, it brings w->x
 * to `next`. What it remembers between steps lies in the walk; which vectors it needs is said in sampler.c's table. */
#ifndef MYSTI_ENGINE_SAMPLER_WALK_H
#define MYSTI_ENGINE_SAMPLER_WALK_H

#include "engine/sampler/brownian.h"
#include "engine/sampler/sampler.h"

enum { WALK_HISTORY = 4 };

struct walk {
    const struct sampler_run *run;
    const struct sampler_options *options; /* filled in: nothing is left to default */
    float *x, *denoised;
    float *uncond;                /* only where the table says so */
    float *history[WALK_HISTORY]; /* of earlier steps, newest first */
    unsigned history_count;
    float *other, *second; /* a second latent and what it denoises to */
    float *noise, *scratch;
    struct brownian tree;
    const double *sigmas; /* [steps + 1], the noise levels walked */
    unsigned steps;
    unsigned step;    /* 0-based */
    double high, low; /* the levels that the walk begins and ends at, both above 0 */
};

typedef int walk_move_fn(struct walk *w, double sigma, double next, struct err *err);

walk_move_fn move_euler, move_euler_a, move_heun, move_dpm2, move_dpm2_a;
walk_move_fn move_dpm_fast;
walk_move_fn move_dpmpp_2s_a, move_dpmpp_2m, move_dpmpp_sde, move_dpmpp_2m_sde,
    move_dpmpp_2m_sde_heun, move_dpmpp_3m_sde;
walk_move_fn move_lms, move_plms, move_ipndm, move_deis, move_uni_pc, move_uni_pc_bh2;
walk_move_fn move_ddim, move_ddim_cfg_pp, move_lcm, move_tcd, move_er_sde;

/* DPM fast: how many steps n looks make, and where step i begins; i is the number of steps at its end. */
unsigned dpm_fast_steps(unsigned n);
/* looks in the first `steps` steps of them */
unsigned dpm_fast_looks(unsigned n, unsigned steps);
double dpm_fast_level(const struct walk *w, unsigned i);
/* DPM adaptive: the whole walk. run->steps is what its progress is told in. */
int walk_dpm_adaptive(struct walk *w, struct err *err) MUST_CHECK;

/* ret = a x + b y, element by element; ret may be x or y */
void walk_blend(const struct walk *w, float *ret, double a, const float *x, double b,
                const float *y);
/* x += scale * y */
void walk_add(const struct walk *w, float *x, double scale, const float *y);
/* x += scale * fresh noise; nothing is drawn when scale is 0 */
void walk_add_noise(struct walk *w, float *x, double scale);
/* x += scale * the Brownian path's noise between the two levels */
void walk_add_path(struct walk *w, float *x, double scale, double sigma, double next);
/* ret: one Euler step of x from sigma to next, towards `denoised` */
void walk_euler(const struct walk *w, float *ret, const float *x, const float *denoised,
                double sigma, double next);
/* Moves the history back by one and puts y in front. */
void walk_remember(struct walk *w, const float *y);
/* Asks for w->second = denoised(w->other, sigma). */
int walk_denoise_other(struct walk *w, double sigma, struct err *err) MUST_CHECK;

/* An ancestral step: down to `down` by the method, up again by noise of `up`. */
struct ancestral {
    double down, up;
};
struct ancestral walk_ancestral(double sigma, double next, double eta);

#endif

/* Many samplers over one loop. Each step is: ask for the denoised latent, move x, tell the observer. What differs is
 * how x moves, so a sampler is a move (euler.c, dpm.c, dpmpp.c, multistep.c, unipc.c, ddim.c) and a row in the table here
 * that says what it needs. "If you add a sampler" is told in base/sampling.c.
 *
 * Restart (Xu et al. 2023) is Heun on a longer list of noise levels: once it is nearly done it goes back up, by adding
 * noise, and walks a part again. So the list is made first and the loop adds the noise wherever the list rises.
 *
 * DPM fast and DPM adaptive take only the ends of the list: the first lays its own levels between them, the second
 * finds them as it goes, so it has a loop of its own (dpm.c).
 *
 * Noise is drawn in the order [C, H, W], because that is the order in which every other program draws it, and stored
 * as the engine keeps latents, [H, W, C]; without that a seed would mean another picture here. */
#include "engine/sampler/sampler.h"

#include "base/mem.h"
#include "engine/sampler/walk.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    NOISE = 1,    /* draws on its way */
    PATH = 2,     /* from a Brownian path */
    SECOND = 4,   /* looks twice in a step */
    OTHER = 8,    /* one more latent */
    UNCOND = 16,  /* wants the unguided half */
    CHURN = 32,   /* Karras' noise before a step */
    DISCARD = 64, /* in A1111's dialect */
    DISCARD_COMFY = 128,
    TIMESTEPS = 256,
    ODD = 512,           /* not always as often as SECOND says */
    ETA_OF_A1111 = 1024, /* eta is 0 in ComfyUI */
};

static const struct {
    walk_move_fn *move;
    unsigned needs, history;
    double eta;
} samplers[SAMPLER_COUNT] = {
    [SAMPLER_EULER] = {move_euler, CHURN, 0, 0},
    [SAMPLER_EULER_A] = {move_euler_a, NOISE, 0, 1},
    [SAMPLER_HEUN] = {move_heun, CHURN | SECOND, 0, 0},
    [SAMPLER_DPM2] = {move_dpm2, CHURN | SECOND | DISCARD | DISCARD_COMFY, 0, 0},
    [SAMPLER_DPM2_A] = {move_dpm2_a, NOISE | SECOND | DISCARD | DISCARD_COMFY, 0, 1},
    [SAMPLER_DPM_FAST] = {move_dpm_fast, NOISE | SECOND | ODD | ETA_OF_A1111, 0, 1},
    [SAMPLER_DPM_ADAPTIVE] = {NULL, NOISE | SECOND | ODD | ETA_OF_A1111, 2, 1},
    [SAMPLER_DPMPP_2S_A] = {move_dpmpp_2s_a, NOISE | SECOND, 0, 1},
    [SAMPLER_DPMPP_2M] = {move_dpmpp_2m, 0, 1, 0},
    [SAMPLER_DPMPP_SDE] = {move_dpmpp_sde, PATH | SECOND, 0, 1},
    [SAMPLER_DPMPP_2M_SDE] = {move_dpmpp_2m_sde, PATH, 1, 1},
    [SAMPLER_DPMPP_2M_SDE_HEUN] = {move_dpmpp_2m_sde_heun, PATH, 1, 1},
    [SAMPLER_DPMPP_3M_SDE] = {move_dpmpp_3m_sde, PATH | DISCARD, 2, 1},
    [SAMPLER_LMS] = {move_lms, OTHER, 3, 0},
    [SAMPLER_DDIM] = {move_ddim, NOISE | TIMESTEPS, 0, 0},
    [SAMPLER_DDIM_CFG_PP] = {move_ddim_cfg_pp, NOISE | UNCOND | TIMESTEPS, 0, 0},
    [SAMPLER_PLMS] = {move_plms, SECOND | ODD | TIMESTEPS, 3, 0},
    [SAMPLER_UNI_PC] = {move_uni_pc, OTHER | DISCARD_COMFY, 3, 0},
    [SAMPLER_UNI_PC_BH2] = {move_uni_pc_bh2, OTHER | DISCARD_COMFY, 3, 0},
    [SAMPLER_LCM] = {move_lcm, NOISE, 0, 1},
    [SAMPLER_TCD] = {move_tcd, NOISE, 0, 0.3},
    [SAMPLER_IPNDM] = {move_ipndm, OTHER, 3, 0},
    [SAMPLER_DEIS] = {move_deis, OTHER, 2, 0},
    [SAMPLER_RESTART] = {move_heun, NOISE | SECOND, 0, 0},
    [SAMPLER_ER_SDE] = {move_er_sde, NOISE | OTHER, 2, 1},
};

struct sampler_options sampler_options(enum sampler sampler, enum dialect dialect)
{
    bool is_still = samplers[sampler].needs & ETA_OF_A1111 && dialect == DIALECT_COMFY;

    return (struct sampler_options){.eta = is_still ? 0 : samplers[sampler].eta,
                                    .s_tmax = HUGE_VAL,
                                    .s_noise = 1,
                                    .r = 0.5};
}

bool sampler_wants_uncond(enum sampler sampler)
{
    return samplers[sampler].needs & UNCOND;
}

bool sampler_discards(enum sampler sampler, enum dialect dialect)
{
    return samplers[sampler].needs &
           (dialect == DIALECT_COMFY ? DISCARD_COMFY : DISCARD);
}

bool sampler_has_timesteps(enum sampler sampler)
{
    return samplers[sampler].needs & TIMESTEPS;
}

bool sampler_is_second_order(enum sampler sampler)
{
    return samplers[sampler].needs & SECOND && !(samplers[sampler].needs & ODD);
}

/* ---- memory ---- */

static bool draws(unsigned needs)
{
    return needs & (NOISE | PATH | CHURN);
}

static size_t vectors(enum sampler sampler)
{
    unsigned needs = samplers[sampler].needs;

    return 1 + samplers[sampler].history + (needs & UNCOND ? 1 : 0) +
           (needs & (OTHER | SECOND) ? 1 : 0) + (needs & SECOND ? 1 : 0) +
           (draws(needs) ? 2 : 0) + (needs & PATH ? BROWNIAN_VECTORS : 0);
}

size_t sampler_bytes(enum sampler sampler, size_t count)
{
    return vectors(sampler) * count * sizeof(float);
}

static float *take(float **next, size_t count)
{
    float *taken = *next;

    *next += count;
    return taken;
}

static void lay_out(struct walk *w, float *memory)
{
    unsigned needs = samplers[w->run->sampler].needs;
    size_t count = w->run->count;

    w->denoised = take(&memory, count);
    w->history_count = samplers[w->run->sampler].history;
    for (unsigned i = 0; i < w->history_count; i++)
        w->history[i] = take(&memory, count);
    if (needs & UNCOND)
        w->uncond = take(&memory, count);
    if (needs & (OTHER | SECOND))
        w->other = take(&memory, count);
    if (needs & SECOND)
        w->second = take(&memory, count);
    if (draws(needs)) {
        w->noise = take(&memory, count);
        w->scratch = take(&memory, count);
    }
    if (needs & PATH)
        w->tree.memory = memory;
}

/* ---- the list of noise levels ---- */

static unsigned nearest(const double *sigmas, unsigned count, double sigma)
{
    unsigned best = 0;

    for (unsigned i = 1; i < count; i++)
        if (fabs(sigmas[i] - sigma) < fabs(sigmas[best] - sigma))
            best = i;
    return best;
}

struct leg {
    double from, to;
};

static unsigned plain_legs(const double *sigmas, unsigned steps, struct leg *ret)
{
    for (unsigned i = 0; i < steps; i++)
        ret[i] = (struct leg){sigmas[i], sigmas[i + 1]};
    return steps;
}

/* As AUTOMATIC1111 chooses: fewer than 20 steps are Heun's; else the part between sigma 0.1 and 2 is walked again,
 * once in 9 steps, from 36 steps on twice in a quarter of them each. */
static unsigned restart_legs(const struct sampler_run *run, struct leg *ret)
{
    unsigned again = run->steps >= 36 ? run->steps / 4 : 9;
    unsigned times = run->steps >= 36 ? 2 : 1;
    double first[SCHEDULE_MAX_LEVELS + 1], part[SCHEDULE_MAX_LEVELS + 1];
    unsigned n = run->steps - again * times, legs = 0, low, high;

    if (run->steps < 20 || run->steps > SCHEDULE_MAX_LEVELS)
        return plain_legs(run->sigmas, run->steps, ret);
    schedule_karras(first, n, run->sigmas[0], run->sigmas[run->steps - 1],
                    SCHEDULE_KARRAS_RHO);
    first[n] = 0;
    low = nearest(first, n + 1, 0.1);
    high = nearest(first, n + 1, 2);
    for (unsigned i = 0; i < n; i++) {
        ret[legs++] = (struct leg){first[i], first[i + 1]};
        if (i + 1 != low || high >= low)
            continue;
        schedule_karras(part, again + 1, first[high], first[low], SCHEDULE_KARRAS_RHO);
        for (unsigned k = 0; k < times; k++)
            legs += plain_legs(part, again, ret + legs);
    }
    return legs;
}

static unsigned fast_legs(const struct walk *w, struct leg *ret)
{
    unsigned count = dpm_fast_steps(w->run->steps);

    for (unsigned i = 0; i < count; i++)
        ret[i] = (struct leg){dpm_fast_level(w, i), dpm_fast_level(w, i + 1)};
    return count;
}

static unsigned make_legs(const struct walk *w, struct leg *ret)
{
    if (w->run->sampler == SAMPLER_RESTART)
        return restart_legs(w->run, ret);
    if (w->run->sampler == SAMPLER_DPM_FAST)
        return fast_legs(w, ret);
    return plain_legs(w->run->sigmas, w->run->steps, ret);
}

/* ---- the walk ---- */

/* Karras et al., algorithm 2: noise before the step, which then starts a little higher. */
static double churn(struct walk *w, double sigma)
{
    const struct sampler_options *o = &w->run->options;
    double gamma = fmin(o->s_churn / w->steps, sqrt(2) - 1), high;

    if (!(samplers[w->run->sampler].needs & CHURN) || !(gamma > 0) ||
        sigma < o->s_tmin || sigma > o->s_tmax)
        return sigma;
    high = sigma * (1 + gamma);
    walk_add_noise(w, w->x, sqrt(high * high - sigma * sigma) * o->s_noise);
    return high;
}

/* DPM fast has fewer steps than were asked for, and is told in these. */
static int tell_step(const struct walk *w, struct err *err)
{
    const struct sampler_run *run = w->run;
    bool is_fast = run->sampler == SAMPLER_DPM_FAST;
    unsigned step = is_fast ? dpm_fast_looks(run->steps, w->step + 1) : w->step + 1;

    if (!run->on_step)
        return 0;
    return run->on_step(run->user, step, is_fast ? run->steps : w->steps, w->denoised,
                        err);
}

static int walk_legs(struct walk *w, const struct leg *legs, struct err *err)
{
    const struct sampler_run *run = w->run;
    struct sampler_denoised ret = {w->denoised, w->uncond};

    for (w->step = 0; w->step < w->steps; w->step++) {
        double sigma = legs[w->step].from;
        double before = w->step > 0 ? legs[w->step - 1].to : sigma;

        if (sigma > before)
            walk_add_noise(
                w, w->x, sqrt(sigma * sigma - before * before) * run->options.s_noise);
        sigma = churn(w, sigma);
        if (run->denoise(run->user, w->x, sigma, &ret, err) ||
            samplers[run->sampler].move(w, sigma, legs[w->step].to, err) ||
            tell_step(w, err))
            return -1;
    }
    return 0;
}

/* the lowest level above 0 */
static double lowest(const struct sampler_run *run)
{
    double last = run->sigmas[run->steps];

    return last > 0 ? last : run->sigmas[run->steps - 1];
}

int sampler_run(const struct sampler_run *run, float *x, struct err *err)
{
    size_t count = vectors(run->sampler);
    float *memory = mem_try_zalloc(run->count * count, sizeof(float));
    struct leg *legs = mem_alloc((run->steps + 1) * sizeof(*legs));
    struct walk w = {
        .run = run, .options = &run->options, .x = x, .sigmas = run->sigmas};
    int rc = -1;

    assert(run->steps > 0 && run->denoise);
    if (!memory) {
        (void)err_set(err, ERR_NO_MEMORY,
                      "no memory for the sampler: %zu vectors of %zu numbers", count,
                      run->count);
        goto out;
    }
    lay_out(&w, memory);
    w.tree.kind = run->path_kind;
    w.tree.seed = run->path_seed;
    w.tree.low = lowest(run);
    w.tree.high = fmax(run->path_high, run->sigmas[0]);
    w.tree.count = run->count;
    w.high = run->sigmas[0];
    w.low = lowest(run);
    if (w.low >= w.high && run->schedule) /* one level: to the model's lowest */
        w.low = run->schedule->sigma[0];
    w.steps = make_legs(&w, legs);
    rc = run->sampler == SAMPLER_DPM_ADAPTIVE ? walk_dpm_adaptive(&w, err)
                                              : walk_legs(&w, legs, err);

out:
    free(legs);
    free(memory);
    return rc;
}

/* ---- noise and guidance ---- */

void sampler_order(const float *drawn, size_t channels, float *ret, size_t count)
{
    size_t pixels = count / channels;

    for (size_t p = 0; p < pixels; p++)
        for (size_t c = 0; c < channels; c++)
            ret[p * channels + c] = drawn[c * pixels + p];
}

void sampler_noise(struct noise *noise, size_t channels, float *ret, size_t count,
                   float *scratch)
{
    if (channels <= 1) {
        noise_fill(noise, ret, count);
        return;
    }
    noise_fill(noise, scratch, count);
    sampler_order(scratch, channels, ret, count);
}

void sampler_guide(float *cond, const float *uncond, size_t count, double scale)
{
    for (size_t i = 0; i < count; i++) {
        double base = (double)uncond[i];
        cond[i] = (float)(base + ((double)cond[i] - base) * scale);
    }
}

void sampler_guide_more(float *guided, const float *cond, const float *uncond,
                        size_t count, double scale)
{
    for (size_t i = 0; i < count; i++)
        guided[i] =
            (float)((double)guided[i] + ((double)cond[i] - (double)uncond[i]) * scale);
}

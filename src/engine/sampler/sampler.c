/* Three samplers over one loop. Each step is: ask for the denoised latent, move x, tell
 * the observer. What differs is only how x moves, so a sampler is a function in a
 * table, and "if you add a sampler" means: an enum value, a move function and a line in
 * the table here, its name in sampler_names(), a golden vector from
 * tests/golden/sampler.
 *
 *   euler     x + d (s' - s),  d = (x - D) / s
 *   euler_a   the same down to s_down, then fresh noise of s_up (s_up^2 + s_down^2 =
 * s'^2) dpmpp_2m  second order in t = -log s, from the last two denoised latents; first
 * order in the first and last step (the last goes to s' = 0, where h is infinite and
 * the formula's limit is x = D)
 *
 * Per element the arithmetic is double with a rounding to float at the end: it is
 * nothing beside the model's work, and it keeps the coefficients exact near s' = 0.
 *
 * Noise is drawn in the order [C, H, W], because that is the order in which every other
 * program draws it, and stored as the engine keeps latents, [H, W, C]; without that a
 * seed would mean another picture here.
 *
 * Names: other programs write the same sampler in many ways ("DPM++ 2M Karras",
 * "dpm++2m", "k_dpmpp_2m"). They are folded to lower case letters and digits, '+'
 * counting as 'p', and then compared; a scheduler's name at the end is split off. */
#include "engine/sampler/sampler.h"

#include "base/mem.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* one move's view of the walk */
struct walk {
    const struct sampler_run *run;
    float *x;
    float *denoised;
    float *previous; /* dpmpp_2m: the last step's denoised */
    float *noise;    /* euler_a */
    float *scratch;  /* euler_a with channels: the numbers as drawn */
    unsigned step;   /* 0-based */
};

static void move_euler_to(struct walk *w, double sigma, double next)
{
    double k = next / sigma; /* x + (x - D) / s * (s' - s) = s'/s x + (1 - s'/s) D */

    for (size_t i = 0; i < w->run->count; i++)
        w->x[i] = (float)(k * (double)w->x[i] + (1 - k) * (double)w->denoised[i]);
}

static void move_euler(struct walk *w, double sigma, double next)
{
    move_euler_to(w, sigma, next);
}

static void move_euler_a(struct walk *w, double sigma, double next)
{
    double up = next * sqrt(fmax(0, sigma * sigma - next * next)) / sigma;

    up = fmin(next, up);
    move_euler_to(w, sigma, sqrt(next * next - up * up));
    if (next > 0) {
        sampler_noise(w->run->noise, w->run->channels, w->noise, w->run->count,
                      w->scratch);
        for (size_t i = 0; i < w->run->count; i++)
            w->x[i] = (float)((double)w->x[i] + (double)w->noise[i] * up);
    }
}

static void move_dpmpp_2m(struct walk *w, double sigma, double next)
{
    double h = next > 0 ? log(sigma / next) : HUGE_VAL;
    double now = 1;
    double before = 0;

    if (w->step > 0 && next > 0) {
        double r = log(w->run->sigmas[w->step - 1] / sigma) / h;
        before = -1 / (2 * r);
        now = 1 - before;
    }
    double gain = -expm1(-h);
    for (size_t i = 0; i < w->run->count; i++) {
        double target = now * (double)w->denoised[i] + before * (double)w->previous[i];
        w->x[i] = (float)(next / sigma * (double)w->x[i] + gain * target);
    }
    memcpy(w->previous, w->denoised, w->run->count * sizeof(float));
}

typedef void move_fn(struct walk *w, double sigma, double next);

static const struct {
    const char *name;
    const char *label;
    move_fn *move;
    enum scheduler scheduler; /* A1111's "Automatic" */
    unsigned vectors;         /* scratch beside `denoised` */
} samplers[] = {
    [SAMPLER_EULER] = {"euler", "Euler", move_euler, SCHEDULER_NORMAL, 0},
    [SAMPLER_EULER_A] = {"euler_a", "Euler a", move_euler_a, SCHEDULER_NORMAL, 2},
    [SAMPLER_DPMPP_2M] = {"dpmpp_2m", "DPM++ 2M", move_dpmpp_2m, SCHEDULER_KARRAS, 1},
};

int sampler_run(const struct sampler_run *run, float *x, struct err *err)
{
    unsigned vectors = 1 + samplers[run->sampler].vectors;
    float *memory = mem_try_zalloc(run->count * vectors, sizeof(float));
    struct walk w = {.run = run, .x = x};
    int rc = -1;

    assert(run->steps > 0 && run->denoise);
    if (!memory)
        return err_set(err, ERR_NO_MEMORY,
                       "no memory for the sampler: %zu vectors of %zu numbers",
                       (size_t)vectors, run->count);
    w.denoised = memory;
    w.previous = w.noise = memory + run->count;
    w.scratch = memory + 2 * run->count;
    for (w.step = 0; w.step < run->steps; w.step++) {
        double sigma = run->sigmas[w.step];

        if (run->denoise(run->user, x, sigma, w.denoised, err))
            goto out;
        samplers[run->sampler].move(&w, sigma, run->sigmas[w.step + 1]);
        if (run->on_step &&
            run->on_step(run->user, w.step + 1, run->steps, w.denoised, err))
            goto out;
    }
    rc = 0;

out:
    free(memory);
    return rc;
}

void sampler_noise(struct noise *noise, size_t channels, float *ret, size_t count,
                   float *scratch)
{
    if (channels <= 1) {
        noise_fill(noise, ret, count);
        return;
    }
    size_t pixels = count / channels;

    noise_fill(noise, scratch, count);
    for (size_t p = 0; p < pixels; p++)
        for (size_t c = 0; c < channels; c++)
            ret[p * channels + c] = scratch[c * pixels + p];
}

void sampler_guide(float *cond, const float *uncond, size_t count, double scale)
{
    for (size_t i = 0; i < count; i++) {
        double base = (double)uncond[i];
        cond[i] = (float)(base + ((double)cond[i] - base) * scale);
    }
}

/* lower case, '+' as 'p', nothing but letters and digits */
static void fold(const char *name, char *ret, size_t size)
{
    size_t n = 0;

    for (; *name && n + 1 < size; name++) {
        if (*name == '+')
            ret[n++] = 'p';
        else if (isalnum((unsigned char)*name))
            ret[n++] = (char)tolower((unsigned char)*name);
    }
    ret[n] = '\0';
}

/* folded spellings beside the name and the label */
static const struct {
    const char *name;
    enum sampler sampler;
} aliases[] = {
    {"eulerancestral", SAMPLER_EULER_A}, {"keuler", SAMPLER_EULER},
    {"keulera", SAMPLER_EULER_A},        {"keulerancestral", SAMPLER_EULER_A},
    {"kdpmpp2m", SAMPLER_DPMPP_2M},
};

static int find(const char *folded, enum sampler *ret)
{
    char known[32];

    for (unsigned i = 0; i < sizeof(samplers) / sizeof(samplers[0]); i++) {
        fold(samplers[i].name, known, sizeof(known));
        if (strcmp(folded, known) == 0) {
            *ret = (enum sampler)i;
            return 0;
        }
    }
    for (unsigned i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
        if (strcmp(folded, aliases[i].name) == 0) {
            *ret = aliases[i].sampler;
            return 0;
        }
    }
    return -1;
}

int sampler_parse(const char *name, enum sampler *ret, enum scheduler *ret_scheduler,
                  struct err *err)
{
    char folded[64];

    fold(name, folded, sizeof(folded));
    if (find(folded, ret) == 0)
        return 0;
    for (int i = 0; i < SCHEDULER_COUNT; i++) {
        const char *suffix = scheduler_name((enum scheduler)i);
        size_t len = strlen(folded);

        if (len <= strlen(suffix) || strcmp(folded + len - strlen(suffix), suffix) != 0)
            continue;
        folded[len - strlen(suffix)] = '\0';
        if (find(folded, ret) == 0) {
            *ret_scheduler = (enum scheduler)i;
            return 0;
        }
    }
    return err_set_param(err, ERR_INVALID, "sampler",
                         "unknown sampler '%.80s': known are %s", name,
                         sampler_names());
}

enum scheduler sampler_scheduler(enum sampler sampler)
{
    return samplers[sampler].scheduler;
}

const char *sampler_name(enum sampler sampler)
{
    return samplers[sampler].name;
}

const char *sampler_label(enum sampler sampler)
{
    return samplers[sampler].label;
}

const char *sampler_names(void)
{
    return "euler, euler_a, dpmpp_2m";
}

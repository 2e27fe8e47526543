/* DPM-Solver (Lu et al. 2022, arXiv:2206.00927) as k-diffusion has it: DPM fast and DPM adaptive. Time is t = -log s and
 * what is integrated is the noise e = (x - D) / s, exactly where e stands still:
 *
 *   first order    x - s' (e^h - 1) e
 *   second         a look at r h, and e's rise until there
 *   third          looks at h / 3 and 2 h / 3
 *
 * Fast spends n looks on steps of equal length: third order as long as there are three, the rest at the end. Adaptive
 * compares second and third order, which share a look, and chooses the next step by their difference (an
 * integrating controller). Both stop at the lowest level of the model instead of 0, where e is not known; the noise that
 * is left there cannot be seen.
 *
 * With eta a step goes further down and is lifted again by noise, but never below the end. */
#include "engine/sampler/walk.h"

#include <math.h>
#include <string.h>

enum { TRIES_MAX = 2000 };

/* From level s to `to`; h: how long that is in t. */
struct step {
    double s, to, h;
};

static struct step step_of(double s, double to)
{
    return (struct step){s, to, log(s / to)};
}

/* the level at the part r of the step */
static double part_of(const struct step *p, double r)
{
    return p->s * exp(-r * p->h);
}

/* e of x, which denoises to d at level s */
static double noise_at(const float *x, const float *d, size_t i, double s)
{
    return ((double)x[i] - (double)d[i]) / s;
}

/* ret = x - first e - rise (e' - e), e' being the noise in w->other at level `there` */
static void move(const struct walk *w, const struct step *p, double there, double first,
                 double rise, float *ret)
{
    for (size_t i = 0; i < w->run->count; i++) {
        double e = noise_at(w->x, w->denoised, i, p->s), more = 0;

        if (rise != 0)
            more = noise_at(w->other, w->second, i, there) - e;
        ret[i] = (float)((double)w->x[i] - first * e - rise * more);
    }
}

static void first_order(const struct walk *w, const struct step *p, float *ret)
{
    move(w, p, 0, p->to * expm1(p->h), 0, ret);
}

/* w->other: x moved by the part r of the step; w->second: what that denoises to */
static int look_at(struct walk *w, const struct step *p, double r, struct err *err)
{
    struct step part = step_of(p->s, part_of(p, r));

    first_order(w, &part, w->other);
    return walk_denoise_other(w, part.to, err);
}

/* after look_at(r) */
static void second_order(const struct walk *w, const struct step *p, double r,
                         float *ret)
{
    double gain = p->to * expm1(p->h);

    move(w, p, part_of(p, r), gain, gain / (2 * r), ret);
}

/* After look_at(1 / 3); ret may be w->other. */
static int third_order(struct walk *w, const struct step *p, float *ret,
                       struct err *err)
{
    const double r1 = 1.0 / 3, r2 = 2.0 / 3;
    double middle = part_of(p, r2), gain = expm1(r2 * p->h);

    move(w, p, part_of(p, r1), middle * gain,
         middle * (gain / (r2 * p->h) - 1) * r2 / r1, w->other);
    if (walk_denoise_other(w, middle, err))
        return -1;
    gain = expm1(p->h);
    move(w, p, middle, p->to * gain, p->to * (gain / p->h - 1) / r2, ret);
    return 0;
}

/* from `down`, where a step ended, to the level that it was for */
static void lift(struct walk *w, double down, double next)
{
    walk_add_noise(w, w->x,
                   sqrt(fmax(0, next * next - down * down)) * w->options->s_noise);
}

static double down_to(const struct walk *w, double sigma, double next)
{
    return fmax(walk_ancestral(sigma, next, w->options->eta).down, w->low);
}

/* ---- fast ---- */

unsigned dpm_fast_steps(unsigned n)
{
    return n / 3 + 1;
}

unsigned dpm_fast_looks(unsigned n, unsigned steps)
{
    unsigned all = dpm_fast_steps(n);

    if (steps == all)
        return n;
    return n % 3 == 0 && steps + 1 == all ? n - 1 : 3 * steps;
}

double dpm_fast_level(const struct walk *w, unsigned i)
{
    return w->high * pow(w->low / w->high, (double)i / dpm_fast_steps(w->run->steps));
}

/* Threes, and then the one or two that are left; where none is, a two and a one instead of the last three. */
static unsigned fast_order(unsigned n, unsigned step)
{
    unsigned last = dpm_fast_steps(n) - 1;

    if (n % 3 == 0)
        return step == last ? 1 : step + 1 == last ? 2 : 3;
    return step == last ? n % 3 : 3;
}

int move_dpm_fast(struct walk *w, double sigma, double next, struct err *err)
{
    double down = down_to(w, sigma, next);
    struct step p = step_of(sigma, down);
    unsigned order = fast_order(w->run->steps, w->step);

    if (order == 1)
        first_order(w, &p, w->x);
    else if (look_at(w, &p, order == 2 ? 0.5 : 1.0 / 3, err))
        return -1;
    if (order == 2)
        second_order(w, &p, 0.5, w->x);
    if (order == 3 && third_order(w, &p, w->x, err))
        return -1;
    lift(w, down, next);
    return 0;
}

/* ---- adaptive ---- */

/* k-diffusion's numbers */
static const double relative = 0.05, absolute = 0.0078, first_h = 0.05, safety = 0.81;

/* How far high is from low, as a root of a mean square; 1 is as far as it may be. */
static double error_of(const struct walk *w, const float *low, const float *high,
                       const float *before)
{
    double sum = 0;

    for (size_t i = 0; i < w->run->count; i++) {
        double size = fmax(fabs((double)low[i]), fabs((double)before[i]));
        double d = ((double)low[i] - (double)high[i]) / fmax(absolute, relative * size);

        sum += d * d;
    }
    return sqrt(sum / (double)w->run->count);
}

/* Tells how much of the way in t is done, in as many steps as were asked for. */
static int tell(struct walk *w, double at, struct err *err)
{
    unsigned step = w->steps;

    if (at > w->low) /* so that they are two levels */
        step = (unsigned)(log(w->high / at) / log(w->high / w->low) * w->steps);
    if (step <= w->step || !w->run->on_step)
        return 0;
    w->step = step;
    return w->run->on_step(w->run->user, step, w->steps, w->denoised, err);
}

/* x moved down from s: history[0] by second order, other by third */
static int try_step(struct walk *w, double s, double down, struct err *err)
{
    struct sampler_denoised ret = {w->denoised, NULL};
    struct step p = step_of(s, down);

    if (w->run->denoise(w->run->user, w->x, s, &ret, err) ||
        look_at(w, &p, 1.0 / 3, err))
        return -1;
    second_order(w, &p, 1.0 / 3, w->history[0]);
    return third_order(w, &p, w->other, err);
}

static void accept(struct walk *w, double down, double next)
{
    float *low = w->history[0];

    w->history[0] = w->history[1];
    w->history[1] = low;
    memcpy(w->x, w->other, w->run->count * sizeof(*w->x));
    lift(w, down, next);
}

int walk_dpm_adaptive(struct walk *w, struct err *err)
{
    double order = w->options->eta > 0 ? 1.5 : 3, h = first_h, s = w->high;

    memcpy(w->history[1], w->x, w->run->count * sizeof(*w->x));
    for (int i = 0; i < TRIES_MAX; i++) {
        double next = fmax(w->low, s * exp(-h)), down = down_to(w, s, next);
        double error, factor;

        if (log(s / w->low) <= 1e-5)
            return tell(w, w->low, err);
        if (try_step(w, s, down, err))
            return -1;
        error = error_of(w, w->history[0], w->other, w->history[1]);
        if (!isfinite(error))
            return err_set(
                err, ERR_INTERNAL,
                "the latent is not a number: the model's weights are damaged "
                "or overflow");
        factor = 1 + atan(pow(1 / (error + 1e-8), 1 / order) - 1);
        h *= factor;
        if (factor < safety)
            continue;
        accept(w, down, next);
        s = next;
        if (tell(w, s, err))
            return -1;
    }
    return err_set_param(err, ERR_INVALID, "sampler",
                         "dpm_adaptive came to no end in %d steps: choose another one",
                         TRIES_MAX);
}

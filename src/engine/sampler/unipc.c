/* UniPC (Zhao et al. 2023), data prediction, order 3, in the sigma form: time is -log s, h the step in it.
 *
 * Each step is predicted from the denoised latents known so far; when the model has been asked at the predicted
 * place, the same step is taken again with that answer as one more point (the corrector, which costs no run of the
 * model), and the next prediction starts from there. As ComfyUI walks it: the last level 0 becomes 0.001, no
 * corrector after it, order falling to 1 at the end.
 *
 * bh1 and bh2 are the paper's two choices of B(h): h and e^h - 1. */
#include "engine/sampler/walk.h"

#include <math.h>
#include <string.h>

#define LAST_SIGMA 0.001

enum { ORDER_MAX = 3 };

static double level(const struct walk *w, unsigned i)
{
    return w->sigmas[i] > 0 ? w->sigmas[i] : LAST_SIGMA;
}

/* the order of the step that arrives at level `to` */
static unsigned order_at(const struct walk *w, unsigned to)
{
    unsigned most = w->steps > 2 ? w->steps - 1 : 1, order = ORDER_MAX;

    if (order > most)
        order = most;
    if (order > w->steps + 1 - to)
        order = w->steps + 1 - to;
    return order < to ? order : to;
}

/* a weights = b, by Gauss; the matrix of powers is never singular: the levels differ */
static void solve(double a[ORDER_MAX][ORDER_MAX], double *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = i + 1; k < n; k++) {
            double factor = a[k][i] / a[i][i];

            for (unsigned j = i; j < n; j++)
                a[k][j] -= factor * a[i][j];
            b[k] -= factor * b[i];
        }
    for (unsigned i = n; i-- > 0;) {
        for (unsigned j = i + 1; j < n; j++)
            b[i] -= a[i][j] * b[j];
        b[i] /= a[i][i];
    }
}

struct step {
    double from, to; /* sigmas */
    unsigned order;  /* points known, this one included */
    double
        ratio[ORDER_MAX]; /* of the earlier points, in units of h; 1 is where it goes */
    double big;           /* B(h) */
};

/* The weights of the differences (D_k - D_0) / ratio_k, k of n. */
static void weigh(const struct step *s, unsigned n, double *weights)
{
    double hh = -log(s->from / s->to), phi = expm1(hh) / hh - 1, factorial = 1;
    double powers[ORDER_MAX][ORDER_MAX];

    if (n == 1) {
        weights[0] = 0.5;
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < n; j++)
            powers[i][j] = pow(s->ratio[j], i);
        weights[i] = phi * factorial / s->big;
        factorial *= i + 2;
        phi = phi / hh - 1 / factorial;
    }
    solve(powers, weights, n);
}

static struct step describe(const struct walk *w, unsigned to, bool is_bh2)
{
    struct step s = {level(w, to - 1), level(w, to), order_at(w, to), {0}, 0};
    double h = log(s.from / s.to);

    for (unsigned i = 1; i < s.order; i++)
        s.ratio[i - 1] = log(s.from / level(w, to - 1 - i)) / h;
    s.ratio[s.order - 1] = 1;
    s.big = is_bh2 ? expm1(-h) : -h;
    return s;
}

/* x -= B sum of weights[k] (D_k+1 - D_0) / ratio_k over the earlier points; known[0] is D_0 */
static void bend(struct walk *w, const struct step *s, const double *weights,
                 float *const *known)
{
    for (unsigned i = 0; i + 1 < s->order; i++) {
        double scale = -s->big * weights[i] / s->ratio[i];

        walk_add(w, w->x, scale, known[i + 1]);
        walk_add(w, w->x, -scale, known[0]);
    }
}

/* The step that led here, once more, knowing what is here. w->other holds where it began. */
static void correct(struct walk *w, bool is_bh2)
{
    struct step s = describe(w, w->step, is_bh2);
    double weights[ORDER_MAX], scale;

    weigh(&s, s.order, weights);
    walk_blend(w, w->x, s.to / s.from, w->other, 1 - s.to / s.from, w->history[0]);
    bend(w, &s, weights, w->history);
    scale = -s.big * weights[s.order - 1];
    walk_add(w, w->x, scale, w->denoised);
    walk_add(w, w->x, -scale, w->history[0]);
}

static void predict(struct walk *w, bool is_bh2)
{
    struct step s = describe(w, w->step + 1, is_bh2);
    double weights[ORDER_MAX];

    memcpy(w->other, w->x, w->run->count * sizeof(float));
    walk_blend(w, w->x, s.to / s.from, w->x, 1 - s.to / s.from, w->history[0]);
    if (s.order > 1) {
        weigh(&s, s.order - 1, weights);
        bend(w, &s, weights, w->history);
    }
}

static int step_uni_pc(struct walk *w, bool is_bh2)
{
    if (w->step > 0)
        correct(w, is_bh2);
    walk_remember(w, w->denoised);
    predict(w, is_bh2);
    return 0;
}

int move_uni_pc(struct walk *w, double sigma, double next, struct err *err)
{
    (void)sigma;
    (void)next;
    (void)err;
    return step_uni_pc(w, false);
}

int move_uni_pc_bh2(struct walk *w, double sigma, double next, struct err *err)
{
    (void)sigma;
    (void)next;
    (void)err;
    return step_uni_pc(w, true);
}

/* Linear multistep methods: the slope d = (x - D) / s of this step and of earlier ones, weighted, times the step.
 *
 *   lms    weights from integrating Lagrange's polynomials over sigma (k-diffusion, order 4)
 *   deis   the same over the time of a variance preserving process (Zhang and Chen 2022; order 3)
 *   ipndm  fixed Adams-Bashforth weights, begun with Euler (order 4)
 *   plms   the same weights, begun with an improved Euler step (Liu et al. 2022)
 *
 * The integrals are exact up to rounding (a Gauss rule); others sum ten thousand points, which differs by 1e-4 of a
 * weight. */
#include "engine/sampler/walk.h"

#include <math.h>
#include <string.h>

/* The slope of this step into w->other, whose memory is free here. */
static void take_slope(struct walk *w, double sigma)
{
    walk_blend(w, w->other, 1 / sigma, w->x, -1 / sigma, w->denoised);
}

/* x += weights[0] slope + weights[1] history... */
static void add_slopes(struct walk *w, const double *weights, unsigned order)
{
    for (unsigned i = 0; i < order; i++)
        walk_add(w, w->x, weights[i], i ? w->history[i - 1] : w->other);
    walk_remember(w, w->other);
}

/* Lagrange's polynomial j of `order` nodes at t */
static double lagrange(const double *nodes, unsigned order, unsigned j, double t)
{
    double product = 1;

    for (unsigned k = 0; k < order; k++)
        if (k != j)
            product *= (t - nodes[k]) / (nodes[j] - nodes[k]);
    return product;
}

static const double gauss_at[] = {0.1488743389816312, 0.4333953941292472,
                                  0.6794095682990244, 0.8650633666889845,
                                  0.9739065285171717};
static const double gauss_weight[] = {0.2955242247147529, 0.2692667193099963,
                                      0.2190863625159820, 0.1494513491505806,
                                      0.0666713443086881};

/* DEIS' time for a sigma: the process with beta from 0.1 to 19.9 that reaches sigma 0.002 at 1e-3 and 80 at 1. */
struct vp {
    double beta_d, beta_min;
};

static struct vp vp_make(void)
{
    double low = log1p(0.002 * 0.002), high = log1p(80.0 * 80.0);
    double beta_d = 2 * (low / 1e-3 - high) / (1e-3 - 1);

    return (struct vp){beta_d, high - 0.5 * beta_d};
}

static double vp_time(const struct vp *vp, double sigma)
{
    return (sqrt(vp->beta_min * vp->beta_min + 2 * vp->beta_d * log1p(sigma * sigma)) -
            vp->beta_min) /
           vp->beta_d;
}

/* d sigma / d t */
static double vp_speed(const struct vp *vp, double t)
{
    double variance = exp(0.5 * vp->beta_d * t * t + vp->beta_min * t);

    return 0.5 * (vp->beta_d * t + vp->beta_min) * variance / sqrt(variance - 1);
}

/* The integral of polynomial j from nodes[0] to `end`, over sigma or (vp) over DEIS' time. */
static double integrate(const double *nodes, unsigned order, unsigned j, double end,
                        const struct vp *vp)
{
    enum { PIECES = 16 };
    double sum = 0, piece = (end - nodes[0]) / PIECES;

    for (unsigned p = 0; p < PIECES; p++)
        for (unsigned g = 0; g < 10; g++) {
            double offset = g & 1 ? gauss_at[g / 2] : -gauss_at[g / 2];
            double t = nodes[0] + piece * (p + 0.5 + 0.5 * offset);

            sum += 0.5 * piece * gauss_weight[g / 2] * lagrange(nodes, order, j, t) *
                   (vp ? vp_speed(vp, t) : 1);
        }
    return sum;
}

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

int move_lms(struct walk *w, double sigma, double next, struct err *err)
{
    double nodes[WALK_HISTORY], weights[WALK_HISTORY];
    unsigned order = smaller(w->step + 1, 4);

    (void)err;
    for (unsigned i = 0; i < order; i++)
        nodes[i] = w->sigmas[w->step - i];
    for (unsigned i = 0; i < order; i++)
        weights[i] = integrate(nodes, order, i, next, NULL);
    take_slope(w, sigma);
    add_slopes(w, weights, order);
    return 0;
}

int move_deis(struct walk *w, double sigma, double next, struct err *err)
{
    struct vp vp = vp_make();
    double nodes[3], weights[3] = {next - sigma};
    unsigned order = next > 0 ? smaller(w->step + 1, 3) : 1;

    (void)err;
    for (unsigned i = 0; i < order; i++)
        nodes[i] = vp_time(&vp, w->sigmas[w->step - i]);
    for (unsigned i = 0; i < order && order > 1; i++)
        weights[i] = integrate(nodes, order, i, vp_time(&vp, next), &vp);
    take_slope(w, sigma);
    add_slopes(w, weights, order);
    return 0;
}

static const double adams[4][4] = {
    {1},
    {3.0 / 2, -1.0 / 2},
    {23.0 / 12, -16.0 / 12, 5.0 / 12},
    {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
};

static void step_adams(struct walk *w, double sigma, double next)
{
    unsigned order = smaller(w->step + 1, 4);
    double weights[4];

    for (unsigned i = 0; i < order; i++)
        weights[i] = adams[order - 1][i] * (next - sigma);
    take_slope(w, sigma);
    add_slopes(w, weights, order);
}

int move_ipndm(struct walk *w, double sigma, double next, struct err *err)
{
    (void)err;
    if (next > 0)
        step_adams(w, sigma, next);
    else
        memcpy(w->x, w->denoised, w->run->count * sizeof(float));
    return 0;
}

int move_plms(struct walk *w, double sigma, double next, struct err *err)
{
    double half = (next - sigma) / 2;

    if (w->step > 0 || next <= 0) {
        step_adams(w, sigma, next);
        return 0;
    }
    take_slope(w, sigma);
    walk_remember(w, w->other);
    walk_euler(w, w->other, w->x, w->denoised, sigma, next);
    if (walk_denoise_other(w, next, err))
        return -1;
    walk_add(w, w->x, half, w->history[0]);
    walk_add(w, w->x, half / next, w->other);
    walk_add(w, w->x, -half / next, w->second);
    return 0;
}

/* The lists of noise levels. Each is a function that fills ret[0..n] and returns its number of steps.
 *
 *   normal            equal steps in t from 999 down to 0
 *   simple            every 1000/n-th entry of the table, from the top
 *   karras            equal steps in sigma^(1/rho), by default 7 (Karras et al. 2022)
 *   exponential       equal steps in log sigma
 *   polyexponential   the same with the way raised to the power rho, by default 1
 *   sgm_uniform       equal steps in t, the last one left out, so that the walk ends from a higher level
 *   ddim_uniform      every 1000/n-th entry from the bottom
 *   beta              t spread as Beta(0.6, 0.6) (Lee et al. 2024)
 *   kl_optimal        equal steps in atan sigma (Sabour et al. 2024, equation 17)
 *   ays               Align Your Steps, the table of the same paper, in between by log sigma
 *   turbo             the times that SD Turbo was distilled at
 *   linear_quadratic  linear down to a threshold of noise, then quadratic (Mochi)
 *
 * Where AUTOMATIC1111 and ComfyUI differ both are here. */
#include "engine/sampler/schedule.h"

#include <assert.h>
#include <math.h>

enum { TOP = SCHEDULE_TRAIN_STEPS - 1 };

typedef unsigned levels_fn(const struct schedule *s, const struct schedule_options *o,
                           unsigned n, double *ret);

static double ramp(unsigned i, unsigned n)
{
    return n > 1 ? (double)i / (n - 1) : 0;
}

static unsigned normal(const struct schedule *s, const struct schedule_options *o,
                       unsigned n, double *ret)
{
    (void)o;
    for (unsigned i = 0; i < n; i++)
        ret[i] = schedule_sigma(s, TOP * (1 - ramp(i, n)));
    return n;
}

static unsigned sgm_uniform(const struct schedule *s, const struct schedule_options *o,
                            unsigned n, double *ret)
{
    (void)o;
    for (unsigned i = 0; i < n; i++)
        ret[i] = schedule_sigma(s, TOP * (1 - (double)i / n));
    return n;
}

static unsigned simple(const struct schedule *s, const struct schedule_options *o,
                       unsigned n, double *ret)
{
    (void)o;
    for (unsigned i = 0; i < n; i++)
        ret[i] = s->sigma[TOP - (int)(i * ((double)SCHEDULE_TRAIN_STEPS / n))];
    return n;
}

/* The same with an exponent that is too small for sigma^(1/rho) to be a number: as parts of the highest level. */
static double part_of_karras(double at, double high, double low, double rho)
{
    double part = 1 - at + at * pow(low / high, 1 / rho);

    return fmax(high * pow(part, rho), low);
}

void schedule_karras(double *ret, unsigned n, double high, double low, double rho)
{
    double max = pow(high, 1 / rho), min = pow(low, 1 / rho);

    for (unsigned i = 0; i < n; i++)
        ret[i] = rho < 1 ? part_of_karras(ramp(i, n), high, low, rho)
                         : pow(max + ramp(i, n) * (min - max), rho);
}

static unsigned karras(const struct schedule *s, const struct schedule_options *o,
                       unsigned n, double *ret)
{
    schedule_karras(ret, n, s->sigma[TOP], s->sigma[0],
                    o->rho > 0 ? o->rho : SCHEDULE_KARRAS_RHO);
    return n;
}

static unsigned exponential(const struct schedule *s, const struct schedule_options *o,
                            unsigned n, double *ret)
{
    (void)o;
    for (unsigned i = 0; i < n; i++)
        ret[i] =
            exp(s->log_sigma[TOP] + ramp(i, n) * (s->log_sigma[0] - s->log_sigma[TOP]));
    return n;
}

/* A large exponent lets the last levels fall together. */
static unsigned polyexponential(const struct schedule *s,
                                const struct schedule_options *o, unsigned n,
                                double *ret)
{
    double rho = o->rho > 0 ? o->rho : 1;
    unsigned count = 0;

    for (unsigned i = 0; i < n; i++) {
        double sigma = exp(s->log_sigma[0] + pow(1 - ramp(i, n), rho) *
                                                 (s->log_sigma[TOP] - s->log_sigma[0]));

        if (count == 0 || sigma < ret[count - 1])
            ret[count++] = sigma;
    }
    return count;
}

static unsigned ddim_uniform(const struct schedule *s, const struct schedule_options *o,
                             unsigned n, double *ret)
{
    unsigned stride = SCHEDULE_TRAIN_STEPS / n, count;

    (void)o;
    if (stride == 0)
        stride = 1;
    count = (TOP - 1) / stride + 1;
    for (unsigned i = 0; i < count; i++)
        ret[i] = s->sigma[1 + (count - 1 - i) * stride];
    return count;
}

/* A1111's DDIM and PLMS: range(0, 1000, 1000 / n) + 1, walked down to the last but not to 0. */
static unsigned timesteps(const struct schedule *s, unsigned n, double *ret)
{
    unsigned stride = n < SCHEDULE_TRAIN_STEPS ? SCHEDULE_TRAIN_STEPS / n : 1;
    unsigned count = (SCHEDULE_TRAIN_STEPS - 1) / stride + 1;

    for (unsigned i = 0; i < count; i++) {
        unsigned t = (count - 1 - i) * stride + 1;
        ret[i] = s->sigma[t < TOP ? t : TOP];
    }
    if (count == 1) { /* there is nothing to walk in one entry */
        ret[0] = s->sigma[TOP];
        ret[1] = s->sigma[1];
        return 1;
    }
    return count - 1;
}

/* ---- beta ---- */

/* The regularised incomplete beta function by its continued fraction, for x below the mean (Lentz's method). */
static double beta_below(double x, double a, double b)
{
    double front =
        exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a;
    double c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), f = d;

    for (int m = 1; m <= 200; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double change;

        d = 1 / (1 + even * d);
        c = 1 + even / c;
        f *= c * d;
        d = 1 / (1 + odd * d);
        c = 1 + odd / c;
        change = c * d;
        f *= change;
        if (fabs(change - 1) < 1e-15)
            break;
    }
    return front * f;
}

/* The inverse of Beta(0.6, 0.6)'s distribution function, by halving; symmetric about one half. */
static double beta_quantile(double p)
{
    double low = 0, high = 0.5;

    if (p <= 0 || p >= 1)
        return p <= 0 ? 0 : 1;
    if (p > 0.5)
        return 1 - beta_quantile(1 - p);
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;

        if (beta_below(middle, 0.6, 0.6) < p)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

static unsigned beta(const struct schedule *s, const struct schedule_options *o,
                     unsigned n, double *ret)
{
    unsigned count = 0;
    int last = -1;

    if (o->dialect == DIALECT_A1111) { /* spread over sigma, the lowest included */
        for (unsigned i = 0; i < n; i++)
            ret[i] = s->sigma[0] +
                     beta_quantile(1 - ramp(i, n)) * (s->sigma[TOP] - s->sigma[0]);
        return n;
    }
    for (unsigned i = 0; i < n; i++) {
        int t = (int)rint(beta_quantile(1 - (double)i / n) * TOP);

        if (t != last)
            ret[count++] = s->sigma[t];
        last = t;
    }
    return count;
}

/* ---- the rest ---- */

static unsigned kl_optimal(const struct schedule *s, const struct schedule_options *o,
                           unsigned n, double *ret)
{
    double low = atan(s->sigma[0]), high = atan(s->sigma[TOP]);

    if (o->dialect == DIALECT_A1111) { /* ends at the lowest level, not at 0 */
        for (unsigned i = 0; i <= n; i++)
            ret[i] = tan(low * i / n + high * (1 - (double)i / n));
        return n;
    }
    for (unsigned i = 0; i < n; i++)
        ret[i] = tan(low * ramp(i, n) + high * (1 - ramp(i, n)));
    return n;
}

static const double ays_table[2][2][11] = {
    /* A1111 has them rounded */
    {{14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029},
     {14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029}},
    {{14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177,
      1.3943805092, 0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662,
      0.0291671582},
     {14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945,
      0.8620721141, 0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177,
      0.0291671582}},
};

/* `count` points along the table */
static void spread(const double *table, unsigned count, double *ret)
{
    for (unsigned i = 0; i < count; i++) {
        double at = ramp(i, count) * 10;
        int low = at < 10 ? (int)at : 9;
        double w = at - low;

        ret[i] = exp((1 - w) * log(table[low]) + w * log(table[low + 1]));
    }
}

static unsigned ays(const struct schedule *s, const struct schedule_options *o,
                    unsigned n, double *ret)
{
    const double *table = ays_table[o->dialect == DIALECT_COMFY][o->is_sdxl];

    (void)s;
    /* ComfyUI's last point of n + 1 becomes 0; A1111 puts the 0 behind n points */
    spread(table, o->dialect == DIALECT_COMFY ? n + 1 : n, ret);
    return n;
}

static unsigned turbo(const struct schedule *s, const struct schedule_options *o,
                      unsigned n, double *ret)
{
    /* ComfyUI: the first n of ten, however few; A1111's forks: n over the whole range */
    double parts = o->dialect == DIALECT_COMFY && n < 10 ? 10 : n;

    for (unsigned i = 0; i < n; i++) {
        double t = rint((parts - i) * (SCHEDULE_TRAIN_STEPS / parts) - 1);

        ret[i] = s->sigma[t > 0 ? (int)t : 0];
    }
    return n;
}

static unsigned linear_quadratic(const struct schedule *s,
                                 const struct schedule_options *o, unsigned n,
                                 double *ret)
{
    const double threshold = 0.025;
    unsigned linear = n / 2, quadratic = n - linear;
    double over, bend, slope;

    (void)o;
    ret[0] = s->sigma[TOP];
    if (n == 1)
        return 1;
    over = linear - threshold * n;
    bend = over / ((double)linear * quadratic * quadratic);
    slope = threshold / linear - 2 * over / ((double)quadratic * quadratic);
    for (unsigned i = 0; i < n; i++) {
        double done = i < linear ? i * threshold / linear
                                 : bend * i * i + slope * i + bend * linear * linear;
        ret[i] = (1 - done) * s->sigma[TOP];
    }
    return n;
}

static levels_fn *const makers[SCHEDULER_COUNT] = {
    [SCHEDULER_NORMAL] = normal,
    [SCHEDULER_SIMPLE] = simple,
    [SCHEDULER_KARRAS] = karras,
    [SCHEDULER_EXPONENTIAL] = exponential,
    [SCHEDULER_POLYEXPONENTIAL] = polyexponential,
    [SCHEDULER_SGM_UNIFORM] = sgm_uniform,
    [SCHEDULER_DDIM_UNIFORM] = ddim_uniform,
    [SCHEDULER_BETA] = beta,
    [SCHEDULER_KL_OPTIMAL] = kl_optimal,
    [SCHEDULER_AYS] = ays,
    [SCHEDULER_TURBO] = turbo,
    [SCHEDULER_LINEAR_QUADRATIC] = linear_quadratic,
};

unsigned schedule_sigmas(const struct schedule *s, const struct schedule_options *o,
                         double *ret_sigmas)
{
    bool discards = o->discards && o->steps > 1, ends_above;
    unsigned steps;

    assert(o->steps > 0 && o->steps <= SCHEDULE_MAX_LEVELS);
    if (o->has_timesteps && o->scheduler == SCHEDULER_DDIM_UNIFORM &&
        o->dialect == DIALECT_A1111)
        return timesteps(s, o->steps, ret_sigmas);
    ends_above = o->scheduler == SCHEDULER_KL_OPTIMAL && o->dialect == DIALECT_A1111;
    steps = makers[o->scheduler](s, o, o->steps + discards, ret_sigmas);
    if (!ends_above)
        ret_sigmas[steps] = 0;
    if (discards && steps > 1) {
        ret_sigmas[steps - 1] = ret_sigmas[steps];
        steps--;
    }
    return steps;
}

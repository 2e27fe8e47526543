/* norms_body: group norm with its activation, layer norm. Part of kernels_body.h.
 *
 * group_norm reads x twice: statistics, then y = act(x a[c] + b[c]) with a, b made of
 * mean, variance, gamma and beta. Statistics are sums per channel of d = x - shift and
 * d^2, shift being the picture's first pixel, so that a mean that is large beside the
 * deviation does not cancel; f32 over blocks of 128 pixels, then f64. Channels become
 * groups only at the end, so any group size vectorises.
 *
 * Threads take whole pictures when the numbers allow it. One parallel region with barriers
 * inside was tried first: on a loaded machine each barrier waits for the scheduler. */
/* Sixteen channels of up to 128 pixels at a time: the sums stay in registers. */
INLINE void sums_of_block(const void *x, enum elem type, int64_t pixels,
                          int64_t channels, const void *shift, float *sum,
                          float *square)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        lanes zero = lanes_next(shift, c, type, channels);
        lanes s = lanes_of(0), q = s;

        if (channels - c >= LANES) {
            for (int64_t p = 0; p < pixels; p++) {
                lanes d = lanes_get(x, p * channels + c, type) - zero;

                s += d;
                q += d * d;
            }
        } else {
            for (int64_t p = 0; p < pixels; p++) {
                lanes d =
                    lanes_get_some(x, p * channels + c, type, channels - c) - zero;

                s += d;
                q += d * d;
            }
        }
        lanes_write(sum, c, ELEM_F32, channels, s);
        lanes_write(square, c, ELEM_F32, channels, q);
    }
}

/* Adds the sums of pixels [from, to) to sums[C] and squares[C]. */
INLINE void sums_of_pixels(const void *x, enum elem type, int64_t from, int64_t to,
                           int64_t channels, double *restrict sums,
                           double *restrict squares, float *block)
{
    enum { BLOCK = 128 };

    memset(sums, 0, (size_t)channels * 2 * sizeof(*sums)); /* squares follow */
    for (int64_t p = from; p < to; p += BLOCK) {
        int64_t n = to - p < BLOCK ? to - p : BLOCK;

        sums_of_block(at(x, p * channels, type), type, n, channels, x, block,
                      block + channels);
        for (int64_t c = 0; c < channels; c++) {
            sums[c] += (double)block[c];
            squares[c] += (double)block[channels + c];
        }
    }
}

/* From sums per channel (of x - shift, over all pixels) to factor and offset: y = x a + b */
INLINE void group_factors(const struct group_norm_args *g, const void *x,
                          enum elem type, const double *sums, const double *squares,
                          float *a, float *b)
{
    int64_t size = g->channels / g->groups;
    double pixels = (double)g->pixels;

    for (int64_t from = 0; from < g->channels; from += size) {
        double mean = 0, variance = 0;
        float inverse;

        for (int64_t c = from; c < from + size; c++)
            mean += (double)get(x, c, type) + sums[c] / pixels;
        mean /= (double)size;
        for (int64_t c = from; c < from + size; c++) {
            double d = (double)get(x, c, type) + sums[c] / pixels - mean;

            variance +=
                squares[c] / pixels - sums[c] / pixels * (sums[c] / pixels) + d * d;
        }
        variance /= (double)size;
        inverse = (float)(1.0 / sqrt((variance > 0 ? variance : 0) + (double)g->eps));
        for (int64_t c = from; c < from + size; c++) {
            a[c] = inverse * g->gamma[c];
            b[c] = g->beta[c] - (float)mean * a[c];
        }
    }
}

INLINE void scale_pixels(const void *x, void *y, enum elem type, int64_t from,
                         int64_t to, int64_t channels, const float *a, const float *b,
                         enum activation act)
{
    for (int64_t p = from; p < to; p++) {
        const void *in = at(x, p * channels, type);
        void *out = at_mut(y, p * channels, type);

        for (int64_t c = 0; c < channels; c += LANES) {
            lanes v = lanes_next(in, c, type, channels);

            v = v * lanes_next(a, c, ELEM_F32, channels) +
                lanes_next(b, c, ELEM_F32, channels);
            lanes_write(out, c, type, channels, lanes_activate(v, act));
        }
    }
}

/* One thread's share of the scratch. */
struct norm_space {
    double *sums;  /* [2][C] */
    float *block;  /* [2][C] */
    float *factor; /* [2][C]: a and b of y = act(x a + b) */
};

INLINE struct norm_space norm_space(const struct group_norm_args *g, int64_t thread)
{
    double *sums = (double *)g->scratch + thread * 4 * g->channels;

    return (struct norm_space){sums, (float *)(sums + 2 * g->channels),
                               (float *)(sums + 3 * g->channels)};
}

INLINE void add_up(const struct group_norm_args *g, const void *x, enum elem type,
                   int64_t from, int64_t to, const struct norm_space *s)
{
    sums_of_pixels(x, type, from, to, g->channels, s->sums, s->sums + g->channels,
                   s->block);
}

INLINE void scale(const struct group_norm_args *g, const void *x, void *y,
                  enum elem type, int64_t from, int64_t to, const struct norm_space *s)
{
    const float *a = s->factor, *b = a + g->channels;

    if (g->act == ACT_SILU)
        scale_pixels(x, y, type, from, to, g->channels, a, b, ACT_SILU);
    else
        scale_pixels(x, y, type, from, to, g->channels, a, b, ACT_NONE);
}

/* As many pictures as threads (cond and uncond on two cores): nobody waits for anybody. */
INLINE void norm_whole_pictures(const struct group_norm_args *g, enum elem type,
                                int threads)
{
    int64_t per_picture = g->pixels * g->channels;

#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < g->pictures; n++) {
        const void *x = at(g->x, n * per_picture, type);
        struct norm_space s = norm_space(g, omp_get_thread_num());

        add_up(g, x, type, 0, g->pixels, &s);
        group_factors(g, x, type, s.sums, s.sums + g->channels, s.factor,
                      s.factor + g->channels);
        scale(g, x, at_mut(g->y, n * per_picture, type), type, 0, g->pixels, &s);
    }
}

/* All threads on one picture: each sums its pixels, then each scales them. */
INLINE void norm_shared_picture(const struct group_norm_args *g, const void *x, void *y,
                                enum elem type)
{
    int64_t channels = g->channels, shares = g->threads;
    struct norm_space all = norm_space(g, 0);

#pragma omp parallel for num_threads(g->threads)
    for (int64_t i = 0; i < shares; i++) {
        struct norm_space s = norm_space(g, i);

        add_up(g, x, type, g->pixels * i / shares, g->pixels * (i + 1) / shares, &s);
    }
    for (int64_t i = 1; i < shares; i++)
        for (int64_t c = 0; c < 2 * channels; c++)
            all.sums[c] += norm_space(g, i).sums[c];
    if (stop_ask_soon(g->stop))
        return;
    group_factors(g, x, type, all.sums, all.sums + channels, all.factor,
                  all.factor + channels);
#pragma omp parallel for num_threads(g->threads)
    for (int64_t i = 0; i < shares; i++)
        scale(g, x, y, type, g->pixels * i / shares, g->pixels * (i + 1) / shares,
              &all);
}

INLINE void group_norm_typed(const struct group_norm_args *g, enum elem type)
{
    int64_t per_picture = g->pixels * g->channels;

    if (g->pictures * per_picture < PARALLEL_FROM)
        norm_whole_pictures(g, type, 1);
    else if (g->pictures % g->threads == 0)
        norm_whole_pictures(g, type, g->threads);
    else
        for (int64_t n = 0; n < g->pictures && !stop_ask_soon(g->stop); n++)
            norm_shared_picture(g, at(g->x, n * per_picture, type),
                                at_mut(g->y, n * per_picture, type), type);
}

static void activate(const void *x, void *y, enum elem type, int64_t count,
                     enum activation act);

static void group_norm(const struct group_norm_args *g)
{
    if (g->type == ELEM_BF16)
        group_norm_typed(g, ELEM_BF16);
    else
        group_norm_typed(g, ELEM_F32);
    if (g->act != ACT_NONE && g->act != ACT_SILU)
        activate(g->y, g->y, g->type, g->pictures * g->pixels * g->channels, g->act);
}

/* ---- layer norm ---- */

INLINE void layer_norm_row(const struct layer_norm_args *l, int64_t row, enum elem type)
{
    const void *x = at(l->x, row * l->channels, type);
    void *y = at_mut(l->y, row * l->channels, type);
    int64_t n = l->channels, whole = n / LANES * LANES;
    lanes sum = lanes_of(0), square = sum, d;
    float mean, inverse;

    for (int64_t c = 0; c < n; c += LANES)
        sum += lanes_next(x, c, type, n);
    mean = lanes_sum(sum) / (float)n;
    for (int64_t c = 0; c < whole; c += LANES) {
        d = lanes_get(x, c, type) - mean;
        square += d * d;
    }
    inverse = lanes_sum(square);
    for (int64_t c = whole; c < n; c++)
        inverse += (get(x, c, type) - mean) * (get(x, c, type) - mean);
    inverse = 1.0f / sqrtf(inverse / (float)n + l->eps);
    for (int64_t c = 0; c < n; c += LANES) {
        d = (lanes_next(x, c, type, n) - mean) * inverse;
        d = d * lanes_next(l->gamma, c, ELEM_F32, n) +
            lanes_next(l->beta, c, ELEM_F32, n);
        lanes_write(y, c, type, n, d);
    }
}

static void layer_norm(const struct layer_norm_args *l)
{
#pragma omp parallel for if (l->rows * l->channels >= PARALLEL_FROM)
    for (int64_t row = 0; row < l->rows; row++) {
        if (l->type == ELEM_BF16)
            layer_norm_row(l, row, ELEM_BF16);
        else
            layer_norm_row(l, row, ELEM_F32);
    }
}

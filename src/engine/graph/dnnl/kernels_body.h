/* kernels_body: the passes of kernels.h, written once and compiled per instruction set;
 * included by kernels_<isa>.c, which names the table. No include guard.
 *
 * In gcc's vector type of 16 floats, because the same text must run on AVX-512, AVX2 and
 * anything else: the compiler splits it where registers are shorter. Leaving plain loops
 * to the vectoriser was tried first: inside OpenMP regions it gave up on half of them
 * (silu at 8 cycles per element). Intrinsics remain for AMX alone, in a file of its own.
 *
 * The element type is a constant at every call of the always-inlined bodies, so the tests
 * for it vanish. bf16 is the upper half of an f32, rounded to nearest even.
 *
 * group_norm reads x twice: statistics, then y = act(x a[c] + b[c]) with a, b made of
 * mean, variance, gamma and beta. Statistics are sums per channel of d = x - shift and
 * d^2, shift being the picture's first pixel, so that a mean that is large beside the
 * deviation does not cancel; f32 over blocks of 128 pixels, then f64. Channels become
 * groups only at the end, so any group size vectorises.
 *
 * attention works on 16 queries at a time, one per lane: scores are computed transposed
 * (a row of scores belongs to one key), so maximum and sum over the keys are plain vector
 * operations without any shuffling inside a vector. Scores live for 64 keys; the running
 * maximum rescales the result when it grows (online softmax, Milakov and Gimelshein 2018;
 * the blocking is FlashAttention's, Dao 2022). */
#include "engine/graph/dnnl/kernels.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* elements: less is not worth waking threads for (see threads_for) */
enum { PARALLEL_FROM = 1 << 18 };

INLINE float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

INLINE uint16_t f32_to_bf16(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    u += 0x7fffu + ((u >> 16) & 1u);
    return (uint16_t)(u >> 16);
}

INLINE float get(const void *p, int64_t i, enum elem type)
{
    return type == ELEM_BF16 ? bf16_to_f32(((const uint16_t *)p)[i])
                             : ((const float *)p)[i];
}

INLINE void put(void *p, int64_t i, enum elem type, float value)
{
    if (type == ELEM_BF16)
        ((uint16_t *)p)[i] = f32_to_bf16(value);
    else
        ((float *)p)[i] = value;
}

INLINE const void *at(const void *p, int64_t i, enum elem type)
{
    return (const char *)p + (size_t)i * elem_bytes(type);
}

INLINE void *at_mut(void *p, int64_t i, enum elem type)
{
    return (char *)p + (size_t)i * elem_bytes(type);
}

/* ---- sixteen at a time ---- */

enum { LANES = 16 };

typedef float lanes __attribute__((vector_size(LANES * 4)));
typedef int32_t lanes_int __attribute__((vector_size(LANES * 4)));
typedef uint32_t lanes_bits __attribute__((vector_size(LANES * 4)));
typedef uint16_t lanes_half __attribute__((vector_size(LANES * 2)));

INLINE lanes lanes_of(float x)
{
    return (lanes){0} + x;
}

INLINE lanes lanes_get(const void *p, int64_t i, enum elem type)
{
    lanes x;

    if (type == ELEM_BF16) {
        lanes_half h;

        memcpy(&h, (const uint16_t *)p + i, sizeof(h));
        return (lanes)(__builtin_convertvector(h, lanes_bits) << 16);
    }
    memcpy(&x, (const float *)p + i, sizeof(x));
    return x;
}

INLINE void lanes_put(void *p, int64_t i, enum elem type, lanes x)
{
    if (type == ELEM_BF16) {
        lanes_bits u = (lanes_bits)x;
        lanes_half h;

        u += 0x7fffu + ((u >> 16) & 1u);
        h = __builtin_convertvector(u >> 16, lanes_half);
        memcpy((uint16_t *)p + i, &h, sizeof(h));
    } else {
        memcpy((float *)p + i, &x, sizeof(x));
    }
}

/* The last n < 16 of a row: the others are zero, and are not written. */
INLINE lanes lanes_get_some(const void *p, int64_t i, enum elem type, int64_t n)
{
    float some[LANES] = {0};

    memcpy(some, (const char *)p + (size_t)i * elem_bytes(type),
           (size_t)n * elem_bytes(type));
    return lanes_get(some, 0, type);
}

INLINE void lanes_put_some(void *p, int64_t i, enum elem type, int64_t n, lanes x)
{
    float some[LANES];

    lanes_put(some, 0, type, x);
    memcpy((char *)p + (size_t)i * elem_bytes(type), some,
           (size_t)n * elem_bytes(type));
}

/* Sixteen of `count` from i on, fewer at the end */
INLINE lanes lanes_next(const void *p, int64_t i, enum elem type, int64_t count)
{
    return count - i >= LANES ? lanes_get(p, i, type)
                              : lanes_get_some(p, i, type, count - i);
}

INLINE void lanes_write(void *p, int64_t i, enum elem type, int64_t count, lanes x)
{
    if (count - i >= LANES)
        lanes_put(p, i, type, x);
    else
        lanes_put_some(p, i, type, count - i, x);
}

INLINE float lanes_sum(lanes x)
{
    float sum = 0;

    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}

/* Per lane a where `which` is all ones, b where it is zero (what comparing gives). */
INLINE lanes lanes_pick(lanes_int which, lanes a, lanes b)
{
    return (lanes)(((lanes_int)a & which) | ((lanes_int)b & ~which));
}

INLINE lanes lanes_max(lanes a, lanes b)
{
    return lanes_pick(a > b, a, b);
}

INLINE lanes lanes_min(lanes a, lanes b)
{
    return lanes_pick(a < b, a, b);
}

/* exp by 2^n times a polynomial (Cephes' expf: relative error 2e-7). The addition of
 * 1.5 * 2^23 rounds to a whole number and leaves it in the low bits. */
INLINE lanes lanes_exp(lanes x)
{
    const float magic = 12582912.0f;
    lanes n, f, p;
    lanes_int bits;

    x = lanes_min(lanes_max(x, lanes_of(-87.0f)), lanes_of(88.0f));
    n = x * 1.44269504f + magic;
    bits = (lanes_int)n;
    n -= magic;
    f = x - n * 0.693359375f;
    f -= n * -2.12194440e-4f;
    p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * (f * f) + f + 1.0f;
    return p * (lanes)((bits - (0x4b400000 - 127)) << 23);
}

/* Abramowitz and Stegun 7.1.26, absolute error 1.5e-7 */
INLINE lanes lanes_erf(lanes x)
{
    const lanes_bits sign = (lanes_bits)x & 0x80000000u;
    lanes z = (lanes)((lanes_bits)x & 0x7fffffffu);
    lanes t = 1.0f / (z * 0.3275911f + 1.0f);
    lanes p = t * 1.061405429f - 1.453152027f;

    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    p = 1.0f - p * t * lanes_exp(-z * z);
    return (lanes)((lanes_bits)p | sign);
}

INLINE lanes lanes_activate(lanes x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return x / (lanes_exp(-x) + 1.0f);
    case ACT_QUICK_GELU:
        return x / (lanes_exp(x * -1.702f) + 1.0f);
    case ACT_GELU:
        return x * 0.5f * (lanes_erf(x * 0.70710678f) + 1.0f);
    case ACT_GELU_TANH: /* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)) */
        return x / (lanes_exp((x * x * x * 0.044715f + x) * -1.5957691216f) + 1.0f);
    case ACT_NONE:
        break;
    }
    return x;
}

/* ---- group norm ---- */

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
        for (int64_t n = 0; n < g->pictures; n++)
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

/* ---- element by element ---- */

INLINE void activate_range(const void *x, void *y, enum elem type, int64_t count,
                           enum activation act)
{
    for (int64_t i = 0; i < count; i += LANES)
        lanes_write(y, i, type, count,
                    lanes_activate(lanes_next(x, i, type, count), act));
}

INLINE void activate_typed(const void *x, void *y, enum elem type, int64_t count,
                           enum activation act)
{
    switch (act) {
    case ACT_SILU:
        activate_range(x, y, type, count, ACT_SILU);
        break;
    case ACT_GELU:
        activate_range(x, y, type, count, ACT_GELU);
        break;
    case ACT_GELU_TANH:
        activate_range(x, y, type, count, ACT_GELU_TANH);
        break;
    case ACT_QUICK_GELU:
        activate_range(x, y, type, count, ACT_QUICK_GELU);
        break;
    case ACT_NONE:
        memmove(y, x, (size_t)count * elem_bytes(type));
        break;
    }
}

/* [from, to) of `count` elements for the calling thread, in whole cache lines */
INLINE void share(int64_t count, int64_t *from, int64_t *to)
{
    int64_t lines = (count + 63) / 64, me = omp_get_thread_num();
    int64_t all = omp_get_num_threads();

    *from = lines * me / all * 64;
    *to = lines * (me + 1) / all * 64;
    *to = *to > count ? count : *to;
}

static void activate(const void *x, void *y, enum elem type, int64_t count,
                     enum activation act)
{
#pragma omp parallel if (count >= PARALLEL_FROM)
    {
        int64_t from, to;

        share(count, &from, &to);
        if (type == ELEM_BF16)
            activate_typed(at(x, from, type), at_mut(y, from, type), ELEM_BF16,
                           to - from, act);
        else
            activate_typed(at(x, from, type), at_mut(y, from, type), ELEM_F32,
                           to - from, act);
    }
}

INLINE void geglu_row(const void *x, void *y, enum elem type, int64_t channels)
{
    const void *gate = at(x, channels, type);

    for (int64_t c = 0; c < channels; c += LANES)
        lanes_write(y, c, type, channels,
                    lanes_next(x, c, type, channels) *
                        lanes_activate(lanes_next(gate, c, type, channels), ACT_GELU));
}

static void geglu(const void *x, void *y, enum elem type, int64_t rows,
                  int64_t channels)
{
#pragma omp parallel for if (rows * channels >= PARALLEL_FROM)
    for (int64_t row = 0; row < rows; row++) {
        const void *in = at(x, row * 2 * channels, type);
        void *out = at_mut(y, row * channels, type);

        if (type == ELEM_BF16)
            geglu_row(in, out, ELEM_BF16, channels);
        else
            geglu_row(in, out, ELEM_F32, channels);
    }
}

INLINE void add_range(const void *a, const void *b, void *y, enum elem type,
                      int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES)
        lanes_write(y, i, type, count,
                    lanes_next(a, i, type, count) + lanes_next(b, i, type, count));
}

static void add(const void *a, const void *b, void *y, enum elem type, int64_t count)
{
#pragma omp parallel if (count >= PARALLEL_FROM)
    {
        int64_t from, to;

        share(count, &from, &to);
        if (type == ELEM_BF16)
            add_range(at(a, from, type), at(b, from, type), at_mut(y, from, type),
                      ELEM_BF16, to - from);
        else
            add_range(at(a, from, type), at(b, from, type), at_mut(y, from, type),
                      ELEM_F32, to - from);
    }
}

static void add_row(const void *a, const void *b, void *y, enum elem type, int64_t rows,
                    int64_t channels)
{
#pragma omp parallel for if (rows * channels >= PARALLEL_FROM)
    for (int64_t row = 0; row < rows; row++) {
        const void *in = at(a, row * channels, type);
        void *out = at_mut(y, row * channels, type);

        if (type == ELEM_BF16)
            add_range(in, b, out, ELEM_BF16, channels);
        else
            add_range(in, b, out, ELEM_F32, channels);
    }
}

INLINE void convert_range(const void *x, enum elem from, void *y, enum elem to,
                          int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES)
        lanes_write(y, i, to, count, lanes_next(x, i, from, count));
}

static void convert(const void *x, enum elem from, void *y, enum elem to, int64_t count)
{
#pragma omp parallel if (count >= PARALLEL_FROM)
    {
        int64_t begin, end;
        const void *in;
        void *out;

        share(count, &begin, &end);
        in = at(x, begin, from);
        out = at_mut(y, begin, to);
        if (from == to)
            memcpy(out, in, (size_t)(end - begin) * elem_bytes(to));
        else if (to == ELEM_BF16)
            convert_range(in, ELEM_F32, out, ELEM_BF16, end - begin);
        else
            convert_range(in, ELEM_BF16, out, ELEM_F32, end - begin);
    }
}

static void convert_row(const float *x, void *y, enum elem to, int64_t count)
{
    if (to == ELEM_BF16)
        convert_range(x, ELEM_F32, y, ELEM_BF16, count);
    else
        memcpy(y, x, (size_t)count * sizeof(*x));
}

/* Exponent and fraction of a half, moved to where f32 has them, are the number times
 * 2^-112, subnormal halves included; all ones in the exponent stand for what is no number. */
INLINE lanes lanes_of_half(lanes_half h)
{
    lanes_bits u = __builtin_convertvector(h, lanes_bits), size = (u & 0x7fffu) << 13;
    lanes x = (lanes)size * 0x1p112f;
    lanes_int is_special = size >= 0x7c00u << 13;

    x = lanes_pick(is_special, (lanes)(size | 0x7f800000u), x);
    return (lanes)((lanes_bits)x | (u & 0x8000u) << 16);
}

INLINE void convert_half_typed(const void *x, void *y, enum elem to, int64_t count)
{
    const char *from = x;
    int64_t i = 0;
    lanes_half h = {0};

    for (; i + LANES <= count; i += LANES) {
        memcpy(&h, from + 2 * i, sizeof(h));
        lanes_put(y, i, to, lanes_of_half(h));
    }
    if (i < count) {
        memcpy(&h, from + 2 * i, (size_t)(count - i) * 2);
        lanes_put_some(y, i, to, count - i, lanes_of_half(h));
    }
}

static void convert_half_row(const void *x, void *y, enum elem to, int64_t count)
{
    if (to == ELEM_BF16)
        convert_half_typed(x, y, ELEM_BF16, count);
    else
        convert_half_typed(x, y, ELEM_F32, count);
}

/* ---- attention ---- */

enum { KEY_BLOCK = 64 };
#ifdef __AVX512F__
enum { AT_ONCE = 8 }; /* keys, or result channels, that share a pass: registers allow */
#else
enum { AT_ONCE = 4 };
#endif

struct head {
    int64_t keys, size;
    float *k, *v;     /* [S, D] */
    lanes *q, *y;     /* [D] */
    lanes *scores;    /* [KEY_BLOCK] */
    lanes max, total; /* per query; max in the exponent's unit */
};

/* scores[j] = k[j] . q for n keys, n <= AT_ONCE */
INLINE void score_keys(const struct head *h, const float *k, int n, lanes *scores)
{
    lanes acc[AT_ONCE];

    for (int j = 0; j < AT_ONCE; j++)
        acc[j] = lanes_of(0);
    if (n == AT_ONCE) {
        for (int64_t d = 0; d < h->size; d++)
            for (int j = 0; j < AT_ONCE; j++)
                acc[j] += h->q[d] * k[j * h->size + d];
    } else {
        for (int64_t d = 0; d < h->size; d++)
            for (int j = 0; j < n; j++)
                acc[j] += h->q[d] * k[j * h->size + d];
    }
    for (int j = 0; j < n; j++)
        scores[j] = acc[j];
}

/* y[d] += sum over n keys of p[j] v[j][d] */
INLINE void add_values(const struct head *h, const float *v, int64_t n)
{
    for (int64_t d = 0; d < h->size; d += AT_ONCE) {
        int64_t m = h->size - d < AT_ONCE ? h->size - d : AT_ONCE;
        lanes acc[AT_ONCE];

        if (m == AT_ONCE) {
            for (int i = 0; i < AT_ONCE; i++)
                acc[i] = h->y[d + i];
            for (int64_t j = 0; j < n; j++)
                for (int i = 0; i < AT_ONCE; i++)
                    acc[i] += h->scores[j] * v[j * h->size + d + i];
            for (int i = 0; i < AT_ONCE; i++)
                h->y[d + i] = acc[i];
        } else {
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++)
                    h->y[d + i] += h->scores[j] * v[j * h->size + d + i];
        }
    }
}

/* The next n keys (at most KEY_BLOCK) for the 16 queries that begin at first_query. */
INLINE void attend_block(struct head *h, int64_t from, int64_t n, int64_t first_query,
                         bool is_causal)
{
    lanes max = h->max, factor;
    lanes_int query;

    for (int i = 0; i < LANES; i++)
        query[i] = (int32_t)first_query + i;
    for (int64_t j = 0; j < n; j += AT_ONCE)
        score_keys(h, h->k + (from + j) * h->size,
                   (int)(n - j < AT_ONCE ? n - j : AT_ONCE), h->scores + j);
    for (int64_t j = 0; j < n; j++) {
        if (is_causal) {
            lanes_int seen = query >= (int32_t)(from + j);

            h->scores[j] = lanes_pick(seen, h->scores[j], lanes_of(-1e30f));
        }
        max = lanes_max(max, h->scores[j]);
    }
    factor = lanes_exp(h->max - max);
    h->max = max;
    h->total *= factor;
    for (int64_t d = 0; d < h->size; d++)
        h->y[d] *= factor;
    for (int64_t j = 0; j < n; j++) {
        h->scores[j] = lanes_exp(h->scores[j] - max);
        h->total += h->scores[j];
    }
    add_values(h, h->v + from * h->size, n);
}

INLINE void attend_queries(const struct attend_args *a, struct head *h, enum elem type,
                           const void *q, void *y, int64_t first)
{
    int64_t count = a->queries - first < LANES ? a->queries - first : LANES;
    int64_t keys = a->keys;
    float scale = 1.0f / sqrtf((float)h->size);

    for (int64_t d = 0; d < h->size; d++) {
        h->q[d] = h->y[d] = lanes_of(0);
        for (int64_t i = 0; i < count; i++)
            h->q[d][i] = get(q, (first + i) * a->q_pitch + d, type) * scale;
    }
    h->max = lanes_of(-1e30f);
    h->total = lanes_of(0);
    if (a->is_causal && first + count < keys)
        keys = first + count;
    for (int64_t from = 0; from < keys; from += KEY_BLOCK)
        attend_block(h, from, keys - from < KEY_BLOCK ? keys - from : KEY_BLOCK, first,
                     a->is_causal);
    for (int64_t d = 0; d < h->size; d++) {
        lanes out = h->y[d] / h->total;

        for (int64_t i = 0; i < count; i++)
            put(y, (first + i) * a->y_pitch + d, type, out[i]);
    }
}

INLINE void attention_typed(const struct attend_args *a, enum elem type)
{
    int64_t tasks = a->pictures * a->heads, size = a->head_size;
    int64_t parts = (4 * a->threads + tasks - 1) / tasks; /* of a head's queries */
    int64_t blocks = (a->queries + LANES - 1) / LANES;

    parts = parts > blocks ? blocks : parts;
#pragma omp parallel num_threads(a->threads)
    {
        char *mine = (char *)a->scratch + omp_get_thread_num() * attention_scratch(a);
        struct head h = {.keys = a->keys, .size = size};
        int64_t packed = -1;

        h.q = (lanes *)mine;
        h.y = h.q + size;
        h.scores = h.y + size;
        h.k = (float *)(h.scores + KEY_BLOCK);
        h.v = h.k + a->keys * size;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks * parts; task++) {
            int64_t head = task / parts, part = task % parts;
            int64_t n = head / a->heads, from = head % a->heads * size;
            const void *k = at(a->k, n * a->keys * a->k_pitch + from, type);
            const void *v = at(a->v, n * a->keys * a->v_pitch + from, type);
            const void *q = at(a->q, n * a->queries * a->q_pitch + from, type);
            void *y = at_mut(a->y, n * a->queries * a->y_pitch + from, type);

            for (int64_t s = 0; packed != head && s < a->keys; s++)
                for (int64_t d = 0; d < size; d++) {
                    h.k[s * size + d] = get(k, s * a->k_pitch + d, type);
                    h.v[s * size + d] = get(v, s * a->v_pitch + d, type);
                }
            packed = head;
            for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts;
                 b++)
                attend_queries(a, &h, type, q, y, b * LANES);
        }
    }
}

static void attention(const struct attend_args *a)
{
    if (a->type == ELEM_BF16)
        attention_typed(a, ELEM_BF16);
    else
        attention_typed(a, ELEM_F32);
}

const struct kernels KERNELS = {
    .group_norm = group_norm,
    .layer_norm = layer_norm,
    .activate = activate,
    .geglu = geglu,
    .add = add,
    .add_row = add_row,
    .convert = convert,
    .convert_row = convert_row,
    .convert_half_row = convert_half_row,
    .attention = attention,
};

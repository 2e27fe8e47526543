/* kernels_body: the passes of kernels.h, written once and compiled per instruction set;
 * included by kernels_<isa>.c, which names the table. No include guard.
 *
 * Plain loops that the compiler vectorises, because the same text must run on AVX-512,
 * AVX2 and anything else, and because these passes are bound by memory: intrinsics
 * bought nothing measurable except in attention, where AMX has a file of its own. Only
 * attention uses gcc's vector type, for its lanes are the algorithm.
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

/* less work than this is not worth waking threads for */
enum { PARALLEL_FROM = 8192 };

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

/* exp by 2^n times a polynomial (minimax on [-ln2/2, ln2/2], relative error 2e-7). The
 * addition of 1.5 * 2^23 rounds to a whole number and leaves it in the low bits. */
INLINE float exp_of(float x)
{
    const float magic = 12582912.0f;
    float n, f, p;
    int32_t bits;

    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    n = x * 1.44269504f + magic;
    memcpy(&bits, &n, sizeof(bits));
    n -= magic;
    f = x - n * 0.693359375f;
    f -= n * -2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    bits = (int32_t)((uint32_t)(bits - 0x4b400000 + 127) << 23);
    memcpy(&n, &bits, sizeof(n));
    return p * n;
}

/* Abramowitz and Stegun 7.1.26, absolute error 1.5e-7 */
INLINE float erf_of(float x)
{
    float z = fabsf(x);
    float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;

    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    return copysignf(1.0f - p * t * exp_of(-z * z), x);
}

INLINE float activation_of(float x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return x / (1.0f + exp_of(-x));
    case ACT_QUICK_GELU:
        return x / (1.0f + exp_of(-1.702f * x));
    case ACT_GELU:
        return 0.5f * x * (1.0f + erf_of(x * 0.70710678f));
    case ACT_GELU_TANH: /* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)) */
        return x / (1.0f + exp_of(-1.5957691216f * (x + 0.044715f * x * x * x)));
    case ACT_NONE:
        break;
    }
    return x;
}

/* ---- group norm ---- */

INLINE void sums_of_block(const void *x, enum elem type, int64_t pixels,
                          int64_t channels, const void *shift, float *restrict sum,
                          float *restrict square)
{
    for (int64_t p = 0; p < pixels; p++) {
        const void *row = at(x, p * channels, type);

#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            float d = get(row, c, type) - get(shift, c, type);

            sum[c] += d;
            square[c] += d * d;
        }
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

        memset(block, 0, (size_t)channels * 2 * sizeof(*block));
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
                         int64_t to, int64_t channels, const float *restrict a,
                         const float *restrict b, enum activation act)
{
    for (int64_t p = from; p < to; p++) {
        const void *in = at(x, p * channels, type);
        void *out = at_mut(y, p * channels, type);

#pragma omp simd
        for (int64_t c = 0; c < channels; c++)
            put(out, c, type, activation_of(get(in, c, type) * a[c] + b[c], act));
    }
}

INLINE void group_norm_typed(const struct group_norm_args *g, enum elem type)
{
    int64_t channels = g->channels, per_picture = g->pixels * channels;
    int threads = per_picture < PARALLEL_FROM ? 1 : g->threads;
    double *sums = g->scratch; /* [threads][2][C] */
    float *blocks = (float *)(sums + (size_t)g->threads * 2 * (size_t)channels);
    float *a = blocks + (size_t)g->threads * 2 * (size_t)channels;
    float *b = a + channels;

#pragma omp parallel num_threads(threads)
    {
        int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
        int64_t from = g->pixels * me / all, to = g->pixels * (me + 1) / all;
        double *mine = sums + me * 2 * channels;

        for (int64_t n = 0; n < g->pictures; n++) {
            const void *x = at(g->x, n * per_picture, type);
            void *y = at_mut(g->y, n * per_picture, type);

            sums_of_pixels(x, type, from, to, channels, mine, mine + channels,
                           blocks + me * 2 * channels);
#pragma omp barrier
#pragma omp single
            {
                for (int64_t t = 1; t < all; t++)
                    for (int64_t c = 0; c < 2 * channels; c++)
                        sums[c] += sums[t * 2 * channels + c];
                group_factors(g, x, type, sums, sums + channels, a, b);
            }
            if (g->act == ACT_SILU)
                scale_pixels(x, y, type, from, to, channels, a, b, ACT_SILU);
            else
                scale_pixels(x, y, type, from, to, channels, a, b, ACT_NONE);
#pragma omp barrier
        }
    }
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
    const float *restrict gamma = l->gamma, *restrict beta = l->beta;
    float sum = 0, square = 0, mean, inverse;

#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < l->channels; c++)
        sum += get(x, c, type);
    mean = sum / (float)l->channels;
#pragma omp simd reduction(+ : square)
    for (int64_t c = 0; c < l->channels; c++)
        square += (get(x, c, type) - mean) * (get(x, c, type) - mean);
    inverse = 1.0f / sqrtf(square / (float)l->channels + l->eps);
#pragma omp simd
    for (int64_t c = 0; c < l->channels; c++)
        put(y, c, type, (get(x, c, type) - mean) * inverse * gamma[c] + beta[c]);
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
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        put(y, i, type, activation_of(get(x, i, type), act));
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
#pragma omp simd
    for (int64_t c = 0; c < channels; c++)
        put(y, c, type,
            get(x, c, type) * activation_of(get(x, channels + c, type), ACT_GELU));
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
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        put(y, i, type, get(a, i, type) + get(b, i, type));
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
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        put(y, i, to, get(x, i, from));
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

/* ---- attention ---- */

enum { LANES = 16, KEY_BLOCK = 64 };
#ifdef __AVX512F__
enum { AT_ONCE = 8 }; /* keys, or result channels, that share a pass: registers allow */
#else
enum { AT_ONCE = 4 };
#endif

typedef float lanes __attribute__((vector_size(LANES * 4)));
typedef int32_t lanes_int __attribute__((vector_size(LANES * 4)));

struct head {
    int64_t keys, size;
    float *k, *v;     /* [S, D] */
    lanes *q, *y;     /* [D] */
    lanes *scores;    /* [KEY_BLOCK] */
    lanes max, total; /* per query; max in the exponent's unit */
};

INLINE lanes lanes_of(float x)
{
    return (lanes){0} + x;
}

INLINE lanes lanes_exp(lanes x)
{
    lanes y;

    for (int i = 0; i < LANES; i++)
        y[i] = exp_of(x[i]);
    return y;
}

INLINE lanes lanes_max(lanes a, lanes b)
{
    lanes_int more = a > b;

    return (lanes)(((lanes_int)a & more) | ((lanes_int)b & ~more));
}

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

            h->scores[j] = (lanes)(((lanes_int)h->scores[j] & seen) |
                                   ((lanes_int)lanes_of(-1e30f) & ~seen));
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
    .attention = attention,
};

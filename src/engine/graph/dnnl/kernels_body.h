/* kernels_body: the passes of kernels.h, written once and compiled per instruction set;
 * included by kernels_<isa>.c, which names the table. No include guard. Here are the passes that
 * go element by element; norms and attention have files of their own, how sixteen elements
 * are one value stands in lanes.h. Intrinsics remain for AMX alone (attention_amx.c). */
#include "engine/graph/dnnl/lanes.h"

#include "engine/graph/dnnl/norms_body.h"

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
    case ACT_LEAKY_RELU:
        activate_range(x, y, type, count, ACT_LEAKY_RELU);
        break;
    case ACT_FIFTH:
        activate_range(x, y, type, count, ACT_FIFTH);
        break;
    case ACT_RELU:
        activate_range(x, y, type, count, ACT_RELU);
        break;
    case ACT_SOFT_CLAMP:
        activate_range(x, y, type, count, ACT_SOFT_CLAMP);
        break;
    case ACT_TO_UNIT:
        activate_range(x, y, type, count, ACT_TO_UNIT);
        break;
    case ACT_TO_SIGNED:
        activate_range(x, y, type, count, ACT_TO_SIGNED);
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

INLINE void prelu_row(const void *x, const float *a, void *y, enum elem type,
                      int64_t channels)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        lanes v = lanes_next(x, c, type, channels);

        lanes_write(y, c, type, channels,
                    lanes_pick(v < 0.0f, v * lanes_next(a, c, ELEM_F32, channels), v));
    }
}

static void prelu(const void *x, const float *a, void *y, enum elem type, int64_t rows,
                  int64_t channels)
{
#pragma omp parallel for if (rows * channels >= PARALLEL_FROM)
    for (int64_t row = 0; row < rows; row++) {
        const void *in = at(x, row * channels, type);
        void *out = at_mut(y, row * channels, type);

        if (type == ELEM_BF16)
            prelu_row(in, a, out, ELEM_BF16, channels);
        else
            prelu_row(in, a, out, ELEM_F32, channels);
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

INLINE float largest_typed(const void *x, enum elem type, int64_t count)
{
    lanes most = lanes_of(0), zero = most;
    float result = 0;

    for (int64_t i = 0; i < count; i += LANES) {
        lanes v = lanes_next(x, i, type, count);

        most = lanes_max(most, lanes_max(v, -v));
        zero += v - v;
    }
    for (int i = 0; i < LANES; i++)
        result = most[i] > result ? most[i] : result;
    return result + lanes_sum(zero);
}

static float largest(const void *x, enum elem type, int64_t count)
{
    return type == ELEM_BF16 ? largest_typed(x, ELEM_BF16, count)
                             : largest_typed(x, ELEM_F32, count);
}

INLINE void to_bytes_typed(const void *x, enum elem from, const float *scales,
                           int64_t line, int8_t *q, int64_t count)
{
    for (int64_t i = 0, s = 0; i < count;
         i += LANES, s = s + LANES < line ? s + LANES : 0) {
        lanes scale = lanes_get(scales, s, ELEM_F32);
        lanes v = lanes_next(x, i, from, count) /
                  lanes_pick(scale > 0.0f, scale, lanes_of(1));
        lanes_bytes bytes = __builtin_convertvector(
            v + lanes_pick(v < 0.0f, lanes_of(-0.5f), lanes_of(0.5f)), lanes_bytes);

        memcpy(q + i, &bytes, (size_t)(count - i < LANES ? count - i : LANES));
    }
}

static void to_bytes(const void *x, enum elem from, const float *scales, int64_t line,
                     int8_t *q, int64_t count)
{
    if (from == ELEM_BF16)
        to_bytes_typed(x, ELEM_BF16, scales, line, q, count);
    else
        to_bytes_typed(x, ELEM_F32, scales, line, q, count);
}

INLINE void from_bytes_typed(const int8_t *q, const float *scales, int64_t line,
                             void *y, enum elem to, int64_t count)
{
    for (int64_t i = 0, s = 0; i < count;
         i += LANES, s = s + LANES < line ? s + LANES : 0) {
        lanes_bytes bytes = {0};

        memcpy(&bytes, q + i, (size_t)(count - i < LANES ? count - i : LANES));
        lanes_write(y, i, to, count,
                    __builtin_convertvector(bytes, lanes) *
                        lanes_get(scales, s, ELEM_F32));
    }
}

static void from_bytes(const int8_t *q, const float *scales, int64_t line, void *y,
                       enum elem to, int64_t count)
{
    if (to == ELEM_BF16)
        from_bytes_typed(q, scales, line, y, ELEM_BF16, count);
    else
        from_bytes_typed(q, scales, line, y, ELEM_F32, count);
}

#include "engine/graph/dnnl/attention_body.h"

const struct kernels KERNELS = {
    .group_norm = group_norm,
    .layer_norm = layer_norm,
    .activate = activate,
    .prelu = prelu,
    .geglu = geglu,
    .add = add,
    .add_row = add_row,
    .convert = convert,
    .convert_row = convert_row,
    .convert_half_row = convert_half_row,
    .largest = largest,
    .to_bytes = to_bytes,
    .from_bytes = from_bytes,
    .attention = attention,
};

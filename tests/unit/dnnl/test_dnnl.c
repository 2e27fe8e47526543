/* The oneDNN back end against the reference: every operation on shapes that fit nothing (channels 24, 48, 96,
 * heads of 24, 40, 160, tokens that are no multiple of a tile), what the plan fuses, and two whole blocks. See
 * case.h for how far apart they may be. */
#include "case.h"

#include "base/mem.h"
#include "engine/graph/dnnl/pieces.h"

#include "unit.h"

#include <math.h>

static const enum activation all_activations[] = {
    ACT_NONE,  ACT_SILU, ACT_GELU,       ACT_GELU_TANH, ACT_QUICK_GELU, ACT_LEAKY_RELU,
    ACT_FIFTH, ACT_RELU, ACT_SOFT_CLAMP, ACT_TO_UNIT,   ACT_TO_SIGNED};
enum { ACTIVATIONS = sizeof(all_activations) / sizeof(*all_activations) };

/* ---- products ---- */

static void test_linear(void **state)
{
    static const int rows[] = {1, 2, 77, 100, 256}, sizes[] = {24, 40, 96, 320, 768};

    (void)state;
    for (int i = 0; i < 15; i++) {
        struct test_case *c = case_new((uint64_t)i);
        int in = sizes[i % 5], out = sizes[(i * 2 + i / 5) % 5];
        int x = case_input(c, shape3(1 + i % 2, rows[i / 3], in));
        const struct weight *w = case_weight(c, 2, out, in, 1, 1);
        const struct weight *b = i % 4 ? case_weight(c, 1, out, 1, 1, 1) : NULL;
        int y = graph_linear(c->graph, x, "linear", w, b);

        y = graph_activate(c->graph, y, all_activations[i % ACTIVATIONS]);
        case_check(c, y, 2);
    }
}

/* y = x W + b + row + residual, and the activation after it */
static void test_linear_fused(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++) {
        struct test_case *c = case_new(100 + (uint64_t)i);
        int n = 2, t = case_between(c, 3, 70), size = 48 + 24 * (i % 3);
        int x = case_input(c, shape3(n, t, size));
        int row = case_input(c, shape2(i % 2 ? 1 : n, 96));
        const struct weight *w = case_weight(c, 2, 96, size, 1, 1);
        int residual =
            graph_linear(c->graph, x, "skip", case_weight(c, 2, 96, size, 1, 1), NULL);
        int y = graph_linear(c->graph, x, "linear", w,
                             i % 4 < 2 ? case_weight(c, 1, 96, 1, 1, 1) : NULL);

        y = graph_add(c->graph, y, row);
        y = i % 3 ? graph_add(c->graph, y, residual) : graph_add(c->graph, residual, y);
        y = graph_activate(c->graph, y, all_activations[i % ACTIVATIONS]);
        if (i >= 4) /* the residual is read again: it must not be overwritten */
            y = graph_add(c->graph, y, residual);
        case_check(c, y, 4);
    }
}

/* more matrices than any fixed table would hold, some without bias */
static void test_linear_joined(void **state)
{
    const struct weight *weights[20], *biases[20];

    (void)state;
    for (int count = 1; count <= 20; count += 19) {
        struct test_case *c = case_new(150 + (uint64_t)count);
        int x = case_input(c, shape2(2, 40)), y;

        for (int i = 0; i < count; i++) {
            weights[i] = case_weight(c, 2, 8 + 4 * i, 40, 1, 1);
            biases[i] = i % 3 == 1 ? NULL : case_weight(c, 1, 8 + 4 * i, 1, 1, 1);
        }
        y = graph_linear_joined(c->graph, x, "joined", weights, biases, count);
        case_check(c, y, 2);
    }
}

/* halves of every kind: subnormal, largest, negative zero; and a length that is no multiple
 * of 16 */
static void test_linear_of_halves(void **state)
{
    struct test_case *c = case_new(180);
    const struct weight *w = case_halves(c, 37, 24);
    int x = case_input(c, shape3(1, 5, 24));

    (void)state;
    case_check(c, graph_linear(c->graph, x, "linear", w, NULL), 3);
}

struct conv_shape {
    int n, h, w, in, out, kernel, stride, pad, extra;
};

static int conv_of(struct test_case *c, int x, const struct conv_shape *s)
{
    struct conv_args args = {s->stride, s->pad, s->extra};

    return graph_conv2d(c->graph, x, "conv",
                        case_weight(c, 4, s->out, s->in, s->kernel, s->kernel),
                        case_weight(c, 1, s->out, 1, 1, 1), &args);
}

static void test_conv(void **state)
{
    static const struct conv_shape shapes[] = {
        {2, 8, 8, 4, 48, 3, 1, 1, 0},    {2, 7, 9, 48, 96, 3, 1, 1, 0},
        {1, 16, 16, 96, 4, 3, 1, 1, 0},  {1, 9, 7, 3, 24, 3, 1, 1, 0},
        {2, 8, 8, 48, 48, 3, 2, 1, 0},   {1, 9, 9, 40, 40, 3, 2, 1, 0},
        {1, 8, 8, 48, 48, 3, 2, 0, 1},   {2, 5, 5, 64, 128, 1, 1, 0, 0},
        {2, 16, 16, 64, 64, 3, 1, 1, 0}, {1, 1, 1, 320, 320, 3, 1, 1, 0},
        {1, 33, 31, 24, 3, 3, 1, 1, 0},  {2, 4, 4, 320, 640, 3, 1, 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        const struct conv_shape *s = &shapes[i];
        struct test_case *c = case_new(200 + i);
        int x = case_input(c, shape4(s->n, s->h, s->w, s->in));

        case_check(c, conv_of(c, x, s), 2);
    }
}

static void test_conv_fused(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct conv_shape s = {2, 6 + i % 3, 8, 48, 96, 3, 1, 1, 0};
        struct test_case *c = case_new(250 + (uint64_t)i);
        int x = case_input(c, shape4(s.n, s.h, s.w, s.in));
        int row = case_input(c, shape2(i % 2 ? 1 : 2, 96));
        struct conv_shape skip = s;
        int residual, y = conv_of(c, x, &s);

        skip.kernel = 1;
        skip.pad = 0;
        residual = conv_of(c, x, &skip);
        y = graph_add(c->graph, y, row);
        y = graph_add(c->graph, y, residual);
        y = graph_activate(c->graph, y, all_activations[i % ACTIVATIONS]);
        if (i >= 4)
            y = graph_add(c->graph, y, residual);
        case_check(c, y, 4);
    }
}

static void test_conv_of_upsampled(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct conv_shape s = {1 + i % 2, 3 + i, 8 - i, 48, 40, 3, 1, 1, 0};
        struct test_case *c = case_new(300 + (uint64_t)i);
        int x = case_input(c, shape4(s.n, s.h, s.w, s.in));
        int y = conv_of(c, graph_upsample2x(c->graph, x, 2 * s.h, 2 * s.w), &s);

        if (i >= 3)
            y = graph_add(c->graph, y, case_input(c, shape2(s.n, s.out)));
        case_check(c, y, 3);
    }
}

/* ---- weights as bytes ----
 *
 * A weight is off by at most half a step, of which there are 127 up to its row's largest, which is three to four
 * deviations of these numbers. Evenly spread that is 3.5 / 127 / sqrt(12) = 0.8 % of a weight on average, and of a
 * sum of such products as well. */
static const double BYTES_DRIFT = 0.012;

static void test_linear_of_bytes(void **state)
{
    static const int sizes[][2] = {{24, 40},   {96, 320},  {320, 96},   {768, 77},
                                   {40, 1280}, {1280, 64}, {256, 2560}, {16, 16}};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct test_case *c = case_new(370 + i);
        int in = sizes[i][0], out = sizes[i][1];
        int x = case_input(c, shape3(2, i % 2 ? 77 : 300, in));
        const struct weight *w[] = {case_weight(c, 2, out, in, 1, 1),
                                    case_weight(c, 2, 48, in, 1, 1)};
        const struct weight *b[] = {case_weight(c, 1, out, 1, 1, 1), NULL};

        case_check_int8(
            c, graph_linear_joined(c->graph, x, "joined", w, b, 1 + (int)(i % 3 == 2)),
            2, BYTES_DRIFT);
    }
}

static void test_conv_of_bytes(void **state)
{
    static const struct conv_shape shapes[] = {
        {2, 8, 8, 48, 96, 3, 1, 1, 0},  {1, 9, 9, 40, 40, 3, 2, 1, 0},
        {2, 5, 5, 64, 128, 1, 1, 0, 0}, {1, 16, 16, 320, 320, 3, 1, 1, 0},
        {1, 7, 9, 24, 24, 3, 1, 1, 0},  {1, 8, 8, 1280, 64, 3, 1, 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        const struct conv_shape *s = &shapes[i];
        struct test_case *c = case_new(380 + i);
        int x = case_input(c, shape4(s->n, s->h, s->w, s->in));

        case_check_int8(c, conv_of(c, x, s), 2, BYTES_DRIFT);
    }
}

/* Its kernels become bytes after they were added up for the small input. */
static void test_upsampled_of_bytes(void **state)
{
    struct conv_shape s = {1, 6, 8, 48, 64, 3, 1, 1, 0};
    struct test_case *c = case_new(390);
    int x = case_input(c, shape4(s.n, s.h, s.w, s.in));

    (void)state;
    case_check_int8(c, conv_of(c, graph_upsample2x(c->graph, x, 2 * s.h, 2 * s.w), &s),
                    0, BYTES_DRIFT);
}

/* Few inputs or few outputs: as they are. */
static void test_not_of_bytes(void **state)
{
    static const struct conv_shape shapes[] = {{1, 8, 8, 4, 48, 3, 1, 1, 0},
                                               {1, 8, 8, 48, 4, 3, 1, 1, 0}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct conv_shape *s = &shapes[i];
        struct test_case *c = case_new(395 + i);
        int x = case_input(c, shape4(s->n, s->h, s->w, s->in));

        case_check_int8(c, conv_of(c, x, s), 2, 2e-6);
    }
}

/* Half of bf16's bytes, a quarter of f32's, and scales; a weight that is no number is not hidden by them. */
static void test_store_of_bytes(void **state)
{
    (void)state;
    for (int broken = 0; broken < 2; broken++) {
        struct test_case *c = case_new(398);
        const struct weight *kernel = case_weight(c, 4, 320, 320, 3, 3);
        int x = case_input(c, shape4(1, 8, 8, 320));
        int y = graph_conv2d(c->graph, x, "conv", kernel, NULL,
                             &(struct conv_args){.stride = 1, .pad = 1});
        struct weight_store *whole, *bytes;
        struct program *p[2];
        struct backend *b;
        float *result = aligned_alloc(64, 8 * 8 * 320 * 4);

        if (broken)
            ((float *)(uintptr_t)kernel->data)[12345] = NAN;
        graph_output(c->graph, "y", TENSOR_F32, y);
        assert_int_equal(
            backend_open("dnnl", &(struct backend_options){.threads = 2}, &b, NULL), 0);
        whole = b->ops->store_new(b, STORE_AS_COMPUTED);
        bytes = b->ops->store_new(b, STORE_INT8);
        assert_int_equal(b->ops->compile(b, c->graph, whole, &p[0], NULL), 0);
        assert_int_equal(b->ops->compile(b, c->graph, bytes, &p[1], NULL), 0);
        assert_true((double)p[1]->weight_bytes <
                    1.02 * (double)p[0]->weight_bytes / (double)b->act_bytes);
        assert_true(b->ops->packing_bytes(p[1], NULL) >
                    b->ops->packing_bytes(p[0], NULL) + 320 * 320 * 9 * b->act_bytes);
        assert_int_equal(b->ops->load(p[1], NULL, NULL), 0);
        assert_int_equal(b->ops->store_bytes(bytes), p[1]->weight_bytes);
        void *arena = aligned_alloc(64, p[1]->arena_bytes);
        struct program_run run = {
            .arena = arena, .inputs = c->inputs, .outputs = (void *[]){result}};
        assert_int_equal(b->ops->run(p[1], &run, NULL), 0);
        /* the kernel that the broken number belongs to */
        assert_int_equal(!isfinite(result[12345 / (320 * 9)]), broken);
        free(arena);
        free(result);
        for (int i = 0; i < 2; i++)
            b->ops->program_free(p[i]);
        b->ops->store_free(whole);
        b->ops->store_free(bytes);
        backend_close(b);
        case_free(c);
    }
}

/* ---- long ones, in pieces ---- */

static void test_linear_in_pieces(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct test_case *c = case_new(330 + (uint64_t)i);
        int rows = 130 + 75 * i, in = 40 + 24 * i, out = 96;
        int x = case_input(c, shape3(1 + i % 2, rows, in));
        int y = graph_linear(c->graph, x, "linear", case_weight(c, 2, out, in, 1, 1),
                             case_weight(c, 1, out, 1, 1, 1));

        if (i >= 2) {
            int skip = graph_linear(c->graph, x, "skip",
                                    case_weight(c, 2, out, in, 1, 1), NULL);

            y = graph_add(c->graph, graph_add(c->graph, y, skip), skip);
        }
        case_check_pieces(c, y);
    }
}

/* Borders, strides, pictures of a batch, what rides along; a last piece of one row. */
/* In one piece a kernel sees all of x, as it stands in the graph: where stride 2 leaves a row unread, another height would
 * be another kernel of oneDNN's and another order of adding up. */
static void test_window_in_one_piece(void **state)
{
    const struct window w = {.in = 66, .out = 32, .kernel = 3, .stride = 2};
    struct piece p = piece_of(&w, 0, 32);

    (void)state;
    assert_int_equal(p.in_count, 66);
    assert_int_equal(p.pad_before, 0);
    assert_int_equal(p.pad_after, 0);
    p = piece_of(&(struct window){64, 32, 3, 2, 1, 1, false}, 0, 32);
    assert_int_equal(p.in_count, 64);
    assert_int_equal(p.pad_before, 1);
    assert_int_equal(p.pad_after, 1);
    p = piece_of(&(struct window){32, 64, 4, 2, 1, 1, true}, 0, 64);
    assert_int_equal(p.in_count, 32);
    assert_int_equal(p.pad_before, 1);
    assert_int_equal(p.pad_after, 1);
}

static void test_conv_in_pieces(void **state)
{
    static const struct conv_shape shapes[] = {
        {1, 9, 8, 48, 96, 3, 1, 1, 0},   {2, 8, 7, 64, 64, 3, 1, 1, 0},
        {2, 12, 12, 48, 48, 3, 2, 1, 0}, {1, 12, 12, 48, 48, 3, 2, 0, 1},
        {2, 7, 5, 64, 128, 1, 1, 0, 0},  {1, 33, 31, 24, 3, 3, 1, 1, 0},
        {1, 16, 16, 4, 48, 3, 1, 1, 0},  {1, 13, 16, 256, 256, 3, 1, 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(shapes) / sizeof(*shapes); i++) {
        const struct conv_shape *s = &shapes[i / 2];
        struct test_case *c = case_new(340 + i);
        int x = case_input(c, shape4(s->n, s->h, s->w, s->in));
        int y = conv_of(c, x, s);

        if (i % 2) {
            int like = conv_of(c, x, s);

            y = graph_add(c->graph, y,
                          case_input(c, shape2(i % 4 == 1 ? 1 : s->n, s->out)));
            y = graph_activate(c->graph, graph_add(c->graph, y, like), ACT_SILU);
            if (i % 4 == 1)
                y = graph_add(c->graph, y, like);
        }
        case_check_pieces(c, y);
    }
}

static void test_upsampled_in_pieces(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct conv_shape s = {1 + i % 2, 4 + i, 8 - i, 48, 40 + 24 * (i % 2),
                               3,         1,     1,     0};
        struct test_case *c = case_new(360 + (uint64_t)i);
        int x = case_input(c, shape4(s.n, s.h, s.w, s.in));
        int y = conv_of(c, graph_upsample2x(c->graph, x, 2 * s.h, 2 * s.w), &s);

        if (i >= 3)
            y = graph_add(c->graph, y, case_input(c, shape2(s.n, s.out)));
        case_check_pieces(c, y);
    }
}

/* ---- norms ---- */

/* A mean of 30 deviations must not eat the digits. */
static void test_group_norm(void **state)
{
    static const int shapes[][5] = {/* n, h, w, channels, groups */
                                    {2, 8, 8, 48, 12},  {1, 1, 1, 96, 24},
                                    {2, 7, 9, 320, 32}, {1, 33, 31, 24, 6},
                                    {2, 4, 4, 640, 32}, {1, 64, 64, 32, 8}};

    (void)state;
    for (int i = 0; i < 12; i++) {
        const int *s = shapes[i % 6];
        struct test_case *c = case_new(400 + (uint64_t)i);
        int x =
            case_input_of(c, shape4(s[0], s[1], s[2], s[3]), 1, i % 4 == 3 ? 30 : 0);
        int y = graph_group_norm(c->graph, x, "norm", case_gamma(c, s[3]),
                                 case_weight(c, 1, s[3], 1, 1, 1), s[4], 1e-5f);

        if (i % 3)
            y = graph_activate(c->graph, y, i % 3 == 1 ? ACT_SILU : ACT_GELU);
        if (i >= 6) /* in place only when x dies here */
            y = graph_add(c->graph, y, x);
        case_check(c, y, 3);
    }
}

static void test_prelu(void **state)
{
    static const int channels[] = {3, 24, 64, 83};

    (void)state;
    for (int i = 0; i < 8; i++) {
        struct test_case *c = case_new(430 + (uint64_t)i);
        int64_t wide = channels[i % 4];
        int x = case_input(c, shape4(2, 1 + 5 * i, 7, wide)), y;

        y = graph_prelu(c->graph, x, "slopes", case_weight(c, 1, wide, 1, 1, 1));
        if (i >= 4) /* in place only when x dies here */
            y = graph_add(c->graph, y, x);
        case_check(c, y, i < 4 ? 1 : 2);
    }
}

static void test_layer_norm(void **state)
{
    static const int channels[] = {24, 40, 320, 768, 1280};

    (void)state;
    for (int i = 0; i < 5; i++) {
        struct test_case *c = case_new(450 + (uint64_t)i);
        int x =
            case_input_of(c, shape3(2, 1 + 19 * i, channels[i]), 2, i == 3 ? 30 : 0.5f);

        case_check(c,
                   graph_layer_norm(c->graph, x, "norm", case_gamma(c, channels[i]),
                                    case_weight(c, 1, channels[i], 1, 1, 1), 1e-5f),
                   2);
    }
}

/* ---- attention ---- */

struct attention_shape {
    int n, heads, size, queries, keys;
    bool is_causal;
    float scale; /* of q and k: large ones make the running maximum move */
};

static const struct attention_shape attentions[] = {
    {2, 2, 24, 33, 33, false, 1},   {1, 8, 40, 100, 77, false, 1},
    {2, 3, 40, 256, 256, false, 2}, {1, 2, 160, 64, 64, false, 1},
    {1, 1, 160, 7, 130, false, 1},  {2, 2, 64, 77, 77, true, 1},
    {1, 2, 48, 1, 1, false, 1},     {1, 1, 96, 65, 1030, false, 1},
    {1, 1, 512, 64, 64, false, 1},  {2, 2, 80, 200, 200, true, 2},
    {1, 4, 16, 31, 95, false, 4},   {1, 5, 32, 129, 300, false, 3},
    {1, 1, 8, 20, 20, true, 1},     {3, 1, 72, 50, 161, false, 2},
};

static void test_attention(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(attentions) / sizeof(*attentions); i++) {
        const struct attention_shape *s = &attentions[i];
        struct test_case *c = case_new(500 + i);
        int channels = s->heads * s->size;
        int q = case_input_of(c, shape3(s->n, s->queries, channels), s->scale, 0);
        int k = case_input_of(c, shape3(s->n, s->keys, channels), s->scale, 0);
        int v = case_input_of(c, shape3(s->n, s->keys, channels), 1, 0);
        struct attention_args args = {s->heads, s->is_causal};

        /* P is rounded as well; an error of v's size, while y is an average and smaller */
        case_check(c, graph_attention(c->graph, q, k, v, "attention", &args), 3);
    }
}

/* q, k, v as views of one product, as models write it */
static void test_attention_joined(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        static const int sizes[] = {24, 40, 80};
        struct test_case *c = case_new(550 + (uint64_t)i);
        int channels = 2 * sizes[i];
        int x = case_input(c, shape4(2, 6, 5 + i, channels));
        const struct weight *w[3];
        int qkv, q, k, v, y;

        for (int j = 0; j < 3; j++)
            w[j] = case_weight(c, 2, channels, channels, 1, 1);
        x = graph_reshape(c->graph, x, shape3(2, 6 * (5 + i), channels));
        qkv = graph_linear_joined(c->graph, x, "qkv", w, NULL, 3);
        q = graph_slice(c->graph, qkv, 0, channels);
        k = graph_slice(c->graph, qkv, channels, channels);
        v = graph_slice(c->graph, qkv, 2 * channels, channels);
        y = graph_attention(c->graph, q, k, v, "attention",
                            &(struct attention_args){.heads = 2});
        case_check(c, y, 6);
    }
}

/* ---- the rest ---- */

static void test_elementwise(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct test_case *c = case_new(600 + (uint64_t)i);
        int channels = case_between(c, 3, 200), h = case_between(c, 1, 20);
        int a = case_input_of(c, shape4(2, h, 5, channels), 4, 0);
        int b = case_input(c, i % 2 ? shape4(2, h, 5, channels)
                                    : shape2(i % 4 ? 2 : 1, channels));

        case_check(c,
                   graph_activate(c->graph, graph_add(c->graph, a, b),
                                  all_activations[i % ACTIVATIONS]),
                   3);
    }
}

static void test_geglu(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct test_case *c = case_new(650 + (uint64_t)i);
        int x = case_input_of(c, shape3(2, 1 + 40 * i, 2 * (24 + 100 * i)), 2, 0);

        case_check(c, graph_geglu(c->graph, x), 2);
    }
}

static void test_moves(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct test_case *c = case_new(700 + (uint64_t)i);
        int a = case_input(c, shape4(2, 5, 4 + i, 24)), b, y;

        b = case_input(c, shape4(2, 5, 4 + i, 48 + i));
        y = graph_concat(c->graph, a, b);
        y = graph_slice(c->graph, y, 7, 30);
        y = graph_upsample2x(c->graph, y, 10 - i % 2, 2 * (4 + i) - i / 2 % 2);
        case_check(c, i % 2 ? y : graph_add(c->graph, y, y), 1);
    }
}

static void test_embedding(void **state)
{
    struct test_case *c = case_new(750);
    int ids = case_ids(c, shape2(2, 7), 50);
    const struct weight *table = case_weight(c, 2, 50, 48, 1, 1);
    const struct weight *positions = case_weight(c, 2, 9, 48, 1, 1);

    (void)state;
    case_check(c, graph_embedding(c->graph, ids, "embed", table, positions), 1);
}

/* ids up to 49 for a table of 40: the last ten are rows of the caller's */
static void test_embedding_own_rows(void **state)
{
    struct test_case *c = case_new(755);
    int ids = case_ids(c, shape2(2, 7), 50), own = case_input(c, shape2(10, 48));
    const struct weight *table = case_weight(c, 2, 40, 48, 1, 1);
    const struct weight *positions = case_weight(c, 2, 9, 48, 1, 1);

    (void)state;
    graph_own_rows(c->graph, ids, own);
    case_check(c, graph_embedding(c->graph, ids, "embed", table, positions), 1);
}

static void test_timestep(void **state)
{
    struct test_case *c = case_new(760);
    int t = case_input_of(c, shape1(3), 200, 500);

    (void)state;
    case_check(c, graph_timestep(c->graph, t, 320), 1);
}

/* ---- whole blocks ---- */

static int norm_silu(struct test_case *c, int x, int channels)
{
    int y = graph_group_norm(c->graph, x, "norm", case_gamma(c, channels),
                             case_weight(c, 1, channels, 1, 1, 1), 8, 1e-5f);

    return graph_activate(c->graph, y, ACT_SILU);
}

static void test_residual_block(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        int in = i ? 96 : 48, out = 48;
        struct conv_shape s = {2, 7, 9, in, out, 3, 1, 1, 0};
        struct test_case *c = case_new(800 + (uint64_t)i);
        int x = case_input(c, shape4(2, 7, 9, in)), skip = x, y;
        int time = case_input(c, shape2(i == 2 ? 2 : 1, out));

        y = conv_of(c, norm_silu(c, x, in), &s);
        y = norm_silu(c, graph_add(c->graph, y, time), out);
        s.in = out;
        y = conv_of(c, y, &s);
        if (in != out)
            skip = conv_of(c, x, &(struct conv_shape){2, 7, 9, in, out, 1, 1, 0, 0});
        case_check(c, graph_add(c->graph, skip, y), 7);
    }
}

static int plain_linear(struct test_case *c, int x, int in, int out)
{
    return graph_linear(c->graph, x, "linear", case_weight(c, 2, out, in, 1, 1),
                        case_weight(c, 1, out, 1, 1, 1));
}

static int layer_norm_of(struct test_case *c, int x, int channels)
{
    return graph_layer_norm(c->graph, x, "norm", case_gamma(c, channels),
                            case_weight(c, 1, channels, 1, 1, 1), 1e-5f);
}

static void test_transformer_block(void **state)
{
    enum { C = 80, HEADS = 2, TOKENS = 63, WORDS = 77 };
    struct test_case *c = case_new(850);
    struct graph *g = c->graph;
    struct attention_args args = {.heads = HEADS};
    int x = case_input(c, shape4(2, 7, 9, C)),
        words = case_input(c, shape3(2, WORDS, 96));
    int y, n;

    (void)state;
    y = graph_reshape(g, x, shape3(2, TOKENS, C));
    n = layer_norm_of(c, y, C);
    n = graph_attention(g, plain_linear(c, n, C, C), plain_linear(c, n, C, C),
                        plain_linear(c, n, C, C), "self", &args);
    y = graph_add(g, y, plain_linear(c, n, C, C));
    n = plain_linear(c, layer_norm_of(c, y, C), C, C);
    n = graph_attention(g, n, plain_linear(c, words, 96, C),
                        plain_linear(c, words, 96, C), "cross", &args);
    y = graph_add(g, y, plain_linear(c, n, C, C));
    n = graph_geglu(g, plain_linear(c, layer_norm_of(c, y, C), C, 8 * C));
    y = graph_add(g, y, plain_linear(c, n, 4 * C, C));
    case_check(c, graph_reshape(g, y, shape4(2, 7, 9, C)), 8);
}

/* The borders of a seamless picture, also in front of what would have been upsampled while it is read. */
static void test_wrapped_block(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct test_case *c = case_new(860 + (uint64_t)i);
        struct conv_shape s = {2, 8, 6, 48, 48, 3, 1, 1, 0};
        int x = case_input(c, shape4(2, 8, 6, 48)), y;

        graph_wrap(c->graph, i != 1, i != 2);
        y = graph_add(c->graph, x, conv_of(c, norm_silu(c, x, 48), &s));
        y = conv_of(c, graph_upsample2x(c->graph, y, 16, 12), &s);
        case_check(c, y, 5);
    }
}

/* Every pass over memory at a size that is worth several threads (small ones take one). */
static void test_several_threads(void **state)
{
    enum { C = 32, SIDE = 96 };
    struct test_case *c = case_new(870);
    struct graph *g = c->graph;
    int x = case_input(c, shape4(2, SIDE, SIDE, C)), y, z;

    (void)state;
    y = conv_of(c, x, &(struct conv_shape){2, SIDE, SIDE, C, C, 3, 1, 1, 0});
    y = norm_silu(c, y, C);
    y = graph_reshape(g, y, shape3(2, SIDE * SIDE, C));
    y = layer_norm_of(c, y, C);
    z = graph_geglu(g, y);
    z = graph_concat(g, z, z);
    z = graph_slice(g, graph_concat(g, y, z), 7, C);
    y = graph_add(g, graph_activate(g, z, ACT_GELU), y);
    y = graph_reshape(g, y, shape4(2, SIDE, SIDE, C));
    case_check(c, graph_add(g, y, case_input(c, shape2(2, C))), 9);
}

/* ---- the store, and being stopped ---- */

static struct graph *small_model(struct test_case *c, int size,
                                 const struct weight *const w[3])
{
    struct graph *g = graph_new("model");
    struct conv_args args = {.stride = 1, .pad = 1};
    int x = graph_input(g, "x", TENSOR_F32, shape4(1, size, size, 48));

    (void)c;
    x = graph_conv2d(g, x, "conv", w[0], w[1], &args);
    graph_output(g, "y", TENSOR_F32, graph_linear(g, x, "linear", w[2], NULL));
    return g;
}

static bool is_the_one(void *user, const struct weight *weight)
{
    return weight == user;
}

static void test_programs_share_weights(void **state)
{
    struct test_case *c = case_new(900);
    const struct weight *w[] = {case_weight(c, 4, 64, 48, 3, 3),
                                case_weight(c, 1, 64, 1, 1, 1),
                                case_weight(c, 2, 96, 64, 1, 1)};
    struct graph *small = small_model(c, 8, w), *large = small_model(c, 16, w);
    struct backend *b;
    struct weight_store *store;
    struct program *first, *second;
    const struct weight_edit edit = {.touches = is_the_one,
                                     .user = (void *)(uintptr_t)w[0]};
    size_t bytes;

    (void)state;
    assert_int_equal(
        backend_open("dnnl", &(struct backend_options){.threads = 2}, &b, NULL), 0);
    store = b->ops->store_new(b, STORE_AS_COMPUTED);
    assert_int_equal(b->ops->compile(b, small, store, &first, NULL), 0);
    assert_true(b->ops->missing_bytes(first) > 0);
    assert_int_equal(b->ops->missing_bytes(first), first->weight_bytes);
    /* the largest weight, plain, and what an edit makes of one in f32 */
    assert_true(b->ops->packing_bytes(first, NULL) >= 64 * 48 * 9 * b->act_bytes);
    assert_true(b->ops->packing_bytes(first, &edit) >=
                b->ops->packing_bytes(first, NULL) + 64 * 48 * 9 * sizeof(float));
    assert_int_equal(b->ops->store_bytes(store), 0);
    assert_int_equal(b->ops->load(first, NULL, NULL), 0);
    assert_int_equal(b->ops->missing_bytes(first), 0);
    assert_int_equal(b->ops->packing_bytes(first, NULL), 0);
    assert_true(b->ops->packing_bytes(first, &edit) > 0);
    bytes = b->ops->store_bytes(store);
    assert_int_equal(bytes, first->weight_bytes);
    assert_int_equal(b->ops->compile(b, large, store, &second, NULL), 0);
    /* another size: nothing is packed twice unless oneDNN insists on another layout, and
     * then what it adds was announced */
    bytes += b->ops->missing_bytes(second);
    assert_int_equal(b->ops->load(second, NULL, NULL), 0);
    assert_int_equal(b->ops->store_bytes(store), bytes);
    assert_true(second->arena_bytes > first->arena_bytes);
    b->ops->program_free(first);
    assert_int_equal(b->ops->compile(b, small, store, &first, NULL), 0);
    assert_int_equal(b->ops->missing_bytes(first), 0);
    b->ops->program_free(first);
    b->ops->program_free(second);
    b->ops->store_free(store);
    backend_close(b);
    graph_free(small);
    graph_free(large);
    case_free(c);
}

static bool stop_at_second(void *user)
{
    return ++*(int *)user == 2;
}

static void test_cancel(void **state)
{
    struct test_case *c = case_new(910);
    const struct weight *w[] = {case_weight(c, 4, 64, 48, 3, 3),
                                case_weight(c, 1, 64, 1, 1, 1),
                                case_weight(c, 2, 96, 64, 1, 1)};
    struct graph *g = small_model(c, 8, w);
    struct backend *b;
    struct weight_store *store;
    struct program *p;
    struct err err = {0};
    int asked = 0;
    float *x = aligned_alloc(64, 8 * 8 * 48 * 4),
          *y = aligned_alloc(64, 8 * 8 * 96 * 4);

    (void)state;
    assert_int_equal(
        backend_open("dnnl", &(struct backend_options){.threads = 1}, &b, NULL), 0);
    store = b->ops->store_new(b, STORE_AS_COMPUTED);
    assert_int_equal(b->ops->compile(b, g, store, &p, NULL), 0);
    assert_int_equal(b->ops->load(p, NULL, NULL), 0);
    memset(x, 0, 8 * 8 * 48 * 4);
    void *arena = aligned_alloc(64, p->arena_bytes);
    struct program_run run = {.arena = arena,
                              .inputs = (void *[]){x},
                              .outputs = (void *[]){y},
                              .is_cancelled = stop_at_second,
                              .user = &asked};
    assert_int_equal(b->ops->run(p, &run, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(asked, 2);
    free(arena);
    free(x);
    free(y);
    b->ops->program_free(p);
    b->ops->store_free(store);
    backend_close(b);
    graph_free(g);
    case_free(c);
}

/* Asked before each weight, when all but those before it are still missing: that is what a load's progress is told by. */
struct loading {
    const struct program *program;
    size_t missing;
    int asked;
};

static bool see_progress(void *user)
{
    struct loading *l = user;
    size_t missing = l->program->backend->ops->missing_bytes(l->program);

    assert_true(missing > 0);
    assert_true(l->asked == 0 ? missing == l->missing : missing < l->missing);
    l->missing = missing;
    l->asked++;
    return false;
}

static void test_load_progresses(void **state)
{
    struct test_case *c = case_new(930);
    const struct weight *w[] = {case_weight(c, 4, 64, 48, 3, 3),
                                case_weight(c, 1, 64, 1, 1, 1),
                                case_weight(c, 2, 96, 64, 1, 1)};
    struct graph *g = small_model(c, 8, w);
    struct backend *b;
    struct weight_store *store;
    struct loading loading = {0};
    struct stop stop = {.is_cancelled = see_progress, .user = &loading};
    int asked = 0;
    struct stop early = {.is_cancelled = stop_at_second, .user = &asked};
    struct err err = {0};
    struct program *p;

    (void)state;
    assert_int_equal(
        backend_open("dnnl", &(struct backend_options){.threads = 1}, &b, NULL), 0);
    store = b->ops->store_new(b, STORE_AS_COMPUTED);
    assert_int_equal(b->ops->compile(b, g, store, &p, NULL), 0);
    /* one weight is packed by then; nothing of it stays */
    assert_int_equal(b->ops->load(p, &early, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(b->ops->store_bytes(store), 0);
    assert_int_equal(b->ops->missing_bytes(p), p->weight_bytes);
    loading = (struct loading){p, p->weight_bytes, 0};
    assert_int_equal(b->ops->load(p, &stop, NULL), 0);
    assert_true(loading.asked > 1);
    assert_int_equal(b->ops->missing_bytes(p), 0);
    b->ops->program_free(p);
    b->ops->store_free(store);
    backend_close(b);
    graph_free(g);
    case_free(c);
}

/* Packing a kernel needs a temporary: when there is none, the store is as it was. */
static void test_load_without_memory(void **state)
{
    struct test_case *c = case_new(920);
    const struct weight *w[] = {case_weight(c, 4, 64, 48, 3, 3),
                                case_weight(c, 1, 64, 1, 1, 1),
                                case_weight(c, 2, 96, 64, 1, 1)};
    struct graph *g = small_model(c, 8, w);
    struct backend *b;
    struct weight_store *store;
    struct program *p;

    (void)state;
    assert_int_equal(
        backend_open("dnnl", &(struct backend_options){.threads = 1}, &b, NULL), 0);
    store = b->ops->store_new(b, STORE_AS_COMPUTED);
    assert_int_equal(b->ops->compile(b, g, store, &p, NULL), 0);
    for (unsigned nth = 1; nth <= 2; nth++) {
        struct err err = {0};

        mem_fail_after(nth);
        assert_int_equal(b->ops->load(p, NULL, &err), -1);
        mem_fail_after(0);
        assert_int_equal(err.code, ERR_NO_MEMORY);
        assert_int_equal(b->ops->store_bytes(store), 0);
        assert_int_equal(b->ops->missing_bytes(p), p->weight_bytes);
    }
    assert_int_equal(b->ops->load(p, NULL, NULL), 0);
    assert_int_equal(b->ops->missing_bytes(p), 0);
    b->ops->program_free(p);
    b->ops->store_free(store);
    backend_close(b);
    graph_free(g);
    case_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_fused),
        cmocka_unit_test(test_linear_joined),
        cmocka_unit_test(test_linear_of_halves),
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_conv_fused),
        cmocka_unit_test(test_conv_of_upsampled),
        cmocka_unit_test(test_linear_of_bytes),
        cmocka_unit_test(test_conv_of_bytes),
        cmocka_unit_test(test_upsampled_of_bytes),
        cmocka_unit_test(test_not_of_bytes),
        cmocka_unit_test(test_store_of_bytes),
        cmocka_unit_test(test_linear_in_pieces),
        cmocka_unit_test(test_window_in_one_piece),
        cmocka_unit_test(test_conv_in_pieces),
        cmocka_unit_test(test_upsampled_in_pieces),
        cmocka_unit_test(test_group_norm),
        cmocka_unit_test(test_prelu),
        cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_joined),
        cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_geglu),
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_embedding_own_rows),
        cmocka_unit_test(test_timestep),
        cmocka_unit_test(test_residual_block),
        cmocka_unit_test(test_transformer_block),
        cmocka_unit_test(test_wrapped_block),
        cmocka_unit_test(test_several_threads),
        cmocka_unit_test(test_programs_share_weights),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_load_progresses),
        cmocka_unit_test(test_load_without_memory),
    };

    return RUN_TESTS(tests);
}

/* The reference back end, operation by operation, against the formulas written out in
 * double, on shapes drawn at random from a fixed seed; and fused plans against plain
 * ones. Tolerance: 1e-5 of the largest expected value, for sums of at most 600 products
 * in f32. */
#include "base/mem.h"
#include "engine/graph/backend.h"

#include "unit.h"

#include <math.h>
#include <string.h>

/* ---- random things ---- */

static uint64_t random_state = 1;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(random_state >> 33);
}

static int64_t between(int64_t low, int64_t high)
{
    return low + random_u32() % (high - low + 1);
}

static float *numbers(int64_t count)
{
    float *values = aligned_alloc(64, (size_t)(count * 4 + 63) / 64 * 64);

    for (int64_t i = 0; i < count; i++)
        values[i] = (float)random_u32() / 1073741824.0F - 1;
    return values;
}

static struct weight make_weight(int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    struct weight w = {
        .name = "w", .type = WEIGHT_F32, .rank = rank, .dim = {a, b, c, d}};

    w.bytes = (size_t)(a * b * c * d * 4);
    w.data = (const unsigned char *)numbers(a * b * c * d);
    return w;
}

static double value_at(const struct weight *w, int64_t i)
{
    return (double)((const float *)(const void *)w->data)[i];
}

static void free_weight(struct weight *w)
{
    free((void *)(uintptr_t)w->data);
}

/* ---- running ---- */

/* Runs g (freed here) on inputs; its one output has `count` numbers. */
static float *run(struct graph *g, void *const *inputs, int64_t count,
                  enum plan_fusing fusing)
{
    struct backend_options options = {.threads = (int)between(1, 3), .fusing = fusing};
    float *output = numbers(count);
    void *outputs[] = {output};
    struct program_run how = {.inputs = inputs, .outputs = outputs};
    struct weight_store *store;
    struct backend *backend;
    struct program *program;
    struct err err = {0};

    if (graph_check(g, &err) || backend_open("ref", &options, &backend, &err))
        fail_msg("%s", err.message);
    store = backend->ops->store_new(backend, STORE_AS_COMPUTED);
    assert_int_equal(backend->ops->compile(backend, g, store, &program, &err), 0);
    assert_int_equal(backend->ops->store_bytes(store), 0);
    assert_int_equal(backend->ops->missing_bytes(program), program->weight_bytes);
    assert_int_equal(backend->ops->load(program, NULL, &err), 0);
    assert_int_equal(backend->ops->store_bytes(store), program->weight_bytes);
    how.arena = aligned_alloc(64, program->arena_bytes + 64);
    memset(how.arena, 0xff, program->arena_bytes);
    if (backend->ops->run(program, &how, &err))
        fail_msg("%s", err.message);
    free(how.arena);
    backend->ops->program_free(program);
    backend->ops->store_free(store);
    backend_close(backend);
    return output;
}

static void expect(const float *got, const double *expected, int64_t count,
                   const char *what)
{
    double largest = 1e-30, difference = 0;

    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(expected[i]));
        difference = isfinite(got[i])
                         ? fmax(difference, fabs((double)got[i] - expected[i]))
                         : (double)INFINITY;
    }
    if (!(difference <= 1e-5 * largest))
        fail_msg("%s: off by %g, largest value %g", what, difference, largest);
}

static struct graph *finish(struct graph *g, int y)
{
    graph_output(g, "y", TENSOR_F32, y);
    return g;
}

/* ---- products ---- */

static void one_conv(void)
{
    int64_t n = between(1, 2), high = between(3, 9), wide = between(3, 9),
            in = between(1, 40);
    int64_t out = between(1, 50), size = 2 * between(0, 1) + 1;
    struct conv_args args = {(int)between(1, 2), (int)between(0, 2),
                             (int)between(0, 1)};
    struct weight w = make_weight(4, out, in, size, size),
                  b = make_weight(1, out, 1, 1, 1);
    float *x = numbers(n * high * wide * in), *got;
    struct graph *g = graph_new("conv");
    int y = graph_conv2d(g, graph_input(g, "x", TENSOR_F32, shape4(n, high, wide, in)),
                         "c", &w, &b, &args);
    struct shape s = *graph_shape(g, y);
    double *expected = mem_alloc((size_t)shape_elements(&s) * sizeof(*expected));

    for (int64_t i = 0; i < shape_elements(&s); i++) {
        int64_t o = i % out, ox = i / out % s.dim[2],
                oy = i / out / s.dim[2] % s.dim[1];
        int64_t picture = i / out / s.dim[2] / s.dim[1];

        expected[i] = value_at(&b, o);
        for (int64_t ky = 0; ky < size; ky++)
            for (int64_t kx = 0; kx < size; kx++)
                for (int64_t c = 0; c < in; c++) {
                    int64_t iy = oy * args.stride + ky - args.pad,
                            ix = ox * args.stride + kx - args.pad;

                    if (iy >= 0 && iy < high && ix >= 0 && ix < wide)
                        expected[i] +=
                            value_at(&w, ((o * in + c) * size + ky) * size + kx) *
                            (double)x[((picture * high + iy) * wide + ix) * in + c];
                }
    }
    finish(g, y);
    got = run(g, (void *[]){x}, shape_elements(&s), PLAN_FUSE);
    expect(got, expected, shape_elements(&s), "conv2d");
    graph_free(g);
    free(got);
    free(x);
    free(expected);
    free_weight(&w);
    free_weight(&b);
}

static void test_conv(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++)
        one_conv();
}

static void one_linear(void)
{
    int64_t rows = between(1, 90), in = between(1, 600), first = between(1, 300);
    int64_t second = between(1, 40), out = first + second;
    struct weight w[] = {make_weight(2, first, in, 1, 1),
                         make_weight(4, second, in, 1, 1)};
    struct weight b = make_weight(1, second, 1, 1, 1);
    const struct weight *weights[] = {&w[0], &w[1]}, *biases[] = {NULL, &b};
    float *x = numbers(rows * in), *got;
    double *expected = mem_alloc((size_t)(rows * out) * sizeof(*expected));
    struct graph *g = graph_new("linear");

    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = o < first ? 0 : value_at(&b, o - first);

            for (int64_t i = 0; i < in; i++)
                sum += (o < first ? value_at(&w[0], o * in + i)
                                  : value_at(&w[1], (o - first) * in + i)) *
                       (double)x[r * in + i];
            expected[r * out + o] = sum;
        }
    }
    finish(g, graph_linear_joined(g, graph_input(g, "x", TENSOR_F32, shape2(rows, in)),
                                  "l", weights, biases, 2));
    got = run(g, (void *[]){x}, rows * out, PLAN_FUSE);
    expect(got, expected, rows * out, "linear");
    graph_free(g);
    free(got);
    free(x);
    free(expected);
    free_weight(&w[0]);
    free_weight(&w[1]);
    free_weight(&b);
}

static void test_linear(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        one_linear();
}

/* ---- norms ---- */

static void normalise(const float *x, const int64_t *at, int64_t count, double eps,
                      double *ret_mean, double *ret_scale)
{
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < count; i++)
        sum += (double)x[at[i]];
    *ret_mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++)
        squares += pow((double)x[at[i]] - *ret_mean, 2);
    *ret_scale = 1 / sqrt(squares / (double)count + eps);
}

/* groups 0: a layer norm */
static void one_norm(int groups)
{
    int64_t n = between(1, 2), high = between(1, 5), wide = between(1, 5);
    int64_t channels = groups ? groups * between(1, 9) : between(2, 300),
            pixels = high * wide;
    int64_t count = n * pixels * channels, each = groups ? channels / groups : channels;
    struct weight gamma = make_weight(1, channels, 1, 1, 1),
                  beta = make_weight(1, channels, 1, 1, 1);
    float *x = numbers(count), *got;
    double *expected = mem_alloc((size_t)count * sizeof(*expected)), mean = 0,
           scale = 0;
    int64_t *at = mem_alloc((size_t)(pixels * channels) * sizeof(*at));
    struct graph *g = graph_new("norm");
    int input = graph_input(g, "x", TENSOR_F32, shape4(n, high, wide, channels));

    for (int64_t i = 0; i < count; i++)
        x[i] += 100; /* a mean that E[x^2] - E[x]^2 would drown in */
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i % channels, picture = i / channels / pixels, members = 0;

        for (int64_t p = 0; p < (groups ? pixels : 1); p++)
            for (int64_t k = 0; k < each; k++)
                at[members++] =
                    groups ? (picture * pixels + p) * channels + c / each * each + k
                           : i / channels * channels + k;
        normalise(x, at, members, 1e-5, &mean, &scale);
        expected[i] =
            ((double)x[i] - mean) * scale * value_at(&gamma, c) + value_at(&beta, c);
    }
    finish(g, groups ? graph_group_norm(g, input, "n", &gamma, &beta, groups, 1e-5F)
                     : graph_layer_norm(g, input, "n", &gamma, &beta, 1e-5F));
    got = run(g, (void *[]){x}, count, PLAN_FUSE);
    expect(got, expected, count, groups ? "group_norm" : "layer_norm");
    graph_free(g);
    free(got);
    free(x);
    free(expected);
    free(at);
    free_weight(&gamma);
    free_weight(&beta);
}

static void test_norms(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        one_norm((int)between(1, 8));
        one_norm(0);
    }
}

/* ---- attention, with q, k and v as views of one tensor ---- */

static void one_attention(bool is_causal)
{
    int64_t n = between(1, 2), tokens = between(1, 40), size = between(1, 40),
            heads = between(1, 4);
    int64_t width = heads * size;
    float *x = numbers(n * tokens * 3 * width), *got;
    double *expected = mem_zalloc((size_t)(n * tokens * width) * sizeof(*expected));
    double *score = mem_alloc((size_t)tokens * sizeof(*score));
    struct graph *g = graph_new("attention");
    int qkv = graph_input(g, "x", TENSOR_ACT, shape3(n, tokens, 3 * width));
    struct attention_args args = {(int)heads, is_causal};

    for (int64_t row = 0; row < n * tokens * heads; row++) {
        int64_t head = row % heads, i = row / heads % tokens,
                picture = row / heads / tokens;
        const float *base = x + picture * tokens * 3 * width + head * size;
        double sum = 0, *y = expected + (picture * tokens + i) * width + head * size;
        int64_t seen = is_causal ? i + 1 : tokens;

        for (int64_t j = 0; j < seen; j++) {
            double dot = 0;

            for (int64_t c = 0; c < size; c++)
                dot += (double)base[i * 3 * width + c] *
                       (double)base[j * 3 * width + width + c];
            sum += score[j] = exp(dot / sqrt((double)size));
        }
        for (int64_t j = 0; j < seen; j++)
            for (int64_t c = 0; c < size; c++)
                y[c] += score[j] / sum * (double)base[j * 3 * width + 2 * width + c];
    }
    finish(g, graph_attention(g, graph_slice(g, qkv, 0, width),
                              graph_slice(g, qkv, width, width),
                              graph_slice(g, qkv, 2 * width, width), "a", &args));
    got = run(g, (void *[]){x}, n * tokens * width, PLAN_FUSE);
    expect(got, expected, n * tokens * width, "attention");
    graph_free(g);
    free(got);
    free(x);
    free(expected);
    free(score);
}

static void test_attention(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++)
        one_attention(i & 1);
}

/* ---- element by element ---- */

static double activated(enum activation act, double x)
{
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ACT_LEAKY_RELU:
        return x < 0 ? x / 5 : x;
    case ACT_FIFTH:
        return x / 5;
    case ACT_RELU:
        return x < 0 ? 0 : x;
    case ACT_SOFT_CLAMP:
        return 3 * tanh(x / 3);
    case ACT_TO_UNIT:
        return (x + 1) / 2;
    case ACT_TO_SIGNED:
        return 2 * x - 1;
    default:
        return x;
    }
}

static void test_activations(void **state)
{
    enum { COUNT = 777 };
    double expected[COUNT];

    (void)state;
    for (int act = ACT_SILU; act <= ACT_TO_SIGNED; act++) {
        struct graph *g = graph_new("act");
        float *x = numbers(COUNT), *got;

        for (int i = 0; i < COUNT; i++) {
            x[i] *= 8;
            expected[i] = activated((enum activation)act, (double)x[i]);
        }
        finish(g,
               graph_activate(g, graph_input(g, "x", TENSOR_F32, shape2(7, COUNT / 7)),
                              (enum activation)act));
        got = run(g, (void *[]){x}, COUNT, PLAN_FUSE);
        expect(got, expected, COUNT, "activation");
        graph_free(g);
        free(got);
        free(x);
    }
}

static void test_prelu(void **state)
{
    enum { ROWS = 111, COLS = 7, COUNT = ROWS * COLS };
    struct weight slopes = make_weight(1, COLS, 1, 1, 1);
    double expected[COUNT];
    struct graph *g = graph_new("prelu");
    float *x = numbers(COUNT), *got;

    (void)state;
    for (int i = 0; i < COUNT; i++)
        expected[i] = (double)x[i] * (x[i] < 0 ? value_at(&slopes, i % COLS) : 1);
    finish(g, graph_prelu(g, graph_input(g, "x", TENSOR_F32, shape2(ROWS, COLS)), "p",
                          &slopes));
    got = run(g, (void *[]){x}, COUNT, PLAN_FUSE);
    expect(got, expected, COUNT, "prelu");
    graph_free(g);
    free(got);
    free(x);
    free_weight(&slopes);
}

static void test_moves(void **state)
{
    /* x [2, 3, 3, 4]; geglu, concat, slice, upsample to an odd size, channel add */
    struct graph *g = graph_new("moves");
    float *x = numbers(2 * 3 * 3 * 4), *add = numbers(2 * 6), *got;
    int in = graph_input(g, "x", TENSOR_F32, shape4(2, 3, 3, 4)), y;
    double expected[2 * 5 * 6 * 5];

    (void)state;
    y = graph_concat(g, graph_geglu(g, in), in); /* 6 */
    y = graph_add(g, y, graph_input(g, "add", TENSOR_F32, shape2(2, 6)));
    y = graph_slice(g, graph_upsample2x(g, y, 5, 6), 1, 5);
    finish(g, y);
    for (int i = 0; i < 2 * 5 * 6 * 5; i++) {
        int c = i % 5 + 1, wide = i / 5 % 6, high = i / 30 % 5, n = i / 150;
        const float *pixel = x + ((n * 3 + high / 2) * 3 + wide / 2) * 4;

        expected[i] =
            (c < 2 ? (double)pixel[c] * activated(ACT_GELU, (double)pixel[c + 2])
                   : (double)pixel[c - 2]) +
            (double)add[n * 6 + c];
    }
    got = run(g, (void *[]){x, add}, 2 * 5 * 6 * 5, PLAN_FUSE);
    expect(got, expected, 2 * 5 * 6 * 5, "moves");
    graph_free(g);
    free(got);
    free(x);
    free(add);
}

static void test_own_rows(void **state)
{
    struct weight table = make_weight(2, 5, 300, 1, 1);
    int32_t *ids = aligned_alloc(64, 64);
    float *own = aligned_alloc(64, 3 * 320 * sizeof(*own)), *got;
    double expected[8 * 300];
    struct graph *g = graph_new("own rows");
    int in, rows;

    (void)state;
    for (int i = 0; i < 8; i++) /* 0 to 7: five of the table, three of our own */
        ids[i] = i;
    for (int i = 0; i < 3 * 300; i++)
        own[i] = (float)between(-9, 9);
    for (int i = 0; i < 8 * 300; i++)
        expected[i] = i < 5 * 300 ? value_at(&table, i) : (double)own[i - 5 * 300];
    in = graph_input(g, "ids", TENSOR_I32, shape2(2, 4));
    rows = graph_input(g, "rows", TENSOR_F32, shape2(3, 300));
    graph_own_rows(g, in, rows);
    finish(g, graph_embedding(g, in, "e", &table, NULL));
    got = run(g, (void *[]){ids, own}, 8 * 300, PLAN_FUSE);
    expect(got, expected, 8 * 300, "own rows");
    graph_free(g);
    free(got);

    g = graph_new("rows of another width");
    in = graph_input(g, "ids", TENSOR_I32, shape2(2, 4));
    graph_own_rows(g, in, graph_input(g, "rows", TENSOR_F32, shape2(3, 299)));
    assert_true(graph_embedding(g, in, "e", &table, NULL) < 0);
    graph_free(g);
    free(own);
    free(ids);
    free_weight(&table);
}

static void test_sources(void **state)
{
    struct weight table = make_weight(2, 50, 300, 1, 1),
                  positions = make_weight(2, 9, 300, 1, 1);
    int32_t *ids = aligned_alloc(64, 64);
    float *t = aligned_alloc(64, 64), *got;
    double expected[2 * 4 * 300];
    struct graph *g = graph_new("sources");

    (void)state;
    for (int i = 0; i < 8; i++)
        ids[i] = (int32_t)between(0, 49);
    for (int i = 0; i < 8 * 300; i++)
        expected[i] = value_at(&table, ids[i / 300] * 300 + i % 300) +
                      value_at(&positions, i / 300 % 4 * 300 + i % 300);
    finish(g, graph_embedding(g, graph_input(g, "ids", TENSOR_I32, shape2(2, 4)), "e",
                              &table, &positions));
    got = run(g, (void *[]){ids}, 8 * 300, PLAN_FUSE);
    expect(got, expected, 8 * 300, "embedding");
    graph_free(g);
    free(got);

    g = graph_new("timestep");
    t[0] = 999;
    t[1] = 0.25F;
    for (int i = 0; i < 2 * 320; i++) {
        double f = exp(-log(10000) * (i % 160) / 160);

        expected[i] =
            i % 320 < 160 ? cos((double)t[i / 320] * f) : sin((double)t[i / 320] * f);
    }
    finish(g, graph_timestep(g, graph_input(g, "t", TENSOR_F32, shape1(2)), 320));
    got = run(g, (void *[]){t}, 640, PLAN_FUSE);
    expect(got, expected, 640, "timestep");
    graph_free(g);
    free(got);
    free(t);
    free(ids);
    free_weight(&table);
    free_weight(&positions);
}

/* y [rows, columns] of a 3x3 convolution of x [H, W, 2] that wraps around in one direction or both; elsewhere are
 * zeros. */
static double wrapped(const float *x, const struct weight *k, const int64_t size[2],
                      const bool wraps[2], const int64_t at[2], int64_t o)
{
    double sum = 0;

    for (int64_t t = 0; t < 9; t++) {
        int64_t i[2] = {at[0] + t / 3 - 1, at[1] + t % 3 - 1};
        bool is_inside = true;

        for (int d = 0; d < 2; d++) {
            is_inside &= wraps[d] || (i[d] >= 0 && i[d] < size[d]);
            i[d] = (i[d] + size[d]) % size[d];
        }
        for (int64_t c = 0; is_inside && c < 2; c++)
            sum += (double)x[(i[0] * size[1] + i[1]) * 2 + c] *
                   value_at(k, (o * 2 + c) * 9 + t);
    }
    return sum;
}

static void test_wraps(void **state)
{
    static const bool directions[][2] = {{true, true}, {true, false}, {false, true}};
    static const int64_t size[2] = {4, 6};
    struct weight k = make_weight(4, 3, 2, 3, 3);
    float *x = numbers(4 * 6 * 2), *got;
    double expected[4 * 6 * 3];

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int64_t stride = 1; stride <= 2; stride++) {
            struct graph *g = graph_new("wraps");
            int in = graph_input(g, "x", TENSOR_F32, shape4(1, 4, 6, 2));
            int64_t count = 4 * 6 * 3 / stride / stride, wide = 6 / stride;

            graph_wrap(g, directions[i][0], directions[i][1]);
            finish(g, graph_conv2d(g, in, "c", &k, NULL,
                                   &(struct conv_args){(int)stride, 1, 0}));
            for (int64_t n = 0; n < count; n++)
                expected[n] = wrapped(
                    x, &k, size, directions[i],
                    (const int64_t[]){n / 3 / wide * stride, n / 3 % wide * stride},
                    n % 3);
            got = run(g, (void *[]){x}, count, PLAN_FUSE);
            expect(got, expected, count, "wraps");
            graph_free(g);
            free(got);
        }
    free(x);
    free_weight(&k);
}

static void test_wraps_no_further_than_there_is(void **state)
{
    struct weight k = make_weight(4, 1, 1, 7, 7);
    struct graph *g = graph_new("wraps");
    int x = graph_input(g, "x", TENSOR_F32, shape4(1, 2, 9, 1));
    struct err err = {0};

    (void)state;
    graph_wrap(g, true, true);
    graph_output(g, "y", TENSOR_F32,
                 graph_conv2d(g, x, "c", &k, NULL, &(struct conv_args){1, 3, 0}));
    assert_int_equal(graph_check(g, &err), -1);
    assert_non_null(strstr(err.message, "c: 2 x 9 is too small to wrap around"));
    graph_free(g);
    free_weight(&k);
}

/* ---- fused against plain ---- */

static struct graph *block(const struct weight *w, const struct weight *b,
                           const struct weight *k)
{
    struct graph *g = graph_new("block");
    int x = graph_input(g, "x", TENSOR_F32, shape4(2, 6, 5, 24)), h;
    int t = graph_input(g, "t", TENSOR_F32, shape2(1, 48));

    h = graph_activate(g, graph_group_norm(g, x, "n", b, b, 6, 1e-5F), ACT_SILU);
    h = graph_conv2d(g, h, "c", k, b, &(struct conv_args){1, 1, 0});
    h = graph_add(g, h, graph_slice(g, t, 24, 24));
    h = graph_activate(g, h, ACT_QUICK_GELU);
    h = graph_add(g, x, graph_linear(g, h, "l", w, b));
    h = graph_activate(g, h, ACT_GELU);
    h = graph_conv2d(g, graph_upsample2x(g, h, 12, 10), "c", k, NULL,
                     &(struct conv_args){1, 1, 0});
    h = graph_add(g, h, h);
    return finish(g, h);
}

static void test_fused_is_plain(void **state)
{
    struct weight w = make_weight(2, 24, 24, 1, 1), b = make_weight(1, 24, 1, 1, 1);
    struct weight k = make_weight(4, 24, 24, 3, 3);
    float *x = numbers(2 * 6 * 5 * 24), *t = numbers(48), *got[2];
    int64_t count = 2 * 12 * 10 * 24;
    double *expected = mem_alloc((size_t)count * sizeof(*expected));

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct graph *g = block(&w, &b, &k);

        got[i] = run(g, (void *[]){x, t}, count, i ? PLAN_PLAIN : PLAN_FUSE);
        graph_free(g);
    }
    for (int64_t i = 0; i < count; i++)
        expected[i] = (double)got[1][i];
    expect(got[0], expected, count, "fused");
    free(got[0]);
    free(got[1]);
    free(x);
    free(t);
    free(expected);
    free_weight(&w);
    free_weight(&b);
    free_weight(&k);
}

/* ---- cancelling, running too early ---- */

static bool after_three(void *user)
{
    return ++*(int *)user > 3;
}

static void test_cancels_between_operations(void **state)
{
    struct weight w = make_weight(2, 8, 8, 1, 1);
    struct graph *g = graph_new("cancel");
    int x = graph_input(g, "x", TENSOR_ACT, shape2(4, 8)), asked = 0;
    float *in = numbers(32), *out = numbers(32);
    void *inputs[] = {in}, *outputs[] = {out};
    struct program_run how = {.inputs = inputs, .outputs = outputs, .user = &asked};
    struct backend *backend;
    struct weight_store *store;
    struct program *program;
    struct err err = {0};

    (void)state;
    for (int i = 0; i < 10; i++)
        x = graph_linear(g, x, "l", &w, NULL);
    finish(g, x);
    assert_int_equal(
        backend_open("ref", &(struct backend_options){.threads = 1}, &backend, &err),
        0);
    store = backend->ops->store_new(backend, STORE_AS_COMPUTED);
    assert_int_equal(backend->ops->compile(backend, g, store, &program, &err), 0);
    how.arena = aligned_alloc(64, program->arena_bytes + 64);
    assert_int_equal(backend->ops->run(program, &how, &err), -1);
    assert_non_null(strstr(err.message, "before its weights"));
    assert_int_equal(backend->ops->load(program, NULL, &err), 0);
    how.is_cancelled = after_three;
    assert_int_equal(backend->ops->run(program, &how, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(asked, 4);
    backend->ops->program_free(program);
    backend->ops->store_free(store);

    /* memory runs out while packing: a sentence, and the store is as it was */
    store = backend->ops->store_new(backend, STORE_AS_COMPUTED);
    assert_int_equal(backend->ops->compile(backend, g, store, &program, &err), 0);
    mem_fail_after(1);
    assert_int_equal(backend->ops->load(program, NULL, &err), -1);
    mem_fail_after(0);
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_int_equal(backend->ops->store_bytes(store), 0);
    assert_int_equal(backend->ops->load(program, NULL, &err), 0);
    backend->ops->program_free(program);
    backend->ops->store_free(store);
    backend_close(backend);
    graph_free(g);
    free(how.arena);
    free(in);
    free(out);
    free_weight(&w);
}

static void test_names_of_backends(void **state)
{
    struct backend *backend;
    struct err err = {0};

    (void)state;
    assert_int_equal(backend_open("cuda", &(struct backend_options){0}, &backend, &err),
                     -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.message, "ref"));
    assert_int_equal(
        backend_open("ref", &(struct backend_options){.precision = PRECISION_BF16},
                     &backend, &err),
        -1);
    assert_non_null(strstr(err.message, "f32"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_prelu),
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_own_rows),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_wraps),
        cmocka_unit_test(test_wraps_no_further_than_there_is),
        cmocka_unit_test(test_fused_is_plain),
        cmocka_unit_test(test_cancels_between_operations),
        cmocka_unit_test(test_names_of_backends),
    };

    return RUN_TESTS(tests);
}

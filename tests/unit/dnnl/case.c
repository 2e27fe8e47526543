/* case: see case.h. How the tolerances come about.
 *
 * f32: both back ends add the same products in another order. A sum of K terms of size t has
 * a rounding error of about sqrt(K) 2^-24 t, and t sqrt(K) is the size of the result, so
 * the error is near 2^-24 of the typical result, whatever K; polynomials for exp and erf add
 * 2e-7. Sixty times that, 1e-5 of (the value + the root mean square), is allowed.
 *
 * bf16: every tensor between two operations is rounded to 8 significant bits, an error of at
 * most 2^-9 of the value. A rounding error of an input passes through a product like noise
 * and is of the same relative size in the result (root mean square), and errors of
 * n roundings in a row add up like n at worst. A single value may be hit by several times
 * the typical noise: 4 deviations of 2^-9 / sqrt(3) are near 2^-8. Hence n 2^-8 of (the value + root mean
 * square) for the largest error, and n 2^-9 for the root mean square of the errors.
 *
 * The arena is filled with not-a-number before each run, and bytes behind it are checked
 * afterwards: a step that reads what nobody wrote, or writes past its place, is found. */
#include "case.h"

#include "base/mem.h"

#include "unit.h"

#include <limits.h>
#include <math.h>

struct test_case *case_new(uint64_t seed)
{
    struct test_case *c = mem_zalloc(sizeof(*c));

    c->graph = graph_new("case");
    c->random = seed * 2654435761u + 1;
    return c;
}

void case_free(struct test_case *c)
{
    for (int i = 0; i < c->weight_count; i++)
        free((void *)(uintptr_t)c->weights[i].data);
    for (int i = 0; i < c->input_count; i++)
        free(c->inputs[i]);
    graph_free(c->graph);
    free(c);
}

static uint32_t next(struct test_case *c)
{
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(c->random >> 33);
}

static float to_bf16(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    u = (u + 0x8000u) & 0xffff0000u;
    memcpy(&x, &u, sizeof(u));
    return x;
}

/* the sum of four uniform numbers is near enough to normal */
float case_normal(struct test_case *c)
{
    float sum = 0;

    for (int i = 0; i < 4; i++)
        sum += (float)(next(c) & 0xffff) / 65536.0f - 0.5f;
    return to_bf16(sum * 1.7320508f);
}

int case_between(struct test_case *c, int a, int b)
{
    return a + (int)(next(c) % (uint32_t)(b - a + 1));
}

int case_input_of(struct test_case *c, struct shape shape, float scale, float offset)
{
    size_t n = (size_t)shape_elements(&shape);
    float *values = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);

    assert_true(c->input_count < CASE_INPUTS);
    for (size_t i = 0; i < n; i++)
        values[i] = to_bf16(case_normal(c) * scale + offset);
    c->input_elements[c->input_count] = n;
    c->inputs[c->input_count++] = values;
    return graph_input(c->graph, "x", TENSOR_F32, shape);
}

int case_input(struct test_case *c, struct shape shape)
{
    return case_input_of(c, shape, 1, 0);
}

int case_ids(struct test_case *c, struct shape shape, int limit)
{
    size_t n = (size_t)shape_elements(&shape);
    int32_t *ids = aligned_alloc(64, (n * sizeof(*ids) + 63) / 64 * 64);

    for (size_t i = 0; i < n; i++)
        ids[i] = case_between(c, 0, limit - 1);
    c->input_elements[c->input_count] = n;
    c->inputs[c->input_count++] = ids;
    return graph_input(c->graph, "ids", TENSOR_I32, shape);
}

static struct weight *new_weight(struct test_case *c, int rank, const int64_t *dim)
{
    struct weight *w = &c->weights[c->weight_count++];
    size_t n = 1;

    assert_true(c->weight_count < CASE_WEIGHTS);
    w->name = "w";
    w->type = WEIGHT_F32;
    w->rank = rank;
    for (int i = 0; i < 4; i++) {
        w->dim[i] = i < rank ? dim[i] : 1;
        n *= (size_t)w->dim[i];
    }
    w->bytes = n * sizeof(float);
    w->data = mem_alloc(w->bytes);
    return w;
}

const struct weight *case_weight(struct test_case *c, int rank, int64_t a, int64_t b,
                                 int64_t h, int64_t w)
{
    struct weight *made = new_weight(c, rank, (int64_t[]){a, b, h, w});
    float *values = (float *)(uintptr_t)made->data;
    size_t n = made->bytes / sizeof(float);
    float scale = rank == 1 ? 0.25f : 1.0f / sqrtf((float)n / (float)a);

    for (size_t i = 0; i < n; i++)
        values[i] = to_bf16(case_normal(c) * scale);
    return made;
}

const struct weight *case_gamma(struct test_case *c, int64_t channels)
{
    struct weight *made = new_weight(c, 1, &channels);
    float *values = (float *)(uintptr_t)made->data;

    for (int64_t i = 0; i < channels; i++)
        values[i] = to_bf16(1.0f + 0.25f * case_normal(c));
    return made;
}

/* Every second row is subnormal, which only a file's odd corners hold. */
const struct weight *case_halves(struct test_case *c, int64_t out, int64_t in)
{
    struct weight *made = new_weight(c, 2, (int64_t[]){out, in});
    uint16_t *values = (uint16_t *)(uintptr_t)made->data;

    made->type = WEIGHT_F16;
    made->bytes /= 2;
    for (int64_t i = 0; i < out * in; i++) {
        uint32_t limit =
            i / in % 2 ? 0x0400 : 0x3c01; /* below the least normal; up to 1 */

        values[i] = (uint16_t)(next(c) % limit | (next(c) & 1u) << 15);
    }
    return made;
}

/* ---- running and comparing ---- */

/* A run's questions whether it is cancelled; the one after `most` of them is answered with yes. */
struct questions {
    int asked, most;
};

static bool ask(void *user)
{
    struct questions *q = user;

    return ++q->asked > q->most;
}

/* Does it end with a result? Not when there are more than q->most questions. */
static bool run_program(struct program *program, struct test_case *c, float *result,
                        struct questions *q)
{
    enum { GUARD = 256 };
    struct err err = {0};
    unsigned char *arena =
        aligned_alloc(64, (program->arena_bytes + GUARD + 63) / 64 * 64);
    void *outputs[] = {result};

    memset(arena, 0xff, program->arena_bytes); /* not a number, in bf16 and f32 */
    memset(arena + program->arena_bytes, 0x5a, GUARD);
    q->asked = 0;
    if (program->backend->ops->run(program,
                                   &(struct program_run){.arena = arena,
                                                         .inputs = c->inputs,
                                                         .outputs = outputs,
                                                         .is_cancelled = ask,
                                                         .user = q},
                                   &err) &&
        (err.code != ERR_CANCELLED || q->asked <= q->most))
        fail_msg("run: %s", err.message);
    for (int i = 0; i < GUARD; i++)
        assert_int_equal(arena[program->arena_bytes + (size_t)i], 0x5a);
    free(arena);
    return q->asked <= q->most;
}

/* NULL: this processor has no such precision */
static float *results_of(struct test_case *c, const char *name,
                         const struct backend_options *options,
                         enum store_weights weights, size_t elements, int *ret_asked)
{
    struct err err = {0};
    struct backend *backend;
    struct weight_store *store;
    struct program *program;
    struct questions q = {.most = INT_MAX};
    float *result;

    if (backend_open(name, options, &backend, &err)) {
        assert_int_equal(options->precision, PRECISION_BF16);
        return NULL;
    }
    store = backend->ops->store_new(backend, weights);
    if (backend->ops->compile(backend, c->graph, store, &program, &err) ||
        backend->ops->load(program, NULL, &err))
        fail_msg("%s: %s", name, err.message);
    result = aligned_alloc(64, (elements * sizeof(float) + 63) / 64 * 64);
    for (int again = 0; again < 2; again++) /* nothing may survive in the arena */
        assert_true(run_program(program, c, result, &q));
    *ret_asked = q.asked;
    /* at the last question that is sure to come, and before. In long loops it depends on the time. */
    q.most = options->piece_operations > 0 ? q.asked : program->plan->node_count;
    while (--q.most > 0)
        assert_false(run_program(program, c, result, &q));
    q.most = INT_MAX;
    assert_true(run_program(program, c, result, &q));
    backend->ops->program_free(program);
    backend->ops->store_free(store);
    backend_close(backend);
    return result;
}

static void compare(const float *want, const float *have, size_t n, double largest,
                    double typical, const char *what)
{
    double squares = 0, errors = 0, rms;

    for (size_t i = 0; i < n; i++)
        squares += (double)want[i] * (double)want[i];
    rms = sqrt(squares / (double)n);
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)have[i] - (double)want[i]);

        if (!(error <= largest * (fabs((double)want[i]) + rms)))
            fail_msg("%s: element %zu of %zu is %g, ref has %g (rms %g), allowed %g",
                     what, i, n, (double)have[i], (double)want[i], rms,
                     largest * (fabs((double)want[i]) + rms));
        errors += error * error;
    }
    if (!(sqrt(errors / (double)n) <= typical * rms + 1e-30))
        fail_msg("%s: errors of %g on values of %g (rms), allowed %g", what,
                 sqrt(errors / (double)n), rms, typical * rms);
}

void case_check(struct test_case *c, int y, int roundings)
{
    static const struct {
        const char *what;
        struct backend_options options;
    } ways[] = {
        {"f32 fused", {3, PRECISION_F32, PLAN_FUSE, 0}},
        {"f32 plain", {1, PRECISION_F32, PLAN_PLAIN, 0}},
        {"bf16 fused", {3, PRECISION_BF16, PLAN_FUSE, 0}},
        {"bf16 plain", {2, PRECISION_BF16, PLAN_PLAIN, 0}},
    };
    struct err err = {0};
    size_t n;
    float *want;
    int asked;

    graph_output(c->graph, "y", TENSOR_F32, y);
    if (graph_check(c->graph, &err))
        fail_msg("graph: %s", err.message);
    n = (size_t)shape_elements(graph_shape(c->graph, y));
    want = results_of(c, "ref", &(struct backend_options){.threads = 1},
                      STORE_AS_COMPUTED, n, &asked);
    for (int i = 0; i < 4; i++) {
        float *have =
            results_of(c, "dnnl", &ways[i].options, STORE_AS_COMPUTED, n, &asked);
        double steps = ways[i].options.fusing == PLAN_FUSE ? roundings : roundings + 2;

        if (!have)
            continue;
        if (ways[i].options.precision == PRECISION_F32)
            compare(want, have, n, 1e-5, 2e-6, ways[i].what);
        else
            compare(want, have, n, steps / 256, steps / 512, ways[i].what);
        free(have);
    }
    free(want);
    case_free(c);
}

int case_check_pieces(struct test_case *c, int y)
{
    struct backend *newer;
    bool is_exact = !backend_open(
        "dnnl", &(struct backend_options){.precision = PRECISION_BF16}, &newer, NULL);
    struct err err = {0};
    int in_one, in_pieces = 0;
    size_t n;

    graph_output(c->graph, "y", TENSOR_F32, y);
    if (graph_check(c->graph, &err))
        fail_msg("graph: %s", err.message);
    n = (size_t)shape_elements(graph_shape(c->graph, y));
    for (int threads = 1; threads <= 3; threads += 2)
        for (int p = PRECISION_F32; p <= PRECISION_BF16; p++) {
            struct backend_options options = {.threads = threads,
                                              .precision = (enum backend_precision)p,
                                              .piece_operations = 1e15};
            float *whole =
                      results_of(c, "dnnl", &options, STORE_AS_COMPUTED, n, &in_one),
                  *pieces;

            if (!whole)
                continue;
            options.piece_operations = 1;
            pieces = results_of(c, "dnnl", &options, STORE_AS_COMPUTED, n, &in_pieces);
            compare(whole, pieces, n, is_exact ? 0 : 2e-6, 1e-6, "pieces");
            assert_true(in_pieces > in_one);
            free(whole);
            free(pieces);
        }
    if (is_exact)
        backend_close(newer);
    case_free(c);
    return in_pieces;
}

/* The rows of all matrices and kernels with enough inputs and outputs become what 255 steps leave of them. */
static void round_weights(struct test_case *c)
{
    for (int i = 0; i < c->weight_count; i++) {
        const struct weight *w = &c->weights[i];
        float *values = (float *)(uintptr_t)w->data;
        int64_t length = (int64_t)weight_count(w) / w->dim[0];

        if (w->rank < 2 || w->dim[0] < 16 || w->dim[1] < 16)
            continue;
        for (int64_t r = 0; r < w->dim[0]; r++, values += length) {
            float most = 0;

            for (int64_t k = 0; k < length; k++)
                most = fmaxf(most, fabsf(values[k]));
            for (int64_t k = 0; k < length; k++)
                values[k] = (float)(int)(values[k] / (most / 127) +
                                         copysignf(0.5F, values[k])) *
                            (most / 127);
        }
    }
}

void case_check_int8(struct test_case *c, int y, int roundings, double drift)
{
    struct err err = {0};
    float *want, *have[2];
    int asked;
    size_t n;

    graph_output(c->graph, "y", TENSOR_F32, y);
    if (graph_check(c->graph, &err))
        fail_msg("graph: %s", err.message);
    n = (size_t)shape_elements(graph_shape(c->graph, y));
    for (int p = 0; p < 2; p++) {
        struct backend_options options = {
            .threads = 1 + 2 * p, .precision = p ? PRECISION_BF16 : PRECISION_F32};

        have[p] = results_of(c, "dnnl", &options, STORE_INT8, n, &asked);
    }
    want = results_of(c, "ref", &(struct backend_options){.threads = 1},
                      STORE_AS_COMPUTED, n, &asked);
    compare(want, have[0], n, 4 * drift, drift, "int8 beside whole weights");
    if (roundings) {
        free(want);
        round_weights(c);
        want = results_of(c, "ref", &(struct backend_options){.threads = 1},
                          STORE_AS_COMPUTED, n, &asked);
        compare(want, have[0], n, 1e-5, 4e-6, "int8 with f32");
        if (have[1])
            compare(want, have[1], n, (roundings + 1) / 256.0, (roundings + 1) / 512.0,
                    "int8 with bf16");
    }
    free(want);
    free(have[0]);
    free(have[1]);
    case_free(c);
}

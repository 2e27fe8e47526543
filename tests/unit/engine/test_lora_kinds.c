/* The kinds of change that depend on the weight that they change (GLoRA, IA3, OFT, BOFT, a weight that is replaced), each
 * against its formula in double precision, and what is refused of them. */

#include "lora_case.h"
#include "unit.h"

#include <math.h>

#define BLOCK0 "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
#define STEM_Q BLOCK0 "attn1_to_q"
#define STEM_V BLOCK0 "attn1_to_v"
#define STEM_CONV "lora_unet_down_blocks_0_resnets_0_conv1"
#define OFT_Q "oft_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"

enum { R = 3, AREA = 9 };

/* ---- GLoRA ---- */

struct glora {
    const char *base, *stem;
    int64_t inputs, area, rows;
    bool is_old; /* A = a2 a1, B = b2 b1 */
};

static double value(const char *stem, const char *part, int64_t at)
{
    char name[300];

    snprintf(name, sizeof(name), "%s.%s.weight", stem, part);
    return made_value(name, at);
}

/* W A + B */
static double glora(const void *names, int64_t o, int64_t i, int64_t k)
{
    const struct glora *g = names;
    const char *const a[] = {g->is_old ? "a2" : "a1", g->is_old ? "a1" : "a2"};
    const char *const b[] = {g->is_old ? "b2" : "b1", g->is_old ? "b1" : "b2"};
    double sum = 0;

    for (int r = 0; r < R; r++)
        sum += value(g->stem, b[0], o * R + r) *
               value(g->stem, b[1], (r * g->inputs + i) * g->area + k);
    for (int64_t j = 0; j < g->inputs; j++)
        for (int r = 0; r < R; r++)
            sum += made_value(g->base, (o * g->inputs + j) * g->area + k) *
                   value(g->stem, a[0], j * R + r) *
                   value(g->stem, a[1], r * g->inputs + i);
    return sum;
}

static void test_glora(void **state)
{
    const struct glora linear = {Q, STEM_Q, I, 1, O, false};
    const struct glora old = {Q, STEM_Q, I, 1, O, true};
    const struct glora conv = {CONV, STEM_CONV, I, AREA, O, false};
    struct made m = {0}, n = {0}, p = {0};

    (void)state;
    PUT(&m, STEM_Q ".a1.weight", I, R);
    PUT(&m, STEM_Q ".a2.weight", R, I);
    PUT(&m, STEM_Q ".b1.weight", O, R);
    PUT(&m, STEM_Q ".b2.weight", R, I);
    made_scalar(&m, STEM_Q ".alpha", 1.5F);
    lora_expect(&m, Q, glora, &linear, 0.75 * 1.5 / R);
    PUT(&n, STEM_Q ".a1.weight", R, I);
    PUT(&n, STEM_Q ".a2.weight", I, R);
    PUT(&n, STEM_Q ".b1.weight", R, I);
    PUT(&n, STEM_Q ".b2.weight", O, R);
    lora_expect(&n, Q, glora, &old, 0.75);
    PUT(&p, STEM_CONV ".a1.weight", I, R, 1, 1);
    PUT(&p, STEM_CONV ".a2.weight", R, I, 1, 1);
    PUT(&p, STEM_CONV ".b1.weight", O, R, 1, 1);
    PUT(&p, STEM_CONV ".b2.weight", R, I, 3, 3);
    lora_expect(&p, CONV, glora, &conv, 0.75);
}

/* ---- IA3 ---- */

struct scales {
    const char *base, *name;
    int64_t inputs, area;
    bool of_inputs;
};

static double scaled(const void *names, int64_t o, int64_t i, int64_t k)
{
    const struct scales *s = names;

    return made_value(s->base, (o * s->inputs + i) * s->area + k) *
           made_value(s->name, s->of_inputs ? i : o);
}

static void test_ia3(void **state)
{
    const struct scales rows = {Q, STEM_Q ".weight", I, 1, false};
    const struct scales inputs = {CONV, STEM_CONV ".weight", I, AREA, true};
    struct made m = {0}, n = {0};

    (void)state;
    PUT(&m, STEM_Q ".weight", O);
    made_put(&m, STEM_Q ".on_input", "I64", 0, NULL);
    lora_expect(&m, Q, scaled, &rows, 0.75);
    PUT(&n, STEM_CONV ".weight", 1, I, 1, 1);
    made_scalar(&n, STEM_CONV ".on_input", 1);
    lora_expect(&n, CONV, scaled, &inputs, 0.75);
}

/* ---- a weight that is replaced, at any strength ---- */

static double replaced(const void *names, int64_t o, int64_t i, int64_t k)
{
    int64_t at = (o * I + i) * AREA + k;

    (void)names;
    return made_value(STEM_CONV ".set_weight", at) - made_value(CONV, at);
}

static void test_set_weight(void **state)
{
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_CONV ".set_weight", O, I, 3, 3);
    lora_expect(&m, CONV, replaced, NULL, 1);
}

/* ---- OFT, BOFT ---- */

enum { SIZE_MAX_HERE = 4 };

/* x [n, n] with x a = b, by elimination with pivots */
static void divide(const double *a, const double *b, int n, double *x)
{
    double t[SIZE_MAX_HERE][2 * SIZE_MAX_HERE]; /* a^T, b^T */

    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            t[i][j] = a[j * n + i];
            t[i][n + j] = b[j * n + i];
        }
    for (int p = 0; p < n; p++) {
        int best = p;

        for (int i = p; i < n; i++)
            best = fabs(t[i][p]) > fabs(t[best][p]) ? i : best;
        for (int j = 0; j < 2 * n; j++) {
            double swap = t[p][j];

            t[p][j] = t[best][j];
            t[best][j] = swap;
        }
        for (int i = 0; i < n; i++) {
            double by = i == p ? 0 : t[i][p] / t[p][p];

            for (int j = 0; j < 2 * n; j++)
                t[i][j] -= by * t[p][j];
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            x[j * n + i] = t[i][n + j] / t[i][i];
}

/* (I + Q) (I - Q)^-1, Q = by (S - S^T) */
static void rotation(const char *name, int64_t index, int n, double by, double *ret)
{
    double above[SIZE_MAX_HERE * SIZE_MAX_HERE], below[SIZE_MAX_HERE * SIZE_MAX_HERE];

    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double q = by * (made_value(name, index * n * n + i * n + j) -
                             made_value(name, index * n * n + j * n + i));

            above[i * n + j] = (i == j ? 1 : 0) + q;
            below[i * n + j] = (i == j ? 1 : 0) - q;
        }
    divide(below, above, n, ret);
}

struct turned {
    const char *blocks, *rescale;
    double by;
};

/* rows in threes; row m becomes the sum of R[n, m] times row n, as in "k n m, k n ..." */
static double oft(const void *names, int64_t o, int64_t i, int64_t k)
{
    const struct turned *t = names;
    double r[9], sum = 0;

    rotation(t->blocks, o / 3, 3, t->by, r);
    for (int n = 0; n < 3; n++)
        sum += r[n * 3 + o % 3] * made_value(Q, (o / 3 * 3 + n) * I + i);
    (void)k;
    return (t->rescale ? made_value(t->rescale, o) : 1) * sum -
           made_value(Q, o * I + i);
}

/* |Q| over all matrices */
static double length_of(const char *name, int count, int n)
{
    double sum = 0;

    for (int b = 0; b < count; b++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                sum += pow(made_value(name, (b * n + i) * n + j) -
                               made_value(name, (b * n + j) * n + i),
                           2);
    return sqrt(sum);
}

static void test_oft(void **state)
{
    const struct turned plain = {STEM_Q ".oft_blocks", STEM_Q ".rescale", 1};
    struct turned bound = {OFT_Q ".oft_blocks", NULL, 0};
    struct made m = {0}, n = {0};

    (void)state;
    PUT(&m, STEM_Q ".oft_blocks", 3, 3, 3);
    PUT(&m, STEM_Q ".rescale", O, 1);
    lora_expect(&m, Q, oft, &plain, 0.75);
    bound.by = 0.125 * O / length_of(bound.blocks, 3, 3);
    assert_true(bound.by < 1);
    PUT(&n, OFT_Q ".oft_blocks", 3, 3, 3);
    made_scalar(&n, OFT_Q ".alpha", 0.125F);
    lora_expect(&n, Q, oft, &bound, 0.75);
}

/* LyCORIS' first files: the matrices are what is multiplied with */
static double oft_written(const void *names, int64_t o, int64_t i, int64_t k)
{
    double sum = 0;

    (void)names, (void)k;
    for (int n = 0; n < 3; n++)
        sum += made_value(STEM_Q ".oft_diag", o / 3 * 9 + n * 3 + o % 3) *
               made_value(Q, (o / 3 * 3 + n) * I + i);
    return sum - made_value(Q, o * I + i);
}

static void test_oft_diag(void **state)
{
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_Q ".oft_diag", 3, 3, 3);
    lora_expect(&m, Q, oft_written, NULL, 0.75);
}

/* Two stages of 4 x 4 over 8 rows, as whole 8 x 8 matrices: the first shuffles rows 0 2 1 3 | 4 6 5 7, the second
 * 0 4 1 5 | 2 6 3 7. */
static double boft(const void *names, int64_t o, int64_t i, int64_t k)
{
    static const int order[2][P] = {{0, 2, 1, 3, 4, 6, 5, 7}, {0, 4, 1, 5, 2, 6, 3, 7}};
    double column[P], next[P], r[16];

    (void)names, (void)k;
    for (int row = 0; row < P; row++)
        column[row] = made_value(V, row * C + i);
    for (int stage = 0; stage < 2; stage++) {
        for (int block = 0; block < 2; block++) {
            rotation(STEM_V ".oft_blocks", stage * 2 + block, 4, 1, r);
            for (int to = 0; to < 4; to++) {
                double sum = 0;

                for (int from = 0; from < 4; from++)
                    sum += r[to * 4 + from] * column[order[stage][block * 4 + from]];
                next[order[stage][block * 4 + to]] = sum;
            }
        }
        memcpy(column, next, sizeof(column));
    }
    return made_value(STEM_V ".rescale", o) * column[o] - made_value(V, o * C + i);
}

static void test_boft(void **state)
{
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_V ".oft_blocks", 2, 2, 4, 4);
    PUT(&m, STEM_V ".rescale", P, 1);
    made_scalar(&m, STEM_V ".alpha", 0);
    lora_expect(&m, V, boft, NULL, 0.75);
}

/* ---- memory ---- */

static void test_no_memory(void **state)
{
    struct made m = {0}, base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    const struct weight *w = weights_file_find(base, V);
    float values[P * C];
    struct lora *lora;

    (void)state;
    PUT(&m, STEM_V ".oft_blocks", 2, 2, 4, 4);
    PUT(&m, STEM_V ".rescale", P, 1);
    assert_int_equal(lora_read(&lora, made_open(&m), base, NULL), 0);
    assert_true(lora_delta_bytes(lora) >= 2 * sizeof(values));
    assert_int_equal(lora_fail_each_allocation(lora, w, values), 7);
    lora_close(lora);
    weights_file_close(base);
    made_release(&m);
    made_release(&base_made);
}

/* ---- what is refused ---- */

#define REFUSED(m, ...) lora_expect_refusal(m, (const char *const[]){__VA_ARGS__, NULL})

static void test_broken(void **state)
{
    struct made m[9] = {0};

    (void)state;
    PUT(&m[0], STEM_Q ".a1.weight", I, R);
    REFUSED(&m[0], "a1.weight has no a2");
    PUT(&m[1], STEM_Q ".a1.weight", I + 1, R);
    PUT(&m[1], STEM_Q ".a2.weight", R, I + 1);
    PUT(&m[1], STEM_Q ".b1.weight", O, R);
    PUT(&m[1], STEM_Q ".b2.weight", R, I);
    REFUSED(&m[1], "a1.weight and", "do not fit together");
    PUT(&m[2], STEM_Q ".weight", O + 5);
    made_scalar(&m[2], STEM_Q ".on_input", 0);
    REFUSED(&m[2], "has 14 values, 9 (rows) or 10 (columns)");
    PUT(&m[3], STEM_Q ".oft_blocks", 2, 3, 3);
    REFUSED(&m[3], "turns 2 x 3 rows", "the weight has 9");
    PUT(&m[4], STEM_V ".oft_blocks", 3, 2, 4, 4); /* a third stage reaches 16 rows */
    REFUSED(&m[4], "in 3 stages", "the weight has 8");
    PUT(&m[5], STEM_Q ".oft_blocks", 3, 3);
    REFUSED(&m[5], "no list of square matrices");
    PUT(&m[6], STEM_Q ".oft_blocks", 3, 3, 3);
    PUT(&m[6], STEM_Q ".dora_scale", O, 1);
    REFUSED(&m[6], "dora_scale (DoRA) stands beside", "oft_blocks");
    PUT(&m[7], STEM_Q ".oft_blocks", 3, 3, 3);
    PUT(&m[7], STEM_Q ".rescale", O + 1);
    REFUSED(&m[7], "rescale has 10 values, 9 were expected");
    made_scalar(&m[8], STEM_Q ".on_input", 0);
    REFUSED(&m[8], "on_input has no weight");
}

/* kinds that are not known are called by their names */
static void test_unknown(void **state)
{
    static const char *const files[][2] = {
        {"base_model.model.to_q.oft_R.weight", "OFT as PEFT writes it"},
        {"base_model.model.to_q.vera_lambda_b", "VeRA"},
        {"base_model.model.to_k.ia3_l", "IA3 as PEFT writes it"},
        {"lora_controlnet", "a Control-LoRA"},
        {"control_model.input_hint_block.0.weight", "a ControlNet"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct made m = {0};

        PUT(&m, files[i][0], 3);
        REFUSED(&m, files[i][1], "not supported", files[i][0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glora),      cmocka_unit_test(test_ia3),
        cmocka_unit_test(test_set_weight), cmocka_unit_test(test_oft),
        cmocka_unit_test(test_oft_diag),   cmocka_unit_test(test_boft),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_broken),
        cmocka_unit_test(test_unknown),
    };

    return RUN_TESTS(tests);
}

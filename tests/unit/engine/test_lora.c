/* LoRA files: every spelling of the keys finds its weight, and every kind of change is
 * the one that the formula, written out in double precision here, says. */
#include "base/buf.h"
#include "engine/files/reader.h"
#include "engine/lora/lora.h"
#include "engine/lora/names.h"

#include "lora_case.h"
#include "unit.h"

#include <math.h>
#include <string.h>

/* ---- LoRA, in every spelling ---- */

enum { R = 3, AREA = 9 };

struct pair {
    const char *up, *down;
    int64_t cols; /* of down, a kernel's included */
    int64_t area;
};

static double product(const void *names, int64_t o, int64_t i, int64_t k)
{
    const struct pair *p = names;
    double sum = 0;

    for (int r = 0; r < R; r++)
        sum += made_value(p->up, o * R + r) *
               made_value(p->down, r * p->cols + i * p->area + k);
    return sum;
}

static void test_spellings(void **state)
{
    static const struct {
        const char *up, *down, *base;
        int64_t cols;
        double strength;
    } cases[] = {
#define BLOCK "down_blocks.0.attentions.0.transformer_blocks.0."
#define JOINED "down_blocks_0_attentions_0_transformer_blocks_0_"
#define OURS "input_blocks.1.1.transformer_blocks.0."
        /* kohya, with diffusers' names and with CompVis' */
        {"lora_unet_" JOINED "attn1_to_q.lora_up.weight",
         "lora_unet_" JOINED "attn1_to_q.lora_down.weight", Q, I, 0.75},
        {"lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_up.weight",
         "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_down.weight",
         K, C, 0.75},
        {"lora_unet_" JOINED "attn1_to_out_0.lora_up.weight",
         "lora_unet_" JOINED "attn1_to_out_0.lora_down.weight", OUT, I, 0.75},
        {"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight",
         "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
         TEXT_Q, I, 0.5},
        /* PEFT, with and without the adapter's name, wrapped */
        {"unet." BLOCK "attn2.to_k.lora_B.weight",
         "unet." BLOCK "attn2.to_k.lora_A.weight", K, C, 0.75},
        {"unet." BLOCK "attn1.to_out.0.lora_B.default.weight",
         "unet." BLOCK "attn1.to_out.0.lora_A.default.weight", OUT, I, 0.75},
        {"base_model.model." BLOCK "attn1.to_q.lora_B.weight",
         "base_model.model." BLOCK "attn1.to_q.lora_A.weight", Q, I, 0.75},
        {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight",
         "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
         TEXT_Q, I, 0.5},
        /* diffusers of 2023 */
        {"unet." BLOCK "attn1.processor.to_q_lora.up.weight",
         "unet." BLOCK "attn1.processor.to_q_lora.down.weight", Q, I, 0.75},
        {BLOCK "attn1.processor.to_out_lora.up.weight",
         BLOCK "attn1.processor.to_out_lora.down.weight", OUT, I, 0.75},
        {"unet." BLOCK "attn1.to_out.0.lora.up.weight",
         "unet." BLOCK "attn1.to_out.0.lora.down.weight", OUT, I, 0.75},
        {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer."
         "up."
         "weight",
         "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer."
         "down.weight",
         TEXT_Q, I, 0.5},
        {"text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight",
         "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight",
         TEXT_Q, I, 0.5},
        /* bare */
        {"diffusion_model." OURS "attn1.to_q.lora_B.weight",
         "diffusion_model." OURS "attn1.to_q.lora_A.weight", Q, I, 0.75},
        {U OURS "attn1.to_q.lora_up.weight", U OURS "attn1.to_q.lora_down.weight", Q, I,
         0.75},
        {BLOCK "attn1.to_q.lora_B.weight", BLOCK "attn1.to_q.lora_A.weight", Q, I,
         0.75},
        {"text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight",
         "text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", TEXT_Q, I, 0.5},
        {"lycoris_" JOINED "attn1_to_q.lora_up.weight",
         "lycoris_" JOINED "attn1_to_q.lora_down.weight", Q, I, 0.75},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct pair names = {cases[i].up, cases[i].down, cases[i].cols, 1};
        struct made m = {0};

        PUT(&m, cases[i].up, O, R);
        PUT(&m, cases[i].down, R, cases[i].cols);
        lora_expect(&m, cases[i].base, product, &names, cases[i].strength);
    }
}

#define STEM_Q "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
#define STEM_CONV "lora_unet_down_blocks_0_resnets_0_conv1"
#define STEM_PROJ "lora_unet_down_blocks_0_attentions_0_proj_in"

static void test_alpha(void **state)
{
    struct pair names = {STEM_Q ".lora_up.weight", STEM_Q ".lora_down.weight", I, 1};
    struct made m = {0};

    (void)state;
    PUT(&m, names.up, O, R);
    PUT(&m, names.down, R, I);
    made_scalar(&m, STEM_Q ".alpha", 1.5F);
    lora_expect(&m, Q, product, &names, 0.75 * 1.5 / R);
}

static void test_convolution(void **state)
{
    struct pair names = {STEM_CONV ".lora_up.weight", STEM_CONV ".lora_down.weight",
                         I * AREA, AREA};
    struct made m = {0};

    (void)state;
    PUT(&m, names.up, O, R, 1, 1);
    PUT(&m, names.down, R, I, 3, 3);
    made_scalar(&m, STEM_CONV ".alpha", 2);
    lora_expect(&m, CONV, product, &names, 0.75 * 2 / R);
}

/* SD 1.x has a 1x1 convolution where SD 2.x has a linear layer; files exist with both */
static void test_linear_and_1x1_are_one(void **state)
{
    struct pair names = {STEM_PROJ ".lora_up.weight", STEM_PROJ ".lora_down.weight", I,
                         1};
    struct pair linear = {"unet.down_blocks.1.attentions.0.proj_in.lora_B.weight",
                          "unet.down_blocks.1.attentions.0.proj_in.lora_A.weight", I,
                          1};
    struct made m = {0}, n = {0};

    (void)state;
    PUT(&m, names.up, O, R);
    PUT(&m, names.down, R, I);
    lora_expect(&m, PROJ, product, &names, 0.75);
    PUT(&n, linear.up, O, R, 1, 1);
    PUT(&n, linear.down, R, I, 1, 1);
    lora_expect(&n, U "input_blocks.3.1.proj_in.weight", product, &linear, 0.75);
}

enum { M = 2 };

/* sum over n, m of up[o, n] mid[n, m, k] down[m, i] */
static double tucker(const void *names, int64_t o, int64_t i, int64_t k)
{
    double sum = 0;

    (void)names;
    for (int n = 0; n < R; n++)
        for (int m = 0; m < M; m++)
            sum += made_value(STEM_CONV ".lora_up.weight", o * R + n) *
                   made_value(STEM_CONV ".lora_mid.weight", (n * M + m) * AREA + k) *
                   made_value(STEM_CONV ".lora_down.weight", m * I + i);
    return sum;
}

static void test_tucker(void **state)
{
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_CONV ".lora_up.weight", O, R, 1, 1);
    PUT(&m, STEM_CONV ".lora_mid.weight", R, M, 3, 3);
    PUT(&m, STEM_CONV ".lora_down.weight", M, I, 1, 1);
    made_scalar(&m, STEM_CONV ".alpha", 3);
    lora_expect(&m, CONV, tucker, NULL, 0.75 * 3 / M);
}

/* ---- LoHa, LoKr ---- */

/* (a1 b1)[o, j] (a2 b2)[o, j] */
static double loha(const void *names, int64_t o, int64_t i, int64_t k)
{
    const int64_t *area = names;
    double first = 0, second = 0;

    for (int r = 0; r < R; r++)
        first += made_value(STEM_CONV ".hada_w1_a", o * R + r) *
                 made_value(STEM_CONV ".hada_w1_b", (r * I + i) * *area + k);
    for (int r = 0; r < M; r++)
        second += made_value(STEM_CONV ".hada_w2_a", o * M + r) *
                  made_value(STEM_CONV ".hada_w2_b", (r * I + i) * *area + k);
    return first * second;
}

static void test_loha(void **state)
{
    int64_t area = AREA;
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_CONV ".hada_w1_a", O, R);
    PUT(&m, STEM_CONV ".hada_w1_b", R, I * AREA);
    PUT(&m, STEM_CONV ".hada_w2_a", O, M);
    PUT(&m, STEM_CONV ".hada_w2_b", M, I * AREA);
    made_scalar(&m, STEM_CONV ".alpha", 2);
    lora_expect(&m, CONV, loha, &area, 0.75 * 2 / R);
}

/* einsum "i j k, j r, i p -> p r k" */
static double core(const char *t, const char *a, const char *b, int64_t rank,
                   int64_t outputs, int64_t inputs, const int64_t at[3])
{
    double sum = 0;

    for (int i = 0; i < rank; i++)
        for (int j = 0; j < rank; j++)
            sum += made_value(t, (i * rank + j) * AREA + at[2]) *
                   made_value(b, j * inputs + at[1]) *
                   made_value(a, i * outputs + at[0]);
    return sum;
}

static double loha_core(const void *names, int64_t o, int64_t i, int64_t k)
{
    const int64_t at[] = {o, i, k};

    (void)names;
    return core(STEM_CONV ".hada_t1", STEM_CONV ".hada_w1_a", STEM_CONV ".hada_w1_b", R,
                O, I, at) *
           core(STEM_CONV ".hada_t2", STEM_CONV ".hada_w2_a", STEM_CONV ".hada_w2_b", R,
                O, I, at);
}

static void test_loha_tucker(void **state)
{
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_CONV ".hada_t1", R, R, 3, 3);
    PUT(&m, STEM_CONV ".hada_w1_a", R, O);
    PUT(&m, STEM_CONV ".hada_w1_b", R, I);
    PUT(&m, STEM_CONV ".hada_t2", R, R, 3, 3);
    PUT(&m, STEM_CONV ".hada_w2_a", R, O);
    PUT(&m, STEM_CONV ".hada_w2_b", R, I);
    made_scalar(&m, STEM_CONV ".alpha", 1);
    lora_expect(&m, CONV, loha_core, NULL, 0.75 * 1 / R);
}

/* O = A D, I = B E */
enum { A = 3, B = 2, D = 3, E = 5 };

/* kron(w1 [A, B], w2 [D, E, k]), both whole */
static double lokr(const void *names, int64_t o, int64_t i, int64_t k)
{
    const int64_t *area = names;

    return made_value(STEM_CONV ".lokr_w1", o / D * B + i / E) *
           made_value(STEM_CONV ".lokr_w2", (o % D * E + i % E) * *area + k);
}

static void test_lokr_whole(void **state)
{
    int64_t area = AREA;
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_CONV ".lokr_w1", A, B);
    PUT(&m, STEM_CONV ".lokr_w2", D, E, 3, 3);
    made_scalar(&m, STEM_CONV ".alpha", 1e10F); /* LyCORIS' sign for "no rank" */
    lora_expect(&m, CONV, lokr, &area, 0.75);
}

/* w1 = a b of rank M, w2 = a b of rank R */
static double lokr_products(const void *names, int64_t o, int64_t i, int64_t k)
{
    const int64_t *area = names;
    double first = 0, second = 0;

    for (int r = 0; r < M; r++)
        first += made_value(STEM_CONV ".lokr_w1_a", o / D * M + r) *
                 made_value(STEM_CONV ".lokr_w1_b", r * B + i / E);
    for (int r = 0; r < R; r++)
        second += made_value(STEM_CONV ".lokr_w2_a", o % D * R + r) *
                  made_value(STEM_CONV ".lokr_w2_b", (r * E + i % E) * *area + k);
    return first * second;
}

static void test_lokr_products(void **state)
{
    int64_t area = AREA;
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_CONV ".lokr_w1_a", A, M);
    PUT(&m, STEM_CONV ".lokr_w1_b", M, B);
    PUT(&m, STEM_CONV ".lokr_w2_a", D, R);
    PUT(&m, STEM_CONV ".lokr_w2_b", R, E * AREA);
    made_scalar(&m, STEM_CONV ".alpha", 2);
    lora_expect(&m, CONV, lokr_products, &area, 0.75 * 2 / R);
}

static double lokr_core(const void *names, int64_t o, int64_t i, int64_t k)
{
    (void)names;
    return made_value(STEM_CONV ".lokr_w1", o / D * B + i / E) *
           core(STEM_CONV ".lokr_t2", STEM_CONV ".lokr_w2_a", STEM_CONV ".lokr_w2_b", M,
                D, E, (const int64_t[]){o % D, i % E, k});
}

static void test_lokr_tucker(void **state)
{
    struct made m = {0};

    (void)state;
    PUT(&m, STEM_CONV ".lokr_w1", A, B);
    PUT(&m, STEM_CONV ".lokr_t2", M, M, 3, 3);
    PUT(&m, STEM_CONV ".lokr_w2_a", M, D);
    PUT(&m, STEM_CONV ".lokr_w2_b", M, E);
    made_scalar(&m, STEM_CONV ".alpha", 3);
    lora_expect(&m, CONV, lokr_core, NULL, 0.75 * 3 / M);
}

/* ---- plain differences ---- */

static double difference(const void *names, int64_t o, int64_t i, int64_t k)
{
    const struct pair *p = names;

    return made_value(p->up, o * p->cols + i * p->area + k);
}

static void test_differences(void **state)
{
    static const struct {
        const char *key, *base;
        int64_t cols, area;
    } cases[] = {
        {STEM_CONV ".diff", CONV, I * AREA, AREA},
        {STEM_CONV ".diff_b", U "input_blocks.1.0.in_layers.2.bias", 1, 1},
        {"unet.down_blocks.0.resnets.0.norm1.w_norm", NORM, 1, 1},
        {"lora_unet_down_blocks_0_resnets_0_norm1.b_norm",
         U "input_blocks.1.0.in_layers.0.bias", 1, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct pair names = {cases[i].key, NULL, cases[i].cols, cases[i].area};
        struct made m = {0};

        if (i == 0)
            PUT(&m, cases[i].key, O, I, 3, 3);
        else
            PUT(&m, cases[i].key, i == 1 ? O : I);
        lora_expect(&m, cases[i].base, difference, &names, 0.75);
    }
}

/* a bias that the base does not have cannot change */
static void test_bias_of_none(void **state)
{
    struct made m = {0}, base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    struct lora *lora;

    (void)state;
    PUT(&m, STEM_Q ".diff", O, I);
    PUT(&m, STEM_Q ".diff_b", O);
    assert_int_equal(lora_read(&lora, made_open(&m), base, NULL), 0);
    assert_int_equal(lora_matched(lora), 1);
    assert_string_equal(lora_unmatched_name(lora, 0), STEM_Q ".diff_b");
    lora_close(lora);
    weights_file_close(base);
    made_release(&m);
    made_release(&base_made);
}

/* ---- DoRA ---- */

/* a row of W, as ComfyUI measures it */
static double dora_of_rows(const void *names, int64_t o, int64_t i, int64_t k)
{
    struct pair p = {STEM_CONV ".lora_up.weight", STEM_CONV ".lora_down.weight",
                     I * AREA, AREA};
    const char *lengths = names;
    double w = made_value(CONV, (o * I + i) * AREA + k), sum = 0;

    for (int64_t at = 0; at < I * AREA; at++)
        sum += pow(made_value(CONV, o * I * AREA + at), 2);
    return (w + 2.0 / R * product(&p, o, i, k)) * made_value(lengths, o) / sqrt(sum) -
           w;
}

/* a column of W + D: all outputs and places of one input */
static double dora_of_columns(const void *names, int64_t o, int64_t i, int64_t k)
{
    struct pair p = {STEM_CONV ".lora_up.weight", STEM_CONV ".lora_down.weight",
                     I * AREA, AREA};
    const char *lengths = names;
    double w = made_value(CONV, (o * I + i) * AREA + k), sum = 0;

    for (int64_t row = 0; row < O; row++)
        for (int64_t at = 0; at < AREA; at++)
            sum += pow(made_value(CONV, (row * I + i) * AREA + at) +
                           2.0 / R * product(&p, row, i, at),
                       2);
    return (w + 2.0 / R * product(&p, o, i, k)) * made_value(lengths, i) / sqrt(sum) -
           w;
}

static void put_conv_lora(struct made *m)
{
    PUT(m, STEM_CONV ".lora_up.weight", O, R, 1, 1);
    PUT(m, STEM_CONV ".lora_down.weight", R, I, 3, 3);
    made_scalar(m, STEM_CONV ".alpha", 2);
}

static void test_dora(void **state)
{
    static const char scale[] = STEM_CONV ".dora_scale";
    static const char magnitude[] = STEM_CONV ".lora_magnitude_vector";
    struct made m = {0}, n = {0}, p = {0}, q = {0};

    (void)state;
    put_conv_lora(&m);
    PUT(&m, scale, O, 1, 1, 1);
    lora_expect(&m, CONV, dora_of_rows, scale, 0.75);
    put_conv_lora(&n);
    PUT(&n, scale, 1, I, 1, 1);
    lora_expect(&n, CONV, dora_of_columns, scale, 0.75);
    put_conv_lora(&p);
    PUT(&p, magnitude, 1, O, 1, 1);
    lora_expect(&p, CONV, dora_of_rows, magnitude, 0.75);
    put_conv_lora(&q);
    PUT(&q, scale, 7);
    lora_expect_refusal(&q, (const char *const[]){scale, "has 7 values", NULL});
}

/* ---- one weight, many changes ---- */

#define G "conditioner.embedders.1.model.transformer.resblocks.0."
#define G_KEY "text_encoder_2.text_model.encoder.layers.0.self_attn."

/* OpenCLIP's q, k and v are thirds of one weight */
static void test_thirds(void **state)
{
    struct made m = {0}, base_made = {0};
    struct weights_file *base;
    const struct weight *w, *bias;
    float values[12 * 4], biases[12];
    struct lora *lora;

    (void)state;
    PUT(&base_made, G "attn.in_proj_weight", 12, 4);
    PUT(&base_made, G "attn.in_proj_bias", 12);
    base = made_open(&base_made);
    w = weights_file_find(base, G "attn.in_proj_weight");
    bias = weights_file_find(base, G "attn.in_proj_bias");
    PUT(&m, G_KEY "v_proj.diff", 4, 4);
    PUT(&m, G_KEY "k_proj.diff", 4, 4);
    PUT(&m, G_KEY "k_proj.diff_b", 4);
    assert_int_equal(lora_read(&lora, made_open(&m), base, NULL), 0);
    weight_to_f32(w, 0, 48, values);
    weight_to_f32(bias, 0, 12, biases);
    assert_int_equal(lora_add_delta(lora, w, lora_strengths, NULL, values, NULL), 0);
    assert_int_equal(lora_add_delta(lora, bias, lora_strengths, NULL, biases, NULL), 0);
    for (int i = 0; i < 48; i++) {
        double added = i < 16   ? 0
                       : i < 32 ? made_value(G_KEY "k_proj.diff", i - 16)
                                : made_value(G_KEY "v_proj.diff", i - 32);

        assert_true(fabs((double)values[i] - made_value(w->name, i) - 0.5 * added) <
                    1e-6);
    }
    for (int i = 0; i < 12; i++) {
        double added = i / 4 == 1 ? made_value(G_KEY "k_proj.diff_b", i - 4) : 0;

        assert_true(fabs((double)biases[i] - made_value(bias->name, i) - 0.5 * added) <
                    1e-6);
    }
    lora_close(lora);
    weights_file_close(base);
    made_release(&m);
    made_release(&base_made);
}

/* values that are no numbers are found when they are used */
static void test_nan(void **state)
{
    struct made m = {0}, base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    const struct weight *q = weights_file_find(base, Q);
    float values[O * I];
    struct err err = {0};
    struct lora *lora;

    (void)state;
    PUT(&m, STEM_Q ".diff", O, I);
    memcpy(m.data.data + 4 * 37, &(float){NAN}, 4);
    assert_int_equal(lora_read(&lora, made_open(&m), base, NULL), 0);
    weight_to_f32(q, 0, O * I, values);
    assert_int_equal(lora_add_delta(lora, q, lora_strengths, NULL, values, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    assert_non_null(strstr(err.message, STEM_Q ".diff"));
    lora_close(lora);
    weights_file_close(base);
    made_release(&m);
    made_release(&base_made);
}

static void test_no_memory(void **state)
{
    struct made m = {0}, base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    const struct weight *w = weights_file_find(base, CONV);
    float values[O * I * AREA] = {0};
    struct lora *lora;

    (void)state;
    put_conv_lora(&m);
    PUT(&m, STEM_CONV ".dora_scale", 1, I);
    assert_int_equal(lora_read(&lora, made_open(&m), base, NULL), 0);
    assert_true(lora_fail_each_allocation(lora, w, values) >= 6);
    lora_close(lora);
    weights_file_close(base);
    made_release(&m);
    made_release(&base_made);
}

/* ---- names ---- */

static const struct weight *weight_called(const struct lora_names *names,
                                          const char *stem)
{
    const struct lora_place *place = lora_names_find(names, stem, strlen(stem));

    return place ? place->weight : NULL;
}

static void expect_name(const struct lora_names *names, const char *stem,
                        const char *base_name)
{
    const struct weight *w = weight_called(names, stem);

    if (!w || strcmp(w->name, base_name) != 0)
        fail_msg("%s is %s, %s was expected", stem, w ? w->name : "unknown", base_name);
}

/* ---- a U-Net's skeleton: all its blocks, a tensor of one value in each place ---- */

static void put_res(struct made *m, const char *name)
{
    static const char *const inside[] = {"in_layers.0",  "in_layers.2",
                                         "emb_layers.1", "out_layers.0",
                                         "out_layers.3", "skip_connection"};
    char tensor[200];

    for (size_t i = 0; i < sizeof(inside) / sizeof(*inside); i++) {
        snprintf(tensor, sizeof(tensor), U "%s.%s.weight", name, inside[i]);
        PUT(m, tensor, 1);
    }
}

static void put_attention(struct made *m, const char *name)
{
    static const char *const inside[] = {"norm",
                                         "proj_in",
                                         "proj_out",
                                         "transformer_blocks.0.norm1",
                                         "transformer_blocks.0.attn2.to_v",
                                         "transformer_blocks.0.ff.net.0.proj"};
    char tensor[200];

    for (size_t i = 0; i < sizeof(inside) / sizeof(*inside); i++) {
        snprintf(tensor, sizeof(tensor), U "%s.%s.weight", name, inside[i]);
        PUT(m, tensor, 1);
    }
}

static void put_one(struct made *m, const char *name)
{
    char tensor[200];

    snprintf(tensor, sizeof(tensor), U "%s.weight", name);
    PUT(m, tensor, 1);
}

struct shape_of_unet {
    int levels, resnets; /* per level on the way down, one more on the way up */
    unsigned attention;  /* bit x: level x has it */
};

#define TEXT(buffer, ...)                                                              \
    (snprintf((buffer), sizeof(buffer), __VA_ARGS__), (const char *)(buffer))

static void put_unet(struct made *m, const struct shape_of_unet *u)
{
    char name[80];
    int n = 0;

    put_one(m, "input_blocks.0.0");
    for (int x = 0; x < u->levels; x++) {
        for (int i = 0; i < u->resnets; i++) {
            n++;
            put_res(m, TEXT(name, "input_blocks.%d.0", n));
            if (u->attention >> x & 1)
                put_attention(m, TEXT(name, "input_blocks.%d.1", n));
        }
        if (x + 1 < u->levels)
            put_one(m, TEXT(name, "input_blocks.%d.0.op", ++n));
    }
    put_res(m, "middle_block.0");
    put_attention(m, "middle_block.1");
    put_res(m, "middle_block.2");
    n = 0;
    for (int x = u->levels - 1; x >= 0; x--)
        for (int i = 0; i <= u->resnets; i++, n++) {
            int has_attention = u->attention >> x & 1;

            put_res(m, TEXT(name, "output_blocks.%d.0", n));
            if (has_attention)
                put_attention(m, TEXT(name, "output_blocks.%d.1", n));
            if (x > 0 && i == u->resnets)
                put_one(m,
                        TEXT(name, "output_blocks.%d.%d.conv", n, 1 + has_attention));
        }
    put_one(m, "time_embed.0");
    put_one(m, "time_embed.2");
    put_one(m, "out.0");
    put_one(m, "out.2");
}

static void expect_pairs(const struct shape_of_unet *u, const char *const (*pairs)[2],
                         size_t count)
{
    char stem[200], wanted[200];
    struct made m = {0};
    struct weights_file *base;
    struct lora_names *names;

    put_unet(&m, u);
    base = made_open(&m);
    names = lora_names_new(base);
    for (size_t i = 0; i < count; i++) {
        snprintf(wanted, sizeof(wanted), U "%s.weight", pairs[i][1]);
        expect_name(names, TEXT(stem, "unet.%s", pairs[i][0]), wanted);
        for (int side = 0; side < 2; side++) {
            snprintf(stem, sizeof(stem), "lora_unet_%s", pairs[i][side]);
            for (char *at = stem; *at; at++)
                *at = *at == '.' ? '_' : *at;
            expect_name(names, stem, wanted);
        }
    }
    assert_null(weight_called(names, "lora_unet_down_blocks_0_resnets_2_conv1"));
    assert_null(weight_called(names, "lora_te_down_blocks_0_resnets_0_conv1"));
    assert_null(weight_called(names, "lora_unet_"));
    lora_names_free(names);
    weights_file_close(base);
    made_release(&m);
}

static void test_blocks_of_sd1(void **state)
{
    static const char *const pairs[][2] = {
        {"down_blocks.0.resnets.0.conv1", "input_blocks.1.0.in_layers.2"},
        {"down_blocks.0.resnets.1.conv2", "input_blocks.2.0.out_layers.3"},
        {"down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"},
        {"down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"},
        {"down_blocks.1.attentions.1.proj_out", "input_blocks.5.1.proj_out"},
        {"down_blocks.2.attentions.0.norm", "input_blocks.7.1.norm"},
        {"down_blocks.2.downsamplers.0.conv", "input_blocks.9.0.op"},
        {"down_blocks.3.resnets.1.time_emb_proj", "input_blocks.11.0.emb_layers.1"},
        {"mid_block.resnets.0.norm1", "middle_block.0.in_layers.0"},
        {"mid_block.attentions.0.proj_in", "middle_block.1.proj_in"},
        {"mid_block.resnets.1.norm2", "middle_block.2.out_layers.0"},
        {"up_blocks.0.resnets.2.conv1", "output_blocks.2.0.in_layers.2"},
        {"up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"},
        {"up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
         "output_blocks.3.1.transformer_blocks.0.ff.net.0.proj"},
        {"up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"},
        {"up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v",
         "output_blocks.11.1.transformer_blocks.0.attn2.to_v"},
        {"time_embedding.linear_1", "time_embed.0"},
        {"time_embedding.linear_2", "time_embed.2"},
        {"conv_in", "input_blocks.0.0"},
        {"conv_norm_out", "out.0"},
        {"conv_out", "out.2"},
    };

    (void)state;
    expect_pairs(&(struct shape_of_unet){4, 2, 0x7}, pairs,
                 sizeof(pairs) / sizeof(*pairs));
}

static void test_blocks_of_sdxl(void **state)
{
    static const char *const pairs[][2] = {
        {"down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"},
        {"down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"},
        {"down_blocks.1.downsamplers.0.conv", "input_blocks.6.0.op"},
        {"down_blocks.2.attentions.1.proj_in", "input_blocks.8.1.proj_in"},
        {"mid_block.attentions.0.norm", "middle_block.1.norm"},
        {"up_blocks.0.attentions.2.norm", "output_blocks.2.1.norm"},
        {"up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"},
        {"up_blocks.1.attentions.0.proj_out", "output_blocks.3.1.proj_out"},
        {"up_blocks.2.resnets.2.conv2", "output_blocks.8.0.out_layers.3"},
    };

    (void)state;
    expect_pairs(&(struct shape_of_unet){3, 2, 0x6}, pairs,
                 sizeof(pairs) / sizeof(*pairs));
}

/* one residual block per level, as in tiny-sd */
static void test_blocks_of_distilled(void **state)
{
    static const char *const pairs[][2] = {
        {"down_blocks.1.attentions.0.norm", "input_blocks.3.1.norm"},
        {"down_blocks.2.downsamplers.0.conv", "input_blocks.6.0.op"},
        {"up_blocks.1.resnets.1.conv1", "output_blocks.3.0.in_layers.2"},
        {"up_blocks.1.upsamplers.0.conv", "output_blocks.3.2.conv"},
    };

    (void)state;
    expect_pairs(&(struct shape_of_unet){4, 1, 0x7}, pairs,
                 sizeof(pairs) / sizeof(*pairs));
}

/* A distilled U-Net of which one block per level is left, with the numbers of the whole one: diffusers counts what is
 * there. */
static void test_blocks_with_gaps(void **state)
{
    struct made m = {0};
    struct weights_file *base;
    struct lora_names *names;

    (void)state;
    PUT(&m, U "input_blocks.0.0.weight", 4, 4, 3, 3);
    PUT(&m, U "input_blocks.1.0.in_layers.0.weight", 4);
    PUT(&m, U "input_blocks.1.0.in_layers.2.weight", 4, 4, 3, 3);
    PUT(&m, U "input_blocks.3.0.op.weight", 4, 4, 3, 3);
    PUT(&m, U "input_blocks.4.0.in_layers.0.weight", 4);
    PUT(&m, U "input_blocks.4.1.proj_in.weight", 4, 4);
    PUT(&m, U "output_blocks.0.0.in_layers.0.weight", 4);
    PUT(&m, U "output_blocks.2.1.conv.weight", 4, 4, 3, 3);
    PUT(&m, U "output_blocks.3.0.in_layers.0.weight", 4);
    PUT(&m, U "output_blocks.3.0.in_layers.2.weight", 4, 4, 3, 3);
    base = made_open(&m);
    names = lora_names_new(base);
    expect_name(names, "unet.down_blocks.0.resnets.0.conv1",
                U "input_blocks.1.0.in_layers.2.weight");
    expect_name(names, "unet.down_blocks.0.downsamplers.0.conv",
                U "input_blocks.3.0.op.weight");
    expect_name(names, "lora_unet_down_blocks_1_attentions_0_proj_in",
                U "input_blocks.4.1.proj_in.weight");
    expect_name(names, "unet.up_blocks.0.upsamplers.0.conv",
                U "output_blocks.2.1.conv.weight");
    expect_name(names, "unet.up_blocks.1.resnets.0.conv1",
                U "output_blocks.3.0.in_layers.2.weight");
    lora_names_free(names);
    weights_file_close(base);
    made_release(&m);
}

/* OpenCLIP's joint q, k, v, both encoders of SDXL, its size embedding */
static void test_names_of_sdxl(void **state)
{
#define L "conditioner.embedders.0.transformer.text_model.encoder.layers.0."
#define G31 "conditioner.embedders.1.model.transformer.resblocks.31."
#define KEY31 "lora_te2_text_model_encoder_layers_31_"
    struct made m = {0};
    struct weights_file *base;
    struct lora_names *names;
    const struct lora_place *place;

    (void)state;
    PUT(&m, L "self_attn.k_proj.weight", 4, 4);
    PUT(&m, G31 "attn.in_proj_weight", 12, 4);
    PUT(&m, G31 "attn.in_proj_bias", 12);
    PUT(&m, G31 "attn.out_proj.weight", 4, 4);
    PUT(&m, G31 "mlp.c_fc.weight", 8, 4);
    PUT(&m, G31 "ln_2.weight", 4);
    PUT(&m, U "label_emb.0.2.weight", 4, 4);
    base = made_open(&m);
    names = lora_names_new(base);
    expect_name(names, "lora_te1_text_model_encoder_layers_0_self_attn_k_proj",
                L "self_attn.k_proj.weight");
    expect_name(names, KEY31 "self_attn_out_proj", G31 "attn.out_proj.weight");
    expect_name(names, KEY31 "mlp_fc1", G31 "mlp.c_fc.weight");
    expect_name(names, KEY31 "layer_norm2", G31 "ln_2.weight");
    expect_name(names, "text_encoder_2.text_model.encoder.layers.31.self_attn.v_proj",
                G31 "attn.in_proj_weight");
    expect_name(names, "unet.add_embedding.linear_2", U "label_emb.0.2.weight");
    place = lora_names_find(names, KEY31 "self_attn_k_proj",
                            strlen(KEY31 "self_attn_k_proj"));
    assert_non_null(place);
    assert_int_equal(place->first_row, 4);
    assert_int_equal(place->rows, 4);
    assert_string_equal(place->bias->name, G31 "attn.in_proj_bias");
    assert_int_equal(place->network, LORA_TEXT2);
    lora_names_free(names);
    weights_file_close(base);
    made_release(&m);
}

/* ---- what does not fit ---- */

#define REFUSED(m, ...) lora_expect_refusal(m, (const char *const[]){__VA_ARGS__, NULL})
#define STEM_K "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"

/* a misfit in a file of the right family blames no family */
static void expect_no_guess(void)
{
    struct made m = {0}, base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    struct err err = {0};
    struct lora *lora;

    PUT(&m, STEM_K ".lora_up.weight", O, R);
    PUT(&m, STEM_K ".lora_down.weight", R, C);
    PUT(&m, STEM_Q ".lora_up.weight", O, R);
    PUT(&m, STEM_Q ".lora_down.weight", R, I + 1);
    assert_int_equal(lora_read(&lora, made_open(&m), base, &err), -1);
    assert_non_null(strstr(err.message, "9 x 11"));
    assert_null(strstr(err.message, "seems"));
    weights_file_close(base);
    made_release(&m);
    made_release(&base_made);
}

static void test_another_family(void **state)
{
    struct made m = {0}, n = {0}, o = {0}, p = {0};

    (void)state;
    PUT(&m, STEM_K ".lora_up.weight", O, R);
    PUT(&m, STEM_K ".lora_down.weight", R, 1024);
    REFUSED(&m, STEM_K ".lora_up.weight", "9 x 1024", K, "9 x 6", "made for SD 2.x",
            "6 channels");
    PUT(&n, "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", O, R);
    PUT(&n, "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", R, I);
    REFUSED(&n, "none of its 2 keys", "lora_te2_text_model", "made for SDXL");
    PUT(&o, "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", O, R);
    PUT(&o, "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", R, I);
    REFUSED(&o, "none of its 2 keys", "made for Flux");
    PUT(&p, "model.weight", O, R);
    REFUSED(&p, "is no LoRA", "model.weight");
    expect_no_guess();
}

static void test_broken_files(void **state)
{
    struct made m = {0}, n = {0}, o = {0}, p = {0}, q = {0}, r = {0};

    (void)state;
    PUT(&m, STEM_Q ".lora_up.weight", O, R);
    PUT(&m, STEM_Q ".lora_down.weight", R + 1, I);
    REFUSED(&m, "lora_up.weight and", "do not fit together");
    PUT(&n, STEM_Q ".lora_up.weight", O, R);
    made_scalar(&n, STEM_Q ".alpha", 1);
    REFUSED(&n, "lora_up.weight has no lora_down");
    PUT(&o, STEM_Q ".lora_up.weight", O, 0);
    PUT(&o, STEM_Q ".lora_down.weight", 0, I);
    REFUSED(&o, "lora_up.weight is empty");
    PUT(&p, STEM_Q ".lora_up.weight", O, R);
    PUT(&p, STEM_Q ".lora_down.weight", R, I);
    made_scalar(&p, STEM_Q ".alpha", NAN);
    REFUSED(&p, "alpha is no finite number");
    PUT(&q, STEM_Q ".lora_up.weight", O, R);
    PUT(&q, STEM_Q ".lora_down.weight", R, I);
    made_put(&q, STEM_Q ".alpha", "I32", 0, NULL);
    REFUSED(&q, "alpha is of a type that cannot be read");
    PUT(&r, STEM_Q ".lora_A.weight", R, I);
    PUT(&r, STEM_Q ".lora_A.default.weight", R, I);
    PUT(&r, STEM_Q ".lora_B.weight", O, R);
    REFUSED(&r, "lora_A.weight", "lora_A.default.weight", "say the same");
}

/* counted, named, and the rest works; strength 0 changes nothing */
static void test_unmatched(void **state)
{
    struct made m = {0}, base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    const struct weight *q = weights_file_find(base, Q);
    float values[O * I], before[O * I];
    struct lora *lora;

    (void)state;
    PUT(&m, STEM_Q ".lora_up.weight", O, R);
    PUT(&m, STEM_Q ".lora_down.weight", R, I);
    PUT(&m, "lora_unet_elsewhere.lora_up.weight", O, R);
    PUT(&m, "something.else", 1);
    assert_int_equal(lora_read(&lora, made_open(&m), base, NULL), 0);
    assert_int_equal(lora_matched(lora), 2);
    assert_int_equal(lora_unmatched(lora), 2);
    assert_string_equal(lora_unmatched_name(lora, 0),
                        "lora_unet_elsewhere.lora_up.weight");
    assert_string_equal(lora_unmatched_name(lora, 1), "something.else");
    assert_false(lora_touches(lora, weights_file_find(base, K)));
    weight_to_f32(q, 0, O * I, values);
    memcpy(before, values, sizeof(values));
    assert_int_equal(
        lora_add_delta(lora, q, (struct lora_strength){0, 1}, NULL, values, NULL), 0);
    assert_memory_equal(values, before, sizeof(values));
    assert_int_equal(lora_add_delta(lora, q, lora_strengths, NULL, values, NULL), 0);
    assert_memory_not_equal(values, before, sizeof(values));
    lora_close(lora);
    weights_file_close(base);
    made_release(&m);
    made_release(&base_made);
}

static void test_paths(void **state)
{
    struct made base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    struct err err = {0};
    struct lora *lora;

    (void)state;
    assert_int_equal(lora_open(&lora, "/nowhere/style.safetensors", base, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere/style.safetensors"));
    weights_file_close(base);
    made_release(&base_made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_alpha),
        cmocka_unit_test(test_convolution),
        cmocka_unit_test(test_linear_and_1x1_are_one),
        cmocka_unit_test(test_tucker),
        cmocka_unit_test(test_loha),
        cmocka_unit_test(test_loha_tucker),
        cmocka_unit_test(test_lokr_whole),
        cmocka_unit_test(test_lokr_products),
        cmocka_unit_test(test_lokr_tucker),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_bias_of_none),
        cmocka_unit_test(test_dora),
        cmocka_unit_test(test_thirds),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_blocks_of_sd1),
        cmocka_unit_test(test_blocks_of_sdxl),
        cmocka_unit_test(test_blocks_of_distilled),
        cmocka_unit_test(test_blocks_with_gaps),
        cmocka_unit_test(test_names_of_sdxl),
        cmocka_unit_test(test_another_family),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_unmatched),
        cmocka_unit_test(test_paths),
    };

    return RUN_TESTS(tests);
}

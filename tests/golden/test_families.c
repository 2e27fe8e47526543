/* The other families and distilled models against PyTorch: text encoders, the whole U-Net and a picture of small models of
 * their shapes, opened as every file is. Vectors: tiny_small.safetensors and so on, made by make_families.py.
 * What the tolerances are made of is told in test_golden.c; these U-Nets are deeper and their heads wider. */
#include "engine/checkpoint.h"
#include "engine/text/tokenizer.h"

#include "frame.h"
#include "small_model.h"
#include "unit.h"

#include <string.h>
#include <unistd.h>

enum { INPUTS_MAX = 64 };

struct setup {
    struct golden golden;
    double tolerance_network;
    char *path;
    struct checkpoint *checkpoint;
};

static void compare(const struct setup *s, const char *name, const float *got)
{
    golden_compare(&s->golden, name, got, s->tolerance_network);
}

static float *vector(const struct setup *s, const char *name, size_t *ret_count)
{
    return golden_vector(&s->golden, name, ret_count);
}

/* Memory for what a graph will write. */
static void *output_of(const struct graph *g, int index)
{
    const struct node *n = &g->nodes[g->outputs[index]];

    return golden_memory((size_t)shape_elements(graph_shape(g, n->in[0])) * 4);
}

/* The last states where each text ends, summarised. */
static void compare_summaries(const struct setup *s, const int32_t *ids,
                              const float *states)
{
    const struct clip *clip = s->checkpoint->summary;
    size_t width = (size_t)clip->summary_width;
    float *got = golden_memory(2 * width * 4);

    for (size_t row = 0; row < 2; row++) {
        size_t end = row * TOKENIZER_CONTEXT;

        while (ids[end] != TOKENIZER_EOS)
            end++;
        clip_summarise(clip, states + end * (size_t)clip->width, got + row * width);
    }
    compare(s, "text.pooled", got);
    free(got);
}

static const struct picture_size size = {
    .width = 7 * 8, .height = 10 * 8, .batch = 2, .chunks = 1};

static void test_text(void **state)
{
    const struct setup *s = *state;
    struct graph *g = checkpoint_encode_graph(s->checkpoint, &size);
    void *inputs[FAMILY_TEXTS_MAX], *outputs[2] = {NULL};
    size_t count, each = 2 * TOKENIZER_CONTEXT;
    float *values = vector(s, "text.ids", &count);
    int32_t *ids = golden_memory(count * 4);

    assert_int_equal(count, each * (size_t)s->checkpoint->family->text_count);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)values[i];
    for (size_t i = 0; i < count / each; i++) {
        inputs[i] = golden_memory(each * 4);
        memcpy(inputs[i], ids + i * each, each * 4);
    }
    for (int i = 0; i < g->output_count; i++)
        outputs[i] = output_of(g, i);
    golden_run(&s->golden, g, inputs, outputs);
    compare(s, "text.out", outputs[0]);
    if (outputs[1])
        compare_summaries(s, ids, outputs[1]);
    for (size_t i = 0; i < count / each; i++)
        free(inputs[i]);
    free(outputs[0]);
    free(outputs[1]);
    free(values);
    free(ids);
}

/* Both graphs, the one's outputs handed to the other. */
static void test_unet(void **state)
{
    const struct setup *s = *state;
    struct graph *context = checkpoint_context_graph(s->checkpoint, &size);
    void *inputs[INPUTS_MAX] = {NULL}, *text[2] = {NULL}, *got;
    int count = context->output_count;
    struct graph *step;
    size_t unused;

    assert_in_range(count, 1, INPUTS_MAX - 3);
    inputs[0] = vector(s, "unet.x", &unused);
    inputs[1] = vector(s, "unet.t", &unused);
    text[0] = vector(s, "text.out", &unused);
    if (s->checkpoint->summary)
        text[1] = vector(s, "unet.label", &unused);
    for (int i = 0; i < count; i++)
        inputs[2 + i] = output_of(context, i);
    golden_run(&s->golden, context, text, inputs + 2);
    if (unet_guide_width(s->checkpoint->unet))
        inputs[2 + count] = vector(s, "unet.guide", &unused);
    step = checkpoint_step_graph(s->checkpoint, &size);
    got = output_of(step, 0);
    golden_run(&s->golden, step, inputs, &got);
    compare(s, "unet.out", got);
    for (int i = 0; i < 3 + count; i++)
        free(inputs[i]);
    free(text[0]);
    free(text[1]);
    free(got);
}

/* ---- whole pictures ---- */

static void draw(const struct setup *s, const char *name, const char *negative)
{
    golden_draw(&s->golden, name, s->path,
                &(struct golden_picture){.negative = negative});
}

/* The picture is shown with a hole in it, and drawn where the hole is. */
static void draw_masked(const struct setup *s)
{
    struct golden_picture picture = {.negative = "blurry"};

    golden_start(&s->golden, &picture.start, &picture.mask);
    golden_draw(&s->golden, "masked", s->path, &picture);
    buf_release(&picture.start);
    buf_release(&picture.mask);
}

static void test_picture(void **state)
{
    const struct setup *s = *state;

    draw(s, "picture", "blurry");
    if (s->checkpoint->family->is_sdxl)
        draw(s, "picture.silent", "");
    if (s->checkpoint->is_inpainting)
        draw_masked(s);
}

/* ---- once per family, back end and precision ---- */

static int run_with(struct setup s, const char *listing, const char *vectors)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_text, &s),
        cmocka_unit_test_prestate(test_unet, &s),
        cmocka_unit_test_prestate(test_picture, &s),
    };
    struct err err = {0};
    int failures;

    s.path = small_model_write(&(struct small_model){.listing = listing});
    golden_check(checkpoint_open(&s.checkpoint, s.path, &err), &err);
    golden_open(&s.golden, vectors);
    s.golden.name = weights_file_meta(s.golden.vectors, "model");
    assert_non_null(s.golden.name);
    failures = cmocka_run_group_tests_name(s.golden.name, tests, NULL, NULL);
    golden_close(&s.golden);
    checkpoint_close(s.checkpoint);
    unlink(s.path);
    free(s.path);
    return failures;
}

int main(void)
{
    static const struct setup setups[] = {{.golden = {.backend_name = "ref",
                                                      .precision = "f32",
                                                      .tolerance_picture = 1e-3},
                                           .tolerance_network = 1e-4},
                                          {.golden = {.backend_name = "dnnl",
                                                      .precision = "f32",
                                                      .tolerance_picture = 1e-3},
                                           .tolerance_network = 1e-4},
                                          {.golden = {.backend_name = "dnnl",
                                                      .precision = "bf16",
                                                      .tolerance_picture = 0.3},
                                           .tolerance_network = 5e-2}};
    static const char *const models[][2] = {
        {SMALL_TINY_TENSORS, "tests/golden/tiny_small.safetensors"},
        {SMALL_INPAINT_TENSORS, "tests/golden/inpaint_small.safetensors"},
        {SMALL_LCM_TENSORS, "tests/golden/lcm_small.safetensors"},
        {SMALL_SD2_TENSORS, "tests/golden/sd2_small.safetensors"},
        {SMALL_SDXL_TENSORS, "tests/golden/sdxl_small.safetensors"},
    };
    int failures = 0;

    for (size_t i = 0; i < sizeof(setups) / sizeof(*setups); i++)
        if (strstr(backend_names(), setups[i].golden.backend_name))
            for (size_t k = 0; k < sizeof(models) / sizeof(*models); k++)
                failures += run_with(setups[i], models[k][0], models[k][1]);
    return failures;
}

/* The other families and distilled models against PyTorch: text encoders, the whole U-Net and a picture of small models of
 * their shapes, opened as every file is. Vectors: tiny_small.safetensors and so on, made by make_families.py.
 * What the tolerances are made of is told in test_golden.c; these U-Nets are deeper and their heads wider. */
#include "base/mem.h"
#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/graph/backend.h"
#include "engine/image/png.h"
#include "engine/text/tokenizer.h"

#include "small_model.h"
#include "unit.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { INPUTS_MAX = 64 };

struct setup {
    const char *name, *backend_name, *precision;
    double tolerance_network, tolerance_picture;
    char *path;
    struct checkpoint *checkpoint;
    struct weights_file *vectors;
    struct backend *backend;
    struct weight_store *store;
};

static void check(int result, const struct err *err)
{
    if (result)
        fail_msg("%s", err->message);
}

static void *aligned(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(memory);
    return memory;
}

static float *vector(const struct setup *s, const char *name, size_t *ret_count)
{
    const struct weight *w = weights_file_find(s->vectors, name);
    float *values;

    assert_non_null(w);
    *ret_count = weight_count(w);
    values = aligned(*ret_count * 4);
    weight_to_f32(w, 0, *ret_count, values);
    return values;
}

static void compare(const struct setup *s, const char *name, const float *got)
{
    double squares = 0, difference = 0;
    size_t count;
    float *expected = vector(s, name, &count);

    for (size_t i = 0; i < count; i++) {
        double d = (double)got[i] - (double)expected[i];

        squares += (double)expected[i] * (double)expected[i];
        difference += d * d;
    }
    free(expected);
    difference = sqrt(difference / squares);
    print_message("  %-10s %-4s %-4s %-14s difference %.2e of its rms (%g allowed)\n",
                  s->name, s->backend_name, s->precision, name, difference,
                  s->tolerance_network);
    assert_true(difference <= s->tolerance_network);
}

static void run(const struct setup *s, struct graph *g, void *const *inputs,
                void *const *outputs)
{
    const struct backend_ops *ops = s->backend->ops;
    struct program_run how = {.inputs = inputs, .outputs = outputs};
    struct program *program;
    struct err err = {0};

    check(graph_check(g, &err), &err);
    check(ops->compile(s->backend, g, s->store, &program, &err), &err);
    check(ops->load(program, NULL, &err), &err);
    how.arena = aligned(program->arena_bytes + 64);
    memset(how.arena, 0xff, program->arena_bytes); /* NaN: nothing is read unwritten */
    check(ops->run(program, &how, &err), &err);
    free(how.arena);
    ops->program_free(program);
    graph_free(g);
}

/* Memory for what a graph will write. */
static void *output_of(const struct graph *g, int index)
{
    const struct node *n = &g->nodes[g->outputs[index]];

    return aligned((size_t)shape_elements(graph_shape(g, n->in[0])) * 4);
}

/* The last states where each text ends, summarised. */
static void compare_summaries(const struct setup *s, const int32_t *ids,
                              const float *states)
{
    const struct clip *clip = s->checkpoint->summary;
    size_t width = (size_t)clip->summary_width;
    float *got = aligned(2 * width * 4);

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
    int32_t *ids = aligned(count * 4);

    assert_int_equal(count, each * (size_t)s->checkpoint->family->text_count);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)values[i];
    for (size_t i = 0; i < count / each; i++) {
        inputs[i] = aligned(each * 4);
        memcpy(inputs[i], ids + i * each, each * 4);
    }
    for (int i = 0; i < g->output_count; i++)
        outputs[i] = output_of(g, i);
    run(s, g, inputs, outputs);
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
    run(s, context, text, inputs + 2);
    if (unet_guide_width(s->checkpoint->unet))
        inputs[2 + count] = vector(s, "unet.guide", &unused);
    step = checkpoint_step_graph(s->checkpoint, &size);
    got = output_of(step, 0);
    run(s, step, inputs, &got);
    compare(s, "unet.out", got);
    for (int i = 0; i < 3 + count; i++)
        free(inputs[i]);
    free(text[0]);
    free(text[1]);
    free(got);
}

/* ---- whole pictures, through the engine's own door ---- */

struct received {
    const struct setup *setup;
    const char *name;
    int images;
};

/* Bytes are rounded, and clamped where the decoder goes beyond -1..1. */
static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct received *r = user;
    double difference = 0, squares = 0;
    size_t count;
    float *expected = vector(r->setup, r->name, &count);

    (void)err;
    assert_int_equal(count, (size_t)image->width * (size_t)image->height * 3);
    for (size_t i = 0; i < count; i++) {
        double e = fmin(1, fmax(-1, (double)expected[i]));
        double d = fabs((double)image->rgb[i] / 127.5 - 1 - e);

        d = fmax(0, d - 0.5 / 127.5);
        difference += d * d;
        squares += e * e;
    }
    difference = sqrt(difference / squares);
    print_message("  %-10s %-4s %-4s %-14s difference %.2e of its rms (%g allowed)\n",
                  r->setup->name, r->setup->backend_name, r->setup->precision, r->name,
                  difference, r->setup->tolerance_picture);
    assert_true(difference <= r->setup->tolerance_picture);
    free(expected);
    r->images++;
    return true;
}

/* start: NULL for noise alone */
static void draw(const struct setup *s, const char *name, const char *negative,
                 const struct engine_start *start)
{
    struct engine_options options = {
        .backend = s->backend_name, .precision = s->precision, .threads = 2};
    struct received received = {s, name, 0};
    struct engine_events events = {.on_image = on_image, .user = &received};
    struct engine_job job;
    struct engine *engine;
    struct engine_model *model;
    struct err err = {0};

    check(engine_open(&engine, &options, &err), &err);
    check(engine_model_load(&model, engine, s->path, NULL, &err), &err);
    engine_job_defaults(model, &job);
    job.prompt = "a red circle on a blue background";
    job.negative_prompt = negative;
    job.width = 32;
    job.height = 40;
    job.steps = 4;
    job.cfg_scale = 5;
    job.seed = 42;
    job.rng = "cpu";
    job.sampler = "euler";
    job.scheduler = "normal";
    if (start)
        job.start = *start;
    check(engine_generate(model, &job, &events, &err), &err);
    assert_int_equal(received.images, 1);
    engine_model_free(model);
    engine_close(engine);
}

static struct buf png_of(const uint8_t *rgb)
{
    struct buf png = {0};
    struct err err = {0};

    check(image_png_encode(rgb, 32, 40, NULL, 0, &png, &err), &err);
    return png;
}

/* The picture is shown with a hole in it, and drawn where the hole is. */
static void draw_masked(const struct setup *s)
{
    size_t count;
    float *values = vector(s, "start.bytes", &count);
    uint8_t *rgb = mem_alloc(count);
    struct engine_start start = {.strength = 0.6};
    struct buf image, mask;

    for (size_t i = 0; i < count; i++)
        rgb[i] = (uint8_t)values[i];
    image = png_of(rgb);
    for (size_t i = 0; i < count; i++) {
        size_t x = i / 3 % 32, y = i / 3 / 32;

        rgb[i] = x >= 8 && y >= 8 && y < 24 ? 255 : 0;
    }
    mask = png_of(rgb);
    start.image = (struct engine_file){image.data, image.len};
    start.mask = (struct engine_file){mask.data, mask.len};
    draw(s, "masked", "blurry", &start);
    buf_release(&image);
    buf_release(&mask);
    free(rgb);
    free(values);
}

static void test_picture(void **state)
{
    const struct setup *s = *state;

    draw(s, "picture", "blurry", NULL);
    if (s->checkpoint->family->is_sdxl)
        draw(s, "picture.silent", "", NULL);
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
    struct backend_options options = {
        .threads = 2,
        .precision = strcmp(s.precision, "bf16") == 0 ? PRECISION_BF16 : PRECISION_F32};
    struct err err = {0};
    int failures;

    s.path = small_model_write(&(struct small_model){.listing = listing});
    check(weights_file_open(&s.vectors, vectors, &err), &err);
    check(checkpoint_open(&s.checkpoint, s.path, &err), &err);
    s.name = weights_file_meta(s.vectors, "model");
    assert_non_null(s.name);
    check(backend_open(s.backend_name, &options, &s.backend, &err), &err);
    s.store = s.backend->ops->store_new(s.backend, STORE_AS_COMPUTED);
    failures = cmocka_run_group_tests_name(s.name, tests, NULL, NULL);
    s.backend->ops->store_free(s.store);
    backend_close(s.backend);
    checkpoint_close(s.checkpoint);
    weights_file_close(s.vectors);
    unlink(s.path);
    free(s.path);
    return failures;
}

int main(void)
{
    static const struct setup setups[] = {{.backend_name = "ref",
                                           .precision = "f32",
                                           .tolerance_network = 1e-4,
                                           .tolerance_picture = 1e-3},
                                          {.backend_name = "dnnl",
                                           .precision = "f32",
                                           .tolerance_network = 1e-4,
                                           .tolerance_picture = 1e-3},
                                          {.backend_name = "dnnl",
                                           .precision = "bf16",
                                           .tolerance_network = 5e-2,
                                           .tolerance_picture = 0.3}};
    static const char *const models[][2] = {
        {SMALL_TINY_TENSORS, "tests/golden/tiny_small.safetensors"},
        {SMALL_INPAINT_TENSORS, "tests/golden/inpaint_small.safetensors"},
        {SMALL_LCM_TENSORS, "tests/golden/lcm_small.safetensors"},
        {SMALL_SD2_TENSORS, "tests/golden/sd2_small.safetensors"},
        {SMALL_SDXL_TENSORS, "tests/golden/sdxl_small.safetensors"},
    };
    int failures = 0;

    for (size_t i = 0; i < sizeof(setups) / sizeof(*setups); i++)
        if (strstr(backend_names(), setups[i].backend_name))
            for (size_t k = 0; k < sizeof(models) / sizeof(*models); k++)
                failures += run_with(setups[i], models[k][0], models[k][1]);
    return failures;
}

#include "frame.h"

#include "base/mem.h"
#include "engine/image/png.h"

#include "unit.h"

#include <math.h>

void golden_check(int result, const struct err *err)
{
    if (result)
        fail_msg("%s", err->message);
}

void golden_open(struct golden *g, const char *vectors_path)
{
    struct backend_options options = {.threads = 2,
                                      .precision = strcmp(g->precision, "bf16") == 0
                                                       ? PRECISION_BF16
                                                       : PRECISION_F32};
    struct err err = {0};

    golden_check(weights_file_open(&g->vectors, vectors_path, &err), &err);
    golden_check(backend_open(g->backend_name, &options, &g->backend, &err), &err);
    g->store = g->backend->ops->store_new(g->backend,
                                          g->weights ? STORE_INT8 : STORE_AS_COMPUTED);
}

void golden_close(struct golden *g)
{
    g->backend->ops->store_free(g->store);
    backend_close(g->backend);
    weights_file_close(g->vectors);
}

void *golden_memory(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(memory);
    return memory;
}

/* ---- vectors ---- */

float *golden_vector(const struct golden *g, const char *name, size_t *ret_count)
{
    const struct weight *w = weights_file_find(g->vectors, name);
    float *values;

    assert_non_null(w);
    *ret_count = weight_count(w);
    values = golden_memory(*ret_count * 4);
    weight_to_f32(w, 0, *ret_count, values);
    return values;
}

struct shape golden_shape(const struct golden *g, const char *name)
{
    const struct weight *w = weights_file_find(g->vectors, name);
    struct shape shape;

    assert_non_null(w);
    shape.rank = w->rank;
    memcpy(shape.dim, w->dim, sizeof(shape.dim));
    return shape;
}

static void expect_near(const struct golden *g, const char *name, double difference,
                        double tolerance)
{
    print_message("  %-8s %-4s %-4s %-16s difference %.2e of its rms (%g allowed)\n",
                  g->name, g->backend_name, g->weights ? g->weights : g->precision,
                  name, difference, tolerance);
    assert_true(difference <= tolerance);
}

void golden_compare(const struct golden *g, const char *name, const float *got,
                    double tolerance)
{
    double squares = 0, difference = 0;
    size_t count;
    float *expected = golden_vector(g, name, &count);

    for (size_t i = 0; i < count; i++) {
        double d = (double)got[i] - (double)expected[i];

        squares += (double)expected[i] * (double)expected[i];
        difference += d * d;
    }
    free(expected);
    expect_near(g, name, sqrt(difference / squares), tolerance);
}

/* ---- graphs ---- */

void golden_run(const struct golden *g, struct graph *graph, void *const *inputs,
                void *const *outputs)
{
    const struct backend_ops *ops = g->backend->ops;
    struct program_run how = {.inputs = inputs, .outputs = outputs};
    struct program *program;
    struct err err = {0};

    golden_check(graph_check(graph, &err), &err);
    golden_check(ops->compile(g->backend, graph, g->store, &program, &err), &err);
    golden_check(ops->load(program, NULL, &err), &err);
    how.arena = golden_memory(program->arena_bytes + 64);
    memset(how.arena, 0xff, program->arena_bytes); /* NaN: nothing is read unwritten */
    golden_check(ops->run(program, &how, &err), &err);
    free(how.arena);
    ops->program_free(program);
    graph_free(graph);
}

/* ---- whole pictures ---- */

struct received {
    const struct golden *golden;
    const char *name;
    int images;
};

/* Bytes are rounded, and clamped where the decoder goes beyond -1..1. */
static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct received *r = user;
    double difference = 0, squares = 0;
    size_t count;
    float *expected = golden_vector(r->golden, r->name, &count);

    (void)err;
    assert_int_equal(count, (size_t)image->width * (size_t)image->height * 3);
    for (size_t i = 0; i < count; i++) {
        double e = fmin(1, fmax(-1, (double)expected[i]));
        double d = fabs((double)image->rgb[i] / 127.5 - 1 - e);

        d = fmax(0, d - 0.5 / 127.5);
        difference += d * d;
        squares += e * e;
    }
    free(expected);
    expect_near(r->golden, r->name, sqrt(difference / squares),
                r->golden->tolerance_picture);
    r->images++;
    return true;
}

void golden_draw(const struct golden *g, const char *vector, const char *model_path,
                 const struct golden_picture *picture)
{
    struct engine_options options = {.backend = g->backend_name,
                                     .precision = g->precision,
                                     .weights = g->weights,
                                     .threads = 2};
    struct received received = {g, vector, 0};
    struct engine_events events = {.on_image = on_image, .user = &received};
    struct engine_job job;
    struct engine *engine;
    struct engine_model *model;
    struct err err = {0};

    golden_check(engine_open(&engine, &options, &err), &err);
    golden_check(engine_model_load(&model, engine, model_path, NULL, &err), &err);
    engine_job_defaults(model, &job);
    job.prompt = "a red circle on a blue background";
    job.negative_prompt = picture->negative;
    job.width = 32;
    job.height = 40;
    job.steps = 4;
    job.cfg_scale = 5;
    job.seed = 42;
    job.rng = "cpu";
    job.sampler = "euler";
    job.scheduler = "normal";
    job.start.image = (struct engine_file){picture->start.data, picture->start.len};
    job.start.mask = (struct engine_file){picture->mask.data, picture->mask.len};
    job.start.mask_blur = 0;
    job.start.strength = 0.6;
    golden_check(engine_generate(model, &job, &events, &err), &err);
    assert_int_equal(received.images, 1);
    engine_model_free(model);
    engine_close(engine);
}

static void encode(const uint8_t *rgb, struct buf *ret)
{
    struct err err = {0};

    golden_check(image_png_encode(rgb, 32, 40, NULL, 0, ret, &err), &err);
}

void golden_start(const struct golden *g, struct buf *ret_start, struct buf *ret_mask)
{
    size_t count;
    float *values = golden_vector(g, "start.bytes", &count);
    uint8_t *rgb = mem_alloc(count);

    for (size_t i = 0; i < count; i++)
        rgb[i] = (uint8_t)values[i];
    encode(rgb, ret_start);
    for (size_t i = 0; i < count; i++) {
        size_t x = i / 3 % 32, y = i / 3 / 32;

        rgb[i] = x >= 8 && y >= 8 && y < 24 ? 255 : 0;
    }
    encode(rgb, ret_mask);
    free(rgb);
    free(values);
}

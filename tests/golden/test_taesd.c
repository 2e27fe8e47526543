/* The tiny autoencoder against PyTorch: both halves alone, and two whole pictures that it ends, and begins, in place of
 * a model's own. Vectors: taesd_small.safetensors, made by make_taesd.py. What the tolerances are made of is told in
 * test_golden.c; this network is ten blocks of three convolutions, whose ReLUs magnify nothing, so that in bf16 its error is
 * about sqrt(30) times 1e-3. Of the pictures' tolerance in bf16 most is the walk's: the latents that come out of it differ
 * by as much as test_golden.c says, and the clamp and the decoder leave a third of that. */
#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/graph/backend.h"
#include "engine/image/png.h"
#include "engine/vae/vae.h"

#include "remove_tree.h"
#include "small_model.h"
#include "unit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define VECTORS "tests/golden/taesd_small.safetensors"

struct setup {
    const char *backend_name, *precision;
    double tolerance_network, tolerance_picture;
};

static char folder[] = "/tmp/mysti-taesd-XXXXXX";
static char *model_path, *taesd_path;
static struct weights_file *vectors;

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

static float *vector(const char *name, struct shape *ret_shape)
{
    const struct weight *w = weights_file_find(vectors, name);
    float *values;

    assert_non_null(w);
    *ret_shape = (struct shape){.rank = w->rank};
    memcpy(ret_shape->dim, w->dim, sizeof(w->dim));
    values = aligned(weight_count(w) * 4);
    weight_to_f32(w, 0, weight_count(w), values);
    return values;
}

static void compare(const struct setup *s, const char *name, const float *got,
                    double slack, double tolerance)
{
    struct shape shape;
    float *expected = vector(name, &shape);
    double squares = 0, difference = 0;

    for (int64_t i = 0; i < shape_elements(&shape); i++) {
        double e = (double)expected[i];
        double d;

        if (slack > 0) /* bytes are clamped, too */
            e = fmin(1, fmax(-1, e));
        d = fabs((double)got[i] - e) - slack;
        squares += e * e;
        difference += d > 0 ? d * d : 0;
    }
    free(expected);
    difference = sqrt(difference / squares);
    print_message("  %-4s %-4s %-12s difference %.2e of its rms (%g allowed)\n",
                  s->backend_name, s->precision, name, difference, tolerance);
    assert_true(difference <= tolerance);
}

/* ---- the two halves ---- */

enum half { DECODER, ENCODER };

static void run_half(const struct setup *s, enum half half, const char *in,
                     const char *out)
{
    struct backend_options options = {.threads = 2,
                                      .precision = strcmp(s->precision, "bf16") == 0
                                                       ? PRECISION_BF16
                                                       : PRECISION_F32};
    struct shape from, to;
    float *x = vector(in, &from), *expected = vector(out, &to);
    float *got = aligned((size_t)shape_elements(&to) * 4);
    struct program_run how = {.inputs = (void *[]){x}, .outputs = (void *[]){got}};
    struct graph *g = graph_new("half");
    struct weights_file *file;
    struct weight_store *store;
    struct program *program;
    struct backend *backend;
    struct err err = {0};
    struct vae vae;

    check(weights_vae_open(&file, taesd_path, &err), &err);
    check(vae_open(&vae, file, &err), &err);
    assert_true(vae.is_taesd && vae.has_encoder);
    assert_int_equal(vae.scale, 8);
    assert_int_equal(vae.latent_channels, 4);
    if (half == DECODER)
        vae_build_decoder(&vae, &(struct build){g, file, NULL}, 1, from.dim[1],
                          from.dim[2]);
    else
        vae_build_encoder(&vae, &(struct build){g, file, NULL}, 1, from.dim[1],
                          from.dim[2]);
    check(graph_check(g, &err), &err);
    check(backend_open(s->backend_name, &options, &backend, &err), &err);
    store = backend->ops->store_new(backend, STORE_AS_COMPUTED);
    check(backend->ops->compile(backend, g, store, &program, &err), &err);
    check(backend->ops->load(program, NULL, &err), &err);
    how.arena = aligned(program->arena_bytes + 64);
    memset(how.arena, 0xff, program->arena_bytes); /* NaN: nothing is read unwritten */
    check(backend->ops->run(program, &how, &err), &err);
    compare(s, out, got, 0, s->tolerance_network);
    free(how.arena);
    backend->ops->program_free(program);
    backend->ops->store_free(store);
    backend_close(backend);
    graph_free(g);
    weights_file_close(file);
    free(x);
    free(expected);
    free(got);
}

static void test_decoder(void **state)
{
    run_half(*state, DECODER, "vae.z", "vae.out");
}

static void test_encoder(void **state)
{
    run_half(*state, ENCODER, "vae.picture", "vae.latent");
}

/* ---- whole pictures ---- */

struct received {
    const struct setup *setup;
    const char *name;
    int images;
};

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct received *r = user;
    size_t count = (size_t)image->width * (size_t)image->height * 3;
    float *got = mem_alloc(count * sizeof(*got));

    (void)err;
    for (size_t i = 0; i < count; i++)
        got[i] = (float)image->rgb[i] / 127.5F - 1;
    /* bytes are rounded */
    compare(r->setup, r->name, got, 0.5 / 127.5, r->setup->tolerance_picture);
    free(got);
    r->images++;
    return true;
}

static void draw(const struct setup *s, const char *name, const struct buf *start)
{
    struct engine_options options = {.backend = s->backend_name,
                                     .precision = s->precision,
                                     .threads = 2,
                                     .vae_folder = folder};
    struct received received = {s, name, 0};
    struct engine_events events = {.on_image = on_image, .user = &received};
    struct engine_job job;
    struct engine *engine;
    struct engine_model *model;
    struct err err = {0};

    check(engine_open(&engine, &options, &err), &err);
    check(engine_model_load(&model, engine, model_path, NULL, &err), &err);
    engine_job_defaults(model, &job);
    job.prompt = "a red circle on a blue background";
    job.negative_prompt = "blurry";
    job.width = 32;
    job.height = 40;
    job.steps = 4;
    job.cfg_scale = 5;
    job.seed = 42;
    job.rng = "cpu";
    job.vae = "taesd";
    job.start.image = (struct engine_file){start->data, start->len};
    job.start.strength = 0.6;
    check(engine_generate(model, &job, &events, &err), &err);
    assert_int_equal(received.images, 1);
    engine_model_free(model);
    engine_close(engine);
}

static void test_picture(void **state)
{
    draw(*state, "picture.out", &(struct buf){0});
}

static void test_start(void **state)
{
    struct shape shape;
    float *values = vector("start.bytes", &shape);
    size_t count = (size_t)shape_elements(&shape);
    uint8_t *rgb = mem_alloc(count);
    struct buf png = {0};
    struct err err = {0};

    for (size_t i = 0; i < count; i++)
        rgb[i] = (uint8_t)values[i];
    check(image_png_encode(rgb, 32, 40, NULL, 0, &png, &err), &err);
    draw(*state, "start.out", &png);
    buf_release(&png);
    free(rgb);
    free(values);
}

/* ---- once per back end and precision ---- */

static int run_with(struct setup *s)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_decoder, s),
        cmocka_unit_test_prestate(test_encoder, s),
        cmocka_unit_test_prestate(test_picture, s),
        cmocka_unit_test_prestate(test_start, s),
    };

    return cmocka_run_group_tests_name(s->backend_name, tests, NULL, NULL);
}

int main(void)
{
    struct setup ref = {"ref", "f32", 1e-4, 1e-3}, dnnl = {"dnnl", "f32", 1e-4, 1e-3},
                 half = {"dnnl", "bf16", 2e-2, 0.1};
    struct err err = {0};
    char *made;
    int failures;

    if (!mkdtemp(folder) || weights_file_open(&vectors, VECTORS, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    model_path = small_model_write(&(struct small_model){0});
    made = small_model_write(&(struct small_model){.listing = SMALL_TAESD_TENSORS});
    taesd_path = file_join(folder, "taesd.safetensors");
    if (rename(made, taesd_path))
        return 1;
    failures = run_with(&ref);
    if (strstr(backend_names(), "dnnl"))
        failures += run_with(&dnnl) + run_with(&half);
    weights_file_close(vectors);
    unlink(model_path);
    free(model_path);
    free(taesd_path);
    free(made);
    remove_tree(folder);
    return failures;
}

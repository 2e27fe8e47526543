/* The VAE that a job names: one with the model's own weights draws what the model draws, bit for bit, under every naming and
 * on every back end; another one draws something else, and after it all is as before, with the U-Net's packed weights kept;
 * and what does not fit is a sentence that leaves the model as it was. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/files/weights.h"
#include "engine/image/png.h"
#include "engine/model.h"
#include "engine/vaes.h"

#include "remove_tree.h"
#include "small_engine.h"
#include "small_folder.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "first_stage_model."

static char folder[] = "/tmp/mysti-vaes-XXXXXX";
static struct buf picture; /* to start from, a PNG */

/* ---- files ---- */

/* The small model's VAE alone, without the prefix; spoilt in one way. */
struct alone {
    const char *without; /* no tensor whose name has this in it */
    const char *extra;   /* a tensor of this name, [1] */
    bool is_folded;      /* its latents have half as many channels */
    bool is_brighter;
    const char *architecture; /* that its metadata says */
};

static void put_tensor(struct buf *header, struct buf *data, const struct weight *w,
                       const struct alone *how)
{
    const char *name = w->name + strlen(PREFIX);
    bool folds = how->is_folded && strcmp(name, "decoder.conv_in.weight") == 0;
    char *at;

    buf_printf(header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[",
               header->len ? "," : "{", name);
    for (int i = 0; i < w->rank; i++)
        buf_printf(header, "%s%lld", i ? "," : "",
                   (long long)(folds && i == 0   ? 2 * w->dim[i]
                               : folds && i == 1 ? w->dim[i] / 2
                                                 : w->dim[i]));
    buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", data->len,
               data->len + w->bytes);
    at = buf_reserve(data, w->bytes);
    memcpy(at, w->data, w->bytes);
    if (how->is_brighter && strcmp(name, "decoder.conv_out.bias") == 0)
        memcpy(at, &(float){0.25F}, sizeof(float));
    data->len += w->bytes;
}

static void put_file(const char *name, const void *data, size_t len)
{
    char *path = file_join(folder, name);
    struct err err = {0};

    check(file_write_atomic(path, data, len, 0600, &err), &err);
    free(path);
}

static void put_alone(const char *name, const struct alone *how)
{
    char *path = small_model_write(&(struct small_model){0});
    struct buf header = {0}, data = {0}, all = {0};
    struct weights_file *file;
    struct err err = {0};
    uint64_t length;

    if (how->architecture)
        buf_printf(&header, "{\"__metadata__\":{\"modelspec.architecture\":\"%s\"}",
                   how->architecture);
    check(weights_file_open(&file, path, &err), &err);
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);

        if (str_has_prefix(w->name, PREFIX) &&
            !(how->without && strstr(w->name, how->without)))
            put_tensor(&header, &data, w, how);
    }
    if (how->extra) {
        buf_printf(
            &header,
            ",\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
            how->extra, data.len, data.len + 4);
        buf_append(&data, "\0\0\0\0", 4);
    }
    buf_append_str(&header, "}");
    length = header.len;
    buf_append(&all, &length, sizeof(length));
    buf_append(&all, header.data, header.len);
    buf_append(&all, data.data, data.len);
    put_file(name, all.data, all.len);
    weights_file_close(file);
    buf_release(&header);
    buf_release(&data);
    buf_release(&all);
    unlink(path);
    free(path);
}

static void move(char *from, const char *name)
{
    char *path = file_join(folder, name);

    assert_int_equal(rename(from, path), 0);
    free(path);
    free(from);
}

static void put_files(void)
{
    char *diffusers = small_folder_write();

    put_alone("bare.safetensors", &(struct alone){0});
    put_alone("bright.safetensors", &(struct alone){.is_brighter = true});
    put_alone("decoder.safetensors", &(struct alone){.without = "encoder."});
    put_alone("narrow.safetensors", &(struct alone){.is_folded = true});
    put_alone("coarse.safetensors", &(struct alone){.without = "up.3.upsample"});
    put_alone("torn.safetensors", &(struct alone){.without = "mid.block_1.conv2"});
    put_alone("more.safetensors", &(struct alone){.extra = "decoder.adapter"});
    put_alone("empty.safetensors", &(struct alone){.without = "coder."});
    put_alone("xl.safetensors",
              &(struct alone){.architecture = "stable-diffusion-xl-v1-base/vae"});
    put_alone("sd2.safetensors",
              &(struct alone){.architecture = "stable-diffusion-v2-768-v"});
    move(small_model_write(&(struct small_model){.listing = SMALL_SDXL_TENSORS}),
         "wholexl.safetensors");
    put_file("text.pt", "this is no model", 16);
    move(small_model_write(&(struct small_model){0}), "whole.safetensors");
    move(small_model_write(&(struct small_model){.format = SMALL_MODEL_TORCH}),
         "trained.vae.pt");
    move(file_join(diffusers, "vae/diffusion_pytorch_model.safetensors"),
         "diffusers.safetensors");
    small_folder_remove(diffusers);
}

/* ---- drawing ---- */

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    uint64_t *sum = user;

    (void)err;
    for (int i = 0; i < image->width * image->height * 3; i++)
        *sum = (*sum ^ image->rgb[i]) * 1099511628211U;
    return true;
}

static struct engine_job job_of(const char *vae, bool from_picture)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = job.height = 32;
    job.steps = 2;
    job.seed = 5;
    job.vae = vae;
    if (from_picture)
        job.start.image = (struct engine_file){picture.data, picture.len};
    return job;
}

static uint64_t draw(const char *vae, bool from_picture)
{
    struct engine_job job = job_of(vae, from_picture);
    uint64_t sum = 14695981039346656037U;
    struct engine_events events = {.on_image = on_image, .user = &sum};
    struct err err = {0};

    check(engine_generate(model, &job, &events, &err), &err);
    return sum;
}

static void open_engine(const char *backend, const char *vae)
{
    const struct engine_options options = {
        .backend = backend, .threads = 2, .vae_folder = folder, .vae = vae};
    struct err err = {0};

    check(engine_open(&engine, &options, &err), &err);
}

static void open_model(const char *backend)
{
    open_engine(backend, NULL);
    model = small_engine_load(&(struct small_model){0});
}

static void close_model(void)
{
    engine_model_free(model);
    engine_close(engine);
}

/* ---- tests ---- */

static void expect_same_pictures(void)
{
    static const char *const same[] = {"bare", "whole", "diffusers", "trained.vae.pt",
                                       "automatic"};
    uint64_t own = draw(NULL, false), started = draw(NULL, true);

    assert_true(own != started);
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        if (draw(same[i], false) != own || draw(same[i], true) != started)
            fail_msg("%s does not draw what the model's own VAE does", same[i]);
    assert_true(draw("bright", false) != own);
    assert_true(draw("decoder", false) == own);
    assert_true(draw("bright", true) != started);
    assert_true(draw(NULL, true) == started);
    assert_true(draw("None", false) == own);
}

static void the_same_weights_draw_the_same(void **state)
{
    static const char *const names[] = {"ref", "dnnl"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        if (!strstr(engine_backend_names(), names[i]))
            continue;
        open_model(names[i]);
        expect_same_pictures();
        close_model();
    }
}

static struct engine_estimate estimate(const char *vae)
{
    struct engine_job job = job_of(vae, false);
    struct engine_estimate e;
    struct err err = {0};

    check(engine_estimate(model, &job, &e, &err), &err);
    return e;
}

static void the_others_stay_packed(void **state)
{
    const struct backend_ops *ops;
    struct engine_estimate own, changed, drawn;
    size_t rest;

    (void)state;
    open_model("ref");
    ops = engine->backend->ops;
    draw(NULL, false);
    own = estimate(NULL);
    rest = ops->store_bytes(model->store);
    changed = estimate("bare");
    assert_int_equal(ops->store_bytes(model->store), rest);
    assert_true(rest < own.resident_bytes);
    /* its VAE will take the place of this one, which stays until then */
    assert_int_equal(changed.resident_bytes, own.resident_bytes);
    assert_int_equal(changed.peak_bytes, own.peak_bytes);
    assert_null(vae_name(model));
    assert_int_equal(model_resident_bytes(model), own.resident_bytes);
    draw("bare", false);
    drawn = estimate("bare");
    assert_int_equal(ops->store_bytes(model->store), rest);
    assert_int_equal(drawn.resident_bytes, own.resident_bytes);
    assert_int_equal(drawn.peak_bytes, own.peak_bytes);
    close_model();
}

static void a_file_that_changed_is_read_again(void **state)
{
    uint64_t before;

    (void)state;
    open_model("ref");
    put_alone("mine.safetensors", &(struct alone){0});
    before = draw("mine", false);
    put_alone("mine.safetensors", &(struct alone){.is_brighter = true});
    assert_true(draw("mine", false) == draw("bright", false));
    assert_true(draw(NULL, false) == before);
    close_model();
}

static bool said; /* that the picture's text names the VAE */

static bool on_parameters(void *user, const struct engine_image *image, struct err *err)
{
    (void)err;
    said = strstr(image->parameters, user) != NULL;
    return true;
}

static void the_picture_says_which(void **state)
{
    char wanted[] = ", VAE: bare.safetensors,";
    struct engine_job job;
    struct err err = {0};

    (void)state;
    open_model("ref");
    for (int i = 0; i < 2; i++) {
        job = job_of(i ? NULL : "bare", false);
        check(engine_generate(
                  model, &job,
                  &(struct engine_events){.on_image = on_parameters, .user = wanted},
                  &err),
              &err);
        assert_true(said == !i);
    }
    close_model();
}

static void refuse(const char *vae, const char *sentence)
{
    struct engine_job job = job_of(vae, false);
    struct engine_estimate e;
    struct err err = {0};

    assert_int_equal(engine_job_check(model, &job, &err), -1);
    assert_string_equal(err.param, "vae");
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    assert_int_equal(engine_estimate(model, &job, &e, NULL), -1);
    assert_int_equal(engine_generate(model, &job, NULL, NULL), -1);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct engine_job job;
    uint64_t own;

    (void)state;
    open_model("ref");
    own = draw(NULL, false);
    refuse("bear", "there is no VAE 'bear' in the VAE folder, which has");
    refuse("bear", "perhaps 'bare'");
    refuse("../bare", "not a path to somewhere else");
    refuse("narrow", "the VAE 'narrow': reads latents of 2 channels and 8 pixels a "
                     "side, those of");
    refuse("coarse", "4 channels and 4 pixels a side, those of");
    refuse("xl", "is for latents of SDXL, as its file says, and those of");
    refuse("wholexl", "is for latents of SDXL");
    assert_true(draw("sd2", false) == own);
    refuse("torn", "tensor first_stage_model.decoder.mid.block_1.conv2");
    refuse("more", "tensor first_stage_model.decoder.adapter is not part of");
    refuse("empty", "has no decoder");
    refuse("text", "the VAE 'text'");
    job = job_of("decoder", true);
    expect_job_refused(&job, "image", "no encoder");
    job = job_of(NULL, true); /* the check takes the VAE up */
    assert_int_equal(engine_job_check(model, &job, NULL), 0);
    assert_true(draw(NULL, false) == own);
    close_model();
}

static void a_model_without_one_draws_with_another(void **state)
{
    static const struct small_model bald = {.without_prefix = PREFIX};
    uint64_t own, bright, started;

    (void)state;
    open_model("ref");
    own = draw(NULL, false);
    bright = draw("bright", false);
    started = draw(NULL, true);
    close_model();
    open_engine("ref", NULL);
    model = small_engine_load(&bald);
    refuse(NULL, "has no VAE of its own, and no other one is named");
    assert_true(draw("bare", false) == own);
    assert_true(draw("bare", true) == started);
    refuse("none", "(\"vae\"), or with --vae");
    assert_true(draw("bright", false) == bright);
    refuse("narrow", "reads latents of 2 channels and 8 pixels a side, those of");
    refuse("coarse", "4 channels and 4 pixels a side");
    assert_true(draw("bright", false) == bright);
    close_model();
    open_engine("ref", "bare.safetensors");
    model = small_engine_load(&bald);
    assert_true(draw(NULL, false) == own);
    assert_true(draw("bright", false) == bright);
    assert_true(draw("automatic", true) == started);
    close_model();
}

/* what is torn is not taken for what is not there */
static void a_torn_one_is_refused(void **state)
{
    char *path = small_model_write(
        &(struct small_model){.without = PREFIX "decoder.conv_in.weight"});
    struct err err = {0};

    (void)state;
    open_engine("ref", NULL);
    assert_int_equal(engine_model_load(&model, engine, path, NULL, &err), -1);
    assert_non_null(strstr(err.message, "has no decoder"));
    engine_close(engine);
    unlink(path);
    free(path);
}

static void one_for_all_pictures(void **state)
{
    uint64_t own, bright;
    char *path = small_model_write(&(struct small_model){0});
    struct err err = {0};

    (void)state;
    open_model("ref");
    own = draw(NULL, false);
    bright = draw("bright", false);
    close_model();
    open_engine("ref", "bright");
    model = small_engine_load(&(struct small_model){0});
    assert_true(draw(NULL, false) == bright);
    assert_true(draw("None", false) == own);
    assert_true(draw("Automatic", false) == bright);
    close_model();
    open_engine("ref", "brihgt");
    assert_int_equal(engine_model_load(&model, engine, path, NULL, &err), -1);
    assert_non_null(strstr(err.message, "there is no VAE 'brihgt'"));
    engine_close(engine);
    unlink(path);
    free(path);
}

/* ---- the program ---- */

static int set_up(void **state)
{
    uint8_t rgb[32 * 32 * 3];
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    put_files();
    for (size_t i = 0; i < sizeof(rgb); i++)
        rgb[i] = (uint8_t)(i * 5);
    check(image_png_encode(rgb, 32, 32, NULL, 0, &picture, &err), &err);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_tree(folder);
    buf_release(&picture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_weights_draw_the_same),
        cmocka_unit_test(the_others_stay_packed),
        cmocka_unit_test(a_file_that_changed_is_read_again),
        cmocka_unit_test(the_picture_says_which),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_model_without_one_draws_with_another),
        cmocka_unit_test(a_torn_one_is_refused),
        cmocka_unit_test(one_for_all_pictures),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

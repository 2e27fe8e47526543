/* TAESD as the VAE of a job: in every shape that it is given away in it draws the same picture, bit for bit, with its
 * encoder beside it or not; its memory is counted, its tiles fit together; and what is damaged or does not fit is a
 * sentence. That the picture is right is tests/golden/test_taesd.c's to say. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/image/png.h"

#include "remove_tree.h"
#include "small_engine.h"
#include "small_taesd.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LARGE = 296
}; /* two tiles and a bit in both directions; there the VAE takes more than the U-Net */

static char folder[] = "/tmp/mysti-taesd-files-XXXXXX";
static struct buf picture; /* to start from, a PNG */

static void make_folder(const char *name)
{
    char *path = file_join(folder, name);
    struct err err = {0};

    check(file_make_folder(path, 0700, &err), &err);
    free(path);
}

static void put_text(const char *name, const char *text)
{
    char *path = file_join(folder, name);
    struct err err = {0};

    check(file_write_atomic(path, text, strlen(text), 0600, &err), &err);
    free(path);
}

static void put_files(void)
{
    static const struct small_taesd decoder = {TAESD_ORIGINAL, .only = "decoder"},
                                    encoder = {TAESD_ORIGINAL, .only = "encoder"};

    small_taesd_write(folder, "both.safetensors", &(struct small_taesd){0});
    small_taesd_write(folder, "comfy.safetensors",
                      &(struct small_taesd){.naming = TAESD_COMFY});
    small_taesd_write(folder, "taesd_decoder.pth", &decoder);
    small_taesd_write(folder, "taesd_encoder.pth", &encoder);
    small_taesd_write(folder, "alone_decoder.pth", &decoder);
    small_taesd_write(folder, "lost_encoder.pth", &encoder);
    /* what is called like its other half is none */
    small_taesd_write(folder, "odd_decoder.pth", &decoder);
    small_taesd_write(folder, "odd_encoder.pth", &decoder);
    small_taesd_write(folder, "torn.safetensors",
                      &(struct small_taesd){.without = "decoder.layers.3.conv.2."});
    small_taesd_write(folder, "more.safetensors",
                      &(struct small_taesd){.extra = "decoder.layers.2.pool.0"});
    small_taesd_write(folder, "flux.safetensors",
                      &(struct small_taesd){.channels = 16});
    small_taesd_write(folder, "coarse.safetensors",
                      &(struct small_taesd){.without = "decoder.layers.16."});
    small_taesd_write(folder, "headless.safetensors",
                      &(struct small_taesd){.without = "decoder.layers.0."});
    small_taesd_write(folder, "endless.safetensors",
                      &(struct small_taesd){.without = "decoder.layers.18."});
    small_taesd_write(folder, "rotten.safetensors",
                      &(struct small_taesd){.broken = "decoder.layers.2.conv.0.bias"});
    make_folder("tiny");
    small_taesd_write(folder, "tiny/diffusion_pytorch_model.safetensors",
                      &(struct small_taesd){0});
    put_text("tiny/config.json", "{\"_class_name\":\"AutoencoderTiny\"}");
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    uint8_t **rgb = user;

    (void)err;
    *rgb = mem_alloc((size_t)image->width * (size_t)image->height * 3);
    memcpy(*rgb, image->rgb, (size_t)image->width * (size_t)image->height * 3);
    return true;
}

static struct engine_job job_of(const char *vae, int side, bool from_picture)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = job.height = side;
    job.steps = 1;
    job.seed = 5;
    job.vae = vae;
    if (from_picture)
        job.start.image = (struct engine_file){picture.data, picture.len};
    return job;
}

/* free() it */
static uint8_t *draw_job(const struct engine_job *job)
{
    struct engine_events events = {.on_image = on_image};
    uint8_t *rgb = NULL;
    struct err err = {0};

    events.user = &rgb;
    check(engine_generate(model, job, &events, &err), &err);
    assert_non_null(rgb);
    return rgb;
}

static uint8_t *draw(const char *vae, bool from_picture)
{
    struct engine_job job = job_of(vae, 32, from_picture);

    return draw_job(&job);
}

static void expect_same(const char *a, const char *b, bool from_picture)
{
    uint8_t *x = draw(a, from_picture), *y = draw(b, from_picture);

    if (memcmp(x, y, 32 * 32 * 3) != 0)
        fail_msg("%s and %s draw different pictures", a, b);
    free(x);
    free(y);
}

static void every_shape_draws_the_same(void **state)
{
    static const char *const with_encoder[] = {"comfy", "taesd_decoder",
                                               "taesd_encoder.pth", "taesd", "tiny"};
    uint8_t *own, *tiny;

    (void)state;
    for (size_t i = 0; i < sizeof(with_encoder) / sizeof(*with_encoder); i++) {
        expect_same("both", with_encoder[i], false);
        expect_same("both", with_encoder[i], true);
    }
    expect_same("both", "alone_decoder", false);
    expect_same("both", "odd_decoder", false);
    own = draw(NULL, false);
    tiny = draw("both", false);
    assert_memory_not_equal(own, tiny, 32 * 32 * 3);
    free(own);
    free(tiny);
}

static void a_decoder_alone_cannot_begin_with_a_picture(void **state)
{
    struct engine_job job = job_of("alone_decoder", 32, true);

    (void)state;
    expect_job_refused(&job, "image", "no encoder");
    job.vae = "odd_decoder";
    expect_job_refused(&job, "image", "no encoder");
    job.vae = "taesd_decoder";
    assert_int_equal(engine_job_check(model, &job, NULL), 0);
}

static void refuse(const char *vae, const char *sentence)
{
    struct engine_job job = job_of(vae, 32, false);
    struct err err = {0};

    assert_int_equal(engine_job_check(model, &job, &err), -1);
    assert_string_equal(err.param, "vae");
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    refuse("lost_encoder", "is the encoder of a TAESD alone");
    refuse("torn", "decoder.layers.3.conv.2.bias is missing");
    refuse("more", "decoder.layers.2.pool.0 is not part of");
    refuse("flux", "reads latents of 16 channels and 8 pixels a side, those of");
    refuse("coarse", "4 channels and 4 pixels a side");
    refuse("headless", "does not begin with a convolution");
    refuse("endless", "its decoder makes 512 x 512 pixels of 16 channels");
    refuse("tae", "there is no VAE 'tae' in the VAE folder");
}

static void a_damaged_one_is_no_black_picture(void **state)
{
    (void)state;
    refuse("rotten", "decoder.layers.2.conv.0.bias holds what is no finite number");
}

static void memory_is_what_was_said(void **state)
{
    struct engine_job job = job_of("both", LARGE, false);

    (void)state;
    free(draw_job(&job)); /* packed now */
    expect_growth(&job);
}

static void tiles_fit_together(void **state)
{
    enum { COUNT = LARGE * LARGE * 3 };
    struct engine_job job = job_of("both", LARGE, true);
    struct engine_estimate e;
    struct err err = {0};
    uint8_t *whole, *tiled;
    double mean = 0;
    bool is_same;

    (void)state;
    whole = draw_job(&job);
    job.budget_bytes = 1;
    check(engine_estimate(model, &job, &e, &err), &err);
    assert_non_null(strstr(e.way, "tiles"));
    job.budget_bytes = e.peak_bytes - e.resident_bytes;
    tiled = draw_job(&job);
    is_same = memcmp(whole, tiled, COUNT) == 0;
    for (int i = 0; i < COUNT; i++)
        mean += (double)abs(whole[i] - tiled[i]) / COUNT;
    assert_false(is_same);
    assert_true(mean < 3); /* no norm looks beyond a tile */
    free(whole);
    free(tiled);
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
    check(engine_open(&engine,
                      &(struct engine_options){
                          .threads = 2, .backend = "ref", .vae_folder = folder},
                      &err),
          &err);
    model = small_engine_load(&(struct small_model){0});
    return 0;
}

static int tear_down(void **state)
{
    small_engine_tear_down(state);
    remove_tree(folder);
    buf_release(&picture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_draws_the_same),
        cmocka_unit_test(a_decoder_alone_cannot_begin_with_a_picture),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_damaged_one_is_no_black_picture),
        cmocka_unit_test(memory_is_what_was_said),
        cmocka_unit_test(tiles_fit_together),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

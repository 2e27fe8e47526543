/* What becomes of a picture and its mask before and after the drawing: where the mask keeps something it comes out
 * bit for bit, only the masked part travels when that is asked for, alpha and white mean the same, "fill" takes the
 * colours around, and what cannot be is a sentence. On the reference back end, with the small model where one is needed. */
#include "base/mem.h"
#include "engine/image/png.h"
#include "engine/start.h"

#include "small_engine.h"
#include "unit.h"

#include <string.h>
#include <unistd.h>

enum { WIDE = 64, HIGH = 48 };

/* ---- pictures to work with ---- */

typedef void paint_fn(int x, int y, uint8_t rgb[3]);

static void stripes(int x, int y, uint8_t rgb[3])
{
    rgb[0] = (uint8_t)(x * 3);
    rgb[1] = (uint8_t)(y * 5);
    rgb[2] = (uint8_t)((x ^ y) * 7);
}

static bool in_box(int x, int y)
{
    return x >= 24 && x < 40 && y >= 16 && y < 32;
}

static void white_box(int x, int y, uint8_t rgb[3])
{
    memset(rgb, in_box(x, y) ? 255 : 0, 3);
}

static void black(int x, int y, uint8_t rgb[3])
{
    (void)x;
    (void)y;
    memset(rgb, 0, 3);
}

/* red everywhere but in the box, which is green */
static void green_box(int x, int y, uint8_t rgb[3])
{
    memset(rgb, 0, 3);
    rgb[in_box(x, y)] = 250;
}

static struct buf png_of(paint_fn *paint, int wide, int high)
{
    uint8_t *rgb = mem_alloc((size_t)wide * (size_t)high * 3);
    struct buf png = {0};
    struct err err = {0};

    for (int y = 0; y < high; y++)
        for (int x = 0; x < wide; x++)
            paint(x, y, rgb + ((size_t)y * (size_t)wide + (size_t)x) * 3);
    check(image_png_encode(rgb, (unsigned)wide, (unsigned)high, NULL, 0, &png, &err),
          &err);
    free(rgb);
    return png;
}

static struct engine_job job_of(const struct buf *image, const struct buf *mask)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = WIDE;
    job.height = HIGH;
    job.steps = 3;
    job.seed = 1;
    job.start.image = (struct engine_file){image->data, image->len};
    if (mask)
        job.start.mask = (struct engine_file){mask->data, mask->len};
    return job;
}

/* ---- whole jobs ---- */

struct drawn {
    int width, height;
    uint8_t *rgb;
    char parameters[2000];
};

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct drawn *d = user;
    size_t bytes = (size_t)image->width * (size_t)image->height * 3;

    (void)err;
    d->width = image->width;
    d->height = image->height;
    d->rgb = mem_alloc(bytes);
    memcpy(d->rgb, image->rgb, bytes);
    snprintf(d->parameters, sizeof(d->parameters), "%s", image->parameters);
    return true;
}

static struct drawn draw(const struct engine_job *job)
{
    struct drawn d = {0};
    struct err err = {0};

    check(engine_generate(model, job,
                          &(struct engine_events){.on_image = on_image, .user = &d},
                          &err),
          &err);
    return d;
}

static int differences(const struct drawn *d, paint_fn *paint, bool inside)
{
    int count = 0;

    for (int y = 0; y < d->height; y++)
        for (int x = 0; x < d->width; x++) {
            uint8_t rgb[3];

            paint(x, y, rgb);
            if (in_box(x, y) == inside)
                count += memcmp(d->rgb + 3 * (y * d->width + x), rgb, 3) != 0;
        }
    return count;
}

static void what_is_masked_out_stays(void **state)
{
    struct buf image = png_of(stripes, WIDE, HIGH),
               mask = png_of(white_box, WIDE, HIGH);
    struct engine_job job = job_of(&image, &mask);
    struct drawn d;

    (void)state;
    job.start.mask_blur = 0;
    for (int fill = ENGINE_FILL_ORIGINAL; fill <= ENGINE_FILL_NOTHING; fill++) {
        job.start.fill = (enum engine_fill)fill;
        d = draw(&job);
        assert_int_equal(d.width, WIDE);
        assert_int_equal(differences(&d, stripes, false), 0);
        assert_true(differences(&d, stripes, true) > 100); /* of 256 */
        assert_non_null(strstr(d.parameters, "Denoising strength: 0.75, Mask blur: 0"));
        free(d.rgb);
    }
    buf_release(&image);
    buf_release(&mask);
}

static void a_black_mask_keeps_everything(void **state)
{
    struct buf image = png_of(stripes, WIDE, HIGH), mask = png_of(black, WIDE, HIGH);
    struct engine_job job = job_of(&image, &mask);
    struct drawn d = draw(&job);

    (void)state;
    assert_int_equal(differences(&d, stripes, false), 0);
    assert_int_equal(differences(&d, stripes, true), 0);
    free(d.rgb);
    buf_release(&image);
    buf_release(&mask);
}

static void only_the_masked_part_keeps_the_pictures_size(void **state)
{
    struct buf image = png_of(stripes, 200, 100), mask = png_of(white_box, 200, 100);
    struct engine_job job = job_of(&image, &mask);
    struct drawn d;

    (void)state;
    job.start.mask_blur = 0;
    job.start.only_masked = true;
    job.start.padding = 4;
    d = draw(&job);
    assert_int_equal(d.width, 200);
    assert_int_equal(d.height, 100);
    assert_int_equal(differences(&d, stripes, false), 0);
    assert_true(differences(&d, stripes, true) > 100);
    free(d.rgb);
    buf_release(&image);
    buf_release(&mask);
}

/* More strength moves further away, and the same seed says the same. */
static void strength_counts(void **state)
{
    struct buf image = png_of(stripes, WIDE, HIGH);
    struct engine_job job = job_of(&image, NULL);
    double moved[2];
    struct drawn before = {0};

    (void)state;
    job.start.strength = 0;
    before = draw(&job);
    for (int i = 0; i < 2; i++) {
        struct drawn d, again;

        job.start.strength = i ? 1 : 0.4;
        d = draw(&job);
        again = draw(&job);
        assert_memory_equal(d.rgb, again.rgb, (size_t)WIDE * HIGH * 3);
        moved[i] = 0;
        for (int k = 0; k < WIDE * HIGH * 3; k++)
            moved[i] += abs(d.rgb[k] - before.rgb[k]);
        free(d.rgb);
        free(again.rgb);
    }
    assert_true(moved[0] > 0);
    assert_true(moved[1] > moved[0]);
    free(before.rgb);
    buf_release(&image);
}

/* ---- the pieces ---- */

static void the_region_has_the_jobs_proportions(void **state)
{
    struct buf image = png_of(stripes, 200, 100), mask = png_of(white_box, 200, 100);
    struct engine_job job = job_of(&image, &mask);
    struct start *s;
    struct err err = {0};

    (void)state;
    job.start.mask_blur = 0;
    job.start.only_masked = true;
    job.start.padding = 4;
    check(start_open(&s, &job, 8, &err), &err);
    assert_int_equal(s->region.high, 24); /* 16 and 4 on each side */
    assert_int_equal(s->region.wide, 32); /* 24 * 64 / 48 */
    assert_int_equal(s->region.x, 16);
    assert_int_equal(s->region.y, 12);
    start_free(s);
    job.start.padding = 1000; /* all there is */
    check(start_open(&s, &job, 8, &err), &err);
    assert_int_equal(s->region.wide, 200);
    assert_int_equal(s->region.high, 100);
    start_free(s);
    buf_release(&image);
    buf_release(&mask);
}

static void latent_pixels_are_kept_or_drawn(void **state)
{
    struct buf image = png_of(stripes, WIDE, HIGH),
               mask = png_of(white_box, WIDE, HIGH);
    struct engine_job job = job_of(&image, &mask);
    struct start *s;
    struct err err = {0};

    (void)state;
    check(start_open(&s, &job, 8, &err), &err);
    for (int y = 0; y < HIGH / 8; y++)
        for (int x = 0; x < WIDE / 8; x++)
            assert_true(s->keep[y * WIDE / 8 + x] == (in_box(x * 8, y * 8) ? 0 : 1));
    start_free(s);
    buf_release(&image);
    buf_release(&mask);
}

/* What a model for inpainting sees: grey where it is to draw, at the pixel, and each latent pixel's mask. */
static void the_masked_part_is_not_shown(void **state)
{
    struct buf image = png_of(stripes, WIDE, HIGH),
               mask = png_of(white_box, WIDE, HIGH);
    struct engine_job job = job_of(&image, &mask);
    static float pixels[WIDE * HIGH * 3], latent[WIDE / 8 * HIGH / 8];
    struct start *s;
    struct err err = {0};

    (void)state;
    job.start.mask_blur = 0;
    check(start_open(&s, &job, 8, &err), &err);
    check(start_show(s, pixels, latent, &err), &err);
    for (int y = 0; y < HIGH; y++)
        for (int x = 0; x < WIDE; x++) {
            size_t at = (size_t)y * WIDE + (size_t)x;

            for (size_t c = 0; c < 3; c++)
                assert_true(pixels[3 * at + c] ==
                            (in_box(x, y) ? 0 : s->pixels[3 * at + c]));
            assert_true(latent[y / 8 * (WIDE / 8) + x / 8] == (in_box(x, y) ? 1 : 0));
        }
    start_free(s);
    buf_release(&image);
    buf_release(&mask);
}

static void fill_takes_the_colours_around(void **state)
{
    struct buf image = png_of(green_box, WIDE, HIGH);
    struct buf mask = png_of(white_box, WIDE, HIGH);
    struct engine_job job = job_of(&image, &mask);
    struct start *s;
    struct err err = {0};
    const float *middle;

    (void)state;
    job.start.fill = ENGINE_FILL_AROUND;
    job.start.mask_blur = 0; /* a soft edge would let its own colours in */
    check(start_open(&s, &job, 8, &err), &err);
    middle = s->pixels + 3 * (24 * WIDE + 32);
    assert_true(middle[0] > 0.9F);  /* red came in */
    assert_true(middle[1] < -0.9F); /* green is gone */
    start_free(s);
    buf_release(&image);
    buf_release(&mask);
}

static void expect_size(int wide, int high, int job_wide, int job_high)
{
    struct buf image = png_of(stripes, wide, high);
    struct engine_job job = job_of(&image, NULL);

    job.width = job.height = 512;
    engine_start_fit(&job);
    assert_int_equal(job.width, job_wide);
    assert_int_equal(job.height, job_high);
    buf_release(&image);
}

static void a_size_that_fits_the_picture(void **state)
{
    struct buf text = {0};
    struct engine_job job = job_of(&text, NULL);

    (void)state;
    expect_size(64, 64, 512, 512);
    expect_size(800, 600, 592, 440); /* 4:3, with as many pixels */
    expect_size(30, 600, 112, 2048); /* no side beyond what can be drawn */
    expect_size(700, 2, 2048, 24);
    buf_append_str(&text, "no picture");
    job.start.image = (struct engine_file){text.data, text.len};
    engine_start_fit(&job);
    assert_int_equal(job.width, WIDE); /* as it was: the check says what is wrong */
    assert_int_equal(job.height, HIGH);
    buf_release(&text);
}

static void expect_refused(const struct engine_job *job, const char *param,
                           const char *sentence)
{
    struct engine_estimate estimate;
    struct err err = {0};

    assert_int_equal(engine_generate(model, job, NULL, &err), -1);
    if (strcmp(err.param, param) != 0 || !strstr(err.message, sentence))
        fail_msg("'%s' (%s) lacks '%s' (%s)", err.message, err.param, sentence, param);
    assert_int_equal(engine_estimate(model, job, &estimate, NULL), -1);
}

static void what_cannot_be_is_a_sentence(void **state)
{
    struct buf image = png_of(stripes, WIDE, HIGH);
    struct buf none = {0}, text = {0};
    struct engine_job job = job_of(&image, NULL);
    enum engine_fill fill;
    struct err err = {0};

    (void)state;
    buf_append_str(&text, "this is no picture at all");
    job.start.strength = 1.5;
    expect_refused(&job, "strength", "strength is 1.5, 0 to 1 are possible");
    job = job_of(&image, &text);
    expect_refused(&job, "", "the mask: the picture is neither PNG nor JPEG nor WebP");
    job = job_of(&text, NULL);
    expect_refused(&job, "", "the picture to start from: the picture is neither PNG");
    job = job_of(&none, &image);
    expect_refused(&job, "mask", "a mask without a picture");
    job = job_of(&image, NULL);
    job.start.mask_blur = -1;
    expect_refused(&job, "mask_blur", "0 to 256 pixels");
    assert_int_equal(engine_fill_parse("glitter", &fill, &err), -1);
    assert_non_null(strstr(err.message, "original, fill, latent noise"));
    assert_int_equal(engine_fill_parse("2", &fill, &err), 0);
    assert_int_equal(fill, ENGINE_FILL_NOISE);
    buf_release(&image);
    buf_release(&text);
}

/* The picture's own bytes and the encoder's arena are in the estimate. */
static void the_estimate_counts_the_start(void **state)
{
    struct buf image = png_of(stripes, 500, 400);
    struct engine_job job = job_of(&image, NULL);
    struct engine_estimate with, without;
    struct err err = {0};

    (void)state;
    check(engine_estimate(model, &job, &with, &err), &err);
    job.start.image = (struct engine_file){0};
    check(engine_estimate(model, &job, &without, &err), &err);
    assert_true(with.peak_bytes > without.peak_bytes + 500 * 400 * 4);
    buf_release(&image);
}

static void a_model_without_encoder_says_so(void **state)
{
    char *path = small_model_write(
        &(struct small_model){.without_prefix = "first_stage_model.encoder."});
    struct buf image = png_of(stripes, WIDE, HIGH);
    struct engine_model *whole = model;
    struct engine_job job;
    struct err err = {0};

    (void)state;
    check(engine_model_load(&model, engine, path, NULL, &err), &err);
    job = job_of(&image, NULL);
    expect_refused(&job, "image",
                   "cannot start from a picture: its file has no encoder");
    engine_model_free(model);
    model = whole;
    unlink(path);
    free(path);
    buf_release(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_masked_out_stays),
        cmocka_unit_test(a_black_mask_keeps_everything),
        cmocka_unit_test(only_the_masked_part_keeps_the_pictures_size),
        cmocka_unit_test(strength_counts),
        cmocka_unit_test(the_region_has_the_jobs_proportions),
        cmocka_unit_test(latent_pixels_are_kept_or_drawn),
        cmocka_unit_test(the_masked_part_is_not_shown),
        cmocka_unit_test(fill_takes_the_colours_around),
        cmocka_unit_test(a_size_that_fits_the_picture),
        cmocka_unit_test(what_cannot_be_is_a_sentence),
        cmocka_unit_test(the_estimate_counts_the_start),
        cmocka_unit_test(a_model_without_encoder_says_so),
    };

    return cmocka_run_group_tests(tests, small_engine_set_up, small_engine_tear_down);
}

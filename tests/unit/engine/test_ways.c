/* The ways to draw when memory is short: each takes less than the one before, none more than it said, the exact ones draw
 * the same picture and those in tiles nearly the same; and nothing of it is left over in the next job. */
#include "engine/engine.h"

#include "base/buf.h"
#include "base/mem.h"
#include "engine/model.h"
#include "engine/text/tokenizer.h"

#include "small_engine.h"
#include "unit.h"

#include <math.h>
#include <string.h>

#define STARTER "models/starter/starter-painter.safetensors"

static int width, height, count; /* of the pictures; numbers in one */

/* ---- what a job takes ---- */

struct drawn {
    uint8_t *rgb; /* [count] */
    long before, most;
};

static bool watch(void *user)
{
    struct drawn *d = user;
    long now = anonymous_bytes();

    d->most = now > d->most ? now : d->most;
    return false;
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct drawn *d = user;

    (void)err;
    assert_int_equal(image->width * image->height * 3, count);
    memcpy(d->rgb, image->rgb, (size_t)count);
    return true;
}

static struct engine_job a_job(uint64_t budget)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = width;
    job.height = height;
    job.steps = 1;
    job.seed = 3;
    job.budget_bytes = budget;
    return job;
}

static struct drawn draw_job(const struct engine_job *job)
{
    struct drawn d = {.rgb = mem_alloc((size_t)count)};
    struct err err = {0};

    d.before = d.most = anonymous_bytes();
    check(engine_generate(model, job,
                          &(struct engine_events){
                              .on_image = on_image, .is_cancelled = watch, .user = &d},
                          &err),
          &err);
    return d;
}

static struct drawn draw(uint64_t budget)
{
    struct engine_job job = a_job(budget);

    return draw_job(&job);
}

static uint64_t growth(const struct engine_estimate *e)
{
    return e->peak_bytes - e->resident_bytes;
}

/* the largest and the mean difference, of 255 */
static void differ(const struct drawn *a, const struct drawn *b, int *ret_most,
                   double *ret_mean)
{
    *ret_most = 0;
    *ret_mean = 0;
    for (int i = 0; i < count; i++) {
        int d = abs(a->rgb[i] - b->rgb[i]);

        *ret_most = d > *ret_most ? d : *ret_most;
        *ret_mean += (double)d / count;
    }
}

/* ---- the ways ---- */

static void expect_like(const char *way, const struct drawn *whole,
                        const struct drawn *d, bool is_ref)
{
    bool is_tiled = strstr(way, "tiles") != NULL;
    double mean;
    int most;

    differ(whole, d, &most, &mean);
    if (is_ref && !is_tiled && most != 0)
        fail_msg("%s differs by %d", way, most);
    if (is_tiled ? mean > 12 : most > 24)
        fail_msg("%s differs by %d, %.2f on average", way, most, mean);
    if (is_tiled && most == 0)
        fail_msg("%s: there were no tiles", way);
}

/* Sanitizers have memory of their own. */
static void expect_kept(const char *way, const struct drawn *d, uint64_t promised)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    /* what the allocator keeps between the engine's own blocks */
    if (d->most - d->before > (long)promised + (2 << 20))
        fail_msg("%s: %ld bytes, %llu were promised", way, d->most - d->before,
                 (unsigned long long)promised);
#else
    (void)way;
    (void)d;
    (void)promised;
#endif
}

static uint64_t resident(void)
{
    struct engine_model_info info;

    engine_model_info(model, &info);
    return info.resident_bytes;
}

static void expect_ways(bool is_ref)
{
    struct engine_job job = a_job(0);
    struct engine_estimate e;
    struct drawn whole = draw(0), again;
    struct err err = {0};
    uint64_t before = UINT64_MAX, loaded = resident();
    bool was_exact = false, was_tiled = false;
    int most;
    double mean;

    for (;;) {
        struct drawn d;

        check(engine_estimate(model, &job, &e, &err), &err);
        if (job.budget_bytes && growth(&e) > job.budget_bytes)
            break;

        was_exact |= strcmp(e.way, "released") == 0 || strcmp(e.way, "apart") == 0;
        was_tiled |= strcmp(e.way, "small_tiles") == 0;
        /* the exact ones come first; in bf16 the decoder takes so much that none of them would take less */
        assert_true(was_exact || !was_tiled || !is_ref);
        assert_true(growth(&e) < before);
        before =
            growth(&e); /* a text encoder that is out counts as what is still packed */
        d = draw(before);
        expect_like(e.way, &whole, &d, is_ref);
        expect_kept(e.way, &d, before);
        /* the text encoder leaves from the third way on */
        assert_int_equal(resident() < loaded,
                         strcmp(e.way, "whole") != 0 && strcmp(e.way, "apart") != 0);
        free(d.rgb);
        job.budget_bytes = before / 100 * 98;
    }
    assert_true(was_tiled);
    job.budget_bytes = 1;
    assert_int_equal(engine_generate(model, &job, NULL, &err), -1);
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_non_null(strstr(err.message, "in small pieces"));
    again = draw(0);
    differ(&whole, &again, &most, &mean);
    assert_int_equal(most, 0);
    free(whole.rgb);
    free(again.rgb);
}

static void test_ways(void **state)
{
    static const char *const names[] = {"ref", "dnnl", "dnnl"};
    static const char *const weights[] = {NULL, NULL, "int8"};
    static const int sizes[] = {288, 512, 512}; /* tiles are of 256 pixels */

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct engine_options options = {
            .backend = names[i], .weights = weights[i], .threads = 2};
        struct err err = {0};

        if (!strstr(engine_backend_names(), names[i]))
            continue;
        width = height = sizes[i];
        count = width * height * 3;
        check(engine_open(&engine, &options, &err), &err);
        check(engine_model_load(&model, engine, STARTER, NULL, &err), &err);
        expect_ways(i == 0);
        engine_model_free(model);
        engine_close(engine);
    }
}

static bool keep_png(void *user, const struct engine_image *image, struct err *err)
{
    (void)err;
    buf_clear(user);
    buf_append(user, image->png, image->png_bytes);
    return true;
}

/* Into the latent in tiles, too; a picture that is only in one direction larger than a tile. */
static void test_start_in_tiles(void **state)
{
    struct engine_options options = {.backend = "ref", .threads = 2};
    struct buf png = {0};
    struct err err = {0};

    (void)state;
    check(engine_open(&engine, &options, &err), &err);
    check(engine_model_load(&model, engine, STARTER, NULL, &err), &err);
    for (int i = 0; i < 2; i++) {
        struct engine_job job;
        struct engine_estimate e;
        struct drawn whole, tiled;

        width = i ? 104 : 520;
        height = i ? 520 : 104;
        count = width * height * 3;
        job = a_job(0);
        check(engine_generate(
                  model, &job,
                  &(struct engine_events){.on_image = keep_png, .user = &png}, &err),
              &err);
        job.start.image = (struct engine_file){png.data, png.len};
        job.start.strength = 0.2;
        job.steps = 5;
        whole = draw_job(&job);
        job.budget_bytes = 1;
        check(engine_estimate(model, &job, &e, &err), &err);
        assert_string_equal(e.way, "small_tiles");
        job.budget_bytes = growth(&e);
        tiled = draw_job(&job);
        expect_like(e.way, &whole, &tiled, false);
        expect_kept(e.way, &tiled, job.budget_bytes);
        free(whole.rgb);
        free(tiled.rgb);
    }
    buf_release(&png);
    engine_model_free(model);
    engine_close(engine);
}

/* Tiles that are asked for, with all the memory that there is; where a picture is no larger than one there is none. */
static void test_tiles_by_wish(void **state)
{
    struct engine_options options = {.backend = "ref", .threads = 2};
    struct engine_job job;
    struct engine_estimate e;
    struct drawn whole, tiled;
    struct err err = {0};

    (void)state;
    check(engine_open(&engine, &options, &err), &err);
    check(engine_model_load(&model, engine, STARTER, NULL, &err), &err);
    width = 600;
    height = 72;
    count = width * height * 3;
    job = a_job(0);
    whole = draw_job(&job);
    job.vae_tiling = true;
    check(engine_estimate(model, &job, &e, &err), &err);
    assert_string_equal(e.way, "tiles");
    tiled = draw_job(&job);
    expect_like(e.way, &whole, &tiled, true);
    job.width = 512;
    check(engine_estimate(model, &job, &e, &err), &err);
    assert_string_equal(e.way, "whole");
    job.seamless = ENGINE_SEAMLESS_Y;
    assert_int_equal(engine_job_check(model, &job, &err), -1);
    assert_string_equal(err.param, "vae_tiling");
    free(whole.rgb);
    free(tiled.rgb);
    engine_model_free(model);
    engine_close(engine);
}

/* Tiles need room of their own: what is said of the least is of the way that takes least, whichever that is. */
static void test_least(void **state)
{
    static const int sides[][2] = {{328, 104}, {264, 264}, {600, 200}};
    struct engine_options options = {.backend = "ref", .threads = 2};
    struct engine_estimate least, same;
    struct err err = {0};

    (void)state;
    check(engine_open(&engine, &options, &err), &err);
    check(engine_model_load(&model, engine, STARTER, NULL, &err), &err);
    for (int i = 0; i < 3; i++) {
        struct engine_job job;

        width = sides[i][0];
        height = sides[i][1];
        job = a_job(1);
        check(engine_estimate(model, &job, &least, &err), &err);
        job.budget_bytes = growth(&least);
        check(engine_estimate(model, &job, &same, &err), &err);
        assert_string_equal(same.way, least.way);
        assert_int_equal(growth(&same), growth(&least));
    }
    engine_model_free(model);
    engine_close(engine);
}

static void test_not_seamless_in_tiles(void **state)
{
    struct engine_job job;
    struct err err = {0};
    struct engine_estimate e;

    (void)state;
    width = height = 512;
    small_engine_open();
    check(engine_model_load(&model, engine, STARTER, NULL, &err), &err);
    job = a_job(1);
    job.seamless = ENGINE_SEAMLESS_X;
    check(engine_estimate(model, &job, &e, &err), &err);
    assert_true(strstr(e.way, "tiles") == NULL && growth(&e) > job.budget_bytes);
    job.budget_bytes = 0;
    check(engine_estimate(model, &job, &e, &err), &err);
    assert_string_equal(e.way, "whole");
    engine_model_free(model);
    engine_close(engine);
}

/* However small the picture: before the text encoder goes, the prompts are read. */
static void test_prompts_are_read_first(void **state)
{
    struct engine_job job;
    struct engine_estimate e;
    struct err err = {0};
    uint64_t said = 0;

    (void)state;
    small_engine_open();
    model = small_engine_load(&(struct small_model){0});
    width = height = 16;
    job = a_job(1);
    check(engine_estimate(model, &job, &e, &err), &err);
    assert_string_equal(e.way, "released");
    for (int i = 0; i < unet_context_count(model->checkpoint->unet); i++)
        said += (uint64_t)unet_context_channels(model->checkpoint->unet, i);
    said *= 2 * TOKENIZER_CONTEXT * sizeof(float);
    assert_true(growth(&e) > said + model->stages->programs[STAGE_ENCODE]->arena_bytes);
    engine_model_free(model);
    engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ways),
        cmocka_unit_test(test_least),
        cmocka_unit_test(test_start_in_tiles),
        cmocka_unit_test(test_not_seamless_in_tiles),
        cmocka_unit_test(test_tiles_by_wish),
        cmocka_unit_test(test_prompts_are_read_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

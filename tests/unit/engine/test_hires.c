/* Hires fix: the larger latent is PyTorch's, the picture is the one that drawing, enlarging and img2img make one after the other,
 * listeners hear one job, and what cannot be is a sentence. On the reference back end with the small model. */
#include "engine/hires.c"

#include "base/png_text.h"
#include "engine/image/png.h"

#include "small_engine.h"
#include "small_upscaler.h"
#include "unit.h"

#include <unistd.h>

enum { SIDE = 32, LARGE = 64 };

static struct engine_job job_of(const char *upscaler)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = job.height = SIDE;
    job.steps = 4;
    job.seed = 7;
    job.hires = (struct engine_hires){
        .scale = 2, .upscaler = upscaler, .steps = 3, .strength = 0.5};
    return job;
}

struct drawn {
    int count, width, height, index, steps, last_step, stop_at;
    int64_t seed;
    uint8_t *rgb;
    char parameters[2000], phases[200];
    struct buf png;
};

static bool on_drawn(void *user, const struct engine_image *image, struct err *err)
{
    struct drawn *d = user;
    size_t bytes = (size_t)image->width * (size_t)image->height * 3;

    (void)err;
    assert_int_equal(image->index, d->count++);
    d->width = image->width;
    d->height = image->height;
    d->seed = image->seed;
    free(d->rgb);
    d->rgb = mem_alloc(bytes);
    memcpy(d->rgb, image->rgb, bytes);
    buf_clear(&d->png);
    buf_append(&d->png, image->png, image->png_bytes);
    snprintf(d->parameters, sizeof(d->parameters), "%s", image->parameters);
    return true;
}

static void hear_step(void *user, int image, int step, int steps)
{
    struct drawn *d = user;

    assert_int_equal(image, d->count);
    assert_int_equal(step, d->last_step % steps + 1);
    d->last_step = step;
    d->steps = steps;
}

static void hear_phase(void *user, enum engine_phase phase, int image)
{
    struct drawn *d = user;
    size_t at = strlen(d->phases);

    (void)image;
    snprintf(d->phases + at, sizeof(d->phases) - at, "%s ", engine_phase_name(phase));
}

static bool stops(void *user)
{
    const struct drawn *d = user;

    return d->stop_at && d->last_step >= d->stop_at;
}

static int try(const struct engine_job *job, struct drawn *ret, struct err *err)
{
    const struct engine_events events = {.on_image = on_drawn,
                                         .on_step = hear_step,
                                         .on_phase = hear_phase,
                                         .is_cancelled = stops,
                                         .user = ret};

    return engine_generate(model, job, &events, err);
}

static struct drawn draw(const struct engine_job *job)
{
    struct drawn d = {0};
    struct err err = {0};

    check(try(job, &d, &err), &err);
    return d;
}

static void release(struct drawn *d)
{
    free(d->rgb);
    buf_release(&d->png);
}

static void expect_same(const struct drawn *a, const struct drawn *b)
{
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_memory_equal(a->rgb, b->rgb, (size_t)(a->width * a->height * 3));
}

/* ---- the latent ---- */

/* torch.nn.functional.interpolate of [0 1; 2 4], bilinear and nearest */
static void test_latents(void **state)
{
    static const float small[] = {0, 1, 2, 4};
    static const float smooth[] = {0,       0.25F, 0.75F, 1,       0.5F,    0.8125F,
                                   1.4375F, 1.75F, 1.5F,  1.9375F, 2.8125F, 3.25F,
                                   2,       2.5F,  3.5F,  4};
    static const float blocks[] = {0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 4, 4, 2, 2, 4, 4};
    struct checkpoint c = {.vae = {.scale = 8, .latent_channels = 1}};
    struct hires h = {.checkpoint = &c};
    float *got;

    (void)state;
    h.jobs[0].width = h.jobs[0].height = 16;
    h.jobs[1].width = h.jobs[1].height = 32;
    h.cover = (struct upscale_size){32, 32};
    h.latent = mem_alloc(sizeof(small));
    memcpy(h.latent, small, sizeof(small));
    got = enlarge_latent(&h);
    for (int i = 0; i < 16; i++)
        assert_float_equal(got[i], smooth[i], 1e-6F);
    free(got);
    h.how = HOW_LATENT_NEAREST;
    got = enlarge_latent(&h);
    assert_memory_equal(got, blocks, sizeof(blocks));
    free(got);
    /* to another shape: the middle rows of the same */
    h.how = HOW_LATENT;
    h.jobs[1].height = 16;
    got = enlarge_latent(&h);
    for (int i = 0; i < 8; i++)
        assert_float_equal(got[i], smooth[4 + i], 1e-6F);
    free(got);
    /* what goes on at the other side: the first column lies a quarter of the way to the last */
    h.jobs[1].height = 32;
    h.jobs[0].seamless = ENGINE_SEAMLESS_X;
    got = enlarge_latent(&h);
    assert_float_equal(got[0], 0.25F, 1e-6F);
    assert_float_equal(got[1], 0.25F, 1e-6F);
    assert_float_equal(got[3], 0.75F, 1e-6F);
    assert_float_equal(got[12], 2.5F, 1e-6F);
    assert_float_equal(got[15], 3.5F, 1e-6F);
    free(got);
    free(h.latent);
}

static uint8_t *enlarged(struct hires *h, const uint8_t *rgb)
{
    static const struct engine_events nothing;
    size_t bytes = (size_t)h->jobs[1].width * (size_t)h->jobs[1].height * 3;
    uint8_t *ret = mem_alloc(bytes);
    struct err err = {0};

    h->events = &nothing;
    on_picture(h, rgb);
    check(enlarge(h, &err), &err);
    memcpy(ret, h->passes[1].rgb, bytes);
    image_release(&h->picture);
    return ret;
}

/* A picture without borders, moved by some columns, is made larger to the same, moved by as many times more. */
static void test_no_seam(void **state)
{
    enum { W = 48, H = 16, BY = 5 };
    struct checkpoint c = {.vae = {.scale = 8, .latent_channels = 4}};
    struct engine_job job = {.width = W, .height = H, .seamless = ENGINE_SEAMLESS_X};
    uint8_t rgb[W * H * 3], moved[W * H * 3], *a, *b;

    (void)state;
    for (int i = 0; i < W * H * 3; i++) {
        int x = i / 3 % W, y = i / 3 / W;

        rgb[i] = (uint8_t)(x * x * 3 + y * 40 + i % 3 * 70);
        moved[((size_t)y * W + (size_t)((x + BY) % W)) * 3 + (size_t)(i % 3)] = rgb[i];
    }
    for (int k = 0; k < 2; k++) {
        struct hires h = {.checkpoint = &c, .job = &job, .how = HOW_LANCZOS};

        h.jobs[0] = h.jobs[1] = job;
        job.hires = k ? (struct engine_hires){.width = 2 * W, .height = 3 * H}
                      : (struct engine_hires){.scale = 2};
        understand_size(&h, &h.jobs[1].width, &h.jobs[1].height);
        understand_margin(&h);
        assert_int_equal(h.margin.width, MARGIN);
        assert_int_equal(h.margin.height, 0);
        a = enlarged(&h, rgb);
        b = enlarged(&h, moved);
        for (int y = 0; y < h.jobs[1].height && !k; y++)
            for (int x = 0; x < 2 * W; x++)
                assert_memory_equal(a + 3 * (y * 2 * W + x),
                                    b + 3 * (y * 2 * W + (x + 2 * BY) % (2 * W)), 3);
        free(a);
        free(b);
    }
}

/* ---- whole jobs ---- */

/* ComfyUI's way of starting from a picture walks as many steps as the second walk does. */
static struct drawn by_hand(struct engine_upscaler *upscaler, const char *method)
{
    struct engine_job job = job_of(NULL);
    struct drawn small, large = {0}, again;
    struct engine_upscale up = {.factor = 2, .method = method};
    const struct engine_events events = {.on_image = on_drawn, .user = &large};
    struct err err = {0};

    job.dialect = "comfy";
    job.hires = (struct engine_hires){0};
    small = draw(&job);
    up.image = (struct engine_file){small.png.data, small.png.len};
    check(engine_upscale(upscaler, &up, &events, &err), &err);
    job.width = job.height = LARGE;
    job.steps = 3;
    job.start.image = (struct engine_file){large.png.data, large.png.len};
    job.start.strength = 0.5;
    again = draw(&job);
    release(&small);
    release(&large);
    return again;
}

static void test_pixels(void **state)
{
    char *path = small_upscaler_write(&(struct small_upscaler){0});
    struct engine_upscaler *u;
    struct err err = {0};

    (void)state;
    check(engine_upscaler_open(&u, engine, path, &err), &err);
    for (int i = 0; i < 3; i++) {
        const char *names[] = {"lanczos", "Nearest", path};
        struct engine_job job = job_of(names[i]);
        struct drawn expected = by_hand(i == 2 ? u : NULL, i == 2 ? NULL : names[i]);
        struct drawn got;

        job.dialect = "comfy";
        got = draw(&job);
        expect_same(&got, &expected);
        release(&expected);
        release(&got);
    }
    engine_upscaler_close(u);
    unlink(path);
    free(path);
}

/* To another shape: what covers it, and then its middle. */
static void test_another_shape(void **state)
{
    struct engine_job job = job_of(NULL), with = job_of("nearest");
    struct engine_upscale up = {.factor = 3, .method = "nearest"};
    struct drawn small, large = {0}, expected, got;
    const struct engine_events events = {.on_image = on_drawn, .user = &large};
    struct buf png = {0};
    struct err err = {0};

    (void)state;
    job.dialect = with.dialect = "comfy";
    with.hires.scale = 0;
    with.hires.width = 64;
    with.hires.height = 96;
    got = draw(&with);
    assert_non_null(strstr(got.parameters, "Hires resize: 64x96"));
    job.hires = (struct engine_hires){0};
    small = draw(&job);
    up.image = (struct engine_file){small.png.data, small.png.len};
    check(engine_upscale(NULL, &up, &events, &err), &err);
    for (int y = 0; y < 96; y++)
        memmove(large.rgb + 3 * 64 * y, large.rgb + 3 * (96 * y + 16), 3 * 64);
    check(image_png_encode(large.rgb, 64, 96, NULL, 0, &png, &err), &err);
    job.width = 64;
    job.height = 96;
    job.steps = 3;
    job.start.image = (struct engine_file){png.data, png.len};
    job.start.strength = 0.5;
    expected = draw(&job);
    expect_same(&got, &expected);
    release(&small);
    release(&large);
    release(&got);
    release(&expected);
    buf_release(&png);
}

static void test_latent_job(void **state)
{
    struct engine_job job = job_of("Latent"), plain = job_of(NULL), other = job;
    struct drawn got, same, nearest, first, second;

    (void)state;
    got = draw(&job);
    assert_int_equal(got.width, LARGE);
    assert_int_equal(got.steps, 7);
    assert_string_equal(got.phases, "encode sample upscale sample decode ");
    assert_non_null(strstr(got.parameters, "Steps: 4, "));
    assert_non_null(strstr(got.parameters, "Size: 32x32"));
    assert_non_null(strstr(got.parameters,
                           ", Denoising strength: 0.5, Hires upscale: 2, Hires steps: "
                           "3, Hires upscaler: Latent, "));
    same = draw(&plain);
    expect_same(&got, &same); /* latent is what is taken if nothing is said */
    other.hires.upscaler = "latent-nearest";
    nearest = draw(&other);
    assert_memory_not_equal(got.rgb, nearest.rgb, (size_t)(LARGE * LARGE * 3));
    /* several pictures are those of their seeds */
    job.count = 2;
    second = draw(&job);
    assert_int_equal(second.count, 2);
    assert_int_equal(second.seed, 8);
    job.count = 1;
    job.seed = 8;
    job.hires.scale = 0;
    job.hires.width = LARGE; /* the same size, said otherwise */
    first = draw(&job);
    expect_same(&first, &second);
    assert_non_null(strstr(first.parameters, "Hires resize: 64x64"));
    release(&got);
    release(&same);
    release(&nearest);
    release(&first);
    release(&second);
}

/* What a prompt says in the second walk is what it said at the end of the first. */
static void test_prompts(void **state)
{
    float latent[LARGE / 8 * LARGE / 8 * 4] = {0};
    struct engine_job job = job_of(NULL), whole = job;
    const struct engine_pass pass = {
        .whole = &whole, .upscaler = "x", .steps_before = 4, .latent = latent};
    struct drawn changed, plain, other;

    (void)state;
    job.width = job.height = LARGE;
    job.pass = &pass;
    job.start.strength = 0.5;
    job.prompt = "a [cat:dog:0.5]";
    changed = draw(&job);
    job.prompt = "a dog";
    plain = draw(&job);
    job.prompt = "a cat";
    other = draw(&job);
    expect_same(&changed, &plain);
    assert_memory_not_equal(changed.rgb, other.rgb, (size_t)(LARGE * LARGE * 3));
    release(&changed);
    release(&plain);
    release(&other);
}

static void test_cancel(void **state)
{
    struct engine_job job = job_of(NULL);

    (void)state;
    for (int step = 2; step <= 6; step += 4) { /* in the first walk, in the second */
        struct drawn d = {.stop_at = step};
        struct err err = {0};

        assert_int_equal(try(&job, &d, &err), -1);
        assert_int_equal(err.code, ERR_CANCELLED);
        assert_int_equal(d.last_step, step);
        release(&d);
    }
}

static void test_memory(void **state)
{
    struct engine_job job = job_of("lanczos"), large = job_of(NULL);
    struct engine_estimate hires, plain;
    struct err err = {0};

    (void)state;
    large.width = large.height = LARGE;
    large.hires = (struct engine_hires){0};
    check(engine_estimate(model, &job, &hires, &err), &err);
    check(engine_estimate(model, &large, &plain, &err), &err);
    assert_true(hires.peak_bytes >
                plain.peak_bytes); /* and the picture it begins with */
    assert_true(hires.peak_bytes < plain.peak_bytes + plain.peak_bytes / 2);
}

static uint64_t growth_of(const struct engine_job *job)
{
    struct engine_estimate e;
    struct err err = {0};

    check(engine_estimate(model, job, &e, &err), &err);
    return e.peak_bytes - e.resident_bytes;
}

/* The larger picture that the second walk begins with is in the budget. */
static void test_budget(void **state)
{
    struct engine_job job = job_of("lanczos");
    struct drawn whole, apart;

    (void)state;
    job.seed = 3;
    whole = draw(&job);
    job.budget_bytes = growth_of(&job) - 1;
    assert_in_range(growth_of(&job), 1, job.budget_bytes);
    apart = draw(&job);
    assert_int_equal(model->stages->size.apart, 1);
    expect_same(&apart, &whole);
    release(&whole);
    release(&apart);
}

/* What the first walk packs is in it, too: the text encoder, or the VAE. */
static void test_packed_by_the_first(void **state)
{
    static const enum stage stages[] = {STAGE_ENCODE, STAGE_DECODE};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct engine_job job = job_of(i ? "nearest" : NULL);
        struct drawn d = draw(&job);

        engine->backend->ops->unload(model->stages->programs[stages[i]]);
        release(&d);
        job.budget_bytes = growth_of(&job) - 1;
        assert_in_range(growth_of(&job), 1, job.budget_bytes);
        assert_int_equal(model->stages->size.apart, 1);
        d = draw(&job);
        assert_int_equal(model->stages->size.apart, 1);
        release(&d);
    }
}

/* The second walk has the upscaler's memory. */
static void test_upscaler_leaves(void **state)
{
    char *path = small_upscaler_write(&(struct small_upscaler){0});
    const struct upscale_to to = {.size = {16, 16}};
    const struct engine_events events = {0};
    struct image picture = {8, 8, mem_try_zalloc(64, 4), false};
    struct engine_upscaler *u;
    uint64_t before, after;
    struct err err = {0};

    (void)state;
    check(engine_upscaler_open(&u, engine, path, &err), &err);
    check(upscale_bytes(u, (struct upscale_size){8, 8}, &to, &before, &err), &err);
    check(upscale_image(u, &picture, &to, &events, &err), &err);
    check(upscale_bytes(u, (struct upscale_size){8, 8}, &to, &after, &err), &err);
    assert_int_equal(before, after); /* all is still to be packed */
    engine_upscaler_close(u);
    image_release(&picture);
    unlink(path);
    free(path);
}

/* Each picture of a list of seeds is the one that is drawn alone; so with a variation, at other sides, and in pieces. */
static void test_seeds(void **state)
{
    const int64_t seeds[] = {21, 7};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct engine_job job = job_of(i & 1 ? "nearest" : NULL), alone;
        struct drawn both, second;

        job.variation_strength = i & 1 ? 0.4 : 0;
        job.variation_seed = 90;
        job.seamless = i & 2 ? ENGINE_SEAMLESS_X | ENGINE_SEAMLESS_Y : 0;
        alone = job;
        job.budget_bytes = i & 2 ? growth_of(&job) - 1 : 0;
        job.count = 2;
        job.seeds = seeds;
        both = draw(&job);
        assert_int_equal(both.count, 2);
        assert_int_equal(both.seed, 7);
        alone.seed = 7;
        alone.variation_seed = 91;
        second = draw(&alone);
        expect_same(&both, &second);
        release(&both);
        release(&second);
    }
}

static void expect_refused(struct engine_hires hires, const char *sentence)
{
    struct engine_job job = job_of(NULL);

    job.hires = hires;
    expect_job_refused(&job, "hires", sentence);
}

static void test_refusals(void **state)
{
    struct engine_job job = job_of("no-such-upscaler");
    struct drawn d = {0};
    struct err err = {0};

    (void)state;
    expect_refused((struct engine_hires){.scale = 9}, "the scale up to 8");
    expect_refused((struct engine_hires){.scale = 2, .strength = 2}, "may be 0 to 1");
    expect_refused((struct engine_hires){.scale = 2, .steps = 200}, "steps up to 150");
    expect_refused((struct engine_hires){.width = 68}, "width is 68, a multiple of 8");
    expect_refused((struct engine_hires){.width = 4096}, "8 to 2048 are possible");
    assert_int_equal(try(&job, &d, &err), -1);
    assert_string_equal(err.param, "upscaler");
    job.start.image = (struct engine_file){"x", 1};
    expect_job_refused(&job, "hires", "begin with noise");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latents),    cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_no_seam),    cmocka_unit_test(test_another_shape),
        cmocka_unit_test(test_latent_job), cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_cancel),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_budget),     cmocka_unit_test(test_packed_by_the_first),
        cmocka_unit_test(test_seeds),      cmocka_unit_test(test_upscaler_leaves),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, small_engine_set_up, small_engine_tear_down);
}

/* Pictures made larger: each set of names against a plain computation of the network (planes of doubles, five loops), a
 * picture in tiles against the same picture as a whole, sizes that are asked for and that the network does not have,
 * and what cannot be as a sentence. On the reference back end. */
#include "base/mem.h"
#include "base/png_text.h"
#include "engine/image/png.h"
#include "engine/image/read.h"

#include "small_engine.h"
#include "small_upscaler.h"
#include "unit.h"

#include <math.h>
#include <unistd.h>

static int set_up(void **state)
{
    (void)state;
    small_engine_open();
    return 0;
}

/* ---- pictures ---- */

static uint8_t painted(int x, int y, int c)
{
    return (uint8_t)(c == 0   ? x * 5 + y
                     : c == 1 ? (x / 3 + y / 2) % 2 * 200
                              : x * x + y * 9);
}

static struct buf picture(int wide, int high, const char *parameters)
{
    uint8_t *rgb = mem_alloc((size_t)wide * (size_t)high * 3), *to = rgb;
    const struct image_text text = {"parameters", parameters};
    struct buf png = {0};
    struct err err = {0};

    for (int y = 0; y < high; y++)
        for (int x = 0; x < wide; x++)
            for (int c = 0; c < 3; c++)
                *to++ = painted(x, y, c);
    check(image_png_encode(rgb, (unsigned)wide, (unsigned)high, &text,
                           parameters ? 1 : 0, &png, &err),
          &err);
    free(rgb);
    return png;
}

struct result {
    int width, height;
    uint8_t *rgb;
    struct buf png;
    int steps, last_step;
    int stop_at; /* cancels at this step */
};

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct result *r = user;
    size_t bytes = (size_t)image->width * (size_t)image->height * 3;

    (void)err;
    r->width = image->width;
    r->height = image->height;
    r->rgb = mem_alloc(bytes);
    memcpy(r->rgb, image->rgb, bytes);
    buf_append(&r->png, image->png, image->png_bytes);
    return true;
}

static void on_step(void *user, int image, int step, int steps)
{
    struct result *r = user;

    assert_int_equal(image, 0);
    assert_int_equal(step, r->last_step + 1);
    r->last_step = step;
    r->steps = steps;
}

static bool is_cancelled(void *user)
{
    const struct result *r = user;

    return r->stop_at && r->last_step >= r->stop_at;
}

static void release(struct result *r)
{
    free(r->rgb);
    buf_release(&r->png);
}

static int run(struct engine_upscaler *u, const struct engine_upscale *job,
               struct result *ret, struct err *err)
{
    const struct engine_events events = {.on_image = on_image,
                                         .on_step = on_step,
                                         .is_cancelled = is_cancelled,
                                         .user = ret};

    return engine_upscale(u, job, &events, err);
}

static struct engine_upscale job_of(const struct buf *png, double factor)
{
    return (struct engine_upscale){.image = {png->data, png->len}, .factor = factor};
}

static struct engine_upscaler *open_small(const struct small_upscaler *what)
{
    char *path = small_upscaler_write(what);
    struct engine_upscaler *u;
    struct err err = {0};

    check(engine_upscaler_open(&u, engine, path, &err), &err);
    unlink(path);
    free(path);
    return u;
}

/* ---- the network, plainly ---- */

struct planes {
    int channels, high, wide;
    double *at; /* [channels, high, wide] */
};

static struct planes planes_new(int channels, int high, int wide)
{
    size_t count = (size_t)channels * (size_t)high * (size_t)wide;

    return (struct planes){channels, high, wide, mem_zalloc(count * sizeof(double))};
}

static double *plane_at(const struct planes *p, int c, int y, int x)
{
    return &p->at[((size_t)c * (size_t)p->high + (size_t)y) * (size_t)p->wide +
                  (size_t)x];
}

static double tap(const struct planes *p, int c, int y, int x)
{
    return y < 0 || x < 0 || y >= p->high || x >= p->wide ? 0 : *plane_at(p, c, y, x);
}

static struct planes conv(const struct planes *x, const struct small_layer *layer,
                          double below_zero)
{
    struct planes y = planes_new(layer->out, x->high, x->wide);

    assert_int_equal(layer->in, x->channels);
    for (int o = 0; o < layer->out; o++)
        for (int i = 0; i < x->high * x->wide; i++) {
            double sum = (double)layer->bias[o];

            for (int c = 0; c < x->channels; c++)
                for (int k = 0; k < 9; k++)
                    sum += (double)layer->weight[(o * layer->in + c) * 9 + k] *
                           tap(x, c, i / x->wide + k / 3 - 1, i % x->wide + k % 3 - 1);
            *plane_at(&y, o, i / x->wide, i % x->wide) =
                sum < 0 ? sum * below_zero : sum;
        }
    return y;
}

static struct planes joined(struct planes a, struct planes b)
{
    struct planes y = planes_new(a.channels + b.channels, a.high, a.wide);
    size_t left = (size_t)(a.channels * a.high * a.wide);

    memcpy(y.at, a.at, left * sizeof(double));
    memcpy(y.at + left, b.at, (size_t)(b.channels * b.high * b.wide) * sizeof(double));
    free(a.at);
    free(b.at);
    return y;
}

/* a + factor b, over a */
static void add(struct planes *a, const struct planes *b, double factor)
{
    for (int i = 0; i < a->channels * a->high * a->wide; i++)
        a->at[i] += factor * b->at[i];
}

static struct planes copy(const struct planes *x)
{
    struct planes y = planes_new(x->channels, x->high, x->wide);

    add(&y, x, 1);
    return y;
}

static struct planes doubled(const struct planes *x)
{
    struct planes y = planes_new(x->channels, 2 * x->high, 2 * x->wide);

    for (int c = 0; c < y.channels; c++)
        for (int i = 0; i < y.high * y.wide; i++)
            *plane_at(&y, c, i / y.wide, i % y.wide) =
                *plane_at(x, c, i / y.wide / 2, i % y.wide / 2);
    return y;
}

static void replace(struct planes *x, struct planes with)
{
    free(x->at);
    *x = with;
}

static void dense_part(struct planes *x, const struct small_layer **layer)
{
    struct planes all = copy(x), made;

    for (int i = 0; i < 4; i++)
        all = joined(all, conv(&all, (*layer)++, 0.2));
    made = conv(&all, (*layer)++, 1);
    add(x, &made, 0.2);
    free(all.at);
    free(made.at);
}

/* the painted picture, as pixel_unshuffle leaves it */
static struct planes painted_planes(int high, int wide, int shuffle)
{
    struct planes p = planes_new(3 * shuffle * shuffle, high / shuffle, wide / shuffle);

    for (int c = 0; c < p.channels; c++)
        for (int i = 0; i < p.high * p.wide; i++) {
            int part = c % (shuffle * shuffle);

            *plane_at(&p, c, i / p.wide, i % p.wide) =
                painted(i % p.wide * shuffle + part % shuffle,
                        i / p.wide * shuffle + part / shuffle,
                        c / (shuffle * shuffle)) /
                255.0;
        }
    return p;
}

/* slopes below zero, over x */
static void bend(struct planes *x, const float *slopes)
{
    for (int c = 0; c < x->channels; c++)
        for (int i = 0; i < x->high * x->wide; i++) {
            double *at = plane_at(x, c, i / x->wide, i % x->wide);

            *at *= *at < 0 ? (double)slopes[c] : 1;
        }
}

/* convolutions with slopes; PyTorch's pixel_shuffle, and each pixel of the picture added to all that it became */
static struct planes compact_plainly(const struct small_upscaler *what, int wide,
                                     int high)
{
    struct small_layers l = small_upscaler_layers(what);
    struct planes picture = painted_planes(high, wide, 1), x = copy(&picture), larger;
    int s = what->scale ? what->scale : 4;

    for (size_t i = 0; i < l.count; i++) {
        replace(&x, conv(&x, &l.layers[i], 1));
        if (l.layers[i].slopes)
            bend(&x, l.layers[i].slopes);
    }
    larger = planes_new(3, high * s, wide * s);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < high * s; y++)
            for (int column = 0; column < wide * s; column++)
                *plane_at(&larger, c, y, column) =
                    *plane_at(&x, (c * s + y % s) * s + column % s, y / s, column / s) +
                    *plane_at(&picture, c, y / s, column / s);
    free(x.at);
    free(picture.at);
    small_layers_free(&l);
    return larger;
}

static struct planes plainly(const struct small_upscaler *what, int wide, int high)
{
    struct small_layers l = small_upscaler_layers(what);
    const struct small_layer *layer = l.layers;
    struct planes x = painted_planes(high, wide, what->shuffle ? what->shuffle : 1);
    struct planes first, block;
    int doublings = what->doublings < 0 ? 0 : what->doublings ? what->doublings : 2;

    replace(&x, conv(&x, layer++, 1));
    first = copy(&x);
    for (int i = 0; i < (what->blocks ? what->blocks : 1); i++) {
        block = copy(&x);
        for (int part = 0; part < 3; part++)
            dense_part(&block, &layer);
        add(&x, &block, 0.2);
        free(block.at);
    }
    replace(&x, conv(&x, layer++, 1));
    add(&x, &first, 1);
    for (int i = 0; i < doublings; i++) {
        replace(&x, doubled(&x));
        replace(&x, conv(&x, layer++, 0.2));
    }
    replace(&x, conv(&x, layer++, 0.2));
    replace(&x, conv(&x, layer++, 1));
    free(first.at);
    small_layers_free(&l);
    return x;
}

/* at most a rounding of the last bit apart */
static void expect_planes(const struct result *r, const struct planes *p)
{
    int inside = 0;

    assert_int_equal(r->width, p->wide);
    assert_int_equal(r->height, p->high);
    for (int i = 0; i < p->high * p->wide; i++)
        for (int c = 0; c < 3; c++) {
            double v = *plane_at(p, c, i / p->wide, i % p->wide) * 255;
            double got = r->rgb[3 * i + c];

            inside += v > 0 && v < 255;
            v = v < 0 ? 0 : v > 255 ? 255 : v;
            if (fabs(got - v) > 0.51)
                fail_msg("pixel %d, %d, colour %d is %g, %g was expected", i % p->wide,
                         i / p->wide, c, got, v);
        }
    assert_true(inside > p->high * p->wide); /* most of it says something */
}

static void test_networks(void **state)
{
    static const struct {
        struct small_upscaler what;
        int scale;
    } all[] = {
        {{.names = NAMES_REAL_ESRGAN}, 4},
        {{.names = NAMES_REAL_ESRGAN,
          .blocks = 2,
          .shuffle = 2,
          .prefix = "params_ema."},
         2},
        {{.names = NAMES_REAL_ESRGAN, .shuffle = 4, .is_torch = 1}, 1},
        {{.names = NAMES_ESRGAN, .blocks = 2, .prefix = "params."}, 4},
        {{.names = NAMES_ESRGAN, .doublings = 1, .prefix = "module."}, 2},
        {{.names = NAMES_NUMBERED, .blocks = 2}, 4},
        {{.names = NAMES_NUMBERED, .doublings = 1, .is_torch = 1}, 2},
        {{.names = NAMES_NUMBERED, .doublings = 3}, 8},
        {{.names = NAMES_NUMBERED, .doublings = -1}, 1},
        {{.names = NAMES_COMPACT, .blocks = 3, .is_torch = 1}, 4},
        {{.names = NAMES_COMPACT, .blocks = 2, .scale = 3, .prefix = "params."}, 3},
        {{.names = NAMES_COMPACT, .scale = 1}, 1},
    };
    struct buf png = picture(16, 12, NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct engine_upscaler *u = open_small(&all[i].what);
        struct planes expected = all[i].what.names == NAMES_COMPACT
                                     ? compact_plainly(&all[i].what, 16, 12)
                                     : plainly(&all[i].what, 16, 12);
        struct engine_upscale job = job_of(&png, all[i].scale);
        struct engine_upscaler_info info;
        struct result r = {0};
        struct err err = {0};

        engine_upscaler_info(u, &info);
        assert_int_equal(info.scale, all[i].scale);
        assert_int_equal(info.blocks, all[i].what.blocks ? all[i].what.blocks : 1);
        check(run(u, &job, &r, &err), &err);
        expect_planes(&r, &expected);
        free(expected.at);
        release(&r);
        engine_upscaler_close(u);
    }
    buf_release(&png);
}

/* ---- tiles ---- */

static int largest_difference(const struct result *a, const struct result *b)
{
    int most = 0;

    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    for (int i = 0; i < a->width * a->height * 3; i++) {
        int d = abs(a->rgb[i] - b->rgb[i]);

        most = d > most ? d : most;
    }
    return most;
}

/* One block reaches 1 + 15 + 1 pixels, then less than 1 for each of the two convolutions at twice the size and the
 * two at four times: under 19. Of an overlap of 76, 19 at each edge are not used. Odd sizes, and x2, whose tiles begin at even
 * pixels and reach twice as far. */
static void test_tiles(void **state)
{
    static const struct {
        struct small_upscaler what;
        int wide, high, tile, overlap, tiles;
    } all[] = {
        {{.names = NAMES_REAL_ESRGAN}, 201, 101, 160, 76, 2},
        {{.names = NAMES_REAL_ESRGAN}, 101, 260, 152, 76, 3},
        {{.names = NAMES_REAL_ESRGAN}, 180, 165, 154, 76, 4},
        {{.names = NAMES_REAL_ESRGAN, .shuffle = 2}, 331, 39, 320, 152, 2},
        {{.names = NAMES_COMPACT, .blocks = 2}, 50, 33, 40, 20, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct engine_upscaler *u = open_small(&all[i].what);
        struct buf png = picture(all[i].wide, all[i].high, NULL);
        struct engine_upscale job = job_of(&png, 4 / (1 + (i == 3)));
        struct result one = {0}, many = {0};
        struct err err = {0};

        job.tile = 400;
        check(run(u, &job, &one, &err), &err);
        assert_int_equal(one.steps, 1);
        job.tile = all[i].tile;
        job.overlap = all[i].overlap;
        check(run(u, &job, &many, &err), &err);
        assert_int_equal(many.steps, all[i].tiles);
        assert_int_equal(many.last_step, all[i].tiles);
        /* sums run in the same order in both: not even the last bit differs */
        assert_int_equal(largest_difference(&one, &many), 0);
        release(&one);
        release(&many);
        buf_release(&png);
        engine_upscaler_close(u);
    }
}

/* Tiles that see less than the network reaches: no step along the fade. */
static void test_short_overlap(void **state)
{
    struct engine_upscaler *u = open_small(&(struct small_upscaler){.blocks = 2});
    struct buf png = picture(120, 40, NULL);
    struct engine_upscale job = job_of(&png, 4);
    struct result one = {0}, many = {0};
    struct err err = {0};

    (void)state;
    check(run(u, &job, &one, &err), &err);
    job.tile = 80;
    job.overlap = 32;
    check(run(u, &job, &many, &err), &err);
    assert_int_equal(many.steps, 2);
    assert_in_range(largest_difference(&one, &many), 0, 1);
    release(&one);
    release(&many);
    buf_release(&png);
    engine_upscaler_close(u);
}

/* ---- sizes ---- */

static void test_other_sizes(void **state)
{
    static const struct {
        double factor;
        int wide, high, tiles;
    } all[] = {{0, 60, 44, 1},
               {1, 15, 11, 1},
               {2, 30, 22, 1},
               {1.5, 22, 16, 1},
               {8, 120, 88, 2}};
    struct engine_upscaler *u = open_small(&(struct small_upscaler){0});
    struct buf png = picture(15, 11, NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct engine_upscale job = job_of(&png, all[i].factor);
        struct result r = {0};
        struct err err = {0};

        check(run(u, &job, &r, &err), &err);
        assert_int_equal(r.width, all[i].wide);
        assert_int_equal(r.height, all[i].high);
        assert_int_equal(r.steps, all[i].tiles);
        release(&r);
    }
    buf_release(&png);
    engine_upscaler_close(u);
}

static void test_without_network(void **state)
{
    struct buf png = picture(9, 7, NULL);
    struct engine_upscale job = job_of(&png, 3);
    struct result nearest = {0}, lanczos = {0};
    struct image expected;
    struct err err = {0};

    (void)state;
    job.method = "Nearest"; /* and 3 times; 2 if nothing is said */
    check(run(NULL, &job, &nearest, &err), &err);
    assert_int_equal(nearest.width, 27);
    assert_int_equal(nearest.height, 21);
    for (int i = 0; i < 27 * 21; i++)
        for (int c = 0; c < 3; c++)
            assert_int_equal(nearest.rgb[3 * i + c],
                             painted(i % 27 / 3, i / 27 / 3, c));
    job.method = "lanczos";
    check(run(NULL, &job, &lanczos, &err), &err);
    check(image_read(png.data, png.len, &expected, &err), &err);
    check(image_resize(&expected, IMAGE_STRETCH, 27, 21, &err), &err);
    for (int i = 0; i < 27 * 21; i++)
        assert_memory_equal(lanczos.rgb + 3 * i, expected.rgba + 4 * i, 3);
    image_release(&expected);
    release(&nearest);
    release(&lanczos);
    buf_release(&png);
}

/* ---- what goes with it ---- */

static void expect_text(const struct result *r, const char *key, const char *expected)
{
    struct buf text = {0};
    struct err err = {0};

    assert_int_equal(png_text_read(r->png.data, r->png.len, key, &text, &err),
                     expected != NULL);
    if (expected)
        assert_string_equal(buf_str(&text), expected);
    buf_release(&text);
}

static void test_texts(void **state)
{
    struct buf drawn = picture(4, 4, "a boat\nSteps: 3"), bare = picture(4, 4, NULL);
    struct engine_upscale job = job_of(&drawn, 2);
    struct result kept = {0}, none = {0};
    struct err err = {0};

    (void)state;
    check(run(NULL, &job, &kept, &err), &err);
    expect_text(&kept, "parameters", "a boat\nSteps: 3");
    expect_text(&kept, "postprocessing",
                "Postprocess upscale by: 2, Postprocess upscaler: Lanczos");
    job.image = (struct engine_file){bare.data, bare.len};
    check(run(NULL, &job, &none, &err), &err);
    expect_text(&none, "parameters", NULL);
    release(&kept);
    release(&none);
    buf_release(&drawn);
    buf_release(&bare);
}

static void test_cancel(void **state)
{
    struct engine_upscaler *u = open_small(&(struct small_upscaler){0});
    struct buf png = picture(100, 20, NULL);
    struct engine_upscale job = job_of(&png, 4);
    struct result r = {.stop_at = 2};
    struct err err = {0};

    (void)state;
    job.tile = 40;
    job.overlap = 8;
    assert_int_equal(run(u, &job, &r, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(r.last_step, 2);
    assert_null(r.rgb);
    buf_release(&png);
    engine_upscaler_close(u);
}

/* The sum of what is allocated, in the largest of its moments; never less than the tile and the pictures. */
static void test_estimate(void **state)
{
    struct engine_upscaler *u = open_small(&(struct small_upscaler){0});
    struct buf png = picture(64, 48, NULL);
    struct engine_upscale job = job_of(&png, 4);
    struct engine_estimate before, after, small;
    struct result r = {0};
    struct err err = {0};

    (void)state;
    check(engine_upscale_estimate(u, &job, &before, &err), &err);
    assert_int_equal(before.resident_bytes, 0);
    /* two tensors of 8 channels at the full size, the pictures, the tile as floats */
    assert_true(before.peak_bytes >
                64 * 48 * (16 * 8 * 4 * 2 + 16 * 4 + 4 + 17 * 3 * 4));
    check(run(u, &job, &r, &err), &err);
    check(engine_upscale_estimate(u, &job, &after, &err), &err);
    assert_true(after.resident_bytes > 0);
    assert_int_equal(after.peak_bytes, before.peak_bytes); /* packed or still to be */
    job.tile = 16;
    job.overlap = 4;
    check(engine_upscale_estimate(u, &job, &small, &err), &err);
    assert_true(small.peak_bytes < after.peak_bytes / 2);
    release(&r);
    buf_release(&png);
    engine_upscaler_close(u);
}

/* ---- refusals ---- */

static void expect_upscaler_refused(const struct small_upscaler *what,
                                    const char *sentence)
{
    char *path = small_upscaler_write(what);
    struct engine_upscaler *u;
    struct err err = {0};

    assert_int_equal(engine_upscaler_open(&u, engine, path, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    if (!strstr(err.message, sentence) || !strstr(err.message, path))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    unlink(path);
    free(path);
}

static void test_refused_files(void **state)
{
    (void)state;
    expect_upscaler_refused(
        &(struct small_upscaler){.without = "body.0.rdb2.conv3.weight"},
        "body.0.rdb2.conv3.weight is missing");
    expect_upscaler_refused(&(struct small_upscaler){.without = "conv_last.bias"},
                            "conv_last.bias is missing");
    expect_upscaler_refused(
        &(struct small_upscaler){.names = NAMES_NUMBERED, .without = "model.6.weight"},
        "model.6.weight is missing");
    expect_upscaler_refused(
        &(struct small_upscaler){.extra = "body.0.rdb1.conv1x1.weight"},
        "body.0.rdb1.conv1x1.weight belongs to no network of the ESRGAN family");
    expect_upscaler_refused(&(struct small_upscaler){.without = "conv_first.weight"},
                            "is no upscaler that is known: of the ESRGAN family");
    expect_upscaler_refused(&(struct small_upscaler){.shuffle = 3},
                            "takes 27 channels: 3, 12 and 48");
    expect_upscaler_refused(
        &(struct small_upscaler){.names = NAMES_ESRGAN, .doublings = 1, .shuffle = 4},
        "makes pictures smaller");
    expect_upscaler_refused(
        &(struct small_upscaler){.names = NAMES_COMPACT, .without = "body.1.weight"},
        "body.1.weight is missing: the slopes of its activations");
    expect_upscaler_refused(
        &(struct small_upscaler){.names = NAMES_COMPACT, .without = "body.3.weight"},
        "body.3.weight is missing");
    expect_upscaler_refused(
        &(struct small_upscaler){.names = NAMES_COMPACT, .extra = "upsampler.weight"},
        "belongs to no network of Real-ESRGAN's compact kind");
    expect_upscaler_refused(
        &(struct small_upscaler){.names = NAMES_COMPACT, .scale = 9},
        "makes 243 channels");
}

/* what is no upscaler, or one of another kind, is called by its name */
static void test_other_kinds(void **state)
{
    static const char *const kinds[][2] = {
        {"layers.0.residual_group.blocks.0.attn.qkv.weight", "is a SwinIR network"},
        {"layers.0.residual_group.overlap_attn.qkv.weight", "is a HAT network"},
        {"stylegan_decoder.conv_body.weight", "is GFPGAN"},
        {"model.diffusion_model.out.2.weight", "is a picture model"},
        {"lora_unet_mid_block.lora_up.weight", "is a LoRA"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        expect_upscaler_refused(&(struct small_upscaler){.without = "conv_first.weight",
                                                         .extra = kinds[i][0]},
                                kinds[i][1]);
}

/* By its name in the folder that the engine was told of */
static void test_names(void **state)
{
    struct engine_options options = {.backend = "ref", .upscaler_folder = "/tmp"};
    char *path = small_upscaler_write(&(struct small_upscaler){0});
    struct engine *other;
    struct engine_upscaler *u;
    struct engine_upscaler_info info;
    struct err err = {0};

    (void)state;
    assert_int_equal(engine_upscaler_open(&u, engine, "none", &err), -1);
    assert_string_equal(err.param, "upscaler");
    assert_non_null(strstr(err.message, "there is no upscaler 'none'"));
    check(engine_open(&other, &options, &err), &err);
    char *named = mem_printf("%s.pth", path);

    assert_int_equal(rename(path, named), 0);
    check(engine_upscaler_open(&u, other, path + strlen("/tmp/"), &err), &err);
    engine_upscaler_info(u, &info);
    assert_string_equal(info.name, path + strlen("/tmp/"));
    engine_upscaler_close(u);
    assert_int_equal(engine_upscaler_open(&u, other, "../x", &err), -1);
    assert_non_null(strstr(err.message, "not a path to somewhere else"));
    unlink(named);
    free(named);
    free(path);
    engine_close(other);
}

static void expect_job_refusal(struct engine_upscaler *u,
                               const struct engine_upscale *job, const char *param,
                               const char *sentence)
{
    struct engine_estimate estimate;
    struct result r = {0};
    struct err err = {0}, other = {0};

    assert_int_equal(run(u, job, &r, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.param, param);
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    assert_int_equal(engine_upscale_estimate(u, job, &estimate, &other), -1);
    assert_string_equal(other.message, err.message);
}

static void test_refused_jobs(void **state)
{
    struct engine_upscaler *u = open_small(&(struct small_upscaler){0});
    struct buf png = picture(20, 20, NULL), wide = picture(4000, 1100, NULL);
    struct engine_upscale job = job_of(&png, 9);

    (void)state;
    expect_job_refusal(u, &job, "factor", "factor is 9, 1 to 8");
    job.factor = (double)NAN;
    expect_job_refusal(u, &job, "factor", "1 to 8 are possible");
    job = job_of(&png, 2);
    job.tile = 8;
    expect_job_refusal(u, &job, "tile", "tile is 8, 16 to 2048");
    job.tile = 100;
    job.overlap = 51;
    expect_job_refusal(u, &job, "overlap", "half a tile (50)");
    job = job_of(&png, 2);
    job.method = "bicubic";
    expect_job_refusal(NULL, &job, "upscaler", "called 'bicubic': lanczos and nearest");
    job = job_of(&png, 2);
    job.image = (struct engine_file){"no picture", 10};
    expect_job_refusal(u, &job, "", "PNG");
    job = job_of(&wide, 1); /* the network would make 16000 x 4400 of it */
    expect_job_refusal(u, &job, "factor", "16000 x 4400");
    buf_release(&png);
    buf_release(&wide);
    engine_upscaler_close(u);
}

static void test_not_a_number(void **state)
{
    struct engine_upscaler *u = open_small(&(struct small_upscaler){.is_broken = 1});
    struct buf png = picture(8, 8, NULL);
    struct engine_upscale job = job_of(&png, 4);
    struct result r = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(run(u, &job, &r, &err), -1);
    assert_int_equal(err.code, ERR_INTERNAL);
    assert_non_null(strstr(err.message, "not a number"));
    buf_release(&png);
    engine_upscaler_close(u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_networks),        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_short_overlap),   cmocka_unit_test(test_other_sizes),
        cmocka_unit_test(test_without_network), cmocka_unit_test(test_texts),
        cmocka_unit_test(test_cancel),          cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_other_kinds),     cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_refused_jobs),    cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, set_up, small_engine_tear_down);
}

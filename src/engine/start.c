/* What happens to the picture and its mask, in A1111's order, because that is the order people's settings are made for:
 *
 *   mask to one channel -> blurred -> [only the masked part: its box, padded, grown to the job's proportions]
 *   picture (the box of it) to the job's size -> [what is masked filled with the colours around it] -> encoder
 *   mask (the box of it) to the latent's size, each latent pixel wholly kept or wholly drawn -> the walk
 *   drawn picture to the box's size -> over the original, through the blurred mask
 *
 * So pixels outside the mask come out as they went in, bit for bit, although everything went through the VAE.
 *
 * "Fill" spreads the colours around the masked part into it by blurs of falling radius, the widest at the bottom.
 * They are three box blurs each (running sums), because a true Gaussian of 256 pixels would cost a second. */
#include "engine/start.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIT_STEP 8 /* sides that every model takes */

/* ---- the mask ---- */

static int luminance(const uint8_t *p)
{
    return (299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000;
}

/* How much of this pixel is drawn anew, 0..255. */
static uint8_t drawn(const uint8_t *rgba, bool by_alpha)
{
    return (uint8_t)(by_alpha ? 255 - rgba[3] : luminance(rgba));
}

static int make_mask(struct start *s, const struct image *from, bool by_alpha,
                     double blur, struct err *err)
{
    size_t count = (size_t)from->width * (size_t)from->height;

    s->mask = mem_try_alloc(count);
    if (!s->mask)
        return err_set(err, ERR_NO_MEMORY, "no memory for a mask of %d x %d pixels",
                       from->width, from->height);
    for (size_t i = 0; i < count; i++)
        s->mask[i] = drawn(from->rgba + 4 * i, by_alpha);
    return blur > 0 ? image_blur(s->mask, from->width, from->height, blur, err) : 0;
}

static int read_mask(struct start *s, const struct engine_job *job, struct err *err)
{
    const struct engine_start *o = &job->start;
    struct image mask;
    int rc;

    if (!o->mask.data)
        return s->original.has_alpha
                   ? make_mask(s, &s->original, true, o->mask_blur, err)
                   : 0;
    if (image_read(o->mask.data, o->mask.bytes, &mask, err))
        return err_wrap(err, "the mask");
    rc = image_resize(&mask, IMAGE_STRETCH, s->original.width, s->original.height, err);
    if (rc == 0)
        rc = make_mask(s, &mask, mask.has_alpha, o->mask_blur, err);
    image_release(&mask);
    return rc;
}

/* The box around what is drawn anew; false: nothing is. */
static bool box_of(const struct start *s, struct region *ret)
{
    int w = s->original.width, h = s->original.height;
    int left = w, top = h, right = -1, bottom = -1;

    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            if (!s->mask[(size_t)y * (size_t)w + (size_t)x])
                continue;
            left = x < left ? x : left;
            right = x > right ? x : right;
            top = y < top ? y : top;
            bottom = y;
        }
    }
    *ret = (struct region){left, top, right - left + 1, bottom - top + 1};
    return right >= 0;
}

/* Grows one side of the box, which lies within 0..limit, to `want`, as evenly as the edges allow. */
static void grow(int *at, int *length, int want, int limit)
{
    if (want > limit)
        want = limit;
    *at -= (want - *length) / 2;
    *length = want;
    if (*at < 0)
        *at = 0;
    if (*at + want > limit)
        *at = limit - want;
}

static void find_region(struct start *s, const struct engine_job *job)
{
    struct region r = {0, 0, s->original.width, s->original.height};

    if (s->mask && job->start.only_masked && box_of(s, &r)) {
        int pad = job->start.padding;
        double ratio = (double)s->width / s->height;

        grow(&r.x, &r.wide, r.wide + 2 * pad, s->original.width);
        grow(&r.y, &r.high, r.high + 2 * pad, s->original.height);
        if ((double)r.wide / r.high < ratio)
            grow(&r.x, &r.wide, (int)lround(r.high * ratio), s->original.width);
        else
            grow(&r.y, &r.high, (int)lround(r.wide / ratio), s->original.height);
    }
    s->region = r;
}

/* ---- colours spread into the masked part ---- */

/* One running-sum blur of a line of `n` values `step` apart; beyond the ends lies what is at them. */
static void box_line(float *line, size_t step, int n, int radius, float *scratch)
{
    double sum = 0, width = 2 * radius + 1;

    for (int i = 0; i < n; i++)
        scratch[i] = line[(size_t)i * step];
    for (int i = -radius; i <= radius; i++)
        sum += (double)scratch[i < 0 ? 0 : i >= n ? n - 1 : i];
    for (int i = 0; i < n; i++) {
        int out = i - radius, in = i + radius + 1;

        line[(size_t)i * step] = (float)(sum / width);
        sum +=
            (double)scratch[in >= n ? n - 1 : in] - (double)scratch[out < 0 ? 0 : out];
    }
}

static void box_blur(float *rgba, int width, int height, int radius, float *scratch)
{
    for (int pass = 0; pass < 3; pass++) {
        for (int c = 0; c < 4; c++) {
            for (int y = 0; y < height; y++)
                box_line(rgba + (size_t)y * (size_t)width * 4 + c, 4, width, radius,
                         scratch);
            for (int x = 0; x < width; x++)
                box_line(rgba + (size_t)x * 4 + c, (size_t)width * 4, height, radius,
                         scratch);
        }
    }
}

/* Lays `over` (colours times alpha) on top of `under`. */
static void lay_over(float *under, const float *over, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (int c = 0; c < 4; c++)
            under[4 * i + (size_t)c] = over[4 * i + (size_t)c] +
                                       under[4 * i + (size_t)c] * (1 - over[4 * i + 3]);
}

/* image and mask [height, width] of the job */
static int fill(struct image *image, const uint8_t *mask, struct err *err)
{
    static const struct {
        int sigma, times;
    } blurs[] = {{256, 1}, {64, 1}, {16, 2}, {4, 4}, {2, 2}, {0, 1}};
    size_t count = (size_t)image->width * (size_t)image->height;
    int longest = image->width > image->height ? image->width : image->height;
    float *known = mem_try_alloc(count * 4 * sizeof(float));
    float *blurred = mem_try_alloc(count * 4 * sizeof(float));
    float *sum = mem_try_zalloc(count * 4, sizeof(float));
    float *scratch = mem_alloc((size_t)longest * sizeof(*scratch));
    int rc = -1;

    if (!known || !blurred || !sum) {
        err_set(err, ERR_NO_MEMORY, "no memory to fill the masked part of a picture");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        float alpha = 1 - (float)mask[i] / 255;

        for (size_t c = 0; c < 3; c++)
            known[4 * i + c] = (float)image->rgba[4 * i + c] / 255 * alpha;
        known[4 * i + 3] = alpha;
    }
    for (size_t b = 0; b < sizeof(blurs) / sizeof(*blurs); b++) {
        memcpy(blurred, known, count * 4 * sizeof(float));
        if (blurs[b].sigma) /* three boxes of radius r have a variance of r (r + 1) */
            box_blur(blurred, image->width, image->height, blurs[b].sigma, scratch);
        for (int t = 0; t < blurs[b].times; t++)
            lay_over(sum, blurred, count);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < 3; c++) {
            float alpha = sum[4 * i + 3];
            float v = alpha > 1e-6F ? sum[4 * i + c] / alpha * 255 : 0;

            image->rgba[4 * i + c] = (uint8_t)lrintf(v > 255 ? 255 : v);
        }
    rc = 0;
out:
    free(known);
    free(blurred);
    free(sum);
    free(scratch);
    return rc;
}

/* ---- into the job ---- */

/* The region of the original as a picture of its own. */
static int cut(const struct start *s, struct image *ret, struct err *err)
{
    const struct region *r = &s->region;
    struct image part = {r->wide, r->high, NULL, false};
    size_t row = (size_t)r->wide * 4;

    part.rgba = mem_try_alloc(row * (size_t)r->high);
    if (!part.rgba)
        return err_set(err, ERR_NO_MEMORY, "no memory for a picture of %d x %d pixels",
                       r->wide, r->high);
    for (int y = 0; y < r->high; y++)
        memcpy(part.rgba + (size_t)y * row,
               s->original.rgba +
                   ((size_t)(r->y + y) * (size_t)s->original.width + (size_t)r->x) * 4,
               row);
    *ret = part;
    return 0;
}

/* The region of the mask as a grey picture of this size. */
static int cut_mask(const struct start *s, int width, int height, struct image *ret,
                    struct err *err)
{
    if (cut(s, ret, err))
        return -1;
    for (int y = 0; y < s->region.high; y++)
        for (int x = 0; x < s->region.wide; x++) {
            uint8_t *p =
                ret->rgba + ((size_t)y * (size_t)s->region.wide + (size_t)x) * 4;

            p[0] = p[1] = p[2] = p[3] =
                s->mask[(size_t)(s->region.y + y) * (size_t)s->original.width +
                        (size_t)(s->region.x + x)];
        }
    if (image_resize(ret, IMAGE_STRETCH, width, height, err)) {
        image_release(ret);
        return -1;
    }
    return 0;
}

static int make_keep(struct start *s, struct err *err)
{
    int wide = s->width / s->scale, high = s->height / s->scale;
    struct image small;

    if (cut_mask(s, wide, high, &small, err))
        return -1;
    s->keep = mem_alloc((size_t)wide * (size_t)high * sizeof(float));
    for (size_t i = 0; i < (size_t)wide * (size_t)high; i++)
        s->keep[i] = small.rgba[4 * i] >= 128 ? 0 : 1;
    image_release(&small);
    return 0;
}

static int fill_masked(const struct start *s, struct image *part, struct err *err)
{
    struct image mask;
    int rc;

    if (cut_mask(s, s->width, s->height, &mask, err))
        return -1;
    for (size_t i = 0; i < (size_t)s->width * (size_t)s->height; i++)
        mask.rgba[i] = mask.rgba[4 * i]; /* one channel, at the front */
    rc = fill(part, mask.rgba, err);
    image_release(&mask);
    return rc;
}

static int make_pixels(struct start *s, const struct engine_job *job, struct err *err)
{
    size_t count = (size_t)s->width * (size_t)s->height;
    struct image part;
    int rc = -1;

    if (cut(s, &part, err))
        return -1;
    if (image_resize(&part, IMAGE_STRETCH, s->width, s->height, err))
        goto out;
    if (s->mask && job->start.fill == ENGINE_FILL_AROUND && fill_masked(s, &part, err))
        goto out;
    s->pixels = mem_try_alloc(count * 3 * sizeof(float));
    if (!s->pixels) {
        err_set(err, ERR_NO_MEMORY, "no memory for a picture of %d x %d pixels",
                s->width, s->height);
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < 3; c++)
            s->pixels[3 * i + c] = (float)part.rgba[4 * i + c] / 127.5F - 1;
    rc = 0;
out:
    image_release(&part);
    return rc;
}

int start_open(struct start **ret, const struct engine_job *job, int scale,
               struct err *err)
{
    const struct engine_start *o = &job->start;
    struct start *s = mem_zalloc(sizeof(*s));

    s->width = job->width;
    s->height = job->height;
    s->scale = scale;
    if (image_read(o->image.data, o->image.bytes, &s->original, err)) {
        err_wrap(err, "the picture to start from");
        goto fail;
    }
    /* only the masked part: the picture keeps its own size */
    if (!o->only_masked &&
        image_resize(&s->original, o->is_cropped ? IMAGE_COVER : IMAGE_STRETCH,
                     job->width, job->height, err))
        goto fail;
    if (read_mask(s, job, err))
        goto fail;
    find_region(s, job);
    if ((s->mask && make_keep(s, err)) || make_pixels(s, job, err))
        goto fail;
    *ret = s;
    return 0;

fail:
    start_free(s);
    return -1;
}

uint64_t start_rgb_bytes(const struct engine_job *job)
{
    return (uint64_t)job->width * (uint64_t)job->height * 3 * sizeof(float);
}

int start_from_rgb(struct start **ret, const uint8_t *rgb, const struct engine_job *job,
                   struct err *err)
{
    struct start *s = mem_zalloc(sizeof(*s));
    size_t count = (size_t)job->width * (size_t)job->height * 3;

    s->width = job->width;
    s->height = job->height;
    if (rgb) {
        s->pixels = mem_try_alloc(count * sizeof(float));
        if (!s->pixels) {
            start_free(s);
            return err_set(err, ERR_NO_MEMORY,
                           "no memory for a picture of %d x %d pixels", job->width,
                           job->height);
        }
        for (size_t i = 0; i < count; i++)
            s->pixels[i] = (float)rgb[i] / 127.5F - 1;
    }
    *ret = s;
    return 0;
}

/* A pixel is grey or it is not, and a latent pixel's mask is that of its first pixel, as in A1111. */
int start_show(const struct start *s, float *ret_pixels, float *ret_mask,
               struct err *err)
{
    size_t wide = (size_t)s->width, high = (size_t)s->height, scale = (size_t)s->scale;
    struct image mask = {0};

    if (cut_mask(s, s->width, s->height, &mask, err))
        return -1;
    for (size_t y = 0; y < high; y++)
        for (size_t x = 0; x < wide; x++) {
            size_t at = y * wide + x;
            bool is_drawn = mask.rgba[4 * at] >= 128;

            for (size_t c = 0; c < 3; c++)
                ret_pixels[3 * at + c] = is_drawn ? 0 : s->pixels[3 * at + c];
            if (y % scale == 0 && x % scale == 0)
                ret_mask[y / scale * (wide / scale) + x / scale] = is_drawn ? 1 : 0;
        }
    image_release(&mask);
    return 0;
}

void start_free(struct start *s)
{
    if (!s)
        return;
    image_release(&s->original);
    free(s->mask);
    free(s->pixels);
    free(s->keep);
    free(s);
}

/* ---- and back ---- */

static uint8_t mixed(uint8_t under, uint8_t over, uint8_t mask)
{
    return (uint8_t)((under * (255 - mask) + over * mask + 127) / 255);
}

int start_compose(const struct start *s, const uint8_t *rgb, struct image *ret,
                  struct err *err)
{
    const struct region *r = &s->region;
    size_t count = (size_t)s->width * (size_t)s->height;
    size_t total = (size_t)s->original.width * (size_t)s->original.height;
    struct image out = {s->original.width, s->original.height, NULL, false};
    struct image part = {s->width, s->height, mem_try_alloc(count * 4), false};

    out.rgba = mem_try_alloc(total * 4);
    if (!part.rgba || !out.rgba) {
        err_set(err, ERR_NO_MEMORY, "no memory to put the picture together");
        goto fail;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(part.rgba + 4 * i, rgb + 3 * i, 3);
        part.rgba[4 * i + 3] = 255;
    }
    if (image_resize(&part, IMAGE_STRETCH, r->wide, r->high, err))
        goto fail;
    memcpy(out.rgba, s->original.rgba, total * 4);
    for (int y = 0; y < r->high; y++)
        for (int x = 0; x < r->wide; x++) {
            size_t at = (size_t)(r->y + y) * (size_t)out.width + (size_t)(r->x + x);
            const uint8_t *over =
                part.rgba + ((size_t)y * (size_t)r->wide + (size_t)x) * 4;

            for (size_t c = 0; c < 3; c++)
                out.rgba[4 * at + c] =
                    mixed(out.rgba[4 * at + c], over[c], s->mask ? s->mask[at] : 255);
        }
    image_release(&part);
    *ret = out;
    return 0;

fail:
    image_release(&part);
    image_release(&out);
    return -1;
}

static int fitting_side(double pixels)
{
    double side = round(pixels / FIT_STEP) * FIT_STEP;

    return (int)fmin(fmax(side, FIT_STEP), ENGINE_MAX_SIZE);
}

void engine_start_fit(struct engine_job *job)
{
    int wide, high;

    if (!job->start.image.data ||
        image_read_size(job->start.image.data, job->start.image.bytes, &wide, &high,
                        NULL))
        return;
    double share = sqrt((double)job->width * job->height / ((double)wide * high));

    job->width = fitting_side(wide * share);
    job->height = fitting_side(high * share);
}

int start_bytes(const struct engine_job *job, uint64_t *ret, struct err *err)
{
    const struct engine_start *o = &job->start;
    uint64_t drawn_pixels = (uint64_t)job->width * (uint64_t)job->height, own;
    int width, height, mask_width = 0, mask_height = 0;

    if (image_read_size(o->image.data, o->image.bytes, &width, &height, err))
        return err_wrap(err, "the picture to start from");
    if (o->mask.data &&
        image_read_size(o->mask.data, o->mask.bytes, &mask_width, &mask_height, err))
        return err_wrap(err, "the mask");
    own = (uint64_t)width * (uint64_t)height;
    if (own < drawn_pixels && !o->only_masked)
        own = drawn_pixels;
    /* original, mask, a cut of it and the composed one; pixels as floats; filling as floats, three times */
    *ret = own * (4 + 1 + 4 + 4 + 4) +
           (uint64_t)mask_width * (uint64_t)mask_height * 4 +
           drawn_pixels * (3 * sizeof(float) + 4) +
           (o->fill == ENGINE_FILL_AROUND ? drawn_pixels * 12 * sizeof(float) : 0);
    return 0;
}

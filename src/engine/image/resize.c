/* Resizing and blurring as two passes of one-dimensional sums, in float. Resizing: output pixel i of n lies at
 * (i + 0.5) * from / n of the input; the Lanczos window a = 3 is stretched by from / n when the picture shrinks, so
 * that every input pixel counts, and the weights of the pixels that exist are made to sum to one (Pillow's
 * resampling, whose results the test compares with). */
#include "engine/image/read.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOBES 3.0

/* The input pixels that one output pixel is made of. */
struct taps {
    int first, count;
    float *weights; /* [count] */
};

static double sinc(double x)
{
    return fabs(x) < 1e-9 ? 1 : sin(M_PI * x) / (M_PI * x);
}

static struct taps *make_taps(int from, int to, double begin, double length)
{
    double scale = length / to, stretch = scale > 1 ? scale : 1;
    struct taps *taps = mem_zalloc((size_t)to * sizeof(*taps));

    for (int i = 0; i < to; i++) {
        double center = begin + (i + 0.5) * scale, sum = 0;
        int first = (int)floor(center - LOBES * stretch + 0.5);
        int last = (int)floor(center + LOBES * stretch + 0.5);

        first = first < 0 ? 0 : first;
        last = last > from ? from : last;
        taps[i] = (struct taps){first, last - first, NULL};
        taps[i].weights = mem_alloc((size_t)(last - first) * sizeof(float));
        for (int k = 0; k < taps[i].count; k++) {
            double x = (first + k + 0.5 - center) / stretch;
            double w = fabs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;

            taps[i].weights[k] = (float)w;
            sum += w;
        }
        for (int k = 0; k < taps[i].count; k++)
            taps[i].weights[k] /= (float)sum;
    }
    return taps;
}

static void taps_free(struct taps *taps, int count)
{
    for (int i = 0; i < count; i++)
        free(taps[i].weights);
    free(taps);
}

static uint8_t to_byte(float v)
{
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)(v + 0.5F);
}

/* one line of `lines`, pixels of four channels; step: between pixels of a line, in pixels */
static void resample_line(const uint8_t *from, size_t from_step, uint8_t *to,
                          size_t to_step, const struct taps *taps, int count)
{
    for (int i = 0; i < count; i++) {
        float sum[4] = {0};

        for (int k = 0; k < taps[i].count; k++) {
            const uint8_t *p = from + (size_t)(taps[i].first + k) * from_step * 4;

            for (int c = 0; c < 4; c++)
                sum[c] += taps[i].weights[k] * (float)p[c];
        }
        for (int c = 0; c < 4; c++)
            to[(size_t)i * to_step * 4 + (size_t)c] = to_byte(sum[c]);
    }
}

struct window {
    double x, y, wide, high;
};

/* The part of the input that becomes the output. */
static struct window window_of(const struct image *image, enum image_fit fit, int width,
                               int height)
{
    struct window w = {0, 0, image->width, image->height};
    double by_width = w.wide / width, by_height = w.high / height;

    if (fit == IMAGE_STRETCH)
        return w;
    if (by_width > by_height) {
        w.wide = by_height * width;
        w.x = (image->width - w.wide) / 2;
    } else {
        w.high = by_width * height;
        w.y = (image->height - w.high) / 2;
    }
    return w;
}

static int no_memory(const struct image *image, int width, int height, struct err *err)
{
    return err_set(err, ERR_NO_MEMORY,
                   "no memory to bring a picture from %d x %d to %d x %d pixels",
                   image->width, image->height, width, height);
}

static void take_over(struct image *image, uint8_t *rgba, int width, int height)
{
    free(image->rgba);
    image->rgba = rgba;
    image->width = width;
    image->height = height;
}

int image_resize_nearest(struct image *image, int width, int height, struct err *err)
{
    uint8_t *whole = mem_try_zalloc((size_t)width * (size_t)height, 4);
    uint8_t *to = whole;

    if (!whole)
        return no_memory(image, width, height, err);
    for (int y = 0; y < height; y++) {
        size_t row = (size_t)((int64_t)y * image->height / height);

        for (int x = 0; x < width; x++, to += 4) {
            size_t column = (size_t)((int64_t)x * image->width / width);

            memcpy(to, image->rgba + (row * (size_t)image->width + column) * 4, 4);
        }
    }
    take_over(image, whole, width, height);
    return 0;
}

int image_resize(struct image *image, enum image_fit fit, int width, int height,
                 struct err *err)
{
    struct window w = window_of(image, fit, width, height);
    struct taps *across, *down;
    uint8_t *half, *whole;
    size_t wide = (size_t)width, old = (size_t)image->width;

    if (width == image->width && height == image->height)
        return 0;
    half = mem_try_zalloc(wide * (size_t)image->height, 4);
    whole = mem_try_zalloc(wide * (size_t)height, 4);
    if (!half || !whole) {
        free(half);
        free(whole);
        return no_memory(image, width, height, err);
    }
    across = make_taps(image->width, width, w.x, w.wide);
    down = make_taps(image->height, height, w.y, w.high);
    for (int y = 0; y < image->height; y++)
        resample_line(image->rgba + (size_t)y * old * 4, 1, half + (size_t)y * wide * 4,
                      1, across, width);
    for (int x = 0; x < width; x++)
        resample_line(half + (size_t)x * 4, wide, whole + (size_t)x * 4, wide, down,
                      height);
    taps_free(across, width);
    taps_free(down, height);
    free(half);
    take_over(image, whole, width, height);
    return 0;
}

/* ---- blur ---- */

/* 2 1 0 1 2 ... n-3 n-2 n-1 n-2: the edge pixel itself is not repeated */
static int mirrored(int i, int n)
{
    if (n == 1)
        return 0;
    i = abs(i) % (2 * n - 2);
    return i < n ? i : 2 * n - 2 - i;
}

static void blur_line(uint8_t *line, size_t step, int n, const float *kernel, int reach,
                      uint8_t *scratch)
{
    for (int i = 0; i < n; i++)
        scratch[i] = line[(size_t)i * step];
    for (int i = 0; i < n; i++) {
        float sum = 0;

        for (int k = -reach; k <= reach; k++)
            sum += kernel[k + reach] * (float)scratch[mirrored(i + k, n)];
        line[(size_t)i * step] = to_byte(sum);
    }
}

int image_blur(uint8_t *channel, int width, int height, double sigma, struct err *err)
{
    int reach = (int)(2.5 * sigma + 0.5);
    uint8_t *scratch = mem_try_alloc((size_t)(width > height ? width : height));
    float *kernel = mem_alloc((size_t)(2 * reach + 1) * sizeof(*kernel));
    double sum = 0;

    if (!scratch) {
        free(kernel);
        return err_set(err, ERR_NO_MEMORY, "no memory to blur a mask");
    }
    for (int k = -reach; k <= reach; k++)
        sum += exp(-0.5 * k * k / (sigma * sigma));
    for (int k = -reach; k <= reach; k++)
        kernel[k + reach] = (float)(exp(-0.5 * k * k / (sigma * sigma)) / sum);
    for (int y = 0; reach && y < height; y++)
        blur_line(channel + (size_t)y * (size_t)width, 1, width, kernel, reach,
                  scratch);
    for (int x = 0; reach && x < width; x++)
        blur_line(channel + x, (size_t)width, height, kernel, reach, scratch);
    free(kernel);
    free(scratch);
    return 0;
}

/* read: a PNG, JPEG or WebP file in memory to pixels, and pixels to another size.
 *
 *   struct image image;
 *   if (image_read(data, len, &image, err)) return -1;
 *   if (image_resize(&image, IMAGE_COVER, 512, 512, err)) ...
 *   image_release(&image);
 *
 * The bytes are foreign: whatever is wrong with them is one sentence (ERR_INVALID), and nothing larger than
 * IMAGE_MAX_PIXELS is ever allocated. JPEG's EXIF orientation is applied, as viewers and A1111 do. Any thread. */
#ifndef MYSTI_ENGINE_IMAGE_READ_H
#define MYSTI_ENGINE_IMAGE_READ_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_MAX_PIXELS (64 * 1024 * 1024)

struct image {
    int width, height;
    uint8_t *rgba;  /* [height, width, 4], alpha not multiplied in */
    bool has_alpha; /* some pixel is not opaque */
};

int image_read(const void *data, size_t len, struct image *ret,
               struct err *err) MUST_CHECK;
/* The size alone, without decoding. */
int image_read_size(const void *data, size_t len, int *ret_width, int *ret_height,
                    struct err *err) MUST_CHECK;
void image_release(struct image *image);

enum image_fit {
    IMAGE_STRETCH, /* to exactly this size */
    IMAGE_COVER,   /* keeps the proportions; what sticks out is cut evenly */
};

/* Lanczos with three lobes, wide enough not to alias when it shrinks (what Pillow calls LANCZOS). */
int image_resize(struct image *image, enum image_fit fit, int width, int height,
                 struct err *err) MUST_CHECK;
/* Each pixel is the one of the input that it lies in. */
int image_resize_nearest(struct image *image, int width, int height,
                         struct err *err) MUST_CHECK;
/* One channel [height, width] of bytes, blurred by a Gaussian of this standard deviation in place; the kernel
 * reaches 2.5 sigma, as A1111's mask blur does. */
int image_blur(uint8_t *channel, int width, int height, double sigma,
               struct err *err) MUST_CHECK;

#endif

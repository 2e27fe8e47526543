/* png: 8-bit RGB pixels to a PNG file in memory, with named texts inside (A1111's
 * "parameters").
 *
 *   struct image_text text = {"parameters", parameters};
 *   struct buf png = {0};
 *   if (image_png_encode(rgb, 512, 512, &text, 1, &png, err))
 *       return -1;
 *
 * A text of Latin-1 characters becomes a tEXt chunk, any other an iTXt chunk,
 * uncompressed, as Pillow and with it AUTOMATIC1111 do. base/png_text.h reads them
 * back. Any thread. */
#ifndef MYSTI_ENGINE_IMAGE_PNG_H
#define MYSTI_ENGINE_IMAGE_PNG_H

#include "base/buf.h"
#include "base/err.h"
#include "engine/graph/stop.h"

#include <stddef.h>
#include <stdint.h>

struct image_text {
    const char *key;   /* 1..79 printable Latin-1 characters */
    const char *value; /* UTF-8 */
};

/* rgb [height, width, 3]; the file is appended to ret_png, which is left as it was on
 * failure. */
int image_png_encode(const uint8_t *rgb, unsigned width, unsigned height,
                     const struct image_text *texts, size_t text_count,
                     struct buf *ret_png, struct err *err) MUST_CHECK;

struct image_png {
    const uint8_t *rgb; /* [height, width, 3] */
    unsigned width, height;
    const struct image_text *texts;
    size_t text_count;
    struct stop *stop; /* asked between rows, then ERR_CANCELLED; NULL: nobody is */
};

/* The same, for pictures that take long. */
int image_png_write(const struct image_png *image, struct buf *ret_png,
                    struct err *err) MUST_CHECK;

#endif

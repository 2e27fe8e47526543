/* Three formats, three libraries; which one a file is, its first bytes say. The size is read and checked before memory
 * for the pixels is asked for, so that a small file cannot claim a large part of the machine.
 *
 * libjpeg reports errors by jumping; everything that must survive the jump is in struct jpeg, on the caller's side.
 * libpng's simplified interface does its own jumping inside.
 *
 * Rejected: one library for all (none that Debian has decodes the three without dragging in a dozen others), and
 * writing the small decoders ourselves. EXIF is the exception: of all of it one number is needed, and the library
 * for it is larger than the twenty lines that find it. */
#include "engine/image/read.h"

#include "base/mem.h"

#include <stdio.h>
/* after stdio: jpeglib.h uses FILE without including it */
#include <jpeglib.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <webp/decode.h>

static int check_size(int64_t width, int64_t height, struct err *err)
{
    if (width < 1 || height < 1 || width * height > IMAGE_MAX_PIXELS)
        return err_set(err, ERR_INVALID,
                       "the picture is %lld x %lld pixels, at most %d million are read",
                       (long long)width, (long long)height,
                       IMAGE_MAX_PIXELS / 1024 / 1024);
    return 0;
}

static int allocate(struct image *image, int width, int height, struct err *err)
{
    if (check_size(width, height, err))
        return -1;
    image->rgba = mem_try_zalloc((size_t)width * (size_t)height, 4);
    if (!image->rgba)
        return err_set(err, ERR_NO_MEMORY, "no memory for a picture of %d x %d pixels",
                       width, height);
    image->width = width;
    image->height = height;
    return 0;
}

void image_release(struct image *image)
{
    free(image->rgba);
    *image = (struct image){0};
}

/* ---- PNG ---- */

static int read_png(const void *data, size_t len, struct image *ret, bool size_only,
                    struct err *err)
{
    png_image png = {.version = PNG_IMAGE_VERSION};
    int rc = -1;

    if (!png_image_begin_read_from_memory(&png, data, len)) {
        err_set(err, ERR_INVALID, "the PNG cannot be read: %.64s", png.message);
        goto out;
    }
    if (check_size(png.width, png.height, err))
        goto out;
    ret->width = (int)png.width;
    ret->height = (int)png.height;
    if (size_only) {
        rc = 0;
        goto out;
    }
    if (allocate(ret, ret->width, ret->height, err))
        goto out;
    png.format = PNG_FORMAT_RGBA;
    if (!png_image_finish_read(&png, NULL, ret->rgba, 0, NULL))
        err_set(err, ERR_INVALID, "the PNG is damaged: %.64s", png.message);
    else
        rc = 0;
out:
    png_image_free(&png);
    return rc;
}

/* ---- JPEG ---- */

struct jpeg {
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr errors;
    jmp_buf jump;
    struct err *err;
    uint8_t *row; /* one line, three or four bytes a pixel */
};

static void on_jpeg_error(j_common_ptr d)
{
    struct jpeg *j = d->client_data;
    char text[JMSG_LENGTH_MAX];

    d->err->format_message(d, text);
    err_set(j->err, ERR_INVALID, "the JPEG cannot be read: %s", text);
    longjmp(j->jump, 1);
}

static void on_jpeg_message(j_common_ptr d, int level)
{
    (void)d;
    (void)level; /* a warning: what is missing stays grey, as everywhere */
}

static unsigned exif_number(const uint8_t *at, bool little, int bytes)
{
    unsigned n = 0;

    for (int i = 0; i < bytes; i++)
        n = n << 8 | at[little ? bytes - 1 - i : i];
    return n;
}

/* EXIF's orientation, 1..8; 1 when there is none. The marker is "Exif\0\0", then a TIFF whose first list of entries has
 * it (tag 0x0112, twelve bytes an entry). */
static int orientation_of(const uint8_t *m, size_t len)
{
    static const uint8_t exif[6] = "Exif\0";
    const uint8_t *tiff = m + sizeof(exif);

    if (len < 14 || memcmp(m, exif, sizeof(exif)) != 0)
        return 1;
    len -= sizeof(exif);
    bool little = tiff[0] == 'I';
    size_t at = exif_number(tiff + 4, little, 4);

    if (at > len - 2)
        return 1;
    size_t count = exif_number(tiff + at, little, 2);

    for (at += 2; count-- && at + 12 <= len; at += 12) {
        if (exif_number(tiff + at, little, 2) == 0x0112) {
            unsigned value = exif_number(tiff + at + 8, little, 2);

            return value >= 1 && value <= 8 ? (int)value : 1;
        }
    }
    return 1;
}

static int orientation(const struct jpeg_decompress_struct *d)
{
    for (jpeg_saved_marker_ptr m = d->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1)
            return orientation_of(m->data, m->data_length);
    return 1;
}

/* Where pixel (x, y) of a picture of w x h goes when it is turned upright. */
static size_t upright(int orientation, int x, int y, int w, int h)
{
    int mirrored_x = w - 1 - x, mirrored_y = h - 1 - y;
    int wide = orientation >= 5 ? h : w, to_x = x, to_y = y;

    switch (orientation) {
    case 2:
        to_x = mirrored_x;
        break;
    case 3:
        to_x = mirrored_x;
        to_y = mirrored_y;
        break;
    case 4:
        to_y = mirrored_y;
        break;
    case 5:
        to_x = y;
        to_y = x;
        break;
    case 6:
        to_x = mirrored_y;
        to_y = x;
        break;
    case 7:
        to_x = mirrored_y;
        to_y = mirrored_x;
        break;
    case 8:
        to_x = y;
        to_y = mirrored_x;
        break;
    default:
        break;
    }
    return ((size_t)to_y * (size_t)wide + (size_t)to_x) * 4;
}

static void put_pixel(uint8_t *to, const uint8_t *from, bool is_cmyk)
{
    for (int c = 0; c < 3; c++) /* Adobe's CMYK is stored inverted: 255 is no ink */
        to[c] = is_cmyk ? (uint8_t)(from[c] * from[3] / 255) : from[c];
    to[3] = 255;
}

static void read_lines(struct jpeg *j, struct image *ret, int turned)
{
    int w = (int)j->d.output_width, h = (int)j->d.output_height;
    bool is_cmyk = j->d.out_color_space == JCS_CMYK;

    while (j->d.output_scanline < j->d.output_height) {
        int y = (int)j->d.output_scanline;

        jpeg_read_scanlines(&j->d, &j->row, 1);
        for (int x = 0; x < w; x++)
            put_pixel(ret->rgba + upright(turned, x, y, w, h),
                      j->row + x * (is_cmyk ? 4 : 3), is_cmyk);
    }
    jpeg_finish_decompress(&j->d);
}

static int decode_jpeg(struct jpeg *j, const void *data, size_t len, struct image *ret,
                       bool size_only)
{
    int turned;

    if (setjmp(j->jump))
        return -1;
    jpeg_create_decompress(&j->d);
    jpeg_save_markers(&j->d, JPEG_APP0 + 1, 0xFFFF);
    jpeg_mem_src(&j->d, data, len);
    jpeg_read_header(&j->d, TRUE);
    turned = orientation(&j->d);
    ret->width = (int)(turned >= 5 ? j->d.image_height : j->d.image_width);
    ret->height = (int)(turned >= 5 ? j->d.image_width : j->d.image_height);
    if (check_size(ret->width, ret->height, j->err))
        return -1;
    if (size_only)
        return 0;
    j->d.out_color_space =
        j->d.jpeg_color_space == JCS_CMYK || j->d.jpeg_color_space == JCS_YCCK
            ? JCS_CMYK
            : JCS_RGB;
    jpeg_start_decompress(&j->d);
    j->row = mem_alloc((size_t)j->d.output_width * 4);
    if (allocate(ret, ret->width, ret->height, j->err))
        return -1;
    read_lines(j, ret, turned);
    return 0;
}

static int read_jpeg(const void *data, size_t len, struct image *ret, bool size_only,
                     struct err *err)
{
    struct err local = {0};
    struct jpeg j = {.err = err ? err : &local};
    int rc;

    j.d.err = jpeg_std_error(&j.errors);
    j.d.client_data = &j;
    j.errors.error_exit = on_jpeg_error;
    j.errors.emit_message = on_jpeg_message;
    rc = decode_jpeg(&j, data, len, ret, size_only);
    jpeg_destroy_decompress(&j.d);
    free(j.row);
    return rc;
}

/* ---- WebP ---- */

static int read_webp(const void *data, size_t len, struct image *ret, bool size_only,
                     struct err *err)
{
    WebPBitstreamFeatures features;

    if (WebPGetFeatures(data, len, &features) != VP8_STATUS_OK)
        return err_set(err, ERR_INVALID,
                       "the WebP cannot be read: its head is damaged");
    if (features.has_animation)
        return err_set(err, ERR_INVALID,
                       "the WebP is an animation: a single picture is needed");
    if (check_size(features.width, features.height, err))
        return -1;
    ret->width = features.width;
    ret->height = features.height;
    if (size_only)
        return 0;
    if (allocate(ret, ret->width, ret->height, err))
        return -1;
    if (!WebPDecodeRGBAInto(data, len, ret->rgba,
                            (size_t)ret->width * (size_t)ret->height * 4,
                            ret->width * 4))
        return err_set(err, ERR_INVALID, "the WebP is damaged");
    return 0;
}

/* ---- which one ---- */

static int read_any(const uint8_t *data, size_t len, struct image *ret, bool size_only,
                    struct err *err)
{
    if (len > 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0)
        return read_png(data, len, ret, size_only, err);
    if (len > 3 && memcmp(data, "\xff\xd8\xff", 3) == 0)
        return read_jpeg(data, len, ret, size_only, err);
    if (len > 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0)
        return read_webp(data, len, ret, size_only, err);
    return err_set(err, ERR_INVALID,
                   "the picture is neither PNG nor JPEG nor WebP (%zu bytes)", len);
}

int image_read(const void *data, size_t len, struct image *ret, struct err *err)
{
    struct image image = {0};

    if (read_any(data, len, &image, false, err)) {
        image_release(&image);
        return -1;
    }
    for (size_t i = 3; i < (size_t)image.width * (size_t)image.height * 4; i += 4)
        image.has_alpha = image.has_alpha || image.rgba[i] != 255;
    *ret = image;
    return 0;
}

int image_read_size(const void *data, size_t len, int *ret_width, int *ret_height,
                    struct err *err)
{
    struct image image = {0};

    if (read_any(data, len, &image, true, err))
        return -1;
    *ret_width = image.width;
    *ret_height = image.height;
    return 0;
}

/* libpng reports an error by jumping out of the middle of whatever it does, so everything that has to survive the
 * jump lives in one struct on the caller's side of it, and the function that calls setjmp holds no local that
 * changes afterwards: encode() below sets nothing after the setjmp that write_all() does not keep in *w. The
 * callback handlers never return to libpng after an error, warnings are dropped (there are none a caller could
 * act on).
 *
 * Texts: Latin-1 goes into tEXt, the rest into iTXt, both uncompressed, as other programs write and read them. */
#include "engine/image/png.h"

#include "base/mem.h"
#include "base/str.h"

#include <png.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct writer {
    png_structp png;
    png_infop info;
    struct buf *out;
    struct err *err;
    const struct image_png *image;
    bool is_stopped;
    png_text *texts; /* [text_count], values owned by `values` */
    char **values;
    size_t text_count;
};

static void on_error(png_structp png, png_const_charp message)
{
    struct writer *w = png_get_error_ptr(png);

    err_set(w->err, ERR_INTERNAL, "the picture could not be written as PNG: %s",
            message);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void on_write(png_structp png, png_bytep data, size_t len)
{
    struct writer *w = png_get_io_ptr(png);

    buf_append(w->out, data, len);
}

static void on_flush(png_structp png)
{
    (void)png;
}

/* Latin-1 from UTF-8, NULL when a character is beyond it. */
static char *to_latin1(const char *utf8)
{
    char *text = mem_alloc(strlen(utf8) + 1);
    size_t n = 0;

    for (const unsigned char *p = (const unsigned char *)utf8; *p; p++) {
        if (*p < 0x80) {
            text[n++] = (char)*p;
        } else if ((*p == 0xC2 || *p == 0xC3) && p[1]) {
            text[n++] = (char)((*p & 3) << 6 | (p[1] & 0x3F));
            p++;
        } else {
            free(text);
            return NULL;
        }
    }
    text[n] = '\0';
    return text;
}

static int prepare_texts(struct writer *w, struct err *err)
{
    const struct image_text *texts = w->image->texts;
    size_t count = w->image->text_count;

    w->texts = mem_zalloc((count + 1) * sizeof(*w->texts));
    w->values = mem_zalloc((count + 1) * sizeof(*w->values));
    for (size_t i = 0; i < count; i++) {
        png_text *t = &w->texts[i];
        char *latin1 = to_latin1(texts[i].value);

        if (!str_is_utf8(texts[i].value, strlen(texts[i].value))) {
            free(latin1);
            return err_set(err, ERR_INVALID,
                           "the picture's text '%s' is not valid UTF-8", texts[i].key);
        }
        w->values[i] = latin1 ? latin1 : mem_strdup(texts[i].value);
        w->text_count = i + 1;
        t->compression = latin1 ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        t->key = mem_strdup(texts[i].key);
        t->text = w->values[i];
        t->text_length = latin1 ? strlen(w->values[i]) : 0;
        t->itxt_length = latin1 ? 0 : strlen(w->values[i]);
    }
    return 0;
}

static void write_all(struct writer *w)
{
    const struct image_png *i = w->image;

    png_set_write_fn(w->png, w, on_write, on_flush);
    png_set_IHDR(w->png, w->info, i->width, i->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_set_text(w->png, w->info, w->texts, (int)w->text_count);
    png_write_info(w->png, w->info);
    for (unsigned y = 0; y < i->height && !w->is_stopped; y++) {
        png_write_row(w->png, i->rgb + (size_t)y * i->width * 3);
        w->is_stopped = i->stop && stop_ask_soon(i->stop);
    }
    if (!w->is_stopped)
        png_write_end(w->png, NULL);
}

static int encode(struct writer *w)
{
    w->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, w, on_error, on_warning);
    if (!w->png)
        return err_set(w->err, ERR_NO_MEMORY, "no memory to write a PNG");
    if (setjmp(png_jmpbuf(w->png)))
        return -1;
    w->info = png_create_info_struct(w->png);
    if (!w->info)
        return err_set(w->err, ERR_NO_MEMORY, "no memory to write a PNG");
    write_all(w);
    return w->is_stopped ? err_set(w->err, ERR_CANCELLED, "the job was cancelled") : 0;
}

int image_png_encode(const uint8_t *rgb, unsigned width, unsigned height,
                     const struct image_text *texts, size_t text_count,
                     struct buf *ret_png, struct err *err)
{
    return image_png_write(
        &(struct image_png){rgb, width, height, texts, text_count, NULL}, ret_png, err);
}

int image_png_write(const struct image_png *image, struct buf *ret_png, struct err *err)
{
    const size_t before = ret_png->len;
    struct writer w = {.out = ret_png, .err = err, .image = image};
    int rc = prepare_texts(&w, err);

    if (rc == 0)
        rc = encode(&w);
    if (w.png)
        png_destroy_write_struct(&w.png, &w.info);
    for (size_t i = 0; i < w.text_count; i++) {
        free(w.texts[i].key);
        free(w.values[i]);
    }
    free(w.texts);
    free(w.values);
    if (rc && ret_png->data) {
        ret_png->len = before;
        ret_png->data[before] = '\0';
    }
    return rc;
}

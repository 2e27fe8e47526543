/* What is written is read back by libpng (pixels) and by base/png_text (texts); foreign and broken files. */
#include "base/file.h"
#include "base/png_text.h"
#include "engine/image/png.h"

#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const char latin[] = "caf\xc3\xa9 \xc3\xbc \xc2\xa0, two\nlines";
static const char wide[] = "\xe7\x8c\xab and \xf0\x9f\x98\x80";

static struct buf encode(const struct image_text *texts, size_t count)
{
    uint8_t rgb[5 * 7 * 3];
    struct buf png = {0};
    struct err err = {0};

    for (size_t i = 0; i < sizeof(rgb); i++)
        rgb[i] = (uint8_t)(i * 37);
    assert_int_equal(image_png_encode(rgb, 5, 7, texts, count, &png, &err), 0);
    return png;
}

static void pixels_come_back(void **state)
{
    struct buf png = encode(NULL, 0);
    png_image image = {.version = PNG_IMAGE_VERSION};
    uint8_t rgb[5 * 7 * 3];

    (void)state;
    assert_true(png_image_begin_read_from_memory(&image, png.data, png.len));
    assert_int_equal(image.width, 5);
    assert_int_equal(image.height, 7);
    image.format = PNG_FORMAT_RGB;
    assert_int_equal(PNG_IMAGE_SIZE(image), sizeof(rgb));
    assert_true(png_image_finish_read(&image, NULL, rgb, 0, NULL));
    for (size_t i = 0; i < sizeof(rgb); i++)
        assert_int_equal(rgb[i], (uint8_t)(i * 37));
    buf_release(&png);
}

static void texts_come_back(void **state)
{
    const struct image_text texts[] = {
        {"parameters", latin}, {"wide", wide}, {"empty", ""}};
    struct buf png = encode(texts, 3);
    struct buf text = {0};
    struct err err = {0};

    (void)state;
    assert_non_null(memmem(png.data, png.len, "tEXtparameters", 14));
    assert_non_null(memmem(png.data, png.len, "iTXtwide", 8));
    assert_int_equal(png_text_read(png.data, png.len, "parameters", &text, &err), 1);
    assert_string_equal(buf_str(&text), latin);
    buf_clear(&text);
    assert_int_equal(png_text_read(png.data, png.len, "wide", &text, &err), 1);
    assert_string_equal(buf_str(&text), wide);
    buf_clear(&text);
    assert_int_equal(png_text_read(png.data, png.len, "empty", &text, &err), 1);
    assert_int_equal(text.len, 0);
    assert_int_equal(png_text_read(png.data, png.len, "parameter", &text, &err), 0);
    assert_int_equal(png_text_read(png.data, png.len, "Parameters", &text, &err), 0);
    buf_release(&text);
    buf_release(&png);
}

static void texts_come_back_from_a_file(void **state)
{
    const struct image_text text = {"parameters", wide};
    struct buf png = encode(&text, 1);
    struct buf found = {0};
    struct err err = {0};
    char path[] = "/tmp/mysti-png-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, png.data, png.len), (ssize_t)png.len);
    close(fd);
    assert_int_equal(png_text_read_file(path, "parameters", &found, &err), 1);
    assert_string_equal(buf_str(&found), wide);
    unlink(path);
    assert_int_equal(png_text_read_file(path, "parameters", &found, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(png_text_read_file("/tmp", "parameters", &found, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    buf_release(&found);
    buf_release(&png);
}

static void a_cut_file_is_refused_at_every_byte(void **state)
{
    const struct image_text text = {"parameters", wide};
    struct buf png = encode(&text, 1);
    struct buf found = {0};

    (void)state;
    for (size_t len = 0; len + 8 < png.len; len++) {
        struct err err = {0};
        char *copy = malloc(len + 1); /* so that a sanitizer sees a step too far */

        memcpy(copy, png.data, len);
        assert_int_equal(png_text_read(copy, len, "absent", &found, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FILE);
        free(copy);
    }
    buf_release(&found);
    buf_release(&png);
}

static void absurd_chunks_do_no_harm(void **state)
{
    static const char signature[] = "\x89PNG\r\n\x1a\n";
    static const struct {
        const char *chunk;
        size_t len;
    } chunks[] = {
        {"\xff\xff\xff\xfftEXtparameters", 18},
        {"\x00\x00\x00\x05tEXthello\0\0\0\0", 17},            /* no NUL */
        {"\x00\x00\x00\x0diTXtparameters\0\0\0\0\0\0\0", 25}, /* ends inside its head */
        {"\x00\x00\x00\x0fiTXtparameters\0\1\0\0\0\0\0\0\0", 27}, /* packed */
        {"\x00\x00\x00\x00tEXt\0\0\0\0", 12},
    };
    struct buf found = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        struct buf file = {0};
        struct err err = {0};

        buf_append(&file, signature, 8);
        buf_append(&file, chunks[i].chunk, chunks[i].len);
        assert_int_equal(png_text_read(file.data, file.len, "parameters", &found, &err),
                         -1);
        assert_int_equal(err.code, ERR_BAD_FILE);
        assert_int_equal(found.len, 0);
        buf_release(&file);
    }
    struct err err = {0};
    assert_int_equal(png_text_read("GIF89a........", 14, "parameters", &found, &err),
                     -1);
    assert_non_null(strstr(err.message, "not a PNG"));
    buf_release(&found);
}

static void a_failure_leaves_the_buffer_as_it_was(void **state)
{
    uint8_t rgb[3] = {0};
    struct buf png = {0};
    struct err err = {0};
    const struct image_text broken = {"parameters", "\xff"};

    (void)state;
    buf_append_str(&png, "before");
    /* libpng refuses the width and jumps */
    assert_int_equal(image_png_encode(rgb, 0, 1, NULL, 0, &png, &err), -1);
    assert_int_equal(err.code, ERR_INTERNAL);
    assert_string_equal(buf_str(&png), "before");
    assert_int_equal(image_png_encode(rgb, 1, 1, &broken, 1, &png, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(buf_str(&png), "before");
    buf_release(&png);
}

static bool says(void *user)
{
    return *(bool *)user;
}

static void a_writer_may_be_stopped(void **state)
{
    static uint8_t rgb[64 * 64 * 3];
    bool answer = false;
    struct stop stop = {.is_cancelled = says, .user = &answer};
    const struct image_png image = {rgb, 64, 64, NULL, 0, &stop};
    struct buf whole = {0}, png = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(image_png_encode(rgb, 64, 64, NULL, 0, &whole, &err), 0);
    assert_int_equal(image_png_write(&image, &png, &err), 0);
    assert_int_equal(png.len, whole.len);
    assert_memory_equal(png.data, whole.data, png.len);
    answer = true;
    stop = (struct stop){.is_cancelled = says, .user = &answer};
    assert_int_equal(image_png_write(&image, &png, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(png.len, whole.len);
    buf_release(&whole);
    buf_release(&png);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_come_back),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(texts_come_back_from_a_file),
        cmocka_unit_test(a_cut_file_is_refused_at_every_byte),
        cmocka_unit_test(absurd_chunks_do_no_harm),
        cmocka_unit_test(a_failure_leaves_the_buffer_as_it_was),
        cmocka_unit_test(a_writer_may_be_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

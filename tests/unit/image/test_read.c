/* Files of every format against what Pillow reads (images.inc, make_images.py); broken ones; resizing against Pillow's
 * LANCZOS; the blur's sum and symmetry. JPEG decoders may round differently by a step or two. */
#include "base/mem.h"
#include "engine/image/read.h"

#include "unit.h"

#include "images.inc"

#include <string.h>

static struct image decoded(const void *data, size_t len)
{
    struct image image;
    struct err err = {0};

    if (image_read(data, len, &image, &err))
        fail_msg("%s", err.message);
    return image;
}

static void expect(const struct image *image, int width, int height,
                   const uint8_t *rgba, int tolerance)
{
    int worst = 0;

    assert_int_equal(image->width, width);
    assert_int_equal(image->height, height);
    for (int i = 0; i < width * height * 4; i++) {
        int d = abs((int)image->rgba[i] - (int)rgba[i]);

        worst = d > worst ? d : worst;
    }
    if (worst > tolerance)
        fail_msg("off by %d, %d is allowed", worst, tolerance);
}

#define READ(name, width, height, tolerance)                                           \
    do {                                                                               \
        struct image image = decoded(name, sizeof(name));                              \
        int w, h;                                                                      \
        expect(&image, width, height, name##_rgba, tolerance);                         \
        assert_int_equal(image_read_size(name, sizeof(name), &w, &h, NULL), 0);        \
        assert_int_equal(w, width);                                                    \
        assert_int_equal(h, height);                                                   \
        image_release(&image);                                                         \
    } while (0)

static void every_format(void **state)
{
    (void)state;
    READ(png_rgb, 7, 5, 0);
    READ(png_alpha, 4, 3, 0);
    READ(png_palette, 6, 4, 0);
    READ(png_gray, 5, 4, 0);
    READ(jpeg_rgb, 16, 8, 2);
    READ(jpeg_gray, 9, 8, 2);
    READ(webp_lossless, 6, 5, 0);
}

static void alpha_is_noticed(void **state)
{
    struct image with = decoded(png_alpha, sizeof(png_alpha));
    struct image without = decoded(png_rgb, sizeof(png_rgb));

    (void)state;
    assert_true(with.has_alpha);
    assert_false(without.has_alpha);
    image_release(&with);
    image_release(&without);
}

/* Orientation 6: what is stored left to right is seen top to bottom, from the right. */
static void a_turned_photo_is_upright(void **state)
{
    struct image image = decoded(jpeg_turned, sizeof(jpeg_turned));
    uint8_t expected[16 * 8 * 4];

    (void)state;
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 16; x++)
            memcpy(expected + (x * 8 + 7 - y) * 4, jpeg_rgb_rgba + (y * 16 + x) * 4, 4);
    expect(&image, 8, 16, expected, 2);
    image_release(&image);
}

static void refuse(const void *data, size_t len, const char *says)
{
    struct image image;
    struct err err = {0};

    assert_int_equal(image_read(data, len, &image, &err), -1);
    if (!strstr(err.message, says))
        fail_msg("\"%s\" does not say \"%s\"", err.message, says);
}

static void broken_files_get_a_sentence(void **state)
{
    uint8_t huge[sizeof(png_rgb)];

    (void)state;
    refuse("", 0, "neither PNG nor JPEG nor WebP");
    refuse("GIF89a..........", 16, "neither PNG nor JPEG nor WebP");
    refuse(png_rgb, 30, "PNG");
    refuse(png_rgb, sizeof(png_rgb) / 2, "PNG");
    refuse(jpeg_rgb, 30, "JPEG");
    refuse(webp_lossless, 30, "WebP");
    memcpy(huge, png_rgb, sizeof(huge));
    huge[16] = huge[20] = 0; /* 65,535 x 65,535; the checksum is wrong then, too */
    huge[18] = huge[19] = huge[22] = huge[23] = 0xff;
    refuse(huge, sizeof(huge), "P");
}

/* What is cut off in the middle of a JPEG stays grey, as every viewer shows it. */
static void half_a_jpeg_is_a_picture(void **state)
{
    struct image image = decoded(jpeg_rgb, sizeof(jpeg_rgb) - 20);

    (void)state;
    assert_int_equal(image.width, 16);
    image_release(&image);
}

static struct image big(void)
{
    struct image image = {24, 18, mem_alloc(sizeof(resize_from)), false};

    memcpy(image.rgba, resize_from, sizeof(resize_from));
    return image;
}

static void resizing_is_pillows(void **state)
{
    static const struct {
        enum image_fit fit;
        int width, height;
        const uint8_t *rgba;
    } cases[] = {{IMAGE_STRETCH, 7, 5, resize_smaller},
                 {IMAGE_STRETCH, 40, 32, resize_larger},
                 {IMAGE_COVER, 10, 10, resize_covered},
                 {IMAGE_STRETCH, 24, 18, resize_from}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct image image = big();

        assert_int_equal(
            image_resize(&image, cases[i].fit, cases[i].width, cases[i].height, NULL),
            0);
        expect(&image, cases[i].width, cases[i].height, cases[i].rgba, 1);
        image_release(&image);
    }
}

static void a_blur_spreads_evenly(void **state)
{
    uint8_t mask[21 * 15] = {0};
    int sum = 0;

    (void)state;
    mask[7 * 21 + 10] = 255;
    assert_int_equal(image_blur(mask, 21, 15, 1, NULL), 0);
    for (int i = 0; i < 21 * 15; i++) {
        sum += mask[i];
        assert_int_equal(mask[i], mask[21 * 15 - 1 - i]);
    }
    assert_in_range(sum, 245, 265);
    assert_int_equal(mask[7 * 21 + 10],
                     41); /* 255 / (2 pi), a little more: the tails are cut */
    assert_int_equal(mask[7 * 21 + 14], 0); /* beyond the kernel's reach */
    memset(mask, 200, sizeof(mask));
    assert_int_equal(image_blur(mask, 21, 15, 4, NULL), 0);
    for (int i = 0; i < 21 * 15; i++)
        assert_int_equal(mask[i], 200);
}

static void no_memory_is_a_sentence(void **state)
{
    struct image image;
    struct err err = {0};

    (void)state;
    for (unsigned n = 1; n <= 1; n++) {
        mem_fail_after(n);
        assert_int_equal(image_read(png_rgb, sizeof(png_rgb), &image, &err), -1);
        assert_int_equal(err.code, ERR_NO_MEMORY);
    }
    image = big();
    for (unsigned n = 1; n <= 2; n++) {
        mem_fail_after(n);
        assert_int_equal(image_resize(&image, IMAGE_STRETCH, 9, 9, &err), -1);
        assert_int_equal(err.code, ERR_NO_MEMORY);
    }
    mem_fail_after(0);
    image_release(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format),
        cmocka_unit_test(alpha_is_noticed),
        cmocka_unit_test(a_turned_photo_is_upright),
        cmocka_unit_test(broken_files_get_a_sentence),
        cmocka_unit_test(half_a_jpeg_is_a_picture),
        cmocka_unit_test(resizing_is_pillows),
        cmocka_unit_test(a_blur_spreads_evenly),
        cmocka_unit_test(no_memory_is_a_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

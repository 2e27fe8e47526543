/* ggml_types: what ggml packs is read back through a GGUF file, whole and in pieces.
 *
 * The values are packed by ggml's own quantiser, and then read by way of the file reader, not
 * of ggml, so that shape, bytes and block arithmetic of ours are what is tested. How far a
 * packed value may be from the true one depends on its bits; the limits are per type
 * and follow from the step between two levels (range / 2^bits), with room for the
 * types that choose their scales by search. */
#include "engine/files/reader.h"

#include "base/mem.h"
#include "unit.h"

#include <ggml.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 3
#define ROW 512
#define COUNT (ROWS * ROW)

static float wanted[COUNT];

static void make_values(void)
{
    uint32_t seed = 7;

    for (int i = 0; i < COUNT; i++) {
        float sum = 0;

        for (int k = 0; k < 6; k++) {
            seed = seed * 1664525U + 1013904223U;
            sum += (float)(seed >> 8) / (float)(1 << 24) - 0.5F;
        }
        wanted[i] = 0.05F * sum; /* as weights are: a bell, most values small */
    }
}

static unsigned char *put(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *at++ = (unsigned char)(value >> 8 * i);
    return at;
}

/* A GGUF file of one tensor "w" [3, 512]; freed by the caller. */
static unsigned char *gguf_of(enum ggml_type type, size_t *ret_size)
{
    size_t packed = ggml_row_size(type, ROW) * ROWS, head = 96;
    unsigned char *file = mem_zalloc(head + packed), *at = file;
    float importance[ROW];

    for (int i = 0; i < ROW; i++)
        importance[i] = 1;
    memcpy(at, "GGUF", 4);
    at = put(at + 4, 3, 4);
    at = put(put(at, 1, 8), 0, 8);
    at = put(at, 1, 8);
    *at++ = 'w';
    at = put(put(put(at, 2, 4), ROW, 8), ROWS, 8);
    at = put(put(at, type, 4), 0, 8);
    assert_true((size_t)(at - file) <= head);
    assert_int_equal(
        ggml_quantize_chunk(type, wanted, file + head, 0, ROWS, ROW, importance),
        packed);
    *ret_size = head + packed;
    return file;
}

/* Root of the mean square of the difference over that of the values. */
static double far_apart(const float *got)
{
    double off = 0, all = 0;

    for (int i = 0; i < COUNT; i++) {
        off += pow((double)got[i] - (double)wanted[i], 2);
        all += pow((double)wanted[i], 2);
    }
    return sqrt(off / all);
}

static void check_type(enum ggml_type type, double limit)
{
    struct weights_file *file;
    struct err err = {0};
    float got[COUNT], piece[7];
    size_t size;
    unsigned char *bytes = gguf_of(type, &size);
    const struct weight *w;

    if (weights_memory_open(&file, bytes, size, &err))
        fail_msg("%s: %s", ggml_type_name(type), err.message);
    w = weights_file_find(file, "w");
    assert_int_equal(w->type, WEIGHT_GGML);
    assert_int_equal(weight_count(w), COUNT);
    weight_to_f32(w, 0, COUNT, got);
    if (far_apart(got) > limit)
        fail_msg("%s is %.4f apart, at most %.4f was expected", ggml_type_name(type),
                 far_apart(got), limit);
    for (size_t first = 0; first < COUNT; first += 7) {
        size_t count = COUNT - first < 7 ? COUNT - first : 7;

        weight_to_f32(w, first, count, piece);
        assert_memory_equal(piece, got + first, count * sizeof(*piece));
    }
    weight_to_f32(w, 5, COUNT - 10, got); /* begins and ends inside a block */
    weight_to_f32(w, 700, 7, piece);
    assert_memory_equal(piece, got + 695, sizeof(piece));
    weights_file_close(file);
    if (weights_memory_open(&file, bytes, size - 1, &err) == 0)
        fail_msg("%s: a file without its last byte was opened", ggml_type_name(type));
    assert_non_null(strstr(err.message, "truncated"));
    free(bytes);
}

static void test_round_trips(void **state)
{
    /* clang-format off */
    static const struct { enum ggml_type type; double limit; } types[] = {
        {GGML_TYPE_Q4_0, 0.12}, {GGML_TYPE_Q4_1, 0.11}, {GGML_TYPE_Q5_0, 0.06},
        {GGML_TYPE_Q5_1, 0.055}, {GGML_TYPE_Q2_K, 0.35}, {GGML_TYPE_Q3_K, 0.2},
        {GGML_TYPE_Q4_K, 0.1}, {GGML_TYPE_Q5_K, 0.05}, {GGML_TYPE_Q6_K, 0.03},
        {GGML_TYPE_IQ4_NL, 0.1}, {GGML_TYPE_IQ4_XS, 0.1}, {GGML_TYPE_IQ3_S, 0.2},
        {GGML_TYPE_IQ3_XXS, 0.25}, {GGML_TYPE_IQ2_S, 0.4}, {GGML_TYPE_IQ2_XS, 0.4},
        {GGML_TYPE_IQ2_XXS, 0.45}, {GGML_TYPE_IQ1_S, 0.7}, {GGML_TYPE_IQ1_M, 0.7},
        {GGML_TYPE_TQ2_0, 0.8}, {GGML_TYPE_TQ1_0, 0.8}, {GGML_TYPE_MXFP4, 0.2},
    };
    /* clang-format on */

    (void)state;
    make_values();
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        check_type(types[i].type, types[i].limit);
    ggml_quantize_free();
}

static void test_rows_are_whole_blocks(void **state)
{
    struct tensor_entry entry = {
        .type = WEIGHT_GGML, .ggml_type = GGML_TYPE_Q4_K, .rank = 2, .dim = {4, 128}};
    uint64_t bytes;

    (void)state;
    assert_int_equal(weight_size(&entry, &bytes), -1);
    entry.dim[1] = 256;
    assert_int_equal(weight_size(&entry, &bytes), 0);
    assert_int_equal(bytes, 4 * 144);
    entry.dim[0] = INT64_MAX / 256;
    assert_int_equal(weight_size(&entry, &bytes),
                     0); /* 0.56 bytes a value: still fits */
    entry.dim[0] = INT64_MAX;
    assert_int_equal(weight_size(&entry, &bytes), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_rows_are_whole_blocks),
    };

    return RUN_TESTS(tests);
}

/* Model files: what is read from good ones, and the one sentence that each kind of
 * broken one gets. */
#include "base/buf.h"
#include "engine/files/reader.h"

#include "refused_file.h"
#include "unit.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- safetensors ---- */

static struct buf safetensors(const char *header, size_t data_bytes)
{
    struct buf file = {0};
    uint64_t length = strlen(header);

    buf_append(&file, &length, sizeof(length));
    buf_append_str(&file, header);
    for (size_t i = 0; i < data_bytes; i++)
        buf_append(&file, &(unsigned char){(unsigned char)i}, 1);
    return file;
}

static void test_reads_safetensors(void **state)
{
    struct buf bytes = safetensors(
        "{\"__metadata__\":{\"mysti.prediction\":\"v\",\"n\":3},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[4,12]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
        "\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[12,20]},"
        "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[20,24]}}",
        24);
    struct weights_file *file;
    struct err err = {0};
    const struct weight *w;

    (void)state;
    assert_int_equal(weights_memory_open(&file, bytes.data, bytes.len, &err), 0);
    assert_int_equal(weights_file_count(file), 4);
    assert_string_equal(weights_file_at(file, 0)->name, "a");
    w = weights_file_find(file, "b");
    assert_non_null(w);
    assert_int_equal(w->type, WEIGHT_F32);
    assert_int_equal(w->rank, 2);
    assert_int_equal(w->dim[0], 1);
    assert_int_equal(w->dim[1], 2);
    assert_int_equal(w->data[0], 4);
    assert_int_equal(weights_file_find(file, "ids")->type, WEIGHT_OTHER);
    assert_int_equal(weight_count(weights_file_find(file, "scalar")), 1);
    assert_null(weights_file_find(file, "c"));
    assert_string_equal(weights_file_meta(file, "mysti.prediction"), "v");
    assert_null(weights_file_meta(file, "n"));
    weights_file_close(file);
    buf_release(&bytes);
}

#define ONE(type, shape, offsets)                                                      \
    "{\"w\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" offsets  \
    "]}}"

static void test_refuses_broken_safetensors(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        const char *sentence;
    } cases[] = {
        {"{", 8, "no JSON"},
        {"{}", 8, "no tensors"},
        {"[1]", 8, "neither a safetensors, a GGUF nor a torch file"},
        {ONE("F32", "2", "0,8"), 7, "truncated"},
        {ONE("F32", "2", "0,4"), 8, "its shape and type ask for 8"},
        {ONE("F32", "2", "8,0"), 8, "rising"},
        {ONE("F32", "2", "-8,0"), 8, "rising"},
        {ONE("F32", "2", "0"), 8, "rising"},
        {ONE("F32", "2", "0,8.5"), 8, "rising"},
        {ONE("F32", "-2", "0,8"), 8, "no size"},
        {ONE("F32", "\"2\"", "0,8"), 8, "no size"},
        {ONE("F32", "4294967296,4294967296,2", "0,8"), 8, "impossible"},
        {ONE("F32", "9223372036854775807", "0,8"), 8, "impossible"},
        {ONE("F32", "2", "9223372036854775800,9223372036854775807"), 8, "ask for 8"},
        {ONE("F32", "2", "9223372036854775799,9223372036854775807"), 8, "truncated"},
        {"{\"w\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no dtype"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8,
         "not a list"},
        {"{\"w\":5}", 8, "no dtype"},
        {"{\"w\":{},\"w\":{}}", 8, "no JSON"}, /* jansson: duplicate object key */
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "no proper name"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "tensors a and b share bytes"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf bytes = safetensors(cases[i].header, cases[i].data);

        expect_refusal(&bytes, cases[i].sentence);
        buf_release(&bytes);
    }
}

static void test_refuses_absurd_headers(void **state)
{
    struct buf bytes = safetensors(ONE("F32", "2", "0,8"), 8);
    uint64_t lengths[] = {UINT64_MAX, (uint64_t)1 << 40, bytes.len, 1, 0};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        memcpy(bytes.data, &lengths[i], sizeof(lengths[i]));
        expect_refusal(&bytes, i < 3 ? "its header claims" : "no JSON");
    }
    memcpy(bytes.data, &(uint64_t){strlen(ONE("F32", "2", "0,8"))}, 8);
    expect_cuts_refused(&bytes);
    buf_release(&bytes);
}

static void test_refuses_too_many(void **state)
{
    struct buf header = {0}, bytes;

    (void)state;
    buf_append_str(&header, "{");
    for (int i = 0; i <= 262144; i++)
        buf_printf(&header,
                   "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                   i ? "," : "", i);
    buf_append_str(&header, "}");
    bytes = safetensors(buf_str(&header), 0);
    expect_refusal(&bytes, "more than 262144 tensors");
    buf_release(&bytes);
    buf_release(&header);
}

/* ---- GGUF ---- */

static void put_number(struct buf *b, uint64_t value, size_t bytes)
{
    buf_append(b, &value, bytes);
}

static void put_string(struct buf *b, const char *s)
{
    put_number(b, strlen(s), 8);
    buf_append_str(b, s);
}

struct gguf {
    uint64_t version, tensors, pairs;
};

static struct buf gguf_begin(struct gguf g)
{
    struct buf b = {0};

    buf_append_str(&b, "GGUF");
    put_number(&b, g.version, 4);
    put_number(&b, g.tensors, 8);
    put_number(&b, g.pairs, 8);
    return b;
}

static void put_tensor(struct buf *b, const char *name, unsigned rank,
                       const uint64_t *dim, unsigned type, uint64_t at)
{
    put_string(b, name);
    put_number(b, rank, 4);
    for (unsigned i = 0; i < rank; i++)
        put_number(b, dim[i], 8);
    put_number(b, type, 4);
    put_number(b, at, 8);
}

static void put_data(struct buf *b, size_t align, size_t bytes)
{
    while (b->len % align)
        buf_append(b, "", 1);
    for (size_t i = 0; i < bytes; i++)
        buf_append(b, &(unsigned char){(unsigned char)(i + 1)}, 1);
}

static struct buf good_gguf(void)
{
    struct buf b = gguf_begin((struct gguf){3, 3, 5});

    put_string(&b, "general.architecture");
    put_number(&b, 8, 4);
    put_string(&b, "sd1");
    put_string(&b, "general.alignment");
    put_number(&b, 4, 4);
    put_number(&b, 64, 4);
    put_string(&b, "mysti.default_cfg_scale");
    put_number(&b, 6, 4);
    buf_append(&b, &(float){4.5F}, 4);
    put_string(&b, "list");
    put_number(&b, 9, 4);
    put_number(&b, 8, 4);
    put_number(&b, 2, 8);
    put_string(&b, "x");
    put_string(&b, "yy");
    put_string(&b, "numbers");
    put_number(&b, 9, 4);
    put_number(&b, 5, 4);
    put_number(&b, 3, 8);
    put_number(&b, 0, 8);
    put_number(&b, 0, 4);
    put_tensor(&b, "half", 2, (uint64_t[]){3, 2}, 1, 0);
    put_tensor(&b, "quantised", 2, (uint64_t[]){64, 1}, 8, 64);
    put_tensor(&b, "k", 1, (uint64_t[]){256}, 24,
               192); /* I8: integers are no weights */
    put_data(&b, 64, 64 + 68);
    return b;
}

static void test_reads_gguf(void **state)
{
    struct buf bytes = good_gguf();
    struct weights_file *file;
    struct err err = {0};
    const struct weight *w;

    (void)state;
    if (weights_memory_open(&file, bytes.data, bytes.len, &err))
        fail_msg("%s", err.message);
    w = weights_file_find(file, "half");
    assert_int_equal(w->type, WEIGHT_F16);
    assert_int_equal(w->dim[0], 2); /* stored fastest first: [2][3] */
    assert_int_equal(w->dim[1], 3);
    assert_int_equal(w->data[0], 1);
    w = weights_file_find(file, "quantised");
    assert_int_equal(w->type, WEIGHT_Q8_0);
    assert_int_equal(w->bytes, 68);
    assert_int_equal(w->data[0], 65);
    assert_int_equal(weights_file_find(file, "k")->type, WEIGHT_OTHER);
    assert_string_equal(weights_file_meta(file, "general.alignment"), "64");
    assert_string_equal(weights_file_meta(file, "mysti.default_cfg_scale"), "4.5");
    assert_string_equal(weights_file_meta(file, "general.architecture"), "sd1");
    weights_file_close(file);
    buf_release(&bytes);
}

static void test_refuses_truncated_gguf(void **state)
{
    struct buf bytes = good_gguf();

    (void)state;
    expect_cuts_refused(&bytes);
    buf_release(&bytes);
}

static struct buf gguf_with_tensor(unsigned rank, const uint64_t *dim, unsigned type,
                                   uint64_t at)
{
    struct buf b = gguf_begin((struct gguf){3, 1, 0});

    put_tensor(&b, "w", rank, dim, type, at);
    put_data(&b, 32, 64);
    return b;
}

static void test_refuses_broken_gguf(void **state)
{
    struct buf b;

    (void)state;
    refuse_and_release(gguf_begin((struct gguf){1, 0, 0}), "version 1");
    refuse_and_release(gguf_begin((struct gguf){3, 0, 0}), "no tensors");
    refuse_and_release(gguf_begin((struct gguf){3, 10000000, 0}),
                       "announces 10000000 tensors and 0 values");
    refuse_and_release(gguf_begin((struct gguf){3, 1, 10000000}),
                       "announces 1 tensors and 10000000 values");
    refuse_and_release(gguf_begin((struct gguf){3, UINT64_MAX, 0}), "announces");
    refuse_and_release(gguf_begin((struct gguf){3, 0, UINT64_MAX}), "announces");
    refuse_and_release(gguf_begin((struct gguf){3, 2, 0}), "middle of its header");
    refuse_and_release(gguf_begin((struct gguf){3, 0, 1}), "middle of its header");
    refuse_and_release(gguf_with_tensor(5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0),
                       "5 dimensions");
    refuse_and_release(gguf_with_tensor(1, (uint64_t[]){UINT64_MAX}, 0, 0),
                       "dimension of");
    refuse_and_release(gguf_with_tensor(2, (uint64_t[]){1UL << 40, 1UL << 40}, 0, 0),
                       "impossible shape");
    refuse_and_release(gguf_with_tensor(1, (uint64_t[]){33}, 8, 0), "impossible shape");
    refuse_and_release(gguf_with_tensor(1, (uint64_t[]){17}, 0, 0), "truncated");
    refuse_and_release(gguf_with_tensor(1, (uint64_t[]){1}, 0, UINT64_MAX),
                       "lies at byte");
    refuse_and_release(gguf_with_tensor(1, (uint64_t[]){1}, 0, INT64_MAX), "truncated");

    b = gguf_begin((struct gguf){3, 2, 0});
    put_tensor(&b, "w", 1, (uint64_t[]){1}, 0, 0);
    put_tensor(&b, "w", 1, (uint64_t[]){1}, 0, 4);
    put_data(&b, 32, 64);
    refuse_and_release(b, "two tensors named w");

    b = gguf_begin((struct gguf){3, 1, 1});
    put_string(&b, "general.alignment");
    put_number(&b, 4, 4);
    put_number(&b, 0, 4);
    refuse_and_release(b, "alignment of 0");

    b = gguf_begin((struct gguf){3, 1, 1});
    put_string(&b, "nested");
    put_number(&b, 9, 4);
    put_number(&b, 9, 4);
    put_number(&b, 1, 8);
    refuse_and_release(b, "array in its header is of type 9");

    b = gguf_begin((struct gguf){3, 1, 1});
    put_string(&b, "odd");
    put_number(&b, 77, 4);
    refuse_and_release(b, "of type 77");

    b = gguf_begin((struct gguf){3, 1, 1});
    put_number(&b, UINT64_MAX - 3, 8);
    refuse_and_release(b, "claims");
}

/* ---- paths ---- */

static void expect_path(const char *path, enum err_code code, const char *sentence)
{
    struct weights_file *file;
    struct err err = {0};

    assert_int_equal(weights_file_open(&file, path, &err), -1);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.message, sentence));
    assert_non_null(strstr(err.message, path));
}

static void test_paths(void **state)
{
    char folder[] = "/tmp/mysti-weights-XXXXXX";
    char fifo[64], empty[64];

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(fifo, sizeof(fifo), "%s/fifo", folder);
    snprintf(empty, sizeof(empty), "%s/empty", folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    fclose(fopen(empty, "w"));
    expect_path("/nowhere/model.safetensors", ERR_NOT_FOUND, "No such file");
    expect_path(folder, ERR_BAD_FILE, "is a folder");
    expect_path(fifo, ERR_BAD_FILE, "not a regular file");
    expect_path(empty, ERR_BAD_FILE, "is empty");
    unlink(fifo);
    unlink(empty);
    rmdir(folder);
}

/* ---- values ---- */

static void test_half_floats(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        uint16_t bits = (uint16_t)h;
        struct weight w = {.type = WEIGHT_F16,
                           .rank = 1,
                           .dim = {1, 1, 1, 1},
                           .data = (const unsigned char *)&bits,
                           .bytes = 2};
        int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
        double expected = exponent == 0    ? ldexp(fraction, -24)
                          : exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
                                           : ldexp(1024 + fraction, exponent - 25);
        float got;

        weight_to_f32(&w, 0, 1, &got);
        if (isnan(expected)) {
            assert_true(isnan(got));
        } else if ((double)fabsf(got) != expected || !!signbit(got) != (int)(h >> 15)) {
            fail_msg("half %04x is %g, %g was expected", h, (double)got, expected);
        }
    }
}

static void test_other_types(void **state)
{
    unsigned char q8[68] = {0x00, 0x3c, 1, 0xff}; /* scale 1: 1, -1, then zeros */
    unsigned char bf16[4] = {0x80, 0x3f, 0x49, 0xc0};
    struct weight quantised = {
        .type = WEIGHT_Q8_0, .rank = 1, .dim = {64, 1, 1, 1}, .data = q8};
    struct weight brain = {
        .type = WEIGHT_BF16, .rank = 1, .dim = {2, 1, 1, 1}, .data = bf16};
    float got[64];

    (void)state;
    q8[34 + 1] = 0x38; /* second scale 0.5 */
    q8[34 + 2 + 31] = 0x80;
    weight_to_f32(&quantised, 0, 64, got);
    assert_true(got[0] == 1 && got[1] == -1 && got[2] == 0 && got[63] == -64);
    weight_to_f32(&quantised, 63, 1, got);
    assert_true(got[0] == -64);
    weight_to_f32(&brain, 0, 2, got);
    assert_true(got[0] == 1 && got[1] == -3.140625F);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_safetensors),
        cmocka_unit_test(test_refuses_broken_safetensors),
        cmocka_unit_test(test_refuses_absurd_headers),
        cmocka_unit_test(test_refuses_too_many),
        cmocka_unit_test(test_reads_gguf),
        cmocka_unit_test(test_refuses_truncated_gguf),
        cmocka_unit_test(test_refuses_broken_gguf),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_half_floats),
        cmocka_unit_test(test_other_types),
    };

    return RUN_TESTS(tests);
}

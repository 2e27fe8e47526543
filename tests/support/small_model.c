#include "small_model.h"
#include "torch_file.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include "unit.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tensor {
    char name[200];
    double base, scale;
    unsigned long dim[4];
    int rank;
    unsigned long count;
};

static uint32_t hash_name(const char *name)
{
    uint32_t hash = 2166136261U;

    while (*name)
        hash = (hash ^ (unsigned char)*name++) * 16777619U;
    return hash;
}

/* the same arithmetic as weight() in make_golden.py */
static float value(const struct tensor *t, uint32_t seed, uint32_t i)
{
    uint32_t x = i * 0x9E3779B9U + seed;

    x = (x ^ x >> 16) * 0x85EBCA6BU;
    x = (x ^ x >> 13) * 0xC2B2AE35U;
    x ^= x >> 16;
    return (float)(t->base + t->scale * ((double)(x >> 8) / 8388608.0 - 1));
}

static void parse_line(const char *line, struct tensor *t)
{
    int used = 0;

    memset(t, 0, sizeof(*t));
    assert_int_equal(
        sscanf(line, "%199s %lf %lf%n", t->name, &t->base, &t->scale, &used), 3);
    line += used;
    t->count = 1;
    while (t->rank < 4 && sscanf(line, " %lu%n", &t->dim[t->rank], &used) == 1) {
        line += used;
        t->count *= t->dim[t->rank++];
    }
}

static void describe(struct buf *header, const struct tensor *t, unsigned long at)
{
    buf_printf(header, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", t->name);
    for (int i = 0; i < t->rank; i++)
        buf_printf(header, "%s%lu", i ? "," : "", t->dim[i]);
    buf_printf(header, "],\"data_offsets\":[%lu,%lu]}", at, at + 4 * t->count);
}

static void append_values(struct buf *data, const struct tensor *t, int is_broken)
{
    char *at = buf_reserve(data, 4 * t->count);
    uint32_t seed = hash_name(t->name);

    for (unsigned long i = 0; i < t->count; i++) {
        float v = is_broken ? NAN : value(t, seed, (uint32_t)i);

        memcpy(at + 4 * i, &v, sizeof(v));
    }
    data->len += 4 * t->count;
}

/* ---- GGUF ---- */

enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_BF16 = 30, ALIGN = 32 };

static void put(struct buf *b, uint64_t value, size_t bytes)
{
    buf_append(b, &value, bytes); /* little endian, as every machine here */
}

static void put_text(struct buf *b, const char *text)
{
    put(b, strlen(text), 8);
    buf_append_str(b, text);
}

static uint16_t half(float v)
{
    int exponent;
    double mantissa = frexp(fabs((double)v), &exponent);
    unsigned sign = v < 0 ? 0x8000 : 0, bits = 0;

    if (mantissa > 0 && exponent > -14) /* 0.5..1 -> 1024..2048, the carry is welcome */
        bits =
            (unsigned)((exponent + 14) << 10) + (unsigned)lrint(mantissa * 2048) - 1024;
    else if (mantissa > 0)
        bits = (unsigned)lrint(fabs((double)v) * 16777216);
    return (uint16_t)(sign | bits);
}

static uint16_t brain(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void put_block(struct buf *b, const float *values)
{
    float largest = 0, scale;

    for (int i = 0; i < 32; i++)
        largest = fmaxf(largest, fabsf(values[i]));
    scale = largest / 127;
    put(b, half(scale), 2);
    for (int i = 0; i < 32; i++)
        put(b, (uint8_t)(int8_t)lrintf(scale > 0 ? values[i] / scale : 0), 1);
}

static int gguf_type(const struct tensor *t)
{
    if (t->rank == 1)
        return GGML_F32;
    if (t->rank == 4)
        return GGML_BF16;
    return t->dim[1] % 32 == 0 ? GGML_Q8_0 : GGML_F16;
}

static void append_gguf(struct buf *header, struct buf *data, const struct tensor *t)
{
    struct buf plain = {0};
    const float *values;
    int type = gguf_type(t);

    append_values(&plain, t, 0);
    values = (const float *)(const void *)plain.data;
    put_text(header, t->name);
    put(header, (unsigned)t->rank, 4);
    for (int i = t->rank - 1; i >= 0; i--)
        put(header, t->dim[i], 8);
    put(header, (unsigned)type, 4);
    put(header, data->len, 8);
    for (unsigned long i = 0; i < t->count; i += type == GGML_Q8_0 ? 32 : 1) {
        if (type == GGML_F32)
            buf_append(data, &values[i], 4);
        else if (type == GGML_Q8_0)
            put_block(data, values + i);
        else
            put(data, type == GGML_F16 ? half(values[i]) : brain(values[i]), 2);
    }
    while (data->len % ALIGN)
        put(data, 0, 1);
    buf_release(&plain);
}

static void *gguf_bytes(unsigned long *ret_size)
{
    struct buf listing = {0}, tensors = {0}, data = {0}, all = {0};
    uint64_t count = 0;
    char *next;

    assert_int_equal(file_read(SMALL_MODEL_TENSORS, 1 << 20, &listing, NULL), 0);
    for (char *line = listing.data; *line; line = next, count++) {
        struct tensor t;

        next = strchr(line, '\n');
        assert_non_null(next);
        *next++ = 0;
        parse_line(line, &t);
        append_gguf(&tensors, &data, &t);
    }
    buf_append_str(&all, "GGUF");
    put(&all, 3, 4);
    put(&all, count, 8);
    put(&all, 2, 8);
    put_text(&all, "mysti.unet_heads"); /* a number, as GGUF tools write it */
    put(&all, 4, 4);
    put(&all, 4, 4);
    put_text(&all, "mysti.text_heads");
    put(&all, 8, 4);
    put_text(&all, "3");
    buf_append(&all, tensors.data, tensors.len);
    while (all.len % ALIGN)
        put(&all, 0, 1);
    buf_append(&all, data.data, data.len);
    buf_release(&listing);
    buf_release(&tensors);
    buf_release(&data);
    *ret_size = all.len;
    return buf_take(&all);
}

/* ---- torch ---- */

static void describe_torch(struct buf *pickle, const struct tensor *t, unsigned number)
{
    char key[16];
    struct torch_tensor described = {.storage = "FloatStorage",
                                     .key = key,
                                     .numbers = t->count,
                                     .rank = t->rank,
                                     .size = t->dim};

    snprintf(key, sizeof(key), "%u", number);
    put_pickle_text(pickle, t->name);
    put_torch_tensor(pickle, &described);
}

static void append_storage(struct zip_writer *zip, const struct tensor *t,
                           unsigned number)
{
    struct buf data = {0};
    char entry[40];

    append_values(&data, t, 0);
    snprintf(entry, sizeof(entry), "archive/data/%u", number);
    zip_writer_add(zip, entry, data.data, data.len);
    buf_release(&data);
}

static void put_setting(struct buf *pickle, const char *name, unsigned value)
{
    put_pickle_text(pickle, name);
    put_pickle_int(pickle, value);
}

/* The pickle is the first entry, as torch has it. */
static void *torch_bytes(unsigned long *ret_size)
{
    struct buf listing = {0}, pickle = {0}, all;
    struct zip_writer zip = {0};
    struct tensor *tensors = NULL;
    unsigned count = 0;
    char *next;

    assert_int_equal(file_read(SMALL_MODEL_TENSORS, 1 << 20, &listing, NULL), 0);
    buf_append_str(&pickle, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    put_setting(&pickle, "mysti.unet_heads", 4);
    put_setting(&pickle, "mysti.text_heads", 3);
    put_pickle_text(&pickle, "state_dict");
    buf_append_str(&pickle, "ccollections\nOrderedDict\n)R(");
    for (char *line = listing.data; *line; line = next, count++) {
        next = strchr(line, '\n');
        assert_non_null(next);
        *next++ = 0;
        tensors = mem_realloc(tensors, (count + 1) * sizeof(*tensors));
        parse_line(line, &tensors[count]);
        describe_torch(&pickle, &tensors[count], count);
    }
    buf_append_str(&pickle, "uu.");
    zip_writer_add(&zip, "archive/data.pkl", pickle.data, pickle.len);
    for (unsigned i = 0; i < count; i++)
        append_storage(&zip, &tensors[i], i);
    free(tensors);
    buf_release(&listing);
    buf_release(&pickle);
    all = zip_writer_end(&zip);
    *ret_size = all.len;
    return buf_take(&all);
}

/* ---- safetensors ---- */

static int is_same(const char *a, const char *b)
{
    return b && strcmp(a, b) == 0;
}

static int begins_with(const char *name, const char *prefix)
{
    return prefix && strncmp(name, prefix, strlen(prefix)) == 0;
}

void *small_model_bytes(const struct small_model *options, unsigned long *ret_size)
{
    struct buf listing = {0}, header = {0}, data = {0}, all = {0};
    struct tensor extra = {.rank = 1, .dim = {1}, .count = 1};
    uint64_t length;
    char *line, *next;

    if (options->format == SMALL_MODEL_GGUF)
        return gguf_bytes(ret_size);
    if (options->format == SMALL_MODEL_TORCH)
        return torch_bytes(ret_size);
    assert_int_equal(
        file_read(options->listing ? options->listing : SMALL_MODEL_TENSORS, 1 << 20,
                  &listing, NULL),
        0);
    buf_printf(
        &header, "{\"__metadata__\":{%s%s%s}",
        options->listing ? "" : "\"mysti.unet_heads\":\"4\",\"mysti.text_heads\":\"3\"",
        options->metadata && !options->listing ? "," : "",
        options->metadata ? options->metadata : "");
    for (line = listing.data; *line; line = next) {
        struct tensor t;

        next = strchr(line, '\n');
        assert_non_null(next);
        *next++ = 0;
        parse_line(line, &t);
        if (is_same(t.name, options->without) ||
            begins_with(t.name, options->without_prefix))
            continue;
        if (is_same(t.name, options->doubled) ||
            begins_with(t.name, options->doubled_prefix)) {
            t.dim[0] *= 2;
            t.count *= 2;
        }
        describe(&header, &t, data.len);
        if (is_same(t.name, options->zeroed))
            t.base = t.scale = 0;
        append_values(&data, &t, is_same(t.name, options->broken));
    }
    if (options->extra) {
        snprintf(extra.name, sizeof(extra.name), "%s", options->extra);
        describe(&header, &extra, data.len);
        append_values(&data, &extra, 0);
    }
    buf_append_str(&header, "}");
    length = header.len;
    buf_append(&all, &length,
               sizeof(length)); /* little endian, as every machine here */
    buf_append(&all, header.data, header.len);
    buf_append(&all, data.data, data.len);
    buf_release(&listing);
    buf_release(&header);
    buf_release(&data);
    *ret_size = all.len;
    return buf_take(&all);
}

char *small_model_write(const struct small_model *options)
{
    char *path = mem_strdup("/tmp/mysti-small-XXXXXX");
    unsigned long size;
    void *bytes = small_model_bytes(options, &size);
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    for (unsigned long done = 0; done < size;) {
        ssize_t n = write(fd, (char *)bytes + done, size - done);

        assert_true(n > 0);
        done += (unsigned long)n;
    }
    close(fd);
    free(bytes);
    return path;
}

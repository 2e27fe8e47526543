#include "small_model.h"

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

static int is_same(const char *a, const char *b)
{
    return b && strcmp(a, b) == 0;
}

void *small_model_bytes(const struct small_model *options, unsigned long *ret_size)
{
    struct buf listing = {0}, header = {0}, data = {0}, all = {0};
    struct tensor extra = {.rank = 1, .dim = {1}, .count = 1};
    uint64_t length;
    char *line, *next;

    assert_int_equal(file_read(SMALL_MODEL_TENSORS, 1 << 20, &listing, NULL), 0);
    buf_printf(
        &header,
        "{\"__metadata__\":{\"mysti.unet_heads\":\"4\",\"mysti.text_heads\":\"3\"%s%s}",
        options->metadata ? "," : "", options->metadata ? options->metadata : "");
    for (line = listing.data; *line; line = next) {
        struct tensor t;

        next = strchr(line, '\n');
        assert_non_null(next);
        *next++ = 0;
        parse_line(line, &t);
        if (is_same(t.name, options->without))
            continue;
        if (is_same(t.name, options->doubled)) {
            t.dim[0] *= 2;
            t.count *= 2;
        }
        describe(&header, &t, data.len);
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

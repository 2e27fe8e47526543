#include "made.h"

#include "base/file.h"
#include "engine/files/reader.h"

#include "unit.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

double made_value(const char *name, int64_t i)
{
    uint32_t x = 2166136261U + (uint32_t)i * 0x9E3779B9U;

    for (; *name; name++)
        x = (x ^ (unsigned char)*name) * 16777619U;
    x = (x ^ x >> 16) * 0x85EBCA6BU;
    x = (x ^ x >> 13) * 0xC2B2AE35U;
    return ((double)((x ^ x >> 16) >> 8)) / 8388608.0 - 1;
}

void made_put(struct made *m, const char *name, const char *dtype, int rank,
              const int64_t *dim)
{
    int64_t count = 1;
    size_t at = m->data.len;

    buf_printf(&m->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[",
               m->header.len ? "," : "{", name, dtype);
    for (int i = 0; i < rank; i++) {
        buf_printf(&m->header, "%s%lld", i ? "," : "", (long long)dim[i]);
        count *= dim[i];
    }
    for (int64_t i = 0; i < count; i++) {
        float v = (float)made_value(name, i);

        buf_append(&m->data, &v, sizeof(v));
    }
    buf_printf(&m->header, "],\"data_offsets\":[%zu,%zu]}", at, m->data.len);
}

void made_scalar(struct made *m, const char *name, float v)
{
    made_put(m, name, "F32", 0, NULL);
    memcpy(m->data.data + m->data.len - 4, &v, 4);
}

void made_scale(struct made *m, float by, int64_t count)
{
    for (size_t at = m->data.len - 4 * (size_t)count; at < m->data.len; at += 4) {
        float v;

        memcpy(&v, m->data.data + at, 4);
        v *= by;
        memcpy(m->data.data + at, &v, 4);
    }
}

static void finish(struct made *m)
{
    uint64_t length;

    buf_append_str(&m->header, "}");
    length = m->header.len;
    buf_append(&m->bytes, &length, sizeof(length));
    buf_append(&m->bytes, m->header.data, m->header.len);
    buf_append(&m->bytes, m->data.data, m->data.len);
}

struct weights_file *made_open(struct made *m)
{
    struct weights_file *file;
    struct err err = {0};

    finish(m);
    if (weights_memory_open(&file, m->bytes.data, m->bytes.len, &err))
        fail_msg("%s", err.message);
    return file;
}

char *made_write(struct made *m, const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    struct err err = {0};

    finish(m);
    if (file_write_atomic(path, m->bytes.data, m->bytes.len, 0600, &err))
        fail_msg("%s", err.message);
    return path;
}

void made_release(struct made *m)
{
    buf_release(&m->header);
    buf_release(&m->data);
    buf_release(&m->bytes);
}

#include "small_taesd.h"
#include "small_model.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/files/reader.h"

#include "unit.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The decoder's layers are counted from its clamp in the original, which diffusers leaves out. */
static void append_name(struct buf *header, enum taesd_naming naming, const char *name)
{
    const char *number = name + strlen("decoder.layers.");
    bool is_decoder = str_has_prefix(name, "decoder.");
    char *rest;
    long index = strtol(number, &rest, 10) + is_decoder;

    if (naming == TAESD_DIFFUSERS)
        buf_append_str(header, name);
    else if (naming == TAESD_COMFY)
        buf_printf(header, "taesd_%.7s.%ld%s", name, index, rest);
    else
        buf_printf(header, "%ld%s", index, rest);
}

static void put_tensor(struct buf *header, struct buf *data, const struct weight *w,
                       const struct small_taesd *how)
{
    int64_t dim[4];
    size_t at = data->len, count = 1;

    memcpy(dim, w->dim, sizeof(dim));
    if (how->channels && strcmp(w->name, "decoder.layers.0.weight") == 0)
        dim[1] = how->channels;
    buf_append_str(header, header->len ? ",\"" : "{\"");
    append_name(header, how->naming, w->name);
    buf_append_str(header, "\":{\"dtype\":\"F32\",\"shape\":[");
    for (int i = 0; i < w->rank; i++) {
        buf_printf(header, "%s%lld", i ? "," : "", (long long)dim[i]);
        count *= (size_t)dim[i];
    }
    for (size_t i = 0; i < count; i++)
        buf_append(data, w->data + 4 * i % w->bytes, 4);
    if (how->broken && strcmp(w->name, how->broken) == 0)
        memset(data->data + at, 0xff, 4 * count); /* NaN */
    buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", at, data->len);
}

void small_taesd_write(const char *folder, const char *name,
                       const struct small_taesd *how)
{
    struct buf header = {0}, data = {0}, all = {0};
    char *path = file_join(folder, name);
    struct weights_file *file;
    struct err err = {0};
    unsigned long size;
    uint64_t length;
    void *bytes =
        small_model_bytes(&(struct small_model){.listing = SMALL_TAESD_TENSORS}, &size);

    if (weights_memory_open(&file, bytes, size, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const struct weight *w = weights_file_at(file, i);

        if ((!how->only || str_has_prefix(w->name, how->only)) &&
            !(how->without && str_has_prefix(w->name, how->without)))
            put_tensor(&header, &data, w, how);
    }
    if (how->extra) {
        buf_printf(
            &header,
            ",\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
            how->extra, data.len, data.len + 4);
        buf_append(&data, "\0\0\0\0", 4);
    }
    buf_append_str(&header, "}");
    length = header.len;
    buf_append(&all, &length, sizeof(length));
    buf_append(&all, header.data, header.len);
    buf_append(&all, data.data, data.len);
    if (file_write_atomic(path, all.data, all.len, 0600, &err))
        fail_msg("%s", err.message);
    weights_file_close(file);
    buf_release(&header);
    buf_release(&data);
    buf_release(&all);
    free(bytes);
    free(path);
}

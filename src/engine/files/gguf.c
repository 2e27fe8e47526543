/* gguf: "GGUF", version, two counts, key-value pairs, tensor descriptions, padding, the
 * tensors' bytes.
 *
 * All numbers little endian; strings are a 64-bit length and bytes; a tensor's
 * dimensions are stored fastest first, the reverse of what the rest of the engine uses.
 * Source: the format's description in ggml's docs/gguf.md. Versions 2 and 3 (they
 * differ in byte order, and we read little endian only).
 *
 * Every read goes through a cursor that knows the end, so a count of 2^60 ends at the
 * end of the file and costs nothing: nothing is allocated by a count alone. Arrays
 * among the metadata are stepped over, nobody asks for one; an array of arrays is
 * refused. Numbers are kept as text, as safetensors has them.
 *
 * Tensor types that we cannot read are kept without values (see weights.h). */
#include "engine/files/ggml_types.h"
#include "engine/files/reader.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum value_type {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_TYPES,
};

static const unsigned char value_bytes[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4,
                                                       1, 0, 0, 8, 8, 8};

struct cursor {
    const unsigned char *data;
    size_t size, at;
};

static const unsigned char *take(struct cursor *c, size_t bytes, struct err *err)
{
    const unsigned char *p = c->data + c->at;

    if (bytes > c->size - c->at) {
        err_set(err, ERR_BAD_FILE, "it ends in the middle of its header");
        return NULL;
    }
    c->at += bytes;
    return p;
}

static int take_number(struct cursor *c, size_t bytes, uint64_t *ret, struct err *err)
{
    const unsigned char *p = take(c, bytes, err);

    if (!p)
        return -1;
    *ret = 0;
    for (size_t i = bytes; i-- > 0;)
        *ret = *ret << 8 | p[i];
    return 0;
}

static int take_string(struct cursor *c, const char **ret, size_t *ret_len,
                       struct err *err)
{
    const unsigned char *p;
    uint64_t len;

    if (take_number(c, 8, &len, err))
        return -1;
    if (len > c->size)
        return err_set(err, ERR_BAD_FILE,
                       "a string in its header claims %" PRIu64 " bytes", len);
    p = take(c, (size_t)len, err);
    if (!p)
        return -1;
    *ret = (const char *)p;
    *ret_len = (size_t)len;
    return 0;
}

static int skip_array(struct cursor *c, struct err *err)
{
    uint64_t type, count;
    const char *s;
    size_t len;

    if (take_number(c, 4, &type, err) || take_number(c, 8, &count, err))
        return -1;
    if (type >= VALUE_TYPES || type == VALUE_ARRAY)
        return err_set(err, ERR_BAD_FILE, "an array in its header is of type %" PRIu64,
                       type);
    if (count > c->size)
        return err_set(err, ERR_BAD_FILE,
                       "an array in its header claims %" PRIu64 " entries", count);
    if (type != VALUE_STRING)
        return take(c, (size_t)count * value_bytes[type], err) ? 0 : -1;
    for (uint64_t i = 0; i < count; i++)
        if (take_string(c, &s, &len, err))
            return -1;
    return 0;
}

/* A number of `type` from its raw bytes as text. */
static char *number_text(enum value_type type, uint64_t raw)
{
    float f;
    double d;
    uint32_t low = (uint32_t)raw;

    switch (type) {
    case VALUE_I8:
        return mem_printf("%d", (int8_t)raw);
    case VALUE_I16:
        return mem_printf("%d", (int16_t)raw);
    case VALUE_I32:
        return mem_printf("%d", (int32_t)raw);
    case VALUE_I64:
        return mem_printf("%" PRId64, (int64_t)raw);
    case VALUE_F32:
        memcpy(&f, &low, sizeof(f));
        return mem_printf("%.9g", (double)f);
    case VALUE_F64:
        memcpy(&d, &raw, sizeof(d));
        return mem_printf("%.17g", d);
    default:
        return mem_printf("%" PRIu64, raw);
    }
}

static int read_pair(struct weights_file *file, struct cursor *c, uint64_t *ret_align,
                     struct err *err)
{
    const char *key = NULL, *value = NULL;
    size_t key_len = 0, value_len = 0;
    uint64_t type = 0, raw = 0;
    char *text;

    if (take_string(c, &key, &key_len, err) || take_number(c, 4, &type, err))
        return -1;
    if (type >= VALUE_TYPES)
        return err_set(err, ERR_BAD_FILE, "a value in its header is of type %" PRIu64,
                       type);
    if (type == VALUE_ARRAY)
        return skip_array(c, err);
    if (type == VALUE_STRING) {
        if (take_string(c, &value, &value_len, err))
            return -1;
        weights_file_add_meta(file, key, key_len, value, value_len);
        return 0;
    }
    if (take_number(c, value_bytes[type], &raw, err))
        return -1;
    if (key_len == strlen("general.alignment") &&
        memcmp(key, "general.alignment", key_len) == 0)
        *ret_align = raw;
    text = number_text((enum value_type)type, raw);
    weights_file_add_meta(file, key, key_len, text, strlen(text));
    free(text);
    return 0;
}

static enum weight_type type_of(uint64_t ggml_type)
{
    switch (ggml_type) {
    case 0:
        return WEIGHT_F32;
    case 1:
        return WEIGHT_F16;
    case 8:
        return WEIGHT_Q8_0;
    case 30:
        return WEIGHT_BF16;
    default:
        return ggml_block(ggml_type, &(struct ggml_block){0}) ? WEIGHT_OTHER
                                                              : WEIGHT_GGML;
    }
}

/* One description; entry->at is still relative to where the data begins. */
static int read_description(struct cursor *c, struct tensor_entry *entry,
                            struct err *err)
{
    uint64_t rank, dim, type;

    if (take_string(c, &entry->name, &entry->name_len, err) ||
        take_number(c, 4, &rank, err))
        return -1;
    if (rank > 4)
        return err_set(err, ERR_BAD_FILE, "a tensor has %" PRIu64 " dimensions", rank);
    entry->rank = (int)rank;
    for (uint64_t i = 0; i < rank; i++) {
        if (take_number(c, 8, &dim, err))
            return -1;
        if (dim > INT64_MAX)
            return err_set(err, ERR_BAD_FILE, "a tensor has a dimension of %" PRIu64,
                           dim);
        entry->dim[rank - 1 - i] = (int64_t)dim;
    }
    if (take_number(c, 4, &type, err) || take_number(c, 8, &entry->at, err))
        return -1;
    entry->type = type_of(type);
    entry->ggml_type = (int)type;
    entry->other = ggml_name(type);
    return 0;
}

static int read_tensors(struct weights_file *file, struct cursor *c, uint64_t count,
                        uint64_t align, struct err *err)
{
    struct cursor again =
        *c; /* the data's beginning is known only after the last description */
    uint64_t data_at;

    for (uint64_t i = 0; i < count; i++) {
        struct tensor_entry entry = {0};

        if (read_description(c, &entry, err))
            return -1;
    }
    data_at = (c->at + align - 1) / align * align;
    for (uint64_t i = 0; i < count; i++) {
        struct tensor_entry entry = {0};

        if (read_description(&again, &entry, err))
            return -1;
        if (entry.at > UINT64_MAX / 2)
            return err_set(err, ERR_BAD_FILE, "a tensor lies at byte %" PRIu64,
                           entry.at);
        entry.at += data_at;
        if (weights_file_add(file, &entry, err))
            return -1;
    }
    return 0;
}

int gguf_read(struct weights_file *file, struct err *err)
{
    struct cursor c = {file->map, file->size, 4};
    uint64_t version, tensors, pairs, align = 32;

    if (take_number(&c, 4, &version, err) || take_number(&c, 8, &tensors, err) ||
        take_number(&c, 8, &pairs, err))
        return -1;
    if (version != 2 && version != 3)
        return err_set(err, ERR_BAD_FILE,
                       "is GGUF version %" PRIu64 ", versions 2 and 3 can be read",
                       version);
    if (tensors > MAX_TENSORS || pairs > MAX_PAIRS_OF_FILE)
        return err_set(err, ERR_BAD_FILE,
                       "announces %" PRIu64 " tensors and %" PRIu64
                       " values, more than %d or %d",
                       tensors, pairs, MAX_TENSORS, MAX_PAIRS_OF_FILE);
    for (uint64_t i = 0; i < pairs; i++)
        if (read_pair(file, &c, &align, err))
            return -1;
    if (align < 8 || align > 1 << 20 || (align & (align - 1)))
        return err_set(err, ERR_BAD_FILE, "its alignment of %" PRIu64 " is impossible",
                       align);
    return read_tensors(file, &c, tensors, align, err);
}

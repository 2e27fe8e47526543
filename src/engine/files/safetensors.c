/* safetensors: eight bytes of header length (little endian), a JSON object, the
 * tensors' bytes.
 *
 * {"__metadata__": {"k": "text"}, "name": {"dtype": "F16", "shape": [2, 3],
 * "data_offsets": [0, 12]}, ...} with offsets relative to the end of the header.
 * Source: the format's description, https://github.com/huggingface/safetensors.
 *
 * What is refused: a header longer than the file or than MAX_HEADER, JSON that is none
 * or repeats a key, offsets that run backwards, past the end, over each other
 * (weights.c) or do not have the length that dtype and shape ask for. Holes between
 * tensors are accepted: they hurt nobody. A dtype that the format has and we cannot
 * read (integers, F64, F8) is kept as a tensor without values, because checkpoints
 * carry counters and ids that nothing asks for. */
#include "engine/files/reader.h"

#include <jansson.h>
#include <string.h>

#define MAX_HEADER ((uint64_t)32 << 20) /* SD 1.5 has 0.2 MB */

static uint64_t load_u64(const unsigned char *p)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static enum weight_type type_of(const char *dtype)
{
    if (strcmp(dtype, "F32") == 0)
        return WEIGHT_F32;
    if (strcmp(dtype, "F16") == 0)
        return WEIGHT_F16;
    if (strcmp(dtype, "BF16") == 0)
        return WEIGHT_BF16;
    return WEIGHT_OTHER;
}

static int read_shape(const json_t *shape, struct tensor_entry *entry, struct err *err)
{
    size_t rank = json_array_size(shape);

    if (!json_is_array(shape))
        return err_set(err, ERR_BAD_FILE, "its shape is not a list");
    if (rank > 4) {
        entry->type = WEIGHT_OTHER;
        return 0;
    }
    entry->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);

        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return err_set(err, ERR_BAD_FILE, "its shape holds what is no size");
        entry->dim[i] = json_integer_value(dim);
    }
    return 0;
}

static int read_offsets(const json_t *offsets, uint64_t data_at,
                        struct tensor_entry *entry, struct err *err)
{
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    uint64_t wanted, length;

    if (json_array_size(offsets) != 2 || !json_is_integer(from) ||
        !json_is_integer(to) || json_integer_value(from) < 0 ||
        json_integer_value(to) < json_integer_value(from))
        return err_set(err, ERR_BAD_FILE,
                       "its data_offsets are not two rising numbers");
    length = (uint64_t)(json_integer_value(to) - json_integer_value(from));
    if (entry->type != WEIGHT_OTHER) {
        if (weight_size(entry, &wanted))
            return err_set(err, ERR_BAD_FILE, "its shape is impossible");
        if (length != wanted)
            return err_set(err, ERR_BAD_FILE,
                           "it has %llu bytes, its shape and type ask for %llu",
                           (unsigned long long)length, (unsigned long long)wanted);
    }
    /* both are below 2^63: no overflow */
    entry->at = data_at + (uint64_t)json_integer_value(from);
    return 0;
}

static int read_tensor(struct weights_file *file, const char *name,
                       const json_t *described, uint64_t data_at, struct err *err)
{
    const char *dtype = json_string_value(json_object_get(described, "dtype"));
    struct tensor_entry entry = {.name = name, .name_len = strlen(name)};

    if (!dtype)
        return err_set(err, ERR_BAD_FILE, "tensor %.200s has no dtype", name);
    entry.type = type_of(dtype);
    entry.other = dtype;
    if (read_shape(json_object_get(described, "shape"), &entry, err) ||
        read_offsets(json_object_get(described, "data_offsets"), data_at, &entry, err))
        return err_wrap(err, "tensor %.200s", name);
    return weights_file_add(file, &entry, err);
}

static int read_header(struct weights_file *file, json_t *header, uint64_t data_at,
                       struct err *err)
{
    const char *name, *key;
    json_t *described, *value;

    json_object_foreach(header, name, described)
    {
        if (strcmp(name, "__metadata__") == 0) {
            json_object_foreach(described, key, value) if (json_is_string(value))
                weights_file_add_meta(file, key, strlen(key), json_string_value(value),
                                      json_string_length(value));
        } else if (read_tensor(file, name, described, data_at, err)) {
            return -1;
        }
    }
    return 0;
}

int safetensors_read(struct weights_file *file, struct err *err)
{
    uint64_t length;
    json_error_t where;
    json_t *header;
    int result;

    if (file->size < 10 || file->map[8] != '{')
        return err_set(err, ERR_BAD_FILE,
                       "is neither a safetensors, a GGUF nor a torch file");
    length = load_u64(file->map);
    if (length > file->size - 8)
        return err_set(err, ERR_BAD_FILE,
                       "its header claims %llu bytes, the file has %zu: it is "
                       "truncated or no safetensors file",
                       (unsigned long long)length, file->size);
    if (length > MAX_HEADER)
        return err_set(err, ERR_BAD_FILE, "its header of %llu bytes is too large",
                       (unsigned long long)length);
    header = json_loadb((const char *)file->map + 8, (size_t)length,
                        JSON_REJECT_DUPLICATES, &where);
    if (!header)
        return err_set(err, ERR_BAD_FILE, "its header is no JSON: %s at byte %d",
                       where.text, where.position);
    if (!json_is_object(header))
        result = err_set(err, ERR_BAD_FILE, "its header is no JSON object");
    else
        result = read_header(file, header, 8 + length, err);
    json_decref(header);
    return result;
}

/* weights: opening a model file, finding its tensors, reading their values.
 *
 * The format is told from the first bytes, never from the name: "GGUF" begins one, a zip
 * archive's "PK" torch's, and a safetensors file begins with a header length whose
 * header begins with '{'. The format's reader then calls weights_file_add() for each
 * tensor; that one function holds every check that all formats need (rank, overflow,
 * bounds), so that a struct weight which exists is safe to read.
 *
 * The file is mapped private and read-only. Rejected: reading it into memory (twice the
 * memory while packing), and reading tensor by tensor with pread (the packer would need
 * a staging buffer of the largest tensor per thread). The price: a file that somebody
 * truncates in place while it is being packed raises SIGBUS. Replacing it by rename, as
 * every downloader does, is safe.
 *
 * Names are sorted once and found by bisection; two tensors of one name make the file
 * refused, and two that share bytes where the format does not have that. */
#include "engine/files/folder.h"
#include "engine/files/ggml_types.h"
#include "engine/files/reader.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_NAME 256
#define Q8_BLOCK 32
#define Q8_BYTES 34 /* f16 scale, 32 signed bytes */

/* ---- types and values ---- */

size_t weight_count(const struct weight *w)
{
    size_t count = 1;

    for (int i = 0; i < w->rank; i++)
        count *= (size_t)w->dim[i];
    return count;
}

const char *weight_types_read(void)
{
    return ggml_block(0, &(struct ggml_block){0})
               ? "F32, F16, BF16 and Q8_0; this build is without ggml, which reads "
                 "GGUF's "
                 "other quantisations,"
               : "F32, F16, BF16 and every quantisation of ggml";
}

const char *weight_type_name(const struct weight *w)
{
    switch (w->type) {
    case WEIGHT_F32:
        return "F32";
    case WEIGHT_F16:
        return "F16";
    case WEIGHT_BF16:
        return "BF16";
    case WEIGHT_Q8_0:
        return "Q8_0";
    case WEIGHT_GGML:
        return ggml_name((uint64_t)w->ggml_type);
    default:
        return w->other;
    }
}

/* How values of a type are packed: `values` of them in `bytes`. */
static struct ggml_block block_of(enum weight_type type, int ggml_type)
{
    struct ggml_block block = {.values = 1, .bytes = 2};

    if (type == WEIGHT_F32)
        block.bytes = 4;
    else if (type == WEIGHT_Q8_0)
        block = (struct ggml_block){.values = Q8_BLOCK, .bytes = Q8_BYTES};
    else if (type == WEIGHT_GGML && ggml_block((uint64_t)ggml_type, &block))
        abort(); /* the reader asked before it said WEIGHT_GGML */
    return block;
}

int weight_size(const struct tensor_entry *entry, uint64_t *ret_bytes)
{
    struct ggml_block block = block_of(entry->type, entry->ggml_type);
    uint64_t count = 1, row = entry->rank ? (uint64_t)entry->dim[entry->rank - 1] : 1;

    for (int i = 0; i < entry->rank; i++)
        if (entry->dim[i] < 0 ||
            __builtin_mul_overflow(count, (uint64_t)entry->dim[i], &count))
            return -1;
    if (row % block.values)
        return -1;
    return __builtin_mul_overflow(count / block.values, block.bytes, ret_bytes) ? -1
                                                                                : 0;
}

static float float_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Branch-free, so that it vectorises: shifting the fields into place leaves an exponent
 * that is 112 too small, which one multiplication repairs, denormals included;
 * infinities and NaN keep theirs. */
static float float_from_half(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000U : 0;
    float value = float_from_bits(magnitude) * 0x1p112f;
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return float_from_bits(bits | special | (uint32_t)(half & 0x8000) << 16);
}

static uint16_t load_u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static void q8_to_f32(const unsigned char *data, size_t first, size_t count, float *ret)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned char *block = data + (first + i) / Q8_BLOCK * Q8_BYTES;
        int8_t q = (int8_t)block[2 + (first + i) % Q8_BLOCK];

        ret[i] = float_from_half(load_u16(block)) * (float)q;
    }
}

void weight_to_f32(const struct weight *w, size_t first, size_t count,
                   float *ret_values)
{
    const unsigned char *data = w->data;

    switch (w->type) {
    case WEIGHT_F32:
        memcpy(ret_values, data + 4 * first, 4 * count);
        break;
    case WEIGHT_F16:
        for (size_t i = 0; i < count; i++)
            ret_values[i] = float_from_half(load_u16(data + 2 * (first + i)));
        break;
    case WEIGHT_BF16:
        for (size_t i = 0; i < count; i++)
            ret_values[i] =
                float_from_bits((uint32_t)load_u16(data + 2 * (first + i)) << 16);
        break;
    case WEIGHT_Q8_0:
        q8_to_f32(data, first, count, ret_values);
        break;
    case WEIGHT_GGML:
        ggml_to_f32(w->ggml_type, data, first, count, ret_values);
        break;
    case WEIGHT_OTHER:
        memset(ret_values, 0, 4 * count);
        break;
    }
}

static void forget(const unsigned char *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)data + bytes) / page * page;

    if (from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

void weight_forget(const struct weight *w)
{
    if (w->is_mapped)
        forget(w->data, w->bytes);
}

void weights_file_forget(const struct weights_file *file)
{
    if (file->is_mapped)
        forget(file->map, file->size);
    for (size_t i = 0; i < file->part_count; i++)
        weights_file_forget(file->parts[i]);
}

/* ---- filling ---- */

static void *grow(void *list, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return list;
    *cap = *cap ? 2 * *cap : 256;
    return mem_realloc(list, *cap * size);
}

/* Remembered first, so that it is freed whatever is wrong with the tensor. */
static void keep_copy(struct weights_file *file, void *copy)
{
    file->copies =
        grow(file->copies, file->copy_count, &file->copy_cap, sizeof(*file->copies));
    file->copies[file->copy_count++] = copy;
}

/* The format's word, if it is one: it may be foreign text. */
static void name_other(struct weight *w, const char *word)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    size_t len = word ? strspn(word, letters) : 0;

    if (len == 0 || word[len] || len >= sizeof(w->other))
        word = "other";
    snprintf(w->other, sizeof(w->other), "%s", word);
}

static void append(struct weights_file *file, const struct weight *w)
{
    file->weights =
        grow(file->weights, file->count, &file->cap, sizeof(*file->weights));
    file->weights[file->count++] = *w;
}

int weights_file_adopt(struct weights_file *file, const struct weight *weight,
                       const char *name, struct err *err)
{
    struct weight w = *weight;

    if (strlen(name) > MAX_NAME)
        return err_set(err, ERR_BAD_FILE, "tensor %.200s... has too long a name", name);
    w.name = mem_strdup(name);
    append(file, &w);
    return 0;
}

int weights_file_add(struct weights_file *file, const struct tensor_entry *entry,
                     struct err *err)
{
    struct weight w = {.type = entry->type,
                       .ggml_type = entry->ggml_type,
                       .rank = entry->rank,
                       .dim = {1, 1, 1, 1}};
    uint64_t bytes = 0;
    int shown = entry->name_len > MAX_NAME ? MAX_NAME : (int)entry->name_len;

    if (entry->copy)
        keep_copy(file, entry->copy);
    if (file->count == MAX_TENSORS)
        return err_set(err, ERR_BAD_FILE, "has more than %d tensors", MAX_TENSORS);
    if (entry->name_len == 0 || entry->name_len > MAX_NAME ||
        memchr(entry->name, 0, entry->name_len) ||
        !str_is_utf8(entry->name, entry->name_len))
        return err_set(err, ERR_BAD_FILE, "a tensor has no proper name (%zu bytes)",
                       entry->name_len);
    if (entry->type != WEIGHT_OTHER) {
        memcpy(w.dim, entry->dim, (size_t)entry->rank * sizeof(w.dim[0]));
        if (weight_size(entry, &bytes))
            return err_set(err, ERR_BAD_FILE, "tensor %.*s has an impossible shape",
                           shown, entry->name);
        if (!entry->copy && (entry->at > file->size || bytes > file->size - entry->at))
            return err_set(err, ERR_BAD_FILE,
                           "tensor %.*s ends at byte %llu, the file has %zu: it is "
                           "truncated",
                           shown, entry->name, (unsigned long long)entry->at + bytes,
                           file->size);
        w.data = entry->copy ? entry->copy : file->map + entry->at;
        w.bytes = (size_t)bytes;
        w.is_mapped = file->is_mapped && !entry->copy;
    } else {
        w.rank = 0;
        name_other(&w, entry->other);
    }
    w.name = mem_strndup(entry->name, entry->name_len);
    append(file, &w);
    return 0;
}

void weights_file_add_meta(struct weights_file *file, const char *key, size_t key_len,
                           const char *value, size_t value_len)
{
    file->meta =
        grow(file->meta, file->meta_count, &file->meta_cap, sizeof(*file->meta));
    file->meta[file->meta_count].key = mem_strndup(key, key_len);
    file->meta[file->meta_count++].value = mem_strndup(value, value_len);
}

static int by_name(const void *a, const void *b)
{
    const struct weight *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int by_place(const void *a, const void *b)
{
    const struct weight *const *x = a, *const *y = b;

    return (*x)->data < (*y)->data ? -1 : (*x)->data > (*y)->data;
}

static int refuse_overlap(const struct weights_file *file, struct err *err)
{
    const struct weight **order = mem_alloc((file->count + 1) * sizeof(*order));
    size_t count = 0;
    int result = 0;

    for (size_t i = 0; i < file->count; i++)
        if (file->weights[i].bytes)
            order[count++] = &file->weights[i];
    qsort(order, count, sizeof(*order), by_place);
    for (size_t i = 0; i + 1 < count && !result; i++)
        if (order[i]->data + order[i]->bytes > order[i + 1]->data)
            result = err_set(err, ERR_BAD_FILE, "tensors %s and %s share bytes",
                             order[i]->name, order[i + 1]->name);
    free(order);
    return result;
}

static int refuse_twins(const struct weights_file *file, struct err *err)
{
    for (size_t i = 0; i + 1 < file->count; i++)
        if (strcmp(file->weights[i].name, file->weights[i + 1].name) == 0)
            return err_set(err, ERR_BAD_FILE, "there are two tensors named %s",
                           file->weights[i].name);
    return 0;
}

/* A pickle of torch's magic number begins it: LONG1, 10 bytes. */
static bool is_old_torch(const struct weights_file *file)
{
    static const unsigned char begin[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                          0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

    return file->size >= sizeof(begin) && memcmp(file->map, begin, sizeof(begin)) == 0;
}

static int read_contents(struct weights_file *file, struct err *err)
{
    int result;

    file->format = "safetensors";
    if (file->size >= 4 && memcmp(file->map, "GGUF", 4) == 0) {
        file->format = "GGUF";
        result = gguf_read(file, err);
    } else if (file->size >= 4 && memcmp(file->map, "PK\3\4", 4) == 0) {
        file->format = "torch";
        result = torch_read(file, err);
    } else if (is_old_torch(file)) {
        result = err_set(err, ERR_BAD_FILE,
                         "was saved by a torch older than 1.6, whose format is not "
                         "read: load and save it again with a newer one, or take a "
                         "safetensors file of this model");
    } else {
        result = safetensors_read(file, err);
    }
    return result;
}

/* What all formats need once their tensors are there. */
static int settle(struct weights_file *file, struct err *err)
{
    if (file->count == 0)
        return err_set(err, ERR_BAD_FILE, "there are no tensors in it");
    qsort(file->weights, file->count, sizeof(*file->weights), by_name);
    if (refuse_twins(file, err))
        return -1;
    return file->may_share ? 0 : refuse_overlap(file, err);
}

/* ---- opening ---- */

static int map_file(struct weights_file *file, struct err *err)
{
    struct stat st;
    void *map;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int failure;

    if (fd < 0) {
        failure = errno;
        return err_set(err, failure == ENOENT ? ERR_NOT_FOUND : ERR_BAD_FILE,
                       "cannot open: %s", strerror(failure));
    }
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0) {
        close(fd);
        return err_set(err, ERR_BAD_FILE, "is %s, a model file was expected",
                       S_ISDIR(st.st_mode)   ? "a folder"
                       : S_ISREG(st.st_mode) ? "empty"
                                             : "not a regular file");
    }
    file->size = (size_t)st.st_size;
    map = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, fd, 0);
    failure = errno;
    close(fd);
    if (map == MAP_FAILED)
        return err_set(err, ERR_NO_MEMORY, "cannot be mapped: %s", strerror(failure));
    file->map = map;
    file->is_mapped = true;
    return 0;
}

static int open_path(struct weights_file **ret_file, const char *path,
                     int (*read)(struct weights_file *file, struct err *err),
                     struct err *err)
{
    struct weights_file *file = mem_zalloc(sizeof(*file));

    file->path = mem_strdup(path);
    if (read(file, err) || settle(file, err)) {
        weights_file_close(file);
        return -1;
    }
    *ret_file = file;
    return 0;
}

static int map_and_read(struct weights_file *file, struct err *err)
{
    return map_file(file, err) || read_contents(file, err) ? -1 : 0;
}

int weights_single_open(struct weights_file **ret_file, const char *path,
                        struct err *err)
{
    return open_path(ret_file, path, map_and_read, err) ? err_wrap(err, "%s", path) : 0;
}

int weights_file_open_part(struct weights_file *file, const char *path, struct err *err)
{
    struct weights_file *opened = NULL;

    if (weights_single_open(&opened, path, err))
        return -1;
    file->parts =
        mem_realloc(file->parts, (file->part_count + 1) * sizeof(*file->parts));
    file->parts[file->part_count++] = opened;
    return 0;
}

int weights_file_open(struct weights_file **ret_file, const char *path, struct err *err)
{
    if (!file_is_folder(path))
        return weights_single_open(ret_file, path, err);
    return open_path(ret_file, path, folder_read, err) ? err_wrap(err, "%s", path) : 0;
}

int weights_vae_open(struct weights_file **ret_file, const char *path, struct err *err)
{
    return open_path(ret_file, path, vae_file_read, err);
}

static int open_memory(struct weights_file **ret_file, const void *data, size_t size,
                       bool is_vae, struct err *err)
{
    struct weights_file *file = mem_zalloc(sizeof(*file));
    int result;

    file->path = mem_strdup("memory");
    file->map = data;
    file->size = size;
    result = read_contents(file, err);
    if (!result && is_vae)
        vae_names_complete(file);
    if (result || settle(file, err)) {
        weights_file_close(file);
        return -1;
    }
    *ret_file = file;
    return 0;
}

int weights_memory_open(struct weights_file **ret_file, const void *data, size_t size,
                        struct err *err)
{
    return open_memory(ret_file, data, size, false, err);
}

int weights_memory_vae_open(struct weights_file **ret_file, const void *data,
                            size_t size, struct err *err)
{
    return open_memory(ret_file, data, size, true, err);
}

void weights_file_close(struct weights_file *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->count; i++)
        free((void *)(uintptr_t)file->weights[i].name);
    for (size_t i = 0; i < file->meta_count; i++) {
        free(file->meta[i].key);
        free(file->meta[i].value);
    }
    for (size_t i = 0; i < file->copy_count; i++)
        free(file->copies[i]);
    for (size_t i = 0; i < file->part_count; i++)
        weights_file_close(file->parts[i]);
    free(file->parts);
    if (file->is_mapped)
        munmap((void *)(uintptr_t)file->map, file->size);
    free(file->copies);
    free(file->weights);
    free(file->meta);
    free(file->path);
    free(file);
}

/* ---- asking ---- */

const struct weight *weights_file_find(const struct weights_file *file,
                                       const char *name)
{
    struct weight key = {.name = name};

    return bsearch(&key, file->weights, file->count, sizeof(key), by_name);
}

size_t weights_file_count(const struct weights_file *file)
{
    return file->count;
}

const struct weight *weights_file_at(const struct weights_file *file, size_t index)
{
    return &file->weights[index];
}

const char *weights_file_meta(const struct weights_file *file, const char *key)
{
    for (size_t i = 0; i < file->meta_count; i++)
        if (strcmp(file->meta[i].key, key) == 0)
            return file->meta[i].value;
    return NULL;
}

const char *weights_file_path(const struct weights_file *file)
{
    return file->path;
}

const char *weights_file_part_path(const struct weights_file *file, size_t index)
{
    return index < file->part_count ? file->parts[index]->path : NULL;
}

const char *weights_file_format(const struct weights_file *file)
{
    return file->format;
}

uint64_t weights_file_bytes(const struct weights_file *file)
{
    return file->size;
}

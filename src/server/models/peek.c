/* A look at the head of a model file.
 *
 * GGUF, version 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little endian:
 *   "GGUF" u32 version  u64 tensors  u64 pairs
 *   pairs:   string key, u32 type, value       (string = u64 length + bytes; array = u32 type, u64 n, values)
 *   tensors: string name, u32 dims, u64 size[dims], u32 type, u64 offset
 * Text or picture is decided by general.architecture when that is one of the known picture architectures, else
 * by the names of the tensors: every text model has `token_embd.weight`, and the picture models keep the
 * prefixes of their checkpoints. Converters of picture models often write no architecture at all, and there
 * are more text architectures every month, so a list of those was rejected.
 * Safetensors: u64 length of a JSON header; the names are searched in its text without parsing it.
 * torch (.ckpt, .pt): a zip archive whose first entry, stored as it is, is the pickle with the names; they are searched
 * in the archive's beginning.
 *
 * Everything in the file is foreign: lengths are checked against the size of the file before anything is read
 * or skipped, strings that matter are read into fixed memory, the others are skipped over, and the counts have limits. An
 * array of strings (a vocabulary) is walked entry by entry, each one inside the file, so the walk ends. */
#include "server/models/peek.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"
#include "base/str.h"
#include "server/models/attention.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#define PAIRS_MAX 65536
#define TENSORS_MAX 262144
#define NAME_MAX_BYTES 1024
#define SAFETENSORS_HEADER_MAX (100 * 1024 * 1024) /* the format's own limit */
#define SAFETENSORS_SCAN_MAX (16 * 1024 * 1024)
#define TORCH_SCAN_MAX (8 * 1024 * 1024) /* no larger pickle is read */
/* a pickle of torch's magic number */
#define OLD_TORCH "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46"

#define LAYERS_MAX 4096
#define VALUES_MAX ((uint64_t)1 << 44)

enum gguf_type {
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_TYPES = 13
};

static const unsigned char scalar_size[GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4,
                                                      1, 0, 0, 8, 8, 8};

/* Values in a block and bytes of a block, by the number that the format gives the type (ggml.h, enum ggml_type; block
 * sizes from the layouts in ggml-common.h). */
static const struct {
    uint16_t values, bytes;
} tensor_types[] = {
    [0] = {1, 4},      [1] = {1, 2},      [2] = {32, 18},    [3] = {32, 20},
    [6] = {32, 22},    [7] = {32, 24},    [8] = {32, 34},    [9] = {32, 36},
    [10] = {256, 84},  [11] = {256, 110}, [12] = {256, 144}, [13] = {256, 176},
    [14] = {256, 210}, [15] = {256, 292}, [16] = {256, 66},  [17] = {256, 74},
    [18] = {256, 98},  [19] = {256, 50},  [20] = {32, 18},   [21] = {256, 110},
    [22] = {256, 82},  [23] = {256, 136}, [24] = {1, 1},     [25] = {1, 2},
    [26] = {1, 4},     [27] = {1, 8},     [28] = {1, 8},     [29] = {256, 56},
    [30] = {1, 2},     [34] = {256, 54},  [35] = {256, 66},  [39] = {32, 17},
};

struct reader {
    FILE *file;
    const char *path;
    uint64_t size;
    uint64_t at;
    struct err *err;
    struct attention
        attention; /* what was said so far: the number of layers may come last */
};

static int cut_short(struct reader *r)
{
    return err_set(r->err, ERR_BAD_FILE,
                   "%s is not a whole model file: its head points beyond its %" PRIu64
                   " bytes",
                   r->path, r->size);
}

static int get(struct reader *r, void *to, size_t n)
{
    if (n > r->size - r->at || fread(to, 1, n, r->file) != n)
        return cut_short(r);
    r->at += n;
    return 0;
}

static int skip(struct reader *r, uint64_t n)
{
    char small[512];

    if (n > r->size - r->at)
        return cut_short(r);
    if (n <= sizeof(small)) /* stays inside stdio's buffer, which a seek would drop */
        return get(r, small, (size_t)n);
    if (fseeko(r->file, (off_t)n, SEEK_CUR))
        return cut_short(r);
    r->at += n;
    return 0;
}

static int get_u32(struct reader *r, uint32_t *ret)
{
    unsigned char b[4];

    if (get(r, b, 4))
        return -1;
    *ret = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return 0;
}

static int get_u64(struct reader *r, uint64_t *ret)
{
    uint32_t low, high;

    if (get_u32(r, &low) || get_u32(r, &high))
        return -1;
    *ret = low | (uint64_t)high << 32;
    return 0;
}

/* The string into ret[size], cut to fit. */
static int get_string(struct reader *r, char *ret, size_t size)
{
    uint64_t len;
    size_t kept;

    if (get_u64(r, &len))
        return -1;
    if (len > r->size - r->at)
        return cut_short(r);
    kept = len < size - 1 ? (size_t)len : size - 1;
    if (get(r, ret, kept))
        return -1;
    ret[kept] = '\0';
    return skip(r, len - kept);
}

static int skip_value(struct reader *r, uint32_t type)
{
    uint32_t of;
    uint64_t n, len;

    if (type >= GGUF_TYPES)
        return err_set(r->err, ERR_BAD_FILE,
                       "%s is damaged: a value of unknown type %u", r->path, type);
    if (type == GGUF_STRING)
        return get_u64(r, &len) || skip(r, len) ? -1 : 0;
    if (type != GGUF_ARRAY)
        return skip(r, scalar_size[type]);
    if (get_u32(r, &of) || get_u64(r, &n))
        return -1;
    if (of >= GGUF_TYPES || of == GGUF_ARRAY)
        return err_set(r->err, ERR_BAD_FILE,
                       "%s is damaged: an array of unknown type %u", r->path, of);
    if (of != GGUF_STRING)
        return n > r->size / scalar_size[of] ? cut_short(r)
                                             : skip(r, n * scalar_size[of]);
    for (uint64_t i = 0; i < n; i++)
        if (get_u64(r, &len) || skip(r, len))
            return -1;
    return 0;
}

static int get_number(struct reader *r, uint32_t type, uint32_t *ret)
{
    unsigned char byte;

    *ret = 0;
    if (type == GGUF_BOOL) {
        if (get(r, &byte, 1))
            return -1;
        *ret = byte != 0;
        return 0;
    }
    if (type != GGUF_U32 && type != GGUF_I32)
        return skip_value(r, type);
    if (get_u32(r, ret))
        return -1;
    if (*ret > INT32_MAX)
        *ret = 0;
    return 0;
}

/* A number, or an array with one for each layer. Returns the largest of them. */
static int get_numbers(struct reader *r, uint32_t type, struct layer_numbers *list,
                       uint64_t *ret_largest)
{
    uint32_t value;
    uint64_t count = 1;

    *ret_largest = 0;
    list->is_said = true;
    list->is_list = type == GGUF_ARRAY;
    list->count = 0;
    if (type == GGUF_ARRAY) {
        if (get_u32(r, &type) || get_u64(r, &count))
            return -1;
        if (count > LAYERS_MAX)
            return err_set(r->err, ERR_BAD_FILE,
                           "%s is damaged: a list of %" PRIu64
                           " numbers for its layers",
                           r->path, count);
    }
    for (uint64_t i = 0; i < count; i++) {
        if (get_number(r, type, &value))
            return -1;
        if (list->count < ATTENTION_LAYERS_MAX)
            list->of[list->count++] = value;
        *ret_largest = value > *ret_largest ? value : *ret_largest;
    }
    return 0;
}

/* Where the number behind a key goes: into what is known of the model, or of its attention. */
static const struct {
    const char *suffix;
    bool is_attention;
    size_t at;
} number_keys[] = {
#define PEEK(field) false, offsetof(struct model_peek, field)
#define ATTENTION(field) true, offsetof(struct attention, field)
    {".context_length", PEEK(context)},
    {".attention.sliding_window", PEEK(sliding_window)},
    {".block_count", PEEK(layers)},
    {".embedding_length", PEEK(width)},
    {".feed_forward_length", PEEK(feed_forward)},
    {".attention.head_count", PEEK(heads)},
    {".attention.key_length", PEEK(key_length)},
    {".attention.value_length", PEEK(value_length)},
    {".attention.key_length_swa", PEEK(window_key_length)},
    {".attention.value_length_swa", PEEK(window_value_length)},
    {".attention.key_length_mla", ATTENTION(mla_key_length)},
    {".full_attention_interval", ATTENTION(full_interval)},
    {".ssm.conv_kernel", ATTENTION(conv)},
    {".ssm.inner_size", ATTENTION(inner)},
    {".ssm.state_size", ATTENTION(state)},
    {".ssm.group_count", ATTENTION(groups)},
    {".wkv.head_size", ATTENTION(wkv_head)},
#undef PEEK
#undef ATTENTION
};

/* NULL: nowhere. */
static uint64_t *number_for(struct reader *r, struct model_peek *p, const char *key)
{
    for (size_t i = 0; i < sizeof(number_keys) / sizeof(number_keys[0]); i++)
        if (str_has_suffix(key, number_keys[i].suffix))
            return (uint64_t *)(void *)((number_keys[i].is_attention
                                             ? (char *)&r->attention
                                             : (char *)p) +
                                        number_keys[i].at);
    return NULL;
}

/* NULL: the key is none that is said for each layer. */
static struct layer_numbers *list_for(struct reader *r, const char *key)
{
    if (str_has_suffix(key, ".attention.head_count_kv"))
        return &r->attention.kv_heads;
    if (str_has_suffix(key, ".attention.sliding_window_pattern"))
        return &r->attention.pattern;
    return NULL;
}

/* An array's type and length, and over it. */
static int read_vocabulary(struct reader *r, uint32_t type, struct model_peek *p)
{
    uint64_t at = r->at;
    uint32_t of;

    if (type != GGUF_ARRAY)
        return skip_value(r, type);
    if (get_u32(r, &of) || get_u64(r, &p->vocabulary))
        return -1;
    r->at = at;
    if (fseeko(r->file, (off_t)at, SEEK_SET))
        return cut_short(r);
    return skip_value(r, type);
}

static int read_pair(struct reader *r, struct model_peek *p)
{
    char key[NAME_MAX_BYTES];
    uint32_t type;
    uint64_t *to, number;
    struct layer_numbers ignored, *list;

    if (get_string(r, key, sizeof(key)) || get_u32(r, &type))
        return -1;
    if (type == GGUF_STRING && strcmp(key, "general.architecture") == 0)
        return get_string(r, p->architecture, sizeof(p->architecture));
    if (strstr(key, ".ssm.") || strstr(key, ".wkv."))
        p->is_recurrent = true;
    if (strcmp(key, "tokenizer.ggml.tokens") == 0)
        return read_vocabulary(r, type, p);
    bool is_pooling = str_has_suffix(key, ".pooling_type");

    to = number_for(r, p, key);
    list = list_for(r, key);
    if (!to && !list && !is_pooling)
        return skip_value(r, type);
    if (get_numbers(r, type, list ? list : &ignored, &number))
        return -1;
    if (is_pooling)
        p->pooling = type == GGUF_U32 && number <= 4 ? (int)number : -1;
    else if (to)
        *to = number;
    return 0;
}

static bool is_picture_architecture(const char *name)
{
    static const char *const known[] = {
        "sd1",   "sd2",        "sd3",     "sdxl",   "flux",   "flux2", "sd",
        "aura",  "hidream",    "lumina2", "cosmos", "ltxv",   "wan",   "hyvid",
        "mochi", "qwen_image", "z_image", "chroma", "pixart",
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    return false;
}

static bool is_picture_tensor(const char *name)
{
    static const char *const parts[] = {
        "model.diffusion_model.", "first_stage_model.",
        "cond_stage_model.",      "double_blocks.",
        "joint_blocks.",          "input_blocks.",
        "down_blocks.",           "single_transformer_blocks.",
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        if (str_has_prefix(name, parts[i]))
            return true;
    return false;
}

static void add_tensor(struct model_peek *p, const char *name, uint32_t type,
                       uint64_t values)
{
    bool known = type < sizeof(tensor_types) / sizeof(tensor_types[0]) &&
                 tensor_types[type].values;

    if (!known) {
        p->has_unknown_type = true;
        return;
    }
    uint64_t bytes = values / tensor_types[type].values * tensor_types[type].bytes;

    if (str_has_prefix(name, "blk."))
        p->layer_bytes += bytes;
    else
        p->other_bytes += bytes;
}

static int read_tensor(struct reader *r, struct model_peek *p, uint64_t *last_offset)
{
    char name[NAME_MAX_BYTES];
    uint32_t dims, type;
    uint64_t offset, size, values = 1;

    if (get_string(r, name, sizeof(name)) || get_u32(r, &dims))
        return -1;
    if (dims > 8)
        return err_set(r->err, ERR_BAD_FILE, "%s is damaged: a tensor of %u dimensions",
                       r->path, dims);
    for (uint32_t i = 0; i < dims; i++) {
        if (get_u64(r, &size))
            return -1;
        if (__builtin_mul_overflow(values, size, &values) || values > VALUES_MAX)
            return err_set(r->err, ERR_BAD_FILE,
                           "%s is damaged: the tensor %.80s is larger than any file",
                           r->path, name);
    }
    if (get_u32(r, &type) || get_u64(r, &offset))
        return -1;
    add_tensor(p, name, type, values);
    if (offset > *last_offset)
        *last_offset = offset;
    if (p->kind != MODEL_UNKNOWN)
        return 0;
    if (is_picture_tensor(name))
        p->kind = MODEL_PICTURE;
    else if (strcmp(name, "token_embd.weight") == 0)
        p->kind = MODEL_TEXT;
    return 0;
}

static int peek_gguf(struct reader *r, struct model_peek *p)
{
    uint32_t version;
    uint64_t pairs, last_offset = 0;

    p->format = MODEL_GGUF;
    if (get_u32(r, &version) || get_u64(r, &p->tensors) || get_u64(r, &pairs))
        return -1;
    if (version < 2 || version > 3)
        return err_set(r->err, ERR_BAD_FILE,
                       "%s is a GGUF file of version %u; 2 and 3 can be read", r->path,
                       version);
    if (pairs > PAIRS_MAX || p->tensors > TENSORS_MAX)
        return err_set(r->err, ERR_BAD_FILE,
                       "%s is damaged: it announces %" PRIu64 " values and %" PRIu64
                       " tensors",
                       r->path, pairs, p->tensors);
    for (uint64_t i = 0; i < pairs; i++)
        if (read_pair(r, p))
            return -1;
    attention_sum_up(&r->attention, p);
    if (is_picture_architecture(p->architecture))
        p->kind = MODEL_PICTURE;
    for (uint64_t i = 0; i < p->tensors; i++)
        if (read_tensor(r, p, &last_offset))
            return -1;
    if (last_offset >= r->size - r->at && p->tensors > 0)
        return cut_short(r);
    return 0;
}

/* The n bytes behind `at` as text, free() it; NULL with err. */
static char *read_text(struct reader *r, uint64_t at, size_t n)
{
    char *text = mem_try_alloc(n + 1);

    if (!text) {
        err_set(r->err, ERR_NO_MEMORY, "no memory for the head of %s (%zu bytes)",
                r->path, n);
        return NULL;
    }
    r->at = at;
    if (fseeko(r->file, (off_t)at, SEEK_SET) || get(r, text, n)) {
        free(text);
        cut_short(r);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

static bool holds(const char *text, size_t n, const char *word)
{
    return memmem(text, n, word, strlen(word)) != NULL;
}

static int peek_safetensors(struct reader *r, struct model_peek *p, uint64_t header)
{
    size_t n = header < SAFETENSORS_SCAN_MAX ? (size_t)header : SAFETENSORS_SCAN_MAX;
    char *text = read_text(r, 8, n);

    p->format = MODEL_SAFETENSORS;
    if (!text)
        return -1;
    if (holds(text, n, "\"model.diffusion_model.") ||
        holds(text, n, "\"double_blocks.") || holds(text, n, "\"joint_blocks."))
        p->kind = MODEL_PICTURE;
    free(text);
    return 0;
}

static int peek_torch(struct reader *r, struct model_peek *p)
{
    size_t n = r->size < TORCH_SCAN_MAX ? (size_t)r->size : TORCH_SCAN_MAX;
    char *text = read_text(r, 0, n);

    p->format = MODEL_TORCH;
    if (!text)
        return -1;
    if (holds(text, n, "data.pkl") && holds(text, n, "model.diffusion_model."))
        p->kind = MODEL_PICTURE;
    free(text);
    return 0;
}

static int peek_open(struct reader *r, struct model_peek *p)
{
    unsigned char head[8];
    uint64_t header = 0;

    if (r->size < sizeof(head) || get(r, head, 4))
        return err_set(r->err, ERR_BAD_FILE,
                       "%s is not a model: it has only %" PRIu64 " bytes", r->path,
                       r->size);
    if (memcmp(head, "GGUF", 4) == 0)
        return peek_gguf(r, p);
    if (memcmp(head, "PK\3\4", 4) == 0)
        return peek_torch(r, p);
    if (get(r, head + 4, 4))
        return -1;
    if (memcmp(head, OLD_TORCH, sizeof(head)) == 0)
        return err_set(r->err, ERR_BAD_FILE,
                       "%s was saved by a torch older than 1.6, whose format is not "
                       "read: load and save it again with a newer one, or take a "
                       "safetensors file of this model",
                       r->path);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | head[i];
    if (header >= 2 && header <= SAFETENSORS_HEADER_MAX && header <= r->size - 8 &&
        fgetc(r->file) == '{')
        return peek_safetensors(r, p, header);
    return err_set(r->err, ERR_BAD_FILE,
                   "%s is not a model: it is neither a GGUF, a safetensors nor a torch "
                   "file",
                   r->path);
}

/* A picture model in diffusers' layout; the engine judges what is in its files. */
static int peek_folder(const char *path, struct model_peek *p, struct err *err)
{
    char *unet;
    int64_t modified;

    if (!model_folder_is(path))
        return err_set(err, ERR_BAD_FILE,
                       "%s is a folder, not a model file: name a .gguf or .safetensors "
                       "file in it",
                       path);
    unet = model_folder_weights(path, MODEL_FOLDER_UNET);
    p->format = MODEL_FOLDER;
    p->kind = unet ? MODEL_PICTURE : MODEL_UNKNOWN;
    model_folder_size(path, &p->size_bytes, &modified);
    free(unet);
    return 0;
}

int model_peek(const char *path, struct model_peek *ret, struct err *err)
{
    struct model_peek p = {.pooling = -1};
    struct reader r = {.path = path, .err = err};
    struct stat st;
    int rc;

    if (stat(path, &st))
        return err_set(
            err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_INVALID,
            "there is no model file %s (%s)", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        rc = peek_folder(path, &p, err);
        if (rc == 0)
            *ret = p;
        return rc;
    }
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_BAD_FILE, "%s is not a regular file", path);
    r.file = fopen(path, "rbe");
    if (!r.file)
        return err_set(err, ERR_FORBIDDEN, "cannot read the model file %s: %s", path,
                       strerror(errno));
    r.size = p.size_bytes = (uint64_t)st.st_size;
    rc = peek_open(&r, &p);
    fclose(r.file);
    if (rc == 0)
        *ret = p;
    return rc;
}

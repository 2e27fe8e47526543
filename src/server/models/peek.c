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
 *
 * Everything in the file is foreign: lengths are checked against the size of the file before anything is read
 * or skipped, strings that matter are read into fixed memory, the others are skipped over, and the counts have limits. An
 * array of strings (a vocabulary) is walked entry by entry, each one inside the file, so the walk ends. */
#include "server/models/peek.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/stat.h>

#define PAIRS_MAX 65536
#define TENSORS_MAX 262144
#define NAME_MAX_BYTES 1024
#define SAFETENSORS_HEADER_MAX (100 * 1024 * 1024) /* the format's own limit */
#define SAFETENSORS_SCAN_MAX (16 * 1024 * 1024)

enum gguf_type { GGUF_STRING = 8, GGUF_ARRAY = 9, GGUF_TYPES = 13 };

static const unsigned char scalar_size[GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4,
                                                      1, 0, 0, 8, 8, 8};

struct reader {
    FILE *file;
    const char *path;
    uint64_t size;
    uint64_t at;
    struct err *err;
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

static int read_pair(struct reader *r, struct model_peek *p)
{
    char key[NAME_MAX_BYTES];
    uint32_t type, value;

    if (get_string(r, key, sizeof(key)) || get_u32(r, &type))
        return -1;
    if (type == GGUF_STRING && strcmp(key, "general.architecture") == 0)
        return get_string(r, p->architecture, sizeof(p->architecture));
    if (strstr(key, ".ssm.") || strstr(key, ".wkv."))
        p->is_recurrent = true;
    if (type == 4 /* u32 */ && str_has_suffix(key, ".context_length")) {
        if (get_u32(r, &value))
            return -1;
        p->context = value;
        return 0;
    }
    if (type == 4 && str_has_suffix(key, ".pooling_type")) {
        if (get_u32(r, &value))
            return -1;
        p->pooling = value <= 4 ? (int)value : -1;
        return 0;
    }
    if (type == 4 && str_has_suffix(key, ".attention.sliding_window")) {
        if (get_u32(r, &value))
            return -1;
        p->sliding_window = value;
        return 0;
    }
    return skip_value(r, type);
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

static int read_tensor(struct reader *r, struct model_peek *p, uint64_t *last_offset)
{
    char name[NAME_MAX_BYTES];
    uint32_t dims, type;
    uint64_t offset;

    if (get_string(r, name, sizeof(name)) || get_u32(r, &dims))
        return -1;
    if (dims > 8)
        return err_set(r->err, ERR_BAD_FILE, "%s is damaged: a tensor of %u dimensions",
                       r->path, dims);
    if (skip(r, dims * 8) || get_u32(r, &type) || get_u64(r, &offset))
        return -1;
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
    if (is_picture_architecture(p->architecture))
        p->kind = MODEL_PICTURE;
    for (uint64_t i = 0; i < p->tensors; i++)
        if (read_tensor(r, p, &last_offset))
            return -1;
    if (last_offset >= r->size - r->at && p->tensors > 0)
        return cut_short(r);
    return 0;
}

static int peek_safetensors(struct reader *r, struct model_peek *p, uint64_t header)
{
    size_t n = header < SAFETENSORS_SCAN_MAX ? (size_t)header : SAFETENSORS_SCAN_MAX;
    char *text = mem_try_alloc(n + 1);

    p->format = MODEL_SAFETENSORS;
    if (!text)
        return err_set(r->err, ERR_NO_MEMORY,
                       "no memory for the head of %s (%zu bytes)", r->path, n);
    r->at = 8;
    if (fseeko(r->file, 8, SEEK_SET) || get(r, text, n)) {
        free(text);
        return cut_short(r);
    }
    text[n] = '\0';
    if (memmem(text, n, "\"model.diffusion_model.", 23) ||
        memmem(text, n, "\"double_blocks.", 15) ||
        memmem(text, n, "\"joint_blocks.", 14))
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
    if (get(r, head + 4, 4))
        return -1;
    for (int i = 7; i >= 0; i--)
        header = header << 8 | head[i];
    if (header >= 2 && header <= SAFETENSORS_HEADER_MAX && header <= r->size - 8 &&
        fgetc(r->file) == '{')
        return peek_safetensors(r, p, header);
    return err_set(r->err, ERR_BAD_FILE,
                   "%s is not a model: it is neither a GGUF nor a safetensors file",
                   r->path);
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
    if (S_ISDIR(st.st_mode))
        return err_set(err, ERR_BAD_FILE,
                       "%s is a folder, not a model file: name a .gguf or .safetensors "
                       "file in it",
                       path);
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

/* torch: what torch.save wrote (.ckpt, .pt, .pth): a zip archive with a pickle, which
 * says how the tensors are called and shaped, and an entry for each storage, their
 * bytes.
 *
 *   archive/data.pkl     {"state_dict": {name: tensor, ...}, "global_step": 840000}
 *   archive/data/0       the bytes of storage "0", at a multiple of 64
 *   archive/byteorder    "little"
 *
 * A tensor is a call, _rebuild_tensor_v2(storage, offset, size, stride, ...), and a
 * storage a reference, ("storage", torch.HalfStorage, "0", "cpu", elements). pickle.c
 * executes neither; here both are read as what they say. The globals below are all that
 * a pickle may name. Those marked PLAIN are read over: training programs leave such
 * things beside the weights.
 *
 * Where the weights are: under "state_dict", else in the only dictionary there is, else
 * in the pickle itself; a dictionary inside gives its name and a dot to its tensors (a
 * textual inversion: "string_to_param.*"), and so does a ParameterDict, whose tensors are in
 * its attribute _parameters (the first textual inversions). Texts and numbers beside the weights are
 * metadata.
 *
 * A tensor whose elements do not lie one behind the other (a transposed one) is copied
 * once, at opening; all others are used where they are. Two tensors may share a storage:
 * tied weights do. Refused: a tensor that repeats elements (stride 0), because that is
 * how a small file would become a large one, storages shorter than their tensors, and
 * torch's format of before 2020, whose bytes are no archive. */
#include "engine/files/pickle.h"
#include "engine/files/reader.h"
#include "engine/files/zip.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define PICKLE_NAME "data.pkl"
#define MAX_RANK 4
#define MAX_PATH 256
#define MAX_PAIRS ((size_t)1 << 17) /* looked at: dictionaries may be shared */
#define MAX_METADATA 256
#define MAX_METADATA_TEXT 4096

enum meaning { PLAIN, DICTIONARY, MODULE, TENSOR, PARAMETER, STORAGE };

static const struct pickle_global globals[] = {
    {"collections", "OrderedDict", DICTIONARY, 0},
    {"torch.nn.modules.container", "ParameterDict", MODULE, 0},
    {"torch._utils", "_rebuild_tensor_v2", TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", PARAMETER, 0},
    {"torch", "FloatStorage", STORAGE, WEIGHT_F32},
    {"torch", "HalfStorage", STORAGE, WEIGHT_F16},
    {"torch", "BFloat16Storage", STORAGE, WEIGHT_BF16},
    {"torch", "DoubleStorage", STORAGE, WEIGHT_OTHER},
    {"torch", "LongStorage", STORAGE, WEIGHT_OTHER},
    {"torch", "IntStorage", STORAGE, WEIGHT_OTHER},
    {"torch", "ShortStorage", STORAGE, WEIGHT_OTHER},
    {"torch", "CharStorage", STORAGE, WEIGHT_OTHER},
    {"torch", "ByteStorage", STORAGE, WEIGHT_OTHER},
    {"torch", "BoolStorage", STORAGE, WEIGHT_OTHER},
    {"torch", "Size", PLAIN, 0},
    {"torch", "device", PLAIN, 0},
    {"torch", "float32", PLAIN, 0},
    {"torch", "float16", PLAIN, 0},
    {"torch", "bfloat16", PLAIN, 0},
    {"collections", "defaultdict", PLAIN, 0},
    {"__builtin__", "dict", PLAIN, 0},
    {"__builtin__", "set", PLAIN, 0},
    {"_codecs", "encode", PLAIN, 0},
    {"numpy", "dtype", PLAIN, 0},
    {"numpy", "ndarray", PLAIN, 0},
    {"numpy.core.multiarray", "scalar", PLAIN, 0},
    {"numpy.core.multiarray", "_reconstruct", PLAIN, 0},
    {"numpy._core.multiarray", "scalar", PLAIN, 0},
    {"numpy._core.multiarray", "_reconstruct", PLAIN, 0},
    {"pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", PLAIN, 0},
    {NULL, NULL, 0, 0},
};

struct torch {
    struct weights_file *file;
    struct zip zip;
    char folder[MAX_PATH]; /* "archive/", "" when the pickle lies at the top */
    size_t folder_len;
    struct pickle *pickle;
    size_t copied; /* bytes */
    size_t pairs;  /* looked at */
};

/* ---- the archive ---- */

static const struct zip_entry *find_entry(const struct torch *t, const char *name,
                                          size_t name_len)
{
    char path[2 * MAX_PATH];

    if (name_len >= MAX_PATH)
        return NULL;
    memcpy(path, t->folder, t->folder_len);
    memcpy(path + t->folder_len, name, name_len);
    return zip_find(&t->zip, path, t->folder_len + name_len);
}

/* "data.pkl" at the top or in the one folder that there is. */
static const struct zip_entry *find_pickle(struct torch *t)
{
    size_t len = strlen(PICKLE_NAME);

    for (size_t i = 0; i < t->zip.count; i++) {
        const struct zip_entry *e = &t->zip.entries[i];
        const char *slash = memchr(e->name, '/', e->name_len);
        size_t folder = slash ? (size_t)(slash - e->name) + 1 : 0;

        if (folder >= MAX_PATH || e->name_len != folder + len ||
            memcmp(e->name + folder, PICKLE_NAME, len) != 0)
            continue;
        memcpy(t->folder, e->name, folder);
        t->folder_len = folder;
        return e;
    }
    return NULL;
}

static int read_archive(struct torch *t, struct err *err)
{
    const struct zip_entry *pickle, *order;

    if (zip_read(&t->zip, t->file->map, t->file->size, err))
        return -1;
    pickle = find_pickle(t);
    if (!pickle)
        return err_set(err, ERR_BAD_FILE,
                       "is a zip archive without " PICKLE_NAME
                       ": torch.save did not write it");
    order = find_entry(t, "byteorder", strlen("byteorder"));
    if (order && (order->size != 6 || memcmp(order->data, "little", 6) != 0))
        return err_set(err, ERR_BAD_FILE, "its byte order is not little endian");
    return pickle_read(&t->pickle, pickle->data, pickle->size, globals, err);
}

/* ---- tensors ---- */

struct layout {
    const struct zip_entry *storage; /* NULL for WEIGHT_OTHER */
    enum weight_type type;
    const char *type_name; /* torch's */
    int rank;
    int64_t numbers;                                  /* in the storage */
    int64_t offset, size[MAX_RANK], stride[MAX_RANK]; /* in numbers */
};

static const struct pickle_value *argument(const struct pickle_value *call, size_t i,
                                           enum pickle_kind kind)
{
    const struct pickle_value *a = call->arguments;

    if (a->kind != PICKLE_TUPLE || i >= a->count || a->items[i]->kind != kind)
        return NULL;
    return a->items[i];
}

static size_t type_bytes(enum weight_type type)
{
    return type == WEIGHT_F32 ? 4 : 2;
}

static int read_storage(const struct torch *t, const struct pickle_value *reference,
                        struct layout *l, struct err *err)
{
    const struct pickle_value *word = argument(reference, 0, PICKLE_TEXT);
    const struct pickle_value *type = argument(reference, 1, PICKLE_GLOBAL);
    const struct pickle_value *key = argument(reference, 2, PICKLE_TEXT);
    const struct pickle_value *numbers = argument(reference, 4, PICKLE_INT);
    char name[MAX_PATH] = "data/";
    size_t len = strlen(name);

    if (!word || !pickle_is_text(word, "storage") || !type ||
        type->global->meaning != STORAGE || !key || !numbers || numbers->number < 0)
        return err_set(err, ERR_BAD_FILE, "its storage is not described as torch does");
    l->type = (enum weight_type)type->global->detail;
    l->type_name = type->global->name;
    l->numbers = numbers->number;
    if (l->type == WEIGHT_OTHER)
        return 0;
    if (key->len < sizeof(name) - len) {
        memcpy(name + len, key->text, key->len);
        l->storage = find_entry(t, name, len + key->len);
    }
    if (!l->storage)
        return err_set(err, ERR_BAD_FILE, "its storage %.*s is not in the archive",
                       key->len < 40 ? (int)key->len : 40, key->text);
    if ((uint64_t)l->numbers > l->storage->size / type_bytes(l->type))
        return err_set(err, ERR_BAD_FILE,
                       "its storage of %" PRId64 " numbers has %zu bytes", l->numbers,
                       l->storage->size);
    return 0;
}

static int read_sizes(const struct pickle_value *tuple, int64_t *ret, struct err *err)
{
    for (uint32_t i = 0; i < tuple->count; i++) {
        if (tuple->items[i]->kind != PICKLE_INT || tuple->items[i]->number < 0)
            return err_set(err, ERR_BAD_FILE, "its shape holds what is no size");
        ret[i] = tuple->items[i]->number;
    }
    return 0;
}

static int read_layout(const struct torch *t, const struct pickle_value *call,
                       struct layout *l, struct err *err)
{
    const struct pickle_value *storage = argument(call, 0, PICKLE_PERSISTENT);
    const struct pickle_value *offset = argument(call, 1, PICKLE_INT);
    const struct pickle_value *size = argument(call, 2, PICKLE_TUPLE);
    const struct pickle_value *stride = argument(call, 3, PICKLE_TUPLE);

    if (!storage || !offset || offset->number < 0 || !size || !stride ||
        size->count != stride->count)
        return err_set(err, ERR_BAD_FILE, "is not described as torch does");
    if (read_storage(t, storage, l, err))
        return -1;
    if (size->count > MAX_RANK) {
        l->type = WEIGHT_OTHER;
        return 0;
    }
    l->rank = (int)size->count;
    l->offset = offset->number;
    return read_sizes(size, l->size, err) || read_sizes(stride, l->stride, err) ? -1
                                                                                : 0;
}

/* Do the elements lie one behind the other? `ret_count` of them; -1: more than there
 * could be. */
static int is_plain(const struct layout *l, int64_t *ret_count)
{
    int64_t step = 1;
    bool plain = true;

    *ret_count = 1;
    for (int i = l->rank; i-- > 0;) {
        if (l->size[i] != 1 && l->stride[i] != step)
            plain = false;
        if (__builtin_mul_overflow(step, l->size[i], &step))
            return -1;
    }
    *ret_count = step;
    return plain;
}

/* The last element must lie in the storage. */
static int check_reach(const struct layout *l, int64_t count, struct err *err)
{
    int64_t last = l->offset, way = 0;
    bool is_wide = false;

    for (int i = 0; i < l->rank && count; i++)
        if (__builtin_mul_overflow(l->size[i] - 1, l->stride[i], &way) ||
            __builtin_add_overflow(last, way, &last))
            is_wide = true;
    if (is_wide || l->offset > l->numbers || (count && last >= l->numbers))
        return err_set(err, ERR_BAD_FILE,
                       "it reaches beyond its storage of %" PRId64 " numbers",
                       l->numbers);
    return 0;
}

/* Elements in the order of the shape, from wherever they lie. */
static void gather(const struct layout *l, const unsigned char *from, size_t bytes,
                   unsigned char *to)
{
    int64_t size[MAX_RANK] = {1, 1, 1, 1}, stride[MAX_RANK] = {0};

    memcpy(size + MAX_RANK - l->rank, l->size, (size_t)l->rank * sizeof(*size));
    memcpy(stride + MAX_RANK - l->rank, l->stride, (size_t)l->rank * sizeof(*stride));
    for (int64_t a = 0; a < size[0]; a++)
        for (int64_t b = 0; b < size[1]; b++)
            for (int64_t c = 0; c < size[2]; c++)
                for (int64_t d = 0; d < size[3]; d++, to += bytes)
                    memcpy(to,
                           from + (size_t)(a * stride[0] + b * stride[1] +
                                           c * stride[2] + d * stride[3]) *
                                      bytes,
                           bytes);
}

static int copy_tensor(struct torch *t, const struct layout *l, int64_t count,
                       struct tensor_entry *entry, struct err *err)
{
    size_t bytes = (size_t)count * type_bytes(l->type);

    if (count > l->numbers || bytes > t->file->size - t->copied)
        return err_set(err, ERR_BAD_FILE,
                       "it has %" PRId64 " elements of a storage of %" PRId64
                       ": elements that are repeated are not supported",
                       count, l->numbers);
    entry->copy = mem_try_alloc(bytes + 1);
    if (!entry->copy)
        return err_set(err, ERR_NO_MEMORY, "no memory for a copy of %zu bytes", bytes);
    t->copied += bytes;
    gather(l, l->storage->data + (size_t)l->offset * type_bytes(l->type),
           type_bytes(l->type), entry->copy);
    return 0;
}

static int describe(struct torch *t, const struct pickle_value *call,
                    struct tensor_entry *entry, struct err *err)
{
    struct layout l = {0};
    int64_t count;
    int plain;

    if (read_layout(t, call, &l, err))
        return -1;
    entry->type = l.type;
    entry->other = l.type_name;
    if (l.type == WEIGHT_OTHER)
        return 0;
    entry->rank = l.rank;
    memcpy(entry->dim, l.size, sizeof(entry->dim));
    plain = is_plain(&l, &count);
    if (plain < 0)
        return err_set(err, ERR_BAD_FILE, "its shape is impossible");
    if (check_reach(&l, count, err))
        return -1;
    if (!plain && count)
        return copy_tensor(t, &l, count, entry, err);
    entry->at = (uint64_t)(l.storage->data - t->file->map) +
                (uint64_t)l.offset * type_bytes(l.type);
    return 0;
}

/* ---- dictionaries ---- */

static bool is_dictionary(const struct pickle_value *value)
{
    return value->kind == PICKLE_DICT || pickle_is_call(value, DICTIONARY);
}

/* The dictionary that this is, or that a module keeps its tensors in; NULL: neither. */
static const struct pickle_value *dictionary_of(const struct pickle_value *value)
{
    const struct pickle_value *state = value->kind == PICKLE_CALL ? value->state : NULL;

    if (is_dictionary(value))
        return value;
    if (!pickle_is_call(value, MODULE) || !state || !is_dictionary(state))
        return NULL;
    for (uint32_t i = 0; i + 1 < state->count; i += 2)
        if (pickle_is_text(state->items[i], "_parameters") &&
            is_dictionary(state->items[i + 1]))
            return state->items[i + 1];
    return NULL;
}

/* The call that makes this tensor; NULL when it is none. */
static const struct pickle_value *tensor_of(const struct pickle_value *value)
{
    if (pickle_is_call(value, PARAMETER)) {
        value = argument(value, 0, PICKLE_CALL);
        if (!value)
            return NULL;
    }
    return pickle_is_call(value, TENSOR) ? value : NULL;
}

static int add_tensor(struct torch *t, const char *prefix,
                      const struct pickle_value *name, const struct pickle_value *call,
                      struct err *err)
{
    char *whole = mem_printf("%s%.*s", prefix, (int)name->len, name->text);
    struct tensor_entry entry = {.name = whole, .name_len = strlen(whole)};
    int result;

    if (memchr(name->text, 0, name->len))
        result = err_set(err, ERR_BAD_FILE, "a tensor has no proper name");
    else if (describe(t, call, &entry, err))
        result = err_wrap(err, "tensor %.200s", whole);
    else
        result = weights_file_add(t->file, &entry, err);
    free(whole);
    return result;
}

static int add_tensors(struct torch *t, const char *prefix,
                       const struct pickle_value *dictionary, struct err *err)
{
    for (uint32_t i = 0; i + 1 < dictionary->count; i += 2) {
        const struct pickle_value *name = dictionary->items[i];
        const struct pickle_value *value = dictionary->items[i + 1];
        const struct pickle_value *call = tensor_of(value);
        const struct pickle_value *inside = dictionary_of(value);
        int result = 0;

        if (++t->pairs > MAX_PAIRS)
            return err_set(err, ERR_BAD_FILE,
                           "its dictionaries have more than %zu entries", MAX_PAIRS);
        if (name->kind != PICKLE_TEXT)
            continue; /* optimizers count their parameters with numbers */
        if (call) {
            result = add_tensor(t, prefix, name, call, err);
        } else if (!*prefix && name->len <= MAX_PATH && inside) {
            char *longer = mem_printf("%.*s.", (int)name->len, name->text);

            result = add_tensors(t, longer, inside, err);
            free(longer);
        }
        if (result)
            return -1;
    }
    return 0;
}

static void add_metadata(struct torch *t, const struct pickle_value *root)
{
    char *text;

    for (uint32_t i = 0; i + 1 < root->count; i += 2) {
        const struct pickle_value *key = root->items[i], *value = root->items[i + 1];

        if (key->kind != PICKLE_TEXT || key->len > MAX_PATH ||
            memchr(key->text, 0, key->len))
            continue;
        if (t->file->meta_count == MAX_METADATA)
            return;
        if (value->kind == PICKLE_TEXT && value->len <= MAX_METADATA_TEXT)
            text = mem_strndup(value->text, value->len);
        else if (value->kind == PICKLE_INT)
            text = mem_printf("%" PRId64, value->number);
        else if (value->kind == PICKLE_REAL)
            text = mem_printf("%.17g", value->real);
        else
            continue;
        weights_file_add_meta(t->file, key->text, key->len, text, strlen(text));
        free(text);
    }
}

static const struct pickle_value *find_weights(const struct pickle_value *root)
{
    for (uint32_t i = 0; i + 1 < root->count; i += 2)
        if (is_dictionary(root->items[i + 1]) &&
            (root->count == 2 || pickle_is_text(root->items[i], "state_dict")))
            return root->items[i + 1];
    return root;
}

static int read_pickle(struct torch *t, struct err *err)
{
    const struct pickle_value *root = pickle_root(t->pickle);

    if (!is_dictionary(root))
        return err_set(err, ERR_BAD_FILE,
                       "its pickle is no dictionary of tensors: save the model's "
                       "state_dict");
    add_metadata(t, root);
    return add_tensors(t, "", find_weights(root), err);
}

int torch_read(struct weights_file *file, struct err *err)
{
    struct torch t = {.file = file};
    int result;

    file->may_share = true;
    result = read_archive(&t, err) || read_pickle(&t, err) ? -1 : 0;
    pickle_free(t.pickle);
    zip_release(&t.zip);
    return result;
}

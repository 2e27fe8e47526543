/* folder: the parts of a diffusers folder, read and renamed.
 *
 *   model_index.json          what it is; anything named "mysti...." is metadata
 *   unet/ vae/ text_encoder/ text_encoder_2/
 *       one file of weights, or <name>.index.json and the files that it names
 *       config.json           the heads, which no tensor tells
 *   scheduler/scheduler_config.json     eps or v
 *
 * Each file is opened as any other (weights.c checks all of it) and stays mapped; the
 * folder's tensors are theirs under other names (diffusers.c), so nothing is copied and
 * the rest of the engine sees one checkpoint. Only what those JSON files say about the
 * network is taken from them, sizes come from the tensors as always.
 *
 * A part that is not there is let be here: what lacks then is the checkpoint's to say, by
 * the tensor's name. The U-Net must be there, or this is a folder of another kind. A file
 * that an index names is opened in the part's folder and nowhere else. */
#include "engine/files/folder.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"
#include "base/str.h"
#include "engine/files/diffusers.h"
#include "engine/files/reader.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JSON ((size_t)16 << 20)
#define MAX_SHARDS 1000

/* ---- indexes ---- */

static int by_file(const void *a, const void *b)
{
    const struct shard_entry *x = a, *y = b;
    int order = strcmp(x->file, y->file);

    return order ? order : strcmp(x->tensor, y->tensor);
}

static int add_entry(struct shard_index *index, const char *tensor, const json_t *file,
                     struct err *err)
{
    const char *name = json_string_value(file);

    if (!name)
        return err_set(err, ERR_BAD_FILE, "its weight_map names no file for %.200s",
                       tensor);
    if (!file_is_confined(name) || strchr(name, '/'))
        return err_set(err, ERR_BAD_FILE,
                       "its weight_map names '%.100s' for %.200s: a file beside it is "
                       "expected, its name alone",
                       name, tensor);
    index->entries[index->count++] =
        (struct shard_entry){mem_strdup(tensor), mem_strdup(name)};
    return 0;
}

int shard_index_read(struct shard_index *ret, const char *text, size_t size,
                     struct err *err)
{
    struct shard_index index = {0};
    json_error_t where;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    json_t *map = json_object_get(root, "weight_map"), *file;
    const char *tensor;
    int result = 0;

    if (!root)
        result = err_set(err, ERR_BAD_FILE, "is no JSON: %s at byte %d", where.text,
                         where.position);
    else if (!json_object_size(map))
        result = err_set(err, ERR_BAD_FILE,
                         "has no weight_map that says which tensor is in which file");
    if (!result)
        index.entries = mem_alloc(json_object_size(map) * sizeof(*index.entries));
    json_object_foreach(map, tensor, file) if (!result) result =
        add_entry(&index, tensor, file, err);
    json_decref(root);
    if (result) {
        shard_index_release(&index);
        return -1;
    }
    qsort(index.entries, index.count, sizeof(*index.entries), by_file);
    *ret = index;
    return 0;
}

void shard_index_release(struct shard_index *index)
{
    for (size_t i = 0; i < index->count; i++) {
        free(index->entries[i].tensor);
        free(index->entries[i].file);
    }
    free(index->entries);
    *index = (struct shard_index){0};
}

/* ---- parts ---- */

struct part {
    const char *name, *prefix;
    enum diffusers_part kind;
    size_t first, count; /* of the folder's files */
};

static int open_file(struct weights_file *file, struct part *part, const char *path,
                     struct err *err)
{
    if (weights_file_open_part(file, path, err))
        return -1;
    part->count++;
    return 0;
}

/* The files of an index, and in each what the index says is in it. */
static int open_shards(struct weights_file *file, struct part *part,
                       const char *index_path, const struct shard_index *index,
                       struct err *err)
{
    char *folder =
        mem_strndup(index_path, (size_t)(file_name(index_path) - index_path));
    int result = 0;

    for (size_t i = 0; i < index->count && !result; i++) {
        const struct shard_entry *e = &index->entries[i];

        if (i == 0 || strcmp(index->entries[i - 1].file, e->file) != 0) {
            char *path = file_join(folder, e->file);

            if (part->count == MAX_SHARDS)
                result = err_set(err, ERR_BAD_FILE, "%s names more than %d files",
                                 index_path, MAX_SHARDS);
            else if (open_file(file, part, path, err))
                result = err_wrap(err, "%s names it, but", index_path);
            free(path);
        }
        if (!result &&
            !weights_file_find(file->parts[part->first + part->count - 1], e->tensor))
            result = err_set(err, ERR_BAD_FILE,
                             "%s says that tensor %.200s is in %.100s, which has no "
                             "such tensor",
                             index_path, e->tensor, e->file);
    }
    free(folder);
    return result;
}

static int open_part(struct weights_file *file, struct part *part, struct err *err)
{
    char *path = model_folder_weights(file->path, part->name);
    struct shard_index index = {0};
    struct buf text = {0};
    int result = 0;

    part->first = file->part_count;
    if (path && !model_folder_is_index(path)) {
        result = open_file(file, part, path, err);
    } else if (path) {
        result = file_read(path, MAX_JSON, &text, err);
        if (!result && shard_index_read(&index, buf_str(&text), text.len, err))
            result = err_wrap(err, "%s", path);
        if (!result)
            result = open_shards(file, part, path, &index, err);
    }
    shard_index_release(&index);
    buf_release(&text);
    free(path);
    return result;
}

static int add_tensors(struct weights_file *file, const struct part *part,
                       struct err *err)
{
    struct diffusers_blocks blocks = {0};
    struct buf name = {0};
    int result = 0;

    for (size_t f = part->first; f < part->first + part->count; f++)
        for (size_t i = 0; i < weights_file_count(file->parts[f]); i++)
            diffusers_learn(&blocks, weights_file_at(file->parts[f], i)->name);
    for (size_t f = part->first; f < part->first + part->count; f++)
        for (size_t i = 0; i < weights_file_count(file->parts[f]) && !result; i++) {
            const struct weight *w = weights_file_at(file->parts[f], i);

            buf_clear(&name);
            buf_append_str(&name, part->prefix);
            diffusers_name(part->kind, &blocks, w->name, &name);
            result = weights_file_adopt(file, w, buf_str(&name), err);
        }
    buf_release(&name);
    return result;
}

/* ---- what the JSON files say ---- */

/* NULL when there is no such file, or nothing in it that can be read. */
static json_t *load_json(const struct weights_file *file, const char *name)
{
    char *path = file_join(file->path, name);
    struct buf text = {0};
    json_t *read = NULL;

    if (file_read(path, MAX_JSON, &text, NULL) == 0)
        read = json_loadb(buf_str(&text), text.len, 0, NULL);
    buf_release(&text);
    free(path);
    return read;
}

static void add_meta(struct weights_file *file, const char *key, const char *value)
{
    weights_file_add_meta(file, key, strlen(key), value, strlen(value));
}

static void add_number(struct weights_file *file, const char *key, const json_t *number)
{
    char *text;

    if (!json_is_integer(number))
        return;
    text = mem_printf("%lld", (long long)json_integer_value(number));
    add_meta(file, key, text);
    free(text);
}

static int add_list(struct weights_file *file, struct err *err)
{
    json_t *list = load_json(file, MODEL_FOLDER_LIST), *value;
    const char *key, *class = json_string_value(json_object_get(list, "_class_name"));

    if (!json_is_object(list)) {
        json_decref(list);
        return err_set(err, ERR_BAD_FILE,
                       "its " MODEL_FOLDER_LIST " is no JSON object");
    }
    if (class)
        add_meta(file, "diffusers.class", class);
    json_object_foreach(list, key, value)
    {
        if (!str_has_prefix(key, "mysti."))
            continue;
        if (json_is_string(value))
            add_meta(file, key, json_string_value(value));
        else
            add_number(file, key, value);
    }
    json_decref(list);
    return 0;
}

/* Beside what the list said itself: the first of two values counts. Of two text encoders
 * none may speak for both. */
static void add_configs(struct weights_file *file, bool has_two_encoders)
{
    json_t *unet = load_json(file, MODEL_FOLDER_UNET "/config.json");
    json_t *text = load_json(file, "text_encoder/config.json");
    json_t *scheduler = load_json(file, "scheduler/scheduler_config.json");
    const char *type = json_string_value(json_object_get(scheduler, "prediction_type"));

    /* "attention_head_dim" is the number of heads, a mistake that diffusers keeps */
    add_number(file, "mysti.unet_heads", json_object_get(unet, "num_attention_heads"));
    add_number(file, "mysti.unet_heads", json_object_get(unet, "attention_head_dim"));
    if (!has_two_encoders)
        add_number(file, "mysti.text_heads",
                   json_object_get(text, "num_attention_heads"));
    if (type)
        add_meta(file, "mysti.prediction",
                 strcmp(type, "epsilon") == 0        ? "eps"
                 : strcmp(type, "v_prediction") == 0 ? "v"
                                                     : type);
    json_decref(unet);
    json_decref(text);
    json_decref(scheduler);
}

/* ---- the folder ---- */

static int read_parts(struct weights_file *file, bool has_two_encoders, struct err *err)
{
    struct part parts[] = {
        {.name = MODEL_FOLDER_UNET,
         .prefix = "model.diffusion_model.",
         .kind = DIFFUSERS_UNET},
        {.name = "vae", .prefix = "first_stage_model.", .kind = DIFFUSERS_VAE},
        {.name = "text_encoder",
         .prefix = has_two_encoders ? "conditioner.embedders.0.transformer."
                                    : "cond_stage_model.transformer.",
         .kind = DIFFUSERS_TEXT},
        {.name = "text_encoder_2",
         .prefix = "conditioner.embedders.1.transformer.",
         .kind = DIFFUSERS_TEXT},
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (open_part(file, &parts[i], err) || add_tensors(file, &parts[i], err))
            return -1;
    for (size_t i = 0; i < file->part_count; i++)
        file->size += file->parts[i]->size;
    return 0;
}

int folder_read(struct weights_file *file, struct err *err)
{
    char *unet, *second;
    int result;

    file->format = WEIGHTS_FOLDER;
    file->may_share = true; /* each file was looked at by itself */
    if (!model_folder_is(file->path))
        return err_set(err, ERR_BAD_FILE,
                       "is a folder without a " MODEL_FOLDER_LIST
                       ": name a model file, or a folder as diffusers writes them");
    if (add_list(file, err))
        return -1;
    unet = model_folder_weights(file->path, MODEL_FOLDER_UNET);
    second = model_folder_weights(file->path, "text_encoder_2");
    add_configs(file, second != NULL);
    if (unet) {
        result = read_parts(file, second != NULL, err);
    } else {
        const char *class = weights_file_meta(file, "diffusers.class");

        result = err_set(
            err, ERR_BAD_FILE, "has no weights in " MODEL_FOLDER_UNET "/%s%.80s%s",
            class ? " (it says it is a " : "", class ? class : "", class ? ")" : "");
    }
    free(unet);
    free(second);
    return result;
}

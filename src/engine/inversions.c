/* inversions: which words, and their vectors.
 *
 * Which files are opened is found by reading the prompts with all names of the folder as words: whether a word is meant
 * does not depend on how many vectors it has, so they count as one each until the file was read. A file that turns out to be
 * for another family is dropped from the words and the prompts are read again, because a shorter name may now be meant.
 *
 * A LoRA's words come after the folder's, and only those whose names no file there has. A LoRA is opened once more for
 * them, by its head alone, because words decide how long a prompt is, which is asked long before a LoRA is read.
 *
 * Files: A1111's .pt (string_to_param), .safetensors (emb_params; clip_l and clip_g for SDXL), diffusers' one tensor under
 * the word itself. */
#include "engine/inversions.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/named_files.h"
#include "base/str.h"
#include "engine/lora/bundle.h"
#include "engine/lora/tags.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    VECTORS_MAX = TOKENIZER_CONTEXT - 2,
    ROWS_MAX = 1024,
    ROWS_STEP = 32,
    BUNDLE_MAX = 256, /* words of one LoRA; more are text */
};

struct inversion {
    char *path, *name;
    char *prefix; /* of its tensors' names; "" but in a LoRA */
    int32_t *ids;
    bool is_read;
    float *values[FAMILY_TEXTS_MAX]; /* [vectors, width of the encoder] */
};

struct inversions {
    const struct checkpoint *checkpoint;
    struct inversion *all; /* one for each word, in their order */
    struct prompt_words words;
    int rows;
};

/* ---- the folder ---- */

static void inversion_release(struct inversion *one)
{
    for (int e = 0; e < FAMILY_TEXTS_MAX; e++)
        free(one->values[e]);
    free(one->path);
    free(one->name);
    free(one->prefix);
    free(one->ids);
}

static void add_word(struct inversions *s, const char *path, const char *name,
                     char *prefix)
{
    size_t room = 4 * strlen(name) + 4, count = (size_t)s->words.count + 1;
    struct inversion *one;
    struct prompt_word *word;

    s->all = mem_realloc(s->all, count * sizeof(*s->all));
    s->words.all = mem_realloc(s->words.all, count * sizeof(*s->words.all));
    one = &s->all[count - 1];
    word = &s->words.all[count - 1];
    *one = (struct inversion){.path = mem_strdup(path),
                              .name = mem_strdup(name),
                              .prefix = prefix,
                              .ids = mem_alloc(room * sizeof(*one->ids))};
    *word = (struct prompt_word){.name = one->name, .ids = one->ids, .vectors = 1};
    if (tokenizer_ids(one->name, strlen(one->name), one->ids, room, &word->count,
                      NULL) ||
        word->count > room)
        word->count = 0;
    s->words.count++;
}

/* A1111 knows a word by the file's name alone, ComfyUI by its path from the folder on. */
static void read_folders(struct inversions *s, char *const *folders,
                         enum prompt_syntax syntax)
{
    struct named_list list;

    named_list_read(&list, folders);
    for (size_t i = 0; i < list.count; i++)
        add_word(s, list.all[i].path,
                 syntax == PROMPT_COMFY ? list.all[i].name
                                        : file_name(list.all[i].name),
                 mem_strdup(""));
    named_list_release(&list);
}

/* ---- LoRAs ---- */

static bool is_known(const struct inversions *s, const char *name)
{
    for (int i = 0; i < s->words.count; i++)
        if (strcasecmp(s->all[i].name, name) == 0)
            return true;
    return false;
}

static void read_bundle(struct inversions *s, const char *path)
{
    struct weights_file *file;
    int before = s->words.count;

    if (weights_file_open(&file, path, NULL))
        return;
    for (size_t i = 0; i < weights_file_count(file); i++) {
        const char *tensor = weights_file_at(file, i)->name;
        size_t len = lora_bundle_name(tensor);
        char *name;

        if (!len)
            continue;
        name = mem_strndup(tensor + strlen(LORA_BUNDLE), len);
        if (s->words.count - before < BUNDLE_MAX && !is_known(s, name))
            add_word(s, path, name, mem_printf("%s%s.", LORA_BUNDLE, name));
        free(name);
    }
    weights_file_close(file);
}

static void read_loras(struct inversions *s, const struct engine_model *model,
                       const struct engine_job *job)
{
    const struct named_search search = {model->engine->lora_folders, "LoRA", "prompt"};
    struct lora_tags tags = {0};

    if (lora_tags_read(&tags, job->prompt, NULL) == 0 &&
        (!job->negative_prompt ||
         lora_tags_read(&tags, job->negative_prompt, NULL) == 0))
        for (int i = 0; i < tags.count; i++) {
            char *path = NULL;

            if (named_file_find(&search, tags.all[i].name, &path, NULL))
                continue;
            read_bundle(s, path);
            free(path);
        }
    lora_tags_release(&tags);
}

/* ---- one file ---- */

static const struct weight *find_tensor(const struct weights_file *file,
                                        const struct inversion *one, const char *name)
{
    char *whole = mem_printf("%s%s", one->prefix, name);
    const struct weight *w = weights_file_find(file, whole);

    free(whole);
    return w;
}

static const struct weight *find_like(const struct weights_file *file,
                                      const struct inversion *one, const char *begin)
{
    char *whole = mem_printf("%s%s", one->prefix, begin);
    const struct weight *found = NULL;

    for (size_t i = 0; !found && i < weights_file_count(file); i++)
        if (str_has_prefix(weights_file_at(file, i)->name, whole))
            found = weights_file_at(file, i);
    free(whole);
    return found;
}

/* The vectors for one of the model's text encoders; NULL: the file has none for it. */
static const struct weight *find_vectors(const struct inversions *s,
                                         const struct inversion *one,
                                         const struct weights_file *file, int encoder)
{
    static const char *const sdxl[] = {"clip_l", "clip_g"};
    const struct weight *w;

    if (s->checkpoint->family->text_count > 1)
        w = find_tensor(file, one, sdxl[encoder]);
    else if (!(w = find_tensor(file, one, "emb_params")) &&
             !(w = find_like(file, one, "string_to_param.")) && !*one->prefix &&
             weights_file_count(file) == 1)
        w = weights_file_at(file, 0);
    if (!w || w->type == WEIGHT_OTHER || w->rank < 1 || w->rank > 2 ||
        w->dim[w->rank - 1] != s->checkpoint->clips[encoder].width)
        return NULL;
    return w;
}

static int read_vectors(struct inversion *one, const struct weight *w, int encoder,
                        struct err *err)
{
    size_t count = weight_count(w);

    one->values[encoder] = mem_alloc(count * sizeof(float));
    weight_to_f32(w, 0, count, one->values[encoder]);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(one->values[encoder][i]))
            return err_set(err, ERR_BAD_FILE,
                           "tensor %s holds what is no finite number", w->name);
    return 0;
}

static int count_vectors(const struct weight *w, struct err *err)
{
    int64_t count = w->rank == 2 ? w->dim[0] : 1;

    if (count < 1 || count > VECTORS_MAX)
        return err_set(err, ERR_BAD_FILE,
                       "it has %lld vectors, 1 to %d are possible: they must fit into "
                       "one chunk of the prompt",
                       (long long)count, VECTORS_MAX);
    return (int)count;
}

/* ret_fits: false when the file has no vectors of this model's widths. */
static int read_opened(struct inversions *s, int index, const struct weights_file *file,
                       bool *ret_fits, struct err *err)
{
    struct inversion *one = &s->all[index];
    const struct weight *vectors[FAMILY_TEXTS_MAX];
    int count = 0;

    for (int e = 0; e < s->checkpoint->family->text_count; e++) {
        vectors[e] = find_vectors(s, one, file, e);
        if (!vectors[e]) {
            *ret_fits = false;
            return 0;
        }
    }
    for (int e = 0; e < s->checkpoint->family->text_count; e++) {
        int more = count_vectors(vectors[e], err);

        if (more < 0)
            return -1;
        if (e && more != count)
            return err_set(err, ERR_BAD_FILE,
                           "it has %d vectors for one text encoder and %d for the "
                           "other",
                           count, more);
        count = more;
        if (read_vectors(one, vectors[e], e, err))
            return -1;
    }
    s->words.all[index].vectors = count;
    *ret_fits = one->is_read = true;
    return 0;
}

static int read_file(struct inversions *s, int index, bool *ret_fits, struct err *err)
{
    struct weights_file *file = NULL;
    int result = weights_file_open(&file, s->all[index].path, err);

    if (!result)
        result = read_opened(s, index, file, ret_fits, err);
    weights_file_close(file);
    if (!result)
        return 0;
    if (err)
        snprintf(err->param, sizeof(err->param), "prompt");
    return err_wrap(err, "the textual inversion '%.100s'", s->all[index].name);
}

/* ---- the words that are said ---- */

static int mark_used(struct inversions *s, const struct script *script,
                     enum prompt_syntax syntax, struct err *err)
{
    for (int i = 0; i < s->words.count; i++)
        s->words.all[i].is_used = false;
    for (int i = 0; i < script->text_count; i++) {
        struct prompt p;

        if (prompt_read_words(&p, script->texts[i], syntax, &s->words, err))
            return -1;
        prompt_release(&p);
    }
    return 0;
}

static void drop(struct inversions *s, int index)
{
    size_t after = (size_t)(s->words.count - index - 1);

    inversion_release(&s->all[index]);
    memmove(&s->all[index], &s->all[index + 1], after * sizeof(*s->all));
    memmove(&s->words.all[index], &s->words.all[index + 1],
            after * sizeof(*s->words.all));
    s->words.count--;
}

static int refuse_family(const struct inversions *s, int index, struct err *err)
{
    return err_set_param(err, ERR_INVALID, "prompt",
                         "the textual inversion '%.100s' is for another family: it has "
                         "no vectors of %lld channels for %s, which is %s",
                         s->all[index].name, (long long)s->checkpoint->clips[0].width,
                         s->checkpoint->name, s->checkpoint->family->title);
}

/* Reads what is used; *ret_dropped: one was no word after all. */
static int read_used(struct inversions *s, enum prompt_syntax syntax, bool *ret_dropped,
                     struct err *err)
{
    *ret_dropped = false;
    for (int i = s->words.count - 1; i >= 0; i--) {
        bool fits = true;

        if (!s->words.all[i].is_used || s->all[i].is_read)
            continue;
        if (read_file(s, i, &fits, err))
            return -1;
        if (!fits && syntax == PROMPT_COMFY)
            return refuse_family(s, i, err);
        if (!fits) {
            drop(s, i);
            *ret_dropped = true;
        }
    }
    return 0;
}

/* The words that are said get their rows, the others are forgotten. */
static int number_rows(struct inversions *s, struct err *err)
{
    for (int i = s->words.count - 1; i >= 0; i--)
        if (!s->words.all[i].is_used)
            drop(s, i);
    for (int i = 0; i < s->words.count; i++) {
        s->words.all[i].first = s->rows;
        s->rows += s->words.all[i].vectors;
        if (s->rows > ROWS_MAX)
            return err_set_param(err, ERR_INVALID, "prompt",
                                 "the textual inversions of the prompts have more "
                                 "than %d vectors together",
                                 ROWS_MAX);
    }
    return 0;
}

int inversions_open(struct inversions **ret, const struct engine_model *model,
                    const struct engine_job *job, const struct script *script,
                    enum prompt_syntax syntax, struct err *err)
{
    struct inversions *s = mem_zalloc(sizeof(*s));
    bool dropped = false;
    int result;

    s->checkpoint = model->checkpoint;
    read_folders(s, model->engine->embedding_folders, syntax);
    read_loras(s, model, job);
    do {
        result =
            mark_used(s, script, syntax, err) || read_used(s, syntax, &dropped, err)
                ? -1
                : 0;
    } while (!result && dropped);
    if (!result)
        result = number_rows(s, err);
    if (result)
        inversions_close(s);
    else
        *ret = s;
    return result;
}

void inversions_close(struct inversions *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->words.count; i++)
        inversion_release(&s->all[i]);
    free(s->all);
    free(s->words.all);
    free(s);
}

/* ---- asking ---- */

void inversions_tell(const struct inversions *s, const struct engine_events *events)
{
    for (int i = 0; events->on_embedding && i < s->words.count; i++) {
        const struct engine_embedding one = {s->all[i].name, s->words.all[i].vectors};

        events->on_embedding(events->user, &one);
    }
}

struct prompt_words *inversions_words(struct inversions *s)
{
    return &s->words;
}

int inversions_rows(const struct inversions *s)
{
    return s->rows;
}

int inversions_room(int rows)
{
    return (rows + ROWS_STEP - 1) / ROWS_STEP * ROWS_STEP;
}

void inversions_copy(const struct inversions *s, int encoder, float *ret)
{
    size_t width = (size_t)s->checkpoint->clips[encoder].width;

    memset(ret, 0, (size_t)inversions_room(s->rows) * width * sizeof(*ret));
    for (int i = 0; i < s->words.count; i++)
        memcpy(ret + (size_t)s->words.all[i].first * width, s->all[i].values[encoder],
               (size_t)s->words.all[i].vectors * width * sizeof(*ret));
}

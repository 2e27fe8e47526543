/* Two jobs ask for the same when files (by device, inode, time and size), strengths and order are the same. The order
 * matters to DoRA, which measures what is there before it, and to the last bit of every sum. */
#include "engine/loras.h"

#include "base/mem.h"
#include "base/named_files.h"
#include "engine/lora/tags.h"

#include <string.h>
#include <sys/stat.h>

struct loaded {
    char *name; /* as the prompt has it */
    char *path;
    struct stat file; /* when it was opened */
    struct lora_strength strength;
    struct lora *lora;
};

struct loras {
    struct loaded *all;
    int count;
    struct weight_edit edit;
    lora_multiply_fn *multiply;         /* the back end's, or NULL */
    const struct engine_events *events; /* while they are laid: is the job cancelled? */
};

/* ---- opening ---- */

void loras_close(struct loras *l)
{
    if (!l)
        return;
    for (int i = 0; i < l->count; i++) {
        lora_close(l->all[i].lora);
        free(l->all[i].name);
        free(l->all[i].path);
    }
    free(l->all);
    free(l);
}

static int open_one(struct loaded *to, const struct engine_model *model,
                    const struct lora_tag *tag, struct err *err)
{
    const struct named_search search = {model->engine->lora_folders, "LoRA", "prompt"};

    to->name = mem_strdup(tag->name);
    to->strength = tag->strength;
    if (named_file_find(&search, tag->name, &to->path, err))
        return -1;
    if (stat(to->path, &to->file))
        memset(&to->file, 0, sizeof(to->file)); /* opening it says why */
    if (lora_open(&to->lora, to->path, model->checkpoint->file, err) == 0)
        return 0;
    if (err)
        snprintf(err->param, sizeof(err->param), "prompt");
    return err_wrap(err, "the LoRA '%.100s'", tag->name);
}

static bool touches(void *user, const struct weight *weight)
{
    const struct loras *l = user;

    for (int i = 0; i < l->count; i++)
        if (lora_touches(l->all[i].lora, weight))
            return true;
    return false;
}

static int apply(void *user, const struct weight *weight, float *values,
                 struct err *err)
{
    const struct loras *l = user;

    if (l->events && l->events->is_cancelled &&
        l->events->is_cancelled(l->events->user))
        return err_set(err, ERR_CANCELLED, "the job was cancelled");
    for (int i = 0; i < l->count; i++)
        if (lora_touches(l->all[i].lora, weight) &&
            lora_add_delta(l->all[i].lora, weight, l->all[i].strength, l->multiply,
                           values, err))
            return err_wrap(err, "the LoRA '%.100s'", l->all[i].name);
    return 0;
}

int loras_open(struct loras **ret_loras, const struct engine_model *model,
               const struct engine_job *job, struct err *err)
{
    struct lora_tags tags = {0};
    struct loras *l = mem_zalloc(sizeof(*l));
    int result = lora_tags_read(&tags, job->prompt, err);

    if (!result && job->negative_prompt)
        result = lora_tags_read(&tags, job->negative_prompt, err);
    l->edit = (struct weight_edit){touches, apply, l};
    l->multiply = model->engine->backend->ops->multiply;
    l->all = mem_zalloc((size_t)(tags.count + 1) * sizeof(*l->all));
    for (; !result && l->count < tags.count; l->count++)
        result = open_one(&l->all[l->count], model, &tags.all[l->count], err);
    lora_tags_release(&tags);
    if (result)
        loras_close(l);
    else
        *ret_loras = l;
    return result;
}

/* ---- laying them over the weights ---- */

static bool is_same(const struct loaded *a, const struct loaded *b)
{
    return a->file.st_dev == b->file.st_dev && a->file.st_ino == b->file.st_ino &&
           a->file.st_size == b->file.st_size &&
           a->file.st_mtim.tv_sec == b->file.st_mtim.tv_sec &&
           a->file.st_mtim.tv_nsec == b->file.st_mtim.tv_nsec &&
           a->strength.unet == b->strength.unet && a->strength.text == b->strength.text;
}

static bool are_laid(const struct engine_model *model, const struct loras *l)
{
    if (!model->is_laid || model->loras->count != l->count)
        return false;
    for (int i = 0; i < l->count; i++)
        if (!is_same(&model->loras->all[i], &l->all[i]))
            return false;
    return true;
}

static const struct weight_edit *edit_of(const struct loras *l)
{
    return l->count ? &l->edit : NULL;
}

size_t loras_lay_bytes(const struct engine_model *model, const struct loras *l)
{
    size_t delta = 0, packing = 0;

    for (int i = 0; i < l->count; i++) {
        size_t bytes = lora_delta_bytes(l->all[i].lora);

        delta = bytes > delta ? bytes : delta;
    }
    for (int i = 0; i < STAGE_COUNT; i++) {
        const struct program *p = model->stages->programs[i];
        size_t bytes =
            p ? model->engine->backend->ops->packing_bytes(p, edit_of(l)) : 0;

        packing = bytes > packing ? bytes : packing;
    }
    return delta + packing;
}

void loras_tell(const struct loras *l, const struct engine_events *events)
{
    for (int i = 0; events->on_lora && i < l->count; i++) {
        const struct loaded *one = &l->all[i];
        struct engine_lora lora = {.name = one->name,
                                   .unet = one->strength.unet,
                                   .text = one->strength.text,
                                   .matched = lora_matched(one->lora),
                                   .unmatched = lora_unmatched(one->lora)};

        if (lora.unmatched)
            lora.first_unmatched = lora_unmatched_name(one->lora, 0);
        events->on_lora(events->user, &lora);
    }
}

int model_lay(struct engine_model *model, struct loras *loras,
              const struct engine_events *events, struct err *err)
{
    struct loras *before = model->loras;
    struct stop stop = {.is_cancelled = events->is_cancelled, .user = events->user};
    int result;

    if (before && are_laid(model, loras)) {
        loras_close(loras);
    } else {
        model->engine->backend->ops->edit(model->store, edit_of(loras));
        model->loras = loras;
        model->is_laid = false;
        loras_close(before);
    }
    model->loras->events = events;
    result = model_pack(model, &stop, err);
    model->loras->events = NULL;
    for (int i = 0; i < model->loras->count; i++)
        lora_forget(model->loras->all[i].lora);
    model->is_laid = !result;
    return result;
}

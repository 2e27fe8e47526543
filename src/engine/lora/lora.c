/* lora: a file's parts (parts.c) meet the base's weights (names.c); each meeting is a
 * target, a delta (shape.c, delta.c) for some rows of one weight.
 *
 * Everything that can be wrong with a file is found while it is opened: a LoRA that is
 * accepted must not fail in the middle of a picture. A shape that does not fit refuses
 * the whole file, although the rest might do something: it means that the file is for
 * another family, and half of it would draw rubbish without a word. Keys that mean no
 * weight of the base are counted, not refused: files for a model with its text encoders
 * are used with models that have other ones.
 *
 * Weights are found by name and not by address, so that whoever packs weights may keep
 * copies of struct weight. */
#include "engine/lora/lora.h"

#include "base/mem.h"
#include "engine/lora/delta.h"
#include "engine/lora/family.h"
#include "engine/lora/names.h"

#include <stdlib.h>
#include <string.h>

struct target {
    const struct weight *base;
    int64_t first_row;
    struct lora_view view;
    enum lora_network network;
    struct lora_delta delta;
};

struct lora {
    struct weights_file *file;
    struct target *targets; /* sorted by the base's name */
    size_t target_count;
    const char **unmatched;
    size_t unmatched_count, bundled_count;
};

/* while a file is read */
struct reader {
    struct lora *lora;
    const struct weights_file *base;
    struct lora_groups groups;
    struct lora_names *names;
};

/* ---- reading ---- */

/* adds to a sentence that there is for which family the file seems to be */
static void explain(const struct reader *r, struct err *err)
{
    struct buf sentence = {0};

    if (!err)
        return;
    buf_append_str(&sentence, err->message);
    lora_family_explain(&sentence, &r->groups, r->lora->file, r->base);
    err_set(err, err->code, "%s", buf_str(&sentence));
    buf_release(&sentence);
}

static struct lora_view view_of(const struct weight *w, int64_t rows)
{
    struct lora_view view = {.rows = rows,
                             .cols = (int64_t)weight_count(w) / w->dim[0],
                             .inputs = w->rank > 1 ? w->dim[1] : 1};

    return view;
}

static int add_target(struct reader *r, const struct target *t, const char *part,
                      struct err *err)
{
    if (t->delta.rows != t->view.rows || t->delta.cols != t->view.cols) {
        err_set(err, ERR_BAD_FILE,
                "tensor %s and its like change %lld x %lld values, weight %s of the "
                "model has %lld x %lld",
                part, (long long)t->delta.rows, (long long)t->delta.cols, t->base->name,
                (long long)t->view.rows, (long long)t->view.cols);
        explain(r, err);
        return -1;
    }
    r->lora->targets[r->lora->target_count++] = *t;
    return 0;
}

static int add_weight(struct reader *r, const struct lora_group *g,
                      const struct lora_place *place, struct err *err)
{
    struct target t = {.base = place->weight,
                       .first_row = place->first_row,
                       .view = view_of(place->weight, place->rows),
                       .network = place->network};

    if (lora_delta_read(&t.delta, &g->parts, &t.view, err))
        return err_wrap(err, "%.*s", (int)g->stem_len, g->stem);
    if (add_target(r, &t, t.delta.f[0].a->name, err))
        return -1;
    return lora_delta_set_norms(&r->lora->targets[r->lora->target_count - 1].delta,
                                &g->parts, &t.view, err);
}

static int add_bias(struct reader *r, const struct weight *diff,
                    const struct lora_place *place, struct err *err)
{
    struct target t = {.base = place->bias,
                       .first_row = place->first_row,
                       .view = view_of(place->bias, place->rows),
                       .network = place->network};

    if (lora_delta_whole(&t.delta, diff, err))
        return -1;
    return add_target(r, &t, diff->name, err);
}

static int add_group(struct reader *r, const struct lora_group *g, struct err *err)
{
    const struct lora_place *place = lora_names_find(r->names, g->stem, g->stem_len);
    bool has_weight = place && lora_delta_is_there(&g->parts);
    bool has_bias = place && place->bias && g->parts.of[LORA_DIFF_BIAS];

    if (has_weight && add_weight(r, g, place, err))
        return -1;
    if (has_bias && add_bias(r, g->parts.of[LORA_DIFF_BIAS], place, err))
        return -1;
    for (int i = 0; i < LORA_PARTS; i++)
        if (g->parts.of[i] && !(i == LORA_DIFF_BIAS ? has_bias : has_weight))
            r->lora->unmatched[r->lora->unmatched_count++] = g->parts.of[i]->name;
    return 0;
}

static int by_base(const void *a, const void *b)
{
    const struct target *x = a, *y = b;
    int order = strcmp(x->base->name, y->base->name);

    return order ? order
                 : (x->first_row > y->first_row) - (x->first_row < y->first_row);
}

static int refuse_no_lora(const struct weights_file *file, struct err *err)
{
    const char *kind = lora_unknown_kind(file);

    if (kind)
        return err_set(err, ERR_BAD_FILE,
                       "is %s, which is not supported: LoRA, LoHa, LoKr, GLoRA, DoRA, "
                       "OFT, BOFT and IA3 as kohya's scripts and LyCORIS write them "
                       "are (its first tensor is %s)",
                       kind, weights_file_at(file, 0)->name);
    return err_set(err, ERR_BAD_FILE,
                   "is no LoRA: none of its %zu tensors is named like a part of one "
                   "(the first is %s)",
                   weights_file_count(file), weights_file_at(file, 0)->name);
}

static int read_groups(struct reader *r, struct err *err)
{
    struct lora *l = r->lora;
    size_t total = weights_file_count(l->file);

    l->bundled_count = r->groups.bundled_count;
    /* every target has a tensor of its own */
    l->targets = mem_alloc((total + 1) * sizeof(*l->targets));
    l->unmatched = mem_alloc((total + 1) * sizeof(*l->unmatched));
    if (r->groups.count == 0)
        return refuse_no_lora(l->file, err);
    for (size_t i = 0; i < r->groups.count; i++)
        if (add_group(r, &r->groups.all[i], err))
            return -1;
    for (size_t i = 0; i < r->groups.stranger_count; i++)
        l->unmatched[l->unmatched_count++] = r->groups.strangers[i];
    if (l->target_count == 0) {
        err_set(err, ERR_BAD_FILE,
                "none of its %zu keys means a weight of this model (the first is %s)",
                total, weights_file_at(l->file, 0)->name);
        explain(r, err);
        return -1;
    }
    qsort(l->targets, l->target_count, sizeof(*l->targets), by_base);
    return 0;
}

int lora_read(struct lora **ret_lora, struct weights_file *file,
              const struct weights_file *base, struct err *err)
{
    struct lora *l = mem_zalloc(sizeof(*l));
    struct reader r = {.lora = l, .base = base};
    int result;

    l->file = file;
    result = lora_groups_read(&r.groups, file, err);
    if (!result) {
        r.names = lora_names_new(base);
        result = read_groups(&r, err);
        lora_names_free(r.names);
        lora_groups_release(&r.groups);
    }
    if (result)
        lora_close(l);
    else
        *ret_lora = l;
    return result;
}

int lora_open(struct lora **ret_lora, const char *path, const struct weights_file *base,
              struct err *err)
{
    struct weights_file *file;

    if (weights_file_open(&file, path, err))
        return -1;
    if (lora_read(ret_lora, file, base, err))
        return err_wrap(err, "%s", path);
    return 0;
}

void lora_close(struct lora *lora)
{
    if (!lora)
        return;
    weights_file_close(lora->file);
    free(lora->targets);
    free(lora->unmatched);
    free(lora);
}

/* ---- asking ---- */

size_t lora_matched(const struct lora *lora)
{
    return weights_file_count(lora->file) - lora->unmatched_count - lora->bundled_count;
}

size_t lora_unmatched(const struct lora *lora)
{
    return lora->unmatched_count;
}

const char *lora_unmatched_name(const struct lora *lora, size_t index)
{
    return lora->unmatched[index];
}

size_t lora_delta_bytes(const struct lora *lora)
{
    size_t most = 0;

    for (size_t i = 0; i < lora->target_count; i++) {
        size_t bytes = lora_delta_room(&lora->targets[i].delta);

        most = bytes > most ? bytes : most;
    }
    return most;
}

void lora_forget(const struct lora *lora)
{
    weights_file_forget(lora->file);
}

/* the first target whose base is not named before `name` */
static size_t first_target(const struct lora *lora, const char *name)
{
    size_t low = 0, high = lora->target_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(lora->targets[middle].base->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_target(const struct lora *lora, size_t i, const struct weight *weight)
{
    return i < lora->target_count &&
           strcmp(lora->targets[i].base->name, weight->name) == 0;
}

bool lora_touches(const struct lora *lora, const struct weight *weight)
{
    return is_target(lora, first_target(lora, weight->name), weight);
}

int lora_add_delta(const struct lora *lora, const struct weight *weight,
                   struct lora_strength strength, lora_multiply_fn *multiply,
                   float *values, struct err *err)
{
    for (size_t i = first_target(lora, weight->name); is_target(lora, i, weight); i++) {
        const struct target *t = &lora->targets[i];
        double by = t->network == LORA_UNET ? strength.unet : strength.text;

        if (weight_count(weight) != weight_count(t->base))
            return err_set(err, ERR_INTERNAL,
                           "weight %s has %zu values, the LoRA was opened for %zu",
                           weight->name, weight_count(weight), weight_count(t->base));
        if (by != 0 && lora_delta_add(&t->delta, &t->view, by, multiply,
                                      values + t->first_row * t->view.cols, err))
            return -1;
    }
    return 0;
}

/* shape: what kind of change a set of parts describes, and the matrix that it makes.
 *
 * Everything is checked here, when a file is opened, so that the arithmetic (delta.c)
 * has no case left that could go wrong. A tensor here has at least one value and no
 * dimension is 0: every size is below the file's, and sums of two do not overflow;
 * products are checked. */
#include "engine/lora/delta.h"

#include <math.h>

static int check_values(const struct weight *w, struct err *err)
{
    if (w->type == WEIGHT_OTHER)
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s is of a type that cannot be read; %s can", w->name,
                       weight_types_read());
    if (weight_count(w) == 0)
        return err_set(err, ERR_BAD_FILE, "tensor %s is empty", w->name);
    return 0;
}

static int64_t first_dim(const struct weight *w)
{
    return w->rank ? w->dim[0] : 1;
}

static int64_t rest(const struct weight *w)
{
    return (int64_t)weight_count(w) / first_dim(w);
}

static int misfit(const struct weight *a, const struct weight *b, struct err *err)
{
    return err_set(err, ERR_BAD_FILE, "tensors %s and %s do not fit together", a->name,
                   b->name);
}

/* ---- factors ---- */

static int read_product(struct lora_factor *f, struct err *err)
{
    if (f->a_is_turned) {
        f->inner = first_dim(f->a);
        f->rows = rest(f->a);
    } else {
        f->rows = first_dim(f->a);
        f->inner = rest(f->a);
    }
    f->cols = rest(f->b);
    if (!f->core)
        return first_dim(f->b) == f->inner ? 0 : misfit(f->a, f->b, err);
    /* core [inner, r, K...], b [r, I] */
    if (f->core->rank < 3 || f->core->dim[0] != f->inner ||
        f->core->dim[1] != first_dim(f->b))
        return misfit(f->core,
                      f->core->rank && f->core->dim[0] != f->inner ? f->a : f->b, err);
    if (__builtin_mul_overflow(f->cols, rest(f->core) / f->core->dim[1], &f->cols))
        return misfit(f->core, f->b, err);
    return 0;
}

static int read_factor(struct lora_factor *f, struct err *err)
{
    const struct weight *all[] = {f->a, f->b, f->core};

    for (int i = 0; i < 3; i++)
        if (all[i] && check_values(all[i], err))
            return -1;
    if (f->b)
        return read_product(f, err);
    f->rows = first_dim(f->a);
    f->cols = rest(f->a);
    return 0;
}

static int read_alpha(struct lora_delta *d, const struct weight *alpha,
                      const struct weight *down, struct err *err)
{
    float value;

    d->scale = 1;
    if (!alpha || !down)
        return 0;
    if (check_values(alpha, err))
        return -1;
    if (weight_count(alpha) != 1)
        return err_set(err, ERR_BAD_FILE, "tensor %s has %zu values, 1 was expected",
                       alpha->name, weight_count(alpha));
    weight_to_f32(alpha, 0, 1, &value);
    if (!isfinite(value))
        return err_set(err, ERR_BAD_FILE, "tensor %s is no finite number", alpha->name);
    d->scale = (double)value / (double)first_dim(down);
    return 0;
}

/* ---- kinds ---- */

static int missing(const struct weight *there, const char *lacks, struct err *err)
{
    return err_set(err, ERR_BAD_FILE, "tensor %s has no %s beside it", there->name,
                   lacks);
}

static int read_lora(struct lora_delta *d, const struct weight *const *of,
                     struct err *err)
{
    if (!of[LORA_UP] || !of[LORA_DOWN])
        return missing(of[of[LORA_UP] ? LORA_UP : LORA_DOWN],
                       of[LORA_UP] ? "lora_down (lora_A)" : "lora_up (lora_B)", err);
    d->join = LORA_ALONE;
    d->f[0] = (struct lora_factor){
        .a = of[LORA_UP], .b = of[LORA_DOWN], .core = of[LORA_MID]};
    if (read_factor(&d->f[0], err) || read_alpha(d, of[LORA_ALPHA], of[LORA_DOWN], err))
        return -1;
    d->rows = d->f[0].rows;
    d->cols = d->f[0].cols;
    return 0;
}

static int read_loha(struct lora_delta *d, const struct weight *const *of,
                     struct err *err)
{
    static const char *const names[] = {"hada_w1_a", "hada_w1_b", "hada_w2_a",
                                        "hada_w2_b"};
    const struct weight *there = NULL;

    for (int i = LORA_HADA_W1_A; i <= LORA_HADA_W2_B; i++)
        there = of[i] ? of[i] : there;
    for (int i = LORA_HADA_W1_A; i <= LORA_HADA_W2_B; i++)
        if (!of[i])
            return missing(there, names[i - LORA_HADA_W1_A], err);
    d->join = LORA_HADAMARD;
    d->f[0] = (struct lora_factor){of[LORA_HADA_W1_A],
                                   of[LORA_HADA_W1_B],
                                   of[LORA_HADA_T1],
                                   of[LORA_HADA_T1] != NULL,
                                   0,
                                   0,
                                   0};
    d->f[1] = (struct lora_factor){of[LORA_HADA_W2_A],
                                   of[LORA_HADA_W2_B],
                                   of[LORA_HADA_T2],
                                   of[LORA_HADA_T2] != NULL,
                                   0,
                                   0,
                                   0};
    if (read_factor(&d->f[0], err) || read_factor(&d->f[1], err) ||
        read_alpha(d, of[LORA_ALPHA], of[LORA_HADA_W1_B], err))
        return -1;
    d->rows = d->f[0].rows;
    d->cols = d->f[0].cols;
    if (d->f[1].rows != d->rows || d->f[1].cols != d->cols)
        return misfit(of[LORA_HADA_W1_A], of[LORA_HADA_W2_A], err);
    return 0;
}

/* one side of LoKr: whole, or as a product */
static int read_side(struct lora_factor *f, const struct weight *whole,
                     const struct weight *a, const struct weight *b,
                     const struct weight *core, struct err *err)
{
    *f = whole ? (struct lora_factor){.a = whole}
               : (struct lora_factor){a, b, core, core != NULL, 0, 0, 0};
    return read_factor(f, err);
}

static int read_lokr(struct lora_delta *d, const struct weight *const *of,
                     struct err *err)
{
    const struct weight *there = NULL;

    for (int i = LORA_LOKR_W1; i <= LORA_LOKR_T2; i++)
        there = of[i] ? of[i] : there;
    if (!of[LORA_LOKR_W1] && (!of[LORA_LOKR_W1_A] || !of[LORA_LOKR_W1_B]))
        return missing(there, "lokr_w1, or lokr_w1_a and lokr_w1_b,", err);
    if (!of[LORA_LOKR_W2] && (!of[LORA_LOKR_W2_A] || !of[LORA_LOKR_W2_B]))
        return missing(there, "lokr_w2, or lokr_w2_a and lokr_w2_b,", err);
    d->join = LORA_KRONECKER;
    if (read_side(&d->f[0], of[LORA_LOKR_W1], of[LORA_LOKR_W1_A], of[LORA_LOKR_W1_B],
                  NULL, err) ||
        read_side(&d->f[1], of[LORA_LOKR_W2], of[LORA_LOKR_W2_A], of[LORA_LOKR_W2_B],
                  of[LORA_LOKR_T2], err) ||
        read_alpha(d, of[LORA_ALPHA], d->f[1].b ? d->f[1].b : d->f[0].b, err))
        return -1;
    if (__builtin_mul_overflow(d->f[0].rows, d->f[1].rows, &d->rows) ||
        __builtin_mul_overflow(d->f[0].cols, d->f[1].cols, &d->cols))
        return misfit(d->f[0].a, d->f[1].a, err);
    return 0;
}

int lora_delta_whole(struct lora_delta *ret_delta, const struct weight *diff,
                     struct err *err)
{
    *ret_delta =
        (struct lora_delta){.join = LORA_ALONE, .f = {{.a = diff}}, .scale = 1};
    if (read_factor(&ret_delta->f[0], err))
        return -1;
    ret_delta->rows = ret_delta->f[0].rows;
    ret_delta->cols = ret_delta->f[0].cols;
    return 0;
}

static int read_diff(struct lora_delta *d, const struct weight *const *of,
                     struct err *err)
{
    return lora_delta_whole(d, of[LORA_DIFF], err);
}

static bool has_any(const struct lora_parts *parts, enum lora_part first,
                    enum lora_part last)
{
    for (int i = (int)first; i <= (int)last; i++)
        if (parts->of[i])
            return true;
    return false;
}

/* each kind's reader, and the parts of which any says that it is this kind */
static const struct {
    enum lora_part first, last;
    int (*read)(struct lora_delta *d, const struct weight *const *of, struct err *err);
} kinds[] = {
    {LORA_UP, LORA_DOWN, read_lora},
    {LORA_HADA_W1_A, LORA_HADA_T2, read_loha},
    {LORA_LOKR_W1, LORA_LOKR_T2, read_lokr},
    {LORA_DIFF, LORA_DIFF, read_diff},
};

bool lora_delta_is_there(const struct lora_parts *parts)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (has_any(parts, kinds[i].first, kinds[i].last))
            return true;
    return false;
}

int lora_delta_read(struct lora_delta *ret_delta, const struct lora_parts *parts,
                    struct err *err)
{
    size_t kind = 0;

    *ret_delta = (struct lora_delta){0};
    while (!has_any(parts, kinds[kind].first, kinds[kind].last))
        kind++;
    for (size_t i = kind + 1; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (has_any(parts, kinds[i].first, kinds[i].last))
            return err_set(err, ERR_BAD_FILE,
                           "a weight is changed in two ways at once");
    return kinds[kind].read(ret_delta, parts->of, err);
}

/* Rows when there are as many values as rows and the first dimension says so (or the
 * name does), as ComfyUI tells it; else one value for each input. */
int lora_delta_set_norms(struct lora_delta *delta, const struct lora_parts *parts,
                         const struct lora_view *view, struct err *err)
{
    const struct weight *scale = parts->of[LORA_DORA];
    const struct weight *w = scale ? scale : parts->of[LORA_MAGNITUDE];
    int64_t count;

    if (!w)
        return 0;
    if (check_values(w, err))
        return -1;
    count = (int64_t)weight_count(w);
    delta->norms_are_of_rows =
        count == view->rows && (!scale || first_dim(w) == view->rows);
    if (!delta->norms_are_of_rows && (count != view->inputs || !scale))
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s has %lld values, %lld (rows) or %lld (columns) were "
                       "expected",
                       w->name, (long long)count, (long long)view->rows,
                       (long long)view->inputs);
    delta->norms = w;
    return 0;
}

/* shape: what kind of change a set of parts describes, and the matrix that it makes.
 *
 * Everything is checked here, when a file is opened, so that the arithmetic (delta.c)
 * has no case left that could go wrong. A tensor here has at least one value and no
 * dimension is 0: every size is below the file's, and sums of two do not overflow;
 * products are checked.
 *
 * Some kinds say nothing without the weight that they change: how many rows a list of
 * factors scales, or how many columns a rotation turns. They take it from the view. */
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
                     const struct lora_view *view, struct err *err)
{
    (void)view;
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
                     const struct lora_view *view, struct err *err)
{
    static const char *const names[] = {"hada_w1_a", "hada_w1_b", "hada_w2_a",
                                        "hada_w2_b"};
    const struct weight *there = NULL;

    (void)view;
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
                     const struct lora_view *view, struct err *err)
{
    const struct weight *there = NULL;

    (void)view;
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
                     const struct lora_view *view, struct err *err)
{
    (void)view;
    return lora_delta_whole(d, of[LORA_DIFF], err);
}

/* ---- kinds that depend on the weight ---- */

static const char *const glora_names[] = {"a1", "a2", "b1", "b2"};

/* LyCORIS turned its factors round in 2023: down and up are the ends of either product. */
static bool is_old_glora(const struct weight *a1, const struct weight *a2,
                         const struct weight *b1, const struct weight *b2)
{
    bool is_new = first_dim(b2) == rest(b1) && first_dim(a2) == rest(a1);

    return !is_new && first_dim(b1) == rest(b2) && first_dim(a1) == rest(a2);
}

static int read_glora(struct lora_delta *d, const struct weight *const *of,
                      const struct lora_view *view, struct err *err)
{
    const struct weight *w[4], *there = NULL;
    bool is_old;

    for (int i = 0; i < 4; i++) {
        w[i] = of[LORA_GLORA_A1 + i];
        there = w[i] ? w[i] : there;
    }
    if (!there)
        there = of[LORA_GLORA_BM];
    for (int i = 0; i < 4; i++) {
        if (!w[i])
            return missing(there, glora_names[i], err);
        if (check_values(w[i], err))
            return -1;
    }
    is_old = is_old_glora(w[0], w[1], w[2], w[3]);
    d->join = LORA_GENERAL;
    d->f[0] = (struct lora_factor){
        .a = w[is_old ? 3 : 2], .b = w[is_old ? 2 : 3], .core = of[LORA_GLORA_BM]};
    d->f[1] = (struct lora_factor){.a = w[is_old ? 1 : 0], .b = w[is_old ? 0 : 1]};
    if (read_factor(&d->f[0], err) || read_factor(&d->f[1], err) ||
        read_alpha(d, of[LORA_ALPHA], d->f[0].b, err))
        return -1;
    d->rows = d->f[0].rows;
    d->cols = d->f[0].cols;
    if (d->f[1].rows != d->f[1].cols || (view && d->f[1].rows != view->inputs))
        return misfit(w[0], w[1], err);
    return 0;
}

/* One number that may be of a type that cannot be read (LyCORIS writes an integer); then
 * `otherwise`. */
static bool is_set(const struct weight *number, bool otherwise)
{
    float value;

    if (!number || number->type == WEIGHT_OTHER || weight_count(number) != 1)
        return otherwise;
    weight_to_f32(number, 0, 1, &value);
    return value != 0;
}

/* Where a weight is square and the sign cannot be read its rows are scaled: so LyCORIS
 * trains keys and values, and the layers that it scales by input are not square. */
static int read_ia3(struct lora_delta *d, const struct weight *const *of,
                    const struct lora_view *view, struct err *err)
{
    const struct weight *w = of[LORA_IA3];
    int64_t count;

    if (!w)
        return missing(of[LORA_IA3_ON_INPUT], "weight", err);
    if (check_values(w, err))
        return -1;
    d->join = LORA_SCALED;
    d->f[0] = (struct lora_factor){.a = w};
    d->scale = 1;
    if (!view)
        return 0;
    count = (int64_t)weight_count(w);
    d->scales_inputs =
        count == view->inputs && is_set(of[LORA_IA3_ON_INPUT], count != view->rows);
    if (!d->scales_inputs && count != view->rows)
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s has %lld values, %lld (rows) or %lld (columns) were "
                       "expected",
                       w->name, (long long)count, (long long)view->rows,
                       (long long)view->inputs);
    d->rows = view->rows;
    d->cols = view->cols;
    return 0;
}

static int read_set(struct lora_delta *d, const struct weight *const *of,
                    const struct lora_view *view, struct err *err)
{
    (void)view;
    if (lora_delta_whole(d, of[LORA_SET], err))
        return -1;
    d->join = LORA_REPLACED;
    return 0;
}

/* A stage of BOFT shuffles groups of 2^stage * size rows. */
static bool has_stages(const struct lora_rotation *r, int64_t rows)
{
    int64_t group = r->size;

    if (r->kind != LORA_ROTATION_BOFT)
        return true;
    if (r->size % 2)
        return false;
    for (int64_t i = 0; i < r->stages; i++) {
        if (group > rows || rows % group)
            return false;
        group *= 2;
    }
    return true;
}

static int check_rotation(const struct lora_rotation *r, const struct lora_view *view,
                          struct err *err)
{
    int64_t rows;

    if (__builtin_mul_overflow(r->block_count, r->size, &rows) || rows != view->rows ||
        !has_stages(r, rows))
        return err_set(
            err, ERR_BAD_FILE,
            "tensor %s turns %lld x %lld rows in %lld stages, the weight has "
            "%lld",
            r->blocks->name, (long long)r->block_count, (long long)r->size,
            (long long)r->stages, (long long)view->rows);
    if (r->rescale && (int64_t)weight_count(r->rescale) != rows)
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s has %zu values, %lld were expected", r->rescale->name,
                       weight_count(r->rescale), (long long)rows);
    return 0;
}

/* alpha is a limit here: of |Q|, for each row */
static int read_limit(struct lora_rotation *r, const struct weight *alpha, int64_t rows,
                      struct err *err)
{
    float value;

    if (!alpha || r->kind == LORA_ROTATION_WRITTEN)
        return 0;
    if (check_values(alpha, err))
        return -1;
    weight_to_f32(alpha, 0, 1, &value);
    if (weight_count(alpha) != 1 || !isfinite(value))
        return err_set(err, ERR_BAD_FILE, "tensor %s is no finite number", alpha->name);
    r->longest = value > 0 ? (double)value * (double)rows : 0;
    return 0;
}

static int read_rotation(struct lora_delta *d, const struct weight *const *of,
                         const struct lora_view *view, struct err *err)
{
    struct lora_rotation *r = &d->rotation;
    const struct weight *w =
        of[LORA_OFT_BLOCKS] ? of[LORA_OFT_BLOCKS] : of[LORA_OFT_DIAG];
    int first;

    if (!w)
        return missing(of[LORA_RESCALE], "oft_blocks", err);
    if (check_values(w, err) ||
        (of[LORA_RESCALE] && check_values(of[LORA_RESCALE], err)))
        return -1;
    first = w->rank - 3;
    if (first < 0 || w->dim[w->rank - 1] != w->dim[w->rank - 2] ||
        (first == 1 && w == of[LORA_OFT_DIAG]))
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s is no list of square matrices, as OFT and BOFT have",
                       w->name);
    *r = (struct lora_rotation){.blocks = w,
                                .rescale = of[LORA_RESCALE],
                                .stages = first ? w->dim[0] : 1,
                                .block_count = w->dim[first],
                                .size = w->dim[first + 1]};
    r->kind = first                    ? LORA_ROTATION_BOFT
              : w == of[LORA_OFT_DIAG] ? LORA_ROTATION_WRITTEN
                                       : LORA_ROTATION_OFT;
    d->join = LORA_ROTATED;
    d->f[0] = (struct lora_factor){.a = w};
    if (!view)
        return 0;
    d->rows = view->rows;
    d->cols = view->cols;
    return check_rotation(r, view, err) ||
                   read_limit(r, of[LORA_ALPHA], view->rows, err)
               ? -1
               : 0;
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
    int (*read)(struct lora_delta *d, const struct weight *const *of,
                const struct lora_view *view, struct err *err);
} kinds[] = {
    {LORA_UP, LORA_DOWN, read_lora},
    {LORA_HADA_W1_A, LORA_HADA_T2, read_loha},
    {LORA_LOKR_W1, LORA_LOKR_T2, read_lokr},
    {LORA_GLORA_A1, LORA_GLORA_BM, read_glora},
    {LORA_OFT_BLOCKS, LORA_RESCALE, read_rotation},
    {LORA_IA3, LORA_IA3_ON_INPUT, read_ia3},
    {LORA_SET, LORA_SET, read_set},
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
                    const struct lora_view *view, struct err *err)
{
    size_t kind = 0;

    *ret_delta = (struct lora_delta){0};
    while (!has_any(parts, kinds[kind].first, kinds[kind].last))
        kind++;
    for (size_t i = kind + 1; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (has_any(parts, kinds[i].first, kinds[i].last))
            return err_set(err, ERR_BAD_FILE,
                           "a weight is changed in two ways at once");
    return kinds[kind].read(ret_delta, parts->of, view, err);
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
    if (delta->join > LORA_GENERAL)
        return err_set(err, ERR_BAD_FILE,
                       "tensor %s (DoRA) stands beside %s, which is of a kind that has "
                       "none",
                       w->name, delta->f[0].a->name);
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

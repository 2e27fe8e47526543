/* delta: the arithmetic of a change, a few rows at a time.
 *
 * Whatever the kind (LoRA, LoHa, LoKr, a plain difference), make_rows() gives some rows
 * of the delta as floats; what is done with them, adding or DoRA's rescaling, knows only
 * that. So no delta is ever in memory as a whole: besides the factors there are two
 * blocks of ROWS rows. Rejected: making the whole matrix first, as the formulas read
 * (a convolution of SDXL's is 60 MB).
 *
 * A Tucker core is multiplied into b once, before the first row, which makes the three
 * kinds that have one an ordinary product:
 *   b'[i, (j k)] = sum over r of core[i, r, k] b[r, j],   delta = a b'
 * LyCORIS' einsum "i j k l, j r, i p -> p r k l" and its "n m k l, i n, m j -> i j k l"
 * for lora_mid are both this, with a turned in the first.
 *
 * DoRA (Liu et al. 2024): the result's rows, or columns, get the lengths that the file
 * has: W' = (W + D) lengths / |.|, and strength goes from W to W'. Columns are measured
 * in W + D, as published; rows are measured in W, as ComfyUI does it: pictures that
 * people know were made so, and for a small D the two are nearly the same. Columns need
 * all rows before the first result, so their delta is made twice.
 *
 * Where the change depends on the weight (GLoRA, IA3, a weight that is replaced), its
 * rows depend on the same rows of the weight, which is why a block is made before it is
 * added. Rotations mix rows; they are rotate.c's.
 *
 * Sums are in float, as everywhere: a rank is at most a few hundred terms. */
#include "engine/lora/delta.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

#define ROWS 128 /* of a block: enough for a quick product's own preparations */
#define TILE 8   /* columns whose sums stay in registers, times 4 rows */
#define EPSILON 1.1920929e-07F

struct matrix {
    float *a; /* [rows, inner]; NULL when the factor is whole */
    float *b; /* [inner, cols] */
};

struct work {
    const struct lora_delta *delta;
    const struct lora_view *view;
    const float *values; /* the weight [rows, cols] */
    lora_multiply_fn *multiply;
    struct matrix m[2];
    float *rows, *more; /* [ROWS, cols]; more: see more_room */
};

/* ---- products ---- */

/* out [count, cols] = a [count, inner] b [inner, cols] */
static void multiply_plain(const float *a, int64_t count, const float *b, int64_t inner,
                           int64_t cols, int64_t from, float *out)
{
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = from; j < cols; j++)
            out[i * cols + j] = 0;
        for (int64_t k = 0; k < inner; k++)
            for (int64_t j = from; j < cols; j++)
                out[i * cols + j] += a[i * inner + k] * b[k * cols + j];
    }
}

static void multiply_tile(const float *restrict a, const float *restrict b,
                          int64_t inner, int64_t cols, float *restrict out)
{
    float sum[4][TILE] = {{0}};

    for (int64_t k = 0; k < inner; k++)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < TILE; j++)
                sum[i][j] += a[i * inner + k] * b[k * cols + j];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < TILE; j++)
            out[i * cols + j] = sum[i][j];
}

static void multiply_tiles(const float *a, int64_t count, const float *b, int64_t inner,
                           int64_t cols, float *out)
{
    int64_t i = 0, tiled = cols - cols % TILE;

    for (; i + 4 <= count; i += 4) {
        for (int64_t j = 0; j < tiled; j += TILE)
            multiply_tile(a + i * inner, b + j, inner, cols, out + i * cols + j);
        multiply_plain(a + i * inner, 4, b, inner, cols, tiled, out + i * cols);
    }
    multiply_plain(a + i * inner, count - i, b, inner, cols, 0, out + i * cols);
}

/* ---- factors ---- */

float *lora_floats(size_t count, struct err *err)
{
    float *values = count > SIZE_MAX / sizeof(*values)
                        ? NULL
                        : mem_try_alloc(count * sizeof(*values));

    if (!values)
        err_set(err, ERR_NO_MEMORY, "no memory for %zu numbers of a LoRA", count);
    return values;
}

float *lora_load(const struct weight *w, struct err *err)
{
    float *values = lora_floats(weight_count(w), err);

    if (values)
        weight_to_f32(w, 0, weight_count(w), values);
    return values;
}

static void turn(const float *from, int64_t rows, int64_t cols, float *ret)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            ret[j * rows + i] = from[i * cols + j];
}

static float *load_a(const struct lora_factor *f, struct err *err)
{
    float *as_stored = lora_load(f->a, err), *turned;

    if (!as_stored || !f->a_is_turned)
        return as_stored;
    turned = lora_floats(weight_count(f->a), err);
    if (turned)
        turn(as_stored, f->inner, f->rows, turned);
    free(as_stored);
    return turned;
}

/* b [r, J] and core [I, r, K] -> [I, J, K] */
static void multiply_core(const float *core, const float *b,
                          const struct lora_factor *f, float *ret)
{
    int64_t r = f->core->dim[1], wide = (int64_t)weight_count(f->b) / r;
    int64_t area = f->cols / wide;

    for (int64_t i = 0; i < f->inner * f->cols; i++)
        ret[i] = 0;
    for (int64_t i = 0; i < f->inner; i++)
        for (int64_t m = 0; m < r; m++)
            for (int64_t j = 0; j < wide; j++)
                for (int64_t k = 0; k < area; k++)
                    ret[i * f->cols + j * area + k] +=
                        core[(i * r + m) * area + k] * b[m * wide + j];
}

static float *load_b(const struct lora_factor *f, struct err *err)
{
    float *b = lora_load(f->b, err), *core, *joined = NULL;
    size_t count;

    if (!b || !f->core)
        return b;
    core = lora_load(f->core, err);
    if (core && __builtin_mul_overflow((size_t)f->inner, (size_t)f->cols, &count))
        err_set(err, ERR_NO_MEMORY, "tensors %s and %s are too large together",
                f->core->name, f->b->name);
    else if (core)
        joined = lora_floats(count, err);
    if (joined)
        multiply_core(core, b, f, joined);
    free(core);
    free(b);
    return joined;
}

static int load_factor(struct matrix *m, const struct lora_factor *f, struct err *err)
{
    if (!f->b)
        return 0;
    m->a = load_a(f, err);
    m->b = m->a ? load_b(f, err) : NULL;
    return m->b ? 0 : -1;
}

/* rows [first, first + count) of a factor -> out [count, cols] */
static void factor_rows(const struct work *w, int which, int64_t first, int64_t count,
                        float *out)
{
    const struct lora_factor *f = &w->delta->f[which];
    const struct matrix *m = &w->m[which];

    if (f->b)
        w->multiply(m->a + first * f->inner, count, m->b, f->inner, f->cols, out);
    else
        weight_to_f32(f->a, (size_t)(first * f->cols), (size_t)(count * f->cols), out);
}

/* ---- rows of the delta ---- */

static void kronecker_rows(struct work *w, int64_t first, int64_t count)
{
    const struct lora_factor *f = w->delta->f;
    float *outer = w->more, *inner = w->more + f[0].cols;

    for (int64_t row = first; row < first + count; row++) {
        float *out = w->rows + (row - first) * w->delta->cols;

        factor_rows(w, 0, row / f[1].rows, 1, outer);
        factor_rows(w, 1, row % f[1].rows, 1, inner);
        for (int64_t i = 0; i < f[0].cols; i++)
            for (int64_t j = 0; j < f[1].cols; j++)
                out[i * f[1].cols + j] = outer[i] * inner[j];
    }
}

/* rows += W a1 a2 over the inputs: [(row, place), input], as a kernel's places do not
 * mix */
static void general_rows(struct work *w, int64_t first, int64_t count)
{
    const struct lora_factor *f = &w->delta->f[1];
    int64_t inputs = w->view->inputs, area = w->view->cols / inputs;
    const float *from = w->values + first * w->view->cols;
    float *turned = w->more, *narrow = turned + count * w->view->cols;

    for (int64_t i = 0; i < count; i++)
        turn(from + i * inputs * area, inputs, area, turned + i * inputs * area);
    w->multiply(turned, count * area, w->m[1].a, inputs, f->inner, narrow);
    w->multiply(narrow, count * area, w->m[1].b, f->inner, inputs, turned);
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < area; k++)
            for (int64_t j = 0; j < inputs; j++)
                w->rows[(i * inputs + j) * area + k] +=
                    turned[(i * area + k) * inputs + j];
}

static void scaled_rows(struct work *w, int64_t first, int64_t count)
{
    int64_t cols = w->view->cols, area = cols / w->view->inputs;
    const float *from = w->values + first * cols;

    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < cols; j++)
            w->rows[i * cols + j] =
                from[i * cols + j] *
                w->more[w->delta->scales_inputs ? j / area : first + i];
}

/* rows [first, first + count) of the delta, alpha / rank included -> w->rows */
static void make_rows(struct work *w, int64_t first, int64_t count)
{
    const struct lora_delta *d = w->delta;
    float scale = (float)d->scale;

    if (d->join == LORA_KRONECKER)
        kronecker_rows(w, first, count);
    else if (d->join == LORA_SCALED)
        scaled_rows(w, first, count);
    else
        factor_rows(w, 0, first, count, w->rows);
    if (d->join == LORA_GENERAL)
        general_rows(w, first, count);
    if (d->join == LORA_REPLACED)
        for (int64_t i = 0; i < count * d->cols; i++)
            w->rows[i] -= w->values[first * d->cols + i];
    if (d->join == LORA_HADAMARD) {
        factor_rows(w, 1, first, count, w->more);
        for (int64_t i = 0; i < count * d->cols; i++)
            w->rows[i] *= w->more[i];
    }
    for (int64_t i = 0; i < count * d->cols; i++)
        w->rows[i] *= scale;
}

static int64_t block(const struct lora_delta *d, int64_t first)
{
    return d->rows - first < ROWS ? d->rows - first : ROWS;
}

/* ---- DoRA ---- */

/* ret [inputs]: |column| of values + delta, over all rows and a kernel's points */
static void measure_columns(struct work *w, const struct lora_view *view,
                            const float *values, double *ret)
{
    int64_t group = view->cols / view->inputs;

    for (int64_t i = 0; i < view->inputs; i++)
        ret[i] = 0;
    for (int64_t first = 0; first < view->rows; first += ROWS) {
        int64_t count = block(w->delta, first);

        make_rows(w, first, count);
        for (int64_t i = 0; i < count * view->cols; i++) {
            double sum = (double)(values[first * view->cols + i] + w->rows[i]);

            ret[i % view->cols / group] += sum * sum;
        }
    }
    for (int64_t i = 0; i < view->inputs; i++)
        ret[i] = sqrt(ret[i]);
}

/* length / |row| */
static float row_factor(const float *row, int64_t cols, float length)
{
    double sum = 0;

    for (int64_t j = 0; j < cols; j++)
        sum += (double)row[j] * (double)row[j];
    return length / ((float)sqrt(sum) + EPSILON);
}

/* row += strength * ((row + delta) factors - row), all [cols] */
static void add_dora_row(float *row, const float *delta, const float *factors,
                         int64_t cols, float strength)
{
    for (int64_t j = 0; j < cols; j++)
        row[j] += strength * ((row[j] + delta[j]) * factors[j] - row[j]);
}

/* lengths [rows] where they are of rows, else factors [cols] are what they must be */
static void add_dora_rows(struct work *w, const struct lora_view *view, float strength,
                          const float *lengths, float *factors, float *values)
{
    int64_t cols = view->cols;

    for (int64_t first = 0; first < view->rows; first += ROWS) {
        int64_t count = block(w->delta, first);

        make_rows(w, first, count);
        for (int64_t i = 0; i < count; i++) {
            float *row = values + (first + i) * cols;

            if (w->delta->norms_are_of_rows) {
                float factor = row_factor(row, cols, lengths[first + i]);

                for (int64_t j = 0; j < cols; j++)
                    factors[j] = factor;
            }
            add_dora_row(row, w->rows + i * cols, factors, cols, strength);
        }
    }
}

static int add_dora(struct work *w, const struct lora_view *view, double strength,
                    float *values, struct err *err)
{
    int64_t group = view->cols / view->inputs;
    float *lengths = lora_load(w->delta->norms, err);
    float *factors = lengths ? lora_floats((size_t)view->cols, err) : NULL;
    double *columns = NULL;
    int result = -1;

    if (!factors)
        goto out;
    if (!w->delta->norms_are_of_rows) {
        columns = mem_try_zalloc((size_t)view->inputs, sizeof(*columns));
        if (!columns) {
            err_set(err, ERR_NO_MEMORY, "no memory for DoRA's column lengths");
            goto out;
        }
        measure_columns(w, view, values, columns);
        for (int64_t j = 0; j < view->cols; j++)
            factors[j] = lengths[j / group] / ((float)columns[j / group] + EPSILON);
    }
    add_dora_rows(w, view, (float)strength, lengths, factors, values);
    result = 0;
out:
    free(lengths);
    free(factors);
    free(columns);
    return result;
}

/* ---- adding ---- */

static size_t block_room(const struct lora_delta *d)
{
    return (size_t)block(d, 0) * (size_t)d->cols;
}

/* the second factor's block; one row of each, see kronecker_rows; a block of the weight
 * and its product with a1, which is at most as wide as a1 is high or a place of its own
 * for each of the rank; all factors of IA3 */
static size_t more_room(const struct lora_delta *d)
{
    switch (d->join) {
    case LORA_HADAMARD:
        return block_room(d);
    case LORA_KRONECKER:
        return (size_t)(d->f[0].cols + d->f[1].cols);
    case LORA_GENERAL:
        return block_room(d) +
               block_room(d) / (size_t)d->f[1].rows * (size_t)d->f[1].inner;
    case LORA_SCALED:
        return weight_count(d->f[0].a);
    default:
        return 0;
    }
}

static void add_plain(struct work *w, double strength, float *values)
{
    const struct lora_delta *d = w->delta;

    for (int64_t first = 0; first < d->rows; first += ROWS) {
        int64_t count = block(d, first);

        make_rows(w, first, count);
        for (int64_t i = 0; i < count * d->cols; i++)
            values[first * d->cols + i] += (float)strength * w->rows[i];
    }
}

/* one infinity or NaN is enough to make the sum of v - v a NaN */
static int check_finite(const float *values, int64_t count, const char *name,
                        struct err *err)
{
    float sum = 0;

    for (int64_t i = 0; i < count; i++)
        sum += values[i] - values[i];
    if (sum == 0)
        return 0;
    return err_set(err, ERR_BAD_FILE,
                   "with tensor %s a weight is no finite number: the file is damaged, "
                   "or its strength is too high",
                   name);
}

static int add_rows(const struct lora_delta *delta, const struct lora_view *view,
                    double strength, lora_multiply_fn *multiply, float *values,
                    struct err *err)
{
    struct work w = {
        .delta = delta, .view = view, .values = values, .multiply = multiply};
    size_t more = more_room(delta);
    int result = -1;

    if (delta->join == LORA_REPLACED)
        strength = 1;
    w.rows = lora_floats(block_room(delta), err);
    w.more = w.rows && more ? lora_floats(more, err) : NULL;
    if (!w.rows || (more && !w.more) || load_factor(&w.m[0], &delta->f[0], err) ||
        load_factor(&w.m[1], &delta->f[1], err))
        goto out;
    if (delta->join == LORA_SCALED)
        weight_to_f32(delta->f[0].a, 0, more, w.more);
    if (delta->norms && add_dora(&w, view, strength, values, err))
        goto out;
    if (!delta->norms)
        add_plain(&w, strength, values);
    result = 0;
out:
    for (int i = 0; i < 2; i++) {
        free(w.m[i].a);
        free(w.m[i].b);
    }
    free(w.rows);
    free(w.more);
    return result;
}

int lora_delta_add(const struct lora_delta *delta, const struct lora_view *view,
                   double strength, lora_multiply_fn *multiply, float *values,
                   struct err *err)
{
    if (!multiply)
        multiply = multiply_tiles;
    if (delta->join == LORA_ROTATED
            ? lora_rotate(&delta->rotation, view, strength, multiply, values, err)
            : add_rows(delta, view, strength, multiply, values, err))
        return -1;
    return check_finite(values, view->rows * view->cols, delta->f[0].a->name, err);
}

/* While a factor is loaded, its stored forms are there beside the ones that are used: counted twice, whatever it is. */
static size_t factor_room(const struct lora_factor *f)
{
    size_t numbers;

    if (!f->b)
        return 0;
    numbers = (size_t)f->rows * (size_t)f->inner + weight_count(f->b);
    if (f->core)
        numbers += weight_count(f->core) + (size_t)f->inner * (size_t)f->cols;
    return 2 * numbers * sizeof(float);
}

size_t lora_delta_room(const struct lora_delta *d)
{
    size_t norms = d->norms ? weight_count(d->norms) * sizeof(double) : 0;

    if (d->join == LORA_ROTATED)
        return lora_rotate_room(&d->rotation, d->rows, d->cols);
    return factor_room(&d->f[0]) + factor_room(&d->f[1]) + norms +
           (block_room(d) + more_room(d) + (size_t)d->cols) * sizeof(float);
}

/* rotate: OFT (Qiu et al. 2023) and BOFT (Liu et al. 2024), which turn a weight's rows
 * instead of adding to them.
 *
 * The file has matrices S; Q = S - S^T is skew, and Cayley's formula makes a rotation of
 * it: R = (I + Q) (I - Q)^-1 = 2 (I - Q)^-1 - I. The symmetric part of I - Q is I, so
 * that elimination needs no pivots: none can be 0. OFT turns rows b n ... b n + n - 1 of
 * the weight by R^T, which is the R of -Q: kohya multiplies the layer's output from the
 * right, and LyCORIS' einsum "k n m, k n ..." is the same. A file's alpha bounds |Q| over
 * all matrices, by alpha times the rows. LyCORIS' first files have R itself (oft_diag).
 *
 * BOFT turns by R, in stages, each time rows that lie further apart: in stage i the rows
 * of a group of 2 k, k = 2^i n / 2, are taken in the order 0, k, 1, k + 1, ..., n at a
 * time. So every row comes to depend on every other by small matrices.
 *
 * Strength goes from W to W' on a straight line, as for every other kind here; ComfyUI
 * weighs each stage of BOFT instead. At strength 1 both are the same. */
#include "engine/lora/delta.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct turn {
    const struct lora_rotation *r;
    lora_multiply_fn *multiply;
    int64_t cols;
    float shrink;     /* of Q */
    double *system;   /* [n, 2 n]: I - Q, I */
    float *matrix;    /* R [n, n] */
    float *stored;    /* S */
    float *from, *to; /* [n, cols] */
};

/* ---- a rotation ---- */

/* What all Q are multiplied by so that |Q| is at most the limit. */
static float shrink_of(const struct lora_rotation *r, float *stored)
{
    size_t n = (size_t)r->size, area = n * n;
    double sum = 0;

    if (r->longest == 0)
        return 1;
    for (size_t at = 0; at < weight_count(r->blocks); at += area) {
        weight_to_f32(r->blocks, at, area, stored);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double q = (double)stored[i * n + j] - (double)stored[j * n + i];

                sum += q * q;
            }
    }
    sum = sqrt(sum);
    return sum > r->longest ? (float)(r->longest / sum) : 1;
}

/* [A, I] -> [I, A^-1], without pivots */
static void eliminate(double *a, int64_t n)
{
    for (int64_t p = 0; p < n; p++) {
        double *row = a + p * 2 * n, pivot = 1 / row[p];

        for (int64_t j = p; j < 2 * n; j++)
            row[j] *= pivot;
        for (int64_t i = 0; i < n; i++) {
            double *other = a + i * 2 * n, by = other[p];

            if (i == p || by == 0)
                continue;
            for (int64_t j = p; j < 2 * n; j++)
                other[j] -= by * row[j];
        }
    }
}

/* sign: 1 for R, -1 for R^T */
static void cayley(struct turn *t, double sign)
{
    int64_t n = t->r->size;
    double by = sign * (double)t->shrink;

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double q = (double)t->stored[i * n + j] - (double)t->stored[j * n + i];

            t->system[i * 2 * n + j] = (i == j ? 1 : 0) - by * q;
            t->system[i * 2 * n + n + j] = i == j ? 1 : 0;
        }
    eliminate(t->system, n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            t->matrix[i * n + j] =
                (float)(2 * t->system[i * 2 * n + n + j] - (i == j ? 1 : 0));
}

/* matrix number `index` of the file, as rows are multiplied by it */
static void make_matrix(struct turn *t, int64_t index)
{
    int64_t n = t->r->size;

    weight_to_f32(t->r->blocks, (size_t)(index * n * n), (size_t)(n * n), t->stored);
    if (t->r->kind != LORA_ROTATION_WRITTEN) {
        cayley(t, t->r->kind == LORA_ROTATION_BOFT ? 1 : -1);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            t->matrix[i * n + j] = t->stored[j * n + i];
}

/* ---- turning ---- */

/* the row that stands at `place` in the order of a stage */
static int64_t row_at(const struct lora_rotation *r, int64_t stage, int64_t place)
{
    int64_t half, within;

    if (r->kind != LORA_ROTATION_BOFT)
        return place;
    half = (r->size / 2) << stage;
    within = place % (2 * half);
    return place - within + within % 2 * half + within / 2;
}

static void turn_block(struct turn *t, int64_t stage, int64_t block, float *rows)
{
    int64_t n = t->r->size;
    size_t bytes = (size_t)t->cols * sizeof(*rows);

    make_matrix(t, stage * t->r->block_count + block);
    for (int64_t i = 0; i < n; i++)
        memcpy(t->from + i * t->cols,
               rows + row_at(t->r, stage, block * n + i) * t->cols, bytes);
    t->multiply(t->matrix, n, t->from, n, t->cols, t->to);
    for (int64_t i = 0; i < n; i++)
        memcpy(rows + row_at(t->r, stage, block * n + i) * t->cols, t->to + i * t->cols,
               bytes);
}

static void blend(const float *turned, const float *rescale,
                  const struct lora_view *view, float strength, float *values)
{
    for (int64_t i = 0; i < view->rows; i++)
        for (int64_t j = 0; j < view->cols; j++) {
            int64_t at = i * view->cols + j;
            float by = rescale ? rescale[i] : 1;

            values[at] += strength * (by * turned[at] - values[at]);
        }
}

static void turn_release(struct turn *t)
{
    free(t->system);
    free(t->matrix);
    free(t->stored);
    free(t->from);
    free(t->to);
}

static int turn_init(struct turn *t, struct err *err)
{
    size_t n = (size_t)t->r->size, rows = n * (size_t)t->cols;

    t->system = mem_try_zalloc(n * n, 2 * sizeof(*t->system));
    if (!t->system)
        return err_set(err, ERR_NO_MEMORY, "no memory for a rotation of %zu rows", n);
    if (!(t->matrix = lora_floats(n * n, err)) ||
        !(t->stored = lora_floats(n * n, err)) || !(t->from = lora_floats(rows, err)) ||
        !(t->to = lora_floats(rows, err)))
        return -1;
    t->shrink = shrink_of(t->r, t->stored);
    return 0;
}

int lora_rotate(const struct lora_rotation *r, const struct lora_view *view,
                double strength, lora_multiply_fn *multiply, float *values,
                struct err *err)
{
    struct turn t = {.r = r, .multiply = multiply, .cols = view->cols};
    size_t count = (size_t)(view->rows * view->cols);
    float *rows = lora_floats(count, err), *rescale = NULL;
    int result = -1;

    if (!rows || (r->rescale && !(rescale = lora_load(r->rescale, err))) ||
        turn_init(&t, err))
        goto out;
    memcpy(rows, values, count * sizeof(*rows));
    for (int64_t stage = 0; stage < r->stages; stage++)
        for (int64_t block = 0; block < r->block_count; block++)
            turn_block(&t, stage, block, rows);
    blend(rows, rescale, view, (float)strength, values);
    result = 0;
out:
    turn_release(&t);
    free(rows);
    free(rescale);
    return result;
}

size_t lora_rotate_room(const struct lora_rotation *r, int64_t rows, int64_t cols)
{
    size_t n = (size_t)r->size, wide = (size_t)cols;

    return 2 * n * n * (sizeof(double) + sizeof(float)) +
           ((size_t)rows * wide + (size_t)rows + 2 * n * wide) * sizeof(float);
}

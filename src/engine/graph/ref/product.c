/* product: linear and conv2d of the reference back end.
 *
 * Both are one thing: rows of K numbers times a packed matrix. For a linear the rows
 * are x's own; for a convolution a tile of TILE_ROWS output pixels is gathered first (K
 * = KH * KW * channels, zeros where the kernel hangs over the edge), so that border,
 * stride and upsampling are said once, in gather(), and the arithmetic is the same loop
 * for both.
 *
 * The inner loop holds 8 rows x 16 outputs in registers over all of K: one panel (K x
 * 16 floats) is read from L2 for every 8 rows, sums run in the order of k. A tile is
 * one task of the pool; wide outputs are split too, so that a deep level's few pixels
 * keep all threads busy.
 *
 * y = act(x W + bias + channel_add + residual): the additions happen where the sum
 * leaves the registers, each element of the residual is read before its y is written,
 * so y may lie over the residual. */
#include "engine/graph/ref/ref.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

enum { ROWS = 8, TASK_OUTPUTS = 256 };

typedef float v16 __attribute__((vector_size(64), aligned(4)));

struct product {
    const struct ref_call *call;
    const struct node *n;
    const float *x;
    float *y;
    const float *residual;
    const float *channel_add;
    int64_t channel_pitch; /* 0 when all pictures share one */
    int64_t rows, rows_per_picture, k, outputs;
    int64_t high, wide, channels, out_wide; /* conv2d: x as stored, y's width */
    int64_t kernel_h, kernel_w;
    int row_tasks, output_tasks;
};

REF_CLONES
static void multiply(const float *const x[ROWS], const float *panel, int64_t k,
                     float ret_sums[ROWS][PANEL])
{
    v16 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};

    for (int64_t i = 0; i < k; i++) {
        const v16 w = *(const v16 *)(panel + i * PANEL);

        s0 += w * x[0][i];
        s1 += w * x[1][i];
        s2 += w * x[2][i];
        s3 += w * x[3][i];
        s4 += w * x[4][i];
        s5 += w * x[5][i];
        s6 += w * x[6][i];
        s7 += w * x[7][i];
    }
    *(v16 *)ret_sums[0] = s0;
    *(v16 *)ret_sums[1] = s1;
    *(v16 *)ret_sums[2] = s2;
    *(v16 *)ret_sums[3] = s3;
    *(v16 *)ret_sums[4] = s4;
    *(v16 *)ret_sums[5] = s5;
    *(v16 *)ret_sums[6] = s6;
    *(v16 *)ret_sums[7] = s7;
}

static void store(const struct product *p, int64_t row, int64_t from, const float *sums)
{
    const float *bias = p->call->biases;
    float *y = p->y + row * p->outputs;
    int64_t to = from + PANEL < p->outputs ? from + PANEL : p->outputs;
    int64_t picture = row / p->rows_per_picture;

    for (int64_t o = from; o < to; o++) {
        float sum = sums[o - from];

        if (bias)
            sum += bias[o];
        if (p->channel_add)
            sum += p->channel_add[picture * p->channel_pitch + o];
        if (p->residual)
            sum += p->residual[row * p->outputs + o];
        y[o] = ref_activate(p->n->act, sum);
    }
}

/* The K numbers that output pixel `row` sees, in the order of the packed weights. */
static void gather(const struct product *p, int64_t row, float *ret)
{
    const struct node *n = p->n;
    int64_t picture = row / p->rows_per_picture, pixel = row % p->rows_per_picture;
    int64_t top = pixel / p->out_wide * n->stride - n->pad_top;
    int64_t left = pixel % p->out_wide * n->stride - n->pad_left;
    size_t bytes = (size_t)p->channels * sizeof(float);

    for (int64_t ky = 0; ky < p->kernel_h; ky++) {
        for (int64_t kx = 0; kx < p->kernel_w; kx++, ret += p->channels) {
            int64_t iy = top + ky, ix = left + kx;

            if (iy < 0 || ix < 0 || iy >= p->high * n->upsample ||
                ix >= p->wide * n->upsample) {
                memset(ret, 0, bytes);
                continue;
            }
            iy /= n->upsample;
            ix /= n->upsample;
            memcpy(ret, p->x + ((picture * p->high + iy) * p->wide + ix) * p->channels,
                   bytes);
        }
    }
}

static void run_task(void *user, int index, int thread)
{
    const struct product *p = user;
    int64_t first = (int64_t)(index % p->row_tasks) * TILE_ROWS;
    int64_t last = first + TILE_ROWS < p->rows ? first + TILE_ROWS : p->rows;
    int64_t from = (int64_t)(index / p->row_tasks) * TASK_OUTPUTS;
    int64_t to = from + TASK_OUTPUTS < p->outputs ? from + TASK_OUTPUTS : p->outputs;
    float *tile = p->call->scratch + (size_t)thread * p->call->scratch_floats;
    const float *rows[TILE_ROWS + ROWS] = {NULL};
    float sums[ROWS][PANEL];

    for (int64_t r = first; r < last; r++) {
        if (p->n->op == OP_LINEAR) {
            rows[r - first] = p->x + r * p->k;
        } else {
            rows[r - first] = tile + (r - first) * p->k;
            gather(p, r, tile + (r - first) * p->k);
        }
    }
    for (int64_t r = last; r < last + ROWS; r++)
        rows[r - first] = rows[0]; /* multiplied for nothing, never stored */
    for (int64_t o = from; o < to; o += PANEL) {
        for (int64_t r = first; r < last; r += ROWS) {
            multiply(rows + (r - first), p->call->weights + o * p->k, p->k, sums);
            for (int64_t i = r; i < r + ROWS && i < last; i++)
                store(p, i, o, sums[i - r]);
        }
    }
}

void ref_product(const struct ref_call *call)
{
    const struct node *n = call->node;
    const struct tensor *x = ref_tensor(call, n->in[0]), *y = ref_tensor(call, n->out);
    struct product p = {.call = call,
                        .n = n,
                        .x = ref_address(call, n->in[0]),
                        .y = ref_address(call, n->out),
                        .rows = shape_rows(&y->shape),
                        .outputs = shape_last(&y->shape)};

    assert(x->pitch == shape_last(&x->shape) && y->pitch == p.outputs);
    p.rows_per_picture = p.rows / y->shape.dim[0];
    p.channels = p.k = shape_last(&x->shape);
    if (n->op == OP_CONV2D) {
        p.high = x->shape.dim[1];
        p.wide = x->shape.dim[2];
        p.out_wide = y->shape.dim[2];
        p.kernel_h = n->weights[0]->dim[2];
        p.kernel_w = n->weights[0]->dim[3];
        p.k *= p.kernel_h * p.kernel_w;
    }
    if (n->residual >= 0)
        p.residual = ref_address(call, n->residual);
    if (n->channel_add >= 0) {
        const struct tensor *add = ref_tensor(call, n->channel_add);

        p.channel_add = ref_address(call, n->channel_add);
        p.channel_pitch = add->shape.dim[0] == 1 ? 0 : add->pitch;
    }
    p.row_tasks = (int)((p.rows + TILE_ROWS - 1) / TILE_ROWS);
    p.output_tasks = (int)((p.outputs + TASK_OUTPUTS - 1) / TASK_OUTPUTS);
    pool_run(call->pool, p.row_tasks * p.output_tasks, run_task, &p);
}

/* ---- packing ---- */

size_t ref_scratch_floats(const struct plan *p, const struct node *n)
{
    if (n->op == OP_CONV2D) {
        const struct weight *w = n->weights[0];

        return (size_t)TILE_ROWS * (size_t)(w->dim[1] * w->dim[2] * w->dim[3]);
    }
    if (n->op == OP_ATTENTION)
        return (size_t)p->tensors[n->in[1]].shape.dim[1];
    return 0;
}

size_t ref_packed_floats(const struct node *n, size_t *ret_bias_floats)
{
    size_t outputs = 0, k;

    *ret_bias_floats = 0;
    if (n->weight_count == 0 || n->op == OP_EMBEDDING)
        return 0;
    if (n->op == OP_PRELU)
        return weight_count(n->weights[0]);
    if (n->op == OP_GROUP_NORM || n->op == OP_LAYER_NORM) {
        *ret_bias_floats = weight_count(n->weights[0]);
        return weight_count(n->weights[0]);
    }
    for (int i = 0; i < n->weight_count; i++) {
        outputs += (size_t)n->weights[i]->dim[0];
        if (n->biases && n->biases[i])
            *ret_bias_floats = 1; /* there is one: the sum is known after the loop */
    }
    k = weight_count(n->weights[0]) / (size_t)n->weights[0]->dim[0];
    if (*ret_bias_floats)
        *ret_bias_floats = outputs;
    return (outputs + PANEL - 1) / PANEL * PANEL * k;
}

/* One output channel's row of the file, [I, KH, KW], to its column of a panel, (ky, kx,
 * i). */
static void pack_row(const struct weight *w, const float *values, float *column)
{
    int64_t channels = w->dim[1], taps = w->rank == 4 ? w->dim[2] * w->dim[3] : 1;

    for (int64_t i = 0; i < channels; i++)
        for (int64_t t = 0; t < taps; t++)
            column[(t * channels + i) * PANEL] = values[i * taps + t];
}

static int read_vector(const struct weight *w, const struct weight_edit *edit,
                       float *ret, struct err *err)
{
    struct edited room;
    const struct weight *source = edited_make(&room, edit, w, err);

    if (!source)
        return -1;
    weight_to_f32(source, 0, weight_count(source), ret);
    edited_release(&room);
    return 0;
}

/* The rows of one of n's weights, from row `output` of the panels on. */
static int pack_matrix(const struct weight *w, const struct weight_edit *edit,
                       int64_t output, float *weights, struct err *err)
{
    size_t k = weight_count(w) / (size_t)w->dim[0];
    struct edited room;
    const struct weight *source = edited_make(&room, edit, w, err);
    float *row;

    if (!source)
        return -1;
    row = mem_alloc(k * sizeof(*row));
    for (int64_t o = 0; o < w->dim[0]; o++, output++) {
        weight_to_f32(source, (size_t)o * k, k, row);
        pack_row(w, row,
                 weights + output / PANEL * PANEL * (int64_t)k + output % PANEL);
    }
    free(row);
    edited_release(&room);
    weight_forget(w);
    return 0;
}

int ref_pack(const struct node *n, const struct weight_edit *edit, float *weights,
             float *biases, struct err *err)
{
    int64_t output = 0;

    if (n->op == OP_PRELU)
        return read_vector(n->weights[0], edit, weights, err);
    if (n->op == OP_GROUP_NORM || n->op == OP_LAYER_NORM)
        return read_vector(n->weights[0], edit, weights, err) ||
                       read_vector(n->biases[0], edit, biases, err)
                   ? -1
                   : 0;
    for (int m = 0; m < n->weight_count; m++) {
        if (biases && n->biases[m] &&
            read_vector(n->biases[m], edit, biases + output, err))
            return -1;
        if (pack_matrix(n->weights[m], edit, output, weights, err))
            return -1;
        output += n->weights[m]->dim[0];
    }
    return 0;
}

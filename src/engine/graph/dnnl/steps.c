/* steps: each node that is not a product, from tensor handles to addresses and sizes.
 *
 * One function per operation, one table; what computes is in kernels.h, moves.h and
 * attention_amx.h. Embedding and timestep are so small (77 rows, one row) that they are
 * plain C here. The embedding table is not packed: a prompt reads 77 of its 49,408 rows,
 * which come straight from the mapped file, and 76 MB stay on disk. */
#include "engine/graph/dnnl/steps.h"

#include "engine/graph/dnnl/attention_amx.h"
#include "engine/graph/dnnl/moves.h"

#include "base/mem.h"

#include <math.h>

struct step {
    const struct dnnl_backend *backend;
    const struct node *node;
    const struct step_vectors *vectors;
    const struct run_memory *memory;
    void *scratch;
};

typedef int step_fn(const struct step *s, struct err *err);

static const struct shape *shape_of(const struct step *s, int tensor)
{
    return &s->memory->plan->tensors[tensor].shape;
}

static void *address(const struct step *s, int tensor)
{
    return run_address(s->memory, tensor);
}

static enum elem type_of(const struct step *s, int tensor)
{
    return elem_of(s->backend, s->memory->plan, tensor);
}

static int has_stopped(const struct step *s, struct err *err)
{
    return stop_is_set(s->memory->stop) ? err_set(err, ERR_CANCELLED, "cancelled") : 0;
}

static int run_input(const struct step *s, struct err *err)
{
    const struct node *n = s->node;

    (void)err;
    if (n->in_count == 0) /* the graph reads the bound memory itself */
        return 0;
    s->backend->kernels->convert(address(s, n->in[0]), ELEM_F32, address(s, n->out),
                                 type_of(s, n->out),
                                 shape_elements(shape_of(s, n->out)));
    return 0;
}

static int run_output(const struct step *s, struct err *err)
{
    const struct node *n = s->node;

    (void)err;
    s->backend->kernels->convert(address(s, n->in[0]), type_of(s, n->in[0]),
                                 address(s, n->out), type_of(s, n->out),
                                 shape_elements(shape_of(s, n->in[0])));
    return 0;
}

static int run_group_norm(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const int64_t *x = shape_of(s, n->in[0])->dim;

    s->backend->kernels->group_norm(&(struct group_norm_args){
        .x = address(s, n->in[0]),
        .y = address(s, n->out),
        .type = type_of(s, n->in[0]),
        .pictures = x[0],
        .pixels = x[1] * x[2],
        .channels = x[3],
        .groups = n->groups,
        .eps = n->eps,
        .gamma = s->vectors->gamma->data,
        .beta = s->vectors->beta->data,
        .act = n->act,
        .threads = s->backend->threads,
        .scratch = s->scratch,
        .stop = s->memory->stop,
    });
    return has_stopped(s, err);
}

static int run_layer_norm(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const struct shape *x = shape_of(s, n->in[0]);

    (void)err;
    s->backend->kernels->layer_norm(&(struct layer_norm_args){
        .x = address(s, n->in[0]),
        .y = address(s, n->out),
        .type = type_of(s, n->in[0]),
        .rows = shape_rows(x),
        .channels = shape_last(x),
        .eps = n->eps,
        .gamma = s->vectors->gamma->data,
        .beta = s->vectors->beta->data,
    });
    return 0;
}

static struct attend_args attend_args(const struct dnnl_backend *b,
                                      const struct plan *plan, const struct node *n)
{
    const struct tensor *q = &plan->tensors[n->in[0]], *k = &plan->tensors[n->in[1]];

    double operations =
        4.0 * (double)shape_elements(&q->shape) * (double)k->shape.dim[1];

    return (struct attend_args){
        .type = elem_of(b, plan, n->in[0]),
        .pictures = q->shape.dim[0],
        .queries = q->shape.dim[1],
        .keys = k->shape.dim[1],
        .heads = n->heads,
        .head_size = shape_last(&q->shape) / n->heads,
        .q_pitch = q->pitch,
        .k_pitch = k->pitch,
        .v_pitch = plan->tensors[n->in[2]].pitch,
        .y_pitch = plan->tensors[n->out].pitch,
        .is_causal = n->is_causal,
        .threads = threads_for(b, operations / (product_rate(b) / 2)),
    };
}

static bool uses_amx(const struct dnnl_backend *b, const struct attend_args *a)
{
    return b->has_amx && a->type == ELEM_BF16;
}

static int run_attention(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    struct attend_args a = attend_args(s->backend, s->memory->plan, n);

    a.q = address(s, n->in[0]);
    a.k = address(s, n->in[1]);
    a.v = address(s, n->in[2]);
    a.y = address(s, n->out);
    a.scratch = s->scratch;
    a.stop = s->memory->stop;
    if (uses_amx(s->backend, &a))
        attention_amx(&a);
    else
        s->backend->kernels->attention(&a);
    return has_stopped(s, err);
}

static int run_activate(const struct step *s, struct err *err)
{
    const struct node *n = s->node;

    (void)err;
    s->backend->kernels->activate(address(s, n->in[0]), address(s, n->out),
                                  type_of(s, n->in[0]),
                                  shape_elements(shape_of(s, n->out)), n->act);
    return 0;
}

static int run_prelu(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const struct shape *y = shape_of(s, n->out);

    (void)err;
    s->backend->kernels->prelu(address(s, n->in[0]), s->vectors->gamma->data,
                               address(s, n->out), type_of(s, n->in[0]), shape_rows(y),
                               shape_last(y));
    return 0;
}

static int run_geglu(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const struct shape *y = shape_of(s, n->out);

    (void)err;
    s->backend->kernels->geglu(address(s, n->in[0]), address(s, n->out),
                               type_of(s, n->in[0]), shape_rows(y), shape_last(y));
    return 0;
}

/* b [1 or N, C] is added to every pixel of its picture, or b is like x */
static int run_add(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const struct shape *x = shape_of(s, n->in[0]), *b = shape_of(s, n->in[1]);
    const struct tensor *row = &s->memory->plan->tensors[n->in[1]];
    int64_t elements = shape_elements(x), pictures = x->dim[0];
    enum elem type = type_of(s, n->in[0]);
    size_t size = elem_bytes(type);
    const char *from = address(s, n->in[0]), *add = address(s, n->in[1]);
    char *to = address(s, n->out);

    (void)err;
    if (b->rank == x->rank) {
        s->backend->kernels->add(from, add, to, type, elements);
        return 0;
    }
    for (int64_t i = 0; i < pictures; i++) {
        size_t at = (size_t)(elements / pictures * i) * size;
        size_t which = b->dim[0] == 1 ? 0 : (size_t)(i * row->pitch) * size;

        s->backend->kernels->add_row(from + at, add + which, to + at, type,
                                     shape_rows(x) / pictures, shape_last(x));
    }
    return 0;
}

static int run_concat(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const struct shape *a = shape_of(s, n->in[0]), *b = shape_of(s, n->in[1]);
    size_t size = elem_bytes(type_of(s, n->out));

    (void)err;
    move_concat(address(s, n->in[0]), (size_t)shape_last(a) * size,
                address(s, n->in[1]), (size_t)shape_last(b) * size, address(s, n->out),
                shape_rows(a));
    return 0;
}

static int run_slice(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const struct shape *x = shape_of(s, n->in[0]), *y = shape_of(s, n->out);
    size_t size = elem_bytes(type_of(s, n->out));

    (void)err;
    move_slice(address(s, n->in[0]), (size_t)shape_last(x) * size,
               (size_t)n->from * size, address(s, n->out), (size_t)shape_last(y) * size,
               shape_rows(x));
    return 0;
}

static int run_upsample(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const int64_t *y = shape_of(s, n->out)->dim;

    (void)err;
    move_upsample2x(address(s, n->in[0]), address(s, n->out), y[0], y[1], y[2],
                    (size_t)y[3] * elem_bytes(type_of(s, n->out)));
    return 0;
}

static int run_border(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const int64_t *x = shape_of(s, n->in[0])->dim;
    const struct move_border border = {n->pad_top, n->pad_left, n->pad_bottom,
                                       n->pad_right};

    (void)err;
    move_border(address(s, n->in[0]), address(s, n->out), x[0], x[1], x[2], &border,
                (size_t)x[3] * elem_bytes(type_of(s, n->out)));
    return 0;
}

/* scratch: two rows of f32 */
static int run_embedding(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const struct weight *table = n->weights[0];
    const struct weight *positions = n->biases ? n->biases[0] : NULL;
    const int32_t *ids = address(s, n->in[0]);
    const float *own = n->in_count > 1 ? address(s, n->in[1]) : NULL;
    int64_t rows = table->dim[0] + (own ? shape_of(s, n->in[1])->dim[0] : 0);
    const struct shape *y = shape_of(s, n->out);
    size_t channels = (size_t)shape_last(y);
    enum elem type = type_of(s, n->out);
    float *row = s->scratch, *position = row + channels;
    char *to = address(s, n->out);

    for (int64_t i = 0; i < shape_rows(y); i++) {
        size_t t = (size_t)(i % y->dim[1]);

        if (ids[i] < 0 || ids[i] >= rows)
            return err_set(err, ERR_INVALID, "token %d is not among the model's %lld",
                           ids[i], (long long)rows);
        if (ids[i] < table->dim[0])
            weight_to_f32(table, (size_t)ids[i] * channels, channels, row);
        else
            memcpy(row, own + (size_t)(ids[i] - table->dim[0]) * channels,
                   channels * sizeof(*row));
        if (positions) {
            weight_to_f32(positions, t * channels, channels, position);
            for (size_t c = 0; c < channels; c++)
                row[c] += position[c];
        }
        s->backend->kernels->convert_row(
            row, to + (size_t)i * channels * elem_bytes(type), type, (int64_t)channels);
    }
    return 0;
}

/* cos first, then sin; in double, because t f_i reaches 999 */
static int run_timestep(const struct step *s, struct err *err)
{
    const struct node *n = s->node;
    const float *t = address(s, n->in[0]);
    const struct shape *y = shape_of(s, n->out);
    int64_t channels = shape_last(y), half = channels / 2;
    enum elem type = type_of(s, n->out);
    char *to = address(s, n->out);
    float *row = s->scratch;

    (void)err;
    for (int64_t i = 0; i < shape_rows(y); i++) {
        for (int64_t c = 0; c < half; c++) {
            double angle = (double)t[i] * exp(-log(10000.0) * (double)c / (double)half);

            row[c] = (float)cos(angle);
            row[half + c] = (float)sin(angle);
        }
        if (channels % 2)
            row[channels - 1] = 0;
        s->backend->kernels->convert_row(
            row, to + (size_t)(i * channels) * elem_bytes(type), type, channels);
    }
    return 0;
}

static step_fn *const functions[OP_COUNT] = {
    [OP_INPUT] = run_input,           [OP_OUTPUT] = run_output,
    [OP_GROUP_NORM] = run_group_norm, [OP_LAYER_NORM] = run_layer_norm,
    [OP_ATTENTION] = run_attention,   [OP_ACTIVATE] = run_activate,
    [OP_GEGLU] = run_geglu,           [OP_ADD] = run_add,
    [OP_CONCAT] = run_concat,         [OP_SLICE] = run_slice,
    [OP_UPSAMPLE2X] = run_upsample,   [OP_BORDER] = run_border,
    [OP_EMBEDDING] = run_embedding,   [OP_TIMESTEP] = run_timestep,
    [OP_PRELU] = run_prelu,
};

int step_run(const struct dnnl_backend *b, const struct node *n,
             const struct step_vectors *vectors, const struct run_memory *m,
             void *scratch, struct err *err)
{
    struct step s = {b, n, vectors, m, scratch};

    if (!functions[n->op])
        return err_set(err, ERR_UNSUPPORTED, "the oneDNN back end has no operation %s",
                       graph_op_name(n->op));
    return functions[n->op](&s, err);
}

size_t step_scratch(const struct dnnl_backend *b, const struct plan *plan,
                    const struct node *n)
{
    const struct shape *y = &plan->tensors[n->out].shape;
    struct attend_args a;

    switch (n->op) {
    case OP_GROUP_NORM:
        return group_norm_scratch(y->dim[3], b->threads);
    case OP_ATTENTION:
        a = attend_args(b, plan, n);
        return (size_t)a.threads *
               (uses_amx(b, &a) ? attention_amx_scratch(&a) : attention_scratch(&a));
    case OP_EMBEDDING:
    case OP_TIMESTEP:
        return (size_t)shape_last(y) * 2 * sizeof(float);
    default:
        return 0;
    }
}

struct step_vectors step_vectors(struct weight_store *store, const struct plan *plan,
                                 const struct node *n)
{
    int64_t channels = shape_last(&plan->tensors[n->out].shape);
    struct step_vectors v = {0};

    if (n->op == OP_PRELU)
        v.gamma = store_vector(store, n->weights, &channels, 1);
    if (n->op == OP_GROUP_NORM || n->op == OP_LAYER_NORM) {
        v.gamma = store_vector(store, n->weights, &channels, 1);
        v.beta = store_vector(store, n->biases, &channels, 1);
    }
    return v;
}

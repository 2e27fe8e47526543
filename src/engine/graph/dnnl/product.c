/* product: linear and convolution.
 *
 * The two differ only in how their operands are described; everything else (packed
 * weights, bias, what rides along, scratch) is the same, so they share one struct.
 *
 * y = act(x W + bias + channel_add + residual) is one primitive:
 *   - channel_add: one row serves all pictures in every model there is (cond and uncond
 *     share the timestep), and then bias + channel_add is simply the bias of this run,
 *     added up in scratch. With a row per picture the primitive is made for one picture
 *     and runs once for each. A binary post-op was rejected: oneDNN broadcasts it
 *     over pixels at the price of a slower kernel.
 *   - residual: a sum post-op when the plan put y over it, else a binary post-op.
 *   - activation: an eltwise post-op.
 * Scratch of a node = the primitive's own + upsampled x + bias of the run.
 *
 * A 3x3 convolution of an upsampled x is run as a transposed convolution of x itself, with a
 * 4x4 kernel and stride 2: each y pixel then costs 4 taps instead of 9, and the upsampled
 * picture is never written. Four 2x2 convolutions with interleaved results would be the
 * same, but oneDNN writes dense pictures only. Where it has no good kernel for it, x is
 * upsampled into scratch.
 *
 * What would take longer than a cancel may (pieces.h) is run some rows of y at a time, by one primitive for each shape that a
 * piece has: a picture's upper border, its middle, its lower border. All read the same packed weights, and each value is the
 * same sum in the same order as in one piece. Stopping oneDNN's threads in the middle of a primitive is not possible.
 *
 * Weights' layout is the primitive's wish (format any). When the store already has these
 * weights in another layout (another picture size), the primitive is asked to take that
 * one, and it is kept if the same implementation is chosen: 1.7 GB twice would be worse
 * than a few percent. */
#include "engine/graph/dnnl/product.h"

#include "base/mem.h"
#include "engine/graph/dnnl/moves.h"
#include "engine/graph/dnnl/pieces.h"

#include <math.h>
#include <string.h>

enum { MAX_ARGS = 7, ALIGN = 64 };

enum product_kind { KIND_LINEAR, KIND_CONV, KIND_TRANSPOSED };

/* What runs the pieces of one shape. */
struct kernel {
    struct piece shape;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y, residual, workspace;
};

struct product {
    enum product_kind kind;
    struct dnnl_backend *backend;
    const struct node *node;
    struct kernel *kernels;
    int kernel_count;
    dnnl_memory_t bias;
    const struct weight_store *store;
    struct packed *weights;
    struct packed *bias_values;           /* NULL: the file has none */
    int64_t channels;                     /* of y */
    int runs;                             /* 1, or one per picture (see above) */
    int threads;                          /* the primitives were made for */
    size_t x_step, y_step, residual_step; /* bytes between the pictures of two runs */
    size_t x_row, y_row, residual_row;    /* bytes between two rows of a window */
    struct window window;                 /* of one run */
    int64_t piece_rows;                   /* of y, in all pieces but the last */
    bool adds_in_place;
    int residual_index;              /* of its post-op, -1: none or in place */
    int64_t up_pictures, up_h, up_w; /* upsampled first; pictures 0: not */
    size_t up_offset, bias_offset, weights_offset, scratch;
};

/* How the operands look to oneDNN. */
struct operands {
    int rank;
    dnnl_dims_t x, weights, y;
    dnnl_format_tag_t dense; /* of x and y */
    dnnl_memory_desc_t x_desc, weights_desc, bias_desc, y_desc, residual_desc;
};

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static dnnl_data_type_t data_type(enum elem type)
{
    return type == ELEM_BF16 ? dnnl_bf16 : dnnl_f32;
}

static void linear_operands(const struct plan *plan, const struct node *n,
                            const struct piece *piece, struct operands *o)
{
    o->rank = 2;
    o->dense = dnnl_ab;
    o->x[0] = piece->in_count;
    o->y[0] = piece->out_count;
    o->x[1] = o->weights[0] = shape_last(&plan->tensors[n->in[0]].shape);
    o->y[1] = o->weights[1] = shape_last(&plan->tensors[n->out].shape);
}

/* Shapes here are [N, H, W, C], oneDNN's dims are N, C, H, W whatever the layout. */
static void conv_operands(const struct product *p, const struct plan *plan,
                          const struct piece *piece, struct operands *o)
{
    const int64_t *x = plan->tensors[p->node->in[0]].shape.dim;
    const int64_t *y = plan->tensors[p->node->out].shape.dim;
    int64_t times = p->kind == KIND_TRANSPOSED ? 1 : p->node->upsample;

    o->rank = 4;
    o->dense = dnnl_acdb;
    memcpy(o->x, (dnnl_dims_t){x[0] / p->runs, x[3], piece->in_count, x[2] * times},
           sizeof(o->x));
    memcpy(o->y, (dnnl_dims_t){y[0] / p->runs, y[3], piece->out_count, y[2]},
           sizeof(o->y));
    memcpy(o->weights, p->node->weights[0]->dim, sizeof(p->node->weights[0]->dim));
    if (p->kind == KIND_TRANSPOSED)
        o->weights[2] = o->weights[3] = 4;
}

static int describe_operands(const struct product *p, const struct plan *plan,
                             const struct piece *piece, struct operands *o)
{
    const struct node *n = p->node;
    dnnl_data_type_t x = data_type(elem_of(p->backend, plan, n->in[0]));
    dnnl_data_type_t y = data_type(elem_of(p->backend, plan, n->out));
    dnnl_dims_t bias = {p->channels};
    bool is_linear = p->kind == KIND_LINEAR;

    if (is_linear) {
        bias[0] = 1;
        bias[1] = p->channels;
        linear_operands(plan, n, piece, o);
    } else {
        conv_operands(p, plan, piece, o);
    }
    if (dnnl_memory_desc_create_with_tag(&o->x_desc, o->rank, o->x, x, o->dense) ||
        dnnl_memory_desc_create_with_tag(&o->y_desc, o->rank, o->y, y, o->dense) ||
        dnnl_memory_desc_create_with_tag(&o->weights_desc, o->rank, o->weights,
                                         data_type(p->backend->act),
                                         dnnl_format_tag_any))
        return -1;
    if (n->residual >= 0 && /* y may be f32 where the residual is not */
        dnnl_memory_desc_create_with_tag(
            &o->residual_desc, o->rank, o->y,
            data_type(elem_of(p->backend, plan, n->residual)), o->dense))
        return -1;
    if ((p->bias_values || n->channel_add >= 0) &&
        dnnl_memory_desc_create_with_tag(&o->bias_desc, is_linear ? 2 : 1, bias,
                                         dnnl_f32, is_linear ? dnnl_ab : dnnl_a))
        return -1;
    return 0;
}

static void release_operands(struct operands *o)
{
    dnnl_memory_desc_t all[] = {o->x_desc, o->weights_desc, o->bias_desc, o->y_desc,
                                o->residual_desc};

    for (int i = 0; i < 5; i++)
        if (all[i])
            dnnl_memory_desc_destroy(all[i]);
}

static int append_soft_clamp(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, 1 / 3.0f, 0) ||
           dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_tanh, 0, 0) ||
           dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, 3.0f, 0);
}

static int append_activation(dnnl_post_ops_t ops, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_swish, 1.0f, 0);
    case ACT_QUICK_GELU:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_swish, 1.702f, 0);
    case ACT_GELU:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_gelu_erf, 0, 0);
    case ACT_GELU_TANH:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_gelu_tanh, 0, 0);
    case ACT_LEAKY_RELU:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, 0.2f, 0);
    case ACT_FIFTH:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, 0.2f, 0);
    case ACT_RELU:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, 0, 0);
    case ACT_SOFT_CLAMP:
        return append_soft_clamp(ops);
    case ACT_TO_UNIT:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, 0.5f, 0.5f);
    case ACT_TO_SIGNED:
        return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, 2.0f, -1.0f);
    case ACT_NONE:
        break;
    }
    return 0;
}

static int make_attributes(struct product *p, const struct operands *o,
                           dnnl_primitive_attr_t *ret_attr)
{
    const struct node *n = p->node;
    dnnl_post_ops_t ops = NULL;
    int failed;

    if (dnnl_primitive_attr_create(ret_attr) ||
        dnnl_primitive_attr_set_scratchpad_mode(*ret_attr, dnnl_scratchpad_mode_user) ||
        dnnl_post_ops_create(&ops))
        return -1;
    failed = 0;
    if (p->adds_in_place)
        failed |= dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef) != 0;
    else if (n->residual >= 0)
        failed |=
            dnnl_post_ops_append_binary(ops, dnnl_binary_add, o->residual_desc) != 0;
    p->residual_index = n->residual >= 0 && !p->adds_in_place ? 0 : -1;
    failed |= append_activation(ops, n->act) != 0;
    failed |= dnnl_primitive_attr_set_post_ops(*ret_attr, ops) != 0;
    dnnl_post_ops_destroy(ops);
    return failed ? -1 : 0;
}

static dnnl_status_t make_desc(const struct product *p, const struct piece *piece,
                               const struct operands *o,
                               const_dnnl_memory_desc_t weights,
                               const_dnnl_primitive_attr_t attr,
                               dnnl_primitive_desc_t *ret)
{
    const struct node *n = p->node;
    dnnl_dims_t stride = {n->stride, n->stride}, dilation = {0, 0};
    dnnl_dims_t before = {piece->pad_before, n->pad_left},
                after = {piece->pad_after, n->pad_right};

    if (p->kind == KIND_LINEAR)
        return dnnl_matmul_primitive_desc_create(
            ret, p->backend->engine, o->x_desc, weights, o->bias_desc, o->y_desc, attr);
    if (p->kind == KIND_TRANSPOSED)
        return dnnl_deconvolution_forward_primitive_desc_create(
            ret, p->backend->engine, dnnl_forward_inference, dnnl_deconvolution_direct,
            o->x_desc, weights, o->bias_desc, o->y_desc, (dnnl_dims_t){2, 2}, dilation,
            before, after, attr);
    return dnnl_convolution_forward_primitive_desc_create(
        ret, p->backend->engine, dnnl_forward_inference, dnnl_convolution_direct,
        o->x_desc, weights, o->bias_desc, o->y_desc, stride, dilation, before, after,
        attr);
}

static const char *implementation(const_dnnl_primitive_desc_t desc)
{
    const char *name = "";

    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, (void *)&name);
    return name;
}

static enum packed_form form_of(const struct product *p)
{
    return p->kind == KIND_TRANSPOSED ? FORM_DOUBLED : FORM_PLAIN;
}

static const_dnnl_memory_desc_t weights_of(const_dnnl_primitive_desc_t desc)
{
    return dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
}

/* Prefers the layout that the store has, if oneDNN's choice of kernel stays the same. */
static void reuse_layout(const struct product *p, struct kernel *k,
                         const struct weight_store *store, const struct operands *o,
                         const_dnnl_primitive_attr_t attr)
{
    const struct packed *have =
        store_find(store, p->node->weights, p->node->weight_count, form_of(p));
    dnnl_primitive_desc_t other = NULL;

    if (!have || dnnl_memory_desc_equal(have->layout, weights_of(k->desc)) ||
        make_desc(p, &k->shape, o, have->layout, attr, &other))
        return;
    if (!strcmp(implementation(other), implementation(k->desc))) {
        dnnl_primitive_desc_destroy(k->desc);
        k->desc = other;
    } else {
        dnnl_primitive_desc_destroy(other);
    }
}

static int make_memories(struct product *p, struct kernel *k, const struct operands *o)
{
    dnnl_engine_t engine = p->backend->engine;
    const_dnnl_memory_desc_t pad =
        dnnl_primitive_desc_query_md(k->desc, dnnl_query_scratchpad_md, 0);
    size_t bytes = round_up(dnnl_memory_desc_get_size(pad));

    if (dnnl_memory_create(&k->x, o->x_desc, engine, DNNL_MEMORY_NONE) ||
        dnnl_memory_create(&k->y, o->y_desc, engine, DNNL_MEMORY_NONE) ||
        dnnl_memory_create(&k->workspace, pad, engine, DNNL_MEMORY_NONE))
        return -1;
    if (o->bias_desc && !p->bias &&
        dnnl_memory_create(&p->bias, o->bias_desc, engine, DNNL_MEMORY_NONE))
        return -1;
    if (p->residual_index >= 0 &&
        dnnl_memory_create(&k->residual, o->residual_desc, engine, DNNL_MEMORY_NONE))
        return -1;
    if (bytes > p->up_offset)
        p->up_offset = bytes;
    return 0;
}

static void find_bias(struct product *p, struct weight_store *store)
{
    const struct node *n = p->node;
    int64_t *lengths;
    int count = 0;

    p->channels = 0;
    for (int i = 0; i < n->weight_count; i++) {
        p->channels += n->weights[i]->dim[0];
        count += n->biases && n->biases[i];
    }
    if (!count)
        return;
    lengths = mem_alloc((size_t)n->weight_count * sizeof(*lengths));
    for (int i = 0; i < n->weight_count; i++)
        lengths[i] = n->weights[i]->dim[0];
    p->bias_values = store_vector(store, n->biases, lengths, n->weight_count);
    free(lengths);
}

static double operations(const struct product *p, const struct plan *plan)
{
    double weights = 0;

    for (int i = 0; i < p->node->weight_count; i++)
        weights += (double)weight_count(p->node->weights[i]);
    return 2 * weights * (double)shape_rows(&plan->tensors[p->node->out].shape);
}

/* Into how many runs, and each of them into pieces of how many rows. */
static void cut(struct product *p, const struct plan *plan)
{
    const struct node *n = p->node;
    const int64_t *x = plan->tensors[n->in[0]].shape.dim;
    const int64_t *y = plan->tensors[n->out].shape.dim;
    double most = piece_operations(p->backend), all = operations(p, plan), pieces;

    p->runs = n->channel_add >= 0 ? (int)plan->tensors[n->channel_add].shape.dim[0] : 1;
    if (p->kind == KIND_LINEAR) {
        int64_t rows = shape_rows(&plan->tensors[n->out].shape) / p->runs;

        p->window = (struct window){rows, rows, 1, 1, 0, 0, false};
    } else {
        if (all > most)
            p->runs = (int)y[0];
        p->window =
            (struct window){x[1] * (p->kind == KIND_TRANSPOSED ? 1 : n->upsample),
                            y[1],
                            n->weights[0]->dim[2],
                            n->stride,
                            n->pad_top,
                            n->pad_bottom,
                            p->kind == KIND_TRANSPOSED};
    }
    pieces = ceil(all / p->runs / most);
    p->piece_rows = (int64_t)ceil((double)p->window.out / fmax(pieces, 1));
    if (p->piece_rows < p->window.out) /* as kernels like them */
        p->piece_rows = p->kind == KIND_LINEAR ? (p->piece_rows + 63) / 64 * 64
                                               : (p->piece_rows + 1) / 2 * 2;
}

static void find_shape(struct product *p, const struct plan *plan)
{
    const struct node *n = p->node;
    const struct tensor *x = &plan->tensors[n->in[0]], *y = &plan->tensors[n->out];
    size_t size = elem_bytes(elem_of(p->backend, plan, n->in[0]));

    p->x_step = (size_t)(shape_elements(&x->shape) / p->runs) * size;
    p->y_step = (size_t)(shape_elements(&y->shape) / p->runs) *
                elem_bytes(elem_of(p->backend, plan, n->out));
    if (n->residual >= 0)
        p->residual_step = (size_t)(shape_elements(&y->shape) / p->runs) *
                           elem_bytes(elem_of(p->backend, plan, n->residual));
    p->adds_in_place =
        n->residual >= 0 && root_of(plan, n->residual) == root_of(plan, n->out);
    p->residual_index = -1;
    p->x_row = p->x_step / (size_t)p->window.in;
    if (n->upsample == 2 && p->kind == KIND_CONV) {
        p->up_pictures = x->shape.dim[0] / p->runs;
        p->up_h = x->shape.dim[1];
        p->up_w = x->shape.dim[2];
        p->x_row *= 4; /* as upsampled */
    }
    p->y_row = p->y_step / (size_t)p->window.out;
    p->residual_row = p->residual_step / (size_t)p->window.out;
}

static bool can_be_transposed(const struct node *n)
{
    const int64_t *kernel = n->weights[0]->dim;

    return n->op == OP_CONV2D && n->upsample == 2 && kernel[2] == 3 && kernel[3] == 3 &&
           n->pad_top == 1 && n->pad_left == 1 && n->pad_bottom == 1 &&
           n->pad_right == 1;
}

/* Each weight is used once per y pixel; and all of them must come from memory. */
static int find_threads(const struct product *p, const struct plan *plan)
{
    const struct node *n = p->node;
    double weights = 0;

    for (int i = 0; i < n->weight_count; i++)
        weights += (double)weight_count(n->weights[i]);
    return threads_for(p->backend,
                       operations(p, plan) / p->runs / product_rate(p->backend) +
                           weights * (double)p->backend->base.act_bytes / 10e9);
}

/* The one that runs pieces like this; NULL: none yet. */
static struct kernel *find_kernel(const struct product *p, const struct piece *piece)
{
    for (int i = 0; i < p->kernel_count; i++) {
        const struct piece *s = &p->kernels[i].shape;

        if (s->in_count == piece->in_count && s->out_count == piece->out_count &&
            s->pad_before == piece->pad_before && s->pad_after == piece->pad_after)
            return &p->kernels[i];
    }
    return NULL;
}

/* The first one chooses the weights' layout, the others take it. */
static int make_kernel(struct product *p, struct weight_store *store,
                       const struct plan *plan, const struct piece *piece)
{
    struct operands o = {0};
    dnnl_primitive_attr_t attr = NULL;
    struct kernel *k;
    int result = -1;

    p->kernels =
        mem_realloc(p->kernels, (size_t)(p->kernel_count + 1) * sizeof(*p->kernels));
    k = &p->kernels[p->kernel_count++];
    *k = (struct kernel){.shape = *piece};
    if (describe_operands(p, plan, piece, &o) || make_attributes(p, &o, &attr) ||
        make_desc(p, piece, &o,
                  k == p->kernels ? o.weights_desc : weights_of(p->kernels[0].desc),
                  attr, &k->desc))
        goto out;
    if (p->kind == KIND_TRANSPOSED && !strstr(implementation(k->desc), "brg"))
        goto out;
    if (k == p->kernels)
        reuse_layout(p, k, store, &o, attr);
    if (dnnl_primitive_create(&k->primitive, k->desc) || make_memories(p, k, &o))
        goto out;
    result = 0;
out:
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    release_operands(&o);
    return result;
}

/* Everything of one kind; -1 when oneDNN has no kernel (a transposed one must be quick). */
static int build(struct product *p, struct weight_store *store, const struct plan *plan)
{
    const struct node *n = p->node;
    int result = 0;

    cut(p, plan);
    find_shape(p, plan);
    p->threads = find_threads(p, plan);
    p->up_offset = 0;
    omp_set_num_threads(p->threads); /* oneDNN asks OpenMP, now and when it runs */
    for (int64_t row = 0; row < p->window.out && !result; row += p->piece_rows) {
        struct piece piece = piece_of(&p->window, row, p->piece_rows);

        if (!find_kernel(p, &piece))
            result = make_kernel(p, store, plan, &piece);
    }
    omp_set_num_threads(p->backend->threads);
    if (result)
        return -1;
    p->weights = store_weights(store, n->weights, n->weight_count, form_of(p),
                               weights_of(p->kernels[0].desc));
    p->bias_offset = p->up_offset;
    if (p->up_pictures)
        p->bias_offset += round_up(p->x_step * 4);
    p->scratch = p->bias_offset;
    if (n->channel_add >= 0)
        p->scratch += round_up((size_t)p->channels * sizeof(float));
    p->weights_offset = p->scratch;
    p->scratch += round_up(store_values_bytes(p->weights));
    return 0;
}

/* Gives back what oneDNN was asked for. */
static void release(struct product *p)
{
    for (int i = 0; i < p->kernel_count; i++) {
        struct kernel *k = &p->kernels[i];
        dnnl_memory_t memories[] = {k->x, k->y, k->residual, k->workspace};

        for (int m = 0; m < 4; m++)
            if (memories[m])
                dnnl_memory_destroy(memories[m]);
        if (k->primitive)
            dnnl_primitive_destroy(k->primitive);
        if (k->desc)
            dnnl_primitive_desc_destroy(k->desc);
    }
    if (p->bias)
        dnnl_memory_destroy(p->bias);
    free(p->kernels);
    p->kernels = NULL;
    p->kernel_count = 0;
    p->bias = NULL;
}

int product_new(struct product **ret, struct dnnl_backend *b,
                struct weight_store *store, const struct plan *plan,
                const struct node *n, struct err *err)
{
    struct product *p = mem_zalloc(sizeof(*p));
    int failed = 1;

    p->backend = b;
    p->store = store;
    p->node = n;
    find_bias(p, store);
    if (can_be_transposed(n)) {
        p->kind = KIND_TRANSPOSED;
        failed = build(p, store, plan);
        if (failed)
            release(p);
    }
    if (failed) {
        p->kind = n->op == OP_LINEAR ? KIND_LINEAR : KIND_CONV;
        failed = build(p, store, plan);
    }
    if (failed) {
        err_set(err, ERR_UNSUPPORTED, "oneDNN has no kernel for %s of %s",
                graph_op_name(n->op), n->name ? n->name : "a node");
        product_free(p);
        return -1;
    }
    *ret = p;
    return 0;
}

void product_free(struct product *p)
{
    if (!p)
        return;
    release(p);
    free(p);
}

size_t product_scratch(const struct product *p)
{
    return p->scratch;
}

struct packed *product_weights(const struct product *p)
{
    return p->weights;
}

struct packed *product_bias(const struct product *p)
{
    return p->bias_values;
}

const char *product_implementation(const struct product *p)
{
    return implementation(p->kernels[0].desc);
}

/* ---- running ---- */

/* The bias of this run: the file's plus row `run` of channel_add. */
static float *add_up_bias(const struct product *p, const struct run_memory *m, int run,
                          char *scratch)
{
    const struct tensor *row = &m->plan->tensors[p->node->channel_add];
    enum elem type = elem_of(p->backend, m->plan, p->node->channel_add);
    const char *from = run_address(m, p->node->channel_add);
    const float *file = p->bias_values ? p->bias_values->data : NULL;
    float *bias = (float *)(scratch + p->bias_offset);
    int64_t which = row->shape.dim[0] > 1 ? run : 0;

    p->backend->kernels->convert(from + (size_t)(which * row->pitch) * elem_bytes(type),
                                 type, bias, ELEM_F32, p->channels);
    if (file)
        p->backend->kernels->add(bias, file, bias, ELEM_F32, p->channels);
    return bias;
}

/* Where the values of a run lie. */
struct operand_data {
    char *x, *y, *bias, *residual, *workspace;
};

static int execute(struct product *p, const struct piece *piece,
                   const struct operand_data *d)
{
    struct kernel *k = find_kernel(p, piece);
    size_t from = (size_t)piece->out_from;
    dnnl_exec_arg_t args[MAX_ARGS];
    int count = 0, failed = 0;

    failed |=
        dnnl_memory_set_data_handle(k->x, d->x + (size_t)piece->in_from * p->x_row);
    failed |= dnnl_memory_set_data_handle(k->y, d->y + from * p->y_row);
    failed |= dnnl_memory_set_data_handle(k->workspace, d->workspace);
    args[count++] = (dnnl_exec_arg_t){DNNL_ARG_SRC, k->x};
    args[count++] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, p->weights->memory};
    args[count++] = (dnnl_exec_arg_t){DNNL_ARG_DST, k->y};
    args[count++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, k->workspace};
    if (p->bias) {
        failed |= dnnl_memory_set_data_handle(p->bias, d->bias);
        args[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, p->bias};
    }
    if (k->residual) {
        failed |= dnnl_memory_set_data_handle(k->residual,
                                              d->residual + from * p->residual_row);
        args[count++] = (dnnl_exec_arg_t){
            DNNL_ARG_ATTR_MULTIPLE_POST_OP(p->residual_index) | DNNL_ARG_SRC_1,
            k->residual};
    }
    omp_set_num_threads(p->threads);
    failed |= dnnl_primitive_execute(k->primitive, p->backend->stream, count, args);
    failed |= dnnl_stream_wait(p->backend->stream);
    omp_set_num_threads(p->backend->threads);
    return failed ? -1 : 0;
}

/* Asks before each piece but the first of all, which was asked for. */
static int run_pieces(struct product *p, const struct operand_data *d,
                      struct stop *stop, bool is_first, struct err *err)
{
    const struct node *n = p->node;

    for (int64_t row = 0; row < p->window.out; row += p->piece_rows) {
        struct piece piece = piece_of(&p->window, row, p->piece_rows);

        if (!(is_first && row == 0) && stop_ask(stop))
            return err_set(err, ERR_CANCELLED, "cancelled");
        if (execute(p, &piece, d))
            return err_set(err, ERR_INTERNAL, "oneDNN failed to run %s",
                           n->name ? n->name : graph_op_name(n->op));
    }
    return 0;
}

int product_run(struct product *p, const struct run_memory *m, void *scratch,
                struct err *err)
{
    const struct node *n = p->node;
    char *pad = scratch, *x = run_address(m, n->in[0]), *y = run_address(m, n->out);
    char *residual = n->residual >= 0 ? run_address(m, n->residual) : NULL;

    store_values(p->store, p->weights, pad + p->weights_offset);
    for (int run = 0; run < p->runs; run++) {
        struct operand_data d = {.x = x + (size_t)run * p->x_step,
                                 .y = y + (size_t)run * p->y_step,
                                 .workspace = pad};

        if (p->bias_values)
            d.bias = p->bias_values->data;
        if (residual)
            d.residual = residual + (size_t)run * p->residual_step;
        if (n->channel_add >= 0)
            d.bias = (char *)add_up_bias(p, m, run, pad);
        if (p->up_pictures) {
            size_t pixel = p->x_step / (size_t)(p->up_pictures * p->up_h * p->up_w);

            move_upsample2x(d.x, pad + p->up_offset, p->up_pictures, 2 * p->up_h,
                            2 * p->up_w, pixel);
            d.x = pad + p->up_offset;
        }
        if (run_pieces(p, &d, m->stop, run == 0, err))
            return -1;
    }
    return 0;
}

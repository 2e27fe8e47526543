/* graph: the builder. Every function checks that its shapes fit, appends one node and
 * one tensor, and returns the tensor.
 *
 * Shapes come from files, so a misfit is the world's fault and not an assertion: the
 * first one is kept as a sentence that names the weight and both numbers, and from then
 * on every call returns -1 without doing anything. A model builder therefore reads like
 * the paper's diagram, without an `if` per line, and asks once at the end
 * (graph_check). What only our own code can get wrong (a handle out of range, stride 0)
 * is asserted.
 *
 * Sizes: dimensions are at most 2^31 and a tensor at most 2^40 elements, so that later
 * products of counts and element sizes cannot overflow.
 *
 * If you add an operation: GRAPH_OPS, its builder here, graph/ref, graph/dnnl,
 * tests/unit/engine/test_ref.c and, when it can be fused or can work in place, plan.c.
 */
#include "engine/graph/graph.h"

#include "base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MAX_DIM ((int64_t)1 << 31)
#define MAX_ELEMENTS ((int64_t)1 << 40)

struct shape shape1(int64_t a)
{
    return (struct shape){1, {a, 1, 1, 1}};
}

struct shape shape2(int64_t a, int64_t b)
{
    return (struct shape){2, {a, b, 1, 1}};
}

struct shape shape3(int64_t a, int64_t b, int64_t c)
{
    return (struct shape){3, {a, b, c, 1}};
}

struct shape shape4(int64_t n, int64_t h, int64_t w, int64_t c)
{
    return (struct shape){4, {n, h, w, c}};
}

int64_t shape_elements(const struct shape *s)
{
    return s->dim[0] * s->dim[1] * s->dim[2] * s->dim[3];
}

int64_t shape_last(const struct shape *s)
{
    return s->dim[s->rank - 1];
}

int64_t shape_rows(const struct shape *s)
{
    return shape_elements(s) / shape_last(s);
}

static bool shape_equal(const struct shape *a, const struct shape *b)
{
    return a->rank == b->rank && memcmp(a->dim, b->dim, sizeof(a->dim)) == 0;
}

static bool shape_is_sane(const struct shape *s)
{
    int64_t elements = 1;

    for (int i = 0; i < GRAPH_MAX_RANK; i++) {
        if (s->dim[i] < 1 || s->dim[i] > MAX_DIM || elements > MAX_ELEMENTS / s->dim[i])
            return false;
        elements *= s->dim[i];
    }
    return true;
}

const char *graph_op_name(enum graph_op op)
{
    static const char *const names[] = {
#define X(name) #name,
        GRAPH_OPS(X)
#undef X
    };

    assert((unsigned)op < OP_COUNT);
    return names[op];
}

/* ---- storage ---- */

static void *own(struct graph *g, void *p)
{
    if (g->owned_count == g->owned_cap) {
        g->owned_cap = g->owned_cap ? 2 * g->owned_cap : 64;
        g->owned = mem_realloc(g->owned, (size_t)g->owned_cap * sizeof(*g->owned));
    }
    g->owned[g->owned_count++] = p;
    return p;
}

static const char *own_name(struct graph *g, const char *name)
{
    return own(g, mem_strdup(name ? name : ""));
}

struct graph *graph_new(const char *name)
{
    struct graph *g = mem_zalloc(sizeof(*g));

    g->name = own_name(g, name);
    return g;
}

void graph_free(struct graph *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->owned_count; i++)
        free(g->owned[i]);
    free(g->owned);
    free(g->nodes);
    free(g->tensors);
    free(g->inputs);
    free(g->outputs);
    free(g);
}

int graph_check(const struct graph *g, struct err *err)
{
    if (g->err.code == ERR_NONE)
        return 0;
    return err_set(err, g->err.code, "%s", g->err.message);
}

int graph_fail(struct graph *g, const char *format, ...)
{
    char message[sizeof(g->err.message)];
    va_list args;

    if (g->err.code != ERR_NONE)
        return -1;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return err_set(&g->err, ERR_BAD_FILE, "%s", message);
}

const struct shape *graph_shape(const struct graph *g, int x)
{
    assert(x >= 0 && x < g->tensor_count);
    return &g->tensors[x].shape;
}

static const struct weight *const *
own_weights(struct graph *g, const struct weight *const *weights, int count)
{
    const struct weight **copy = mem_alloc((size_t)count * sizeof(*copy));

    memcpy(copy, weights, (size_t)count * sizeof(*copy));
    return own(g, copy);
}

static void append_int(int **list, int *count, int value)
{
    *list = mem_realloc(*list, (size_t)(*count + 1) * sizeof(**list));
    (*list)[(*count)++] = value;
}

static int add_tensor(struct graph *g, const char *name, enum tensor_type type,
                      const struct shape *shape)
{
    if (g->tensor_count == g->tensor_cap) {
        g->tensor_cap = g->tensor_cap ? 2 * g->tensor_cap : 128;
        g->tensors =
            mem_realloc(g->tensors, (size_t)g->tensor_cap * sizeof(*g->tensors));
    }
    g->tensors[g->tensor_count] = (struct tensor){.name = name,
                                                  .shape = *shape,
                                                  .type = type,
                                                  .maker = g->node_count - 1,
                                                  .own = -1,
                                                  .base = -1,
                                                  .pitch = shape_last(shape)};
    return g->tensor_count++;
}

static struct node *add_node(struct graph *g, enum graph_op op, const char *name)
{
    struct node *n;

    if (g->node_count == g->node_cap) {
        g->node_cap = g->node_cap ? 2 * g->node_cap : 128;
        g->nodes = mem_realloc(g->nodes, (size_t)g->node_cap * sizeof(*g->nodes));
    }
    n = &g->nodes[g->node_count++];
    *n = (struct node){.op = op,
                       .name = own_name(g, name),
                       .in = {-1, -1, -1},
                       .out = -1,
                       .residual = -1,
                       .channel_add = -1,
                       .upsample = 1};
    return n;
}

static int finish(struct graph *g, struct node *n, const struct shape *shape)
{
    if (!shape_is_sane(shape))
        return graph_fail(g, "%s: a tensor of %lld x %lld x %lld x %lld is too large",
                          n->name, (long long)shape->dim[0], (long long)shape->dim[1],
                          (long long)shape->dim[2], (long long)shape->dim[3]);
    n->out = add_tensor(g, n->name, TENSOR_ACT, shape);
    return n->out;
}

/* May the operation be added? Handles are our own; -1 comes from an earlier failure. */
static bool is_usable(const struct graph *g, int x)
{
    assert(x < g->tensor_count);
    return g->err.code == ERR_NONE && x >= 0;
}

static void set_input(struct node *n, int x)
{
    assert(n->in_count < GRAPH_MAX_IN);
    n->in[n->in_count++] = x;
}

/* ---- weights ---- */

static int check_weight(struct graph *g, const struct weight *w, const char *name,
                        const char *part)
{
    if (!w)
        return graph_fail(g, "tensor %s.%s is missing", name, part);
    if (weight_count(w) == 0)
        return graph_fail(g, "tensor %s is empty", w->name);
    if (w->type == WEIGHT_OTHER)
        return graph_fail(g, "tensor %s is of a type that is not supported (%s are)",
                          w->name, weight_types_read());
    return 0;
}

static int check_vector(struct graph *g, const struct weight *w, const char *name,
                        const char *part, int64_t length)
{
    if (check_weight(g, w, name, part))
        return -1;
    if (weight_count(w) != (size_t)length || w->rank != 1)
        return graph_fail(g, "tensor %s has %zu values, %lld were expected", w->name,
                          weight_count(w), (long long)length);
    return 0;
}

/* [O, I] or [O, I, 1, 1] against x's channels; a bias that is there must be [O]. */
static int check_matrix(struct graph *g, const struct weight *w, const struct weight *b,
                        const char *name, int64_t channels)
{
    if (check_weight(g, w, name, "weight"))
        return -1;
    if ((w->rank != 2 && w->rank != 4) || w->dim[2] != 1 || w->dim[3] != 1)
        return graph_fail(g, "tensor %s has rank %d, a matrix was expected", w->name,
                          w->rank);
    if (w->dim[1] != channels)
        return graph_fail(g, "tensor %s takes %lld channels, it is given %lld", w->name,
                          (long long)w->dim[1], (long long)channels);
    return b ? check_vector(g, b, name, "bias", w->dim[0]) : 0;
}

/* ---- inputs and outputs ---- */

int graph_input(struct graph *g, const char *name, enum tensor_type type,
                struct shape shape)
{
    struct node *n;

    if (g->err.code != ERR_NONE)
        return -1;
    n = add_node(g, OP_INPUT, name);
    if (finish(g, n, &shape) < 0)
        return -1;
    g->tensors[n->out].type = type;
    append_int(&g->inputs, &g->input_count, n->out);
    return n->out;
}

int graph_output(struct graph *g, const char *name, enum tensor_type type, int x)
{
    struct node *n;
    struct shape shape;

    assert(type != TENSOR_I32);
    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    n = add_node(g, OP_OUTPUT, name);
    set_input(n, x);
    if (finish(g, n, &shape) < 0)
        return -1;
    g->tensors[n->out].type = type;
    append_int(&g->outputs, &g->output_count, g->node_count - 1);
    return g->output_count - 1;
}

/* ---- products ---- */

int graph_linear_joined(struct graph *g, int x, const char *name,
                        const struct weight *const *weights,
                        const struct weight *const *biases, int count)
{
    struct shape shape;
    struct node *n;
    int64_t channels = 0;

    assert(count > 0);
    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    for (int i = 0; i < count; i++) {
        if (check_matrix(g, weights[i], biases ? biases[i] : NULL, name,
                         shape_last(&shape)))
            return -1;
        channels += weights[i]->dim[0];
    }
    n = add_node(g, OP_LINEAR, name);
    set_input(n, x);
    n->weights = own_weights(g, weights, count);
    n->biases = biases ? own_weights(g, biases, count) : NULL;
    n->weight_count = count;
    shape.dim[shape.rank - 1] = channels;
    return finish(g, n, &shape);
}

int graph_linear(struct graph *g, int x, const char *name, const struct weight *w,
                 const struct weight *b)
{
    return graph_linear_joined(g, x, name, &w, &b, 1);
}

void graph_wrap(struct graph *g, bool high, bool wide)
{
    g->wraps_high = high;
    g->wraps_wide = wide;
}

/* The convolution's padding, as far as it is not zeros, as an operation before it. */
static int wrap(struct graph *g, int x, const char *name, struct node *pads)
{
    struct shape shape = *graph_shape(g, x);
    struct node around = *pads;
    struct node *n;

    if (!g->wraps_high)
        around.pad_top = around.pad_bottom = 0;
    if (!g->wraps_wide)
        around.pad_left = around.pad_right = 0;
    pads->pad_top -= around.pad_top;
    pads->pad_bottom -= around.pad_bottom;
    pads->pad_left -= around.pad_left;
    pads->pad_right -= around.pad_right;
    if (around.pad_top + around.pad_bottom + around.pad_left + around.pad_right == 0)
        return x;
    if (around.pad_top > shape.dim[1] || around.pad_bottom > shape.dim[1] ||
        around.pad_left > shape.dim[2] || around.pad_right > shape.dim[2])
        return graph_fail(g, "%s: %lld x %lld is too small to wrap around", name,
                          (long long)shape.dim[1], (long long)shape.dim[2]);
    shape.dim[1] += around.pad_top + around.pad_bottom;
    shape.dim[2] += around.pad_left + around.pad_right;
    n = add_node(g, OP_BORDER, name);
    set_input(n, x);
    n->pad_top = around.pad_top;
    n->pad_bottom = around.pad_bottom;
    n->pad_left = around.pad_left;
    n->pad_right = around.pad_right;
    return finish(g, n, &shape);
}

int graph_conv2d(struct graph *g, int x, const char *name, const struct weight *w,
                 const struct weight *b, const struct conv_args *args)
{
    struct node pads = {.pad_top = args->pad,
                        .pad_left = args->pad,
                        .pad_bottom = args->pad + args->pad_extra_bottom_right,
                        .pad_right = args->pad + args->pad_extra_bottom_right};
    struct shape shape;
    struct node *n;
    int64_t high, wide;

    assert(args->stride > 0 && args->pad >= 0 && args->pad_extra_bottom_right >= 0);
    if (!is_usable(g, x) || check_weight(g, w, name, "weight"))
        return -1;
    shape = *graph_shape(g, x);
    assert(shape.rank == 4);
    if (w->rank != 4)
        return graph_fail(g, "tensor %s has rank %d, 4 was expected", w->name, w->rank);
    if (w->dim[1] != shape.dim[3])
        return graph_fail(g, "tensor %s takes %lld channels, it is given %lld", w->name,
                          (long long)w->dim[1], (long long)shape.dim[3]);
    if (b && check_vector(g, b, name, "bias", w->dim[0]))
        return -1;
    x = wrap(g, x, name, &pads);
    if (x < 0)
        return -1;
    shape = *graph_shape(g, x);
    high = shape.dim[1] + pads.pad_top + pads.pad_bottom - w->dim[2];
    wide = shape.dim[2] + pads.pad_left + pads.pad_right - w->dim[3];
    if (high < 0 || wide < 0)
        return graph_fail(
            g, "tensor %s: a kernel of %lld x %lld does not fit into %lld x %lld",
            w->name, (long long)w->dim[2], (long long)w->dim[3],
            (long long)shape.dim[1], (long long)shape.dim[2]);
    n = add_node(g, OP_CONV2D, name);
    set_input(n, x);
    n->weights = own_weights(g, &w, 1);
    n->biases = b ? own_weights(g, &b, 1) : NULL;
    n->weight_count = 1;
    n->stride = args->stride;
    n->pad_top = pads.pad_top;
    n->pad_left = pads.pad_left;
    n->pad_bottom = pads.pad_bottom;
    n->pad_right = pads.pad_right;
    shape.dim[1] = high / args->stride + 1;
    shape.dim[2] = wide / args->stride + 1;
    shape.dim[3] = w->dim[0];
    return finish(g, n, &shape);
}

/* ---- norms ---- */

static int add_norm(struct graph *g, enum graph_op op, int x, const char *name,
                    const struct weight *gamma, const struct weight *beta)
{
    struct shape shape;
    struct node *n;

    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    if (check_vector(g, gamma, name, "weight", shape_last(&shape)) ||
        check_vector(g, beta, name, "bias", shape_last(&shape)))
        return -1;
    n = add_node(g, op, name);
    set_input(n, x);
    n->weights = own_weights(g, &gamma, 1);
    n->biases = own_weights(g, &beta, 1);
    n->weight_count = 1;
    return finish(g, n, &shape);
}

int graph_group_norm(struct graph *g, int x, const char *name,
                     const struct weight *gamma, const struct weight *beta, int groups,
                     float eps)
{
    int y;

    if (!is_usable(g, x))
        return -1;
    assert(graph_shape(g, x)->rank == 4);
    if (groups < 1 || graph_shape(g, x)->dim[3] % groups)
        return graph_fail(g, "%s: %lld channels do not divide into %d groups", name,
                          (long long)graph_shape(g, x)->dim[3], groups);
    y = add_norm(g, OP_GROUP_NORM, x, name, gamma, beta);
    if (y >= 0) {
        g->nodes[g->node_count - 1].groups = groups;
        g->nodes[g->node_count - 1].eps = eps;
    }
    return y;
}

int graph_layer_norm(struct graph *g, int x, const char *name,
                     const struct weight *gamma, const struct weight *beta, float eps)
{
    int y = add_norm(g, OP_LAYER_NORM, x, name, gamma, beta);

    if (y >= 0)
        g->nodes[g->node_count - 1].eps = eps;
    return y;
}

/* ---- attention ---- */

int graph_attention(struct graph *g, int q, int k, int v, const char *name,
                    const struct attention_args *args)
{
    const struct shape *sq, *sk, *sv;
    struct shape shape;
    struct node *n;

    if (!is_usable(g, q) || !is_usable(g, k) || !is_usable(g, v))
        return -1;
    sq = graph_shape(g, q);
    sk = graph_shape(g, k);
    sv = graph_shape(g, v);
    assert(sq->rank == 3 && sk->rank == 3);
    if (!shape_equal(sk, sv) || sq->dim[0] != sk->dim[0] || sq->dim[2] != sk->dim[2])
        return graph_fail(g, "%s: queries have %lld channels, keys %lld, values %lld",
                          name, (long long)sq->dim[2], (long long)sk->dim[2],
                          (long long)sv->dim[2]);
    if (args->heads < 1 || sq->dim[2] % args->heads)
        return graph_fail(g, "%s: %lld channels do not divide into %d heads", name,
                          (long long)sq->dim[2], args->heads);
    if (args->is_causal && sq->dim[1] != sk->dim[1])
        return graph_fail(g, "%s: causal attention from %lld to %lld positions", name,
                          (long long)sq->dim[1], (long long)sk->dim[1]);
    shape = *sq;
    n = add_node(g, OP_ATTENTION, name);
    set_input(n, q);
    set_input(n, k);
    set_input(n, v);
    n->heads = args->heads;
    n->is_causal = args->is_causal;
    return finish(g, n, &shape);
}

/* ---- element by element ---- */

static int add_unary(struct graph *g, enum graph_op op, const char *name, int x,
                     const struct shape *shape)
{
    struct node *n = add_node(g, op, name);

    set_input(n, x);
    return finish(g, n, shape);
}

int graph_activate(struct graph *g, int x, enum activation act)
{
    struct shape shape;
    int y;

    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    y = add_unary(g, OP_ACTIVATE, "activation", x, &shape);
    if (y >= 0)
        g->nodes[g->node_count - 1].act = act;
    return y;
}

int graph_prelu(struct graph *g, int x, const char *name, const struct weight *slopes)
{
    struct shape shape;
    struct node *n;

    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    if (check_vector(g, slopes, name, "weight", shape_last(&shape)))
        return -1;
    n = add_node(g, OP_PRELU, name);
    set_input(n, x);
    n->weights = own_weights(g, &slopes, 1);
    n->weight_count = 1;
    return finish(g, n, &shape);
}

int graph_geglu(struct graph *g, int x)
{
    struct shape shape;

    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    if (shape_last(&shape) % 2)
        return graph_fail(g, "geglu: %lld channels have no halves",
                          (long long)shape_last(&shape));
    shape.dim[shape.rank - 1] /= 2;
    return add_unary(g, OP_GEGLU, "geglu", x, &shape);
}

int graph_add(struct graph *g, int x, int b)
{
    struct shape shape, other;
    int y;

    if (!is_usable(g, x) || !is_usable(g, b))
        return -1;
    shape = *graph_shape(g, x);
    other = *graph_shape(g, b);
    if (!shape_equal(&shape, &other) &&
        !(shape.rank > 2 && other.rank == 2 && other.dim[1] == shape_last(&shape) &&
          (other.dim[0] == 1 || other.dim[0] == shape.dim[0])))
        return graph_fail(g,
                          "%s cannot be added to %s: %lld and %lld channels, %lld "
                          "and %lld rows",
                          g->tensors[b].name, g->tensors[x].name,
                          (long long)shape_last(&other), (long long)shape_last(&shape),
                          (long long)shape_rows(&other), (long long)shape_rows(&shape));
    y = add_unary(g, OP_ADD, "add", x, &shape);
    if (y >= 0)
        set_input(&g->nodes[g->node_count - 1], b);
    return y;
}

/* ---- moving ---- */

int graph_concat(struct graph *g, int a, int b)
{
    struct shape shape, other;
    int y;

    if (!is_usable(g, a) || !is_usable(g, b))
        return -1;
    shape = *graph_shape(g, a);
    other = *graph_shape(g, b);
    if (shape.rank != other.rank ||
        memcmp(shape.dim, other.dim, (size_t)(shape.rank - 1) * sizeof(shape.dim[0])) !=
            0)
        return graph_fail(g, "%s and %s cannot be joined: they differ in size",
                          g->tensors[a].name, g->tensors[b].name);
    shape.dim[shape.rank - 1] += shape_last(&other);
    y = add_unary(g, OP_CONCAT, "concat", a, &shape);
    if (y >= 0)
        set_input(&g->nodes[g->node_count - 1], b);
    return y;
}

int graph_slice(struct graph *g, int x, int64_t from, int64_t channels)
{
    struct shape shape;
    int y;

    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    assert(from >= 0 && channels > 0);
    if (from > shape_last(&shape) - channels)
        return graph_fail(g, "%s has %lld channels, %lld from %lld on were expected",
                          g->tensors[x].name, (long long)shape_last(&shape),
                          (long long)channels, (long long)from);
    shape.dim[shape.rank - 1] = channels;
    y = add_unary(g, OP_SLICE, "slice", x, &shape);
    if (y >= 0)
        g->nodes[g->node_count - 1].from = from;
    return y;
}

int graph_upsample2x(struct graph *g, int x, int64_t high, int64_t wide)
{
    struct shape shape;

    if (!is_usable(g, x))
        return -1;
    shape = *graph_shape(g, x);
    assert(shape.rank == 4);
    assert((high + 1) / 2 == shape.dim[1] && (wide + 1) / 2 == shape.dim[2]);
    shape.dim[1] = high;
    shape.dim[2] = wide;
    return add_unary(g, OP_UPSAMPLE2X, "upsample", x, &shape);
}

int graph_reshape(struct graph *g, int x, struct shape shape)
{
    if (!is_usable(g, x))
        return -1;
    assert(shape_elements(&shape) == shape_elements(graph_shape(g, x)));
    assert(shape_last(&shape) == shape_last(graph_shape(g, x)));
    return add_unary(g, OP_RESHAPE, "reshape", x, &shape);
}

/* ---- sources ---- */

void graph_own_rows(struct graph *g, int ids, int rows)
{
    if (!is_usable(g, ids) || !is_usable(g, rows))
        return;
    assert(g->tensors[rows].type == TENSOR_F32 && graph_shape(g, rows)->rank == 2);
    g->tensors[ids].own = rows;
}

/* -1, and the graph has failed: they are not as wide as the table. */
static int check_own_rows(struct graph *g, int rows, const struct weight *table)
{
    const struct shape *shape;

    if (rows < 0)
        return 0;
    shape = graph_shape(g, rows);
    if (shape->dim[1] != table->dim[1])
        return graph_fail(g, "tensor %s has %lld channels, the rows behind it %lld",
                          table->name, (long long)table->dim[1],
                          (long long)shape->dim[1]);
    return 0;
}

int graph_embedding(struct graph *g, int ids, const char *name,
                    const struct weight *table, const struct weight *positions)
{
    struct shape shape;
    struct node *n;

    if (!is_usable(g, ids) || check_weight(g, table, name, "weight"))
        return -1;
    shape = *graph_shape(g, ids);
    assert(shape.rank == 2 && g->tensors[ids].type == TENSOR_I32);
    if (table->rank != 2)
        return graph_fail(g, "tensor %s has rank %d, a table was expected", table->name,
                          table->rank);
    if (positions) {
        if (check_weight(g, positions, name, "weight"))
            return -1;
        if (positions->rank != 2 || positions->dim[1] != table->dim[1] ||
            positions->dim[0] < shape.dim[1])
            return graph_fail(g,
                              "tensor %s is %lld x %lld, at least %lld x %lld was "
                              "expected",
                              positions->name, (long long)positions->dim[0],
                              (long long)positions->dim[1], (long long)shape.dim[1],
                              (long long)table->dim[1]);
    }
    if (check_own_rows(g, g->tensors[ids].own, table))
        return -1;
    n = add_node(g, OP_EMBEDDING, name);
    set_input(n, ids);
    if (g->tensors[ids].own >= 0)
        set_input(n, g->tensors[ids].own);
    n->weights = own_weights(g, &table, 1);
    n->biases = own_weights(g, &positions, 1);
    n->weight_count = 1;
    shape = shape3(shape.dim[0], shape.dim[1], table->dim[1]);
    return finish(g, n, &shape);
}

int graph_timestep(struct graph *g, int t, int64_t channels)
{
    struct shape shape;

    if (!is_usable(g, t))
        return -1;
    shape = *graph_shape(g, t);
    assert(shape.rank == 1 && g->tensors[t].type == TENSOR_F32 && channels > 0);
    if (channels % 2)
        return graph_fail(g, "a time embedding of %lld channels has no halves",
                          (long long)channels);
    shape = shape2(shape.dim[0], channels);
    return add_unary(g, OP_TIMESTEP, "timestep", t, &shape);
}

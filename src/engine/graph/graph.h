/* graph: a model as a list of operations, written once and compiled by every back end.
 *
 *   struct graph *g = graph_new("vae decode");
 *   int z = graph_input(g, "latent", TENSOR_F32, shape4(1, 64, 64, 4));
 *   int h = graph_conv2d(g, z, "decoder.conv_in", w, b, &(struct conv_args){.stride = 1, .pad = 1});
 *   graph_output(g, "image", h);
 *   if (graph_check(g, &err)) ...
 *
 * A tensor is an int handle. Layout is channels last throughout: pictures [N, H, W, C],
 * tokens [N, T, C], vectors [N, C]; the last dimension is the fastest and every
 * operation keeps it dense, so a picture is reshaped to tokens without touching memory.
 * Nodes are stored in the order they were made, which is an order they can run in.
 *
 * Values are f32 or the back end's own activation type (TENSOR_ACT: f32 in `ref`, bf16
 * or f32 in `dnnl`); accumulation, statistics of norms and softmax are f32 everywhere.
 *
 * Errors are sticky: an operation whose shapes do not fit (a file's fault, because
 * every size comes from the file) records one sentence and returns -1, every later call
 * with -1 does nothing, and graph_check() reports the first sentence. Weights are
 * borrowed from the weights file, which must stay open while the graph or anything
 * compiled from it lives. One thread at a time.
 *
 * Models write plain operations. What is fused is decided in plan.h, in the fields of
 * struct node marked (plan), in the same way for all back ends. */
#ifndef MYSTI_ENGINE_GRAPH_GRAPH_H
#define MYSTI_ENGINE_GRAPH_GRAPH_H

#include "base/err.h"
#include "engine/files/weights.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRAPH_MAX_RANK 4
#define GRAPH_MAX_IN 3

struct shape {
    int rank;
    int64_t dim[GRAPH_MAX_RANK]; /* unused dimensions are 1 */
};

enum tensor_type {
    TENSOR_ACT, /* the back end's activation type */
    TENSOR_F32,
    TENSOR_I32, /* token ids, only as an input of EMBEDDING */
};

struct tensor {
    const char *name;
    struct shape shape;
    enum tensor_type type;
    int maker; /* node that writes it */
    int own; /* of ids: the rows that go on behind the table, see graph_own_rows(); -1 */
    /* (plan) Where it lies. A tensor with base >= 0 owns no memory: its rows (the last
     * dimension) begin `offset` elements into the rows of `base`, which is never itself
     * a view. `pitch` is the distance between rows in elements; equal to the last
     * dimension when dense. */
    int base;
    int64_t offset;
    int64_t pitch;
};

/* op, what it does. Shapes: x is in[0], y is out. */
#define GRAPH_OPS(X)                                                                     \
    X(INPUT) /* y is bound by the caller; nothing to do unless types differ (see      \
                  backend.h) */  \
    X(OUTPUT) /* x is handed to the caller */                                            \
    X(LINEAR) /* x [.., I] -> y [.., O]; weights [O_k, I] joined over O, see node */     \
    X(CONV2D) /* x [N, H, W, I] -> y [N, H', W', O]; weight [O, I, KH, KW] */            \
    X(GROUP_NORM) /* x [N, H, W, C] */                                                   \
    X(LAYER_NORM) /* x [.., C] over C */                                                 \
    X(ATTENTION)  /* q [N, T, heads*D], k, v [N, S, heads*D] -> y [N, T, heads*D] */     \
    X(ACTIVATE)   /* y = act(x) */                                                       \
    X(PRELU)      /* y = x, below 0 x a[c]: x [.., C], weights[0] is a [C] */            \
    X(GEGLU)      /* x [.., 2C] -> y [.., C] = x[..C] * gelu(x[C..]), exact gelu */      \
    X(ADD) /* y = x + b; b like x, or [1 or N, C] added to every pixel (channel add)   \
            */ \
    X(CONCAT)     /* a [.., A], b [.., B] -> y [.., A+B] */                              \
    X(SLICE)      /* y = x[.., from : from + C] of the last dimension */                 \
    X(UPSAMPLE2X) /* nearest: x [N, H, W, C] -> y [N, H', W', C] = x[h / 2, w / 2]; H' \
                     is 2H or 2H - 1 */ \
    X(BORDER) /* x [N, H, W, C] -> y [N, top + H + bottom, left + W + right, C]: what \
                 lies on the other side (see graph_wrap) */  \
    X(EMBEDDING) /* ids [N, T] i32, table [V, C] -> y [N, T, C]; plus positions [T',  \
                      C], T <= T'; perhaps own rows [R, C] f32: ids V to V + R - 1 */  \
    X(RESHAPE)   /* the same elements under another shape; the last dimension stays */   \
    X(TIMESTEP) /* t [N] f32 -> y [N, C] = cos(t f_i), sin(t f_i), f_i = 10000^(-i /   \
                   (C/2)) */

enum graph_op {
#define X(name) OP_##name,
    GRAPH_OPS(X)
#undef X
        OP_COUNT
};

enum activation {
    ACT_NONE,
    ACT_SILU,       /* x sigmoid(x) */
    ACT_GELU,       /* x/2 (1 + erf(x / sqrt 2)) */
    ACT_GELU_TANH,  /* the tanh approximation */
    ACT_QUICK_GELU, /* x sigmoid(1.702 x) */
    ACT_LEAKY_RELU, /* x, below 0 x/5 */
    ACT_FIFTH,      /* x/5: what a block of ESRGAN adds to its input */
    ACT_RELU,       /* x, below 0 it is 0 */
    ACT_SOFT_CLAMP, /* 3 tanh(x/3): how far TAESD lets a latent go */
    ACT_TO_UNIT,    /* (x + 1)/2: -1..1 to 0..1, where TAESD's pictures are */
    ACT_TO_SIGNED,  /* 2x - 1: back */
};

struct node {
    enum graph_op op;
    const char *name; /* the tensor prefix in the file where there is one: for errors,
                         profiles */
    int in[GRAPH_MAX_IN];
    int in_count;
    int out;

    /* LINEAR: weight_count matrices one below the other, y's channels are theirs in
     * this order. CONV2D: one. Norms: weights[0] is gamma, biases[0] beta. EMBEDDING:
     * weights[0] the table, biases[0] the positions. biases is NULL, or holds NULL,
     * where there is no bias. */
    const struct weight *const *weights;
    const struct weight *const *biases;
    int weight_count;

    int stride;                                   /* CONV2D */
    int pad_top, pad_left, pad_bottom, pad_right; /* CONV2D, BORDER */
    int groups;                                   /* GROUP_NORM */
    float eps;                                    /* norms */
    int heads;                                    /* ATTENTION; scale is 1/sqrt(D) */
    bool is_causal; /* ATTENTION: query i sees keys 0..i */
    int64_t from;   /* SLICE */

    /* ACTIVATE: which; (plan) GROUP_NORM, LINEAR, CONV2D: applied to y last of all */
    enum activation act;
    /* (plan) LINEAR, CONV2D: y = act(x W + bias + channel_add + residual); -1 where
     * absent. residual has y's shape and may share y's memory (then its old value is
     * what is added); channel_add is [1 or N, C], maybe a view, added to every pixel of
     * its picture. */
    int residual;
    int channel_add;
    /* (plan) CONV2D: x is read as if each pixel were upsample x upsample equal ones (1
     * or 2) */
    int upsample;
};

struct graph {
    const char *name;
    struct node *nodes;
    int node_count;
    struct tensor *tensors;
    int tensor_count;
    int *inputs; /* tensors, in the order in which they were declared */
    int input_count;
    int *outputs; /* OUTPUT nodes, in order */
    int output_count;
    struct err err; /* sticky */
    int node_cap, tensor_cap;
    bool wraps_high, wraps_wide;
    void **owned; /* names, arrays of weights */
    int owned_count, owned_cap;
};

struct shape shape1(int64_t a);
struct shape shape2(int64_t a, int64_t b);
struct shape shape3(int64_t a, int64_t b, int64_t c);
struct shape shape4(int64_t n, int64_t h, int64_t w, int64_t c);
int64_t shape_elements(const struct shape *s);
int64_t shape_rows(const struct shape *s); /* elements / last dimension */
int64_t shape_last(const struct shape *s);

struct graph *graph_new(const char *name);
void graph_free(struct graph *g);
/* 0, or -1 with the first sentence any operation recorded (ERR_BAD_FILE). */
int graph_check(const struct graph *g, struct err *err) MUST_CHECK;
/* Records a sentence of the model builder's own ("tensor x is missing"); returns -1. */
int graph_fail(struct graph *g, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

struct conv_args {
    int stride;
    int pad;                    /* on all four sides */
    int pad_extra_bottom_right; /* SD's encoder pads (0,1,0,1): pad 0 and 1 here */
};

/* From here on pictures have no upper and lower, or no left and right border: convolutions see what lies on the other
 * side where they would have seen zeros. For pictures that are laid beside each other. */
void graph_wrap(struct graph *g, bool high, bool wide);

/* TENSOR_F32, TENSOR_ACT or TENSOR_I32: the type of the memory that the caller will
 * bind. */
int graph_input(struct graph *g, const char *name, enum tensor_type type,
                struct shape shape);
/* type: what the caller's memory holds, TENSOR_F32 or TENSOR_ACT. Returns the output's
 * index or -1. */
int graph_output(struct graph *g, const char *name, enum tensor_type type, int x);

/* A weight that is NULL makes the sticky sentence "tensor <name>.weight is missing"; a
 * bias may be NULL. */
int graph_linear(struct graph *g, int x, const char *name, const struct weight *w,
                 const struct weight *b);
/* Several linears of the same input as one product: y [.., sum O_k]. biases NULL: none
 * has one. A conv weight [O, I, 1, 1] is accepted as a matrix. */
int graph_linear_joined(struct graph *g, int x, const char *name,
                        const struct weight *const *weights,
                        const struct weight *const *biases, int count);
int graph_conv2d(struct graph *g, int x, const char *name, const struct weight *w,
                 const struct weight *b, const struct conv_args *args);
int graph_group_norm(struct graph *g, int x, const char *name,
                     const struct weight *gamma, const struct weight *beta, int groups,
                     float eps);
int graph_layer_norm(struct graph *g, int x, const char *name,
                     const struct weight *gamma, const struct weight *beta, float eps);
struct attention_args {
    int heads;
    bool is_causal;
};
int graph_attention(struct graph *g, int q, int k, int v, const char *name,
                    const struct attention_args *args);
int graph_activate(struct graph *g, int x, enum activation act);
/* slopes [C]: what x below 0 is multiplied with in each channel */
int graph_prelu(struct graph *g, int x, const char *name, const struct weight *slopes);
int graph_geglu(struct graph *g, int x);
int graph_add(struct graph *g, int x, int b);
int graph_concat(struct graph *g, int a, int b);
int graph_slice(struct graph *g, int x, int64_t from, int64_t channels);
/* high, wide: 2H or 2H - 1, 2W or 2W - 1 (the size of the skip that an odd level was
 * made from) */
int graph_upsample2x(struct graph *g, int x, int64_t high, int64_t wide);
/* Rows [R, C] f32, an input, for ids that lie behind the table of whatever embedding reads
 * these ids: words that the model was not trained with. */
void graph_own_rows(struct graph *g, int ids, int rows);
int graph_embedding(struct graph *g, int ids, const char *name,
                    const struct weight *table, const struct weight *positions);
int graph_reshape(struct graph *g, int x, struct shape shape);
int graph_timestep(struct graph *g, int t, int64_t channels);

const struct shape *graph_shape(const struct graph *g, int x);
const char *graph_op_name(enum graph_op op);

#endif

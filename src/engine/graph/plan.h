/* plan: what a back end compiles: the graph's nodes after fusing, and where every
 * tensor lies in one arena.
 *
 *   struct plan *p = plan_new(graph, &(struct plan_options){.act_bytes = 2});
 *   ... the back end makes its primitives, asks each how much scratch it wants ...
 *   plan_place(p, scratch);     now p->arena_bytes is the peak of this graph, known before it runs
 *   void *at = plan_address(p, tensor, arena, inputs, outputs);
 *
 * Fusing (PLAN_FUSE, the default), each only when the tensor in between has no other reader:
 *   group_norm, then silu                               -> GROUP_NORM.act
 *   linear or conv2d, then add of a like tensor         -> .residual
 *   linear or conv2d, then add of [1 or N, C]           -> .channel_add
 *   linear or conv2d, then an activation                -> .act
 *   upsample2x to exactly twice the size, then conv2d   -> CONV2D.upsample = 2
 *   linear or conv2d, then an f32 output                -> the tensor between is TENSOR_F32, no
 *                                                          rounding on the way
 *
 * Views instead of copies: reshape always; slice when every reader is an attention or a channel_add.
 * So only ATTENTION's q, k, v and channel_add have to cope with pitch != last dimension.
 *
 * In place, when the input dies there: LINEAR, CONV2D over their residual; ADD, ACTIVATE,
 * GROUP_NORM, LAYER_NORM over in[0]. Then tensors[out].base is that input (or what it is a view of).
 *
 * What the plan leaves: no RESHAPE node, no fused-away node. INPUT nodes stay: a
 * TENSOR_F32 input that is read by anything but TIMESTEP and EMBEDDING gets a second tensor of
 * TENSOR_ACT in the arena (INPUT.out), which the node fills from the bound memory (even
 * where both are f32: the caller's memory is never read twice). For ACT, I32 and
 * their inputs the tensor *is* the bound memory. OUTPUT copies (and converts where
 * types differ) in[0] to the bound memory. */
#ifndef MYSTI_ENGINE_GRAPH_PLAN_H
#define MYSTI_ENGINE_GRAPH_PLAN_H

#include "engine/graph/graph.h"

enum plan_fusing { PLAN_FUSE, PLAN_PLAIN /* tests: every node as written */ };

struct plan_options {
    size_t act_bytes; /* size of one TENSOR_ACT element, 2 or 4 */
    enum plan_fusing fusing;
};

enum plan_place_kind {
    PLACE_ARENA,
    PLACE_INPUT,  /* bound memory of input `slot` */
    PLACE_OUTPUT, /* bound memory of output `slot`: what OUTPUT nodes write (out) */
};

struct plan_tensor_place {
    enum plan_place_kind kind;
    int slot;        /* PLACE_INPUT, PLACE_OUTPUT */
    size_t offset;   /* PLACE_ARENA: bytes, 64-aligned */
    size_t bytes;    /* 0 for views and tensors that were fused away */
    int first, last; /* nodes between which the memory is in use, both included */
};

struct plan {
    struct node *nodes; /* in running order */
    int node_count;
    struct tensor *tensors;
    struct plan_tensor_place *places; /* one per tensor; a view's is its base's */
    int tensor_count;
    int input_count, output_count;
    size_t act_bytes;
    size_t arena_bytes;     /* after plan_place */
    size_t *scratch_offset; /* per node, bytes into the arena, 64-aligned */
    size_t *scratch_bytes;
};

#define PLAN_ALIGN 64

struct plan *plan_new(const struct graph *g, const struct plan_options *options);
void plan_free(struct plan *p);
/* Gives every tensor, and every node's scratch, its place. scratch may be NULL (none
 * wanted). May be called again with other numbers. */
void plan_place(struct plan *p, const size_t *scratch);
/* Where tensor t begins (a view's own beginning). inputs, outputs: the bound memory of
 * the run. */
void *plan_address(const struct plan *p, int t, void *arena, void *const *inputs,
                   void *const *outputs);
size_t plan_element_bytes(const struct plan *p, enum tensor_type type);

#endif

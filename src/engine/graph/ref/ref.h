/* ref: what the files of the reference back end share. Private to graph/ref.
 *
 * Everything is f32. A weight matrix is packed into panels of PANEL output channels:
 * element [k][o] of a panel lies at k * PANEL + o, the last panel is filled up with
 * zeros; a convolution's k runs over (ky, kx, input channel). */
#ifndef MYSTI_ENGINE_GRAPH_REF_REF_H
#define MYSTI_ENGINE_GRAPH_REF_REF_H

#include "engine/graph/backend.h"
#include "engine/graph/ref/pool.h"

enum { PANEL = 16, TILE_ROWS = 32 };

/* One node while it runs. */
struct ref_call {
    const struct plan *plan;
    const struct node *node;
    struct pool *pool;
    void *arena;
    void *const *inputs;
    void *const *outputs;
    float *scratch; /* scratch_floats per thread */
    size_t scratch_floats;
    const float *weights; /* panels, gamma; NULL when the node has none */
    const float *biases;  /* bias, beta; NULL when there is none */
};

float *ref_address(const struct ref_call *call, int tensor);
const struct tensor *ref_tensor(const struct ref_call *call, int tensor);
float ref_activate(enum activation act, float x);

/* Where node i's packed weights lie in its store entry, in floats. */
size_t ref_packed_floats(const struct node *n, size_t *ret_bias_floats);
int ref_pack(const struct node *n, const struct weight_edit *edit, float *weights,
             float *biases, struct err *err);
size_t ref_scratch_floats(const struct plan *p, const struct node *n); /* per thread */

void ref_product(const struct ref_call *call); /* LINEAR, CONV2D */
void ref_attention(const struct ref_call *call);
void ref_group_norm(const struct ref_call *call);
void ref_layer_norm(const struct ref_call *call);
void ref_simple(const struct ref_call *call); /* everything else */

/* Compiled for newer instruction sets too, chosen when the program starts. Sanitizers
 * cannot run before main, where that choice is made; clang does not know these names.
 */
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&    \
    !defined(__SANITIZE_THREAD__)
#define REF_CLONES                                                                     \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define REF_CLONES
#endif

#endif

/* steps: the operations that are not products, bound to the kernels.
 *
 *   bytes = step_scratch(backend, plan, node);
 *   step_vectors(backend, store, node, vectors);   gamma and beta, or slopes, wanted of the store
 *   step_run(backend, node, vectors, memory, scratch, &err);
 */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_STEPS_H
#define MYSTI_ENGINE_GRAPH_DNNL_STEPS_H

#include "engine/graph/dnnl/dnnl_backend.h"
#include "engine/graph/dnnl/store.h"

/* What a norm reads; NULL for the other operations. */
struct step_vectors {
    struct packed *gamma, *beta;
};

size_t step_scratch(const struct dnnl_backend *b, const struct plan *plan,
                    const struct node *n);
struct step_vectors step_vectors(struct weight_store *store, const struct plan *plan,
                                 const struct node *n);
/* Fails for token ids outside the table. */
int step_run(const struct dnnl_backend *b, const struct node *n,
             const struct step_vectors *vectors, const struct run_memory *m,
             void *scratch, struct err *err) MUST_CHECK;

#endif

/* product: a LINEAR or CONV2D node as a oneDNN primitive.
 *
 *   product_new(&p, backend, store, plan, node, &err);    nothing packed, bytes known
 *   ... place p's scratch, pack its weights ...
 *   product_run(p, memory, scratch, &err);
 */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_PRODUCT_H
#define MYSTI_ENGINE_GRAPH_DNNL_PRODUCT_H

#include "engine/graph/dnnl/dnnl_backend.h"
#include "engine/graph/dnnl/store.h"

struct product;

int product_new(struct product **ret_product, struct dnnl_backend *backend,
                struct weight_store *store, const struct plan *plan,
                const struct node *node, struct err *err) MUST_CHECK;
void product_free(struct product *product);
size_t product_scratch(const struct product *product);
struct packed *product_weights(const struct product *product);
struct packed *product_bias(const struct product *product); /* NULL: none */
/* "brg_matmul:avx512_core_amx": which implementation oneDNN chose */
const char *product_implementation(const struct product *product);
int product_run(struct product *product, const struct run_memory *memory, void *scratch,
                struct err *err) MUST_CHECK;

#endif

/* attention_amx: attention in bf16 on Intel's tile registers (AMX), from the fourth Xeon
 * generation on. The same arguments as kernels' attention, type ELEM_BF16 only. */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_ATTENTION_AMX_H
#define MYSTI_ENGINE_GRAPH_DNNL_ATTENTION_AMX_H

#include "engine/graph/dnnl/kernels.h"

/* Asks the system for the tile registers; false: none here, use kernels' attention. */
bool attention_amx_init(void);
size_t attention_amx_scratch(const struct attend_args *a); /* per thread */
void attention_amx(const struct attend_args *a);

#endif

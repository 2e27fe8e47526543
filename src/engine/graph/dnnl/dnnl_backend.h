/* dnnl_backend: what the files of the oneDNN back end share. The back end itself is
 * reached through backend_dnnl (graph/backend.h). */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_DNNL_BACKEND_H
#define MYSTI_ENGINE_GRAPH_DNNL_DNNL_BACKEND_H

#include "engine/graph/backend.h"
#include "engine/graph/dnnl/kernels.h"

#include <oneapi/dnnl/dnnl.h>

#include <omp.h>

struct dnnl_backend {
    struct backend base;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    enum elem act; /* of TENSOR_ACT */
    enum isa isa;
    bool has_amx;
    int threads;
    const struct kernels *kernels;
};

/* Where a run's tensors lie: what a step needs to find its operands. And whether it goes on. */
struct run_memory {
    const struct plan *plan;
    void *arena;
    void *const *inputs;
    void *const *outputs;
    struct stop *stop;
};

static inline void *run_address(const struct run_memory *m, int tensor)
{
    return plan_address(m->plan, tensor, m->arena, m->inputs, m->outputs);
}

/* How many threads for work of about so many seconds on one of them. A thread that waits
 * asleep costs some 50 us to wake and to wait for, several times that on a busy machine: a
 * small model runs four times as fast, for a sixth of the processor time, when its small
 * operations stay where they are. */
static inline int threads_for(const struct dnnl_backend *b, double seconds)
{
    return seconds < 100e-6 ? 1 : b->threads;
}

/* floating-point operations per second of one thread, for estimates */
static inline double product_rate(const struct dnnl_backend *b)
{
    return b->act == ELEM_BF16 ? 500e9 : 50e9;
}

/* The longest piece of an operation: some 0.1 s of all threads on a slow processor. */
static inline double piece_operations(const struct dnnl_backend *b)
{
    if (b->base.options.piece_operations > 0)
        return b->base.options.piece_operations;
    return (b->act == ELEM_BF16 ? 6e9 : 2e9) * b->threads;
}

static inline int dnnl_thread(void)
{
    return omp_get_thread_num();
}

static inline enum elem elem_of(const struct dnnl_backend *b, const struct plan *plan,
                                int tensor)
{
    return plan->tensors[tensor].type == TENSOR_ACT ? b->act : ELEM_F32;
}

static inline int root_of(const struct plan *plan, int tensor)
{
    int base = plan->tensors[tensor].base;

    return base >= 0 ? base : tensor;
}

#endif

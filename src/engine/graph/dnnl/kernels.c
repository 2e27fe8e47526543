#include "engine/graph/dnnl/kernels.h"

#include <math.h>
#include <omp.h>

const struct kernels *kernels_for(enum isa isa)
{
#ifdef MYSTI_DNNL_X86
    if (isa == ISA_AVX512)
        return &kernels_avx512;
    if (isa == ISA_AVX2)
        return &kernels_avx2;
#endif
    (void)isa;
    return &kernels_base;
}

/* Per thread: double sums and squares [2, C], float ones of the running block [2, C],
 * factor and offset [2, C]. */
size_t group_norm_scratch(int64_t channels, int threads)
{
    return (size_t)channels * (size_t)threads * 32;
}

/* Packed keys and values [S, D] each, transposed queries and result [D, 16], a block of
 * scores [64, 16], all f32. */
size_t attention_scratch(const struct attend_args *a)
{
    size_t d = (size_t)a->head_size;
    size_t floats = 2 * (size_t)a->keys * d + 2 * 16 * d + 64 * 16;

    return (floats * 4 + 63) / 64 * 64;
}

struct attention_tasks attention_tasks(const struct attend_args *a,
                                       int64_t queries_at_once)
{
    static const double LONG = 20e9, PART = 1e9; /* operations */
    int64_t heads = a->pictures * a->heads;
    int64_t blocks = (a->queries + queries_at_once - 1) / queries_at_once;
    double of_head = 4.0 * (double)a->queries * (double)a->keys * (double)a->head_size;
    bool is_long = of_head * (double)heads > LONG;
    struct attention_tasks t = {.parts = 1};

    if (heads % a->threads)
        t.parts = (4 * a->threads + heads - 1) / heads;
    if (is_long && (double)t.parts < of_head / PART)
        t.parts = (int64_t)ceil(of_head / PART);
    if (t.parts > blocks)
        t.parts = blocks;
    t.count = heads * t.parts;
    t.chunk = is_long ? 1 : (t.count + a->threads - 1) / a->threads;
    return t;
}

bool attention_goes_on(const struct attend_args *a)
{
    return !(omp_get_thread_num() ? stop_is_set(a->stop) : stop_ask_soon(a->stop));
}

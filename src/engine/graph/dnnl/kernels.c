#include "engine/graph/dnnl/kernels.h"

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

/* kernels_body.h for AVX2 and FMA (x86-64-v3) */
#include "engine/graph/dnnl/kernels.h"

#ifdef MYSTI_DNNL_X86
#define KERNELS kernels_avx2
#include "engine/graph/dnnl/kernels_body.h"
#endif

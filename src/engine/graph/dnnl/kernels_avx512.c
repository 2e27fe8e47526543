/* kernels_body.h for AVX-512 (x86-64-v4) */
#include "engine/graph/dnnl/kernels.h"

#ifdef MYSTI_DNNL_X86
#define KERNELS kernels_avx512
#include "engine/graph/dnnl/kernels_body.h"
#endif

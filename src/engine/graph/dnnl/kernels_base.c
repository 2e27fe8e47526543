/* kernels_body.h for any processor */
#include "engine/graph/dnnl/kernels.h"

#define KERNELS kernels_base
#include "engine/graph/dnnl/kernels_body.h"

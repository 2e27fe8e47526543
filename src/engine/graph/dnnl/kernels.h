/* kernels: the passes over memory that oneDNN has no primitive for, or none as good: norms
 * with their activation, GEGLU, small attention, conversions.
 *
 *   const struct kernels *k = kernels_for(isa);
 *   k->layer_norm(&(struct layer_norm_args){...});
 *
 * The same C is compiled once per instruction set (isa.cmake) and chosen at run time.
 * Everything computes in f32 whatever it reads and writes, takes dense rows unless a
 * pitch is given, and uses the caller's OpenMP threads. Nothing allocates or fails. */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_KERNELS_H
#define MYSTI_ENGINE_GRAPH_DNNL_KERNELS_H

#include "engine/graph/graph.h"
#include "engine/graph/stop.h"

enum elem { ELEM_F32, ELEM_BF16 };

enum isa { ISA_BASE, ISA_AVX2, ISA_AVX512 };

struct group_norm_args {
    const void *x; /* [pictures, pixels, channels] */
    void *y;       /* like x, may be x */
    enum elem type;
    int64_t pictures, pixels, channels;
    int groups;
    float eps;
    const float *gamma, *beta; /* [channels] */
    enum activation act;       /* applied to y */
    int threads;
    void *scratch;     /* group_norm_scratch() bytes, 64-aligned */
    struct stop *stop; /* asked now and then; y is unfinished then */
};

struct layer_norm_args {
    const void *x; /* [rows, channels] */
    void *y;       /* like x, may be x */
    enum elem type;
    int64_t rows, channels;
    float eps;
    const float *gamma, *beta;
};

/* y [N, T, heads * D] = softmax(q k^T / sqrt(D)) v; q [N, T, ..], k and v [N, S, ..] */
struct attend_args {
    const void *q, *k, *v;
    void *y;
    enum elem type;
    int64_t pictures, queries, keys;            /* N, T, S */
    int64_t heads, head_size;                   /* D */
    int64_t q_pitch, k_pitch, v_pitch, y_pitch; /* elements between two tokens */
    bool is_causal;
    int threads;
    void *scratch;     /* threads * ..._attention_scratch() bytes, 64-aligned */
    struct stop *stop; /* asked between two blocks of queries; y is unfinished then */
};

struct kernels {
    void (*group_norm)(const struct group_norm_args *a);
    void (*layer_norm)(const struct layer_norm_args *a);
    void (*activate)(const void *x, void *y, enum elem type, int64_t count,
                     enum activation act);
    /* y [rows, C] = x, below 0 x a[c]; a [C]; y may be x */
    void (*prelu)(const void *x, const float *a, void *y, enum elem type, int64_t rows,
                  int64_t channels);
    /* x [rows, 2C] -> y [rows, C] = x[..C] gelu(x[C..]) */
    void (*geglu)(const void *x, void *y, enum elem type, int64_t rows,
                  int64_t channels);
    /* y = a + b, all of `type`, [count]; y may be a */
    void (*add)(const void *a, const void *b, void *y, enum elem type, int64_t count);
    /* y [rows, C] = a [rows, C] + b [C]; y may be a */
    void (*add_row)(const void *a, const void *b, void *y, enum elem type, int64_t rows,
                    int64_t channels);
    void (*convert)(const void *x, enum elem from, void *y, enum elem to,
                    int64_t count);
    /* one thread's part of the above, for callers that split the work themselves */
    void (*convert_row)(const float *x, void *y, enum elem to, int64_t count);
    /* from IEEE half precision; x need not be aligned */
    void (*convert_half_row)(const void *x, void *y, enum elem to, int64_t count);
    /* the largest magnitude; NaN when one of them is no finite number */
    float (*largest)(const void *x, enum elem type, int64_t count);
    /* one thread's part: q[i] = x[i] / scales[i % line], rounded, where the scale is not 0; line is a multiple of 16 */
    void (*to_bytes)(const void *x, enum elem from, const float *scales, int64_t line,
                     int8_t *q, int64_t count);
    /* and back: y[i] = q[i] scales[i % line] */
    void (*from_bytes)(const int8_t *q, const float *scales, int64_t line, void *y,
                       enum elem to, int64_t count);
    void (*attention)(const struct attend_args *a);
};

extern const struct kernels kernels_base;
#ifdef MYSTI_DNNL_X86
extern const struct kernels kernels_avx2, kernels_avx512;
#endif

const struct kernels *kernels_for(enum isa isa);

size_t group_norm_scratch(int64_t channels, int threads);
size_t attention_scratch(const struct attend_args *a); /* per thread */

/* Attention is cut into tasks, parts of one head's queries. A thread takes `chunk` in a row, because the next part of
 * a head finds its keys packed. What takes long has small parts and no chunks: no thread waits for another then, least of all
 * the one that asks whether to go on. */
struct attention_tasks {
    int64_t parts; /* of a head */
    int64_t count;
    int64_t chunk;
};

struct attention_tasks attention_tasks(const struct attend_args *a,
                                       int64_t queries_at_once);

/* On every thread, between two blocks. */
bool attention_goes_on(const struct attend_args *a);

static inline size_t elem_bytes(enum elem type)
{
    return type == ELEM_BF16 ? 2 : 4;
}

#endif

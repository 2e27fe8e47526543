/* backend: what runs graphs. `ref` (plain C, f32) defines what is right; `dnnl` is the
 * quick one.
 *
 *   backend_open("dnnl", &(struct backend_options){.threads = 2}, &backend, &err);
 *   store = backend->ops->store_new(backend);     packed weights, one store per loaded model
 *   backend->ops->compile(backend, graph, store, &program, &err);
 *                                                 no weights touched yet, bytes known
 *   arena = ... program->arena_bytes, 64-aligned ...
 *   backend->ops->load(program, &err);            packs what the store lacks
 *   backend->ops->run(program, &(struct program_run){...}, &err);
 *
 * Memory: all of a run is store bytes + arena + what the caller binds; a back end
 * allocates nothing that grows with the model or the picture outside of these (scratch
 * goes through plan_place). The arena belongs to the caller and is shared by programs
 * that run one after the other; nothing survives in it between two runs. The graph must
 * outlive the program (weights and names are borrowed).
 *
 * A back end is used by one thread at a time; it may use threads of its own inside a
 * call. */
#ifndef MYSTI_ENGINE_GRAPH_BACKEND_H
#define MYSTI_ENGINE_GRAPH_BACKEND_H

#include "engine/graph/edit.h"
#include "engine/graph/plan.h"
#include "engine/graph/stop.h"

enum backend_precision {
    PRECISION_AUTO, /* the best the back end has for this processor (dnnl: bf16 where it
                       is quick, else f32) */
    PRECISION_F32,
    PRECISION_BF16,
};

struct backend_options {
    int threads; /* 0: all the processor has */
    enum backend_precision precision;
    enum plan_fusing fusing; /* tests compare fused with plain */
    double
        piece_operations; /* tests: the longest piece of an operation (dnnl); 0: as suits the processor */
};

struct backend_ops;

/* Each back end embeds this as its first member. */
struct backend {
    const struct backend_ops *ops;
    size_t act_bytes; /* of TENSOR_ACT; 4 = f32, 2 = bf16 */
    struct backend_options options;
};

/* Packed weights of one model, shared by all its programs; opaque, each back end its
 * own. */
struct weight_store;

/* How matrices and kernels lie in it. Vectors, and networks' first and last layers, are always as they are computed with. */
enum store_weights {
    STORE_AS_COMPUTED,
    STORE_INT8, /* bytes, with a scale for each output; only where has_int8 */
};

/* Each back end embeds this as its first member. */
struct program {
    struct backend *backend;
    const struct graph *graph;
    struct plan *plan;
    size_t arena_bytes;  /* wanted of the caller at run */
    size_t weight_bytes; /* packed weights this program reads */
    size_t other_bytes;  /* kernels, tables: what else the program holds, 0 when
                                    negligible */
};

/* How one run is bound. Pointers are 64-aligned and dense, of the type the graph
 * declares (TENSOR_ACT: backend->act_bytes each). Inputs and outputs do not overlap. */
struct program_run {
    void *arena;
    void *const *inputs;
    void *const *outputs;
    /* Asked before every operation, and in long ones every tenth of a second or so, on the calling thread; true ends
     * the run with ERR_CANCELLED. NULL: never. */
    bool (*is_cancelled)(void *user);
    void (*on_node)(void *user,
                    int node); /* told before each, for measurements; NULL */
    void *user;
};

struct backend_ops {
    const char *name;
    bool has_int8;
    int (*open)(const struct backend_options *options, struct backend **ret_backend,
                struct err *err);
    void (*close)(struct backend *backend);

    struct weight_store *(*store_new)(struct backend *backend,
                                      enum store_weights weights);
    void (*store_free)(struct weight_store *store);
    size_t (*store_bytes)(const struct weight_store *store); /* allocated now */
    /* Lays `edit` over the weights in place of the one before; NULL: none. It is borrowed until the next one. Programs
     * must be loaded again before they run; a load that fails on the way can be tried again, with this edit or another.
     */
    void (*edit)(struct weight_store *store, const struct weight_edit *edit);

    /* Plans the graph, makes what needs no weights; fills program's byte counts. Quick
     * enough to be asked for an estimate. */
    int (*compile)(struct backend *backend, const struct graph *graph,
                   struct weight_store *store, struct program **ret_program,
                   struct err *err);
    /* What load() would add to the store now; 0 once loaded. */
    size_t (*missing_bytes)(const struct program *program);
    /* What load() allocates for a while, at most, when `edit` is laid before it; the edit's own memory is not in it. */
    size_t (*packing_bytes)(const struct program *program,
                            const struct weight_edit *edit);
    /* Packs the weights the store lacks, and those that an edit put out of date. Again: nothing to do. ERR_NO_MEMORY
     * adds nothing to the store. stop: asked before each weight, then ERR_CANCELLED; NULL: nobody is. */
    int (*load)(struct program *program, struct stop *stop, struct err *err);
    /* Gives back the weights that were packed for this program alone; it must be loaded again before it runs. */
    void (*unload)(struct program *program);
    int (*run)(struct program *program, const struct program_run *run, struct err *err);
    void (*program_free)(struct program *program);

    /* out [rows, cols] = a [rows, inner] b [inner, cols], plain f32, for work on the side (LoRAs). NULL: nothing quicker
     * than a plain loop. */
    void (*multiply)(const float *a, int64_t rows, const float *b, int64_t inner,
                     int64_t cols, float *out);
};

/* name: "ref", "dnnl", or NULL for the best that is built in. Unknown: ERR_INVALID
 * naming those there are. */
int backend_open(const char *name, const struct backend_options *options,
                 struct backend **ret_backend, struct err *err) MUST_CHECK;
void backend_close(struct backend *backend);
const char *backend_names(void); /* "dnnl, ref": what is built in */

extern const struct backend_ops backend_ref;
#ifdef MYSTI_HAVE_DNNL
extern const struct backend_ops backend_dnnl; /* defined in graph/dnnl/ */
#endif

#endif

/* dnnl_backend: graphs on the CPU with oneDNN, and our own passes where it has none.
 *
 *   compile: plan -> one step per node (products as primitives, the rest as kernels) ->
 *            scratch of each step into the plan -> every byte known, nothing packed
 *   load:    the weights that the store lacks are packed
 *   run:     step after step; between two steps, and in those that take long: cancelled?
 *
 * Memory: tensors and scratch are the caller's arena (primitives are made with user
 * scratchpads, so oneDNN allocates nothing of its own during a run), weights are the
 * store's. Generated code and descriptors of oneDNN are the rest; the process's growth while
 * compiling is measured and given as other_bytes. oneDNN's cache of primitives shares
 * equal ones between nodes and between programs, so a second compile of the same
 * model grows little.
 *
 * Precision: bf16 with f32 accumulation where the processor multiplies it (avx512_bf16,
 * AMX), else f32; oneDNN's own answer to "which instruction set" is used throughout, so
 * that ONEDNN_MAX_CPU_ISA narrows our kernels too, which is how the tests reach the
 * paths of older processors.
 *
 * Threads: oneDNN is built on OpenMP, and our passes use the same pool: the number is set
 * on the calling thread at every entry, because OpenMP keeps it per thread.
 *
 * Rejected: oneDNN's graph API (it decides on fusing and memory by itself, both of which
 * plan.c must know), blocked activation layouts (channels last frees the borders to
 * attention from reorders). */
#include "engine/graph/dnnl/dnnl_backend.h"

#include "base/mem.h"
#include "engine/graph/dnnl/attention_amx.h"
#include "engine/graph/dnnl/product.h"
#include "engine/graph/dnnl/steps.h"
#include "engine/graph/dnnl/store.h"

#include <assert.h>
#include <malloc.h>
#include <string.h>

struct step {
    const struct node *node;
    struct product *product; /* LINEAR, CONV2D */
    struct step_vectors vectors;
};

struct dnnl_program {
    struct program program;
    struct weight_store *store;
    struct step *steps;
    struct packed **weights; /* wanted by the steps, with repetitions */
    int weight_count;
};

/* ---- the back end ---- */

static enum isa isa_of(dnnl_cpu_isa_t all)
{
#ifdef MYSTI_DNNL_X86
    if ((all & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core)
        return ISA_AVX512;
    if ((all & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2)
        return ISA_AVX2;
#endif
    (void)all;
    return ISA_BASE;
}

static bool has_isa(dnnl_cpu_isa_t all, dnnl_cpu_isa_t wanted)
{
    return (all & wanted) == wanted;
}

static void backend_close_dnnl(struct backend *backend)
{
    struct dnnl_backend *b = (struct dnnl_backend *)backend;

    if (!b)
        return;
    if (b->stream)
        dnnl_stream_destroy(b->stream);
    if (b->engine)
        dnnl_engine_destroy(b->engine);
    free(b);
}

static int backend_open_dnnl(const struct backend_options *options,
                             struct backend **ret_backend, struct err *err)
{
    struct dnnl_backend *b = mem_zalloc(sizeof(*b));
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    bool has_bf16 = has_isa(isa, dnnl_cpu_isa_avx512_core_bf16);

    b->base.ops = &backend_dnnl;
    b->base.options = *options;
    b->threads = options->threads > 0 ? options->threads : omp_get_num_procs();
    b->isa = isa_of(isa);
    b->kernels = kernels_for(b->isa);
    if (options->precision == PRECISION_BF16 && !has_bf16) {
        backend_close_dnnl(&b->base);
        return err_set(err, ERR_UNSUPPORTED,
                       "this processor does not multiply bf16: choose precision f32");
    }
    b->act = has_bf16 && options->precision != PRECISION_F32 ? ELEM_BF16 : ELEM_F32;
    b->base.act_bytes = elem_bytes(b->act);
    b->has_amx = has_isa(isa, dnnl_cpu_isa_avx512_core_amx) && attention_amx_init();
    omp_set_num_threads(b->threads);
    if (dnnl_engine_create(&b->engine, dnnl_cpu, 0) ||
        dnnl_stream_create(&b->stream, b->engine, dnnl_stream_default_flags)) {
        backend_close_dnnl(&b->base);
        return err_set(err, ERR_INTERNAL, "oneDNN does not start on this processor");
    }
    *ret_backend = &b->base;
    return 0;
}

/* ---- compile ---- */

static void program_free(struct program *program)
{
    struct dnnl_program *p = (struct dnnl_program *)program;

    if (!p)
        return;
    for (int i = 0; p->steps && i < p->program.plan->node_count; i++)
        product_free(p->steps[i].product);
    free(p->steps);
    free(p->weights);
    plan_free(p->program.plan);
    free(p);
}

static void want(struct dnnl_program *p, struct packed *item)
{
    if (item)
        p->weights[p->weight_count++] = item;
}

static int make_step(struct dnnl_program *p, int i, size_t *ret_scratch,
                     struct err *err)
{
    struct dnnl_backend *b = (struct dnnl_backend *)p->program.backend;
    const struct plan *plan = p->program.plan;
    struct step *step = &p->steps[i];

    step->node = &plan->nodes[i];
    if (step->node->op == OP_LINEAR || step->node->op == OP_CONV2D) {
        if (product_new(&step->product, b, p->store, plan, step->node, err))
            return -1;
        want(p, product_weights(step->product));
        want(p, product_bias(step->product));
        *ret_scratch = product_scratch(step->product);
        return 0;
    }
    step->vectors = step_vectors(p->store, plan, step->node);
    want(p, step->vectors.gamma);
    want(p, step->vectors.beta);
    *ret_scratch = step_scratch(b, plan, step->node);
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const struct packed *const *x = a, *const *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* Leaves each wanted item once, and counts its bytes. */
static void count_weights(struct dnnl_program *p)
{
    int kept = 0;

    qsort(p->weights, (size_t)p->weight_count, sizeof(struct packed *), by_address);
    for (int i = 0; i < p->weight_count; i++)
        if (kept == 0 || p->weights[kept - 1] != p->weights[i])
            p->weights[kept++] = p->weights[i];
    p->weight_count = kept;
    p->program.weight_bytes = 0;
    for (int i = 0; i < kept; i++)
        p->program.weight_bytes += store_room(p->weights[i]);
}

static size_t missing_bytes(const struct program *program)
{
    const struct dnnl_program *p = (const struct dnnl_program *)program;
    size_t bytes = 0;

    for (int i = 0; i < p->weight_count; i++)
        if (!p->weights[i]->data)
            bytes += store_room(p->weights[i]);
    return bytes;
}

static size_t packing_bytes(const struct program *program,
                            const struct weight_edit *edit)
{
    const struct dnnl_program *p = (const struct dnnl_program *)program;

    return store_packing_bytes(p->store, p->weights, p->weight_count, edit);
}

static size_t heap_bytes(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

static int compile(struct backend *backend, const struct graph *graph,
                   struct weight_store *store, struct program **ret_program,
                   struct err *err)
{
    struct dnnl_backend *b = (struct dnnl_backend *)backend;
    struct dnnl_program *p = mem_zalloc(sizeof(*p));
    size_t heap = heap_bytes(), count, *scratch;

    omp_set_num_threads(b->threads);
    p->store = store;
    p->program.backend = backend;
    p->program.graph = graph;
    p->program.plan = plan_new(
        graph, &(struct plan_options){backend->act_bytes, backend->options.fusing});
    count = (size_t)p->program.plan->node_count;
    p->steps = mem_zalloc(count * sizeof(*p->steps));
    p->weights = mem_alloc(count * 2 * sizeof(struct packed *));
    scratch = mem_zalloc(count * sizeof(*scratch));
    for (size_t i = 0; i < count; i++) {
        if (make_step(p, (int)i, &scratch[i], err)) {
            free(scratch);
            program_free(&p->program);
            return -1;
        }
    }
    plan_place(p->program.plan, scratch);
    free(scratch);
    p->program.arena_bytes = p->program.plan->arena_bytes;
    count_weights(p);
    p->program.other_bytes = heap_bytes() > heap ? heap_bytes() - heap : 0;
    *ret_program = &p->program;
    return 0;
}

/* ---- load and run ---- */

static int load(struct program *program, struct stop *stop, struct err *err)
{
    struct dnnl_program *p = (struct dnnl_program *)program;
    struct dnnl_backend *b = (struct dnnl_backend *)program->backend;

    omp_set_num_threads(b->threads);
    return store_pack(p->store, p->weights, p->weight_count, stop, err);
}

static void unload(struct program *program)
{
    struct dnnl_program *p = (struct dnnl_program *)program;

    store_unpack(p->store, p->weights, p->weight_count);
}

static int run(struct program *program, const struct program_run *run, struct err *err)
{
    struct dnnl_program *p = (struct dnnl_program *)program;
    struct dnnl_backend *b = (struct dnnl_backend *)program->backend;
    const struct plan *plan = program->plan;
    struct stop stop = {.is_cancelled = run->is_cancelled, .user = run->user};
    struct run_memory memory = {plan, run->arena, run->inputs, run->outputs, &stop};

    assert(missing_bytes(program) == 0);
    omp_set_num_threads(b->threads);
    for (int i = 0; i < plan->node_count; i++) {
        struct step *s = &p->steps[i];
        void *scratch = (char *)run->arena + plan->scratch_offset[i];

        if (run->on_node)
            run->on_node(run->user, i);
        if (stop_ask(&stop))
            return err_set(err, ERR_CANCELLED, "cancelled");
        if (s->product) {
            if (product_run(s->product, &memory, scratch, err))
                return -1;
        } else if (step_run(b, s->node, &s->vectors, &memory, scratch, err)) {
            return -1;
        }
    }
    return 0;
}

static void multiply(const float *a, int64_t rows, const float *b, int64_t inner,
                     int64_t cols, float *out)
{
    (void)dnnl_sgemm('N', 'N', rows, cols, inner, 1, a, inner, b, cols, 0, out, cols);
}

const struct backend_ops backend_dnnl = {
    .name = "dnnl",
    .has_int8 = true,
    .open = backend_open_dnnl,
    .close = backend_close_dnnl,
    .store_new = store_new,
    .store_free = store_free,
    .store_bytes = store_bytes,
    .edit = store_edit,
    .compile = compile,
    .missing_bytes = missing_bytes,
    .packing_bytes = packing_bytes,
    .load = load,
    .unload = unload,
    .run = run,
    .program_free = program_free,
    .multiply = multiply,
};

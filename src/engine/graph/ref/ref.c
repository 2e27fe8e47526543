/* ref: the back end that defines what is right. Plain C, f32 throughout, and still
 * quick enough to draw the starter's pictures: the only blocking is in product.c.
 *
 * A store keeps each node's weights packed once, keyed by the first weight, its bias
 * and how many are joined: two programs of one model (another size, another batch) read
 * the same entry. The embedding table is not packed: 77 rows of 49,408 are read per
 * prompt, straight from the mapped file. Whatever an edit touches leaves the store, and
 * the next load packs it anew.
 *
 * A program is the plan and, per node, its store entry. The only scratch is per thread
 * (a gathered tile, a row of scores) and lies in the arena, so the arena and the store
 * are all the memory there is. */
#include "engine/graph/ref/ref.h"

#include "base/mem.h"

#include <assert.h>
#include <unistd.h>

struct entry {
    const struct weight *
        *sources; /* [2 count]: the weights, then their biases or NULL */
    int count;
    float *weights;
    float *biases;
    size_t bytes;
    bool is_edited;
};

struct weight_store {
    struct entry *entries;
    size_t count, cap, bytes;
    const struct weight_edit *edit; /* borrowed; NULL: none */
};

struct ref_backend {
    struct backend base;
    struct pool *pool;
};

struct ref_program {
    struct program base;
    struct weight_store *store;
};

/* ---- back end and store ---- */

static int ref_open(const struct backend_options *options, struct backend **ret_backend,
                    struct err *err)
{
    struct ref_backend *b = mem_zalloc(sizeof(*b));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = options->threads > 0 ? options->threads : cores > 0 ? (int)cores : 1;

    b->base = (struct backend){&backend_ref, sizeof(float), *options};
    b->base.options.precision = PRECISION_F32;
    if (options->precision == PRECISION_BF16) {
        free(b);
        return err_set(err, ERR_INVALID, "the back end 'ref' computes in f32 only");
    }
    if (pool_new(&b->pool, threads, err)) {
        free(b);
        return -1;
    }
    *ret_backend = &b->base;
    return 0;
}

static void ref_close(struct backend *backend)
{
    struct ref_backend *b = (struct ref_backend *)backend;

    if (!b)
        return;
    pool_free(b->pool);
    free(b);
}

static struct weight_store *ref_store_new(struct backend *backend,
                                          enum store_weights weights)
{
    (void)backend;
    assert(weights == STORE_AS_COMPUTED);
    (void)weights;
    return mem_zalloc(sizeof(struct weight_store));
}

static void entry_release(struct entry *e)
{
    free(e->sources);
    free(e->weights);
    free(e->biases);
}

static void ref_store_free(struct weight_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < store->count; i++)
        entry_release(&store->entries[i]);
    free(store->entries);
    free(store);
}

static size_t ref_store_bytes(const struct weight_store *store)
{
    return store->bytes;
}

static const struct weight *first_bias(const struct node *n)
{
    return n->biases ? n->biases[0] : NULL;
}

static const struct entry *find(const struct weight_store *store, const struct node *n)
{
    for (size_t i = 0; i < store->count; i++)
        if (store->entries[i].count == n->weight_count &&
            store->entries[i].sources[0] == n->weights[0] &&
            store->entries[i].sources[n->weight_count] == first_bias(n))
            return &store->entries[i];
    return NULL;
}

static const struct weight **sources_of(const struct node *n)
{
    size_t count = (size_t)n->weight_count;
    const struct weight **sources = mem_zalloc(2 * count * sizeof(*sources));

    for (size_t i = 0; i < count; i++) {
        sources[i] = n->weights[i];
        sources[count + i] = n->biases ? n->biases[i] : NULL;
    }
    return sources;
}

static float *zero_floats(size_t count)
{
    size_t bytes = (count * sizeof(float) + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;

    return mem_try_zalloc(bytes, 1);
}

static int pack(struct weight_store *store, const struct node *n, struct err *err)
{
    struct entry e = {.count = n->weight_count};
    size_t bias_floats, floats = ref_packed_floats(n, &bias_floats);

    e.bytes = (floats + bias_floats) * sizeof(float);
    e.weights = zero_floats(floats);
    e.biases = bias_floats ? zero_floats(bias_floats) : NULL;
    if (!e.weights || (bias_floats && !e.biases)) {
        entry_release(&e);
        return err_set(err, ERR_NO_MEMORY,
                       "no memory for the weights of %s (%zu bytes)", n->name, e.bytes);
    }
    if (ref_pack(n, store->edit, e.weights, e.biases, err)) {
        entry_release(&e);
        return -1;
    }
    e.sources = sources_of(n);
    e.is_edited = edit_touches(store->edit, e.sources, 2 * e.count);
    if (store->count == store->cap) {
        store->cap = store->cap ? 2 * store->cap : 256;
        store->entries =
            mem_realloc(store->entries, store->cap * sizeof(*store->entries));
    }
    store->entries[store->count++] = e;
    store->bytes += e.bytes;
    return 0;
}

/* ---- edits ---- */

static bool is_in_the_way(const struct entry *e, const struct weight_edit *edit)
{
    return e->is_edited || edit_touches(edit, e->sources, 2 * e->count);
}

static void ref_edit(struct weight_store *store, const struct weight_edit *edit)
{
    size_t kept = 0;

    for (size_t i = 0; i < store->count; i++) {
        struct entry *e = &store->entries[i];

        if (is_in_the_way(e, edit)) {
            store->bytes -= e->bytes;
            entry_release(e);
        } else {
            store->entries[kept++] = *e;
        }
    }
    store->count = kept;
    store->edit = edit;
}

/* ---- programs ---- */

static size_t packed_bytes(const struct node *n)
{
    size_t biases, floats = ref_packed_floats(n, &biases);

    return (floats + biases) * sizeof(float);
}

static void count_weights(struct ref_program *r)
{
    const struct plan *plan = r->base.plan;

    r->base.weight_bytes = 0;
    for (int i = 0; i < plan->node_count; i++)
        r->base.weight_bytes += packed_bytes(&plan->nodes[i]);
}

static size_t missing_bytes(const struct program *program)
{
    const struct ref_program *r = (const struct ref_program *)program;
    const struct plan *plan = program->plan;
    size_t bytes = 0;

    for (int i = 0; i < plan->node_count; i++)
        if (!find(r->store, &plan->nodes[i]))
            bytes += packed_bytes(&plan->nodes[i]);
    return bytes;
}

/* A weight that is made anew in f32, and a row of it. */
static size_t packing_bytes_of(const struct node *n, const struct weight_edit *edit)
{
    size_t most = 0, row;

    for (int i = 0; i < n->weight_count; i++) {
        size_t count = weight_count(n->weights[i]);

        row = count / (size_t)n->weights[i]->dim[0];
        count = (edit_touches(edit, &n->weights[i], 1) ? count : 0) + row;
        most = count > most ? count : most;
    }
    return most * sizeof(float);
}

static size_t packing_bytes(const struct program *program,
                            const struct weight_edit *edit)
{
    const struct ref_program *r = (const struct ref_program *)program;
    const struct plan *plan = program->plan;
    size_t most = 0;

    for (int i = 0; i < plan->node_count; i++) {
        const struct node *n = &plan->nodes[i];
        const struct entry *e;
        size_t bytes;

        if (!packed_bytes(n) || ((e = find(r->store, n)) && !is_in_the_way(e, edit)))
            continue;
        bytes = packing_bytes_of(n, edit);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static int ref_compile(struct backend *backend, const struct graph *graph,
                       struct weight_store *store, struct program **ret_program,
                       struct err *err)
{
    struct ref_backend *b = (struct ref_backend *)backend;
    struct ref_program *r;
    struct plan *plan;
    size_t *scratch;

    if (graph_check(graph, err))
        return -1;
    plan = plan_new(graph, &(struct plan_options){.act_bytes = sizeof(float),
                                                  .fusing = backend->options.fusing});
    scratch = mem_zalloc((size_t)plan->node_count * sizeof(*scratch));
    for (int i = 0; i < plan->node_count; i++)
        scratch[i] = ref_scratch_floats(plan, &plan->nodes[i]) * sizeof(float) *
                     (size_t)pool_threads(b->pool);
    plan_place(plan, scratch);
    free(scratch);
    r = mem_zalloc(sizeof(*r));
    r->base = (struct program){.backend = backend,
                               .graph = graph,
                               .plan = plan,
                               .arena_bytes = plan->arena_bytes};
    r->store = store;
    count_weights(r);
    *ret_program = &r->base;
    return 0;
}

static int ref_load(struct program *program, struct stop *stop, struct err *err)
{
    struct ref_program *r = (struct ref_program *)program;

    for (int i = 0; i < program->plan->node_count; i++) {
        const struct node *n = &program->plan->nodes[i];
        size_t biases;

        if (!ref_packed_floats(n, &biases) || find(r->store, n))
            continue;
        if (stop && stop_ask(stop))
            return err_set(err, ERR_CANCELLED, "the job was cancelled");
        if (pack(r->store, n, err))
            return -1;
    }
    return 0;
}

/* Each program's weights are entries of their own. */
static void ref_unload(struct program *program)
{
    struct ref_program *r = (struct ref_program *)program;

    for (int i = 0; i < program->plan->node_count; i++) {
        const struct node *n = &program->plan->nodes[i];
        const struct entry *found;
        size_t biases;

        if (!ref_packed_floats(n, &biases) || !(found = find(r->store, n)))
            continue;
        struct entry *e = &r->store->entries[found - r->store->entries];

        r->store->bytes -= e->bytes;
        entry_release(e);
        *e = r->store->entries[--r->store->count];
    }
}

static void ref_program_free(struct program *program)
{
    if (!program)
        return;
    plan_free(program->plan);
    free(program);
}

/* ---- running ---- */

float *ref_address(const struct ref_call *call, int tensor)
{
    return plan_address(call->plan, tensor, call->arena, call->inputs, call->outputs);
}

const struct tensor *ref_tensor(const struct ref_call *call, int tensor)
{
    return &call->plan->tensors[tensor];
}

static void run_node(const struct ref_call *call)
{
    switch (call->node->op) {
    case OP_LINEAR:
    case OP_CONV2D:
        ref_product(call);
        break;
    case OP_GROUP_NORM:
        ref_group_norm(call);
        break;
    case OP_LAYER_NORM:
        ref_layer_norm(call);
        break;
    case OP_ATTENTION:
        ref_attention(call);
        break;
    default:
        ref_simple(call);
    }
}

static int run_nodes(struct program *program, const struct program_run *run,
                     struct stop *stop, struct err *err)
{
    struct ref_program *r = (struct ref_program *)program;
    struct ref_backend *b = (struct ref_backend *)program->backend;
    const struct plan *plan = program->plan;

    for (int i = 0; i < plan->node_count; i++) {
        const struct node *n = &plan->nodes[i];
        struct ref_call call = {.plan = plan,
                                .node = n,
                                .pool = b->pool,
                                .arena = run->arena,
                                .inputs = run->inputs,
                                .outputs = run->outputs};
        size_t biases;

        if (run->on_node)
            run->on_node(run->user, i);
        if (stop_ask(stop))
            break;
        if (ref_packed_floats(n, &biases)) {
            const struct entry *e = find(r->store, n);

            if (!e)
                return err_set(err, ERR_INTERNAL,
                               "%s runs before its weights are loaded", n->name);
            call.weights = e->weights;
            call.biases = e->biases;
        }
        if (plan->scratch_bytes[i]) {
            call.scratch = (float *)((char *)run->arena + plan->scratch_offset[i]);
            call.scratch_floats = ref_scratch_floats(plan, n);
        }
        run_node(&call);
    }
    return stop_is_set(stop) ? err_set(err, ERR_CANCELLED, "the job was cancelled") : 0;
}

static int ref_run(struct program *program, const struct program_run *run,
                   struct err *err)
{
    struct pool *pool = ((struct ref_backend *)program->backend)->pool;
    struct stop stop = {.is_cancelled = run->is_cancelled, .user = run->user};
    int result;

    pool_watch(pool, &stop);
    result = run_nodes(program, run, &stop, err);
    pool_watch(pool, NULL);
    return result;
}

const struct backend_ops backend_ref = {
    .name = "ref",
    .open = ref_open,
    .close = ref_close,
    .store_new = ref_store_new,
    .store_free = ref_store_free,
    .store_bytes = ref_store_bytes,
    .edit = ref_edit,
    .compile = ref_compile,
    .missing_bytes = missing_bytes,
    .packing_bytes = packing_bytes,
    .load = ref_load,
    .unload = ref_unload,
    .run = ref_run,
    .program_free = ref_program_free,
};

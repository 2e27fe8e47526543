/* bench_engine: what one denoise step and one decode of a checkpoint cost, in seconds and in bytes.
 *
 *   bench_engine CHECKPOINT [--size 512] [--steps 7] [--threads 0] [--batch 2] [--backend dnnl]
 *                [--precision auto|f32|bf16] [--weights auto|int8] [--decodes 3] [--profile]
 *
 * One line of JSON. A step is one evaluation of the U-Net on a batch of two (cond and uncond); the first one, which
 * touches fresh memory, is not counted. Predicted bytes are what the programs said before anything was packed;
 * measured growth is RssAnon of the process around everything they were made for. cpu: seconds of all threads together, the
 * least of the runs, which wander less than the clock's when the machine is shared. --profile: where the time of a step
 * and of a decode goes, by operation, to stderr. */
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"
#include "engine/family.h"
#include "engine/graph/backend.h"
#include "engine/vae/vae.h"

#include "rss.h"

#include <sys/mman.h>
#include <time.h>

/* TENSORS_MAX: SDXL has 70 cross-attentions */
enum { MAX_RUNS = 200, MAX_NODES = 16384, TOKENS = 77, TENSORS_MAX = 128 };

struct settings {
    const char *path, *backend, *precision, *weights;
    int64_t size, steps, threads, batch, decodes;
    bool profile;
};

struct model {
    struct graph *graph;
    struct program *program;
    void *inputs[TENSORS_MAX], *outputs[TENSORS_MAX];
};

struct bench {
    struct settings settings;
    struct backend *backend;
    struct weight_store *store, *unet_store;
    struct weights_file *file;
    struct model context, step, decoder;
    size_t bound_bytes;
    void *arena;
    uint64_t at[MAX_NODES + 1]; /* when the operations of the last run began */
    int at_count;
    double cpu; /* seconds of all threads in the last run */
};

static void die(const struct err *err)
{
    fprintf(stderr, "bench_engine: %s\n", err->message);
    exit(1);
}

static void *pages(struct bench *b, size_t bytes)
{
    void *p = mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);

    if (p == MAP_FAILED)
        die(&(struct err){.message = "no memory"});
    madvise(p, bytes + 1, MADV_HUGEPAGE);
    b->bound_bytes += bytes;
    return p;
}

/* Memory for what the caller binds, filled with small numbers. */
static void *bound(struct bench *b, const struct tensor *t)
{
    size_t n = (size_t)shape_elements(&t->shape);
    size_t size = t->type == TENSOR_ACT ? b->backend->act_bytes : 4;
    unsigned char *p = pages(b, n * size);

    if (t->type == TENSOR_F32)
        for (size_t i = 0; i < n; i++)
            ((float *)p)[i] = (float)((i * 2654435761u >> 7) % 1000) / 500.0f - 1.0f;
    return p;
}

static void compile(struct bench *b, struct model *m)
{
    struct err err = {0};

    if (graph_check(m->graph, &err) ||
        b->backend->ops->compile(b->backend, m->graph,
                                 m == &b->decoder ? b->store : b->unet_store,
                                 &m->program, &err))
        die(&err);
}

static void bind(struct bench *b, struct model *m, int first_input)
{
    for (int i = first_input; i < m->graph->input_count; i++)
        m->inputs[i] = bound(b, &m->graph->tensors[m->graph->inputs[i]]);
    for (int i = 0; i < m->graph->output_count; i++)
        m->outputs[i] =
            bound(b, &m->graph->tensors[m->graph->nodes[m->graph->outputs[i]].out]);
}

static void note_time(void *user, int node)
{
    struct bench *b = user;

    (void)node;
    if (b->at_count < MAX_NODES)
        b->at[b->at_count++] = clock_ns();
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double run(struct bench *b, struct model *m)
{
    struct err err = {0};
    struct program_run r = {.arena = b->arena,
                            .inputs = m->inputs,
                            .outputs = m->outputs,
                            .on_node = note_time,
                            .user = b};
    double cpu = cpu_seconds();
    uint64_t from = clock_ns();

    b->at_count = 0;
    if (b->backend->ops->run(m->program, &r, &err))
        die(&err);
    b->at[b->at_count] = clock_ns();
    b->cpu = cpu_seconds() - cpu;
    return (double)(b->at[b->at_count] - from) * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* of several runs, the first not counted */
struct times {
    double median, best, cpu_best;
};

static struct times measure_runs(struct bench *b, struct model *m, int64_t runs)
{
    double seconds[MAX_RUNS] = {0};
    struct times t = {0};

    run(b, m);
    for (int64_t i = 0; i < runs; i++) {
        seconds[i] = run(b, m);
        if (i == 0 || b->cpu < t.cpu_best)
            t.cpu_best = b->cpu;
    }
    qsort(seconds, (size_t)runs, sizeof(*seconds), by_value);
    t.best = seconds[0];
    t.median = seconds[runs / 2];
    return t;
}

/* ---- where the time goes ---- */

struct cost {
    char what[96];
    double seconds;
    int count;
};

static int by_seconds(const void *a, const void *b)
{
    const struct cost *x = a, *y = b;

    return x->seconds < y->seconds ? 1 : -1;
}

static void add_cost(struct cost *costs, int *count, const char *what, double seconds)
{
    int i = 0;

    while (i < *count && strcmp(costs[i].what, what))
        i++;
    if (i == *count) {
        snprintf(costs[i].what, sizeof(costs[i].what), "%s", what);
        (*count)++;
    }
    costs[i].seconds += seconds;
    costs[i].count++;
}

static void print_costs(const struct bench *b, const struct model *m)
{
    static struct cost costs[MAX_NODES];
    const struct plan *p = m->program->plan;
    int count = 0;

    memset(costs, 0, sizeof(costs));
    for (int i = 0; i < b->at_count; i++) {
        const struct node *n = &p->nodes[i];
        const int64_t *x = p->tensors[n->in_count ? n->in[0] : n->out].shape.dim;
        const int64_t *y = p->tensors[n->out].shape.dim;
        double seconds = (double)(b->at[i + 1] - b->at[i]) * 1e-9;
        char what[96];

        add_cost(costs, &count, graph_op_name(n->op), seconds);
        snprintf(what, sizeof(what),
                 "  %s %lldx%lldx%lldx%lld -> %lldx%lldx%lldx%lld%s",
                 graph_op_name(n->op), (long long)x[0], (long long)x[1],
                 (long long)x[2], (long long)x[3], (long long)y[0], (long long)y[1],
                 (long long)y[2], (long long)y[3], n->residual >= 0 ? " +" : "");
        add_cost(costs, &count, what, seconds);
    }
    qsort(costs, (size_t)count, sizeof(*costs), by_seconds);
    fprintf(stderr, "%s:\n", m->graph->name);
    for (int i = 0; i < count && i < 60; i++)
        fprintf(stderr, "%9.2f ms %4d %s\n", costs[i].seconds * 1e3, costs[i].count,
                costs[i].what);
}

/* ---- the three graphs ---- */

static struct build new_graph(struct bench *b, struct model *m, const char *name)
{
    m->graph = graph_new(name);
    return (struct build){.graph = m->graph, .file = b->file};
}

static void build_graphs(struct bench *b)
{
    struct err err = {0};
    const char *heads = weights_file_meta(b->file, "mysti.unet_heads");
    const struct family *family;
    struct unet_heads unet_heads;
    int context, label = -1;
    struct unet *unet;
    struct vae vae;
    struct build g;

    if (family_find(&family, b->file, &err))
        die(&err);
    unet_heads = family->heads;
    if (heads)
        unet_heads.count = (int)strtol(heads, NULL, 10);
    if (unet_open(&unet, b->file, unet_heads, &err) || vae_open(&vae, b->file, &err))
        die(&err);
    int64_t latent = b->settings.size / vae.scale;
    g = new_graph(b, &b->context, "context");
    context = graph_input(g.graph, "context", TENSOR_F32,
                          shape3(b->settings.batch, TOKENS, unet_context_width(unet)));
    if (unet_label_width(unet))
        label = graph_input(g.graph, "label", TENSOR_F32,
                            shape2(b->settings.batch, unet_label_width(unet)));
    unet_build_context(unet, &g, context, label);
    g = new_graph(b, &b->step, "step");
    unet_build_step(unet, &g,
                    &(struct unet_size){b->settings.batch, latent, latent, TOKENS});
    g = new_graph(b, &b->decoder, "decode");
    vae_build_decoder(&vae, &g, 1, latent, latent);
    unet_free(unet);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void measure(struct bench *b)
{
    struct model *all[] = {&b->context, &b->step, &b->decoder};
    size_t before = rss_bytes("RssAnon:"), predicted, arena = 0, other = 0, weights = 0;
    struct err err = {0};
    struct times step, decode;
    uint64_t from = clock_ns(), compiled, loaded;

    build_graphs(b);
    for (int i = 0; i < 3; i++) {
        compile(b, all[i]);
        arena = larger(arena, all[i]->program->arena_bytes);
        weights += b->backend->ops->missing_bytes(all[i]->program);
        other += all[i]->program->other_bytes;
    }
    compiled = clock_ns();
    for (int i = 0; i < 3; i++)
        if (b->backend->ops->load(all[i]->program, NULL, &err))
            die(&err);
    weights_file_forget(b->file);
    loaded = clock_ns();
    b->arena = pages(b, arena);
    b->bound_bytes -= arena;
    bind(b, &b->context, 0);
    for (int i = 0; i < b->context.graph->output_count; i++)
        b->step.inputs[2 + i] = b->context.outputs[i];
    b->step.inputs[0] = bound(b, &b->step.graph->tensors[b->step.graph->inputs[0]]);
    b->step.inputs[1] = bound(b, &b->step.graph->tensors[b->step.graph->inputs[1]]);
    bind(b, &b->step, b->step.graph->input_count);
    bind(b, &b->decoder, 0);
    predicted = weights + arena + other + b->bound_bytes;

    run(b, &b->context);
    step = measure_runs(b, &b->step, b->settings.steps);
    if (b->settings.profile)
        print_costs(b, &b->step);
    decode = measure_runs(b, &b->decoder, b->settings.decodes);
    if (b->settings.profile)
        print_costs(b, &b->decoder);
    size_t growth = rss_bytes("RssAnon:") - before;

    printf("{\"backend\":\"%s\",\"act_bytes\":%zu,\"size\":%lld,\"batch\":%lld,"
           "\"compile_s\":%.3f,"
           "\"load_s\":%.3f,\"step_s\":%.4f,\"step_best_s\":%.4f,\"step_cpu_s\":%.4f,"
           "\"decode_s\":%.4f,"
           "\"decode_best_s\":%.4f,\"decode_cpu_s\":%.4f,\"weights_mib\":%.1f,\"arena_"
           "mib\":%.1f,\"other_"
           "mib\":%.1f,"
           "\"bound_mib\":%.1f,\"predicted_mib\":%.1f,\"growth_mib\":%.1f,\"growth_"
           "over_predicted\":%.4f,"
           "\"peak_rss_mib\":%.1f}\n",
           b->backend->ops->name, b->backend->act_bytes, (long long)b->settings.size,
           (long long)b->settings.batch, (double)(compiled - from) * 1e-9,
           (double)(loaded - compiled) * 1e-9, step.median, step.best, step.cpu_best,
           decode.median, decode.best, decode.cpu_best, (double)weights / 1048576,
           (double)arena / 1048576, (double)other / 1048576,
           (double)b->bound_bytes / 1048576, (double)predicted / 1048576,
           (double)growth / 1048576, (double)growth / (double)predicted,
           (double)rss_bytes("VmHWM:") / 1048576);
}

static void parse(struct settings *s, int argc, char **argv)
{
    struct {
        const char *name;
        int64_t *value;
    } numbers[] = {{"--size", &s->size},
                   {"--steps", &s->steps},
                   {"--threads", &s->threads},
                   {"--batch", &s->batch},
                   {"--decodes", &s->decodes}};
    struct err err = {0};

    for (int i = 1; i < argc; i++) {
        bool known = false;

        for (size_t k = 0; k < sizeof(numbers) / sizeof(*numbers) && i + 1 < argc; k++)
            if (!strcmp(argv[i], numbers[k].name)) {
                if (str_to_int(argv[++i], numbers[k].name, 0, 8192, numbers[k].value,
                               &err))
                    die(&err);
                known = true;
                break;
            }
        if (known)
            continue;
        if (!strcmp(argv[i], "--profile"))
            s->profile = true;
        else if (!strcmp(argv[i], "--backend") && i + 1 < argc)
            s->backend = argv[++i];
        else if (!strcmp(argv[i], "--precision") && i + 1 < argc)
            s->precision = argv[++i];
        else if (!strcmp(argv[i], "--weights") && i + 1 < argc)
            s->weights = argv[++i];
        else
            s->path = argv[i];
    }
    if (!s->path) {
        fprintf(stderr,
                "usage: bench_engine CHECKPOINT [--size 512] [--steps 7] [--threads 0] "
                "[--batch 2] [--decodes 3] [--backend dnnl] [--precision auto] "
                "[--weights auto] "
                "[--profile]\n");
        exit(2);
    }
    s->steps = s->steps < MAX_RUNS ? s->steps : MAX_RUNS;
    s->decodes = s->decodes < MAX_RUNS ? s->decodes : MAX_RUNS;
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct err err = {0};
    struct backend_options options = {0};

    b.settings = (struct settings){.size = 512, .steps = 7, .batch = 2, .decodes = 3};
    parse(&b.settings, argc, argv);
    options.threads = (int)b.settings.threads;
    if (b.settings.precision && strcmp(b.settings.precision, "auto"))
        options.precision =
            strcmp(b.settings.precision, "f32") ? PRECISION_BF16 : PRECISION_F32;
    if (backend_open(b.settings.backend, &options, &b.backend, &err) ||
        weights_file_open(&b.file, b.settings.path, &err))
        die(&err);
    b.store = b.backend->ops->store_new(b.backend, STORE_AS_COMPUTED);
    b.unet_store = b.backend->ops->store_new(
        b.backend, b.settings.weights && !strcmp(b.settings.weights, "int8")
                       ? STORE_INT8
                       : STORE_AS_COMPUTED);
    measure(&b);
    return 0;
}

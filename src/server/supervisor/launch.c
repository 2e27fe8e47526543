/* How a worker process is started: program, arguments, environment; and what it tells without being asked,
 * its lines and its end. The secret goes by environment only: arguments are readable by every user of the machine. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "server/config/config.h"
#include "server/models/peek.h"
#include "server/supervisor/ends.h"
#include "server/supervisor/worker.h"

#include <inttypes.h>
#include <unistd.h>

extern char **environ;

#define WORDS_MAX 24
#define CONTEXT_MAX                                                                    \
    8192 /* the cache of more costs gigabytes with a large model: ask for it */

/* A list of words that owns them, NULL at the end. */
struct words {
    char **items;
    size_t count;
    size_t cap;
};

static void add(struct words *w, char *word)
{
    if (w->count + 2 > w->cap) {
        w->cap = w->cap ? w->cap * 2 : WORDS_MAX;
        w->items = mem_realloc(w->items, w->cap * sizeof(*w->items));
    }
    w->items[w->count++] = word;
    w->items[w->count] = NULL;
}

static void add_pair(struct words *w, const char *name, char *value)
{
    add(w, mem_strdup(name));
    add(w, value);
}

static void add_number(struct words *w, const char *name, int64_t value)
{
    add_pair(w, name, mem_printf("%" PRId64, value));
}

static void words_release(struct words *w)
{
    for (size_t i = 0; i < w->count; i++)
        free(w->items[i]);
    free(w->items);
}

static void sd_arguments(struct words *a, const struct config *c)
{
    if (c->sd_threads)
        add_number(a, "--threads", c->sd_threads);
    if (strcmp(c->sd_backend, "auto") != 0)
        add_pair(a, "--backend", mem_strdup(c->sd_backend));
    if (strcmp(c->sd_weights, "auto") != 0)
        add_pair(a, "--weights", mem_strdup(c->sd_weights));
    add_pair(a, "--lora-dir", mem_strdup(c->lora_dir));
    add_pair(a, "--lora-dir", file_join(c->starters_dir, "loras"));
    add_pair(a, "--upscaler-dir", mem_strdup(c->upscaler_dir));
    add_pair(a, "--embedding-dir", mem_strdup(c->embedding_dir));
    add_pair(a, "--vae-dir", mem_strdup(c->vae_dir));
    if (strcmp(c->preview_method, "latent2rgb") != 0)
        add_pair(a, "--preview-method", mem_strdup(c->preview_method));
    if (c->vae[0])
        add_pair(a, "--vae", mem_strdup(c->vae));
    add_pair(a, "--sharing", mem_strdup(c->sharing));
}

/* Tokens of one slot: as asked, as configured, or what the model was trained for, within reason. */
static int64_t context_of(const struct config *c, const struct wish *target)
{
    struct model_peek peek;

    if (target->options.context)
        return target->options.context;
    if (c->llm_context)
        return c->llm_context;
    if (model_peek(target->path, &peek, NULL) || peek.context == 0)
        return 0; /* the worker's own default */
    return peek.context < CONTEXT_MAX ? (int64_t)peek.context : CONTEXT_MAX;
}

/* A file that was made for embeddings says how its vectors are pooled; the older ones of BERT's kind say it by their
 * architecture alone. Models that write can give vectors too, of a sort; only who asks for that gets it. */
enum worker_task worker_task_of_file(const char *path)
{
    struct model_peek peek;

    if (model_peek(path, &peek, NULL))
        return TASK_CHAT;
    if (peek.pooling == 4)
        return TASK_RERANK;
    if (peek.pooling > 0 || str_has_suffix(peek.architecture, "bert") ||
        strstr(peek.architecture, "bert-") || strstr(peek.architecture, "embedding"))
        return TASK_EMBEDDING;
    return TASK_CHAT;
}

static bool says_pooling(const char *path)
{
    struct model_peek peek;

    return model_peek(path, &peek, NULL) == 0 && peek.pooling > 0;
}

static enum cache_type cache_type_of(const struct config *c,
                                     const struct worker_load_options *o)
{
    enum cache_type type = o->cache_type;

    if (type == CACHE_AUTO && cache_type_from_name(c->llm_cache_type, &type, NULL))
        return CACHE_F16; /* the option has these words alone */
    return type;
}

struct worker_load_options launch_options(const struct config *c,
                                          const struct wish *target)
{
    const struct worker_load_options *o = &target->options;

    return (struct worker_load_options){
        .gpu_layers = o->gpu_layers >= 0 ? o->gpu_layers : (int)c->llm_gpu_layers,
        .context = (int)context_of(c, target),
        .slots = o->slots ? o->slots : (int)c->llm_slots,
        .idle_timeout_s =
            o->idle_timeout_s >= 0 ? o->idle_timeout_s : (int)c->llm_idle_timeout_s,
        .task = o->task == TASK_AUTO ? worker_task_of_file(target->path) : o->task,
        .cache_type = cache_type_of(c, o),
    };
}

static void llm_arguments(struct words *a, const struct config *c, const char *path,
                          const struct worker_load_options *present)
{
    add_pair(a, "--model", mem_strdup(path));
    add_number(a, "--slots", present->slots);
    if (present->task != TASK_CHAT)
        add_pair(a, "--task", mem_strdup(worker_task_name(present->task)));
    if (present->task == TASK_EMBEDDING && !says_pooling(path))
        add_pair(a, "--pooling", mem_strdup("mean"));
    if (present->context)
        add_number(a, "--context", present->context);
    if (present->cache_type != CACHE_F16)
        add_pair(a, "--cache-type", mem_strdup(cache_type_name(present->cache_type)));
    if (c->llm_threads)
        add_number(a, "--threads", c->llm_threads);
    if (present->gpu_layers >= 0)
        add_number(a, "--gpu-layers", present->gpu_layers);
    if (*c->llama_server)
        add_pair(a, "--llama-server", mem_strdup(c->llama_server));
    add_pair(a, "--sharing", mem_strdup(c->sharing));
    add_pair(a, "--kv-folder", file_join(c->home, "kv"));
}

static bool is_ours(const char *variable)
{
    static const char *const names[] = {
        "MYSTI_WORKER_TOKEN=", "MYSTI_SERVER_PID=", "MYSTI_RUN_DIR="};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (str_has_prefix(variable, names[i]))
            return true;
    return false;
}

static void make_environment(struct words *e, const struct worker *w)
{
    for (char **v = environ; *v; v++)
        if (!is_ours(*v))
            add(e, mem_strdup(*v));
    add(e, mem_printf("MYSTI_WORKER_TOKEN=%s", w->token));
    add(e, mem_printf("MYSTI_SERVER_PID=%d", (int)getpid()));
    add(e, mem_printf("MYSTI_RUN_DIR=%s/run", w->s->config->home));
}

/* The one line on standard output that is meant for us. */
static bool take_listening(struct worker *w, const char *line)
{
    static const char says[] = "listening 127.0.0.1:";
    struct err ignored;
    int64_t port;

    if (w->kind != WORKER_SD || w->state != WORKER_STARTING ||
        !str_has_prefix(line, says) ||
        str_to_int(line + sizeof(says) - 1, "port", 1, 65535, &port, &ignored))
        return false;
    w->port = (int)port;
    worker_event(w, EV_LISTENING);
    return true;
}

static void on_line(void *data, enum process_stream stream, const char *line,
                    size_t len)
{
    struct worker *w = data;

    if (stream == PROCESS_STDOUT && take_listening(w, line))
        return;
    line_ring_add(&w->ring, line, len);
    log_line(w->s->log, w->profile->source, line, len);
    w->says_memory = w->says_memory || ends_is_memory_line(line);
    if (!w->first_error[0] && strcasestr(line, "error")) {
        const char *level =
            strstr(line, " E "); /* llama-server: "0.00.054.801 E what" */

        snprintf(w->first_error, sizeof(w->first_error), "%s",
                 level && level - line < 24 ? level + 3 : line);
    }
}

static void on_ended(void *data, const struct process_exit *how)
{
    struct worker *w = data;

    w->exit = *how;
    worker_event(w, EV_EXITED);
}

char *worker_program(const struct worker *w)
{
    const struct config *c = w->s->config;
    const char *given =
        w->kind == WORKER_SD ? c->sd_worker_program : c->llm_worker_program;
    char *folder, *path;

    if (*given)
        return mem_strdup(given);
    folder = file_program_folder();
    path = file_join(folder, w->profile->program);
    free(folder);
    return path;
}

static int choose_port(struct worker *w, struct err *err)
{
    const struct config *c = w->s->config;

    w->port = (int)(w->id == WORKER_SD    ? c->sd_port
                    : w->id == WORKER_LLM ? c->llm_port
                                          : 0);
    if (w->port == 0 &&
        w->kind == WORKER_LLM) /* llama-server cannot tell which it took */
        return process_free_port(&w->port, err);
    return 0;
}

int worker_launch(struct worker *w, const struct wish *target, struct err *err)
{
    struct words arguments = {0}, environment = {0};
    char *program = worker_program(w);
    struct process_options options = {
        .loop = w->s->loop,
        .program = program,
        .on_line = on_line,
        .on_exit = on_ended,
        .data = w,
    };
    int rc = -1;

    process_random_token(w->token);
    if (w->kind == WORKER_LLM) {
        w->present = launch_options(w->s->config, target);
        w->wished_layers = w->present.gpu_layers;
        w->wished_context = w->present.context;
        if (w->granted_layers >= 0)
            w->present.gpu_layers = w->granted_layers;
        if (w->granted_context && w->granted_context < w->present.context)
            w->present.context = w->granted_context;
    }
    if (choose_port(w, err))
        goto out;
    add(&arguments, mem_strdup(w->profile->program));
    add_number(&arguments, "--listen-port", w->port);
    if (w->kind == WORKER_SD)
        sd_arguments(&arguments, w->s->config);
    else
        llm_arguments(&arguments, w->s->config, target->path, &w->present);
    if (w->s->config->verbose)
        add(&arguments, mem_strdup("--verbose"));
    make_environment(&environment, w);
    options.argv = arguments.items;
    options.env = environment.items;

    log_info(w->s->log, "Spawning %s Worker... on port %d", w->profile->title, w->port);
    log_debug(w->s->log, "%s Worker is %s", w->profile->title, program);
    rc = process_start(&options, &w->process, err);
    if (rc == 0) {
        w->started_ms = clock_ms();
        w->pid = process_pid(w->process);
        reaper_add(w->s->reaper, file_name(program), w->pid);
    }
out:
    words_release(&arguments);
    words_release(&environment);
    free(program);
    return rc;
}

void worker_forget_process(struct worker *w)
{
    health_stop(w);
    if (w->port)
        http_client_forget(w->s->client, "127.0.0.1", w->port);
    process_close(w->process);
    w->process = NULL;
    reaper_remove(w->s->reaper, w->pid);
    w->pid = 0;
    w->started_ms = 0;
    memset(w->token, 0, sizeof(w->token));
}

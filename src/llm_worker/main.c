/* mysti_llm_worker: turns Mysti's words (model, port, threads, context, slots, layers) into llama-server's, puts
 * itself into a cage and becomes llama-server by exec: same process, no extra hop, nothing left to supervise.
 * The server knows no flag of llama-server; a new version of it is dealt with here alone.
 *
 * What must be is an argument (address, port, model, sizes): every version has those. What is only better is a variable
 * LLAMA_ARG_...: a version that does not know it ignores it instead of refusing to start. The user's own variables
 * of that name are dropped, because they could open the worker to others (LLAMA_ARG_HOST, LLAMA_ARG_API_KEY_FILE).
 * The secret moves from MYSTI_WORKER_TOKEN to LLAMA_API_KEY and is never an argument.
 *
 * Name: argv[0] is mysti_llm_worker, also under ld.so (--argv0). The kernel's short name, which pgrep and top show, comes
 * from the file that is executed, so that file is a link of this name in the server's run folder when there is one.
 *
 * Threads: ggml's threads meet at barriers, dozens of times per token, and spin there. When anything else wants the
 * cores, one of them is always the one that is not running. Measured with the 5 MB starter on two busy cores: two
 * threads 3 to 60 tokens per second, one thread 2,000 to 2,400; alone, one thread costs a fifth. A small model
 * therefore gets one thread; a large one, whose token takes long enough to be worth it, one per physical core.
 * Polling (--poll) made no difference; real-time priority (--prio) did, but two spinning real-time threads leave
 * nothing to the server that passes the tokens on.
 *
 * Where pictures go first (--sharing image-first), llama-server lowers its own compute threads with --prio -1 (nice 5,
 * batch class: a quarter of a core that both want); those that answer HTTP stay where they are. Lowering the whole
 * process before exec would take them along, and from outside its threads cannot be told apart.
 *
 * Exit codes: 1 when it cannot start, 2 for a wrong option; after that they are llama-server's. */
#include "base/cores.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sharing.h"
#include "base/str.h"
#include "cage.h"
#include "engine.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "mysti_llm_worker"
#define STANDARD_PORT 1236
#define STANDARD_CONTEXT 4096
#define HTTP_THREADS "256"
#define PROMPT_CACHE_MIB                                                               \
    "256" /* llama-server's own default is 8192, more than many machines have */
#define LOG_VERBOSITY 4 /* its --verbose would print every token */
#define SMALL_MODEL_BYTES                                                              \
    (64 * 1024 * 1024)    /* of the file; up to here one thread is best */
#define LOW_PRIORITY (-1) /* its compute threads, and only those: nice 5, batch class */
#define WORDS_MAX 48

extern char **environ;

struct request {
    char *model; /* absolute */
    const char *llama_server;
    int64_t port, threads, context, slots, gpu_layers;
    enum sharing sharing;
    const char *task, *pooling, *kv_folder, *cache_type;
    bool check, list, help, version, verbose;
};

static const struct flag {
    const char *name;
    int64_t min, max;
    size_t offset;
    const char *help;
} flags[] = {
    {"listen-port", 1, 65535, offsetof(struct request, port),
     "port on 127.0.0.1 [1236]"},
    {"threads", 0, 1024, offsetof(struct request, threads),
     "threads; 0: one for a small model, else one per physical core [0]"},
    {"context", 0, 1 << 24, offsetof(struct request, context),
     "tokens of each slot; 0: 4096 [0]"},
    {"slots", 1, 4096, offsetof(struct request, slots),
     "requests at the same time [1]"},
    {"gpu-layers", -1, 10000, offsetof(struct request, gpu_layers),
     "layers on the GPU; -1: as many as fit [-1]"},
};
#define FLAG_COUNT (sizeof(flags) / sizeof(*flags))

static void print_help(void)
{
    printf("usage: " NAME " --model FILE [options]\n\n"
           "Becomes llama-server with this model, on loopback only, with the key from "
           "the\n"
           "environment variable MYSTI_WORKER_TOKEN. mysti_server starts it.\n\n"
           "  --model FILE          GGUF model\n");
    for (size_t i = 0; i < FLAG_COUNT; i++)
        printf("  --%-12s N      %s\n", flags[i].name, flags[i].help);
    printf(
        "  --sharing POLICY      who goes first beside pictures: text-first "
        "(default),\n"
        "                        equal or image-first\n"
        "  --task TASK           chat (default), embedding or rerank\n"
        "  --pooling mean        embedding: the file does not say how\n"
        "  --cache-type TYPE     of the keys and values of a context: f16 (default), "
        "bf16,\n"
        "                        q8_0, q5_1, q5_0, q4_1 or q4_0\n"
        "  --kv-folder FOLDER    where contexts may be saved; without: nowhere\n"
        "  --llama-server PROGRAM  which one; default: MYSTI_LLAMA_SERVER, PATH, "
        "the one "
        "of the build\n"
        "  --check               say which engine would be used, and stop\n"
        "  --list-devices        say which graphics cards it can use, and stop\n"
        "  --verbose             log more\n"
        "  --version, --help\n");
}

static int unknown(const char *arg, struct err *err)
{
    const char *names[FLAG_COUNT + 12] = {"model",     "llama-server", "check",
                                          "verbose",   "help",         "version",
                                          "sharing",   "task",         "pooling",
                                          "kv-folder", "list-devices", "cache-type"};
    const char *near;

    for (size_t i = 0; i < FLAG_COUNT; i++)
        names[12 + i] = flags[i].name;
    near = str_nearest(arg + strspn(arg, "-"), names, FLAG_COUNT + 12);
    return err_set(err, ERR_INVALID, "unknown option %.80s%s%s%s", arg,
                   near ? "; did you mean --" : "; --help lists them all",
                   near ? near : "", near ? "?" : "");
}

static int take_switch(struct request *r, const char *arg)
{
    const struct {
        const char *name;
        bool *field;
    } switches[] = {{"--check", &r->check},     {"--list-devices", &r->list},
                    {"--help", &r->help},       {"-h", &r->help},
                    {"--version", &r->version}, {"--verbose", &r->verbose},
                    {"-v", &r->verbose}};

    for (size_t i = 0; i < sizeof(switches) / sizeof(*switches); i++) {
        if (strcmp(arg, switches[i].name) == 0) {
            *switches[i].field = true;
            return 1;
        }
    }
    return 0;
}

static int take_value(struct request *r, const char *name, const char *value,
                      struct err *err)
{
    char what[32];

    if (!strcmp(name, "model")) {
        char real[PATH_MAX];

        if (!realpath(value, real))
            return err_set(err, ERR_NOT_FOUND, "no model file %s: %s", value,
                           strerror(errno));
        free(r->model);
        r->model = mem_strdup(real);
        return 0;
    }
    if (!strcmp(name, "llama-server")) {
        r->llama_server = value;
        return 0;
    }
    if (!strcmp(name, "task")) {
        if (strcmp(value, "chat") && strcmp(value, "embedding") &&
            strcmp(value, "rerank"))
            return err_set(
                err, ERR_INVALID,
                "--task must be one of chat, embedding, rerank, not \"%.40s\"", value);
        r->task = value;
        return 0;
    }
    if (!strcmp(name, "cache-type")) {
        static const char *const known[] = {"f16",  "bf16", "q8_0", "q5_1",
                                            "q5_0", "q4_1", "q4_0"};

        r->cache_type = NULL;
        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
            if (!strcmp(value, known[i]))
                r->cache_type = known[i];
        if (!r->cache_type)
            return err_set(err, ERR_INVALID,
                           "--cache-type must be one of f16, bf16, q8_0, q5_1, q5_0, "
                           "q4_1, q4_0, not \"%.40s\"",
                           value);
        return 0;
    }
    if (!strcmp(name, "kv-folder")) {
        if (value[0] != '/')
            return err_set(err, ERR_INVALID,
                           "--kv-folder must be an absolute path, not %s", value);
        r->kv_folder = value;
        return 0;
    }
    if (!strcmp(name, "pooling")) {
        if (strcmp(value, "mean"))
            return err_set(err, ERR_INVALID, "--pooling must be mean, not \"%.40s\"",
                           value);
        r->pooling = value;
        return 0;
    }
    if (!strcmp(name, "sharing"))
        return sharing_parse(value, "--sharing", &r->sharing, err);
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        if (strcmp(name, flags[i].name) == 0) {
            snprintf(what, sizeof(what), "--%s", name);
            return str_to_int(value, what, flags[i].min, flags[i].max,
                              (int64_t *)(void *)((char *)r + flags[i].offset), err);
        }
    }
    return 1;
}

static int parse(struct request *r, int argc, char **argv, struct err *err)
{
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        char name[64];
        const char *value;
        int rc;

        if (take_switch(r, argv[i]))
            continue;
        if (!str_has_prefix(argv[i], "--"))
            return unknown(argv[i], err);
        snprintf(name, sizeof(name), "%.*s", equals ? (int)(equals - argv[i] - 2) : 63,
                 argv[i] + 2);
        value = equals ? equals + 1 : i + 1 < argc ? argv[i + 1] : NULL;
        if (!value)
            return take_value(r, name, "", err) > 0
                       ? unknown(argv[i], err)
                       : err_set(err, ERR_INVALID, "--%s needs a value", name);
        rc = take_value(r, name, value, err);
        if (rc > 0)
            return unknown(argv[i], err);
        if (rc < 0)
            return -1;
        i += !equals;
    }
    if (!r->model && !r->check && !r->list && !r->help && !r->version)
        return err_set(err, ERR_INVALID, "--model FILE is missing");
    return 0;
}

/* The link under whose name the program is executed; NULL: none can be made. */
static char *make_link(const char *target)
{
    const char *run = getenv("MYSTI_RUN_DIR");
    char *link, *temporary;
    int rc;

    if (!run || run[0] != '/')
        return NULL;
    link = file_join(run, NAME);
    temporary = mem_printf("%s.%d", link, (int)getpid());
    (void)unlink(temporary);
    rc = symlink(target, temporary) || rename(temporary, link);
    if (rc)
        (void)unlink(temporary);
    free(temporary);
    if (rc) {
        free(link);
        return NULL;
    }
    return link;
}

struct words {
    char *items[WORDS_MAX + 1];
    size_t count;
};

static void add(struct words *w, char *word)
{
    if (w->count == WORDS_MAX)
        abort(); /* more than this file can add */
    w->items[w->count++] = word;
}

static void add_text(struct words *w, const char *word)
{
    add(w, mem_strdup(word));
}

static void add_number(struct words *w, const char *name, int64_t value)
{
    add_text(w, name);
    add(w, mem_printf("%lld", (long long)value));
}

/* argv up to and with the program itself */
static void add_program(struct words *a, const struct engine *e)
{
    add_text(a, NAME);
    if (!e->loader)
        return;
    add_text(a, "--library-path");
    add_text(a, e->library_path);
    add_text(a, "--argv0");
    add_text(a, NAME);
    add_text(a, e->program);
}

static int64_t threads_of(const struct request *r)
{
    struct stat st;

    if (r->threads)
        return r->threads;
    if (r->model && stat(r->model, &st) == 0 && st.st_size <= SMALL_MODEL_BYTES)
        return 1;
    return cores_usable();
}

/* A text that is to become a vector goes through in one piece, so a batch is as large as a slot. The pooling is the file's;
 * one that does not say is averaged, which is what can be done with a model that was made for writing (such a one
 * goes on writing, too). */
static void add_task(struct words *a, const struct request *r)
{
    int64_t context = r->context ? r->context : STANDARD_CONTEXT;

    if (!r->task || !strcmp(r->task, "chat"))
        return;
    add_text(a, !strcmp(r->task, "rerank") ? "--reranking" : "--embeddings");
    add_number(a, "--batch-size", context);
    add_number(a, "--ubatch-size", context);
    if (r->pooling) {
        add_text(a, "--pooling");
        add_text(a, r->pooling);
    }
}

static void add_arguments(struct words *a, const struct request *r)
{
    int64_t context = r->context ? r->context : STANDARD_CONTEXT;

    add_text(a, "--host");
    add_text(a, "127.0.0.1");
    add_number(a, "--port", r->port);
    add_text(a, "--model");
    add_text(a, r->model);
    add_number(a, "--ctx-size", context * r->slots); /* llama-server divides it */
    add_number(a, "--parallel", r->slots);
    add_number(a, "--threads", threads_of(r));
    if (r->gpu_layers >= 0)
        add_number(a, "--gpu-layers", r->gpu_layers);
    add_task(a, r);
    if (r->cache_type) {
        add_text(a, "--cache-type-k");
        add_text(a, r->cache_type);
        add_text(a, "--cache-type-v");
        add_text(a, r->cache_type);
    }
    if (sharing_text_gives_way(r->sharing))
        add_number(a, "--prio", LOW_PRIORITY);
    if (r->verbose)
        add_number(a, "--log-verbosity", LOG_VERBOSITY);
}

/* What the name of a model is in answers: its file's, not its path. */
static void set_alias(const char *model)
{
    char *alias = mem_strdup(file_name(model));

    if (str_has_suffix(alias, ".gguf"))
        alias[strlen(alias) - 5] = '\0';
    if (!strchr(alias, ',')) /* it would be two names */
        setenv("LLAMA_ARG_ALIAS", alias, 1);
    free(alias);
}

static void set_environment(const struct request *r, const struct engine *e)
{
    const char *token = getenv("MYSTI_WORKER_TOKEN");
    char *secret = token ? mem_strdup(token) : NULL;

    for (char **v = environ; *v;) {
        char *name = mem_strndup(*v, strcspn(*v, "="));
        bool drop = str_has_prefix(name, "LLAMA_");

        if (drop)
            unsetenv(name); /* the list moves up */
        else
            v++;
        free(name);
    }
    unsetenv("MYSTI_WORKER_TOKEN");
    if (e->loader)
        unsetenv("LD_LIBRARY_PATH");
    if (secret && *secret)
        setenv("LLAMA_API_KEY", secret, 1);
    free(secret);
    setenv("LLAMA_ARG_UI", "0", 1);
    setenv("LLAMA_ARG_WEBUI", "0", 1); /* its older name */
    setenv("LLAMA_ARG_CACHE_RAM", PROMPT_CACHE_MIB, 1);
    setenv("LLAMA_ARG_OFFLINE", "1", 1);
    /* It keeps a thread for each open connection; with its own number of them (about 24 on two cores) 40 clients
     * waited for 5 s, and /health would wait with them, which looks like a hang. */
    setenv("LLAMA_ARG_THREADS_HTTP", HTTP_THREADS, 1);
    if (r->model)
        set_alias(r->model);
    if (r->kv_folder) { /* it joins the names as they are */
        char *folder = mem_printf("%s/", r->kv_folder);

        setenv("LLAMA_ARG_SLOT_SAVE_PATH", folder, 1);
        free(folder);
    }
}

static void become(const struct engine *e, const struct words *a)
{
    const char *file = e->loader ? e->loader : e->program;
    char *link = make_link(file);

    if (e->folder && chdir(e->folder))
        fprintf(stderr, NAME ": cannot go to %s: %s\n", e->folder, strerror(errno));
    if (link)
        execv(link, a->items);
    execv(file, a->items);
    fprintf(stderr, NAME ": error: cannot execute %s: %s\n", file, strerror(errno));
}

/* --check: its place, how it runs, and its own words about itself */
static int check(const struct request *r, const struct engine *e)
{
    struct words a = {0};
    int status = -1;
    pid_t pid;

    printf("llama-server: %s (from %s)\n", e->program, e->found);
    printf("run through:  %s\n", e->loader ? e->loader : "the system's own loader");
    printf("plug-ins:     %s\n", e->folder ? e->folder : "wherever it looks itself");
    printf("threads:      %lld\n", (long long)threads_of(r));
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        add_program(&a, e);
        add_text(&a, "--version");
        dup2(STDOUT_FILENO, STDERR_FILENO);
        unsetenv("MYSTI_RUN_DIR");
        become(e, &a);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, NAME ": error: %s does not run\n", e->program);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct request r = {.port = STANDARD_PORT, .slots = 1, .gpu_layers = -1};
    struct words a = {0};
    struct engine e = {0};
    struct err err = {0};

    if (cage_follow_server(&err) == 0 && parse(&r, argc, argv, &err) == 0) {
        if (r.help || r.version) {
            if (r.help)
                print_help();
            else
                printf(NAME " %s\n", MYSTI_VERSION);
            return 0;
        }
        if (engine_find(r.llama_server, &e, &err) == 0) {
            set_environment(&r, &e);
            if (r.check)
                return check(&r, &e);
            add_program(&a, &e);
            if (r.list) {
                add_text(&a, "--list-devices");
                unsetenv("MYSTI_RUN_DIR"); /* its name there is a worker's */
            } else {
                add_arguments(&a, &r);
            }
            cage_close();
            become(&e, &a);
            return 1;
        }
    }
    fprintf(stderr, NAME ": error: %s\n", err.message);
    return err.code == ERR_INVALID ? 2 : 1;
}

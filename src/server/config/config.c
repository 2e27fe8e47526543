/* The configuration: where values come from, in which order, and what they mean on this machine.
 *
 * Order: defaults, then the file, then the environment, then the command line; later ones win, and a list from a later
 * source replaces the earlier one instead of growing it. --config itself may come from the command line or from
 * MYSTI_CONFIG, so the arguments are looked through for it first.
 *
 * --mode picks what this program is. In a worker mode everything after it belongs to that worker and is not
 * looked at here; `--mode orchestrator` is what happens without it. (Guides of the predecessors start it so.)
 *
 * A variable MYSTI_... that is no option is left alone: the workers, the client and the tests have some of
 * their own. Models are named by path, or by name when the name has no slash: looked for where the program
 * was started, then in --model-dir, then among the starters. A model that was named and is not there stops the start:
 * whoever typed it is looking at the screen. */
#include "server/config/config.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "server/config/options.h"
#include "server/models/peek.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <unistd.h>

extern char **environ;

void config_init(struct config *c)
{
    struct err err = {0};

    *c = (struct config){0};
    c->sources = mem_zalloc(option_count);
    c->public_dir = mem_strdup("");
    c->starters_dir = mem_strdup("");
    for (size_t i = 0; i < option_count; i++) {
        if (option_set(c, &options[i], options[i].standard, options[i].name, &err))
            abort(); /* a default out of its own range */
    }
}

void config_release(struct config *c)
{
    for (size_t i = 0; i < option_count; i++) {
        char **text = (char **)(void *)((char *)c + options[i].offset);

        switch (options[i].type) {
        case OPTION_TEXT:
        case OPTION_PATH:
        case OPTION_MODEL:
        case OPTION_CHOICE:
            free(*text);
            break;
        case OPTION_LIST:
            option_reset_list(c, &options[i]);
            break;
        default:
            break;
        }
    }
    free(c->public_dir);
    free(c->starters_dir);
    free(c->sources);
    *c = (struct config){0};
}

/* MYSTI_LISTEN_PORT; out has room for every name of the table */
static void variable_name(const char *name, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "MYSTI_%s", name);

    for (size_t i = 6; i < n && i < size; i++)
        out[i] = (char)(out[i] == '-' ? '_' : toupper((unsigned char)out[i]));
}

static int from_environment(struct config *c, struct err *err)
{
    for (size_t i = 0; i < option_count; i++) {
        char name[64];
        const char *value;

        variable_name(options[i].name, name, sizeof(name));
        value = getenv(name);
        if (!value || !*value || !strcmp(options[i].name, "config"))
            continue;
        if (options[i].type == OPTION_LIST)
            option_reset_list(c, &options[i]);
        if (option_set(c, &options[i], value, name, err))
            return -1;
    }
    return 0;
}

/* One argument of the command line, taken apart. */
struct argument {
    const struct option *option;
    char name[80];     /* as typed, without "=value" */
    const char *value; /* behind "=", or NULL */
};

static int parse_argument(const char *arg, struct argument *ret, struct err *err)
{
    const char *equals = strchr(arg, '=');
    size_t n = equals ? (size_t)(equals - arg) : strlen(arg);

    *ret = (struct argument){.value = equals ? equals + 1 : NULL};
    if (arg[0] != '-' || n < 2)
        return err_set(err, ERR_INVALID,
                       "\"%.80s\" is no option; options begin with --, see --help",
                       arg);
    snprintf(ret->name, sizeof(ret->name), "%.*s", (int)(n < 79 ? n : 79), arg);
    for (size_t i = 0; i < option_count; i++)
        if (options[i].alias && !strcmp(options[i].alias, ret->name))
            ret->option = &options[i];
    if (!ret->option && str_has_prefix(ret->name, "--"))
        ret->option = option_find(ret->name + 2);
    if (!ret->option)
        return option_unknown(ret->name + (ret->name[1] == '-' ? 2 : 1), ret->name,
                              err);
    return 0;
}

static int set_mode(struct config *c, const char *mode, int argc, char **argv,
                    struct err *err)
{
    static const char *const known[] = {"orchestrator", "sd-worker", "llm-worker"};
    const char *near;

    if (!mode)
        return err_set(err, ERR_INVALID,
                       "--mode needs a value: orchestrator, sd-worker or llm-worker");
    if (!strcmp(mode, known[0]))
        return 0;
    if (!strcmp(mode, known[1]) || !strcmp(mode, known[2])) {
        c->action = strcmp(mode, known[1]) ? CONFIG_LLM_WORKER : CONFIG_SD_WORKER;
        c->rest = argv;
        c->rest_count = argc;
        return 0;
    }
    near = str_nearest(mode, known, 3);
    return err_set(
        err, ERR_INVALID,
        "--mode must be orchestrator, sd-worker or llm-worker, not \"%.60s\"%s%s%s",
        mode, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

/* What is no option of the table: 1 when it was one of these. */
static int take_action(struct config *c, const char *arg)
{
    static const struct {
        const char *name;
        enum config_action action;
    } actions[] = {
        {"--help", CONFIG_SHOW_HELP},
        {"-h", CONFIG_SHOW_HELP},
        {"--version", CONFIG_SHOW_VERSION},
        {"--print-config", CONFIG_SHOW_CONFIG},
    };

    for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
        if (strcmp(arg, actions[i].name) == 0) {
            c->action = actions[i].action;
            return 1;
        }
    }
    return 0;
}

static int set_new_key(struct config *c, int argc, char **argv, struct err *err)
{
    if (argc < 2 || argv[0][0] == '-' || argv[1][0] == '-')
        return err_set(err, ERR_INVALID,
                       "--new-key takes a name and a scope, infer or admin: --new-key "
                       "laptop admin");
    c->action = CONFIG_NEW_KEY;
    c->rest = argv;
    c->rest_count = 2;
    return 0;
}

static int from_arguments(struct config *c, int argc, char **argv, struct err *err)
{
    bool *seen = mem_zalloc(option_count * sizeof(*seen));
    int rc = -1;

    for (int i = 1; i < argc; i++) {
        struct argument a;
        bool is_mode = !strcmp(argv[i], "--mode");

        if (is_mode || str_has_prefix(argv[i], "--mode=")) {
            const char *mode = is_mode ? (++i < argc ? argv[i] : NULL) : argv[i] + 7;

            if (set_mode(c, mode, argc - i - 1, argv + i + 1, err))
                goto out;
            if (c->action == CONFIG_SD_WORKER || c->action == CONFIG_LLM_WORKER)
                break;
            continue;
        }
        if (take_action(c, argv[i]))
            continue;
        if (!strcmp(argv[i], "--new-key")) {
            if (set_new_key(c, argc - i - 1, argv + i + 1, err))
                goto out;
            i += 2;
            continue;
        }
        if (parse_argument(argv[i], &a, err))
            goto out;
        if (!a.value && a.option->type == OPTION_SWITCH)
            a.value = "true";
        else if (!a.value && ++i < argc)
            a.value = argv[i];
        if (!a.value) {
            err_set(err, ERR_INVALID, "%s needs a value", a.name);
            goto out;
        }
        if (a.option->type == OPTION_LIST && !seen[a.option - options])
            option_reset_list(c, a.option);
        seen[a.option - options] = true;
        if (option_set(c, a.option, a.value, a.name, err))
            goto out;
    }
    rc = 0;
out:
    free(seen);
    return rc;
}

/* --config, wherever it stands; the last one counts. NULL: none. */
static const char *find_config(int argc, char **argv)
{
    const char *path = getenv("MYSTI_CONFIG");

    for (int i = 1; i < argc; i++) {
        const char *mode = str_has_prefix(argv[i], "--mode=")           ? argv[i] + 7
                           : !strcmp(argv[i], "--mode") && i + 1 < argc ? argv[i + 1]
                                                                        : NULL;

        if (mode && strcmp(mode, "orchestrator") != 0)
            break; /* what follows is that worker's */
        if (str_has_prefix(argv[i], "--config="))
            path = argv[i] + 9;
        else if (!strcmp(argv[i], "--config") && i + 1 < argc)
            path = argv[i + 1];
    }
    return path && *path ? path : NULL;
}

int config_from_args(struct config *c, int argc, char **argv, struct err *err)
{
    const char *path = find_config(argc, argv);

    if (path) {
        c->setting = CONFIG_FROM_FILE;
        if (config_from_yaml(c, path, err))
            return -1;
        free(c->config_file);
        c->config_file = mem_strdup(path);
    }
    c->setting = CONFIG_FROM_ENVIRONMENT;
    if (from_environment(c, err))
        return -1;
    c->setting = CONFIG_FROM_ARGUMENT;
    return from_arguments(c, argc, argv, err);
}

/* ---- what the values mean on this machine ---- */

static char *default_home(void)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    const struct passwd *user;

    if (state && state[0] == '/')
        return file_join(state, "mysti");
    if (!home || home[0] != '/') {
        user = getpwuid(getuid());
        home = user && user->pw_dir ? user->pw_dir : NULL;
    }
    if (!home || home[0] != '/')
        return mem_printf("/var/tmp/mysti-%u", (unsigned)getuid());
    return mem_printf("%s/.local/state/mysti", home);
}

static void make_absolute(char **path)
{
    char folder[PATH_MAX];
    char *joined;

    if (!**path || **path == '/' || !getcwd(folder, sizeof(folder)))
        return;
    joined = file_join(folder, str_has_prefix(*path, "./") ? *path + 2 : *path);
    free(*path);
    *path = joined;
}

static void set_default(char **path, char *value)
{
    if (**path) {
        free(value);
        return;
    }
    free(*path);
    *path = value;
}

static void resolve_folders(struct config *c)
{
    char *program = file_program_folder();

    free(c->public_dir);
    c->public_dir = file_join(program, "public");
    free(c->starters_dir);
    c->starters_dir = file_join(program, "models/starter");
    free(program);
    set_default(&c->home, default_home());
    make_absolute(&c->home);
    set_default(&c->model_dir, file_join(c->home, "models"));
    make_absolute(&c->model_dir);
    set_default(&c->lora_dir, file_join(c->model_dir, "loras"));
    make_absolute(&c->lora_dir);
    set_default(&c->upscaler_dir, file_join(c->model_dir, "upscalers"));
    make_absolute(&c->upscaler_dir);
    set_default(&c->embedding_dir, file_join(c->model_dir, "embeddings"));
    make_absolute(&c->embedding_dir);
    set_default(&c->vae_dir, file_join(c->model_dir, "vae"));
    make_absolute(&c->vae_dir);
    set_default(&c->output_dir, file_join(c->home, "outputs"));
    set_default(&c->key_file, file_join(c->home, "keys"));
    make_absolute(&c->key_file);
    make_absolute(&c->output_dir);
    make_absolute(&c->sd_worker_program);
    make_absolute(&c->llm_worker_program);
    if (strchr(c->llama_server, '/'))
        make_absolute(&c->llama_server);
}

/* A name without a slash may be in one of the folders. */
static void find_model(const struct config *c, char **model)
{
    const char *folders[] = {c->model_dir, c->starters_dir};

    if (**model && strcmp(*model, "none") != 0 && !strchr(*model, '/') &&
        !file_exists(*model)) {
        for (size_t i = 0; i < 2; i++) {
            char *path = file_join(folders[i], *model);

            if (file_exists(path)) {
                free(*model);
                *model = path;
                return;
            }
            free(path);
        }
    }
    if (strcmp(*model, "none") != 0)
        make_absolute(model);
}

static int check_model(const char *model, const char *option, enum model_kind wanted,
                       struct err *err)
{
    struct model_peek peek;

    if (!*model || !strcmp(model, "none"))
        return 0;
    if (model_peek(model, &peek, err))
        return err_wrap(err, "%s", option);
    if (peek.kind == wanted)
        return 0;
    if (peek.kind == MODEL_UNKNOWN)
        return err_set(err, ERR_BAD_FILE,
                       "%s: %s holds neither a text nor a picture model", option,
                       model);
    return err_set(err, ERR_BAD_FILE, "%s: %s is a %s model; give it with %s", option,
                   model, peek.kind == MODEL_TEXT ? "text" : "picture",
                   peek.kind == MODEL_TEXT ? "--llm-model" : "--diffusion-model");
}

/* --model to the side it belongs to. */
static int place_model(struct config *c, struct buf *ret_notes, struct err *err)
{
    struct model_peek peek;
    char **side;

    if (!*c->model || !strcmp(c->model, "none"))
        return 0;
    if (model_peek(c->model, &peek, err))
        return err_wrap(err, "--model");
    if (peek.kind == MODEL_UNKNOWN)
        return err_set(err, ERR_BAD_FILE,
                       "--model: %s holds neither a text nor a picture model",
                       c->model);
    side = peek.kind == MODEL_TEXT ? &c->llm_model : &c->diffusion_model;
    if (**side)
        return err_set(err, ERR_INVALID,
                       "--model %s is a %s model, but %s is given as well; keep one",
                       c->model, peek.kind == MODEL_TEXT ? "text" : "picture",
                       peek.kind == MODEL_TEXT ? "--llm-model" : "--diffusion-model");
    if (peek.kind == MODEL_PICTURE && peek.format == MODEL_GGUF)
        buf_printf(ret_notes,
                   "Smart fallback: Moving GGUF... from --model to --diffusion-model\n"
                   "%s is a picture model\n",
                   c->model);
    free(*side);
    *side = c->model;
    c->model = mem_strdup("");
    return 0;
}

int config_resolve(struct config *c, struct buf *ret_notes, struct err *err)
{
    resolve_folders(c);
    find_model(c, &c->model);
    find_model(c, &c->llm_model);
    find_model(c, &c->diffusion_model);
    if (place_model(c, ret_notes, err))
        return -1;
    if (check_model(c->llm_model, "--llm-model", MODEL_TEXT, err))
        return -1;
    return check_model(c->diffusion_model, "--diffusion-model", MODEL_PICTURE, err);
}

/* ---- for people ---- */

static const char *value_word(const struct option *o)
{
    if (o->value)
        return o->value;
    return o->type == OPTION_CHOICE ? o->choices : "";
}

static void print_wrapped(struct buf *out, const char *text, size_t column,
                          size_t indent)
{
    const size_t width = 96;

    while (*text) {
        size_t n = strcspn(text, " ");

        if (column + n + 1 > width && column > indent) {
            buf_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            buf_append(out, " ", 1);
            column++;
        }
        buf_append(out, text, n);
        column += n;
        text += n + (text[n] == ' ');
    }
}

void config_print_help(struct buf *out, const char *program)
{
    const size_t indent = 34;

    buf_printf(
        out,
        "usage: %s [options]\n\n"
        "Serves text and pictures on one port. Without options it serves the starter "
        "models on\nhttp://127.0.0.1:1234.\n",
        program);
    for (size_t i = 0; i < option_count; i++) {
        const struct option *o = &options[i];
        size_t start, used;

        if (o->group)
            buf_printf(out, "\n%s\n", o->group);
        start = out->len;
        if (o->alias)
            buf_printf(out, "  %s, --%s %s", o->alias, o->name, value_word(o));
        else
            buf_printf(out, "  --%s %s", o->name, value_word(o));
        used = out->len - start;
        if (used >= indent) {
            buf_append(out, "\n", 1);
            used = 0;
        }
        buf_printf(out, "%*s", (int)(indent - used), "");
        print_wrapped(out, o->help, indent, indent);
        if (*o->standard && o->type != OPTION_SWITCH)
            buf_printf(out, " [%s]", o->standard);
        buf_append(out, "\n", 1);
    }
    buf_printf(
        out, "  --mode MODE                     orchestrator, sd-worker or llm-worker: "
             "be that program\n"
             "  --print-config                  show what is in effect, as YAML\n"
             "  --new-key NAME infer|admin      make a key for a client, and stop\n"
             "  --version, --help\n\n"
             "Every option is also a variable (--listen-port: MYSTI_LISTEN_PORT) and a "
             "key of the file\n(listen-port: 1234). The command line wins over "
             "variables, they win over the file.\n");
}

void config_print(const struct config *c, struct buf *out)
{
    for (size_t i = 0; i < option_count; i++) {
        if (!strcmp(options[i].name, "config"))
            continue;
        if (options[i].group)
            buf_printf(out, "%s# ---- %s ----\n", i ? "\n" : "", options[i].group);
        buf_printf(out, "# %s\n%s: ", options[i].help, options[i].name);
        option_print_value(c, &options[i], out);
        buf_append(out, "\n", 1);
    }
}

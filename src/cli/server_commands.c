/* mysti status, models, load, unload: questions and orders to the server, each one request or a few, printed for
 * people, or with --json as the server gave it for programs. */
#include "base/mem.h"
#include "base/str.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct question {
    const char *server;
    bool json;
    bool force;
    char *operand;
};

/* status, models; load, unload take --force, too */
static const struct args_option ask_options[] = {
    {.name = "json",
     .kind = ARGS_FLAG,
     .at = offsetof(struct question, json),
     .help = "the server's own answer, for programs"},
    {.name = "server",
     .kind = ARGS_STRING,
     .at = offsetof(struct question, server),
     .value = "URL",
     .help = CLIENT_SERVER_HELP},
    {0}};
static const struct args_option order_options[] = {
    {.name = "force",
     .letter = 'f',
     .kind = ARGS_FLAG,
     .at = offsetof(struct question, force),
     .help = "although it is at work: that work fails"},
    {.name = "json",
     .kind = ARGS_FLAG,
     .at = offsetof(struct question, json),
     .help = "the server's own answer, for programs"},
    {.name = "server",
     .kind = ARGS_STRING,
     .at = offsetof(struct question, server),
     .value = "URL",
     .help = CLIENT_SERVER_HELP},
    {0}};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static int print_json(json_t *answer)
{
    char *text = json_dumps(answer, JSON_INDENT(2));

    printf("%s\n", text ? text : "{}");
    free(text);
    json_decref(answer);
    return CLI_OK;
}

static double gib(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key)) / (1024.0 * 1024 * 1024);
}

static void print_worker(const char *title, const json_t *worker)
{
    const char *model = text_of(worker, "model");
    const char *reason = text_of(worker, "reason");

    printf("%-9s %-10s %s\n", title, text_of(worker, "state"),
           *model ? model : "no model");
    if (*reason)
        printf("%-9s %s\n", "", reason);
}

static int status(const struct question *q)
{
    const char *server = client_server(q->server);
    json_t *health;
    json_t *system;
    struct err err = {0};
    int rc = client_get(server, "/health", &health, &err);

    if (rc)
        return client_complain("status", rc, &err);
    if (q->json)
        return print_json(health);
    const json_t *workers = json_object_get(health, "workers");
    bool is_ok = strcmp(text_of(health, "status"), "ok") == 0;

    printf("%-9s %-10s Mysti %s at %s, up %lld s\n", "server",
           text_of(health, "status"), text_of(health, "version"), server,
           (long long)json_integer_value(json_object_get(health, "uptime_s")));
    print_worker("pictures", json_object_get(workers, "sd"));
    print_worker("text", json_object_get(workers, "llm"));
    json_decref(health);
    if (client_get(server, "/v1/system", &system, &err) == CLI_OK) {
        const json_t *memory = json_object_get(system, "memory");

        printf("%-9s %.1f GiB available of %.1f\n", "memory", gib(memory, "available"),
               gib(memory, "total"));
        json_decref(system);
    }
    return is_ok ? CLI_OK : CLI_REFUSED;
}

static int models(const struct question *q)
{
    json_t *answer;
    const json_t *model;
    size_t i;
    struct err err = {0};
    int rc = client_get(client_server(q->server), "/v1/models", &answer, &err);

    if (rc)
        return client_complain("models", rc, &err);
    if (q->json)
        return print_json(answer);
    json_array_foreach(json_object_get(answer, "data"), i, model)
    {
        bool draws = strcmp(text_of(model, "type"), "diffusion") == 0;

        printf("%c %-8s %8.1f MB  %s\n",
               json_is_true(json_object_get(model, "active")) ? '*' : ' ',
               draws ? "pictures" : "text",
               json_number_value(json_object_get(model, "size_bytes")) / 1e6,
               text_of(model, "id"));
    }
    if (i == 0)
        printf("no models; put .gguf, .safetensors or .ckpt files into the server's "
               "model folder\n");
    json_decref(answer);
    return CLI_OK;
}

static int order(const char *command, const struct question *q, const char *path,
                 json_t *body, const char *done)
{
    json_t *answer;
    struct err err = {0};
    int rc = client_post(client_server(q->server), path, body, &answer, &err);

    if (rc)
        return client_complain(command, rc, &err);
    if (q->json)
        return print_json(answer);
    const char *model = text_of(answer, "model");
    printf("%s %s\n", done, *model ? model : "nothing: there was no model");
    json_decref(answer);
    return CLI_OK;
}

static int load(const struct question *q)
{
    return order("load", q, "/v1/models/load",
                 json_pack("{s:s, s:b}", "model", q->operand, "force", q->force),
                 "loaded");
}

static int unload(const struct question *q)
{
    static const struct {
        const char *word;
        const char *path;
    } kinds[] = {{"sd", "/v1/models/unload"},
                 {"pictures", "/v1/models/unload"},
                 {"llm", "/v1/llm/unload"},
                 {"text", "/v1/llm/unload"}};
    const char *word = q->operand ? q->operand : "";
    struct err err = {0};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(word, kinds[i].word) == 0)
            return order("unload", q, kinds[i].path,
                         json_pack("{s:b}", "force", q->force), "unloaded");
    err_set(&err, ERR_INVALID, "'%s' is neither 'sd' (pictures) nor 'llm' (text)",
            word);
    return client_complain("unload", CLI_USAGE, &err);
}

static int run(const struct args_command *command, int argc, char **argv,
               int (*answer)(const struct question *q))
{
    struct question q = {0};
    int rc;

    if (args_parse(command, argc, argv, &q, &rc) == 0) {
        if (q.operand && !str_is_utf8(q.operand, strlen(q.operand))) {
            fprintf(stderr, "mysti %s: the name is not UTF-8\n", command->name);
            rc = CLI_USAGE;
        } else {
            rc = answer(&q);
        }
    }
    free(q.operand);
    return rc;
}

int cli_status(int argc, char **argv)
{
    static const struct args_command command = {
        .name = "status",
        .summary = "Shows the server, its two workers and the memory; fails while one "
                   "is not up.",
        .options = ask_options};

    return run(&command, argc, argv, status);
}

int cli_models(int argc, char **argv)
{
    static const struct args_command command = {
        .name = "models",
        .summary = "Lists the models; '*' marks those that are loaded.",
        .options = ask_options};

    return run(&command, argc, argv, models);
}

int cli_load(int argc, char **argv)
{
    static const struct args_command command = {
        .name = "load",
        .summary = "Loads a model of either kind; NAME as 'mysti models' shows it.",
        .options = order_options,
        .operand = ARGS_ONE,
        .operand_name = "NAME",
        .operand_at = offsetof(struct question, operand)};

    return run(&command, argc, argv, load);
}

int cli_unload(int argc, char **argv)
{
    static const struct args_command command = {
        .name = "unload",
        .summary = "Unloads the picture model (sd) or the text model (llm).",
        .options = order_options,
        .operand = ARGS_ONE,
        .operand_name = "sd|llm",
        .operand_at = offsetof(struct question, operand)};

    return run(&command, argc, argv, unload);
}

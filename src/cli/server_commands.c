/* mysti status, models, load, unload, leave: questions and orders to the server, each one request or a few, printed for
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

/* What waits for leave (--memory-policy ask), with what would happen. */
static void print_questions(const json_t *questions)
{
    const json_t *question, *move;
    size_t i, k;

    json_array_foreach(questions, i, question)
    {
        const json_t *moves = json_object_get(question, "moves");
        long long id = (long long)json_integer_value(json_object_get(question, "id"));

        printf("%-9s %s waits for room: mysti leave yes %lld, or mysti leave no "
               "%lld\n",
               i ? "" : "leave", text_of(question, "for"), id, id);
        json_array_foreach(moves, k, move)
        {
            if (*text_of(move, "of"))
                printf("%-9s   then %s\n", "", text_of(move, "reason"));
        }
    }
}

static int status(const struct question *q)
{
    const char *server = client_server(q->server);
    json_t *health;
    json_t *system, *memory;
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
        const json_t *ram = json_object_get(system, "memory");

        printf("%-9s %.1f GiB available of %.1f\n", "memory", gib(ram, "available"),
               gib(ram, "total"));
        json_decref(system);
    }
    if (client_get(server, "/v1/memory", &memory, &err) == CLI_OK) {
        print_questions(json_object_get(memory, "questions"));
        json_decref(memory); /* a key that is not for this sees no questions */
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
        printf("no models; put .gguf, .safetensors or .ckpt files, or diffusers' "
               "folders, into the server's model folder\n");
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

/* The one that waits, when no id was given. */
static int only_question(const char *server, json_int_t *ret_id, struct err *err)
{
    json_t *memory;
    const json_t *questions;
    size_t count;
    int rc = client_get(server, "/v1/memory", &memory, err);

    if (rc)
        return rc;
    questions = json_object_get(memory, "questions");
    count = json_array_size(questions);
    if (count == 1)
        *ret_id =
            json_integer_value(json_object_get(json_array_get(questions, 0), "id"));
    else
        err_set(err, ERR_NOT_FOUND,
                count ? "%zu wait for leave: say which, 'mysti status' has their "
                        "numbers"
                      : "nothing waits for leave",
                count);
    json_decref(memory);
    return count == 1 ? CLI_OK : CLI_REFUSED;
}

/* "yes", "no 3" */
static int read_leave(const char *words, bool *ret_yes, int64_t *ret_id,
                      struct err *err)
{
    const char *blank = strchr(words, ' ');
    size_t len = blank ? (size_t)(blank - words) : strlen(words);

    *ret_yes = len == 3 && !memcmp(words, "yes", 3);
    *ret_id = 0;
    if (!*ret_yes && !(len == 2 && !memcmp(words, "no", 2)))
        return err_set(err, ERR_INVALID, "'%.*s' is neither 'yes' nor 'no'", (int)len,
                       words);
    return blank ? str_to_int(blank + 1, "ID", 1, INT32_MAX, ret_id, err) : 0;
}

static int leave(const struct question *q)
{
    const char *server = client_server(q->server);
    json_t *answer;
    bool yes;
    json_int_t which;
    int64_t id;
    struct err err = {0};
    int rc;

    if (read_leave(q->operand ? q->operand : "", &yes, &id, &err))
        return client_complain("leave", CLI_USAGE, &err);
    which = id;
    rc = id ? CLI_OK : only_question(server, &which, &err);
    if (!rc)
        rc = client_post(server, "/v1/memory/leave",
                         json_pack("{s:I, s:b}", "id", which, "leave", yes), &answer,
                         &err);
    if (rc)
        return client_complain("leave", rc, &err);
    if (q->json)
        return print_json(answer);
    json_decref(answer);
    printf(yes ? "room is made\n" : "everything stays\n");
    return CLI_OK;
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

int cli_leave(int argc, char **argv)
{
    static const struct args_command command = {
        .name = "leave",
        .summary = "Answers what waits for leave to make others give way (the server's "
                   "--memory-policy ask).",
        .details =
            "'mysti status' shows what would happen. ID may be left out when one "
            "waits alone.\n",
        .options = ask_options,
        .operand = ARGS_WORDS,
        .operand_name = "yes|no [ID]",
        .operand_at = offsetof(struct question, operand)};

    return run(&command, argc, argv, leave);
}

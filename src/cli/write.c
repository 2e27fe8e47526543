/* mysti write: one chat request, its tokens printed as they come. */
#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/args.h"
#include "cli/bar.h"
#include "cli/cli.h"
#include "cli/client.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STDIN_MAX = 1 << 20 };

struct writing {
    const char *server, *model, *system;
    int64_t max_tokens, seed;
    double temperature;
    bool quiet;
    char *idea;

    struct bar bar;
    bool has_text;
    bool ends_in_newline;
    bool is_done;
    struct err failure;
    bool has_failed;
};

static void print_delta(struct writing *w, const json_t *event)
{
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *content =
        json_object_get(json_object_get(choice, "delta"), "content");
    size_t len = json_string_length(content);

    if (!len)
        return;
    bar_clear(&w->bar);
    fwrite(json_string_value(content), 1, len, stdout);
    fflush(stdout);
    w->has_text = true;
    w->ends_in_newline = json_string_value(content)[len - 1] == '\n';
}

static void on_event(void *user, const char *name, const char *data)
{
    struct writing *w = user;
    json_t *event;

    (void)name;
    if (strcmp(data, "[DONE]") == 0) {
        w->is_done = true;
        return;
    }
    event = json_loads(data, 0, NULL);
    if (client_error_of(event, &w->failure))
        w->has_failed = true;
    else
        print_delta(w, event);
    json_decref(event);
}

static void on_comment(void *user, const char *text)
{
    struct writing *w = user;

    if (!w->has_text)
        bar_set(&w->bar, 0, 0, text);
}

static json_t *request(const struct writing *w)
{
    json_t *messages = json_array();
    json_t *body;

    if (w->system)
        json_array_append_new(
            messages, json_pack("{s:s, s:s}", "role", "system", "content", w->system));
    json_array_append_new(messages,
                          json_pack("{s:s, s:s}", "role", "user", "content", w->idea));
    body = json_pack("{s:o, s:b}", "messages", messages, "stream", 1);
    if (w->model)
        json_object_set_new(body, "model", json_string(w->model));
    if (w->max_tokens)
        json_object_set_new(body, "max_tokens", json_integer(w->max_tokens));
    if (w->seed >= 0)
        json_object_set_new(body, "seed", json_integer(w->seed));
    if (w->temperature >= 0)
        json_object_set_new(body, "temperature", json_real(w->temperature));
    return body;
}

/* "-" as the idea: all of standard input */
static void read_idea(struct writing *w)
{
    struct buf text = {0};
    size_t n = 1;

    while (n > 0 && text.len < STDIN_MAX) {
        n = fread(buf_reserve(&text, 4096), 1, 4096, stdin);
        text.len += n;
        text.data[text.len] = '\0';
    }
    free(w->idea);
    w->idea = buf_take(&text);
}

static int run(struct writing *w)
{
    struct sse events = {.on_event = on_event, .on_comment = on_comment, .user = w};
    struct err err = {0};
    int rc;

    if (strcmp(w->idea, "-") == 0)
        read_idea(w);
    if (!str_is_utf8(w->idea, strlen(w->idea)) ||
        (w->system && !str_is_utf8(w->system, strlen(w->system)))) {
        err_set(&err, ERR_INVALID, "the text is not UTF-8");
        return client_complain("write", CLI_USAGE, &err);
    }
    bar_init(&w->bar, w->quiet ? BAR_NEVER : BAR_AUTO);
    rc = client_stream(client_server(w->server), "/v1/chat/completions", request(w),
                       &events, &err);
    bar_clear(&w->bar);
    sse_release(&events);
    if (w->has_text && !w->ends_in_newline)
        printf("\n");
    if (w->has_failed)
        return client_complain("write", CLI_REFUSED, &w->failure);
    if (rc == CLI_OK && !w->is_done) {
        err_set(&err, ERR_BAD_GATEWAY, "the answer broke off");
        rc = CLI_REFUSED;
    }
    return rc == CLI_OK ? rc : client_complain("write", rc, &err);
}

static const struct args_option options[] = {
    {.name = "model",
     .letter = 'm',
     .kind = ARGS_STRING,
     .at = offsetof(struct writing, model),
     .value = "NAME",
     .help = "load this model first if need be"},
    {.name = "system",
     .kind = ARGS_STRING,
     .at = offsetof(struct writing, system),
     .value = "TEXT",
     .help = "a system message before the idea"},
    {.name = "max-tokens",
     .kind = ARGS_INT,
     .at = offsetof(struct writing, max_tokens),
     .value = "N",
     .min = 1,
     .max = 1000000,
     .help = "stop after this many"},
    {.name = "temperature",
     .letter = 't',
     .kind = ARGS_NUMBER,
     .at = offsetof(struct writing, temperature),
     .value = "X",
     .min = 0,
     .max = 5,
     .help = "0 is always the same"},
    {.name = "seed",
     .kind = ARGS_INT,
     .at = offsetof(struct writing, seed),
     .value = "N",
     .min = -1,
     .max = 4294967295,
     .help = "of the sampling"},
    {.name = "quiet",
     .letter = 'q',
     .kind = ARGS_FLAG,
     .at = offsetof(struct writing, quiet),
     .help = "print nothing but the text and errors"},
    {.name = "server",
     .kind = ARGS_STRING,
     .at = offsetof(struct writing, server),
     .value = "URL",
     .help = CLIENT_SERVER_HELP},
    {0}};
static const struct args_command command = {
    .name = "write",
    .summary = "Sends IDEA to the text model and prints its answer as it comes.",
    .details = "IDEA '-' is read from standard input.\n\n"
               "  mysti draw \"$(mysti write 'a boat at night')\" -o boat.png\n",
    .options = options,
    .operand = ARGS_WORDS,
    .operand_name = "IDEA",
    .operand_at = offsetof(struct writing, idea)};

int cli_write(int argc, char **argv)
{
    struct writing w = {.seed = -1, .temperature = -1};
    int rc;

    if (args_parse(&command, argc, argv, &w, &rc) == 0)
        rc = run(&w);
    free(w.idea);
    return rc;
}

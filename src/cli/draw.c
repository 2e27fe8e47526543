/* mysti draw: one picture job, followed by its event stream. The stream's comments carry the place in the queue and
 * the steps and feed the bar; each finished picture is one event and is written at once, so that of four pictures
 * three are there when the fourth fails.
 */
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/args.h"
#include "cli/bar.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/draw_fields.h"
#include "cli/picture.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct draw {
    const char *server, *out, *model;
    int64_t count;
    bool quiet, progress;
    struct draw_values values;
    char *prompt;

    struct bar bar;
    int pictures; /* written so far */
    struct err failure;
    bool has_failed;
};

/* "out.png" -> "out-2.png" when several pictures are wanted */
static char *picture_path(const struct draw *d, int index)
{
    const char *dot = strrchr(file_name(d->out), '.');

    if (d->count <= 1)
        return mem_strdup(d->out);
    if (!dot)
        return mem_printf("%s-%d", d->out, index + 1);
    return mem_printf("%.*s-%d%s", (int)(dot - d->out), d->out, index + 1, dot);
}

static void say_loras(const json_t *loras)
{
    size_t i;
    const json_t *lora;

    json_array_foreach((json_t *)(uintptr_t)loras, i, lora)
    {
        json_int_t matched = json_integer_value(json_object_get(lora, "matched"));
        json_int_t other = json_integer_value(json_object_get(lora, "unmatched"));

        fprintf(stderr, "LoRA %s: %lld of its %lld keys change the model\n",
                json_string_value(json_object_get(lora, "name")), (long long)matched,
                (long long)(matched + other));
    }
}

static void say_embeddings(const json_t *embeddings)
{
    size_t i;
    const json_t *one;

    json_array_foreach((json_t *)(uintptr_t)embeddings, i, one)
    {
        fprintf(stderr, "textual inversion %s: %lld vectors\n",
                json_string_value(json_object_get(one, "name")),
                (long long)json_integer_value(json_object_get(one, "vectors")));
    }
}

static int save(struct draw *d, const json_t *event, struct err *err)
{
    const json_t *index = json_object_get(event, "index");
    const json_t *seed = json_object_get(event, "seed");
    const char *warning = json_string_value(json_object_get(event, "warning"));
    int number = index ? (int)json_integer_value(index) : d->pictures;
    char *path = picture_path(d, number);
    int rc = picture_write(event, path, err);

    bar_clear(&d->bar);
    if (rc == 0 && !d->quiet && strcmp(d->out, "-") != 0)
        printf("%s  seed %lld\n", path, (long long)json_integer_value(seed));
    fflush(stdout);
    if (d->pictures == 0 && !d->quiet) {
        say_loras(json_object_get(event, "loras"));
        say_embeddings(json_object_get(event, "embeddings"));
    }
    if (warning && !d->quiet) /* the server could not keep its own copy */
        fprintf(stderr, "mysti draw: %s\n", warning);
    free(path);
    d->pictures++;
    return rc;
}

static void on_event(void *user, const char *name, const char *data)
{
    struct draw *d = user;
    json_t *event = json_loads(data, 0, NULL);
    const char *type = json_string_value(json_object_get(event, "type"));

    (void)name;
    if (d->has_failed)
        goto out;
    if (client_error_of(event, &d->failure))
        d->has_failed = true;
    else if (type && str_has_suffix(type, ".completed"))
        d->has_failed = save(d, event, &d->failure) != 0;

out:
    json_decref(event);
}

/* "queue position=2", "picture 1/4 step 3/20", "loading 40%", "decoding" */
static void on_comment(void *user, const char *text)
{
    struct draw *d = user;
    char what[96];
    int picture;
    int pictures;
    int step;
    int steps;

    if (sscanf(text, "picture %d/%d step %d/%d", &picture, &pictures, &step, &steps) ==
        4) {
        snprintf(what, sizeof(what), "drawing");
        if (pictures > 1)
            snprintf(what, sizeof(what), "picture %d of %d", picture, pictures);
        bar_set(&d->bar, step, steps, what);
    } else if (sscanf(text, "queue position=%d", &picture) == 1) {
        snprintf(what, sizeof(what), "waiting, %d before this one", picture);
        bar_set(&d->bar, 0, 0, what);
    } else if (strcmp(text, "ping") != 0) {
        bar_set(&d->bar, 0, 0, text);
    }
}

/* NULL, with the reason: a picture to begin with cannot be read, or something is no text */
static json_t *request(const struct draw *d, bool *ret_is_edit, struct err *err)
{
    json_t *body = json_pack("{s:s, s:I, s:b, s:s, s:s*}", "prompt", d->prompt, "n",
                             (json_int_t)d->count, "stream", 1, "response_format",
                             "b64_json", "model", d->model);

    if (body && draw_fields_put(&d->values, body, ret_is_edit, err) == 0)
        return body;
    if (!body)
        err_set(err, ERR_INVALID, "the prompt, or the model's name, is not UTF-8 text");
    json_decref(body);
    return NULL;
}

static int draw(struct draw *d)
{
    struct sse events = {.on_event = on_event, .on_comment = on_comment, .user = d};
    struct err err = {0};
    bool is_edit = false;
    json_t *body;
    int rc;

    if (strcmp(d->out, "-") == 0 && d->count > 1) {
        err_set(&err, ERR_INVALID, "standard output takes one picture, not %lld",
                (long long)d->count);
        return client_complain("draw", CLI_USAGE, &err);
    }
    body = request(d, &is_edit, &err);
    if (!body)
        return client_complain("draw", CLI_USAGE, &err);
    picture_catch_interrupt();
    bar_init(&d->bar, d->quiet ? BAR_NEVER : d->progress ? BAR_ALWAYS : BAR_AUTO);
    bar_set(&d->bar, 0, 0, "connecting");
    rc = client_stream(client_server(d->server),
                       is_edit ? "/v1/images/edits" : "/v1/images/generations", body,
                       &events, &err);
    bar_clear(&d->bar);
    sse_release(&events);
    if (d->has_failed)
        return client_complain("draw", CLI_REFUSED, &d->failure);
    if (rc == CLI_OK && d->pictures < d->count) {
        err_set(&err, ERR_BAD_GATEWAY,
                "the server ended the stream after %d of %lld pictures", d->pictures,
                (long long)d->count);
        rc = CLI_REFUSED;
    }
    return rc == CLI_OK ? rc : client_complain("draw", rc, &err);
}

static const struct args_option first_options[] = {
    {.name = "out",
     .letter = 'o',
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, out),
     .value = "FILE",
     .help = "where the picture goes (mysti.png); '-' is standard output"},
    {.name = "count",
     .letter = 'c',
     .kind = ARGS_INT,
     .at = offsetof(struct draw, count),
     .value = "N",
     .min = 1,
     .max = 10,
     .help = "pictures: FILE-1.png, FILE-2.png, ..."},
    {.name = "model",
     .letter = 'm',
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, model),
     .value = "NAME",
     .help = "load this model first if need be"},
    {.name = "quiet",
     .letter = 'q',
     .kind = ARGS_FLAG,
     .at = offsetof(struct draw, quiet),
     .help = "print nothing but errors"},
    {.name = "progress",
     .kind = ARGS_FLAG,
     .at = offsetof(struct draw, progress),
     .help = "a bar even without a terminal"},
    {.name = "server",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, server),
     .value = "URL",
     .help = CLIENT_SERVER_HELP}};

enum { FIRST_OPTIONS = sizeof(first_options) / sizeof(first_options[0]) };

int cli_draw(int argc, char **argv)
{
    struct args_option options[FIRST_OPTIONS + DRAW_FIELDS_MAX + 1] = {0};
    const struct args_command command = {
        .name = "draw",
        .summary =
            "Draws a picture of PROMPT and writes it as PNG, its settings inside.",
        .details =
            "What is not given is the model's own choice. (x:1.3) in PROMPT counts "
            "more, (x:0.7)\n"
            "less; <lora:NAME:0.8> lays a LoRA over the model. Ctrl-C cancels the "
            "job.\n\n"
            "  mysti draw \"a red circle on a blue background\" -o circle.png\n"
            "  mysti draw \"the same in winter\" -i photo.jpg --strength 0.6\n",
        .options = options,
        .operand = ARGS_WORDS,
        .operand_name = "PROMPT",
        .operand_at = offsetof(struct draw, prompt)};
    struct draw d = {.out = "mysti.png", .count = 1};
    int rc;

    memcpy(options, first_options, sizeof(first_options));
    (void)draw_field_options(offsetof(struct draw, values), options + FIRST_OPTIONS);
    draw_values_init(&d.values);
    if (args_parse(&command, argc, argv, &d, &rc) == 0)
        rc = draw(&d);
    free(d.prompt);
    return rc;
}

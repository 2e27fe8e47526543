/* mysti upscale: a picture is sent, and comes back larger. It is followed as a drawn one is: the stream's comments say
 * which tile it is at. */
#include "base/base64.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/args.h"
#include "cli/bar.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/picture.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES ((size_t)256 * 1024 * 1024)

struct upscale {
    const char *server, *upscaler;
    double factor;
    bool quiet, progress;
    char *paths[2]; /* in, out */

    struct bar bar;
    bool is_done, has_failed;
    struct err failure;
};

static void on_event(void *user, const char *name, const char *data)
{
    struct upscale *u = user;
    json_t *event = json_loads(data, 0, NULL);
    const char *type = json_string_value(json_object_get(event, "type"));
    const char *size = json_string_value(json_object_get(event, "size"));
    const char *warning = json_string_value(json_object_get(event, "warning"));

    (void)name;
    if (!u->has_failed && client_error_of(event, &u->failure)) {
        u->has_failed = true;
    } else if (!u->has_failed && type && strcmp(type, "image_upscale.completed") == 0) {
        u->has_failed = picture_write(event, u->paths[1], &u->failure) != 0;
        u->is_done = true;
        bar_clear(&u->bar);
        if (!u->has_failed && !u->quiet && strcmp(u->paths[1], "-") != 0)
            printf("%s  %s\n", u->paths[1], size ? size : "");
        if (warning && !u->quiet) /* the server could not keep its own copy */
            fprintf(stderr, "mysti upscale: %s\n", warning);
    }
    json_decref(event);
}

/* "queue position=2", "tile 3/12", "preparing" */
static void on_comment(void *user, const char *text)
{
    struct upscale *u = user;
    char what[96];
    int number, count;

    if (sscanf(text, "tile %d/%d", &number, &count) == 2) {
        bar_set(&u->bar, number, count, "upscaling");
    } else if (sscanf(text, "queue position=%d", &number) == 1) {
        snprintf(what, sizeof(what), "waiting, %d before this one", number);
        bar_set(&u->bar, 0, 0, what);
    } else if (strcmp(text, "ping") != 0) {
        bar_set(&u->bar, 0, 0, text);
    }
}

/* NULL with a sentence. */
static json_t *request(const struct upscale *u, struct err *err)
{
    struct buf file = {0}, text = {0};
    json_t *body = NULL;

    if (u->upscaler && !str_is_utf8(u->upscaler, strlen(u->upscaler))) {
        err_set(err, ERR_INVALID, "'%s' is not UTF-8 text", u->upscaler);
    } else if (file_read(u->paths[0], FILE_MAX_BYTES, &file, err) == 0) {
        base64_append(&text, file.data, file.len);
        body = json_pack("{s:s%, s:b, s:s}", "image", buf_str(&text), text.len,
                         "stream", 1, "response_format", "b64_json");
        if (u->upscaler)
            json_object_set_new(body, "upscaler", json_string(u->upscaler));
        if (u->factor > 0)
            json_object_set_new(body, "factor", json_real(u->factor));
    }
    buf_release(&file);
    buf_release(&text);
    return body;
}

static int upscale(struct upscale *u)
{
    struct sse events = {.on_event = on_event, .on_comment = on_comment, .user = u};
    struct err err = {0};
    json_t *body = request(u, &err);
    int rc;

    if (!body)
        return client_complain("upscale", CLI_USAGE, &err);
    picture_catch_interrupt();
    bar_init(&u->bar, u->quiet ? BAR_NEVER : u->progress ? BAR_ALWAYS : BAR_AUTO);
    bar_set(&u->bar, 0, 0, "connecting");
    rc = client_stream(client_server(u->server), "/v1/images/upscale", body, &events,
                       &err);
    bar_clear(&u->bar);
    sse_release(&events);
    if (u->has_failed)
        return client_complain("upscale", CLI_REFUSED, &u->failure);
    if (rc == CLI_OK && !u->is_done) {
        err_set(&err, ERR_BAD_GATEWAY, "the server ended the stream without a picture");
        rc = CLI_REFUSED;
    }
    return rc == CLI_OK ? rc : client_complain("upscale", rc, &err);
}

static const struct args_option options[] = {
    {.name = "upscaler",
     .letter = 'u',
     .kind = ARGS_STRING,
     .at = offsetof(struct upscale, upscaler),
     .value = "NAME",
     .help = "a file in the server's upscaler folder, nearest or lanczos, the default"},
    {.name = "factor",
     .letter = 'f',
     .kind = ARGS_NUMBER,
     .at = offsetof(struct upscale, factor),
     .value = "X",
     .min = 1,
     .max = 8,
     .help = "how many times as large; the upscaler's own, or 2 without one"},
    {.name = "quiet",
     .letter = 'q',
     .kind = ARGS_FLAG,
     .at = offsetof(struct upscale, quiet),
     .help = "print nothing but errors"},
    {.name = "progress",
     .kind = ARGS_FLAG,
     .at = offsetof(struct upscale, progress),
     .help = "a bar even without a terminal"},
    {.name = "server",
     .kind = ARGS_STRING,
     .at = offsetof(struct upscale, server),
     .value = "URL",
     .help = CLIENT_SERVER_HELP},
    {0}};
static const struct args_command command = {
    .name = "upscale",
    .summary =
        "Makes the picture IN (PNG, JPEG, WebP) larger and writes it to OUT as PNG.",
    .details =
        "Upscalers are networks of the ESRGAN family (Real-ESRGAN, ESRGAN) and "
        "Real-ESRGAN's\n"
        "compact ones (.safetensors, .pth):\n"
        "put them into models/upscalers of the server. What they make too large or too "
        "small for\n"
        "--factor is resized. OUT '-' is standard output. Ctrl-C cancels the job.\n\n"
        "  mysti upscale boat.png large.png -u RealESRGAN_x4plus\n"
        "  mysti upscale boat.png twice.png -u RealESRGAN_x4plus --factor 2\n",
    .options = options,
    .operand = ARGS_TWO,
    .operand_name = "IN OUT",
    .operand_at = offsetof(struct upscale, paths)};

int cli_upscale(int argc, char **argv)
{
    struct upscale u = {0};
    int rc;

    if (args_parse(&command, argc, argv, &u, &rc) == 0)
        rc = upscale(&u);
    free(u.paths[0]);
    free(u.paths[1]);
    return rc;
}

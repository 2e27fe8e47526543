/* mysti draw: one picture job, followed by its event stream. The stream's comments carry the place in the queue and
 * the steps and feed the bar; each finished picture is one event and is written at once, so that of four pictures
 * three are there when the fourth fails.
 */
#include "base/file.h"
#include "base/mem.h"
#include "base/sampling.h"
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

struct draw {
    const char *server, *out, *size, *negative, *sampler, *scheduler, *dialect, *rng,
        *model;
    int64_t steps, seed, count, clip_skip, variation_seed;
    double variation, hires, hires_strength;
    int64_t hires_steps;
    const char *hires_upscaler;
    const char *seamless, *prediction;
    int64_t sizes[6];
    double cfg, eta;
    bool quiet, progress;
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
    if (d->pictures == 0 && !d->quiet)
        say_loras(json_object_get(event, "loras"));
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
    else if (type && strcmp(type, "image_generation.completed") == 0)
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

static json_t *hires(const struct draw *d)
{
    json_t *o = json_pack("{s:f}", "scale", d->hires);

    if (d->hires_upscaler)
        json_object_set_new(o, "upscaler", json_string(d->hires_upscaler));
    if (d->hires_steps)
        json_object_set_new(o, "steps", json_integer(d->hires_steps));
    if (d->hires_strength >= 0)
        json_object_set_new(o, "strength", json_real(d->hires_strength));
    return o;
}

static const char *const size_names[] = {"original_height", "original_width",
                                         "crop_top",        "crop_left",
                                         "target_height",   "target_width"};

static json_t *request(const struct draw *d)
{
    json_t *body =
        json_pack("{s:s, s:I, s:b, s:s}", "prompt", d->prompt, "n",
                  (json_int_t)d->count, "stream", 1, "response_format", "b64_json");
    const struct {
        const char *key;
        const char *value;
    } texts[] = {{"size", d->size},
                 {"negative_prompt", d->negative},
                 {"sampler", d->sampler},
                 {"scheduler", d->scheduler},
                 {"dialect", d->dialect},
                 {"rng", d->rng},
                 {"model", d->model},
                 {"seamless", d->seamless},
                 {"prediction", d->prediction}};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].value)
            json_object_set_new(body, texts[i].key, json_string(texts[i].value));
    if (d->steps)
        json_object_set_new(body, "steps", json_integer(d->steps));
    if (d->clip_skip)
        json_object_set_new(body, "clip_skip", json_integer(d->clip_skip));
    if (d->seed >= 0)
        json_object_set_new(body, "seed", json_integer(d->seed));
    if (d->variation > 0)
        json_object_set_new(body, "variation_strength", json_real(d->variation));
    if (d->hires > 0)
        json_object_set_new(body, "hires", hires(d));
    if (d->variation_seed >= 0)
        json_object_set_new(body, "variation_seed", json_integer(d->variation_seed));
    if (d->cfg >= 0)
        json_object_set_new(body, "cfg_scale", json_real(d->cfg));
    if (d->eta >= 0)
        json_object_set_new(body, "eta", json_real(d->eta));
    for (size_t i = 0; i < sizeof(d->sizes) / sizeof(d->sizes[0]); i++)
        if (d->sizes[i] >= 0)
            json_object_set_new(body, size_names[i], json_integer(d->sizes[i]));
    return body;
}

static int check(struct draw *d, struct err *err)
{
    const char *const texts[] = {d->prompt,  d->size,      d->negative,
                                 d->sampler, d->scheduler, d->dialect,
                                 d->rng,     d->model,     d->hires_upscaler};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i] && !str_is_utf8(texts[i], strlen(texts[i])))
            return err_set(err, ERR_INVALID, "'%s' is not UTF-8 text", texts[i]);
    if (strcmp(d->out, "-") == 0 && d->count > 1)
        return err_set(err, ERR_INVALID, "standard output takes one picture, not %lld",
                       (long long)d->count);
    return 0;
}

static int draw(struct draw *d)
{
    struct sse events = {.on_event = on_event, .on_comment = on_comment, .user = d};
    struct err err = {0};
    int rc;

    if (check(d, &err))
        return client_complain("draw", CLI_USAGE, &err);
    picture_catch_interrupt();
    bar_init(&d->bar, d->quiet ? BAR_NEVER : d->progress ? BAR_ALWAYS : BAR_AUTO);
    bar_set(&d->bar, 0, 0, "connecting");
    rc = client_stream(client_server(d->server), "/v1/images/generations", request(d),
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

static const struct args_option options[] = {
    {.name = "out",
     .letter = 'o',
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, out),
     .value = "FILE",
     .help = "where the picture goes (mysti.png); '-' is standard output"},
    {.name = "size",
     .letter = 's',
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, size),
     .value = "WxH",
     .help = "in pixels, multiples of 8"},
    {.name = "steps",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, steps),
     .value = "N",
     .min = 1,
     .max = 150,
     .help = "denoising steps"},
    {.name = "seed",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, seed),
     .value = "N",
     .min = -1,
     .max = 4294967295,
     .help = "the same seed, the same picture"},
    {.name = "variation",
     .kind = ARGS_NUMBER,
     .at = offsetof(struct draw, variation),
     .value = "X",
     .min = 0,
     .max = 1,
     .help = "how far to go from the seed's picture towards another one's"},
    {.name = "variation-seed",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, variation_seed),
     .value = "N",
     .min = -1,
     .max = 4294967295,
     .help = "that other one"},
    {.name = "seamless",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, seamless),
     .value = "SIDES",
     .help = "x, y or both: the picture goes on at the other side, as tiles do"},
    {.name = "hires",
     .kind = ARGS_NUMBER,
     .at = offsetof(struct draw, hires),
     .value = "X",
     .min = 1,
     .max = 8,
     .help = "draw it, make it X times as large, and draw that over once more"},
    {.name = "hires-upscaler",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, hires_upscaler),
     .value = "NAME",
     .help = "latent (the default), latent-nearest, lanczos, nearest or an upscaler"},
    {.name = "hires-steps",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, hires_steps),
     .value = "N",
     .min = 1,
     .max = 150,
     .help = "steps of the second time; else as many as of the first"},
    {.name = "hires-strength",
     .kind = ARGS_NUMBER,
     .at = offsetof(struct draw, hires_strength),
     .value = "X",
     .min = 0,
     .max = 1,
     .help = "how much the second time changes (0.7)"},
    {.name = "cfg",
     .kind = ARGS_NUMBER,
     .at = offsetof(struct draw, cfg),
     .value = "X",
     .min = 0,
     .max = 30,
     .help = "how closely to follow the prompt"},
    {.name = "negative",
     .letter = 'n',
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, negative),
     .value = "TEXT",
     .help = "what should not be in it"},
    {.name = "sampler",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, sampler),
     .value = "NAME",
     .help = SAMPLER_NAMES},
    {.name = "scheduler",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, scheduler),
     .value = "NAME",
     .help = SCHEDULER_NAMES},
    {.name = "eta",
     .kind = ARGS_NUMBER,
     .at = offsetof(struct draw, eta),
     .value = "X",
     .min = 0,
     .max = 10,
     .help = "fresh noise of the samplers that draw some; 0: none"},
    {.name = "dialect",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, dialect),
     .value = "NAME",
     .help = "whose habits where they differ: a1111 or comfy"},
    {.name = "clip-skip",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, clip_skip),
     .value = "N",
     .min = 1,
     .max = 100,
     .help =
         "end the text encoder N - 1 layers early; models of drawings often want 2"},
    {.name = "prediction",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, prediction),
     .value = "WORD",
     .help = "what the model predicts, where its file is wrong: eps or v"},
    {.name = "original-height",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, sizes[0]),
     .value = "N",
     .min = 0,
     .max = 16384,
     .help = "SDXL is told that the training picture was so high"},
    {.name = "original-width",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, sizes[1]),
     .value = "N",
     .min = 0,
     .max = 16384,
     .help = "and so wide"},
    {.name = "crop-top",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, sizes[2]),
     .value = "N",
     .min = 0,
     .max = 16384,
     .help = "that it was cropped so far from above"},
    {.name = "crop-left",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, sizes[3]),
     .value = "N",
     .min = 0,
     .max = 16384,
     .help = "and from the left"},
    {.name = "target-height",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, sizes[4]),
     .value = "N",
     .min = 0,
     .max = 16384,
     .help = "and that a picture so high is wanted"},
    {.name = "target-width",
     .kind = ARGS_INT,
     .at = offsetof(struct draw, sizes[5]),
     .value = "N",
     .min = 0,
     .max = 16384,
     .help = "and so wide"},
    {.name = "rng",
     .kind = ARGS_STRING,
     .at = offsetof(struct draw, rng),
     .value = "NAME",
     .help = "where noise comes from: nv (as on a GPU) or cpu"},
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
     .help = CLIENT_SERVER_HELP},
    {0}};
static const struct args_command command = {
    .name = "draw",
    .summary = "Draws a picture of PROMPT and writes it as PNG, its settings inside.",
    .details = "What is not given is the model's own choice. (x:1.3) in PROMPT counts "
               "more, (x:0.7)\n"
               "less; <lora:NAME:0.8> lays a LoRA over the model. Ctrl-C cancels the "
               "job.\n\n"
               "  mysti draw \"a red circle on a blue background\" -o circle.png\n",
    .options = options,
    .operand = ARGS_WORDS,
    .operand_name = "PROMPT",
    .operand_at = offsetof(struct draw, prompt)};

int cli_draw(int argc, char **argv)
{
    struct draw d = {.out = "mysti.png",
                     .seed = -1,
                     .variation_seed = -1,
                     .sizes = {-1, -1, -1, -1, -1, -1},
                     .count = 1,
                     .cfg = -1,
                     .eta = -1,
                     .hires_strength = -1};
    int rc;

    if (args_parse(&command, argc, argv, &d, &rc) == 0)
        rc = draw(&d);
    free(d.prompt);
    return rc;
}

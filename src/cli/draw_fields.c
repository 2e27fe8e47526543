/* One table: the option, the field of the request that it sets, and the help. A field within an object is written
 * "hires.scale". What the values may be is the server's to say, but for the bounds of numbers, which the help and the
 * sentences about mistakes need here, too. */
#include "cli/draw_fields.h"

#include "base/base64.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/sampling.h"
#include "base/str.h"

#include <math.h>
#include <string.h>

#define FILE_MAX_BYTES ((size_t)256 * 1024 * 1024)
#define SEED_MAX 4294967295

#define TEXT(option, option_letter, field, shown, words)                               \
    {                                                                                  \
        .o = {.name = option,                                                          \
              .letter = option_letter,                                                 \
              .kind = ARGS_STRING,                                                     \
              .value = shown,                                                          \
              .help = words},                                                          \
        .key = field                                                                   \
    }
#define WHOLE(option, field, low, high, words)                                         \
    {                                                                                  \
        .o = {.name = option,                                                          \
              .kind = ARGS_INT,                                                        \
              .value = "N",                                                            \
              .min = low,                                                              \
              .max = high,                                                             \
              .help = words},                                                          \
        .key = field                                                                   \
    }
#define NUMBER(option, field, low, high, words)                                        \
    {                                                                                  \
        .o = {.name = option,                                                          \
              .kind = ARGS_NUMBER,                                                     \
              .value = "X",                                                            \
              .min = low,                                                              \
              .max = high,                                                             \
              .help = words},                                                          \
        .key = field                                                                   \
    }
#define FLAG(option, field, words)                                                     \
    {                                                                                  \
        .o = {.name = option, .kind = ARGS_FLAG, .help = words}, .key = field          \
    }
#define HEAD(words)                                                                    \
    {                                                                                  \
        .heading = words                                                               \
    }

static const struct field {
    struct args_option o;
    const char *key;
    const char *heading; /* no option: those below it come under this */
} fields[] = {
    HEAD("The picture"),
    TEXT("size", 's', "size", "WxH", "in pixels, multiples of 8"),
    TEXT("negative", 'n', "negative_prompt", "TEXT", "what should not be in it"),
    WHOLE("seed", "seed", -1, SEED_MAX, "the same seed, the same picture"),
    NUMBER("variation", "variation_strength", 0, 1,
           "how far to go from the seed's picture towards another one's"),
    WHOLE("variation-seed", "variation_seed", -1, SEED_MAX, "that other one"),
    TEXT("seamless", 0, "seamless", "SIDES",
         "x, y or both: the picture goes on at the other side, as tiles do"),

    HEAD("How it is drawn"),
    WHOLE("steps", "steps", 1, 150, "denoising steps"),
    NUMBER("cfg", "cfg_scale", 0, 30, "how closely to follow the prompt"),
    TEXT("sampler", 0, "sampler", "NAME", SAMPLER_NAMES),
    TEXT("scheduler", 0, "scheduler", "NAME", SCHEDULER_NAMES),
    TEXT("dialect", 0, "dialect", "NAME",
         "whose habits where they differ: a1111 or comfy"),
    WHOLE("clip-skip", "clip_skip", 1, 100,
          "end the text encoder N - 1 layers early; models of drawings often want 2"),
    TEXT("prediction", 0, "prediction", "WORD",
         "what the model predicts, where its file is wrong: eps or v"),
    TEXT("vae", 0, "vae", "NAME",
         "a file in the server's VAE folder, in place of its --vae, or of the "
         "model's own VAE; none: the model's own"),

    HEAD("A picture to begin with"),
    TEXT("image", 'i', NULL, "FILE", "PNG, JPEG or WebP, which is changed"),
    TEXT("mask", 0, NULL, "FILE",
         "white, or what is transparent in it, is drawn anew; the rest stays"),
    NUMBER("strength", "strength", 0, 1, "how much it changes (0.75)"),
    NUMBER("mask-blur", "mask_blur", 0, 256, "softens the mask's edge, in pixels (4)"),
    TEXT("fill", 0, "fill", "WORD",
         "what is under the mask first: original, fill, latent noise, latent nothing"),
    FLAG("only-masked", "only_masked",
         "draw the masked part alone, at the size that is asked for"),
    WHOLE("padding", "padding", 0, 2048, "pixels around it that are seen, too (32)"),
    FLAG("stretch", "crop", "to another shape by stretching, not by cropping"),

    HEAD("Drawn a second time, larger"),
    NUMBER("hires", "hires.scale", 1, 8,
           "draw it, make it X times as large, and draw that over once more"),
    WHOLE("hires-width", "hires.width", 8, 2048,
          "or to this width; with both, what is too much is left out"),
    WHOLE("hires-height", "hires.height", 8, 2048, "or to this height"),
    TEXT("hires-upscaler", 0, "hires.upscaler", "NAME",
         "latent (the default), latent-nearest, lanczos, nearest or an upscaler"),
    WHOLE("hires-steps", "hires.steps", 1, 150,
          "steps of the second time; else as many as of the first"),
    NUMBER("hires-strength", "hires.strength", 0, 1,
           "how much the second time changes (0.7)"),

    HEAD("Details of the sampling (docs/sampling.md)"),
    NUMBER("eta", "eta", 0, 10, "fresh noise of the samplers that draw some; 0: none"),
    NUMBER("s-churn", "s_churn", 0, 1000, "noise added before each step"),
    NUMBER("s-tmin", "s_tmin", 0, 1000, "from this level on"),
    NUMBER("s-tmax", "s_tmax", 0, 1000, "up to this one; 0: no end"),
    NUMBER("s-noise", "s_noise", 0, 10, "fresh noise is multiplied by it"),
    NUMBER("sde-r", "r", 0, 1, "DPM++ SDE: where in a step to look a second time"),
    NUMBER("s-min-uncond", "s_min_uncond", 0, 1000,
           "below this level every second step goes without the negative prompt"),
    NUMBER("rho", "rho", 0, 100,
           "exponent of the schedules karras and polyexponential"),
    WHOLE("ensd", "ensd", 0, SEED_MAX, "added to the seed for the noise of the steps"),
    TEXT("rng", 0, "rng", "NAME", "where noise comes from: nv (as on a GPU) or cpu"),

    FLAG("vae-tiling", "vae_tiling",
         "the VAE works in tiles, even where there is memory for the whole"),

    HEAD("What SDXL is told of sizes"),
    WHOLE("original-height", "original_height", 0, 16384,
          "the training picture was so high"),
    WHOLE("original-width", "original_width", 0, 16384, "and so wide"),
    WHOLE("crop-top", "crop_top", 0, 16384, "it was cropped so far from above"),
    WHOLE("crop-left", "crop_left", 0, 16384, "and from the left"),
    WHOLE("target-height", "target_height", 0, 16384, "a picture so high is wanted"),
    WHOLE("target-width", "target_width", 0, 16384, "and so wide"),
};

enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };
_Static_assert((int)FIELDS <= (int)DRAW_FIELDS_MAX, "more room in draw_fields.h");

void draw_values_init(struct draw_values *values)
{
    for (int i = 0; i < FIELDS; i++) {
        values->of[i] = (union draw_value){0};
        if (fields[i].o.kind == ARGS_INT)
            values->of[i].whole = INT64_MIN;
        else if (fields[i].o.kind == ARGS_NUMBER)
            values->of[i].number = NAN;
    }
}

int draw_field_options(size_t at, struct args_option *ret_options)
{
    const char *heading = NULL;
    int count = 0;

    for (int i = 0; i < FIELDS; i++) {
        if (fields[i].heading) {
            heading = fields[i].heading;
            continue;
        }
        ret_options[count] = fields[i].o;
        ret_options[count].heading = heading;
        ret_options[count++].at = at + (size_t)i * sizeof(union draw_value);
        heading = NULL;
    }
    return count;
}

static bool is_given(int i, const union draw_value *v)
{
    switch (fields[i].o.kind) {
    case ARGS_STRING:
        return v->text != NULL;
    case ARGS_INT:
        return v->whole != INT64_MIN;
    case ARGS_NUMBER:
        return !isnan(v->number);
    case ARGS_FLAG:
        return v->flag;
    }
    return false;
}

static json_t *value_of(int i, const union draw_value *v)
{
    switch (fields[i].o.kind) {
    case ARGS_STRING:
        return json_string(v->text);
    case ARGS_INT:
        return json_integer(v->whole);
    case ARGS_NUMBER:
        return json_real(v->number);
    case ARGS_FLAG:
        return json_boolean(strcmp(fields[i].key, "crop") != 0); /* --stretch */
    }
    return NULL;
}

/* "hires.scale" lies in the object "hires" */
static void put(json_t *body, const char *key, json_t *value)
{
    const char *dot = strchr(key, '.');
    char outer[32];
    json_t *object;

    if (!dot) {
        json_object_set_new(body, key, value);
        return;
    }
    snprintf(outer, sizeof(outer), "%.*s", (int)(dot - key), key);
    object = json_object_get(body, outer);
    if (!object) {
        object = json_object();
        json_object_set_new(body, outer, object);
    }
    json_object_set_new(object, dot + 1, value);
}

static int put_file(json_t *body, const char *key, const char *path, struct err *err)
{
    struct buf file = {0}, text = {0};
    int rc = file_read(path, FILE_MAX_BYTES, &file, err);

    if (!rc) {
        base64_append(&text, buf_str(&file), file.len);
        json_object_set_new(body, key, json_stringn(buf_str(&text), text.len));
    }
    buf_release(&file);
    buf_release(&text);
    return rc;
}

static bool is_of_a_start(const char *option)
{
    static const char *const names[] = {"mask",        "strength", "mask-blur", "fill",
                                        "only-masked", "padding",  "stretch"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(option, names[i]) == 0)
            return true;
    return false;
}

int draw_fields_put(const struct draw_values *values, json_t *body, bool *ret_is_edit,
                    struct err *err)
{
    *ret_is_edit = false;
    for (int i = 0; i < FIELDS; i++) {
        const struct field *f = &fields[i];
        const union draw_value *v = &values->of[i];

        if (f->heading || !is_given(i, v))
            continue;
        if (f->o.kind == ARGS_STRING && !str_is_utf8(v->text, strlen(v->text)))
            return err_set(err, ERR_INVALID, "'%s' is not UTF-8 text", v->text);
        if (strcmp(f->o.name, "image") == 0)
            *ret_is_edit = true;
        else if (!*ret_is_edit && is_of_a_start(f->o.name))
            return err_set(err, ERR_INVALID,
                           "--%s is for a picture that is changed: --image says which",
                           f->o.name);
        if (f->key)
            put(body, f->key, value_of(i, v));
        else if (put_file(body, f->o.name, v->text, err))
            return -1;
    }
    return 0;
}

/* Unknown keys are ignored, as OpenAI's clients expect; known ones are checked strictly, because a number that is
 * silently replaced by another is the kind of help that nobody finds out about. What a request leaves open stays
 * open: the model's own defaults are known to the worker, not here.
 *
 * Where local servers use several names for one thing (steps, sample_steps), the first of the list that is there
 * counts. Samplers and schedules are taken in every spelling that base/sampling.h knows.
 *
 * If you add a field: docs/openapi.yaml (ImageRequest), struct image_request, job_body in queue/run.c.
 */
#include "server/api/image_request.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sampling.h"
#include "server/api/body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HIRES_SCALE_MAX 8
#define UPSCALER_MAX 200 /* bytes of a name */
#define VAE_MAX 200

/* ---- prompts ---- */

static int take_prompts(const json_t *body, const struct image_limits *limits,
                        struct image_request *r, struct err *err)
{
    const char *prompt = NULL, *negative = NULL;

    if (body_text(body, "prompt", IMAGE_PROMPT_MAX, &prompt, err) ||
        body_text(body, "negative_prompt", IMAGE_PROMPT_MAX, &negative, err))
        return -1;
    if (!prompt && limits->needs_no_prompt)
        prompt = "";
    else if (!prompt || !prompt[strspn(prompt, " \t\r\n")])
        return err_set_param(err, ERR_INVALID, "prompt",
                             "prompt is missing: say what is to be drawn");
    r->prompt = mem_strdup(prompt);
    if (negative && *negative)
        r->negative_prompt = mem_strdup(negative);
    return 0;
}

/* ---- size ---- */

static int check_side(const char *name, int64_t side, const struct image_limits *limits,
                      struct err *err)
{
    if (side < IMAGE_SIDE_MIN || side > limits->max_side)
        return err_set_param(err, ERR_INVALID, name,
                             "%s must be from %d to %d pixels, not %lld", name,
                             IMAGE_SIDE_MIN, limits->max_side, (long long)side);
    if (side % 8)
        return err_set_param(
            err, ERR_INVALID, name,
            "%s must be a multiple of 8, not %lld: %lld and %lld are the "
            "nearest",
            name, (long long)side, (long long)(side / 8 * 8),
            (long long)(side / 8 * 8 + 8));
    return 0;
}

/* "512x768" */
static int read_size(const char *size, int64_t *ret_width, int64_t *ret_height,
                     struct err *err)
{
    unsigned w, h;
    int end = 0;
    char shown[64];

    if (sscanf(size, "%6ux%6u%n", &w, &h, &end) == 2 && end > 0 && !size[end] &&
        size[0] >= '0' && size[0] <= '9' && !strpbrk(size, "+- \t")) {
        *ret_width = w;
        *ret_height = h;
        return 0;
    }
    json_t *text = json_string(size);

    err_set_param(err, ERR_INVALID, "size",
                  "size must be WIDTHxHEIGHT, such as 512x512, or auto, not %s",
                  body_shown(text, shown, sizeof(shown)));
    json_decref(text);
    return -1;
}

static int take_size(const json_t *body, const struct image_limits *limits,
                     struct image_request *r, struct err *err)
{
    const char *size = NULL;
    int64_t sized_width = 0, sized_height = 0, width = 0, height = 0;

    if (body_text(body, "size", 32, &size, err) ||
        body_whole(body, "width", 1, 1000000, &width, err) ||
        body_whole(body, "height", 1, 1000000, &height, err))
        return -1;
    if (size && strcmp(size, "auto") != 0) {
        if (read_size(size, &sized_width, &sized_height, err) ||
            check_side("size", sized_width, limits, err) ||
            check_side("size", sized_height, limits, err))
            return -1;
    }
    if ((width && check_side("width", width, limits, err)) ||
        (height && check_side("height", height, limits, err)))
        return -1;
    if (sized_width &&
        ((width && width != sized_width) || (height && height != sized_height)))
        return err_set_param(
            err, ERR_INVALID, "size",
            "size says %lldx%lld, width and height say otherwise: send "
            "one of the two",
            (long long)sized_width, (long long)sized_height);
    r->width = (int)(width ? width : sized_width);
    r->height = (int)(height ? height : sized_height);
    return 0;
}

/* ---- sampling ---- */

static int unknown_word(const char *key, const char *known, const char *word,
                        struct err *err)
{
    char shown[64];
    json_t *text = json_string(word);

    err_set_param(err, ERR_INVALID, key, "%s must be one of %s, not %s", key, known,
                  body_shown(text, shown, sizeof(shown)));
    json_decref(text);
    return -1;
}

static int take_sampler(const json_t *body, struct image_request *r, struct err *err)
{
    static const char *const names[] = {"sampler", "sampling_method", "sampler_name",
                                        NULL};
    const char *key = body_name(body, names), *sampler = NULL, *scheduler = NULL;
    enum sampler known;
    enum scheduler schedule = SCHEDULER_COUNT;

    if (body_text(body, key, 0, &sampler, err) ||
        body_text(body, "scheduler", 0, &scheduler, err))
        return -1;
    if (sampler && sampler_parse(sampler, &known, &schedule, NULL))
        return unknown_word(key, SAMPLER_NAMES, sampler, err);
    if (sampler)
        r->sampler = mem_strdup(sampler_name(known));
    if (scheduler && !strcasecmp(scheduler, "automatic")) {
        if (sampler && schedule == SCHEDULER_COUNT)
            schedule = sampler_scheduler(known);
    } else if (scheduler && scheduler_parse(scheduler, &schedule, NULL)) {
        return unknown_word("scheduler", SCHEDULER_NAMES, scheduler, err);
    }
    if (schedule != SCHEDULER_COUNT)
        r->scheduler = mem_strdup(scheduler_name(schedule));
    return 0;
}

/* ret: NULL for none */
static int take_seamless(const json_t *body, const char **ret, struct err *err)
{
    static const char *const words[] = {"none", "x", "y", "both"};
    const char *seamless = NULL;

    if (body_text(body, "seamless", 0, &seamless, err))
        return -1;
    for (size_t i = 0; seamless && i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcmp(seamless, words[i])) {
            *ret = i ? seamless : NULL;
            return 0;
        }
    return seamless ? unknown_word("seamless", "none, x, y, both", seamless, err) : 0;
}

/* "automatic" is the server's, or the model's own, as NULL is. "none" is the model's own. */
static int take_vae(const json_t *body, struct image_request *r, struct err *err)
{
    const char *name = NULL;

    if (body_text(body, "vae", VAE_MAX, &name, err))
        return -1;
    if (!name || !*name || !strcasecmp(name, "automatic"))
        return 0;
    if (!file_is_confined(name))
        return err_set_param(
            err, ERR_INVALID, "vae",
            "vae must be automatic, none or the name of a file in the VAE "
            "folder, not a path to somewhere else");
    r->vae = mem_strdup(name);
    return 0;
}

static int take_sizes(const json_t *body, struct image_request *r, struct err *err)
{
    for (int i = 0; i < IMAGE_SIZES; i++)
        if (body_whole(body, image_size_names[i], 0, 16384, &r->sizes[i], err))
            return -1;
    return 0;
}

static int take_sampling(const json_t *body, struct image_request *r, struct err *err)
{
    const char *dialect = NULL, *rng = NULL, *seamless = NULL, *prediction = NULL;
    enum dialect known;

    if (body_text(body, "dialect", 0, &dialect, err) ||
        body_text(body, "rng", 0, &rng, err) ||
        body_text(body, "prediction", 0, &prediction, err) ||
        take_seamless(body, &seamless, err) || take_vae(body, r, err) ||
        take_sizes(body, r, err))
        return -1;
    if (dialect && dialect_parse(dialect, &known, NULL))
        return unknown_word("dialect", "a1111, comfy", dialect, err);
    if (rng && strcmp(rng, "nv") != 0 && strcmp(rng, "cpu") != 0)
        return unknown_word("rng", "nv, cpu", rng, err);
    if (prediction && strcmp(prediction, "eps") != 0 && strcmp(prediction, "v") != 0)
        return unknown_word("prediction", "eps, v", prediction, err);
    r->prediction = prediction ? mem_strdup(prediction) : NULL;
    r->dialect = dialect ? mem_strdup(dialect_name(known)) : NULL;
    r->rng = rng ? mem_strdup(rng) : NULL;
    r->seamless = seamless ? mem_strdup(seamless) : NULL;
    if (body_number(body, "eta", 0, 10, &r->eta, err) ||
        body_number(body, "s_churn", 0, 1000, &r->s_churn, err) ||
        body_number(body, "s_tmin", 0, 1000, &r->s_tmin, err) ||
        body_number(body, "s_tmax", 0, 1000, &r->s_tmax, err) ||
        body_number(body, "s_noise", 0, 10, &r->s_noise, err) ||
        body_number(body, "r", 0.01, 1, &r->r, err) ||
        body_number(body, "s_min_uncond", 0, 1000, &r->s_min_uncond, err) ||
        body_number(body, "rho", 0, 100, &r->rho, err) ||
        body_bool(body, "vae_tiling", &r->vae_tiling, err) ||
        body_whole(body, "ensd", 0, UINT32_MAX, &r->ensd, err) ||
        body_whole(body, "clip_skip", 1, 100, &r->clip_skip, err))
        return -1;
    return 0;
}

/* One seed, or a list with one for each picture: then there are as many as it has. */
static int take_seed(const json_t *body, const struct image_limits *limits,
                     int64_t said, struct image_request *r, struct err *err)
{
    json_t *list = json_object_get(body, "seed");
    size_t given = json_array_size(list), i;
    json_t *seed;
    char shown[64];

    if (!json_is_array(list))
        return body_whole(body, "seed", -1, UINT32_MAX, &r->seed, err);
    if (given < 1 || given > (size_t)limits->max_count ||
        (said && (size_t)said != given))
        return err_set_param(err, ERR_INVALID, "seed",
                             "seed has %zu numbers: one for each of %s%lld pictures is "
                             "expected",
                             given, said ? "" : "1 to ",
                             said ? (long long)said : (long long)limits->max_count);
    r->seeds = mem_alloc(given * sizeof(*r->seeds));
    json_array_foreach(list, i, seed)
    {
        r->seeds[i] = json_integer_value(seed);
        if (!json_is_integer(seed) || r->seeds[i] < 0 || r->seeds[i] > UINT32_MAX)
            return err_set_param(err, ERR_INVALID, "seed",
                                 "seed must be whole numbers from 0 to %u, not %s",
                                 UINT32_MAX, body_shown(seed, shown, sizeof(shown)));
    }
    r->seed = r->seeds[0];
    r->count = (int)given;
    return 0;
}

static int take_numbers(const json_t *body, const struct image_limits *limits,
                        struct image_request *r, struct err *err)
{
    static const char *const count_names[] = {"n", "batch_count", NULL};
    static const char *const step_names[] = {"steps", "sample_steps", NULL};
    static const char *const scale_names[] = {"cfg_scale", "guidance_scale", NULL};
    int64_t count = 0, steps = 0;

    if (body_whole(body, body_name(body, count_names), 1, limits->max_count, &count,
                   err) ||
        body_whole(body, body_name(body, step_names), 1, limits->max_steps, &steps,
                   err) ||
        body_number(body, body_name(body, scale_names), 0, 30, &r->cfg_scale, err) ||
        body_whole(body, "variation_seed", -1, UINT32_MAX, &r->variation_seed, err) ||
        body_number(body, "variation_strength", 0, 1, &r->variation_strength, err) ||
        take_seed(body, limits, count, r, err))
        return -1;
    if (count)
        r->count = (int)count;
    r->steps = (int)steps;
    return 0;
}

/* ---- hires fix ---- */

static int take_hires_upscaler(const json_t *o, struct image_hires *h, struct err *err)
{
    const char *name = NULL;

    if (body_text(o, "upscaler", UPSCALER_MAX, &name, err))
        return -1;
    if (name && !file_is_confined(name))
        return err_set_param(
            err, ERR_INVALID, "upscaler",
            "upscaler must be latent, latent-nearest, lanczos, nearest "
            "or the name of a file in the upscaler folder, not a path "
            "to somewhere else");
    h->upscaler = name && *name ? mem_strdup(name) : NULL;
    return 0;
}

static int take_hires_size(const json_t *o, const struct image_limits *limits,
                           struct image_hires *h, struct err *err)
{
    int64_t width = 0, height = 0;

    if (body_number(o, "scale", 1, HIRES_SCALE_MAX, &h->scale, err) ||
        body_whole(o, "width", 1, 1000000, &width, err) ||
        body_whole(o, "height", 1, 1000000, &height, err) ||
        (width && check_side("width", width, limits, err)) ||
        (height && check_side("height", height, limits, err)))
        return -1;
    if (h->scale > 0 && (width || height))
        return err_set_param(err, ERR_INVALID, "scale",
                             "it has a scale and a size: send one of the two");
    h->width = (int)width;
    h->height = (int)height;
    if (!width && !height && !(h->scale > 0))
        h->scale = 2;
    return 0;
}

/* "hires": {"scale": 2, ...}; what is wrong in it is the fault of "hires" */
static int take_hires(const json_t *body, const struct image_limits *limits,
                      struct image_request *r, struct err *err)
{
    static const char *const names[] = {"strength", "denoising_strength", NULL};
    const json_t *o = json_object_get(body, "hires");
    bool is_enabled = true;
    int64_t steps = 0;

    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return err_set_param(err, ERR_INVALID, "hires",
                             "hires must be an object, such as {\"scale\": 2}");
    if (body_bool(o, "enabled", &is_enabled, err) == 0 && !is_enabled)
        return 0;
    if (take_hires_size(o, limits, &r->hires, err) == 0 &&
        take_hires_upscaler(o, &r->hires, err) == 0 &&
        body_whole(o, "steps", 0, limits->max_steps, &steps, err) == 0 &&
        body_number(o, body_name(o, names), 0, 1, &r->hires.strength, err) == 0) {
        r->hires.steps = (int)steps;
        return 0;
    }
    if (err)
        snprintf(err->param, sizeof(err->param), "hires");
    return err_wrap(err, "hires");
}

/* ---- how it is to be answered ---- */

int image_delivery_from_body(const json_t *body, struct image_ask *ask, struct err *err)
{
    const char *response = NULL, *output = NULL, *background = NULL;
    int64_t partial = 0;

    if (body_text(body, "response_format", 0, &response, err) ||
        body_text(body, "output_format", 0, &output, err) ||
        body_text(body, "background", 0, &background, err) ||
        body_bool(body, "stream", &ask->stream, err) ||
        body_whole(body, "partial_images", 0, IMAGE_PARTIAL_MAX, &partial, err))
        return -1;
    ask->partial_images = (int)partial;
    if (output && strcmp(output, "png") != 0)
        return unknown_word("output_format", "png (the only format for now)", output,
                            err);
    if (background && !strcmp(background, "transparent"))
        return unknown_word("background", "opaque, auto", background, err);
    if (response && !strcmp(response, "url"))
        ask->delivery = IMAGE_AS_URL;
    else if (response && strcmp(response, "b64_json") != 0)
        return unknown_word("response_format", "b64_json, url", response, err);
    return 0;
}

int image_ask_from_body(const json_t *body, const struct image_limits *limits,
                        struct image_ask *ret, struct err *err)
{
    struct image_ask ask = {.request = IMAGE_REQUEST_DEFAULT};
    const char *model = NULL;

    if (take_prompts(body, limits, &ask.request, err) ||
        take_size(body, limits, &ask.request, err) ||
        take_sampler(body, &ask.request, err) ||
        take_sampling(body, &ask.request, err) ||
        take_numbers(body, limits, &ask.request, err) ||
        take_hires(body, limits, &ask.request, err) ||
        image_delivery_from_body(body, &ask, err) ||
        body_text(body, "model", 0, &model, err)) {
        image_ask_release(&ask);
        return -1;
    }
    ask.model = model && *model ? mem_strdup(model) : NULL;
    *ret = ask;
    return 0;
}

int image_ask_parse(const char *data, size_t len, const struct image_limits *limits,
                    struct image_ask *ret, struct err *err)
{
    json_t *body = body_parse(data, len, err);
    int rc;

    if (!body)
        return -1;
    rc = image_ask_from_body(body, limits, ret, err);
    json_decref(body);
    return rc;
}

void image_ask_release(struct image_ask *ask)
{
    image_request_release(&ask->request);
    free(ask->model);
    ask->model = NULL;
}

#include "server/queue/job.h"

#include "base/mem.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

const char *job_step_word(enum job_step step)
{
    static const char *const words[] = {
#define X(name, word, label) word,
        JOB_STEPS(X)
#undef X
    };
    return words[step];
}

const char *job_step_label(enum job_step step)
{
    static const char *const labels[] = {
#define X(name, word, label) label,
        JOB_STEPS(X)
#undef X
    };
    return labels[step];
}

void image_request_release(struct image_request *r)
{
    free(r->prompt);
    free(r->negative_prompt);
    free(r->model_path);
    free(r->sampler);
    free(r->scheduler);
    free(r->dialect);
    free(r->rng);
    free(r->prediction);
    free(r->vae);
    free(r->seamless);
    free(r->seeds);
    free(r->start.image);
    free(r->start.mask);
    free(r->start.fill);
    free(r->upscale.upscaler);
    free(r->hires.upscaler);
    *r = (struct image_request)IMAGE_REQUEST_DEFAULT;
}

static void put_text(json_t *o, const char *key, const char *text)
{
    if (text)
        json_object_set_new(o, key, json_string(text));
}

static const struct {
    const char *name;
    size_t at;
} numbers[] = {
    {"eta", offsetof(struct image_request, eta)},
    {"s_churn", offsetof(struct image_request, s_churn)},
    {"s_tmin", offsetof(struct image_request, s_tmin)},
    {"s_tmax", offsetof(struct image_request, s_tmax)},
    {"s_noise", offsetof(struct image_request, s_noise)},
    {"r", offsetof(struct image_request, r)},
    {"s_min_uncond", offsetof(struct image_request, s_min_uncond)},
    {"rho", offsetof(struct image_request, rho)},
    {"variation_strength", offsetof(struct image_request, variation_strength)},
};

const char *const image_size_names[IMAGE_SIZES] = {"original_height", "original_width",
                                                   "crop_top",        "crop_left",
                                                   "target_height",   "target_width"};

void image_request_put_sampling(json_t *o, const struct image_request *r)
{
    put_text(o, "sampler", r->sampler);
    put_text(o, "scheduler", r->scheduler);
    put_text(o, "dialect", r->dialect);
    put_text(o, "rng", r->rng);
    put_text(o, "seamless", r->seamless);
    put_text(o, "prediction", r->prediction);
    put_text(o, "vae", r->vae);
    for (size_t i = 0; i < IMAGE_SIZES; i++)
        if (r->sizes[i] >= 0)
            json_object_set_new(o, image_size_names[i], json_integer(r->sizes[i]));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        double value;

        memcpy(&value, (const char *)r + numbers[i].at, sizeof(value));
        if (value >= 0)
            json_object_set_new(o, numbers[i].name, json_real(value));
    }
    if (r->vae_tiling)
        json_object_set_new(o, "vae_tiling", json_true());
    if (r->ensd >= 0)
        json_object_set_new(o, "ensd", json_integer(r->ensd));
    if (r->clip_skip >= 0)
        json_object_set_new(o, "clip_skip", json_integer(r->clip_skip));
}

void image_request_put_upscale(json_t *o, const struct image_request *r)
{
    if (r->upscale.upscaler)
        json_object_set_new(o, "upscale",
                            json_pack("{s:s, s:f}", "upscaler", r->upscale.upscaler,
                                      "factor", r->upscale.factor));
}

void image_request_put_hires(json_t *o, const struct image_request *r)
{
    const struct image_hires *h = &r->hires;
    json_t *hires;

    if (!(h->scale > 0) && !h->width && !h->height)
        return;
    hires = json_object();
    if (h->scale > 0)
        json_object_set_new(hires, "scale", json_real(h->scale));
    if (h->width)
        json_object_set_new(hires, "width", json_integer(h->width));
    if (h->height)
        json_object_set_new(hires, "height", json_integer(h->height));
    put_text(hires, "upscaler", h->upscaler);
    if (h->steps)
        json_object_set_new(hires, "steps", json_integer(h->steps));
    if (h->strength >= 0)
        json_object_set_new(hires, "strength", json_real(h->strength));
    json_object_set_new(o, "hires", hires);
}

void image_request_put_start(json_t *o, const struct image_request *r)
{
    const struct image_start *s = &r->start;
    json_t *start;

    if (!s->image)
        return;
    start = json_pack("{s:s, s:b, s:b}", "image", s->image, "crop", s->is_cropped,
                      "only_masked", s->only_masked);
    put_text(start, "mask", s->mask);
    put_text(start, "fill", s->fill);
    if (s->strength >= 0)
        json_object_set_new(start, "strength", json_real(s->strength));
    if (s->mask_blur >= 0)
        json_object_set_new(start, "mask_blur", json_real(s->mask_blur));
    if (s->padding >= 0)
        json_object_set_new(start, "padding", json_integer(s->padding));
    json_object_set_new(o, "start", start);
}

json_t *image_request_seeds(const struct image_request *r, int first)
{
    json_t *seeds = json_array();

    for (int i = first; i < r->count; i++)
        json_array_append_new(seeds, json_integer(r->seeds[i]));
    return seeds;
}

json_t *image_request_json(const struct image_request *r)
{
    json_t *o =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:f, s:I}", "prompt", r->prompt, "width",
                  r->width, "height", r->height, "steps", r->steps, "n", r->count,
                  "cfg_scale", r->cfg_scale, "seed", (json_int_t)r->seed);

    put_text(o, "negative_prompt", r->negative_prompt);
    put_text(o, "model", r->model_path);
    if (r->variation_seed >= 0)
        json_object_set_new(o, "variation_seed", json_integer(r->variation_seed));
    if (r->seeds)
        json_object_set_new(o, "seeds", image_request_seeds(r, 0));
    image_request_put_sampling(o, r);
    image_request_put_start(o, r);
    image_request_put_upscale(o, r);
    image_request_put_hires(o, r);
    return o;
}

static char *take_text(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));

    return text ? mem_strdup(text) : NULL;
}

static int64_t take_number(const json_t *o, const char *key, int64_t fallback)
{
    const json_t *v = json_object_get(o, key);

    return json_is_integer(v) ? json_integer_value(v) : fallback;
}

static void take_sampling(const json_t *o, struct image_request *r)
{
    r->sampler = take_text(o, "sampler");
    r->scheduler = take_text(o, "scheduler");
    r->dialect = take_text(o, "dialect");
    r->rng = take_text(o, "rng");
    r->seamless = take_text(o, "seamless");
    r->prediction = take_text(o, "prediction");
    r->vae = take_text(o, "vae");
    for (size_t i = 0; i < IMAGE_SIZES; i++)
        r->sizes[i] = take_number(o, image_size_names[i], -1);
    r->vae_tiling = json_is_true(json_object_get(o, "vae_tiling"));
    r->ensd = take_number(o, "ensd", -1);
    r->clip_skip = take_number(o, "clip_skip", -1);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        const json_t *v = json_object_get(o, numbers[i].name);
        double value = json_number_value(v);

        if (json_is_number(v))
            memcpy((char *)r + numbers[i].at, &value, sizeof(value));
    }
}

static double take_real(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : -1;
}

static void take_start(const json_t *o, struct image_start *s)
{
    s->image = take_text(o, "image");
    s->mask = take_text(o, "mask");
    s->fill = take_text(o, "fill");
    s->strength = take_real(o, "strength");
    s->mask_blur = take_real(o, "mask_blur");
    s->padding = (int)take_number(o, "padding", -1);
    s->is_cropped = json_is_true(json_object_get(o, "crop"));
    s->only_masked = json_is_true(json_object_get(o, "only_masked"));
}

static int64_t *seeds_of(const json_t *list)
{
    size_t count = json_array_size(list);
    int64_t *seeds = mem_alloc((count + 1) * sizeof(*seeds));

    for (size_t i = 0; i < count; i++)
        seeds[i] = json_integer_value(json_array_get(list, i));
    return seeds;
}

static void take_upscale(const json_t *o, struct image_upscale *u)
{
    u->upscaler = take_text(o, "upscaler");
    u->factor = json_number_value(json_object_get(o, "factor"));
}

static void take_hires(const json_t *o, struct image_hires *h)
{
    h->scale = json_number_value(json_object_get(o, "scale"));
    h->width = (int)take_number(o, "width", 0);
    h->height = (int)take_number(o, "height", 0);
    h->upscaler = take_text(o, "upscaler");
    h->steps = (int)take_number(o, "steps", 0);
    h->strength = take_real(o, "strength");
}

int image_request_from_json(const json_t *o, struct image_request *ret, struct err *err)
{
    struct image_request r = IMAGE_REQUEST_DEFAULT;
    const json_t *scale = json_object_get(o, "cfg_scale");
    int64_t count = take_number(o, "n", 1);

    r.prompt = take_text(o, "prompt");
    if (!r.prompt || count < 1 || count > 1000) {
        free(r.prompt);
        return err_set(err, ERR_INTERNAL,
                       "what was stored of the job is no picture request");
    }
    r.negative_prompt = take_text(o, "negative_prompt");
    r.model_path = take_text(o, "model");
    take_sampling(o, &r);
    if (json_is_object(json_object_get(o, "start")))
        take_start(json_object_get(o, "start"), &r.start);
    take_upscale(json_object_get(o, "upscale"), &r.upscale);
    take_hires(json_object_get(o, "hires"), &r.hires);
    r.width = (int)take_number(o, "width", 0);
    r.height = (int)take_number(o, "height", 0);
    r.steps = (int)take_number(o, "steps", 0);
    r.count = (int)count;
    r.cfg_scale = json_is_number(scale) ? json_number_value(scale) : -1;
    r.seed = take_number(o, "seed", 0);
    r.variation_seed = take_number(o, "variation_seed", -1);
    if (json_array_size(json_object_get(o, "seeds")) == (size_t)r.count)
        r.seeds = seeds_of(json_object_get(o, "seeds"));
    *ret = r;
    return 0;
}

/* The server has checked a job before it sends it, but the worker trusts nobody: every field has its type checked
 * here, every number fits an int, and what the values may be is the engine's to say (engine_job_check). Unknown
 * fields are passed over, so that a newer server can talk to an older worker. */
#include "sd_worker/request.h"

#include "base/file.h"
#include "base/mem.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define FILE_MAX_BYTES ((size_t)256 * 1024 * 1024)

static int take_string(const json_t *object, const char *key, char **ret,
                       struct err *err)
{
    const json_t *value = json_object_get(object, key);

    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value))
        return err_set_param(err, ERR_INVALID, key, "'%s' must be a string", key);
    *ret = mem_strdup(json_string_value(value));
    return 0;
}

/* ret stays as it is when the field is absent */
static int take_integer(const json_t *object, const char *key, int64_t min, int64_t max,
                        int64_t *ret, struct err *err)
{
    const json_t *value = json_object_get(object, key);
    double number = json_number_value(value);
    bool is_whole =
        json_is_integer(value) ||
        (json_is_real(value) && fabs(number) < 0x1p53 && trunc(number) == number);

    if (!value || json_is_null(value))
        return 0;
    if (!is_whole)
        return err_set_param(err, ERR_INVALID, key, "'%s' must be a whole number", key);
    int64_t whole =
        json_is_integer(value) ? json_integer_value(value) : (int64_t)number;
    if (whole < min || whole > max)
        return err_set_param(err, ERR_INVALID, key,
                             "'%s' is %lld, which is out of range", key,
                             (long long)whole);
    *ret = whole;
    return 0;
}

static int take_int(const json_t *object, const char *key, int *ret, struct err *err)
{
    int64_t value = *ret;

    if (take_integer(object, key, 0, INT_MAX, &value, err))
        return -1;
    *ret = (int)value;
    return 0;
}

static int take_bool(const json_t *object, const char *key, bool *ret, struct err *err)
{
    const json_t *value = json_object_get(object, key);

    if (!value || json_is_null(value))
        return 0;
    if (!json_is_boolean(value))
        return err_set_param(err, ERR_INVALID, key, "'%s' must be true or false", key);
    *ret = json_is_true(value);
    return 0;
}

static int take_scale(const json_t *object, const char *key, double *ret,
                      struct err *err)
{
    const json_t *value = json_object_get(object, key);

    if (!value || json_is_null(value))
        return 0;
    if (!json_is_number(value) || json_number_value(value) < 0)
        return err_set_param(err, ERR_INVALID, key, "'%s' must be a number from 0 on",
                             key);
    *ret = json_number_value(value);
    return 0;
}

/* "seeds": one for each picture, after "count" */
static int take_seeds(const json_t *object, struct request *r, struct err *err)
{
    const json_t *list = json_object_get(object, "seeds");
    size_t count = json_array_size(list);

    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list) || r->count < 0 || count != (size_t)r->count)
        return err_set_param(
            err, ERR_INVALID, "seeds",
            "'seeds' must be a list of %d whole numbers, as 'count' says",
            r->count < 0 ? 1 : r->count);
    r->seeds = mem_alloc((count + 1) * sizeof(*r->seeds));
    for (size_t i = 0; i < count; i++) {
        const json_t *seed = json_array_get(list, i);

        if (!json_is_integer(seed))
            return err_set_param(err, ERR_INVALID, "seeds",
                                 "'seeds' must be whole numbers");
        r->seeds[i] = json_integer_value(seed);
    }
    return 0;
}

static int take_sizes(struct request *r, const json_t *o, struct err *err)
{
    for (int i = 0; i < ENGINE_SIZES; i++)
        if (take_int(o, engine_size_names[i], &r->sizes[i], err))
            return -1;
    return 0;
}

static int take_fields(struct request *r, const json_t *o, struct err *err)
{
    if (take_string(o, "prompt", &r->prompt, err) ||
        take_string(o, "negative_prompt", &r->negative_prompt, err) ||
        take_string(o, "sampler", &r->sampler, err) ||
        take_string(o, "scheduler", &r->scheduler, err) ||
        take_string(o, "rng", &r->rng, err) ||
        take_string(o, "dialect", &r->dialect, err) ||
        take_string(o, "seamless", &r->seamless, err) ||
        take_string(o, "prediction", &r->prediction, err) ||
        take_string(o, "vae", &r->vae, err) || take_sizes(r, o, err) ||
        take_scale(o, "eta", &r->eta, err) ||
        take_scale(o, "s_churn", &r->s_churn, err) ||
        take_scale(o, "s_tmin", &r->s_tmin, err) ||
        take_scale(o, "s_tmax", &r->s_tmax, err) ||
        take_scale(o, "s_noise", &r->s_noise, err) || take_scale(o, "r", &r->r, err) ||
        take_scale(o, "s_min_uncond", &r->s_min_uncond, err) ||
        take_scale(o, "rho", &r->rho, err) ||
        take_bool(o, "vae_tiling", &r->vae_tiling, err) ||
        take_integer(o, "ensd", 0, INT64_MAX, &r->ensd, err) ||
        take_integer(o, "clip_skip", 1, 1000, &r->clip_skip, err))
        return -1;
    if (take_int(o, "width", &r->width, err) ||
        take_int(o, "height", &r->height, err) ||
        take_int(o, "steps", &r->steps, err) || take_int(o, "count", &r->count, err) ||
        take_scale(o, "cfg_scale", &r->cfg_scale, err) ||
        take_integer(o, "seed", -1, INT64_MAX, &r->seed, err) ||
        take_seeds(o, r, err) ||
        take_integer(o, "variation_seed", -1, INT64_MAX, &r->variation_seed, err) ||
        take_scale(o, "variation_strength", &r->variation_strength, err) ||
        take_integer(o, "budget_bytes", 0, INT64_MAX, &r->budget_bytes, err) ||
        take_integer(o, "preview_ms", -1, INT_MAX, &r->preview_ms, err))
        return -1;
    return 0;
}

static int take_path(const json_t *object, const char *key, char **ret, struct err *err)
{
    if (take_string(object, key, ret, err))
        return -1;
    if (*ret && (*ret)[0] != '/')
        return err_set_param(err, ERR_INVALID, key, "'%s' must be an absolute path",
                             key);
    return 0;
}

/* "start": {"image": "/path", ...} */
static int take_start(struct request *r, const json_t *job, struct err *err)
{
    const json_t *o = json_object_get(job, "start");

    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return err_set_param(err, ERR_INVALID, "start", "'start' must be an object");
    if (take_path(o, "image", &r->image, err) || take_path(o, "mask", &r->mask, err) ||
        take_string(o, "fill", &r->fill, err) ||
        take_scale(o, "strength", &r->strength, err) ||
        take_scale(o, "mask_blur", &r->mask_blur, err) ||
        take_int(o, "padding", &r->padding, err) ||
        take_bool(o, "crop", &r->is_cropped, err) ||
        take_bool(o, "only_masked", &r->only_masked, err))
        return -1;
    if (!r->image)
        return err_set_param(err, ERR_INVALID, "image", "'start' has no 'image'");
    return 0;
}

/* "upscale": {"upscaler": "lanczos", "factor": 2} */
static int take_upscale(struct request *r, const json_t *job, struct err *err)
{
    const json_t *o = json_object_get(job, "upscale");

    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return err_set_param(err, ERR_INVALID, "upscale",
                             "'upscale' must be an object");
    if (take_string(o, "upscaler", &r->upscaler, err) ||
        take_scale(o, "factor", &r->factor, err))
        return -1;
    if (!r->upscaler || !file_is_confined(r->upscaler))
        return err_set_param(err, ERR_INVALID, "upscaler",
                             "'upscale' needs an 'upscaler', which is no path to "
                             "somewhere else");
    if (!r->image)
        return err_set_param(err, ERR_INVALID, "image",
                             "'upscale' needs a picture: 'start' with its 'image'");
    return 0;
}

/* "hires": {"scale": 2, "upscaler": "latent", ...} */
static int take_hires(struct request *r, const json_t *job, struct err *err)
{
    const json_t *o = json_object_get(job, "hires");

    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return err_set_param(err, ERR_INVALID, "hires", "'hires' must be an object");
    if (take_scale(o, "scale", &r->hires.scale, err) ||
        take_int(o, "width", &r->hires.width, err) ||
        take_int(o, "height", &r->hires.height, err) ||
        take_int(o, "steps", &r->hires.steps, err) ||
        take_scale(o, "strength", &r->hires.strength, err) ||
        take_string(o, "upscaler", &r->hires_upscaler, err))
        return -1;
    if (r->hires_upscaler && !file_is_confined(r->hires_upscaler))
        return err_set_param(err, ERR_INVALID, "hires",
                             "the upscaler of 'hires' is no path to somewhere else");
    return 0;
}

int request_parse(struct request *ret, enum request_kind kind, const char *json,
                  size_t len, struct err *err)
{
    json_error_t error;
    json_t *object = json_loadb(json, len, JSON_REJECT_DUPLICATES, &error);
    int rc;

    *ret = (struct request){.width = -1,
                            .height = -1,
                            .steps = -1,
                            .count = -1,
                            .cfg_scale = -1,
                            .seed = -1,
                            .variation_seed = -1,
                            .variation_strength = -1,
                            .strength = -1,
                            .mask_blur = -1,
                            .padding = -1,
                            .eta = -1,
                            .s_churn = -1,
                            .s_tmin = -1,
                            .s_tmax = -1,
                            .s_noise = -1,
                            .r = -1,
                            .s_min_uncond = -1,
                            .rho = -1,
                            .ensd = -1,
                            .hires = {.strength = -1},
                            .sizes = {-1, -1, -1, -1, -1, -1},
                            .budget_bytes = -1,
                            .preview_ms = -1};
    if (!object)
        return err_set(err, ERR_INVALID, "the job is not JSON: line %d, column %d: %s",
                       error.line, error.column, error.text);
    if (!json_is_object(object))
        rc = err_set(err, ERR_INVALID, "the job must be a JSON object");
    else
        rc = take_fields(ret, object, err) || take_start(ret, object, err) ||
                     take_upscale(ret, object, err) || take_hires(ret, object, err)
                 ? -1
                 : 0;
    json_decref(object);
    if (rc == 0 && kind == REQUEST_GENERATE && !ret->prompt && !ret->upscaler)
        rc = err_set_param(err, ERR_INVALID, "prompt", "the job has no 'prompt'");
    return rc;
}

static void take_over(double *field, double asked)
{
    if (asked >= 0)
        *field = asked;
}

static void sampling_job(const struct request *r, struct engine_job *job)
{
    if (r->sampler)
        job->sampler = r->sampler;
    if (r->scheduler)
        job->scheduler = r->scheduler;
    if (r->rng)
        job->rng = r->rng;
    if (r->dialect)
        job->dialect = r->dialect;
    take_over(&job->eta, r->eta);
    take_over(&job->s_churn, r->s_churn);
    take_over(&job->s_tmin, r->s_tmin);
    take_over(&job->s_tmax, r->s_tmax);
    take_over(&job->s_noise, r->s_noise);
    take_over(&job->r, r->r);
    take_over(&job->s_min_uncond, r->s_min_uncond);
    take_over(&job->rho, r->rho);
    job->vae_tiling = r->vae_tiling;
    if (r->ensd >= 0)
        job->ensd = r->ensd;
    job->clip_skip = (int)r->clip_skip;
    job->prediction = r->prediction;
    job->vae = r->vae;
    memcpy(job->sizes, r->sizes, sizeof(job->sizes));
}

void request_job(const struct request *r, const struct engine_model *model,
                 struct engine_job *ret_job)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = r->prompt ? r->prompt : "";
    job.seed = r->seed;
    job.seeds = r->seeds;
    job.budget_bytes = r->budget_bytes > 0 ? (uint64_t)r->budget_bytes : 0;
    job.variation_seed = r->variation_seed;
    take_over(&job.variation_strength, r->variation_strength);
    if (r->negative_prompt)
        job.negative_prompt = r->negative_prompt;
    sampling_job(r, &job);
    if (r->width >= 0)
        job.width = r->width;
    if (r->height >= 0)
        job.height = r->height;
    if (r->steps >= 0)
        job.steps = r->steps;
    if (r->count >= 0)
        job.count = r->count;
    if (r->cfg_scale >= 0)
        job.cfg_scale = r->cfg_scale;
    if (r->strength >= 0)
        job.start.strength = r->strength;
    if (r->mask_blur >= 0)
        job.start.mask_blur = r->mask_blur;
    if (r->padding >= 0)
        job.start.padding = r->padding;
    double strength = job.hires.strength;

    job.hires = r->hires;
    job.hires.upscaler = r->hires_upscaler;
    if (r->hires.strength < 0)
        job.hires.strength = strength;
    job.start.is_cropped = r->is_cropped;
    job.start.only_masked = r->only_masked;
    *ret_job = job;
}

static int read_one(const char *path, const char *param, struct buf *ret,
                    struct engine_file *file, struct err *err)
{
    if (!path)
        return 0;
    if (file_read(path, FILE_MAX_BYTES, ret, err)) {
        if (err)
            snprintf(err->param, sizeof(err->param), "%s", param);
        return -1;
    }
    *file = (struct engine_file){buf_str(ret), ret->len};
    return 0;
}

int request_read_files(const struct request *r, struct request_files *ret,
                       struct engine_job *job, struct err *err)
{
    if (r->seamless && engine_seamless_parse(r->seamless, &job->seamless, err))
        return -1;
    if (r->fill && engine_fill_parse(r->fill, &job->start.fill, err))
        return -1;
    if (read_one(r->image, "image", &ret->image, &job->start.image, err))
        return -1;
    if (r->width < 0 && r->height < 0)
        engine_start_fit(job);
    return read_one(r->mask, "mask", &ret->mask, &job->start.mask, err);
}

void request_files_release(struct request_files *f)
{
    buf_release(&f->image);
    buf_release(&f->mask);
}

void request_release(struct request *r)
{
    free(r->prompt);
    free(r->negative_prompt);
    free(r->sampler);
    free(r->scheduler);
    free(r->rng);
    free(r->prediction);
    free(r->vae);
    free(r->dialect);
    free(r->seamless);
    free(r->image);
    free(r->mask);
    free(r->fill);
    free(r->seeds);
    free(r->upscaler);
    free(r->hires_upscaler);
    *r = (struct request){0};
}

int upscale_request_open(struct upscale_request *ret, const struct request *r,
                         struct engine *engine, struct err *err)
{
    *ret = (struct upscale_request){.job.factor = r->factor};
    if (strcasecmp(r->upscaler, "lanczos") == 0 ||
        strcasecmp(r->upscaler, "nearest") == 0)
        ret->job.method = r->upscaler;
    else if (engine_upscaler_open(&ret->upscaler, engine, r->upscaler, err))
        return -1;
    return read_one(r->image, "image", &ret->image, &ret->job.image, err);
}

void upscale_request_release(struct upscale_request *u)
{
    engine_upscaler_close(u->upscaler);
    buf_release(&u->image);
}

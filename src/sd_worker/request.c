/* The server has checked a job before it sends it, but the worker trusts nobody: every field has its type checked
 * here, every number fits an int, and what the values may be is the engine's to say (engine_job_check). Unknown
 * fields are passed over, so that a newer server can talk to an older worker. */
#include "sd_worker/request.h"

#include "base/mem.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

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

static int take_fields(struct request *r, const json_t *o, struct err *err)
{
    if (take_string(o, "prompt", &r->prompt, err) ||
        take_string(o, "negative_prompt", &r->negative_prompt, err) ||
        take_string(o, "sampler", &r->sampler, err) ||
        take_string(o, "scheduler", &r->scheduler, err) ||
        take_string(o, "rng", &r->rng, err))
        return -1;
    if (take_int(o, "width", &r->width, err) ||
        take_int(o, "height", &r->height, err) ||
        take_int(o, "steps", &r->steps, err) || take_int(o, "count", &r->count, err) ||
        take_scale(o, "cfg_scale", &r->cfg_scale, err) ||
        take_integer(o, "seed", -1, INT64_MAX, &r->seed, err))
        return -1;
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
                            .seed = -1};
    if (!object)
        return err_set(err, ERR_INVALID, "the job is not JSON: line %d, column %d: %s",
                       error.line, error.column, error.text);
    if (!json_is_object(object))
        rc = err_set(err, ERR_INVALID, "the job must be a JSON object");
    else
        rc = take_fields(ret, object, err);
    json_decref(object);
    if (rc == 0 && kind == REQUEST_GENERATE && !ret->prompt)
        rc = err_set_param(err, ERR_INVALID, "prompt", "the job has no 'prompt'");
    return rc;
}

void request_job(const struct request *r, const struct engine_model *model,
                 struct engine_job *ret_job)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = r->prompt ? r->prompt : "";
    job.seed = r->seed;
    if (r->negative_prompt)
        job.negative_prompt = r->negative_prompt;
    if (r->sampler)
        job.sampler = r->sampler;
    if (r->scheduler)
        job.scheduler = r->scheduler;
    if (r->rng)
        job.rng = r->rng;
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
    *ret_job = job;
}

void request_release(struct request *r)
{
    free(r->prompt);
    free(r->negative_prompt);
    free(r->sampler);
    free(r->scheduler);
    free(r->rng);
    *r = (struct request){0};
}

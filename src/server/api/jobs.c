/* Jobs as clients see them: what was accepted, where it is, what came out. A job that runs is shown from the queue's memory
 * where that knows more (position, step, time left), everything else from the database, so that an answer is the same
 * after a restart.
 * GET /v1/jobs/{id}/events is in job_events.c. */
#include "server/store/jobs.h"
#include "base/mem.h"
#include "base/str.h"
#include "server/api/body.h"
#include "server/api/handlers.h"
#include "server/api/text_gate.h"
#include "server/config/config.h"
#include "server/queue/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 200
#define LIST_STANDARD 50

/* ---- one job ---- */

static json_t *number_or_null(int64_t n)
{
    return n < 0 ? json_null() : json_integer(n);
}

static void add_urls(json_t *job, const char *id)
{
    char *self = mem_printf("/v1/jobs/%s", id),
         *events = mem_printf("/v1/jobs/%s/events", id);

    json_object_set_new(job, "urls",
                        json_pack("{s:s, s:s}", "self", self, "events", events));
    free(self);
    free(events);
}

/* The database's row, made what docs/openapi.yaml calls a Job; with the queue's newer knowledge where it runs. */
json_t *jobs_row_json(struct api *api, const json_t *row)
{
    const char *id = json_string_value(json_object_get(row, "id"));
    struct job *live = job_queue_find(api->server->queue, id);
    json_t *job = json_copy((json_t *)(uintptr_t)row), *p;
    json_t *request = json_copy(json_object_get(row, "request"));
    const char *model = json_string_value(json_object_get(request, "model"));
    json_t *pictures = json_array();
    size_t i;

    if (model)
        json_object_set_new(request, "model",
                            json_string(catalog_id(api->catalog, model)));
    json_object_set_new(job, "request", request);
    json_object_set_new(job, "position", json_null());
    json_object_set_new(job, "eta_ms", json_null());
    if (live) {
        struct job_progress now;

        job_progress_get(live, &now);
        json_object_set_new(job, "state", json_string(job_step_word(now.step)));
        json_object_set_new(job, "position", json_integer(now.position));
        json_object_set_new(job, "eta_ms", number_or_null(now.eta_ms));
    }
    json_array_foreach(json_object_get(row, "pictures"), i, p)
    {
        json_t *picture = json_copy(p);
        char *url =
            mem_printf("/outputs/%s", json_string_value(json_object_get(p, "file")));

        json_object_set_new(picture, "url", json_string(url));
        json_array_append_new(pictures, picture);
        free(url);
    }
    json_object_set_new(job, "pictures", pictures);
    json_object_del(job, "kept");
    add_urls(job, id);
    return job;
}

void jobs_respond_accepted(struct api *api, struct http_exchange *x,
                           const struct job_progress *now)
{
    char *self = mem_printf("/v1/jobs/%s", now->id);
    json_t *job = json_pack("{s:s, s:s, s:s, s:i, s:o}", "id", now->id, "kind", "image",
                            "state", job_step_word(now->step), "position",
                            now->position, "eta_ms", number_or_null(now->eta_ms));

    (void)api;
    add_urls(job, now->id);
    http_set_header(x, "Location", self);
    http_respond_json(x, 202, job);
    free(self);
}

void jobs_respond_unknown(struct http_exchange *x, const char *id)
{
    http_respond_error(x, ERR_NOT_FOUND, NULL,
                       "there is no job '%.60s': it is forgotten, or never was", id);
}

static void on_one(void *user, const struct err *err, json_t *row)
{
    struct later *l = user;
    int status = later_number(l);
    char *id = mem_strdup(later_text(l));
    struct api *api;
    struct http_exchange *x = later_claim(l, &api);

    if (x && err)
        http_respond_err(x, err);
    else if (x && !json_is_object(row))
        jobs_respond_unknown(x, id);
    else if (x)
        http_respond_json(x, status, jobs_row_json(api, row));
    free(id);
}

void jobs_respond_one(struct api *api, struct http_exchange *x, const char *id,
                      int status)
{
    struct later *l = later_new(api, x);

    later_note(l, status, id);
    job_store_get(api->server->db, id, NULL, on_one, l);
}

void jobs_show(struct api *api, struct http_exchange *x, const char *arg)
{
    jobs_respond_one(api, x, arg, 200);
}

/* ---- the list ---- */

static void on_list(void *user, const struct err *err, json_t *rows)
{
    struct api *api;
    struct http_exchange *x = later_claim(user, &api);
    json_t *data = json_array(), *row;
    size_t i;

    if (x && err) {
        http_respond_err(x, err);
    } else if (x) {
        json_array_foreach(rows, i, row)
        {
            json_array_append_new(data, jobs_row_json(api, row));
        }
        http_respond_json(x, 200,
                          json_pack("{s:s, s:O}", "object", "list", "data", data));
    }
    json_decref(data);
}

static bool is_step(const char *word)
{
    for (int i = JOB_WAITING; i <= JOB_CANCELLED; i++)
        if (!strcmp(word, job_step_word((enum job_step)i)))
            return true;
    return false;
}

void jobs_list(struct api *api, struct http_exchange *x, const char *arg)
{
    const char *limit_text = http_query_get(x, "limit");
    int64_t limit = LIST_STANDARD;
    struct job_filter filter = {.step = http_query_get(x, "state"),
                                .before = http_query_get(x, "before")};
    struct err err = {0};

    (void)arg;
    if (limit_text && str_to_int(limit_text, "limit", 1, LIST_MAX, &limit, &err)) {
        http_respond_error(x, ERR_INVALID, "limit", "%s", err.message);
        return;
    }
    if (filter.step && !is_step(filter.step)) {
        http_respond_error(x, ERR_INVALID, "state",
                           "there is no state '%.40s': waiting, preparing, encoding, "
                           "sampling, decoding, saving, done, failed, cancelled",
                           filter.step);
        return;
    }
    filter.limit = (int)limit;
    job_store_list(api->server->db, &filter, on_list, later_new(api, x));
}

/* ---- cancelling ---- */

static void on_not_running(void *user, const struct err *err, json_t *row)
{
    struct later *l = user;
    char *id = mem_strdup(later_text(l));
    struct api *api;
    struct http_exchange *x = later_claim(l, &api);

    if (x && err)
        http_respond_err(x, err);
    else if (x && !json_is_object(row))
        jobs_respond_unknown(x, id);
    else if (x)
        http_respond_error(x, ERR_CONFLICT, NULL, "%s has ended already: %s", id,
                           json_string_value(json_object_get(row, "state")));
    free(id);
}

void jobs_cancel(struct api *api, struct http_exchange *x, const char *arg)
{
    struct job *job = job_queue_find(api->server->queue, arg);

    if (job) {
        job_cancel(job);
        jobs_respond_one(api, x, arg, 200);
    } else {
        struct later *l = later_new(api, x);

        later_note(l, 0, arg);
        job_store_get(api->server->db, arg, NULL, on_not_running, l);
    }
}

/* ---- everything that waits, of both kinds ---- */

static void add_picture(void *user, const struct job_progress *now)
{
    json_array_append_new(
        user, json_pack("{s:s, s:s, s:s, s:i, s:I, s:o, s:s}", "id", now->id, "kind",
                        "image", "state", job_step_word(now->step), "position",
                        now->position, "wait_time_ms", (json_int_t)now->wait_ms,
                        "eta_ms", number_or_null(now->eta_ms), "client", now->client));
}

struct text_list {
    struct api *api;
    json_t *list;
};

static void add_text(void *user, const struct text_place *p)
{
    struct text_list *l = user;

    json_array_append_new(
        l->list,
        json_pack("{s:s, s:s, s:s, s:s?, s:i, s:I, s:o}", "id", p->id, "kind", "text",
                  "state", p->is_running ? "running" : "waiting", "model",
                  p->model ? catalog_id(l->api->catalog, p->model) : NULL, "position",
                  p->position, "wait_time_ms", (json_int_t)p->waited_ms, "eta_ms",
                  number_or_null(p->eta_ms)));
}

json_t *queue_json(struct api *api)
{
    json_t *pictures = json_array();
    struct text_list text = {api, json_array()};

    job_queue_each(api->server->queue, add_picture, pictures);
    text_gate_each(api->gate, add_text, &text);
    return json_pack("{s:o, s:o}", "images", pictures, "text", text.list);
}

void queue_show(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_respond_json(x, 200, queue_json(api));
}

/* What surrounds the drawing: progress, cancel, and the pictures that are there already. Cancelling without a name means
 * the picture that is being drawn, which is what a page with one Cancel button wants; a waiting one is named by the id
 * that its own answer carried (X-Mysti-Job). */
#include "base/file.h"
#include "base/str.h"
#include "server/api/body.h"
#include "server/api/handlers.h"
#include "server/events/events.h"
#include "server/queue/queue.h"
#include "server/store/store.h"

#include <stdlib.h>
#include <string.h>

/* ---- progress ---- */

void pictures_progress(struct api *api, struct http_exchange *x, const char *arg)
{
    char *text = job_queue_progress_text(api->server->queue);

    (void)arg;
    http_respond(x, 200, "application/json", text, strlen(text));
    free(text);
}

void pictures_stream(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    events_subscribe(api->server->events, x);
}

/* ---- cancel ---- */

static void cancel(struct api *api, struct http_exchange *x, const char *arg,
                   const json_t *body)
{
    struct job_queue *queue = api->server->queue;
    const char *id = NULL;
    bool all = false;
    struct err err = {0};

    (void)arg;
    if (body_text(body, "job", 0, &id, &err) || body_bool(body, "all", &all, &err)) {
        http_respond_err(x, &err);
        return;
    }
    struct job *job = id ? job_queue_find(queue, id) : job_queue_running(queue);

    if (id && !job) {
        http_respond_error(x, ERR_NOT_FOUND, "job",
                           "there is no job '%.40s': it has ended, or never was", id);
        return;
    }
    json_t *ids = json_array();

    if (all) {
        job_queue_cancel_all(queue, ids);
    } else if (job) {
        json_array_append_new(ids, json_string(job_id(job)));
        job_cancel(job);
    }
    http_respond_json(x, 200, json_pack("{s:o}", "cancelled", ids));
}

void pictures_cancel(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, cancel);
}

/* ---- history ---- */

static void on_history(void *user, const struct err *err, json_t *pictures)
{
    struct api *api;
    struct http_exchange *x = later_claim(user, &api);

    if (!x)
        return;
    if (err)
        http_respond_err(x, err);
    else
        http_respond_json(x, 200, json_incref(pictures));
}

void pictures_history(struct api *api, struct http_exchange *x, const char *arg)
{
    const char *limit_text = http_query_get(x, "limit");
    const char *before = http_query_get(x, "before");
    int64_t limit = STORE_HISTORY_DEFAULT;
    struct err err = {0};

    (void)arg;
    if (limit_text &&
        str_to_int(limit_text, "limit", 1, STORE_HISTORY_MAX, &limit, &err)) {
        http_respond_error(x, ERR_INVALID, "limit", "%s", err.message);
        return;
    }
    if (before && !*before)
        before = NULL;
    store_history(api->server->store, (size_t)limit, before, on_history,
                  later_new(api, x));
}

/* ---- files ---- */

void pictures_file(struct api *api, struct http_exchange *x, const char *arg)
{
    if (!file_is_confined(arg))
        http_respond_error(x, ERR_INVALID, NULL,
                           "the name of a picture in the output folder is expected "
                           "after /outputs/");
    else
        store_serve(api->server->store, x, arg);
}

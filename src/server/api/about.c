/* What this server is, how it is, and what it runs on.
 *
 * /health is asked by programs every few seconds and answers from memory alone. It is 200 whatever the workers do: the
 * server that answers is well, and a balancer that takes it out because a model is being loaded helps nobody.
 * `sd_worker` and `llm_worker` say only whether the process lives, as scripts for the predecessors expect; the state
 * and the reason are under `workers`. */
#include "base/clock.h"
#include "server/api/handlers.h"
#include "server/memory/devices.h"
#include "server/memory/memory.h"
#include "server/sharing/sharing.h"

#include <unistd.h>

/* ---- health ---- */

static bool is_up(const struct worker_snapshot *w)
{
    return w->state == WORKER_LOADING || w->state == WORKER_READY ||
           w->state == WORKER_BUSY;
}

/* Why it is not as wanted; NULL when it is. A worker that somebody has stopped or unloaded has no trouble to report,
 * but whoever reads "degraded" wants to know. */
static const char *reason_of(const struct worker_snapshot *w)
{
    if (w->reason && *w->reason)
        return w->reason;
    return w->state == WORKER_STOPPED ? "it was stopped, or its model unloaded" : NULL;
}

static json_t *health_json(struct api *api, const struct worker_snapshot *w)
{
    const char *model = w->model ? catalog_id(api->catalog, w->model) : NULL;

    return json_pack("{s:s, s:s?, s:s?}", "state", w->state_name, "model", model,
                     "reason", reason_of(w));
}

/* Degraded: a worker is not up, or is up without what it should have (its reason says it). */
static bool is_well(const struct worker_snapshot *w)
{
    return is_up(w) && (w->state == WORKER_LOADING || !reason_of(w));
}

void about_health(struct api *api, struct http_exchange *x, const char *arg)
{
    const struct server *server = api->server;
    bool well = true, text_runs = false, pictures_run = false;
    json_t *workers = json_object();

    (void)arg;
    if (!access_has(api, x, SCOPE_INFER)) { /* a stranger learns that it is alive */
        http_respond_json(x, 200, json_pack("{s:s}", "status", "ok"));
        json_decref(workers);
        return;
    }
    for (int id = 0; id < supervisor_count(server->supervisor); id++) {
        struct worker_snapshot w;

        if (!supervisor_is_shown(server->supervisor, id))
            continue;
        supervisor_snapshot(server->supervisor, id, &w);
        well = well && is_well(&w);
        text_runs = text_runs || (w.kind == WORKER_LLM && w.pid);
        pictures_run = pictures_run || (w.kind == WORKER_SD && w.pid);
        json_object_set_new(workers, w.name, health_json(api, &w));
    }
    http_respond_json(
        x, 200,
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "status", well ? "ok" : "degraded",
                  "version", MYSTI_VERSION, "uptime_s",
                  (json_int_t)((clock_ms() - server->started_ms) / 1000), "sd_worker",
                  pictures_run ? "running" : "stopped", "llm_worker",
                  text_runs ? "running" : "stopped", "workers", workers));
}

/* ---- the machine ---- */

/* "server" and each worker by its name: bytes, null without a process. */
static json_t *used_json(const struct server *server)
{
    json_t *used =
        json_pack("{s:I}", "server", (json_int_t)memory_of_process("", getpid()));

    for (int id = 0; id < supervisor_count(server->supervisor); id++) {
        struct worker_snapshot w;

        if (!supervisor_is_shown(server->supervisor, id))
            continue;
        supervisor_snapshot(server->supervisor, id, &w);
        json_object_set_new(used, w.name,
                            w.pid
                                ? json_integer((json_int_t)memory_of_process("", w.pid))
                                : json_null());
    }
    return used;
}

void about_system(struct api *api, struct http_exchange *x, const char *arg)
{
    struct memory_now now;

    (void)arg;
    if (memory_read("", &now)) {
        http_respond_error(x, ERR_INTERNAL, NULL,
                           "this machine does not say how much memory it has "
                           "(/proc/meminfo)");
        return;
    }
    if (!api->processor)
        api->processor = memory_processor_json("");
    json_t *limit = now.limit ? json_integer((json_int_t)now.limit) : json_null();

    http_respond_json(x, 200,
                      json_pack("{s:s, s:O, s:{s:I, s:I, s:o, s:o}, s:o, s:s}",
                                "version", MYSTI_VERSION, "processor", api->processor,
                                "memory", "total", (json_int_t)now.total, "available",
                                (json_int_t)now.available, "limit", limit, "used_by",
                                used_json(api->server), "gpus",
                                devices_gpus_json(api->server->devices, ""), "sharing",
                                sharing_word(sharing_watch_get(api->server->sharing))));
}

/* ---- the routes ---- */

void about_index(struct api *api, struct http_exchange *x, const char *arg)
{
    json_t *list = json_array();

    (void)api;
    (void)arg;
    for (size_t i = 0; i < route_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "method",
                                              routes[i].method, "path", routes[i].path,
                                              "help", routes[i].help));
    http_respond_json(x, 200,
                      json_pack("{s:s, s:s, s:o}", "object", "list", "version",
                                MYSTI_VERSION, "routes", list));
}

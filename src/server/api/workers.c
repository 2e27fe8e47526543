/* The worker processes as a user sees them, and the three buttons. All decisions are the supervisor's; this only
 * words them. The answer to a button is the worker as it is once the button has had its effect, so that a script needs
 * no second question. What a worker writes to its log may be anything; only UTF-8 can stand in JSON. */
#include "base/mem.h"
#include "server/api/body.h"
#include "server/api/handlers.h"

#include <stdlib.h>

#define LOG_LINES 50

static json_t *positive_or_null(json_int_t n)
{
    return n > 0 ? json_integer(n) : json_null();
}

static json_t *text_or_null(const char *s)
{
    return s && *s ? json_string(s) : json_null();
}

static json_t *log_json(struct api *api, int id)
{
    const char *lines[LOG_LINES];
    size_t n = supervisor_log_tail(api->server->supervisor, id, lines, LOG_LINES);
    json_t *log = json_array();

    for (size_t i = 0; i < n; i++) {
        json_t *line = json_string(lines[i]);

        json_array_append_new(log,
                              line ? line : json_string("(not readable as UTF-8)"));
    }
    return log;
}

static json_t *options_json(const struct worker_load_options *o)
{
    return json_pack("{s:i, s:i, s:i, s:s, s:s, s:i}", "gpu_layers", o->gpu_layers,
                     "context", o->context, "slots", o->slots, "task",
                     worker_task_name(o->task), "cache_type",
                     cache_type_name(o->cache_type), "idle_timeout", o->idle_timeout_s);
}

static json_t *exit_json(const struct worker_exit *e)
{
    if (e->end == WORKER_END_NONE)
        return json_null();
    return json_pack("{s:s, s:i, s:i, s:b}", "end", worker_end_name(e->end), "signal",
                     e->signal, "code", e->code, "own_fault", e->is_own_fault);
}

/* What only a text worker has. */
static void add_text_facts(json_t *worker, const struct worker_snapshot *w)
{
    json_object_set_new(worker, "saved_context",
                        json_pack("{s:I, s:I}", "tokens", (json_int_t)w->saved_tokens,
                                  "bytes", (json_int_t)w->saved_bytes));
    json_object_set_new(worker, "default", json_boolean(w->is_default));
    json_object_set_new(worker, "wished", options_json(&w->wish));
    json_object_set_new(worker, "present",
                        w->model ? options_json(&w->present) : json_null());
}

json_t *worker_json(struct api *api, int id)
{
    struct worker_snapshot w;

    supervisor_snapshot(api->server->supervisor, id, &w);
    json_t *uptime =
        w.pid ? json_integer((json_int_t)(w.uptime_ms / 1000)) : json_null();
    json_t *progress = w.progress < 0 ? json_null() : json_real(w.progress);
    json_t *worker = json_pack(
        "{s:i, s:s, s:s, s:o, s:o, s:o, s:i, s:o, s:o, s:o, s:o, s:b, s:i, s:b, s:o, "
        "s:o}",
        "id", w.id, "name", w.name, "state", w.state_name, "pid",
        positive_or_null(w.pid), "port", positive_or_null(w.port), "uptime_s", uptime,
        "restarts", (int)w.restarts, "last_exit", text_or_null(w.last_exit), "model",
        text_or_null(w.model ? catalog_id(api->catalog, w.model) : NULL), "wanted",
        text_or_null(w.wanted ? catalog_id(api->catalog, w.wanted) : NULL), "reason",
        text_or_null(w.reason), "busy", w.running > 0, "running", (int)w.running,
        "pinned", w.is_pinned, "progress", progress, "log", log_json(api, id));

    json_object_set_new(worker, "exit", exit_json(&w.exit));
    json_object_set_new(worker, "safe_mode", json_boolean(w.is_safe_mode));
    if (w.kind == WORKER_LLM)
        add_text_facts(worker, &w);
    return worker;
}

/* Answers when the name is no worker's. */
static int id_of(struct api *api, struct http_exchange *x, const char *name,
                 int *ret_id)
{
    struct err err = {0};

    if (!supervisor_id_from_name(api->server->supervisor, name, ret_id, &err))
        return 0;
    http_respond_err(x, &err);
    return -1;
}

json_t *workers_json(struct api *api)
{
    const struct supervisor *s = api->server->supervisor;
    json_t *all = json_object();

    for (int id = 0; id < supervisor_count(s); id++) {
        struct worker_snapshot w;

        if (!supervisor_is_shown(s, id))
            continue;
        supervisor_snapshot(s, id, &w);
        json_object_set_new(all, w.name, worker_json(api, id));
    }
    return all;
}

void workers_list(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_respond_json(x, 200, workers_json(api));
}

void workers_show(struct api *api, struct http_exchange *x, const char *arg)
{
    int id;

    if (!id_of(api, x, arg, &id))
        http_respond_json(x, 200, worker_json(api, id));
}

static void on_done(void *user, const struct err *err)
{
    int id = later_number(user);
    struct api *api;
    struct http_exchange *x = later_claim(user, &api);

    if (x && err)
        http_respond_err(x, err);
    else if (x)
        http_respond_json(x, 200, worker_json(api, id));
}

enum action { START, STOP, RESTART, PARK, UNPARK };

static int park(struct supervisor *s, int id, struct later *l, struct err *err)
{
    const struct supervisor_park o = {.reason = "somebody asked for it",
                                      .until = PARK_UNTIL_WANTED,
                                      .done = on_done,
                                      .data = l};

    return supervisor_park(s, id, &o, err);
}

static void act(struct api *api, struct http_exchange *x, const char *name,
                const json_t *body, enum action action)
{
    struct supervisor *s = api->server->supervisor;
    enum supervisor_force force;
    struct err err = {0};
    int rc = -1, id;

    if (id_of(api, x, name, &id))
        return;
    if (read_force(x, body, &force, &err)) {
        http_respond_err(x, &err);
        return;
    }
    struct later *l = later_new(api, x);

    later_note(l, id, NULL);
    switch (action) {
    case START:
        rc = supervisor_start(s, id, on_done, l, &err);
        break;
    case STOP:
        rc = supervisor_stop(s, id, force, on_done, l, &err);
        break;
    case RESTART:
        rc = supervisor_restart(s, id, force, on_done, l, &err);
        break;
    case PARK:
        rc = park(s, id, l, &err);
        break;
    case UNPARK:
        rc = supervisor_unpark(s, id, on_done, l, &err);
        break;
    }
    if (rc) {
        later_claim(l, &api);
        http_respond_err(x, &err);
    }
}

static void start(struct api *api, struct http_exchange *x, const char *arg,
                  const json_t *body)
{
    act(api, x, arg, body, START);
}

static void stop(struct api *api, struct http_exchange *x, const char *arg,
                 const json_t *body)
{
    act(api, x, arg, body, STOP);
}

static void restart(struct api *api, struct http_exchange *x, const char *arg,
                    const json_t *body)
{
    act(api, x, arg, body, RESTART);
}

static void park_one(struct api *api, struct http_exchange *x, const char *arg,
                     const json_t *body)
{
    act(api, x, arg, body, PARK);
}

static void unpark(struct api *api, struct http_exchange *x, const char *arg,
                   const json_t *body)
{
    act(api, x, arg, body, UNPARK);
}

void workers_park(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, park_one);
}

void workers_unpark(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, unpark);
}

static void pin(struct api *api, struct http_exchange *x, const char *arg,
                const json_t *body)
{
    struct err err = {0};
    bool pinned = true;
    int id;

    if (id_of(api, x, arg, &id))
        return;
    if (body_bool(body, "pinned", &pinned, &err) ||
        supervisor_pin(api->server->supervisor, id, pinned, &err))
        http_respond_err(x, &err);
    else
        http_respond_json(x, 200, worker_json(api, id));
}

void workers_pin(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, pin);
}

void workers_start(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, start);
}

void workers_stop(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, stop);
}

void workers_restart(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, restart);
}

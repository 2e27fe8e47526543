/* The two worker processes as a user sees them, and the three buttons. All decisions are the supervisor's; this only
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

static json_t *log_json(struct api *api, enum worker_kind kind)
{
    const char *lines[LOG_LINES];
    size_t n = supervisor_log_tail(api->server->supervisor, kind, lines, LOG_LINES);
    json_t *log = json_array();

    for (size_t i = 0; i < n; i++) {
        json_t *line = json_string(lines[i]);

        json_array_append_new(log,
                              line ? line : json_string("(not readable as UTF-8)"));
    }
    return log;
}

static json_t *worker_json(struct api *api, enum worker_kind kind)
{
    struct worker_snapshot w;

    supervisor_snapshot(api->server->supervisor, kind, &w);
    json_t *uptime =
        w.pid ? json_integer((json_int_t)(w.uptime_ms / 1000)) : json_null();
    json_t *progress = w.progress < 0 ? json_null() : json_real(w.progress);

    return json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:i, s:o, s:o, s:o, s:o, s:b, s:o, s:o}", "name",
        w.name, "state", w.state_name, "pid", positive_or_null(w.pid), "port",
        positive_or_null(w.port), "uptime_s", uptime, "restarts", (int)w.restarts,
        "last_exit", text_or_null(w.last_exit), "model",
        text_or_null(w.model ? catalog_id(api->catalog, w.model) : NULL), "wanted",
        text_or_null(w.wanted ? catalog_id(api->catalog, w.wanted) : NULL), "reason",
        text_or_null(w.reason), "busy", w.running > 0, "progress", progress, "log",
        log_json(api, kind));
}

/* Answers when the name is no worker's. */
static int kind_of(struct http_exchange *x, const char *name, enum worker_kind *ret)
{
    struct err err = {0};

    if (!worker_kind_from_name(name, ret, &err))
        return 0;
    http_respond_error(x, ERR_NOT_FOUND, NULL,
                       "there is no worker '%.40s': they are 'sd' and 'llm'", name);
    return -1;
}

void workers_list(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_respond_json(x, 200,
                      json_pack("{s:o, s:o}", "sd", worker_json(api, WORKER_SD), "llm",
                                worker_json(api, WORKER_LLM)));
}

void workers_show(struct api *api, struct http_exchange *x, const char *arg)
{
    enum worker_kind kind;

    if (!kind_of(x, arg, &kind))
        http_respond_json(x, 200, worker_json(api, kind));
}

static void on_done(void *user, const struct err *err)
{
    enum worker_kind kind = (enum worker_kind)later_number(user);
    struct api *api;
    struct http_exchange *x = later_claim(user, &api);

    if (x && err)
        http_respond_err(x, err);
    else if (x)
        http_respond_json(x, 200, worker_json(api, kind));
}

enum action { START, STOP, RESTART };

static void act(struct api *api, struct http_exchange *x, const char *name,
                const json_t *body, enum action action)
{
    struct supervisor *s = api->server->supervisor;
    enum supervisor_force force;
    enum worker_kind kind;
    struct err err = {0};
    int rc = -1;

    if (kind_of(x, name, &kind))
        return;
    if (read_force(x, body, &force, &err)) {
        http_respond_err(x, &err);
        return;
    }
    struct later *l = later_new(api, x);

    later_note(l, kind, NULL);
    switch (action) {
    case START:
        rc = supervisor_start(s, kind, on_done, l, &err);
        break;
    case STOP:
        rc = supervisor_stop(s, kind, force, on_done, l, &err);
        break;
    case RESTART:
        rc = supervisor_restart(s, kind, force, on_done, l, &err);
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

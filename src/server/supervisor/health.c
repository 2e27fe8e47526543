/* Questions to a worker: is it there, and, for the picture worker, load this.
 *
 * A check is asked every 2 s and is answered when any HTTP answer comes within 2 s: "loading" is healthy, so is 503.
 * Three in a row without an answer are a hang. While something is awaited (the text worker's port, the end of a
 * load) checks come more often, because the end of a load is told by no other sign there; failures are
 * never counted faster than 2 s apart for that. Before a worker listens nothing is counted at all: the state's own
 * time limit ends a start that leads nowhere.
 *
 * A load has no time limit: a model may be as large as it likes, and a worker that hangs over it is found by its health,
 * which it answers meanwhile. When the connection of a load breaks off, the process is most probably dying and
 * its end is told in a moment; only when it answers its health afterwards did the load itself fail. */
#include "base/clock.h"
#include "base/mem.h"
#include "server/supervisor/worker.h"

#define CHECK_MS 2000
#define CHECK_LIMIT_MS 2000
#define SUSPECT_LIMIT_MS 1000
#define START_CHECK_MS 20   /* text worker: until its port answers */
#define LOADING_CHECK_MS 50 /* text worker: until it is ready */
#define LONG_LOADING_MS 5000
#define LONG_LOADING_CHECK_MS 250
#define PROGRESS_CHECK_MS 500 /* picture worker: how far is the load */
#define MISSES_MAX 3

static void check(struct worker *w, unsigned limit_ms);

static void on_due(uv_timer_t *timer)
{
    struct worker *w = timer->data;

    if (!w->health && w->process)
        check(w, CHECK_LIMIT_MS);
}

static void schedule(struct worker *w, bool answered)
{
    uint64_t wait = CHECK_MS;

    if (w->state == WORKER_STARTING)
        wait = START_CHECK_MS;
    else if (w->state == WORKER_LOADING && answered && w->kind == WORKER_SD)
        wait = PROGRESS_CHECK_MS;
    else if (w->state == WORKER_LOADING && answered)
        wait = clock_ms() - w->loading_ms < LONG_LOADING_MS ? LOADING_CHECK_MS
                                                            : LONG_LOADING_CHECK_MS;
    uv_timer_start(&w->health_timer, on_due, wait, 0);
}

static void take_progress(struct worker *w, const char *body, size_t len)
{
    json_t *root = json_loadb(body, len, 0, NULL);
    const json_t *progress = json_object_get(root, "progress");

    if (w->state == WORKER_LOADING && json_is_number(progress) &&
        json_number_value(progress) != w->progress) {
        w->progress = json_number_value(progress);
        supervisor_changed(w);
    }
    json_decref(root);
}

static void on_answered(struct worker *w, int status, const char *body, size_t len)
{
    w->missed = 0;
    if (w->suspected && !w->hung) {
        w->suspected = false;
        supervisor_changed(w);
    }
    if (w->kind == WORKER_SD) {
        take_progress(w, body, len);
        if (w->load_broke) {
            w->load_broke = false;
            worker_event(w, EV_LOAD_FAILED);
        }
        return;
    }
    if (w->state == WORKER_STARTING)
        worker_event(w, EV_LISTENING);
    if (w->state == WORKER_LOADING && status == 200)
        worker_event(w, EV_LOADED);
    else
        trim_look(w);
}

static void on_health(void *user, const struct err *err, int status, const char *body,
                      size_t len)
{
    struct worker *w = user;

    w->health = NULL;
    if (!err) {
        on_answered(w, status, body, len);
    } else if (w->state != WORKER_STARTING) {
        log_debug(w->s->log, "%s worker: health check unanswered: %s", w->name,
                  err->message);
        if (++w->missed >= MISSES_MAX) {
            worker_event(w, EV_HUNG);
            return;
        }
    }
    if (w->process && w->state != WORKER_STOPPING && !w->health)
        schedule(w, !err);
}

static void check(struct worker *w, unsigned limit_ms)
{
    struct http_fetch_options o = {
        .host = "127.0.0.1",
        .port = w->port,
        .target = w->kind == WORKER_SD ? "/internal/health" : "/health",
        .bearer = w->token,
        .timeout_ms = limit_ms,
    };

    w->health = http_fetch_start(w->s->client, &o, on_health, w);
}

void health_begin(struct worker *w)
{
    w->missed = 0;
    schedule(w, true);
}

void health_stop(struct worker *w)
{
    uv_timer_stop(&w->health_timer);
    if (w->health)
        http_fetch_cancel(w->health);
    w->health = NULL;
    if (w->load_call)
        http_fetch_cancel(w->load_call);
    w->load_call = NULL;
}

void health_check_now(struct worker *w)
{
    if (!w->process || w->state == WORKER_STARTING || w->state == WORKER_STOPPING)
        return;
    if (w->health)
        http_fetch_cancel(w->health);
    check(w, SUSPECT_LIMIT_MS);
}

/* The worker's own error object, or what can be made of something else. */
static void take_error(struct worker *w, int status, const json_t *answer)
{
    const json_t *error = json_object_get(answer, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *code = json_string_value(json_object_get(error, "code"));

    err_set(&w->load_error,
            code ? err_code_from_slug(code, ERR_UNAVAILABLE) : ERR_UNAVAILABLE, "%s",
            message ? message
                    : "the picture worker refused the model without a reason");
    if (!message)
        err_wrap(&w->load_error, "status %d", status);
}

static void on_load_answer(void *user, const struct err *err, int status,
                           const char *body, size_t len)
{
    struct worker *w = user;
    json_t *answer;

    w->load_call = NULL;
    if (err) {
        err_set(&w->load_error, ERR_UNAVAILABLE, "%s", err->message);
        err_wrap(&w->load_error, "the picture worker broke off the load");
        w->load_broke = true;
        health_check_now(w);
        return;
    }
    answer = json_loadb(body, len, 0, NULL);
    if (status != 200) {
        take_error(w, status, answer);
        json_decref(answer);
        worker_event(w, EV_LOAD_FAILED);
        return;
    }
    json_decref(w->details);
    w->details = answer; /* may be NULL */
    worker_event(w, EV_LOADED);
}

void health_load(struct worker *w, const char *path)
{
    json_t *question = path ? json_pack("{s:s}", "path", path) : json_object();
    char *body = json_dumps(question, JSON_COMPACT);
    struct http_fetch_options o = {
        .host = "127.0.0.1",
        .port = w->port,
        .method = "POST",
        .target = path ? "/internal/load" : "/internal/unload",
        .bearer = w->token,
        .body = body ? body : "{}",
        .body_len = body ? strlen(body) : 2,
    };

    w->load_call = http_fetch_start(w->s->client, &o, on_load_answer, w);
    free(body);
    json_decref(question);
}

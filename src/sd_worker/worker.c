/* What the worker is doing is one of six words (enum activity), and only this file changes it, on the loop
 * thread: a request that needs the engine moves it away from idle, the task's return moves it back. That is the
 * whole of "one job at a time"; there is no queue here, the server has one.
 *
 * The exchange that waits for the running task is w->waiting. Its on_close forgets it, and for a picture also
 * cancels: a client that hangs up wants nothing more. A load goes on: the server that asked may ask again, and half
 * a load is no use to it.
 *
 * Health is answered from variables of the loop and from two atomics, whatever the engine is doing. The token is
 * compared without a shortcut, so that the time of the answer says nothing about it. */
#include "sd_worker/worker.h"

#include "base/mem.h"
#include "sd_worker/compute.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_MAX = 1 << 20 };

enum activity { IDLE, OPENING, LOADING, UNLOADING, ESTIMATING, DRAWING };

struct worker {
    struct compute *compute;
    char *token;
    bool verbose;
    char *first_model; /* to be loaded once the engine is open */
    enum activity activity;
    struct http_exchange *waiting;
    char *model;      /* absolute path, NULL */
    char *facts;      /* JSON of the model, NULL */
    char *load_error; /* sentence of the last load when it failed, NULL */
    enum sharing sharing;
    bool text_runs; /* the server says so */
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static void begin(struct worker *w, enum activity activity, struct task *task,
                  struct http_exchange *x)
{
    w->activity = activity;
    w->waiting = x;
    compute_submit(w->compute, task);
}

static void replace(char **text, char *with)
{
    free(*text);
    *text = with;
}

/* ---- what comes back from the compute thread ---- */

static void on_event(void *user, enum compute_event event, const struct buf *data)
{
    struct worker *w = user;

    if (!w->waiting)
        return; /* the client has left; the task is on its way out */
    if (event == COMPUTE_STARTED)
        http_start(w->waiting, 200, "application/x-ndjson", HTTP_CHUNKED);
    else
        http_write(w->waiting, data->data, data->len);
    if (event == COMPUTE_LINE && w->verbose)
        say("%.*s", (int)strcspn(data->data, "\n"), data->data);
}

static void loaded(struct worker *w, struct task *task)
{
    if (task->rc) {
        replace(&w->load_error, mem_strdup(task->err.message));
        say("could not load %s: %s", task->path, task->err.message);
        return;
    }
    replace(&w->load_error, NULL);
    replace(&w->model, mem_strdup(task->path));
    replace(&w->facts, mem_strdup(task->facts));
    say("loaded %s in %.0f ms", task->path, task->elapsed_ms);
}

/* The stream's last line. */
static void end_stream(struct http_exchange *x, const struct task *task)
{
    json_t *line;

    if (task->rc == 0) {
        line = json_pack("{s:s, s:I}", "event", "done", "elapsed_ms",
                         (json_int_t)task->elapsed_ms);
    } else {
        line = http_error_json(&task->err);
        json_object_set_new(line, "event", json_string("error"));
    }
    char *text = json_dumps(line, JSON_COMPACT);
    http_write(x, text, strlen(text));
    http_write(x, "\n", 1);
    http_end(x);
    free(text);
    json_decref(line);
}

static void answer(struct worker *w, struct http_exchange *x, struct task *task)
{
    if (http_started(x))
        end_stream(x, task);
    else if (task->rc)
        http_respond_err(x, &task->err);
    else if (task->kind == TASK_LOAD)
        http_respond_json(x, 200, json_loads(w->facts, 0, NULL));
    else if (task->kind == TASK_ESTIMATE)
        http_respond_json(x, 200,
                          json_pack("{s:s, s:I, s:I}", "way",
                                    task->estimate.way ? task->estimate.way : "whole",
                                    "peak_bytes", (json_int_t)task->estimate.peak_bytes,
                                    "resident_bytes",
                                    (json_int_t)task->estimate.resident_bytes));
    else
        http_respond_json(x, 200, json_object());
}

static void load(struct worker *w, const char *path, struct http_exchange *x)
{
    struct task *task = task_new(TASK_LOAD);

    task->path = mem_strdup(path);
    say("loading %s", path);
    begin(w, LOADING, task, x);
}

static void on_done(void *user, struct task *task)
{
    struct worker *w = user;
    struct http_exchange *x = w->waiting;

    w->waiting = NULL;
    w->activity = IDLE;
    switch (task->kind) {
    case TASK_OPEN:
        if (task->rc)
            say("the engine did not open: %s", task->err.message);
        else
            say("engine open, back end %s", compute_backend(w->compute));
        if (w->first_model)
            load(w, w->first_model, NULL);
        break;
    case TASK_LOAD:
        loaded(w, task);
        break;
    case TASK_UNLOAD:
        replace(&w->model, NULL);
        replace(&w->facts, NULL);
        say("unloaded");
        break;
    case TASK_GENERATE:
        if (task->rc)
            say("job ended after %.0f ms: %s", task->elapsed_ms, task->err.message);
        else
            say("job done in %.0f ms", task->elapsed_ms);
        break;
    case TASK_ESTIMATE:
        break;
    }
    if (x)
        answer(w, x, task);
    task_free(task);
}

/* ---- routes ---- */

static void on_close(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct worker *w = user;

    (void)outcome;
    if (w->waiting != x)
        return;
    w->waiting = NULL;
    if (w->activity == DRAWING)
        compute_cancel(w->compute);
}

static const char *state_name(const struct worker *w)
{
    switch (w->activity) {
    case DRAWING:
    case ESTIMATING:
        return "busy";
    case LOADING:
        return "loading";
    case OPENING:
        return w->first_model ? "loading" : "empty";
    case UNLOADING:
    case IDLE:
        break;
    }
    return w->model ? "ready" : "empty";
}

static void health(struct worker *w, struct http_exchange *x)
{
    bool works = w->activity == LOADING || w->activity == DRAWING;
    json_t *body = json_pack(
        "{s:b, s:s, s:s, s:s?, s:s?, s:f, s:s?, s:s, s:b}", "ok", 1, "worker", "sd",
        "state", state_name(w), "model", w->model, "backend",
        compute_backend(w->compute), "progress",
        works ? compute_progress(w->compute) : 0.0, "error", w->load_error, "sharing",
        sharing_word(w->sharing), "resting", (int)compute_is_resting(w->compute));

    if (w->facts)
        json_object_set_new(body, "facts", json_loads(w->facts, 0, NULL));
    http_respond_json(x, 200, body);
}

/* ---- sharing ---- */

/* The engine's back ends that compute on the processor; any other is a graphics card's. */
static enum sharing_device device_of(const char *backend)
{
    return !backend || !strcmp(backend, "dnnl") || !strcmp(backend, "ref")
               ? SHARING_ON_CPU
               : SHARING_ON_GPU;
}

static void share(struct worker *w, int rest_percent)
{
    compute_share(w->compute, sharing_picture_place(w->sharing),
                  w->text_runs ? rest_percent : 0);
}

/* {"policy": "text-first", "text_running": true}. "rest_percent" instead of the policy's own is for trying out. */
static void sharing_body(struct http_exchange *x, void *user, const char *data,
                         size_t len)
{
    struct worker *w = user;
    json_t *body = json_loadb(data, len, 0, NULL);
    const char *word = json_string_value(json_object_get(body, "policy"));
    const json_t *runs = json_object_get(body, "text_running");
    const json_t *percent = json_object_get(body, "rest_percent");
    json_int_t rest = json_integer_value(percent);
    struct err err = {0};

    if (!word || !json_is_boolean(runs))
        err_set(
            &err, ERR_INVALID,
            "the body must be {\"policy\": \"text-first\", \"text_running\": true}");
    else if (percent &&
             (!json_is_integer(percent) || rest < 0 || rest > SHARING_REST_MAX_PERCENT))
        err_set_param(&err, ERR_INVALID, "rest_percent",
                      "'rest_percent' must be a whole number from 0 to %d",
                      SHARING_REST_MAX_PERCENT);
    else
        (void)!sharing_parse(word, "policy", &w->sharing, &err);
    if (err.code) {
        http_respond_err(x, &err);
    } else {
        w->text_runs = json_is_true(runs);
        share(w, percent ? (int)rest
                         : sharing_rest_percent(
                               w->sharing, device_of(compute_backend(w->compute))));
        http_respond_json(x, 200, json_object());
    }
    json_decref(body);
}

/* true: answered with 409 */
static bool is_busy(struct worker *w, struct http_exchange *x)
{
    if (w->activity == IDLE)
        return false;
    http_respond_error(x, ERR_CONFLICT, NULL, "the picture worker is busy: %s",
                       w->activity == DRAWING   ? "it draws a picture"
                       : w->activity == LOADING ? "it loads a model"
                       : w->activity == OPENING ? "it is starting"
                                                : "it works on another request");
    return true;
}

static void load_body(struct http_exchange *x, void *user, const char *data, size_t len)
{
    struct worker *w = user;
    json_error_t error;
    json_t *body = json_loadb(data, len, 0, &error);
    const char *path = json_string_value(json_object_get(body, "path"));

    if (!body)
        http_respond_error(x, ERR_INVALID, NULL,
                           "the body is not JSON: line %d, column %d: %s", error.line,
                           error.column, error.text);
    else if (!path || path[0] != '/')
        http_respond_error(x, ERR_INVALID, "path", "'path' must be an absolute path");
    else if (!is_busy(w, x))
        load(w, path, x);
    json_decref(body);
}

static void job_body(struct http_exchange *x, struct worker *w, enum task_kind kind,
                     const char *data, size_t len)
{
    const bool draws = kind == TASK_GENERATE;
    struct task *task;

    if (is_busy(w, x))
        return;
    task = task_new(kind);
    if (request_parse(&task->request, draws ? REQUEST_GENERATE : REQUEST_ESTIMATE, data,
                      len, &task->err)) {
        http_respond_err(x, &task->err);
        task_free(task);
        return;
    }
    begin(w, draws ? DRAWING : ESTIMATING, task, x);
}

static void generate_body(struct http_exchange *x, void *user, const char *data,
                          size_t len)
{
    job_body(x, user, TASK_GENERATE, data, len);
}

static void estimate_body(struct http_exchange *x, void *user, const char *data,
                          size_t len)
{
    job_body(x, user, TASK_ESTIMATE, data, len);
}

static void load_model(struct worker *w, struct http_exchange *x)
{
    (void)w;
    http_collect_body(x, BODY_MAX, load_body);
}

static void generate(struct worker *w, struct http_exchange *x)
{
    (void)w;
    http_collect_body(x, BODY_MAX, generate_body);
}

static void estimate(struct worker *w, struct http_exchange *x)
{
    (void)w;
    http_collect_body(x, BODY_MAX, estimate_body);
}

static void unload(struct worker *w, struct http_exchange *x)
{
    if (!is_busy(w, x))
        begin(w, UNLOADING, task_new(TASK_UNLOAD), x);
}

static void sharing(struct worker *w, struct http_exchange *x)
{
    (void)w;
    http_collect_body(x, BODY_MAX, sharing_body);
}

static void cancel(struct worker *w, struct http_exchange *x)
{
    bool draws = w->activity == DRAWING;

    if (draws)
        compute_cancel(w->compute);
    http_respond_json(x, 200, json_pack("{s:b}", "cancelled", draws));
}

static const struct route {
    const char *method;
    const char *path;
    void (*handle)(struct worker *w, struct http_exchange *x);
} routes[] = {
    {"GET", "/internal/health", health},      {"POST", "/internal/load", load_model},
    {"POST", "/internal/unload", unload},     {"POST", "/internal/estimate", estimate},
    {"POST", "/internal/generate", generate}, {"POST", "/internal/cancel", cancel},
    {"POST", "/internal/sharing", sharing},
};

/* The time depends on the client's length alone. */
static bool is_authorized(const struct worker *w, const char *header)
{
    static const char scheme[] = "Bearer ";
    const char *given;
    const size_t want = strlen(w->token);
    size_t len;
    unsigned char difference;

    if (!header || strncmp(header, scheme, sizeof(scheme) - 1) != 0)
        return false;
    given = header + sizeof(scheme) - 1;
    len = strlen(given);
    difference = len != want;
    for (size_t i = 0; i < len; i++)
        difference |= (unsigned char)(given[i] ^ w->token[i % want]);
    return difference == 0;
}

void worker_on_request(void *user, struct http_exchange *x)
{
    struct worker *w = user;
    bool is_known = false;

    if (!is_authorized(w, http_header(x, "authorization"))) {
        http_respond_error(
            x, ERR_UNAUTHORIZED, NULL,
            "this is the internal port of Mysti's picture worker; send requests "
            "to mysti_server");
        return;
    }
    http_set_user(x, w, on_close);
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(http_path(x), routes[i].path) != 0)
            continue;
        is_known = true;
        if (strcmp(http_method(x), routes[i].method) == 0) {
            routes[i].handle(w, x);
            return;
        }
    }
    if (is_known)
        http_respond_error(x, ERR_METHOD, NULL, "%s does not take %s", http_path(x),
                           http_method(x));
    else
        http_respond_error(x, ERR_NOT_FOUND, NULL, "no route %s", http_path(x));
}

int worker_new(uv_loop_t *loop, const struct options *options, int threads, char *token,
               struct worker **ret, struct err *err)
{
    struct worker *w = mem_zalloc(sizeof(*w));
    struct compute_options compute = {.loop = loop,
                                      .backend = options->backend,
                                      .weights = options->weights,
                                      .embedding_folder = options->embedding_folder,
                                      .vae_folder = options->vae_folder,
                                      .vae = options->vae,
                                      .preview_method = options->preview_method,
                                      .threads = threads,
                                      .place = sharing_picture_place(options->sharing),
                                      .on_event = on_event,
                                      .on_done = on_done,
                                      .user = w};

    memcpy(compute.lora_folders, options->lora_folders, sizeof(compute.lora_folders));
    compute.upscaler_folder = options->upscaler_folder;
    w->token = token;
    w->sharing = options->sharing;
    w->verbose = options->verbose;
    if (options->model) {
        w->first_model = realpath(options->model, NULL);
        if (!w->first_model) /* the load will say what is wrong with it */
            w->first_model = mem_strdup(options->model);
    }
    if (compute_start(&compute, &w->compute, err)) {
        free(w->first_model);
        free(w->token);
        free(w);
        return -1;
    }
    begin(w, OPENING, task_new(TASK_OPEN), NULL);
    *ret = w;
    return 0;
}

void worker_stop(struct worker *w)
{
    compute_cancel(w->compute);
}

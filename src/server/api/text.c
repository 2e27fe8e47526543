/* Text requests go to llama-server as they are: status, headers, bytes and timing are the proxy's business. What is
 * done here is what llama-server cannot know: whether the body is JSON at all (it would be answered in another
 * shape, and only after a model was loaded for it), and which model is meant.
 *
 * A named model is looked up without touching the disk when it is a resident one, which is nearly always. Only
 * otherwise the folders are read, and the request waits for that (and then for its model) in the gate.
 */
#include "base/mem.h"
#include "base/str.h"
#include "server/api/body.h"
#include "server/api/body_scan.h"
#include "server/api/handlers.h"
#include "server/api/text_gate.h"
#include "server/config/config.h"

#include <stdlib.h>
#include <string.h>

struct text_ask {
    struct api *api;
    struct http_exchange *x;
    char *model;        /* NULL: the active one */
    const char *target; /* at the worker; static */
    char *body;         /* to send instead of the client's; NULL: the client's own */
    enum proxy_stream stream;
    enum text_need need;
    enum worker_task task; /* TASK_AUTO: any */
};

static void ask_free(struct text_ask *ask)
{
    free(ask->model);
    free(ask->body);
    free(ask);
}

static void on_left_early(struct http_exchange *x, void *user,
                          enum http_outcome outcome)
{
    struct text_ask *ask = user;

    (void)x;
    (void)outcome;
    catalog_forget(ask->api->catalog, ask);
    ask_free(ask);
}

static void on_forwarded(void *user, struct http_exchange *x, enum http_outcome outcome)
{
    (void)x;
    (void)outcome;
    text_pass_free(user);
}

/* path: NULL for the active model. Takes the ask. */
static void forward(struct text_ask *ask, const char *path)
{
    struct server *server = ask->api->server;
    struct http_exchange *x = ask->x;
    struct text_pass *pass = text_pass_new(ask->api->gate, path, ask->need);
    struct proxy_options o = {
        .client = server->client,
        .acquire = text_acquire,
        .release = text_release,
        .source = pass,
        .target = ask->target,
        .body = ask->body,
        .body_len = ask->body ? strlen(ask->body) : 0,
        .stream = ask->stream,
        .first_byte_timeout_ms = (unsigned)server->config->first_byte_timeout_s * 1000,
        .on_done = on_forwarded,
        .user = pass,
    };

    ask->body = NULL;
    ask_free(ask);
    http_set_user(x, NULL, NULL);
    proxy_forward(x, &o);
}

/* The resident text model that a name means; NULL: none, or not known without the list. */
static const char *resident_path(struct api *api, const char *name)
{
    const struct supervisor *s = api->server->supervisor;

    for (int id = WORKER_LLM; id < supervisor_count(s); id++) {
        struct worker_snapshot worker;
        const char *path;

        supervisor_snapshot(s, id, &worker);
        path = worker.wanted ? worker.wanted : worker.model;
        if (path && catalog_means(api->catalog, name, path))
            return path;
    }
    return NULL;
}

static enum worker_task task_of_worker(const struct worker_snapshot *w)
{
    return w->wish.task != TASK_AUTO ? w->wish.task : worker_task_of_file(w->wanted);
}

/* A resident model that was made for this; the one used last. NULL: none. */
static const char *resident_for(struct api *api, enum worker_task task)
{
    const struct supervisor *s = api->server->supervisor;
    const char *best = NULL;
    uint64_t used_ms = 0;

    for (int id = WORKER_LLM; id < supervisor_count(s); id++) {
        struct worker_snapshot w;

        supervisor_snapshot(s, id, &w);
        if (w.wanted && task_of_worker(&w) == task && (!best || w.used_ms > used_ms)) {
            best = w.wanted;
            used_ms = w.used_ms;
        }
    }
    return best;
}

static bool is_for(struct api *api, const char *path, enum worker_task task)
{
    const struct supervisor *s = api->server->supervisor;
    int id = supervisor_text_with(s, path);
    struct worker_snapshot w;

    if (id < 0)
        return worker_task_of_file(path) == task;
    supervisor_snapshot(s, id, &w);
    return task_of_worker(&w) == task;
}

/* Takes the ask. */
static void refuse_task(struct text_ask *ask, const char *path)
{
    struct http_exchange *x = ask->x;
    const char *id = path ? catalog_id(ask->api->catalog, path) : NULL;
    const char *what = ask->task == TASK_EMBEDDING ? "embeddings" : "reranking";

    http_set_user(x, NULL, NULL);
    if (id)
        http_respond_error(
            x, ERR_INVALID, "model",
            "'%.200s' was not made for %s: name a model that was, or load "
            "this one with \"task\": \"%s\"",
            id, what, worker_task_name(ask->task));
    else
        http_respond_error(x, ERR_INVALID, "model",
                           "no model for %s is loaded: name one that was made for it "
                           "(its file says so), or load one with \"task\": \"%s\"",
                           what, worker_task_name(ask->task));
    ask_free(ask);
}

/* path: NULL for the default. Takes the ask. */
static void forward_or_refuse(struct text_ask *ask, const char *path)
{
    char *copy = path ? mem_strdup(path) : NULL;

    if (ask->task != TASK_AUTO && (!path || !is_for(ask->api, path, ask->task)))
        refuse_task(ask, copy);
    else
        forward(ask, copy);
    free(copy);
}

static void on_listed(void *user)
{
    struct text_ask *ask = user;
    struct err err = {0};
    const struct catalog_entry *entry =
        catalog_find(ask->api->catalog, ask->model, MODEL_TEXT, &err);

    if (entry) {
        forward_or_refuse(ask, entry->path);
        return;
    }
    struct http_exchange *x = ask->x;

    http_set_user(x, NULL, NULL);
    ask_free(ask);
    http_respond_err(x, &err);
}

/* What the worker has to be for, and whether it takes one of its slots, by the route. */
static void set_needs(struct text_ask *ask)
{
    const char *target = ask->target;
    bool is_tokens = !strcmp(target, "/tokenize") || !strcmp(target, "/detokenize");

    ask->need = is_tokens ? TEXT_NEEDS_WORKER : TEXT_NEEDS_SLOT;
    if (!strcmp(target, "/v1/embeddings"))
        ask->task = TASK_EMBEDDING;
    else if (!strcmp(target, "/v1/rerank"))
        ask->task = TASK_RERANK;
}

/* Finds the model and forwards. body: to send instead of the client's own (taken), or NULL. */
static void serve(struct api *api, struct http_exchange *x, const char *target,
                  const char *model, char *body, enum proxy_stream stream)
{
    struct text_ask *ask = mem_zalloc(sizeof(*ask));
    const char *resident = NULL;

    *ask = (struct text_ask){.api = api,
                             .x = x,
                             .target = target,
                             .model = model && *model ? mem_strdup(model) : NULL,
                             .body = body,
                             .stream = stream};
    set_needs(ask);
    if (ask->model)
        resident = resident_path(api, ask->model);
    else if (ask->task != TASK_AUTO)
        resident = resident_for(api, ask->task);
    if (resident || !ask->model) {
        forward_or_refuse(ask, resident);
    } else {
        http_set_user(x, ask, on_left_early);
        catalog_ask(api->catalog, on_listed, ask);
    }
}

/* ---- chat and completions ---- */

/* What is read of a request that is forwarded as it came. */
struct text_fields {
    char *model; /* NULL: the active one */
    bool stream;
};

enum { MODEL, STREAM, NEEDED, FIELD_COUNT };

/* The quick way; false when it has to be the thorough one. */
static bool scan_fields(const char *data, size_t len, const char *needed,
                        struct text_fields *ret)
{
    struct scanned f[FIELD_COUNT] = {[MODEL] = {.key = "model"},
                                     [STREAM] = {.key = "stream"},
                                     [NEEDED] = {.key = needed}};
    const struct scanned *model = &f[MODEL];

    if (!body_scan(data, len, f, FIELD_COUNT) || f[NEEDED].kind == SCAN_ABSENT ||
        (model->kind != SCAN_ABSENT && model->kind != SCAN_NULL &&
         model->kind != SCAN_TEXT) ||
        f[STREAM].kind > SCAN_FALSE)
        return false;
    if (!strcmp(needed, "messages") &&
        (f[NEEDED].kind != SCAN_ARRAY || f[NEEDED].is_empty))
        return false;
    if (model->kind == SCAN_TEXT)
        ret->model = mem_strndup(model->text, model->len);
    ret->stream = f[STREAM].kind == SCAN_TRUE;
    return true;
}

static int parse_fields(const char *data, size_t len, const char *needed,
                        struct text_fields *ret, struct err *err)
{
    json_t *body = body_parse(data, len, err);
    const json_t *value = json_object_get(body, needed);
    const char *model = NULL;
    int rc = -1;

    if (!body)
        return -1;
    if (!strcmp(needed, "messages") && value &&
        (!json_is_array(value) || json_array_size(value) == 0))
        err_set_param(err, ERR_INVALID, needed,
                      "messages must be a list of at least one message");
    else if (!value)
        err_set_param(err, ERR_INVALID, needed, "%s is missing", needed);
    else if (body_text(body, "model", 0, &model, err) == 0 &&
             body_bool(body, "stream", &ret->stream, err) == 0)
        rc = 0;
    if (rc == 0 && model)
        ret->model = mem_strdup(model);
    json_decref(body);
    return rc;
}

static void forward_body(struct http_exchange *x, struct api *api, const char *target,
                         const char *needed)
{
    struct text_fields fields = {0};
    struct err err = {0};
    size_t len = 0;
    const char *data = http_body(x, &len);

    if (!scan_fields(data, len, needed, &fields) &&
        parse_fields(data, len, needed, &fields, &err))
        http_respond_err(x, &err);
    else
        serve(api, x, target, fields.model, NULL,
              fields.stream ? PROXY_STREAM_YES : PROXY_STREAM_NO);
    free(fields.model);
}

static void on_chat_body(struct http_exchange *x, void *user, const char *data,
                         size_t len)
{
    (void)data;
    (void)len;
    forward_body(x, user, "/v1/chat/completions", "messages");
}

static void on_completion_body(struct http_exchange *x, void *user, const char *data,
                               size_t len)
{
    (void)data;
    (void)len;
    forward_body(x, user, "/v1/completions", "prompt");
}

void text_chat(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_set_user(x, api, NULL);
    http_collect_body(x, 0, on_chat_body);
}

void text_completions(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_set_user(x, api, NULL);
    http_collect_body(x, 0, on_completion_body);
}

/* ---- tokens ---- */

/* Copies a value under the engine's name, from whichever of the names it has. */
static void pass_on(json_t *to, const char *name, const json_t *from,
                    const char *const *names)
{
    json_t *value = json_object_get(from, body_name(from, names));

    if (value && !json_is_null(value))
        json_object_set(to, name, value);
}

static void tokenize(struct api *api, struct http_exchange *x, const char *arg,
                     const json_t *body)
{
    static const char *const texts[] = {"content", "text", "input", "prompt", NULL};
    static const char *const special[] = {"add_special", "add_special_tokens", NULL};
    static const char *const parse[] = {"parse_special", NULL};
    static const char *const pieces[] = {"with_pieces", NULL};
    const char *key = body_name(body, texts), *text = NULL, *model = NULL;
    struct err err = {0};

    (void)arg;
    if (body_text(body, key, 0, &text, &err) ||
        body_text(body, "model", 0, &model, &err)) {
        http_respond_err(x, &err);
        return;
    }
    if (!text) {
        http_respond_error(x, ERR_INVALID, "content",
                           "content is missing: the text that is to be tokenized");
        return;
    }
    json_t *ask = json_pack("{s:s}", "content", text);

    pass_on(ask, "add_special", body, special);
    pass_on(ask, "parse_special", body, parse);
    pass_on(ask, "with_pieces", body, pieces);
    serve(api, x, "/tokenize", model, json_dumps(ask, JSON_COMPACT), PROXY_STREAM_NO);
    json_decref(ask);
}

static void detokenize(struct api *api, struct http_exchange *x, const char *arg,
                       const json_t *body)
{
    json_t *tokens = json_object_get(body, "tokens");
    const char *model = NULL;
    struct err err = {0};
    size_t i;
    json_t *token;

    (void)arg;
    if (body_text(body, "model", 0, &model, &err)) {
        http_respond_err(x, &err);
        return;
    }
    bool good = json_is_array(tokens);

    json_array_foreach(tokens, i, token)
    {
        good = good && json_is_integer(token) && json_integer_value(token) >= 0;
    }
    if (!good) {
        http_respond_error(
            x, ERR_INVALID, "tokens",
            "tokens must be a list of token ids, whole numbers from 0 on");
        return;
    }
    json_t *ask = json_pack("{s:O}", "tokens", tokens);

    serve(api, x, "/detokenize", model, json_dumps(ask, JSON_COMPACT), PROXY_STREAM_NO);
    json_decref(ask);
}

void text_tokenize(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_REQUIRED, tokenize);
}

void text_detokenize(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_REQUIRED, detokenize);
}

/* ---- vectors and ranks ---- */

static void on_embeddings_body(struct http_exchange *x, void *user, const char *data,
                               size_t len)
{
    (void)data;
    (void)len;
    forward_body(x, user, "/v1/embeddings", "input");
}

static void on_rerank_body(struct http_exchange *x, void *user, const char *data,
                           size_t len)
{
    (void)data;
    (void)len;
    forward_body(x, user, "/v1/rerank", "query");
}

void text_embeddings(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_set_user(x, api, NULL);
    http_collect_body(x, 0, on_embeddings_body);
}

void text_rerank(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_set_user(x, api, NULL);
    http_collect_body(x, 0, on_rerank_body);
}

/* Which models there are, and which are active.
 *
 * Active means: in a worker at this moment, compared by path, not by name. What was loaded from outside the model
 * folders (an absolute --llm-model) is listed under its path, because a list that hides the model in use is no help.
 *
 * A load answers when the model is loaded, however long that takes: the supervisor has no limit there as long as the
 * worker lives. Its two steps (the catalog, then the supervisor) each have their own way to cope with a client who
 * leaves: the question to the catalog is taken back; a load is not, because it was asked for. /v1/models/load takes both
 * kinds, since GET /v1/models lists both; /v1/llm/load insists on text, as its name says. */
#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"
#include "server/api/body.h"
#include "server/api/handlers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- lists ---- */

static const char *type_name(enum model_kind kind)
{
    return kind == MODEL_TEXT ? "llm" : "diffusion";
}

struct model_facts {
    const char *id;
    enum model_kind kind;
    uint64_t size;
    int64_t created;
    bool is_active;
    bool is_default; /* text: answers requests that name no model */
};

static json_t *model_json(const struct model_facts *m)
{
    const char *file = file_name(m->id), *dot = strrchr(file, '.');
    size_t name_length = dot && dot != file ? (size_t)(dot - file) : strlen(file);

    return json_pack("{s:s, s:s, s:I, s:s, s:s%, s:s, s:b, s:b, s:I}", "id", m->id,
                     "object", "model", "created", (json_int_t)m->created, "owned_by",
                     "local", "name", file, name_length, "type", type_name(m->kind),
                     "active", m->is_active, "default", m->is_default, "size_bytes",
                     (json_int_t)m->size);
}

/* Which worker has this file in memory; -1: none. */
static int active_in(const struct supervisor *s, const char *path)
{
    for (int id = 0; id < supervisor_count(s); id++) {
        struct worker_snapshot w;

        supervisor_snapshot(s, id, &w);
        if (w.model && strcmp(w.model, path) == 0)
            return id;
    }
    return -1;
}

static bool is_default(const struct supervisor *s, int id)
{
    return id == WORKER_SD || id == supervisor_default_text(s);
}

/* A model that was loaded from outside the folders is listed too. */
static void add_outsider(json_t *data, const struct worker_snapshot *w)
{
    struct stat st = {0};
    struct model_facts m = {.id = w->model,
                            .kind = w->kind == WORKER_LLM ? MODEL_TEXT : MODEL_PICTURE,
                            .is_active = true,
                            .is_default = w->kind == WORKER_SD || w->is_default};

    (void)stat(w->model, &st);
    m.size = (uint64_t)st.st_size;
    m.created = (int64_t)st.st_mtime;
    if (model_folder_is(w->model))
        model_folder_size(w->model, &m.size, &m.created);
    json_array_append_new(data, model_json(&m));
}

static json_t *list_json(struct api *api, enum model_kind only)
{
    const struct supervisor *s = api->server->supervisor;
    bool shown[WORKERS_MAX] = {false};
    json_t *data = json_array();

    for (size_t i = 0; i < catalog_count(api->catalog); i++) {
        const struct catalog_entry *e = catalog_at(api->catalog, i);
        int id = active_in(s, e->path);
        struct model_facts m = {.id = e->id,
                                .kind = e->kind,
                                .size = e->size_bytes,
                                .created = e->modified,
                                .is_active = id >= 0,
                                .is_default = id >= 0 && is_default(s, id)};

        if (e->trouble || (only != MODEL_UNKNOWN && e->kind != only))
            continue;
        if (id >= 0)
            shown[id] = true;
        json_array_append_new(data, model_json(&m));
    }
    for (int id = 0; id < supervisor_count(s); id++) {
        struct worker_snapshot w;

        supervisor_snapshot(s, id, &w);
        if (w.model && !shown[id] &&
            (only == MODEL_UNKNOWN || (only == MODEL_TEXT) == (w.kind == WORKER_LLM)))
            add_outsider(data, &w);
    }
    return json_pack("{s:s, s:o}", "object", "list", "data", data);
}

static void on_listed(void *user)
{
    struct later *l = user;
    enum model_kind only = (enum model_kind)later_number(l);
    struct api *api;
    struct http_exchange *x = later_claim(l, &api);

    if (x)
        http_respond_json(x, 200, list_json(api, only));
}

static void list(struct api *api, struct http_exchange *x, enum model_kind only)
{
    struct later *l = later_new(api, x);

    later_note(l, (int)only, NULL);
    catalog_ask(api->catalog, on_listed, l);
}

void models_list(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    list(api, x, MODEL_UNKNOWN);
}

void models_list_text(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    list(api, x, MODEL_TEXT);
}

/* ---- load ---- */

struct loading {
    struct api *api;
    struct http_exchange *x;
    char *name;
    enum model_kind kind; /* MODEL_UNKNOWN: whatever the file is */
    enum supervisor_force force;
    struct worker_load_options options;
};

static void loading_free(struct loading *l)
{
    free(l->name);
    free(l);
}

static void on_left_early(struct http_exchange *x, void *user,
                          enum http_outcome outcome)
{
    struct loading *l = user;

    (void)x;
    (void)outcome;
    catalog_forget(l->api->catalog, l);
    loading_free(l);
}

static void on_loaded(void *user, const struct err *err)
{
    struct later *l = user;
    enum model_kind kind = (enum model_kind)later_number(l);
    char *id = mem_strdup(later_text(l));
    struct api *api;
    struct http_exchange *x = later_claim(l, &api);

    if (x && err)
        http_respond_err(x, err);
    else if (x)
        http_respond_json(x, 200,
                          json_pack("{s:s, s:s, s:s}", "status", "success", "model", id,
                                    "type", type_name(kind)));
    free(id);
}

static int start_load(struct loading *l, const struct catalog_entry *e,
                      struct later *later, struct err *err)
{
    struct supervisor *s = l->api->server->supervisor;
    const struct supervisor_load load = {.path = e->path,
                                         .options = l->options,
                                         .force = l->force,
                                         .done = on_loaded,
                                         .data = later};
    int id;

    if (e->kind == MODEL_TEXT)
        return supervisor_load_text(s, &load, &id, err);
    return supervisor_load(s, WORKER_SD, &load, err);
}

static void on_found(void *user)
{
    struct loading *l = user;
    struct api *api = l->api;
    struct http_exchange *x = l->x;
    struct err err = {0};
    const struct catalog_entry *e = catalog_find(api->catalog, l->name, l->kind, &err);

    http_set_user(x, NULL, NULL);
    if (e) {
        struct later *later = later_new(api, x);

        later_note(later, (int)e->kind, e->id);
        if (start_load(l, e, later, &err)) {
            later_claim(later, &api);
            http_respond_err(x, &err);
        }
    } else {
        http_respond_err(x, &err);
    }
    loading_free(l);
}

/* The predecessors' names for llama.cpp's settings are taken as well. */
int models_read_options(const json_t *body, struct worker_load_options *ret,
                        struct err *err)
{
    static const char *const layer_names[] = {"gpu_layers", "n_gpu_layers", NULL};
    static const char *const context_names[] = {"context", "n_ctx", NULL};
    int64_t layers = -1, context = 0, slots = 0;
    int64_t idle = -1;
    const char *task = NULL, *cache_type = NULL;

    if (body_whole(body, body_name(body, layer_names), -1, 1000, &layers, err) ||
        body_whole(body, body_name(body, context_names), 0, 1 << 24, &context, err) ||
        body_whole(body, "slots", 0, 4096, &slots, err) ||
        body_whole(body, "idle_timeout", -1, 31536000, &idle, err) ||
        body_text(body, "task", 0, &task, err) ||
        (task && worker_task_from_name(task, &ret->task, err)) ||
        body_text(body, "cache_type", 0, &cache_type, err) ||
        (cache_type && cache_type_from_name(cache_type, &ret->cache_type, err)))
        return -1;
    ret->gpu_layers = (int)layers;
    ret->context = (int)context;
    ret->slots = (int)slots;
    ret->idle_timeout_s = (int)idle;
    return 0;
}

static void load(struct api *api, struct http_exchange *x, const json_t *body,
                 enum model_kind kind)
{
    static const char *const names[] = {"model", "model_id", NULL};
    struct worker_load_options options = WORKER_LOAD_OPTIONS_DEFAULT;
    enum supervisor_force force;
    const char *name = NULL;
    struct err err = {0};

    if (body_text(body, body_name(body, names), 4096, &name, &err) ||
        models_read_options(body, &options, &err) ||
        read_force(x, body, &force, &err)) {
        http_respond_err(x, &err);
        return;
    }
    if (!name || !*name) {
        http_respond_error(x, ERR_INVALID, "model",
                           "model is missing: an id from GET /v1/models");
        return;
    }
    struct loading *l = mem_zalloc(sizeof(*l));

    *l = (struct loading){api, x, mem_strdup(name), kind, force, options};
    http_set_user(x, l, on_left_early);
    catalog_ask(api->catalog, on_found, l);
}

static void load_any(struct api *api, struct http_exchange *x, const char *arg,
                     const json_t *body)
{
    (void)arg;
    load(api, x, body, MODEL_UNKNOWN);
}

static void load_text(struct api *api, struct http_exchange *x, const char *arg,
                      const json_t *body)
{
    (void)arg;
    load(api, x, body, MODEL_TEXT);
}

void models_load(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_REQUIRED, load_any);
}

void models_load_text(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_REQUIRED, load_text);
}

/* ---- unload ---- */

static void on_unloaded(void *user, const struct err *err)
{
    struct later *l = user;
    const char *text = later_text(l);
    char *id = text ? mem_strdup(text) : NULL;
    struct api *api;
    struct http_exchange *x = later_claim(l, &api);

    if (x && err)
        http_respond_err(x, err);
    else if (x)
        http_respond_json(x, 200,
                          json_pack("{s:s, s:s?}", "status", "success", "model", id));
    free(id);
}

/* The text worker that has the model of this name, the default for none. Answers when there is none. */
static int text_worker_of(struct api *api, struct http_exchange *x, const char *name)
{
    const struct supervisor *s = api->server->supervisor;

    if (!name || !*name)
        return supervisor_default_text(s);
    for (int id = WORKER_LLM; id < supervisor_count(s); id++) {
        struct worker_snapshot w;

        supervisor_snapshot(s, id, &w);
        if ((w.model && catalog_means(api->catalog, name, w.model)) ||
            (w.wanted && catalog_means(api->catalog, name, w.wanted)))
            return id;
    }
    http_respond_error(x, ERR_NO_MODEL, "model",
                       "no text model '%.200s' is loaded: GET /v1/llm/models marks "
                       "those that are",
                       name);
    return -1;
}

static void unload(struct api *api, struct http_exchange *x,
                   enum supervisor_force force, int id)
{
    struct worker_snapshot worker;
    struct later *l = later_new(api, x);
    struct err err = {0};

    supervisor_snapshot(api->server->supervisor, id, &worker);
    later_note(l, id, worker.model ? catalog_id(api->catalog, worker.model) : NULL);
    if (supervisor_unload(api->server->supervisor, id, force, on_unloaded, l, &err)) {
        later_claim(l, &api);
        http_respond_err(x, &err);
    }
}

static void unload_picture(struct api *api, struct http_exchange *x, const char *arg,
                           const json_t *body)
{
    enum supervisor_force force;
    struct err err = {0};

    (void)arg;
    if (read_force(x, body, &force, &err))
        http_respond_err(x, &err);
    else
        unload(api, x, force, WORKER_SD);
}

static void unload_text(struct api *api, struct http_exchange *x, const char *arg,
                        const json_t *body)
{
    static const char *const names[] = {"model", "model_id", NULL};
    enum supervisor_force force;
    const char *name = NULL;
    struct err err = {0};
    int id;

    (void)arg;
    if (body_text(body, body_name(body, names), 4096, &name, &err) ||
        read_force(x, body, &force, &err)) {
        http_respond_err(x, &err);
        return;
    }
    id = text_worker_of(api, x, name);
    if (id >= 0)
        unload(api, x, force, id);
}

void models_unload(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, unload_picture);
}

void models_unload_text(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_OPTIONAL, unload_text);
}

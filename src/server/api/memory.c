/* Memory as people and programs see it.
 *
 * GET  /v1/memory        what there is, who of us has how much of it (foreseen before it was started, and measured now), who
 *                        could give way and who not, what was moved lately, and what waits for leave
 * POST /v1/memory/plan   what would happen if this model were loaded, or a picture drawn that needs so much
 * POST /v1/memory/leave  --memory-policy ask: yes or no to what waits
 *
 * Foreseen and measured are shown side by side because their difference is the interesting part. What is measured as `file`
 * are pages of model files: they count as available to the kernel, but a model is only fast while they stay. */
#include "server/memory/memory.h"
#include "base/mem.h"
#include "server/api/body.h"
#include "server/api/handlers.h"
#include "server/memory/devices.h"

#include <stdlib.h>
#include <unistd.h>

#define MOVES_SHOWN 20
#define QUESTIONS_SHOWN 20

/* ---- what there is ---- */

static json_t *measured_json(struct api *api, int pid)
{
    struct memory_use use;
    uint64_t cards;

    if (pid <= 0 || memory_use_of_process("", pid, &use))
        return json_null();
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "resident", (json_int_t)use.resident,
                     "anonymous", (json_int_t)use.anonymous, "file",
                     (json_int_t)use.file, "swapped", (json_int_t)use.swapped, "cards",
                     devices_of_process(api->server->devices, "", pid, &cards)
                         ? json_integer((json_int_t)cards)
                         : json_null());
}

static json_t *prediction_json(const struct prediction *p)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:b}", "total", (json_int_t)p->total_bytes,
                     "weights", (json_int_t)p->weight_bytes, "cache",
                     (json_int_t)p->cache_bytes, "compute",
                     (json_int_t)p->compute_bytes, "learned", p->is_learned);
}

static json_t *predicted_json(const struct worker_snapshot *w)
{
    json_t *resident = json_object_get(w->details, "resident_bytes");

    if (w->predicted)
        return prediction_json(w->predicted);
    if (w->model && json_is_integer(resident))
        return json_pack("{s:O, s:O, s:i, s:i, s:b}", "total", resident, "weights",
                         resident, "cache", 0, "compute", 0, "learned", 1);
    return json_null();
}

/* What all of us together are expected to have there. */
static uint64_t foreseen_on(const struct plan_ledger *l, int device)
{
    uint64_t bytes = 0;

    for (int i = 0; i < l->resident_count; i++) {
        const struct plan_resident *r = &l->residents[i];

        if (r->device == device)
            bytes += plan_resident_bytes(r);
        else if (device == PLAN_RAM)
            bytes += plan_resident_ram(r);
    }
    return bytes;
}

static json_t *devices_json(const struct plan_ledger *l)
{
    json_t *list = json_array();

    for (int i = 0; i < l->device_count; i++) {
        const struct plan_device *d = &l->devices[i];

        json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:I, s:b, s:b}", "name", d->name, "total",
                            (json_int_t)d->total, "free", (json_int_t)d->free,
                            "foreseen", (json_int_t)foreseen_on(l, i), "simulated",
                            d->is_simulated, "usable", d->is_usable));
    }
    return list;
}

json_t *memory_devices_json(struct api *api)
{
    struct plan_ledger *ledger = mem_alloc(sizeof(*ledger));
    json_t *list;

    supervisor_ledger(api->server->supervisor, ledger);
    list = devices_json(ledger);
    free(ledger);
    return list;
}

/* null where layers are not counted: in memory alone, or a picture model */
static json_t *layers_json(const struct plan_resident *r)
{
    if (r->device == PLAN_RAM)
        return json_null();
    return json_pack("{s:i, s:i, s:I}", "wished", r->wished_layers, "present",
                     r->layers, "bytes", (json_int_t)r->layer_bytes);
}

/* null where there is none, or nothing of it in memory */
static json_t *context_json(const struct plan_resident *r)
{
    if (!r->context.present)
        return json_null();
    return json_pack("{s:i, s:i, s:i}", "wished", r->context.wished, "present",
                     r->context.present, "kept", r->context.kept);
}

static json_t *resident_json(struct api *api, const struct worker_snapshot *w,
                             const struct plan_ledger *l)
{
    const struct plan_resident *r = &l->residents[w->id];
    const char *why = supervisor_why_it_stays(api->server->supervisor, w->id);

    return json_pack("{s:s, s:s, s:s?, s:s, s:b, s:s, s:b, s:s?, s:o, s:o, s:o, s:o}",
                     "worker", w->name, "type", w->kind == WORKER_SD ? "image" : "text",
                     "model", w->wanted ? catalog_id(api->catalog, w->wanted) : NULL,
                     "state", w->state_name, "pinned", w->is_pinned, "device",
                     l->devices[r->device].name, "may_give_way", why == NULL, "why_not",
                     why, "layers", layers_json(r), "context", context_json(r),
                     "predicted", predicted_json(w), "measured",
                     measured_json(api, w->pid));
}

static json_t *residents_json(struct api *api, const struct plan_ledger *l)
{
    const struct supervisor *s = api->server->supervisor;
    json_t *list = json_array();

    for (int id = 0; id < supervisor_count(s); id++) {
        struct worker_snapshot w;

        if (!supervisor_is_shown(s, id))
            continue;
        supervisor_snapshot(s, id, &w);
        json_array_append_new(list, resident_json(api, &w, l));
    }
    return list;
}

/* ---- what was moved, and what would be ---- */

json_t *move_json(struct api *api, const struct supervisor_move *m)
{
    struct worker_snapshot w = {0};

    if (m->worker >= 0)
        supervisor_snapshot(api->server->supervisor, m->worker, &w);
    return json_pack("{s:I, s:I, s:s, s:s?, s:s, s:s, s:i, s:I, s:s}", "number",
                     (json_int_t)m->number, "time_ms", (json_int_t)m->time_ms, "move",
                     m->kind, "worker", w.name, "of", m->resident, "device", m->device,
                     "layers", m->layers, "bytes", (json_int_t)m->bytes, "reason",
                     m->reason);
}

static json_t *moves_json(struct api *api)
{
    struct supervisor_move moves[MOVES_SHOWN];
    int count = supervisor_moves(api->server->supervisor, moves, MOVES_SHOWN);
    json_t *list = json_array();

    for (int i = 0; i < count; i++)
        json_array_append_new(list, move_json(api, &moves[i]));
    return list;
}

static json_t *planned_json(struct api *api, const struct plan *plan,
                            const struct plan_ledger *l)
{
    json_t *list = json_array();

    for (int i = 0; i < plan->count; i++) {
        const struct plan_move *m = &plan->moves[i];
        const char *of = m->resident >= 0 ? l->residents[m->resident].name : NULL;
        struct worker_snapshot w = {0};

        if (m->resident >= 0)
            supervisor_snapshot(api->server->supervisor, m->resident, &w);
        json_array_append_new(
            list, json_pack("{s:s, s:s?, s:s?, s:s, s:i, s:I, s:s}", "move",
                            plan_move_name(m->kind), "worker", w.name, "of", of,
                            "device", l->devices[m->device].name, "layers", m->layers,
                            "bytes", (json_int_t)m->bytes, "reason", m->reason));
    }
    return list;
}

static json_t *questions_json(struct api *api, const struct plan_ledger *l)
{
    struct supervisor_question q[QUESTIONS_SHOWN];
    int count = supervisor_questions(api->server->supervisor, q, QUESTIONS_SHOWN);
    json_t *list = json_array();

    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:i, s:s, s:o}", "id", q[i].id, "for",
                                              q[i].name, "moves",
                                              planned_json(api, q[i].plan, l)));
    return list;
}

static const char *policy_word(enum plan_policy policy)
{
    static const char *const words[] = {
        [PLAN_AUTOMATIC] = "automatic", [PLAN_ASK] = "ask", [PLAN_MANUAL] = "manual"};

    return words[policy];
}

void memory_show(struct api *api, struct http_exchange *x, const char *arg)
{
    struct plan_ledger *ledger;
    struct memory_now now;

    (void)arg;
    if (memory_read("", &now)) {
        http_respond_error(x, ERR_INTERNAL, NULL,
                           "this machine does not say how much memory it has "
                           "(/proc/meminfo)");
        return;
    }
    ledger = mem_alloc(sizeof(*ledger));
    supervisor_ledger(api->server->supervisor, ledger);
    http_respond_json(
        x, 200,
        json_pack(
            "{s:{s:I, s:I, s:o}, s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "ram",
            "total", (json_int_t)now.total, "available", (json_int_t)now.available,
            "limit", now.limit ? json_integer((json_int_t)now.limit) : json_null(),
            "gpus", devices_gpus_json(api->server->devices, ""), "policy",
            policy_word(ledger->policy), "margin", (json_int_t)ledger->margin_bytes,
            "devices", devices_json(ledger), "residents", residents_json(api, ledger),
            "moves", moves_json(api), "questions", questions_json(api, ledger),
            "server", measured_json(api, getpid())));
    free(ledger);
}

/* ---- what would happen ---- */

static void respond_plan(struct api *api, struct http_exchange *x,
                         const struct plan_ledger *l, const struct plan *plan,
                         json_t *predicted)
{
    http_respond_json(x, 200,
                      json_pack("{s:b, s:b, s:o, s:o, s:o}", "admits", plan->admits,
                                "needs_leave", plan->needs_leave, "moves",
                                planned_json(api, plan, l), "devices", devices_json(l),
                                "predicted", predicted));
}

struct question {
    struct api *api;
    struct http_exchange *x;
    char *name;
    struct worker_load_options options;
};

static void question_free(struct question *q)
{
    free(q->name);
    free(q);
}

static void on_left(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct question *q = user;

    (void)x;
    (void)outcome;
    catalog_forget(q->api->catalog, q);
    question_free(q);
}

static void plan_for_text(struct question *q, const struct catalog_entry *e)
{
    const struct supervisor *s = q->api->server->supervisor;
    struct plan_ledger *ledger = mem_alloc(sizeof(*ledger));
    struct plan *plan = mem_alloc(sizeof(*plan));
    struct prediction p;
    struct err err = {0};

    if (supervisor_predict(s, e->path, &q->options, &p, &err) ||
        supervisor_would_load(s, e->path, &q->options, ledger, plan, &err))
        http_respond_err(q->x, &err);
    else
        respond_plan(q->api, q->x, ledger, plan, prediction_json(&p));
    free(plan);
    free(ledger);
}

static void on_found(void *user)
{
    struct question *q = user;
    struct err err = {0};
    const struct catalog_entry *e =
        catalog_find(q->api->catalog, q->name, MODEL_TEXT, &err);

    http_set_user(q->x, NULL, NULL);
    if (e)
        plan_for_text(q, e);
    else
        http_respond_err(q->x, &err);
    question_free(q);
}

static void plan_for_bytes(struct api *api, struct http_exchange *x, int64_t bytes)
{
    struct plan_ledger *ledger = mem_alloc(sizeof(*ledger));
    struct plan *plan = mem_alloc(sizeof(*plan));

    supervisor_would_draw(api->server->supervisor, (uint64_t)bytes, ledger, plan);
    respond_plan(api, x, ledger, plan, json_null());
    free(plan);
    free(ledger);
}

static void plan(struct api *api, struct http_exchange *x, const char *arg,
                 const json_t *body)
{
    struct worker_load_options options = WORKER_LOAD_OPTIONS_DEFAULT;
    const char *name = NULL;
    struct err err = {0};
    int64_t bytes = 0;

    (void)arg;
    if (body_text(body, "model", 4096, &name, &err) ||
        body_whole(body, "picture_bytes", 1, INT64_C(1) << 50, &bytes, &err) ||
        models_read_options(body, &options, &err)) {
        http_respond_err(x, &err);
        return;
    }
    if (!name == !bytes) {
        http_respond_error(x, ERR_INVALID, "model",
                           "either model (a text model's id from GET /v1/models) or "
                           "picture_bytes (what a picture needs) must be given");
        return;
    }
    if (bytes) {
        plan_for_bytes(api, x, bytes);
        return;
    }
    struct question *q = mem_zalloc(sizeof(*q));

    *q = (struct question){api, x, mem_strdup(name), options};
    http_set_user(x, q, on_left);
    catalog_ask(api->catalog, on_found, q);
}

void memory_plan(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_REQUIRED, plan);
}

static void leave(struct api *api, struct http_exchange *x, const char *arg,
                  const json_t *body)
{
    struct err err = {0};
    int64_t id = 0;
    bool yes = true;

    (void)arg;
    if (body_whole(body, "id", 1, INT32_MAX, &id, &err) ||
        body_bool(body, "leave", &yes, &err) ||
        supervisor_give_leave(api->server->supervisor, (int)id, yes, &err))
        http_respond_err(x, &err);
    else
        http_respond_json(x, 200,
                          json_pack("{s:I, s:b}", "id", (json_int_t)id, "leave", yes));
}

void memory_leave(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_REQUIRED, leave);
}

/* Two lists of passes, those that wait in the order of their arrival and those that run. The waiting ones are gone
 * through from the oldest whenever something may have changed: a pass came or went, the supervisor reported a change, a
 * load ended. For each:
 *
 *   a worker has its model, is ready and has a free slot -> through
 *   a worker has its model, is ready, all slots taken    -> waits; those of other models behind it may pass
 *   a worker has its model and is not ready              -> waits for the worker; if that fails, it fails with it
 *   no worker has its model                              -> the supervisor is asked to load it
 *
 * Collation with an age bound. A load may have to wait until somebody gives way (all resident models work). As long as it
 * has waited for less than --text-queue-age, those behind it that want a resident model pass: two clients who alternate
 * between two models do not make every request a load. From then on nobody behind it passes, so what works becomes idle and
 * the load goes ahead. The age counts from its arrival or from the end of the last load, whichever was later, so that a model
 * which was just loaded has that long to answer those who wait for it. So the longest wait is bounded by the age
 * times the number of models that are wanted, plus the answers that run. The same holds for a model that gave way and
 * waits for memory, a load that is its own, and for a request that waits for the rest of a context. Not where it would
 * not help that text models are idle: a picture takes as long as it takes, and so does a person who is asked for leave.
 *
 * Slots are counted here and not taken from the supervisor's running work, because token ids are asked for beside them.
 *
 * The estimate is what the answers of this model took so far (a moving mean), times the rounds until its turn. Before the
 * first answer there is none, and none is told.
 *
 * Changes are reported from within the supervisor; the list is gone through from a timer of zero length instead, so
 * that nothing here calls back into it from inside its own steps. A load cannot be taken back; its end is recognised
 * by the path. */
#include "server/api/text_gate.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/config/config.h"
#include "server/log/log.h"
#include "server/server.h"
#include "server/supervisor/supervisor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TELL_MS 500 /* how often those who wait get a new sentence */
#define MEAN_WEIGHT 4
#define BYTES_PER_TOKEN 3
#define ANSWER_TOKENS 1024 /* where the request does not say */
#define CONTEXT_TOKENS_MAX (INT64_C(1) << 24)

enum place { NOWHERE, WAITING, RUNNING };

struct text_pass {
    struct text_gate *gate;
    char *model_path; /* NULL: whatever is the default */
    enum text_need need;
    enum place place;
    struct text_pass *next, *previous;
    struct proxy *proxy; /* while it waits or works */
    uint64_t arrived_ms; /* when it asked first */
    uint64_t begun_ms;
    int64_t tokens;   /* of context that it may need; 0: not looked at yet */
    bool is_too_long; /* for the context that its model has now */
    bool had_worker;  /* asked for again: the worker of this generation failed it */
    int worker;       /* its id, once had_worker */
    unsigned generation;
};

struct list {
    struct text_pass *first, *last;
};

/* What is known of the model in one worker. */
struct desk {
    struct text_gate *gate;
    struct supervisor_wait *wait; /* for it to be ready */
    unsigned taken;               /* slots */
    double mean_ms;               /* of an answer; 0: none yet */
    unsigned generation;          /* of the process that mean_ms is about */
};

struct text_gate {
    struct server *server;
    struct list waiting, running;
    struct desk desks[WORKERS_MAX];
    uv_timer_t kick, tell;
    char *loading;        /* the path of the load that is under way for a pass */
    uint64_t switched_ms; /* when the last load ended */
    unsigned references;
    bool closed;
};

static void look(struct text_gate *g);

static void gate_unref(struct text_gate *g)
{
    if (--g->references)
        return;
    free(g->loading);
    free(g);
}

static void on_kick(uv_timer_t *timer)
{
    look(timer->data);
}

static void kick(struct text_gate *g)
{
    if (!g->closed)
        uv_timer_start(&g->kick, on_kick, 0, 0);
}

/* ---- the lists ---- */

static struct list *list_of(struct text_pass *pass)
{
    return pass->place == WAITING ? &pass->gate->waiting : &pass->gate->running;
}

static void take_out(struct text_pass *pass)
{
    struct list *l = list_of(pass);

    *(pass->previous ? &pass->previous->next : &l->first) = pass->next;
    *(pass->next ? &pass->next->previous : &l->last) = pass->previous;
    pass->next = pass->previous = NULL;
    pass->place = NOWHERE;
}

/* One that is asked for again keeps the place that its age gives it. */
static void put_in(struct text_pass *pass, enum place place)
{
    struct list *l;
    struct text_pass *after;

    pass->place = place;
    l = list_of(pass);
    after = l->last;
    while (place == WAITING && after && after->arrived_ms > pass->arrived_ms)
        after = after->previous;
    pass->previous = after;
    pass->next = after ? after->next : l->first;
    *(after ? &after->next : &l->first) = pass;
    *(pass->next ? &pass->next->previous : &l->last) = pass;
}

/* The worker that a pass is for; -1: none has its model. */
static int worker_of(const struct text_pass *pass)
{
    const struct supervisor *s = pass->gate->server->supervisor;

    return pass->model_path ? supervisor_text_with(s, pass->model_path)
                            : supervisor_default_text(s);
}

static bool wait_for_the_same(const struct text_pass *a, const struct text_pass *b)
{
    int worker = worker_of(a);

    if (a->need != b->need || worker != worker_of(b))
        return false;
    return worker >= 0 || !strcmp(a->model_path, b->model_path);
}

/* 1: nobody of its model is before it. */
static int position_of(const struct text_pass *pass)
{
    int position = 1;

    for (const struct text_pass *p = pass->previous; p; p = p->previous)
        position += wait_for_the_same(p, pass);
    return position;
}

static unsigned slots_of(const struct text_gate *g, int id)
{
    struct worker_snapshot w;

    supervisor_snapshot(g->server->supervisor, id, &w);
    return w.slots ? w.slots : 1;
}

/* Until the turn of the one at this position; -1: not known. */
static int64_t eta_of(const struct text_gate *g, int id, int position)
{
    const struct desk *desk = id >= 0 ? &g->desks[id] : NULL;
    unsigned slots;

    if (!desk || desk->mean_ms <= 0)
        return -1;
    slots = slots_of(g, id);
    return (int64_t)(desk->mean_ms *
                     (double)(((unsigned)position + slots - 1) / slots));
}

/* ---- what those who wait are told ---- */

static void tell(struct text_pass *pass, int position)
{
    struct text_gate *g = pass->gate;
    struct supervisor *s = g->server->supervisor;
    int id = worker_of(pass);
    int64_t eta = eta_of(g, id, position);
    char why[64] = "", text[96];

    if (id >= 0 && !supervisor_is_ready(s, id, NEED_MODEL))
        supervisor_progress_text(s, id, why, sizeof(why));
    else if (pass->is_too_long)
        snprintf(why, sizeof(why), "the model's whole context is awaited");
    if (*why)
        snprintf(text, sizeof(text), "queue position=%d %s", position, why);
    else if (eta >= 0)
        snprintf(text, sizeof(text), "queue position=%d eta_ms=%" PRId64, position,
                 eta);
    else
        snprintf(text, sizeof(text), "queue position=%d", position);
    proxy_progress(pass->proxy, text);
}

/* In one go from the front, for all: positions are counted per worker; those without one are rare. */
static void each_waiting(struct text_gate *g,
                         void (*each)(struct text_pass *pass, int position, void *data),
                         void *data)
{
    int positions[WORKERS_MAX] = {0};

    for (struct text_pass *p = g->waiting.first; p; p = p->next) {
        int id = worker_of(p);

        if (p->need == TEXT_NEEDS_SLOT && id >= 0)
            each(p, ++positions[id], data);
        else
            each(p, position_of(p), data);
    }
}

static void tell_one(struct text_pass *pass, int position, void *data)
{
    (void)data;
    tell(pass, position);
}

static void on_tell(uv_timer_t *timer)
{
    struct text_gate *g = timer->data;

    if (!g->waiting.first)
        uv_timer_stop(timer);
    each_waiting(g, tell_one, NULL);
}

static void start_telling(struct text_gate *g)
{
    if (!uv_is_active((uv_handle_t *)&g->tell))
        uv_timer_start(&g->tell, on_tell, TELL_MS, TELL_MS);
}

/* ---- turns ---- */

static void fail(struct text_pass *pass, const struct err *err)
{
    take_out(pass);
    proxy_fail(pass->proxy, err);
}

static void let_through(struct text_pass *pass, int id)
{
    struct text_gate *g = pass->gate;
    struct proxy_target target = {0};
    struct worker_snapshot worker;
    uint64_t now = clock_ms();

    take_out(pass);
    supervisor_snapshot(g->server->supervisor, id, &worker);
    target.port = worker.port;
    snprintf(target.token, sizeof(target.token), "%s", worker.token);
    put_in(pass, RUNNING);
    pass->had_worker = true;
    pass->worker = id;
    pass->begun_ms = now;
    g->desks[id].taken += pass->need == TEXT_NEEDS_SLOT;
    if (now - pass->arrived_ms >= TELL_MS)
        log_info(g->server->log, "[Queue] Text request %s acquired a slot after %.1f s",
                 http_request_id(proxy_exchange(pass->proxy)),
                 (double)(now - pass->arrived_ms) / 1000);
    pass->generation = supervisor_work_begin(g->server->supervisor, id);
    proxy_ready(pass->proxy, &target);
}

static void on_loaded(void *user, const struct err *err)
{
    struct text_gate *g = user;

    for (struct text_pass *p = g->waiting.first, *next; !g->closed && err && p;
         p = next) {
        next = p->next;
        if (p->model_path && g->loading && !strcmp(p->model_path, g->loading) &&
            worker_of(p) < 0)
            fail(p, err);
    }
    free(g->loading);
    g->loading = NULL;
    g->switched_ms = clock_ms();
    kick(g);
    gate_unref(g);
}

static void on_ready(void *user, const struct err *err)
{
    struct desk *desk = user;
    struct text_gate *g = desk->gate;
    int id = (int)(desk - g->desks);

    desk->wait = NULL;
    g->switched_ms = clock_ms();
    for (struct text_pass *p = g->waiting.first, *next; err && p; p = next) {
        next = p->next;
        if (worker_of(p) == id)
            fail(p, err);
    }
    kick(g);
}

/* Returns 0, or -1 when somebody has to give way first. Fails the pass when its model cannot be had. */
static int ask_for_model(struct text_pass *pass)
{
    struct text_gate *g = pass->gate;
    struct err err = {0};
    char *path = mem_strdup(pass->model_path);
    const struct supervisor_load load = {.path = path,
                                         .options = WORKER_LOAD_OPTIONS_DEFAULT,
                                         .keeps_default = true,
                                         .done = on_loaded,
                                         .data = g};
    int id;

    g->references++;
    if (!supervisor_load_text(g->server->supervisor, &load, &id, &err)) {
        g->loading = path;
        return 0;
    }
    g->references--;
    free(path);
    if (err.code == ERR_CONFLICT)
        return -1;
    fail(pass, &err);
    return 0;
}

static bool is_aged(const struct text_pass *pass)
{
    const struct text_gate *g = pass->gate;
    uint64_t since =
        pass->arrived_ms > g->switched_ms ? pass->arrived_ms : g->switched_ms;

    return clock_ms() - since >= (uint64_t)g->server->config->text_queue_age_s * 1000;
}

/* As many as its text and its answer may have at most, roughly: a token has three bytes or more in most languages. Only
 * looked at when its model has less than its whole context. */
static int64_t tokens_of(const struct text_pass *pass)
{
    static const char *const names[] = {"max_tokens", "max_completion_tokens",
                                        "n_predict"};
    int64_t answer = ANSWER_TOKENS;
    size_t len = 0;
    const char *data = http_body(proxy_exchange(pass->proxy), &len);
    json_t *body = json_loadb(data, len, 0, NULL);

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        json_int_t said = json_integer_value(json_object_get(body, names[i]));

        if (said > 0)
            answer = said;
    }
    json_decref(body);
    return (int64_t)len / BYTES_PER_TOKEN +
           (answer < CONTEXT_TOKENS_MAX ? answer : CONTEXT_TOKENS_MAX);
}

static bool has_context(struct text_pass *pass, int id)
{
    struct supervisor *s = pass->gate->server->supervisor;

    pass->is_too_long = false;
    if (pass->need != TEXT_NEEDS_SLOT || !supervisor_is_short(s, id))
        return true;
    if (!pass->tokens)
        pass->tokens = tokens_of(pass);
    pass->is_too_long = !supervisor_has_context(s, id, pass->tokens);
    return !pass->is_too_long;
}

/* false: nobody behind this one may pass */
static bool look_at(struct text_pass *pass, bool *is_full)
{
    struct text_gate *g = pass->gate;
    struct supervisor *s = g->server->supervisor;
    int id = worker_of(pass);

    if (id < 0)
        return g->loading || !ask_for_model(pass) || !is_aged(pass);
    if (!supervisor_is_ready(s, id, NEED_MODEL)) {
        struct desk *desk = &g->desks[id];

        supervisor_summon(s, id);
        if (!desk->wait)
            desk->wait = supervisor_when_ready(s, id, NEED_MODEL, on_ready, desk);
        return !supervisor_waits_for_memory(s, id) || !is_aged(pass);
    } else if (pass->need == TEXT_NEEDS_WORKER) {
        let_through(pass, id);
    } else if (!has_context(pass, id)) {
        start_telling(g);
        return !is_aged(pass) || supervisor_picture_bytes(s); /* smaller ones pass */
    } else if (!is_full[id] && g->desks[id].taken < slots_of(g, id)) {
        let_through(pass, id);
    } else {
        is_full[id] = true; /* nor does anybody of this model overtake it */
    }
    return true;
}

static void look(struct text_gate *g)
{
    bool is_full[WORKERS_MAX] = {false};

    for (struct text_pass *p = g->waiting.first, *next; p; p = next) {
        next = p->next;
        if (!look_at(p, is_full))
            return;
    }
}

static void on_change(void *user, int id)
{
    struct text_gate *g = user;

    (void)id; /* the picture worker, too: it may have given its memory back */
    if (g->waiting.first)
        kick(g);
}

/* ---- for the proxy ---- */

static int waiting_beside(const struct text_pass *pass)
{
    int count = 0;

    for (const struct text_pass *p = pass->gate->waiting.first; p; p = p->next)
        count += wait_for_the_same(p, pass);
    return count;
}

/* A truthful Retry-After: when the first of those who wait now has its turn, one place is free. */
static void refuse(struct text_pass *pass, struct proxy *p, int count)
{
    struct text_gate *g = pass->gate;
    int64_t eta = eta_of(g, worker_of(pass), 1);
    struct err err = {0};
    char seconds[24];

    snprintf(seconds, sizeof(seconds), "%" PRId64, eta < 1000 ? 1 : (eta + 999) / 1000);
    http_set_header(proxy_exchange(p), "Retry-After", seconds);
    err_set(&err, ERR_RATE_LIMIT,
            "%d text requests are waiting for this model already, and no more may "
            "(--text-queue-limit): try again in %s s",
            count, seconds);
    proxy_fail(p, &err);
}

void text_acquire(void *source, struct proxy *p)
{
    struct text_pass *pass = source;
    struct text_gate *g = pass->gate;
    int waiting;

    if (pass->had_worker)
        supervisor_suspect(g->server->supervisor, pass->worker, pass->generation);
    else
        pass->arrived_ms = clock_ms();
    waiting = pass->had_worker ? 0 : waiting_beside(pass);
    if (waiting >= g->server->config->text_queue_limit) {
        refuse(pass, p, waiting);
        return;
    }
    pass->proxy = p;
    put_in(pass, WAITING);
    look(g);
    if (pass->place != WAITING)
        return;
    tell(pass, waiting + 1);
    start_telling(g);
    log_debug(g->server->log, "[Queue] Text request %s waiting (position %d)",
              http_request_id(proxy_exchange(p)), waiting + 1);
}

static void note_time(struct text_gate *g, const struct text_pass *pass)
{
    struct desk *desk = &g->desks[pass->worker];
    double ms = (double)(clock_ms() - pass->begun_ms);

    if (desk->generation != pass->generation || desk->mean_ms <= 0)
        desk->mean_ms = ms > 1 ? ms : 1;
    else
        desk->mean_ms += (ms - desk->mean_ms) / MEAN_WEIGHT;
    desk->generation = pass->generation;
}

void text_release(void *source, struct proxy *p)
{
    struct text_pass *pass = source;
    struct text_gate *g = pass->gate;

    (void)p;
    if (pass->place == RUNNING) {
        if (pass->need == TEXT_NEEDS_SLOT) {
            g->desks[pass->worker].taken--;
            note_time(g, pass);
        }
        supervisor_work_end(g->server->supervisor, pass->worker, pass->generation);
        log_debug(g->server->log, "[Queue] Text request %s released after %.1f s",
                  http_request_id(proxy_exchange(pass->proxy)),
                  (double)(clock_ms() - pass->begun_ms) / 1000);
    }
    if (pass->place != NOWHERE)
        take_out(pass);
    pass->proxy = NULL;
    kick(g);
}

struct text_pass *text_pass_new(struct text_gate *g, const char *model_path,
                                enum text_need need)
{
    struct text_pass *pass = mem_zalloc(sizeof(*pass));

    pass->gate = g;
    pass->model_path = model_path ? mem_strdup(model_path) : NULL;
    pass->need = need;
    g->references++;
    return pass;
}

void text_pass_free(struct text_pass *pass)
{
    gate_unref(pass->gate);
    free(pass->model_path);
    free(pass);
}

/* ---- seen from outside ---- */

static struct text_place place_of(const struct text_pass *pass, int position)
{
    const struct text_gate *g = pass->gate;
    struct text_place place = {
        .id = http_request_id(proxy_exchange(pass->proxy)),
        .model = pass->model_path,
        .is_running = pass->place == RUNNING,
        .position = position,
        .waited_ms =
            (pass->place == RUNNING ? pass->begun_ms : clock_ms()) - pass->arrived_ms,
    };
    int id = pass->place == RUNNING ? pass->worker : worker_of(pass);

    if (!place.model) {
        struct worker_snapshot w;

        supervisor_snapshot(g->server->supervisor, id, &w);
        place.model = w.model ? w.model : w.wanted;
    }
    place.eta_ms = place.is_running ? 0 : eta_of(g, id, position);
    return place;
}

struct visitor {
    text_place_fn *each;
    void *data;
};

static void show_one(struct text_pass *pass, int position, void *data)
{
    const struct visitor *v = data;
    struct text_place place = place_of(pass, position);

    v->each(v->data, &place);
}

void text_gate_each(struct text_gate *g, text_place_fn *each, void *data)
{
    struct visitor v = {each, data};

    for (struct text_pass *p = g->running.first; p; p = p->next)
        show_one(p, 0, &v);
    each_waiting(g, show_one, &v);
}

/* ---- life ---- */

struct text_gate *text_gate_new(struct server *server)
{
    struct text_gate *g = mem_zalloc(sizeof(*g));

    g->server = server;
    g->references = 3; /* the owner, the timers */
    for (int id = 0; id < WORKERS_MAX; id++)
        g->desks[id].gate = g;
    uv_timer_init(server->loop, &g->kick);
    uv_timer_init(server->loop, &g->tell);
    g->kick.data = g->tell.data = g;
    supervisor_listen(server->supervisor, on_change, g);
    log_info(server->log,
             "[Queue] Initialized with max concurrent requests: %" PRId64
             " (text, each model)",
             server->config->llm_slots);
    return g;
}

static void on_timer_closed(uv_handle_t *timer)
{
    gate_unref(timer->data);
}

void text_gate_free(struct text_gate *g)
{
    if (!g)
        return;
    g->closed = true;
    uv_close((uv_handle_t *)&g->kick, on_timer_closed);
    uv_close((uv_handle_t *)&g->tell, on_timer_closed);
    gate_unref(g);
}

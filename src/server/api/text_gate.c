/* One list of passes that wait, looked at from its head whenever something may have changed: a pass came or went, the
 * supervisor reported a change, a load ended, the worker became ready. The head decides:
 *
 *   its model is not the worker's -> ask the supervisor to load it (refused while work runs: looked at again when
 *                                    the work ends, which is a change)
 *   the worker is ready           -> through, next head
 *   else                          -> wait for the worker; if that ends in an error, the head fails with it
 *
 * Strict order, so a request for another model is not overtaken for ever by requests for the present one; the price
 * is that those behind it wait for its load. Two clients that alternate between two models make the worker
 * reload each time: correct, slow, and said in the log by the supervisor. (Collating by model with a bound on the
 * age is a matter of the durable queue.)
 *
 * Changes are reported from within the supervisor; the list is looked at from a timer of zero length instead, so
 * that nothing here calls back into it from inside its own steps. A load cannot be taken back: its answer is
 * recognised as stale by comparing the head's model.
 */
#include "server/api/text_gate.h"

#include "base/mem.h"
#include "server/server.h"
#include "server/supervisor/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text_pass {
    struct text_gate *gate;
    char *model_path; /* NULL: whatever is active */
    struct text_pass *next;
    struct proxy *proxy; /* while it waits or works */
    bool waiting;        /* in the gate's list */
    bool working;
    bool
        had_worker; /* it is asked for again: the worker of this generation failed it */
    int worker;     /* its id, once had_worker */
    unsigned generation;
};

struct text_gate {
    struct server *server;
    struct text_pass *first;
    uv_timer_t kick;
    struct supervisor_wait *wait;
    char *loading; /* the path of the load that is under way for a pass */
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

/* ---- the list ---- */

static void take_out(struct text_pass *pass)
{
    struct text_pass **at = &pass->gate->first;

    while (*at != pass)
        at = &(*at)->next;
    *at = pass->next;
    pass->next = NULL;
    pass->waiting = false;
}

static void fail_head(struct text_gate *g, const struct err *err)
{
    struct text_pass *pass = g->first;

    take_out(pass);
    proxy_fail(pass->proxy, err);
}

static void let_through(struct text_gate *g, int id)
{
    struct text_pass *pass = g->first;
    struct proxy_target target = {0};
    struct worker_snapshot worker;

    take_out(pass);
    supervisor_snapshot(g->server->supervisor, id, &worker);
    target.port = worker.port;
    snprintf(target.token, sizeof(target.token), "%s", worker.token);
    pass->working = true;
    pass->had_worker = true;
    pass->worker = id;
    pass->generation = supervisor_work_begin(g->server->supervisor, id);
    proxy_ready(pass->proxy, &target);
}

static void on_loaded(void *user, const struct err *err)
{
    struct text_gate *g = user;
    const struct text_pass *head = g->first;

    if (!g->closed && err && head && head->model_path && g->loading &&
        !strcmp(head->model_path, g->loading))
        fail_head(g, err);
    free(g->loading);
    g->loading = NULL;
    kick(g);
    gate_unref(g);
}

static void on_ready(void *user, const struct err *err)
{
    struct text_gate *g = user;

    g->wait = NULL;
    if (err && g->first)
        fail_head(g, err);
    kick(g);
}

static void ask_for_model(struct text_gate *g)
{
    struct err err = {0};
    char *path = mem_strdup(g->first->model_path);
    const struct supervisor_load load = {.path = path,
                                         .options = WORKER_LOAD_OPTIONS_DEFAULT,
                                         .keeps_default = true,
                                         .done = on_loaded,
                                         .data = g};
    int id;

    g->references++;
    if (!supervisor_load_text(g->server->supervisor, &load, &id, &err)) {
        g->loading = path;
        return;
    }
    g->references--;
    free(path);
    if (err.code != ERR_CONFLICT) {
        fail_head(g, &err);
        kick(g);
    }
}

static void look(struct text_gate *g)
{
    struct supervisor *s = g->server->supervisor;

    while (g->first && !g->loading) {
        const char *wanted = g->first->model_path;
        int id = wanted ? supervisor_text_with(s, wanted) : supervisor_default_text(s);

        if (id < 0) {
            ask_for_model(g);
            return;
        }
        if (!supervisor_is_ready(s, id)) {
            if (!g->wait)
                g->wait = supervisor_when_ready(s, id, on_ready, g);
            return;
        }
        let_through(g, id);
    }
}

static void on_change(void *user, int id)
{
    struct text_gate *g = user;
    char text[160];

    if (id == WORKER_SD || !g->first)
        return;
    supervisor_progress_text(g->server->supervisor, id, text, sizeof(text));
    for (struct text_pass *pass = g->first; pass; pass = pass->next)
        proxy_progress(pass->proxy, text);
    kick(g);
}

/* ---- for the proxy ---- */

void text_acquire(void *source, struct proxy *p)
{
    struct text_pass *pass = source, **last = &pass->gate->first;
    struct text_gate *g = pass->gate;

    if (pass->had_worker)
        supervisor_suspect(g->server->supervisor, pass->worker, pass->generation);
    while (*last)
        last = &(*last)->next;
    *last = pass;
    pass->proxy = p;
    pass->waiting = true;
    on_change(g, supervisor_default_text(g->server->supervisor));
    look(g);
}

void text_release(void *source, struct proxy *p)
{
    struct text_pass *pass = source;
    struct text_gate *g = pass->gate;

    (void)p;
    if (pass->waiting)
        take_out(pass);
    if (pass->working)
        supervisor_work_end(g->server->supervisor, pass->worker, pass->generation);
    pass->working = false;
    pass->proxy = NULL;
    kick(g);
}

struct text_pass *text_pass_new(struct text_gate *g, const char *model_path)
{
    struct text_pass *pass = mem_zalloc(sizeof(*pass));

    pass->gate = g;
    pass->model_path = model_path ? mem_strdup(model_path) : NULL;
    g->references++;
    return pass;
}

void text_pass_free(struct text_pass *pass)
{
    gate_unref(pass->gate);
    free(pass->model_path);
    free(pass);
}

/* ---- life ---- */

struct text_gate *text_gate_new(struct server *server)
{
    struct text_gate *g = mem_zalloc(sizeof(*g));

    g->server = server;
    g->references = 2; /* the owner, the timer */
    uv_timer_init(server->loop, &g->kick);
    g->kick.data = g;
    supervisor_listen(server->supervisor, on_change, g);
    return g;
}

static void on_kick_closed(uv_handle_t *timer)
{
    gate_unref(timer->data);
}

void text_gate_free(struct text_gate *g)
{
    if (!g)
        return;
    g->closed = true;
    uv_close((uv_handle_t *)&g->kick, on_kick_closed);
    gate_unref(g);
}

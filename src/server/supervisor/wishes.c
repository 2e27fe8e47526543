/* What may be asked of a worker: load, unload, start, stop, restart. Each is checked here (is the file such a
 * model, is the worker busy, is something else under way), noted as something somebody waits for, and turned into
 * an event; the table in states.c does the rest.
 *
 * A model file is looked at (model_peek) on the loop thread before a load: a few milliseconds of the head of a file,
 * once per load, for an error that comes before anything is stopped. */
#include "base/mem.h"
#include "server/models/peek.h"
#include "server/supervisor/worker.h"

static int refuse_if_busy(const struct worker *w, enum supervisor_force force,
                          const char *what, struct err *err)
{
    if (w->s->shutting_down)
        return err_set(err, ERR_UNAVAILABLE, "the server is being stopped");
    if (force == SUPERVISOR_POLITE && w->running > 0)
        return err_set(err, ERR_CONFLICT,
                       "the %s worker is busy with %u request%s: wait, or %s it with "
                       "force",
                       w->profile->what, w->running, w->running == 1 ? "" : "s", what);
    return 0;
}

int worker_check_file(const struct worker *w, const char *path, struct err *err)
{
    enum model_kind wanted = w->kind == WORKER_SD ? MODEL_PICTURE : MODEL_TEXT;
    struct model_peek peek;

    if (model_peek(path, &peek, err))
        return -1;
    if (peek.kind == wanted)
        return 0;
    return err_set_param(err, ERR_BAD_FILE, "model", "%s is not a %s model%s", path,
                         w->profile->what,
                         peek.kind == MODEL_UNKNOWN ? ""
                         : peek.kind == MODEL_TEXT  ? " but a text model"
                                                    : " but a picture model");
}

static void cancel(struct worker *w, enum wait_type type, const char *by)
{
    struct err err = {0};

    err_set(&err, ERR_CANCELLED, "given up: %s", by);
    supervisor_settle(w, type, &err);
}

/* The load is that of a text model which requests without a model are to go to from now on. */
static void take_default(struct worker *w, const struct supervisor_load *load)
{
    if (w->kind != WORKER_LLM || !load->path || load->keeps_default)
        return;
    w->becomes_default = true;
    if (!w->next.known && (w->state == WORKER_READY || w->state == WORKER_BUSY)) {
        residents_make_default(w);
        supervisor_store(w);
    }
}

/* The one option that a running process does not have to be started anew for. */
static void take_idle_timeout(struct worker *w, int idle_timeout_s)
{
    if (w->wanted.options.idle_timeout_s == idle_timeout_s)
        return;
    w->wanted.options.idle_timeout_s = idle_timeout_s;
    supervisor_store(w);
    park_idle_end(w);
    if (w->state == WORKER_READY)
        park_idle_begin(w);
}

static int join_next(struct worker *w, const struct wish *wish,
                     const struct supervisor_load *load, struct err *err)
{
    if (wish_is_same(&w->next, wish)) {
        take_default(w, load);
        supervisor_wait_add(w, WAIT_CHANGE, load->done, load->data);
        return 0;
    }
    if (load->force == SUPERVISOR_POLITE)
        return err_set(err, ERR_CONFLICT,
                       "the %s worker is about to %s %s: wait for it", w->profile->what,
                       w->next.path ? "load" : "unload",
                       w->next.path ? w->next.path : "its model");
    cancel(w, WAIT_CHANGE, "another model was asked for");
    return 1;
}

/* Somebody wants another model, or none (path NULL). */
static int change(struct worker *w, const struct supervisor_load *load, struct err *err)
{
    bool settled = w->state == WORKER_READY || w->state == WORKER_BUSY;
    struct wish wish = {.known = true,
                        .path = (char *)(uintptr_t)load->path, /* only looked at */
                        .options = load->options};

    if (w->next.known) {
        int rc = join_next(w, &wish, load, err);

        if (rc <= 0)
            return rc;
    } else if (wish_is_same(&w->wanted, &wish) && !w->safe_mode &&
               w->state != WORKER_STOPPED && w->state != WORKER_FAILED) {
        take_default(w, load);
        supervisor_wait_add(w, WAIT_CHANGE, load->done, load->data)->due =
            settled; /* else it is on its way */
        take_idle_timeout(w, load->options.idle_timeout_s);
        if (w->state == WORKER_PARKED || w->state == WORKER_PARKING)
            worker_event(w, EV_START);
        return 0;
    }
    if (refuse_if_busy(w, load->force, load->path ? "load" : "unload", err))
        return -1;
    w->wants_up = true;
    w->is_forced = load->force == SUPERVISOR_FORCE;
    w->granted_layers = -1;
    w->granted_context = 0;
    wish_set(&w->next, load->path, &load->options);
    take_default(w, load);
    supervisor_wait_add(w, WAIT_CHANGE, load->done, load->data);
    worker_event(w, EV_LOAD);
    return 0;
}

int supervisor_load(struct supervisor *s, int id, const struct supervisor_load *load,
                    struct err *err)
{
    struct worker *w = s->workers[id];

    if (load->path[0] != '/')
        return err_set_param(err, ERR_INVALID, "model", "%s is not an absolute path",
                             load->path);
    if (s->shutting_down)
        return err_set(err, ERR_UNAVAILABLE, "the server is being stopped");
    if (worker_check_file(w, load->path, err))
        return -1;
    return change(w, load, err);
}

int supervisor_unload(struct supervisor *s, int id, enum supervisor_force force,
                      supervisor_done_fn *done, void *data, struct err *err)
{
    struct worker *w = s->workers[id];
    const struct supervisor_load nothing = {.options = WORKER_LOAD_OPTIONS_DEFAULT,
                                            .force = force,
                                            .done = done,
                                            .data = data};

    if (refuse_if_busy(w, force, "unload", err))
        return -1;
    if (w->state == WORKER_PARKED || (w->state == WORKER_WAITING && !w->process))
        worker_event(w, EV_STOP);
    if (w->state == WORKER_STOPPED) { /* nothing to stop, only to forget */
        wish_set(&w->wanted, NULL, NULL);
        w->reason[0] = '\0';
        kv_forget(w);
        residents_without_model(w);
        supervisor_store(w);
        supervisor_wait_add(w, WAIT_CHANGE, done, data)->due = true;
        supervisor_changed(w);
        return 0;
    }
    return change(w, &nothing, err);
}

int supervisor_start(struct supervisor *s, int id, supervisor_done_fn *done, void *data,
                     struct err *err)
{
    struct worker *w = s->workers[id];

    if (s->shutting_down)
        return err_set(err, ERR_UNAVAILABLE, "the server is being stopped");
    if (w->kind == WORKER_LLM && !worker_target(w)->path)
        return err_set(
            err, ERR_UNAVAILABLE,
            "the text worker has no model to start with; load one with POST %s",
            w->profile->route);
    w->wants_up = true;
    w->safe_mode = false;
    w->crashes = 0;
    cancel(w, WAIT_STOP, "the worker was started again");
    supervisor_wait_add(w, WAIT_START, done, data)->due =
        w->state == WORKER_READY || w->state == WORKER_BUSY;
    worker_event(w, EV_START);
    return 0;
}

int supervisor_stop(struct supervisor *s, int id, enum supervisor_force force,
                    supervisor_done_fn *done, void *data, struct err *err)
{
    struct worker *w = s->workers[id];

    if (refuse_if_busy(w, force, "stop", err))
        return -1;
    w->wants_up = false;
    cancel(w, WAIT_START, "the worker was stopped");
    cancel(w, WAIT_CHANGE, "the worker was stopped");
    cancel(w, WAIT_PARK, "the worker was stopped");
    wish_release(&w->next);
    supervisor_wait_add(w, WAIT_STOP, done, data)->due = w->state == WORKER_STOPPED;
    worker_event(w, EV_STOP);
    return 0;
}

int supervisor_restart(struct supervisor *s, int id, enum supervisor_force force,
                       supervisor_done_fn *done, void *data, struct err *err)
{
    struct worker *w = s->workers[id];

    if (!w->process)
        return supervisor_start(s, id, done, data, err);
    if (refuse_if_busy(w, force, "restart", err))
        return -1;
    w->wants_up = true;
    w->safe_mode = false;
    w->crashes = w->failures = 0;
    supervisor_wait_add(w, WAIT_START, done, data);
    worker_event(w, EV_STOP);
    return 0;
}

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

static int check_file(const struct worker *w, const char *path, struct err *err)
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

/* Somebody wants another model, or none (path NULL). */
static int change(struct worker *w, const struct wish *wish,
                  enum supervisor_force force, supervisor_done_fn *done, void *data,
                  struct err *err)
{
    bool settled = w->state == WORKER_READY || w->state == WORKER_BUSY;

    if (w->next.known) {
        if (wish_is_same(&w->next, wish)) {
            supervisor_wait_add(w, WAIT_CHANGE, done, data);
            return 0;
        }
        if (force == SUPERVISOR_POLITE)
            return err_set(err, ERR_CONFLICT,
                           "the %s worker is about to %s %s: wait for it",
                           w->profile->what, w->next.path ? "load" : "unload",
                           w->next.path ? w->next.path : "its model");
        cancel(w, WAIT_CHANGE, "another model was asked for");
    } else if (wish_is_same(&w->wanted, wish) && w->state != WORKER_STOPPED &&
               w->state != WORKER_FAILED) {
        struct supervisor_wait *wait = supervisor_wait_add(w, WAIT_CHANGE, done, data);

        wait->due = settled; /* else it is on its way */
        return 0;
    }
    if (refuse_if_busy(w, force, wish->path ? "load" : "unload", err))
        return -1;
    w->wants_up = true;
    wish_set(&w->next, wish->path, &wish->options);
    supervisor_wait_add(w, WAIT_CHANGE, done, data);
    worker_event(w, EV_LOAD);
    return 0;
}

int supervisor_load(struct supervisor *s, enum worker_kind kind, const char *path,
                    const struct worker_load_options *options,
                    enum supervisor_force force, supervisor_done_fn *done, void *data,
                    struct err *err)
{
    struct worker *w = &s->workers[kind];
    struct wish wish = {0};
    int rc;

    if (path[0] != '/')
        return err_set_param(err, ERR_INVALID, "model", "%s is not an absolute path",
                             path);
    if (s->shutting_down)
        return err_set(err, ERR_UNAVAILABLE, "the server is being stopped");
    if (check_file(w, path, err))
        return -1;
    wish_set(&wish, path, options);
    rc = change(w, &wish, force, done, data, err);
    wish_release(&wish);
    return rc;
}

int supervisor_unload(struct supervisor *s, enum worker_kind kind,
                      enum supervisor_force force, supervisor_done_fn *done, void *data,
                      struct err *err)
{
    struct worker *w = &s->workers[kind];
    const struct wish nothing = {.known = true};

    if (refuse_if_busy(w, force, "unload", err))
        return -1;
    if (w->state == WORKER_STOPPED) { /* nothing to stop, only to forget */
        wish_set(&w->wanted, NULL, NULL);
        w->reason[0] = '\0';
        supervisor_store(w);
        supervisor_wait_add(w, WAIT_CHANGE, done, data)->due = true;
        supervisor_changed(w);
        return 0;
    }
    return change(w, &nothing, force, done, data, err);
}

int supervisor_start(struct supervisor *s, enum worker_kind kind,
                     supervisor_done_fn *done, void *data, struct err *err)
{
    struct worker *w = &s->workers[kind];

    if (s->shutting_down)
        return err_set(err, ERR_UNAVAILABLE, "the server is being stopped");
    if (kind == WORKER_LLM && !worker_target(w)->path)
        return err_set(
            err, ERR_UNAVAILABLE,
            "the text worker has no model to start with; load one with POST %s",
            w->profile->route);
    w->wants_up = true;
    cancel(w, WAIT_STOP, "the worker was started again");
    supervisor_wait_add(w, WAIT_START, done, data)->due =
        w->state == WORKER_READY || w->state == WORKER_BUSY;
    worker_event(w, EV_START);
    return 0;
}

int supervisor_stop(struct supervisor *s, enum worker_kind kind,
                    enum supervisor_force force, supervisor_done_fn *done, void *data,
                    struct err *err)
{
    struct worker *w = &s->workers[kind];

    if (refuse_if_busy(w, force, "stop", err))
        return -1;
    w->wants_up = false;
    cancel(w, WAIT_START, "the worker was stopped");
    cancel(w, WAIT_CHANGE, "the worker was stopped");
    wish_release(&w->next);
    supervisor_wait_add(w, WAIT_STOP, done, data)->due = w->state == WORKER_STOPPED;
    worker_event(w, EV_STOP);
    return 0;
}

int supervisor_restart(struct supervisor *s, enum worker_kind kind,
                       enum supervisor_force force, supervisor_done_fn *done,
                       void *data, struct err *err)
{
    struct worker *w = &s->workers[kind];

    if (!w->process)
        return supervisor_start(s, kind, done, data, err);
    if (refuse_if_busy(w, force, "restart", err))
        return -1;
    w->wants_up = true;
    w->failures = 0;
    supervisor_wait_add(w, WAIT_START, done, data);
    worker_event(w, EV_STOP);
    return 0;
}

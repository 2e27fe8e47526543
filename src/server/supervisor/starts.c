/* How a worker comes to have its model: memory is asked for, the process started, the model loaded; and what happens when one
 * of these fails. The table in states.c says when.
 *
 *   text:     room -> process -> it listens -> it is loaded -> its context comes back -> ready
 *   picture:  process -> it listens -> room -> its model is read -> ready
 */
#include "base/clock.h"
#include "base/mem.h"
#include "server/models/peek.h"
#include "server/supervisor/ends.h"
#include "server/supervisor/worker.h"

#include <inttypes.h>

#define START_LIMIT_MS 30000 /* from exec to listening */
#define BUSY_AGAIN_MS 100    /* a picture worker that is busy with itself */
#define BUSY_LIMIT_MS 60000
#define BACK_OFF_FIRST_MS 1000
#define BACK_OFF_MAX_MS 30000
#define FAILED_AFTER 3

static uint64_t back_off_ms(const struct worker *w)
{
    unsigned doublings = w->failures > 1 ? w->failures - 1 : 0;

    if (doublings > 5)
        doublings = 5;
    return (uint64_t)BACK_OFF_FIRST_MS << doublings > BACK_OFF_MAX_MS
               ? BACK_OFF_MAX_MS
               : (uint64_t)BACK_OFF_FIRST_MS << doublings;
}

/* ---- a failure that nobody asked for; the process may live (picture worker) ---- */

void worker_failed(struct worker *w, const char *what, const struct err *why)
{
    uint64_t wait;

    w->failures++;
    wait = back_off_ms(w);
    worker_set_reason(w, why->message);
    log_error(w->s->log, "Failed to %s %s %s: %s; next attempt in %" PRIu64 " s", what,
              w->profile->title, strcmp(what, "start") ? "model" : "Worker",
              why->message, wait / 1000);
    if (w->process || w->failures >= FAILED_AFTER || why->code == ERR_NOT_FOUND ||
        why->code == ERR_BAD_FILE) {
        worker_set_state(w, WORKER_FAILED);
        supervisor_settle(w, WAIT_START, why);
        supervisor_settle(w, WAIT_CHANGE, why);
    } else {
        worker_set_state(w, WORKER_RESTARTING);
    }
    worker_timer_start(w, wait);
}

/* The model that somebody asked for did not load: tell them, and forget about it. */
static void refuse_next(struct worker *w, const struct err *why)
{
    log_warning(w->s->log, "%s model %s could not be loaded: %s", w->profile->title,
                w->next.path ? w->next.path : "(none)", why->message);
    wish_release(&w->next);
    w->becomes_default = false;
    supervisor_settle(w, WAIT_CHANGE, why);
}

/* ---- starting and loading ---- */

static void launch(struct worker *w)
{
    struct err err = {0};

    worker_forget_model(w);
    w->parks = false;
    w->generation++;
    w->running = 0;
    w->missed = 0;
    w->suspected = w->hung = w->load_broke = false;
    w->first_error[0] = '\0';
    w->says_memory = false;
    w->ready_ms = 0;
    w->measured_bytes = 0;
    w->memory_kills = ends_memory_kills("");
    if (worker_launch(w, worker_target(w), &err)) {
        if (w->next.known)
            refuse_next(w, &err);
        worker_failed(w, "start", &err);
        return;
    }
    worker_set_state(w, WORKER_STARTING);
    worker_timer_start(w, START_LIMIT_MS);
    if (w->kind == WORKER_LLM)
        health_begin(w); /* the picture worker says its port itself */
}

/* A text model that somebody asked for, or that is to come back, does not start. */
static void cannot_start(struct worker *w, const struct err *why)
{
    if (w->next.known) {
        worker_back_to_wanted(w, why);
    } else if (w->comes_back) {
        supervisor_settle(w, WAIT_START, why);
        supervisor_settle(w, WAIT_READY, why);
        worker_set_state(w, WORKER_PARKED);
    } else {
        worker_failed(w, "restore", why);
    }
}

/* A text worker takes its memory when it starts; the picture worker when it loads. */
void worker_spawn(struct worker *w)
{
    const struct wish *target = worker_target(w);
    struct model_peek peek;
    struct err err = {0};

    worker_timer_stop(w);
    w->comes_back = w->state == WORKER_PARKED;
    if (w->kind == WORKER_SD) {
        launch(w);
    } else if (!target->path) {
        worker_become_stopped(w);
    } else if (model_peek(target->path, &peek, &err)) {
        w->comes_back = false;
        cannot_start(w, &err);
    } else {
        switch (room_for_worker(w, &err)) {
        case ROOM_GRANTED:
            launch(w);
            break;
        case ROOM_COMING:
            worker_set_state(w, WORKER_WAITING);
            break;
        case ROOM_REFUSED:
            cannot_start(w, &err);
            break;
        }
    }
}

/* What somebody asked for cannot be; the process is gone: start again with what was there before. */
void worker_back_to_wanted(struct worker *w, const struct err *why)
{
    refuse_next(w, why);
    worker_set_reason(w, why->message);
    if (w->kind == WORKER_SD || w->wanted.path)
        worker_spawn(w);
    else
        worker_set_state(w, WORKER_STOPPED);
}

void worker_begin_load(struct worker *w)
{
    static const struct wish nothing = {.known = true};
    const struct wish *target =
        w->safe_mode && !w->next.known ? &nothing : worker_target(w);
    struct model_peek peek;

    w->progress = -1;
    w->loading_ms = clock_ms();
    w->load_broke = false;
    worker_timer_stop(w);
    worker_set_state(w, WORKER_LOADING);
    if (w->kind == WORKER_LLM) {
        if (worker_is_restore(w))
            log_info(w->s->log, "Restoring LLM model...");
        return; /* its health says when */
    }
    if (!target->path && !w->loaded) {
        worker_event(w, EV_LOADED);
        return;
    }
    if (target->path && worker_is_restore(w))
        log_info(w->s->log, "Restoring SD model...");
    w->load_error = (struct err){0};
    if (!target->path) {
        health_load(w, NULL);
    } else if (model_peek(target->path, &peek, &w->load_error)) {
        worker_event(w, EV_LOAD_FAILED);
    } else {
        switch (room_for_worker(w, &w->load_error)) {
        case ROOM_GRANTED:
            health_load(w, target->path);
            break;
        case ROOM_COMING:
            worker_set_state(w, WORKER_WAITING);
            break;
        case ROOM_REFUSED:
            worker_event(w, EV_LOAD_FAILED);
            break;
        }
    }
}

/* ---- waiting for memory ---- */

void worker_has_room(struct worker *w)
{
    if (w->kind == WORKER_LLM) {
        launch(w);
    } else {
        worker_set_state(w, WORKER_LOADING);
        health_load(w, worker_target(w)->path);
    }
}

void worker_has_no_room(struct worker *w)
{
    struct err why = w->room_error;

    if (w->kind == WORKER_LLM) {
        cannot_start(w, &why);
    } else {
        w->load_error = why;
        worker_set_state(w, WORKER_LOADING);
        worker_load_refused(w);
    }
}

void worker_wants_other(struct worker *w)
{
    room_forget(w);
    if (w->process)
        worker_begin_load(w);
    else
        worker_spawn(w);
}

void worker_listens(struct worker *w)
{
    if (w->was_lost)
        log_info(w->s->log, "%s Worker back online.", w->profile->title);
    if (w->kind == WORKER_SD)
        health_begin(w);
    worker_begin_load(w);
}

static uint64_t bytes_of_model(const struct worker *w)
{
    return (uint64_t)json_integer_value(json_object_get(w->details, "resident_bytes"));
}

void worker_become_ready(struct worker *w)
{
    bool restored = worker_is_restore(w) && w->wanted.path && !w->safe_mode;
    bool asked = w->next.known;

    if (w->kind == WORKER_LLM && kv_restore(w))
        return; /* once more when that is done */
    worker_timer_stop(w);
    if (asked) {
        wish_release(&w->wanted);
        w->wanted = w->next;
        w->next = (struct wish){0};
        w->safe_mode = false;
        w->crashes = 0;
    }
    free(w->loaded);
    w->loaded = w->wanted.path && !w->safe_mode ? mem_strdup(w->wanted.path) : NULL;
    w->coming_bytes = 0;
    w->model_bytes = w->loaded ? bytes_of_model(w) : 0;
    w->ready_ms = clock_ms();
    w->used_ms = clock_ms();
    if (w->becomes_default)
        residents_make_default(w);
    if (!w->loaded && w->details) {
        json_decref(w->details);
        w->details = NULL;
    }
    w->failures = 0;
    w->progress = -1;
    if (!w->safe_mode)
        worker_set_reason(w, "");
    if (restored)
        log_info(w->s->log, "%s model restored successfully.", w->profile->title);
    else if (w->loaded)
        log_info(w->s->log, "%s model %s is loaded (%" PRIu64 " ms)", w->profile->title,
                 w->loaded, clock_ms() - w->loading_ms);
    else if (asked)
        log_info(w->s->log, "%s model unloaded.", w->profile->title);
    if (asked || (w->loaded && !restored))
        supervisor_store(w);
    w->was_lost = false;
    worker_set_state(w, w->running ? WORKER_BUSY : WORKER_READY);
    supervisor_store_parked(w);
    w->keeps_context = w->kind == WORKER_LLM && kv_is_of_use(w);
    if (w->kind == WORKER_SD)
        learn_from(w);
    else
        trim_ask(w);
    park_idle_begin(w);
    supervisor_settle(w, WAIT_CHANGE, NULL);
    supervisor_settle(w, WAIT_START, NULL);
}

void worker_load_again(struct worker *w)
{
    health_load(w, worker_target(w)->path);
}

/* The picture worker lives and says no; what it had is still loaded. */
void worker_load_refused(struct worker *w)
{
    struct err why = w->load_error;

    w->coming_bytes = 0;
    /* still opening its engine, or ending a job that was cancelled */
    if (why.code == ERR_CONFLICT && clock_ms() - w->loading_ms < BUSY_LIMIT_MS) {
        worker_timer_start(w, BUSY_AGAIN_MS);
        return;
    }
    if (!w->next.known) {
        worker_failed(w, worker_is_restore(w) ? "restore" : "load", &why);
        return;
    }
    refuse_next(w, &why);
    if (!w->loaded && w->wanted.path) {
        worker_begin_load(w); /* it was started for the new one: back to the old one */
        return;
    }
    if (!w->loaded)
        worker_set_reason(w, why.message);
    worker_set_state(w, w->running ? WORKER_BUSY : WORKER_READY);
}

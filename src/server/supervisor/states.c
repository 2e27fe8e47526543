/* The life of a worker, as a table of state x event.
 *
 *                 START            LISTENING          LOADED
 *      stopped ----------> starting ---------> loading ---------> ready <---> busy
 *         ^                   |                   |                 |           |
 *         |   EXITED          | EXITED            | EXITED          | EXITED    |
 *      stopping            restarting/failed <----+-----------------+-----------+
 *                             |  back-off over, START, LOAD: a new process, or a new load
 *
 * The two kinds share the table and differ in how a model is changed: the picture worker is asked to load
 * another one in place and keeps the old one when that fails; the text worker is one process per model, so a
 * change is its end and a new start, and a failed one starts the old model again.
 *
 * Who counts as failing: a process that ends before it is ready, and a load that is refused, while nobody asked
 * for anything new. They are tried again after 1, 2, 4 ... 30 s, and from the third in a row on the state is "failed", so
 * that those who wait get the reason instead of waiting on. A kill from outside (SIGKILL, SIGTERM that we did
 * not send) is no failure of the worker. While ready or busy it is replaced at once; while it loads, after a
 * second, because the kernel's out-of-memory killer looks the same and must not be fed in a loop.
 *
 * Before memory is taken it is asked for (room.c): a text worker before its process starts, the picture worker before its
 * model is read. Where others have to give way first, the worker is "waiting" until they have.
 *
 * `wanted` outlives processes; `next` is what somebody asks for now and becomes `wanted` only once it is loaded. So a
 * failed load can never be what comes back after a crash.
 *
 * If you add a state, also give it a word in WORKER_STATES, a row here, and a line in
 * supervisor_progress_text(). */
#include "base/clock.h"
#include "base/mem.h"
#include "server/models/peek.h"
#include "server/supervisor/ends.h"
#include "server/supervisor/worker.h"

#include <inttypes.h>
#include <signal.h>

#define STOP_LIMIT_MS 3000 /* from SIGTERM to SIGKILL */
#define RESPAWN_MS 100
#define RESPAWN_LOADING_MS 1000
#define CRASHES_MAX 3        /* of its own fault with one model */
#define CRASH_APART_MS 60000 /* what lived for so long was no loop */

static const char *const event_names[EV_COUNT] = {
#define X(name) #name,
    WORKER_EVENTS(X)
#undef X
};

/* ---- small steps ---- */

void worker_set_state(struct worker *w, enum worker_state state)
{
    w->state = state;
    supervisor_changed(w);
}

static void on_timer(uv_timer_t *timer)
{
    worker_event(timer->data, EV_TIMEOUT);
}

void worker_timer_start(struct worker *w, uint64_t ms)
{
    uv_timer_start(&w->timer, on_timer, ms, 0);
}

void worker_timer_stop(struct worker *w)
{
    uv_timer_stop(&w->timer);
}

bool worker_has_process(const struct worker *w)
{
    return w->process != NULL;
}

const struct wish *worker_target(const struct worker *w)
{
    return w->next.known ? &w->next : &w->wanted;
}

bool worker_is_restore(const struct worker *w)
{
    return !w->next.known && w->stored.known && wish_is_same(&w->wanted, &w->stored);
}

void worker_set_reason(struct worker *w, const char *sentence)
{
    snprintf(w->reason, sizeof(w->reason), "%s", sentence);
}

void worker_forget_model(struct worker *w)
{
    free(w->loaded);
    w->loaded = NULL;
    json_decref(w->details);
    w->details = NULL;
}

/* ---- out of memory, for now or for good ---- */

static void become_parked(struct worker *w)
{
    worker_timer_stop(w);
    w->parks = false;
    snprintf(w->reason, sizeof(w->reason), "parked: %s", w->park_reason);
    log_info(w->s->log, "%s model %s is parked: %s", w->profile->title, w->wanted.path,
             w->park_reason);
    worker_set_state(w, WORKER_PARKED);
    supervisor_store_parked(w);
    supervisor_settle(w, WAIT_PARK, NULL);
}

void worker_become_stopped(struct worker *w)
{
    worker_timer_stop(w);
    w->parks = false;
    if (w->next.known && !w->next.path) { /* an unload */
        wish_set(&w->wanted, NULL, NULL);
        wish_release(&w->next);
        kv_forget(w);
        residents_without_model(w);
        supervisor_store(w);
        log_info(w->s->log, "%s model unloaded.", w->profile->title);
        worker_set_reason(w, "");
        supervisor_settle(w, WAIT_CHANGE, NULL);
    }
    worker_set_state(w, WORKER_STOPPED);
    supervisor_settle(w, WAIT_STOP, NULL);
}

/* ---- ends ---- */

static void note_exit(struct worker *w)
{
    const struct end_signs signs = {.hung = w->hung,
                                    .log_says_memory = w->says_memory,
                                    .memory_kills =
                                        ends_memory_kills("") - w->memory_kills};

    w->last = ends_of(&w->exit, &signs);
    ends_text(&w->last, w->last_exit, sizeof(w->last_exit));
    if (w->ready_ms && clock_ms() - w->ready_ms >= CRASH_APART_MS)
        w->crashes = 0; /* that was long ago */
    kv_process_gone(w);
    trim_process_gone(w);
    room_released(w);
    park_idle_end(w);
    worker_forget_process(w);
    worker_timer_stop(w);
    w->running = 0;
    w->coming_bytes = 0;
    w->suspected = false;
    w->progress = -1;
    worker_forget_model(w);
}

static bool was_killed_from_outside(const struct worker *w)
{
    return !w->exit.by_us && (w->exit.signal == SIGKILL || w->exit.signal == SIGTERM);
}

static void fail_parking(struct worker *w)
{
    struct err why = {0};

    err_set(&why, ERR_UNAVAILABLE, "the %s worker ended before it was parked: %s",
            w->profile->what, w->last_exit);
    supervisor_settle(w, WAIT_PARK, &why);
}

static void lost(struct worker *w, uint64_t wait_ms)
{
    log_warning(w->s->log, "Detected %s Worker failure. Restarting...",
                w->profile->title);
    log_info(w->s->log, "%s Worker was lost: %s", w->profile->title, w->last_exit);
    w->was_lost = true;
    w->restarts++;
    fail_parking(w);
    snprintf(w->reason, sizeof(w->reason), "the %s worker was lost: %s",
             w->profile->what, w->last_exit);
    worker_set_state(w, WORKER_RESTARTING);
    worker_timer_start(w, wait_ms);
}

/* Its model has killed it again and again: up without it (the picture worker), or not at all (the text worker), until
 * somebody loads something. */
static void enter_safe_mode(struct worker *w)
{
    struct err why = {0};

    w->safe_mode = true;
    w->restarts++;
    err_set(&why, ERR_UNAVAILABLE,
            "safe mode: the %s worker ended %u times in a row with %s (%s): it is not "
            "loaded again by itself",
            w->profile->what, w->crashes, w->wanted.path, w->last_exit);
    worker_set_reason(w, why.message);
    log_error(w->s->log, "%s Worker: %s", w->profile->title, why.message);
    supervisor_settle(w, WAIT_START, &why);
    supervisor_settle(w, WAIT_CHANGE, &why);
    supervisor_settle(w, WAIT_PARK, &why);
    kv_forget(w); /* it may be what it ends over */
    if (w->kind == WORKER_SD)
        worker_spawn(w);
    else
        worker_become_stopped(w);
}

/* It ended by itself while it loaded or had a model: one time too many? */
static bool is_crash_loop(struct worker *w)
{
    if (!w->last.is_own_fault || !w->wanted.path || w->safe_mode)
        return false;
    return ++w->crashes >= CRASHES_MAX;
}

static void died(struct worker *w)
{
    note_exit(w);
    if (is_crash_loop(w))
        enter_safe_mode(w);
    else
        lost(w, RESPAWN_MS);
}

/* It ended before it was ready. */
static void start_failed(struct worker *w)
{
    bool loading = w->state == WORKER_LOADING;
    const char *last_line = "";
    struct err why = {0};

    note_exit(w);
    if (!w->first_error[0])
        (void)line_ring_tail(&w->ring, &last_line, 1);
    /* an engine that ends by itself over a model that somebody asked for does not like the file */
    err_set(&why, w->next.known && !w->exit.signal ? ERR_BAD_FILE : ERR_UNAVAILABLE,
            "the %s worker ended while %s (%s)%s%s", w->profile->what,
            loading ? "loading the model" : "starting", w->last_exit,
            w->first_error[0] || *last_line ? ": " : "",
            w->first_error[0] ? w->first_error : last_line);
    if (w->next.known) {
        worker_back_to_wanted(w, &why);
        return;
    }
    if (was_killed_from_outside(w)) {
        lost(w, loading ? RESPAWN_LOADING_MS : RESPAWN_MS);
        return;
    }
    if (loading && is_crash_loop(w)) {
        enter_safe_mode(w);
        return;
    }
    w->restarts++;
    w->was_lost = true;
    worker_failed(w,
                  !loading               ? "start"
                  : worker_is_restore(w) ? "restore"
                                         : "load",
                  &why);
}

static void kill_hard(struct worker *w)
{
    log_warning(w->s->log, "%s Worker does not %s: killing it", w->profile->title,
                w->state == WORKER_STOPPING ? "stop" : "start");
    process_signal(w->process, SIGKILL);
}

static void kill_hung(struct worker *w)
{
    log_warning(w->s->log, "%s Worker unresponsive (HTTP).", w->profile->title);
    w->hung = w->suspected = true;
    health_stop(w);
    process_signal(w->process, SIGKILL);
}

static void ask_to_go(struct worker *w)
{
    health_stop(w);
    worker_set_state(w, WORKER_STOPPING);
    process_signal(w->process, SIGTERM);
    worker_timer_start(w, STOP_LIMIT_MS);
}

/* It was to be parked, and then something else was asked of it: who waits for its memory must hear so. */
static void gone_elsewhere(struct worker *w)
{
    struct err why = {0};

    err_set(&why, ERR_CANCELLED, "given up: something else is wanted of the worker");
    supervisor_settle(w, WAIT_PARK, &why);
    if (w->wants_up && !w->s->shutting_down)
        worker_spawn(w);
    else
        worker_become_stopped(w);
}

static void gone(struct worker *w)
{
    note_exit(w);
    if (w->parks && w->wants_up && !w->next.known && !w->s->shutting_down)
        become_parked(w);
    else
        gone_elsewhere(w);
}

/* ---- asked for by somebody ---- */

static void change_model(struct worker *w)
{
    if (w->kind == WORKER_SD)
        worker_begin_load(w);
    else
        ask_to_go(w);
}

/* Starting already: the picture worker will load `next`, the text worker was started for another one. */
static void change_while_starting(struct worker *w)
{
    if (w->kind == WORKER_LLM)
        ask_to_go(w);
}

/* The back-off is over, or somebody does not want to wait for it. */
static void try_again(struct worker *w)
{
    if (w->process)
        worker_begin_load(w);
    else
        worker_spawn(w);
}

static void give_up(struct worker *w)
{
    room_forget(w);
    if (w->process)
        ask_to_go(w);
    else
        worker_become_stopped(w);
}

/* ---- out of memory, to come back ---- */

static void end_parking(struct worker *w)
{
    w->parks = true;
    ask_to_go(w);
}

static void begin_parking(struct worker *w)
{
    park_idle_end(w);
    worker_set_state(w, WORKER_PARKING);
    if (w->kind == WORKER_SD)
        end_parking(w); /* it has no context */
    else if (w->running)
        worker_timer_start(w, w->park_wait_ms);
    else
        kv_save(w);
}

static void save_context(struct worker *w)
{
    worker_timer_stop(w);
    kv_save(w);
}

/* What runs did not end in time: everything stays as it was. */
static void stay(struct worker *w)
{
    struct err why = {0};

    err_set(&why, ERR_CONFLICT,
            "the %s worker %s was still busy with %u request%s after %u s",
            w->profile->what, w->name, w->running, w->running == 1 ? "" : "s",
            w->park_wait_ms / 1000);
    worker_set_state(w, WORKER_BUSY);
    supervisor_settle(w, WAIT_PARK, &why);
}

/* Wanted again before it was gone. */
static void stay_after_all(struct worker *w)
{
    struct err why = {0};

    if (w->kv_call)
        return; /* its context is being saved: it is over in a moment, and comes back then */
    err_set(&why, ERR_CANCELLED, "given up: the worker is wanted again");
    worker_timer_stop(w);
    worker_set_state(w, w->running ? WORKER_BUSY : WORKER_READY);
    supervisor_settle(w, WAIT_PARK, &why);
    supervisor_settle(w, WAIT_START, NULL);
}

static void to_busy(struct worker *w)
{
    park_idle_end(w);
    worker_set_state(w, WORKER_BUSY);
}

static void to_ready(struct worker *w)
{
    worker_set_state(w, WORKER_READY);
    learn_from(w);
    park_idle_begin(w);
}

static void died_waiting(struct worker *w)
{
    room_forget(w);
    died(w);
}

typedef void worker_action_fn(struct worker *w);

/* unlisted pairs are ignored and logged at debug level */
static worker_action_fn *const actions[][EV_COUNT] = {
    [WORKER_STOPPED] =
        {
            [EV_START] = worker_spawn,
            [EV_LOAD] = worker_spawn,
        },
    [WORKER_WAITING] =
        {
            [EV_ROOM] = worker_has_room,
            [EV_NO_ROOM] = worker_has_no_room,
            [EV_EXITED] = died_waiting,
            [EV_HUNG] = kill_hung,
            [EV_STOP] = give_up,
            [EV_LOAD] = worker_wants_other,
        },
    [WORKER_STARTING] =
        {
            [EV_LISTENING] = worker_listens,
            [EV_EXITED] = start_failed,
            [EV_TIMEOUT] = kill_hard,
            [EV_STOP] = ask_to_go,
            [EV_LOAD] = change_while_starting,
        },
    [WORKER_LOADING] =
        {
            [EV_LOADED] = worker_become_ready,
            [EV_LOAD_FAILED] = worker_load_refused,
            [EV_EXITED] = start_failed,
            [EV_TIMEOUT] = worker_load_again,
            [EV_HUNG] = kill_hung,
            [EV_STOP] = ask_to_go,
            [EV_LOAD] = ask_to_go,
        },
    [WORKER_READY] =
        {
            [EV_WORK] = to_busy,
            [EV_PARK] = begin_parking,
            [EV_EXITED] = died,
            [EV_HUNG] = kill_hung,
            [EV_STOP] = ask_to_go,
            [EV_LOAD] = change_model,
        },
    [WORKER_BUSY] =
        {
            [EV_IDLE] = to_ready,
            [EV_PARK] = begin_parking,
            [EV_EXITED] = died,
            [EV_HUNG] = kill_hung,
            [EV_STOP] = ask_to_go,
            [EV_LOAD] = ask_to_go,
        },
    [WORKER_PARKING] =
        {
            [EV_IDLE] = save_context,
            [EV_SAVED] = end_parking,
            [EV_TIMEOUT] = stay,
            [EV_START] = stay_after_all,
            [EV_EXITED] = died,
            [EV_HUNG] = kill_hung,
            [EV_STOP] = ask_to_go,
            [EV_LOAD] = ask_to_go,
        },
    [WORKER_PARKED] =
        {
            [EV_START] = worker_spawn,
            [EV_LOAD] = worker_spawn,
            [EV_STOP] = worker_become_stopped,
        },
    [WORKER_STOPPING] =
        {
            [EV_EXITED] = gone,
            [EV_TIMEOUT] = kill_hard,
        },
    [WORKER_RESTARTING] =
        {
            [EV_TIMEOUT] = try_again,
            [EV_START] = try_again,
            [EV_LOAD] = try_again,
            [EV_STOP] = give_up,
        },
    [WORKER_FAILED] =
        {
            [EV_TIMEOUT] = try_again,
            [EV_START] = try_again,
            [EV_LOAD] = try_again,
            [EV_STOP] = give_up,
            [EV_EXITED] = died,
            [EV_HUNG] = kill_hung,
        },
};

void worker_event(struct worker *w, enum worker_event event)
{
    worker_action_fn *action = actions[w->state][event];

    log_debug(w->s->log, "%s worker: %s while %s%s", w->name, event_names[event],
              worker_state_name(w->state), action ? "" : " (ignored)");
    if (action)
        action(w);
}

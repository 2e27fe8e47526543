/* The public side of the supervisor: what may be asked of it, who waits for an answer, who listens.
 *
 * The states live in states.c, what may be asked in wishes.c. Answers travel through one place: a wait is marked
 * as due, an idle handle keeps the loop from sleeping, and the next turn calls back (an uv_async would cost two
 * system calls for each text request). So no callback ever runs inside the call that asked, several changes of
 * one turn are told once, and a callback may ask for anything again.
 *
 * Waiting for "ready" is not marked but looked at again in that turn: what was ready when it was noted may be
 * dead by then, and the one who waits wants to know about now.
 *
 * Order at the start: the state folder is claimed and leftovers are ended (reaper), then fixed ports are tried, because
 * a leftover may hold them. What is wanted: the option, else the record, else the starter model (residents.c). */
#include "server/supervisor/supervisor.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/config/config.h"
#include "server/supervisor/worker.h"

#include <assert.h>
#include <time.h>

#define PORT_WAIT_MS 1000

static const struct worker_profile profiles[WORKER_KINDS] = {
    [WORKER_SD] = {"SD", "mysti_sd_worker", "picture", "/v1/models/load", LOG_SD},
    [WORKER_LLM] = {"LLM", "mysti_llm_worker", "text", "/v1/llm/load", LOG_LLM},
};

const char *worker_state_name(enum worker_state state)
{
    static const char *const words[] = {
#define X(name, word) [WORKER_##name] = word,
        WORKER_STATES(X)
#undef X
    };

    return words[state];
}

const char *worker_end_name(enum worker_end end)
{
    static const char *const words[] = {
#define X(name, word) [WORKER_END_##name] = word,
        WORKER_ENDS(X)
#undef X
    };

    return words[end];
}

int supervisor_id_from_name(const struct supervisor *s, const char *name, int *ret_id,
                            struct err *err)
{
    struct buf names = {0};

    for (int id = 0; id < s->worker_count; id++) {
        if (!supervisor_is_shown(s, id))
            continue;
        if (strcmp(name, s->workers[id]->name) == 0) {
            *ret_id = id;
            buf_release(&names);
            return 0;
        }
        buf_printf(&names, "%s'%s'", names.len ? " and " : "", s->workers[id]->name);
    }
    err_set(err, ERR_NOT_FOUND, "there is no worker '%.40s': they are %s", name,
            buf_str(&names));
    buf_release(&names);
    return -1;
}

/* ---- those who wait ---- */

static void on_wake(uv_idle_t *idle);

void supervisor_wake(struct supervisor *s)
{
    uv_idle_start(&s->wake, on_wake); /* again: nothing */
}

void supervisor_changed(struct worker *w)
{
    w->changed = true;
    supervisor_wake(w->s);
}

void supervisor_settle(struct worker *w, enum wait_type type, const struct err *err)
{
    for (struct supervisor_wait *wait = w->s->waits; wait; wait = wait->next) {
        if (wait->worker != w || wait->type != type || wait->due)
            continue;
        wait->due = true;
        wait->failed = err != NULL;
        if (err)
            wait->err = *err;
    }
    supervisor_wake(w->s);
}

struct supervisor_wait *supervisor_wait_add(struct worker *w, enum wait_type type,
                                            supervisor_done_fn *done, void *data)
{
    struct supervisor_wait *wait = mem_zalloc(sizeof(*wait));
    struct supervisor_wait **end = &w->s->waits;

    wait->worker = w;
    wait->type = type;
    wait->done = done;
    wait->data = data;
    while (*end) /* first come, first called */
        end = &(*end)->next;
    *end = wait;
    supervisor_wake(w->s);
    return wait;
}

static void wait_remove(struct supervisor_wait *wait)
{
    struct supervisor_wait **at = &wait->worker->s->waits;

    while (*at != wait)
        at = &(*at)->next;
    *at = wait->next;
}

void supervisor_wait_cancel(struct supervisor_wait *wait)
{
    wait_remove(wait);
    free(wait);
}

static bool takes_work(const struct worker *w, enum supervisor_need need)
{
    return (w->state == WORKER_READY || w->state == WORKER_BUSY) &&
           (w->loaded || need == NEED_PROCESS) && !w->suspected;
}

/* Will it become ready by itself? If not, err says why not. */
static bool is_hopeless(const struct worker *w, enum supervisor_need need,
                        struct err *err)
{
    const char *why = w->reason;

    switch (w->state) {
    case WORKER_WAITING:
    case WORKER_STARTING:
    case WORKER_LOADING:
    case WORKER_RESTARTING:
    case WORKER_PARKING:
    case WORKER_PARKED:
        return false;
    case WORKER_STOPPING:
        if (w->wants_up && !w->s->shutting_down)
            return false;
        why = "it is being stopped";
        break;
    case WORKER_STOPPED:
        if (!*why && !w->wants_up)
            why = "it was stopped";
        break;
    case WORKER_READY:
    case WORKER_BUSY:
        if (w->loaded || need == NEED_PROCESS) /* suspected: its health will tell */
            return false;
        break;
    case WORKER_FAILED:
        break;
    }
    err_set(err, ERR_UNAVAILABLE, "no %s model is loaded%s%s; load one with POST %s",
            w->profile->what, *why ? ": " : "", why, w->profile->route);
    return true;
}

/* Looks at those who wait for "ready". */
static void look_again(struct supervisor_wait *wait)
{
    if (wait->due || wait->type != WAIT_READY)
        return;
    if (takes_work(wait->worker, wait->need))
        wait->due = true;
    else if (is_hopeless(wait->worker, wait->need, &wait->err))
        wait->due = wait->failed = true;
}

/* One whose time has come, out of the list; NULL: none. */
static struct supervisor_wait *take_due(struct supervisor *s)
{
    for (struct supervisor_wait *wait = s->waits; wait; wait = wait->next) {
        look_again(wait);
        if (wait->due) {
            wait_remove(wait);
            return wait;
        }
    }
    return NULL;
}

static void finish_shutdown(struct supervisor *s)
{
    supervisor_done_fn *done = s->shut_done;

    for (int i = 0; i < s->worker_count; i++)
        if (s->workers[i]->process)
            return;
    if (!done || record_is_writing(s->desired) || record_is_writing(s->measured) ||
        kv_is_writing(s))
        return;
    s->shut_done = NULL;
    done(s->shut_data, NULL);
}

/* Who waits for a worker wants it, also one that was still on its way out of memory when the wait began. */
static void summon_awaited(struct supervisor *s)
{
    for (const struct supervisor_wait *wait = s->waits; wait; wait = wait->next)
        if (wait->type == WAIT_READY && !wait->due)
            supervisor_summon(s, wait->worker->id);
}

/* Returns whether there was anything to tell. */
static bool tell_changes(struct supervisor *s)
{
    struct supervisor_wait *wait;
    bool told = false;

    for (int i = 0; i < s->worker_count; i++) {
        if (!s->workers[i]->changed)
            continue;
        told = true;
        s->workers[i]->changed = false;
        for (size_t l = 0; l < s->listener_count; l++)
            s->listeners[l].changed(s->listeners[l].data, i);
    }
    while ((wait = take_due(s))) {
        told = true;
        if (wait->done)
            wait->done(wait->data, wait->failed ? &wait->err : NULL);
        free(wait);
    }
    return told;
}

/* Those who were told have one turn of the loop before it is looked who has to give way: a model that has just come would else
 * have to leave again before those who waited for it could begin, and two that are wanted in turn would never answer. */
static void on_wake(uv_idle_t *idle)
{
    struct supervisor *s = idle->data;

    uv_idle_stop(idle);
    summon_awaited(s);
    if (tell_changes(s) && !s->had_turn) {
        s->had_turn = true;
        supervisor_wake(s);
    } else {
        s->had_turn = false;
        room_look(s);
    }
    finish_shutdown(s);
}

void supervisor_listen(struct supervisor *s, supervisor_change_fn *changed, void *data)
{
    assert(s->listener_count < LISTENERS_MAX);
    s->listeners[s->listener_count].changed = changed;
    s->listeners[s->listener_count++].data = data;
}

/* ---- beginning and end ---- */

/* A worker of a server that was just killed may need a moment to die. */
static bool becomes_free(int port)
{
    const struct timespec nap = {.tv_nsec = 20 * 1000 * 1000};
    uint64_t until = clock_ms() + PORT_WAIT_MS;

    while (!process_port_is_free(port)) {
        if (clock_ms() > until)
            return false;
        nanosleep(&nap, NULL);
    }
    return true;
}

static int check_ports(const struct config *c, struct err *err)
{
    const struct {
        const char *option;
        int64_t port;
    } ports[] = {{"--sd-port", c->sd_port}, {"--llm-port", c->llm_port}};

    for (size_t i = 0; i < 2; i++) {
        if (ports[i].port && !becomes_free((int)ports[i].port))
            return err_set(err, ERR_CONFLICT,
                           "port %d is taken by another program: stop it, or choose "
                           "another with %s (0: any free one)",
                           (int)ports[i].port, ports[i].option);
    }
    if (c->sd_port && c->sd_port == c->llm_port)
        return err_set(err, ERR_CONFLICT, "--sd-port and --llm-port are both %d",
                       (int)c->sd_port);
    return 0;
}

struct worker *worker_new(struct supervisor *s, enum worker_kind kind)
{
    struct worker *w = mem_zalloc(sizeof(*w));

    assert(s->worker_count < WORKERS_MAX);
    w->s = s;
    w->id = s->worker_count;
    s->workers[s->worker_count++] = w;
    w->kind = kind;
    w->profile = &profiles[kind];
    w->state = WORKER_STOPPED;
    w->progress = -1;
    w->granted_layers = -1;
    w->wants_up = true;
    if (w->id > WORKER_LLM)
        snprintf(w->name, sizeof(w->name), "llm-%d", w->id);
    else
        snprintf(w->name, sizeof(w->name), "%s", kind == WORKER_SD ? "sd" : "llm");
    uv_timer_init(s->loop, &w->timer);
    uv_timer_init(s->loop, &w->health_timer);
    uv_timer_init(s->loop, &w->idle_timer);
    w->timer.data = w->health_timer.data = w->idle_timer.data = w;
    s->open_handles += 3;
    return w;
}

/* The link names under which the text worker's engine runs. */
static void make_run_folder(struct supervisor *s)
{
    char *run = file_join(s->config->home, "run");
    struct err err = {0};

    if (file_make_folder(run, 0700, &err))
        log_warning(s->log, "%s", err.message);
    free(run);
}

int supervisor_new(const struct supervisor_options *o, struct supervisor **ret,
                   struct err *err)
{
    struct supervisor *s = mem_zalloc(sizeof(*s));
    char *record;

    if (reaper_new(o->config->home, &s->reaper, err) || check_ports(o->config, err)) {
        reaper_free(s->reaper);
        free(s);
        return -1;
    }
    s->loop = o->loop;
    s->log = o->log;
    s->config = o->config;
    s->client = o->client;
    s->devices = o->devices;
    if (reaper_found(s->reaper))
        log_warning(s->log, "Ended %zu worker(s) that an earlier server left behind",
                    reaper_found(s->reaper));
    make_run_folder(s);
    kv_prepare(s);
    record = file_join(s->config->home, "desired.json");
    s->desired = record_new(s->loop, record);
    free(record);
    learn_begin(s);
    uv_idle_init(s->loop, &s->wake);
    s->wake.data = s;
    room_init(s);
    s->open_handles = 2;
    worker_new(s, WORKER_SD);
    s->default_text = worker_new(s, WORKER_LLM)->id;
    *ret = s;
    return 0;
}

void supervisor_begin(struct supervisor *s)
{
    listing_ask(s);
    residents_choose_wanted(s);
    kv_begin(s);
    for (int i = 0; i < s->worker_count; i++)
        if (!park_take_up(s->workers[i]))
            worker_event(s->workers[i], EV_START);
}

void supervisor_shutdown(struct supervisor *s, supervisor_done_fn *done, void *data)
{
    struct err ending = {0};

    err_set(&ending, ERR_UNAVAILABLE, "the server is being stopped");
    s->shutting_down = true;
    s->shut_done = done;
    s->shut_data = data;
    for (int i = 0; i < s->worker_count; i++) {
        struct worker *w = s->workers[i];

        w->wants_up = false;
        supervisor_settle(w, WAIT_CHANGE, &ending);
        supervisor_settle(w, WAIT_START, &ending);
        supervisor_settle(w, WAIT_PARK, &ending);
        wish_release(&w->next);
        worker_event(w, EV_STOP);
    }
    supervisor_wake(s);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct supervisor *s = handle->data;

    if (--s->open_handles > 0)
        return;
    for (int i = 0; i < s->worker_count; i++)
        free(s->workers[i]);
    free(s);
}

static void close_handle(struct supervisor *s, uv_handle_t *handle)
{
    handle->data = s;
    uv_close(handle, on_handle_closed);
}

void supervisor_free(struct supervisor *s)
{
    if (!s)
        return;
    while (s->waits)
        supervisor_wait_cancel(s->waits);
    for (int i = 0; i < s->worker_count; i++) {
        struct worker *w = s->workers[i];

        health_stop(w);
        kv_process_gone(w);
        trim_process_gone(w);
        process_close(w->process);
        wish_release(&w->wanted);
        wish_release(&w->next);
        wish_release(&w->stored);
        free(w->loaded);
        json_decref(w->details);
        line_ring_release(&w->ring);
        close_handle(s, (uv_handle_t *)&w->timer);
        close_handle(s, (uv_handle_t *)&w->health_timer);
        close_handle(s, (uv_handle_t *)&w->idle_timer);
    }
    record_free(s->desired);
    record_free(s->measured);
    record_free(s->contexts);
    learned_free(s->learned);
    reaper_free(s->reaper);
    room_close(s);
    close_handle(s, (uv_handle_t *)&s->room.timer);
    close_handle(s, (uv_handle_t *)&s->wake);
}

/* ---- questions ---- */

int supervisor_count(const struct supervisor *s)
{
    return s->worker_count;
}

bool supervisor_is_shown(const struct supervisor *s, int id)
{
    return id == WORKER_SD || id == s->default_text || !worker_is_free(s->workers[id]);
}

void supervisor_snapshot(const struct supervisor *s, int id,
                         struct worker_snapshot *ret)
{
    const struct worker *w = s->workers[id];

    *ret = (struct worker_snapshot){
        .id = id,
        .kind = w->kind,
        .state = w->state,
        .name = w->name,
        .is_default = id == s->default_text,
        .is_pinned = worker_target(w)->options.is_pinned,
        .state_name = worker_state_name(w->state),
        .pid = w->process ? process_pid(w->process) : 0,
        .port = w->process ? w->port : 0,
        .token = w->token,
        .generation = w->generation,
        .uptime_ms = w->process ? clock_ms() - w->started_ms : 0,
        .restarts = w->restarts,
        .last_exit = w->last_exit,
        .exit = w->last,
        .is_safe_mode = w->safe_mode,
        .reason = w->reason,
        .model = w->loaded,
        .wanted = worker_target(w)->path,
        .progress = w->progress,
        .running = w->running,
        .slots = w->kind == WORKER_SD ? 1 : (unsigned)w->present.slots,
        .used_ms = w->used_ms,
        .saved_tokens = kv_tokens(w),
        .saved_bytes = kv_bytes(w),
        .wish = worker_target(w)->options,
        .present = w->present,
        .predicted = w->process && w->is_predicted ? &w->predicted : NULL,
        .details = w->details,
    };
}

size_t supervisor_log_tail(const struct supervisor *s, int id, const char **ret_lines,
                           size_t max)
{
    return line_ring_tail(&s->workers[id]->ring, ret_lines, max);
}

bool supervisor_is_ready(const struct supervisor *s, int id, enum supervisor_need need)
{
    return takes_work(s->workers[id], need);
}

struct supervisor_wait *supervisor_when_ready(struct supervisor *s, int id,
                                              enum supervisor_need need,
                                              supervisor_done_fn *ready, void *data)
{
    struct supervisor_wait *wait =
        supervisor_wait_add(s->workers[id], WAIT_READY, ready, data);

    wait->need = need;
    return wait;
}

void supervisor_progress_text(const struct supervisor *s, int id, char *ret_text,
                              size_t size)
{
    const struct worker *w = s->workers[id];
    const char *path = worker_target(w)->path;
    const char *model = path ? file_name(path) : "model";

    if (w->state == WORKER_LOADING && w->progress >= 0)
        snprintf(ret_text, size, "loading %s %d%%", model, (int)(w->progress * 100));
    else if (w->state == WORKER_LOADING)
        snprintf(ret_text, size, "loading %s", model);
    else if (w->state == WORKER_WAITING)
        snprintf(ret_text, size, "%s waits for memory", model);
    else if (w->state == WORKER_PARKED || w->state == WORKER_PARKING)
        snprintf(ret_text, size, "%s parked: %s", model, w->park_reason);
    else
        snprintf(ret_text, size, "%s worker %s", w->profile->what,
                 worker_state_name(w->state));
}

/* ---- work ---- */

unsigned supervisor_work_begin(struct supervisor *s, int id)
{
    struct worker *w = s->workers[id];

    w->used_ms = clock_ms();
    if (w->running++ == 0)
        worker_event(w, EV_WORK);
    else
        supervisor_changed(w);
    return w->generation;
}

void supervisor_work_end(struct supervisor *s, int id, unsigned generation)
{
    struct worker *w = s->workers[id];

    if (generation != w->generation || w->running == 0)
        return; /* its process has ended, and all its work with it */
    w->used_ms = clock_ms();
    if (--w->running == 0)
        worker_event(w, EV_IDLE);
    else
        supervisor_changed(w);
}

void supervisor_suspect(struct supervisor *s, int id, unsigned generation)
{
    struct worker *w = s->workers[id];

    if (!w->process || generation != w->generation)
        return;
    w->suspected = true;
    health_check_now(w);
}

/* The jobs are one list in the order of arrival; its head is the one being worked on (run.c), the others wait. First
 * come first served is fair here because one job is one request of bounded size (count and steps have limits), and
 * the number of waiting jobs has a limit too: one more is answered 429 with a time after which to come back.
 * Rejected: several running at once (one worker holds one model; two jobs would only halve each other's speed), and
 * a turn for each client (local clients all have the same address).
 *
 * Two ends of a life: a job ends for its client exactly once (job_end); its memory stays until the store has let
 * go of its pictures. The queue itself lives until its timers are closed and until every question that cannot be
 * taken back (supervisor_load, store_save) has been answered; each of those holds a reference.
 *
 * This queue is in memory: a job is lost with the server. A durable one keeps this interface: job_queue_add would
 * store the request before it returns, job_end its last step, and the words of JOB_STEPS are what it would write.
 */
#include "server/queue/queue.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/log/log.h"
#include "server/queue/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 1000
#define KEEP_ALIVE_MS 5000

/* ---- life of the queue ---- */

void job_queue_unref(struct job_queue *q)
{
    if (--q->references)
        return;
    void (*on_closed)(void *user) = q->on_closed;
    void *user = q->closed_user;

    free(q);
    if (on_closed)
        on_closed(user);
}

static void on_timer_closed(uv_handle_t *timer)
{
    struct job_queue *q = timer->data;

    free(timer);
    job_queue_unref(q);
}

static uv_timer_t *new_timer(struct job_queue *q)
{
    uv_timer_t *timer = mem_zalloc(sizeof(*timer));

    uv_timer_init(q->o.loop, timer);
    timer->data = q;
    q->references++;
    return timer;
}

struct job_queue *job_queue_new(const struct job_queue_options *options)
{
    struct job_queue *q = mem_zalloc(sizeof(*q));

    q->o = *options;
    q->references = 1;
    q->silence = new_timer(q);
    q->tick = new_timer(q);
    return q;
}

void job_queue_close(struct job_queue *q, void (*on_closed)(void *user), void *user)
{
    struct err err = {0};

    q->closing = true;
    q->changed = NULL;
    q->on_closed = on_closed;
    q->closed_user = user;
    err_set(&err, ERR_UNAVAILABLE, "the server is shutting down");
    while (q->first)
        job_end(q->first, JOB_FAILED, &err);
    uv_close((uv_handle_t *)q->silence, on_timer_closed);
    uv_close((uv_handle_t *)q->tick, on_timer_closed);
    job_queue_unref(q);
}

/* ---- what clients are told ---- */

void job_progress_get(const struct job *job, struct job_progress *ret)
{
    *ret = (struct job_progress){
        .id = job->id,
        .step = job->step,
        .position = job->position,
        .image = job->image,
        .images = job->request.count,
        .sample_step = job->sample_step,
        .sample_steps = job->sample_steps,
        .eta_ms = job->eta_ms,
        .time_ms = job->begun_ms ? clock_ms() - job->begun_ms : 0,
    };
    memcpy(ret->detail, job->detail, sizeof(ret->detail));
}

static void tell_client(struct job *job)
{
    struct job_progress now;

    if (job->ended || !job->on.on_change)
        return;
    job_progress_get(job, &now);
    job->told_ms = clock_ms();
    job->on.on_change(job->user, &now);
}

static void tell_listener(struct job_queue *q)
{
    if (q->changed)
        q->changed(q->changed_user);
}

void job_changed(struct job *job)
{
    struct job_queue *q = job->queue;

    tell_client(job);
    if (job == q->first)
        tell_listener(q);
}

/* Those who wait hear of it every second; a long step must not look like a dead connection either. */
static void on_tick(uv_timer_t *timer)
{
    struct job_queue *q = timer->data;

    if (q->first && q->first->step == JOB_PREPARING)
        supervisor_progress_text(q->o.supervisor, WORKER_SD, q->first->detail,
                                 sizeof(q->first->detail));
    for (struct job *j = q->first; j; j = j->next)
        if (j->step == JOB_WAITING || j->step == JOB_PREPARING ||
            clock_ms() - j->told_ms >= KEEP_ALIVE_MS)
            tell_client(j);
    if (!q->first)
        uv_timer_stop(q->tick);
}

static void renumber(struct job_queue *q)
{
    int position = 0;

    for (struct job *j = q->first; j; j = j->next, position++) {
        if (j->position == position)
            continue;
        j->position = position;
        tell_client(j);
    }
}

/* ---- jobs ---- */

struct job *job_queue_add(struct job_queue *q, struct image_request *request,
                          const struct job_handlers *on, void *user, struct err *err)
{
    size_t waiting = job_queue_waiting(q);
    struct job **last = &q->first;

    if (q->closing) {
        err_set(err, ERR_UNAVAILABLE, "the server is shutting down");
        return NULL;
    }
    if (q->first && waiting >= q->o.limit) {
        err_set(err, ERR_RATE_LIMIT,
                "%zu picture requests are waiting already, which is the limit "
                "(--queue-limit): try again in a moment",
                waiting);
        return NULL;
    }
    struct job *job = mem_zalloc(sizeof(*job));

    job->queue = q;
    job->request = *request;
    *request = (struct image_request)IMAGE_REQUEST_DEFAULT;
    job->on = *on;
    job->user = user;
    job->eta_ms = -1;
    job->slots = mem_zalloc((size_t)job->request.count * sizeof(*job->slots));
    snprintf(job->id, sizeof(job->id), "job-%llx-%llu",
             (unsigned long long)clock_unix() & 0xffffffff,
             (unsigned long long)++q->serial);
    while (*last) {
        job->position++;
        last = &(*last)->next;
    }
    *last = job;
    log_debug(q->o.log, "%s: %s, position %d", job->id, job_step_word(job->step),
              job->position);
    if (!uv_is_active((uv_handle_t *)q->tick))
        uv_timer_start(q->tick, on_tick, TICK_MS, TICK_MS);
    run_next(q);
    if (job != q->first)
        tell_listener(q);
    return job;
}

void job_free_if_over(struct job *job)
{
    if (!job->ended || job->saving)
        return;
    for (int i = 0; i < job->request.count; i++) {
        free(job->slots[i].png);
        free(job->slots[i].file);
    }
    free(job->slots);
    image_request_release(&job->request);
    free(job);
}

void job_end(struct job *job, enum job_step how, const struct err *err)
{
    struct job_queue *q = job->queue;
    struct job **at = &q->first;

    if (q->run.job == job)
        run_drop(q);
    job->step = how;
    if (how == JOB_FAILED)
        log_error(q->o.log, "Picture %s failed: %s", job->id, err->message);
    else
        log_debug(q->o.log, "%s: %s", job->id, job_step_word(how));
    if (job == q->first)
        tell_listener(q);
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    job->ended = true;
    if (job->on.on_end)
        job->on.on_end(job->user, err);
    job_free_if_over(job);
    if (q->closing)
        return;
    renumber(q);
    tell_listener(q);
    run_next(q);
}

void job_cancel(struct job *job)
{
    struct err err = {0};

    err_set(&err, ERR_CANCELLED, "the picture was cancelled");
    job_end(job, JOB_CANCELLED, &err);
}

const char *job_id(const struct job *job)
{
    return job->id;
}

struct job *job_queue_running(const struct job_queue *q)
{
    return q->first;
}

struct job *job_queue_find(const struct job_queue *q, const char *id)
{
    struct job *job = q->first;

    while (job && strcmp(job->id, id) != 0)
        job = job->next;
    return job;
}

size_t job_queue_waiting(const struct job_queue *q)
{
    size_t n = 0;

    for (const struct job *j = q->first ? q->first->next : NULL; j; j = j->next)
        n++;
    return n;
}

size_t job_queue_limit(const struct job_queue *q)
{
    return q->o.limit;
}

void job_queue_set_limits(struct job_queue *q, size_t waiting, unsigned silence_ms)
{
    q->o.limit = waiting;
    q->o.silence_limit_ms = silence_ms;
}

void job_queue_cancel_all(struct job_queue *q, json_t *ret_ids)
{
    /* from the end, so that no waiting job is begun in between */
    while (q->first) {
        struct job *last = q->first;

        while (last->next)
            last = last->next;
        json_array_insert_new(ret_ids, 0, json_string(last->id));
        job_cancel(last);
    }
}

char *job_queue_progress_text(const struct job_queue *q)
{
    struct job_progress p = {.eta_ms = -1};
    bool idle = !q->first;

    if (!idle)
        job_progress_get(q->first, &p);
    json_t *eta = p.eta_ms < 0 ? json_null() : json_integer(p.eta_ms);
    json_t *state = json_pack(
        "{s:i, s:i, s:f, s:s, s:s, s:i, s:i, s:s?, s:o, s:I}", "step", p.sample_step,
        "steps", p.sample_steps, "time", (double)p.time_ms / 1000.0, "phase",
        idle ? "idle" : job_step_word(p.step), "label",
        idle ? "Idle" : job_step_label(p.step), "image", p.image, "images", p.images,
        "job", p.id, "eta_ms", eta, "waiting", (json_int_t)job_queue_waiting(q));
    char *text = json_dumps(state, JSON_COMPACT | JSON_REAL_PRECISION(6));

    json_decref(state);
    return text;
}

void job_queue_listen(struct job_queue *q, void (*changed)(void *user), void *user)
{
    q->changed = changed;
    q->changed_user = user;
}

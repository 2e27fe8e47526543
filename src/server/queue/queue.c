/* The jobs are one list in the order of arrival, except that the one being worked on (run.c) is moved to its head; the
 * others wait, and pick.c says which is next. Rejected: several running at once (one worker holds one model; two jobs would
 * only halve each other's speed).
 *
 * A job is in the list from the moment it is asked for, so that its place is fair, but may begin only when the database
 * has said that it is on disk; its acceptance is told then. The same insertion finds out whether the client's Idempotency-Key
 * was used before: two equal requests at the same moment cannot both become a job.
 *
 * Watches. Whoever waits for a job (a client with a blocking request, a stream of its events, a retry that joined)
 * holds a watch; pictures stay in memory until the job ends, so that a late watch gets them, too. A job that is not
 * kept ends with its last watch.
 *
 * Two ends of a life: a job ends for its watches exactly once (job_end); its memory stays until the store and the database
 * have let go of it. The queue itself lives until its timers are closed and until every question that cannot be
 * taken back (supervisor_load, store_save, the database) has been answered; each of those holds a reference.
 *
 * When the server closes, jobs that are kept stay as they are on disk, for the next start; the others have lost their
 * client with the server and are marked as failed, which says why. After a kill nothing was marked, and all of
 * them are done. */
#include "server/queue/queue.h"

#include "base/clock.h"
#include "base/mem.h"
#include "http/http.h"
#include "server/log/log.h"
#include "server/queue/inputs.h"
#include "server/queue/run.h"
#include "server/store/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

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
    log_info(q->o.log,
             "[Queue] Initialized with max concurrent requests: 1 (pictures)");
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

static void on_tick(uv_timer_t *timer);

/* What a job is worth in steps of a megapixel; sizes and steps that are the model's own count as usual ones. */
static double work_of(const struct image_request *r, int pictures)
{
    double width = r->width ? r->width : 512.0, height = r->height ? r->height : 512.0;
    double scale = r->hires.scale > 0 ? r->hires.scale
                   : r->hires.width   ? r->hires.width / width
                                      : r->hires.height / height;
    double steps = r->steps ? r->steps : 20, again = 0;

    if (scale > 0)
        again = scale * scale * ((r->hires.steps ? r->hires.steps : steps) + 5);
    return pictures * width * height / 1e6 * (steps + 5 + again); /* 5: decoding */
}

/* A picture that is made larger has no steps, and another network is another speed: it counts as one. */
static double measure_of(const struct job *job, int pictures)
{
    return job->request.upscale.upscaler ? pictures : work_of(&job->request, pictures);
}

static double *rate_of(const struct job *job)
{
    struct job_queue *q = job->queue;

    return job->request.upscale.upscaler ? &q->ms_per_upscale : &q->ms_per_work;
}

/* Of those before this one (NULL: of all), from what was measured so far; -1: of one of them nothing was. */
static int64_t ms_before(const struct job_queue *q, const struct job *job)
{
    double ms = 0;

    for (const struct job *j = q->first; j && j != job; j = j->next) {
        if (!(*rate_of(j) > 0))
            return -1;
        ms += measure_of(j, j->request.count - j->received) * *rate_of(j);
    }
    return (int64_t)ms;
}

int64_t job_queue_wait_ms(const struct job_queue *q)
{
    return ms_before(q, NULL);
}

void job_measured(struct job *job, uint64_t ms)
{
    double now = (double)ms / measure_of(job, 1), *rate = rate_of(job);

    *rate = *rate > 0 ? 0.7 * *rate + 0.3 * now : now;
}

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
        .eta_ms = job->begun_ms ? job->eta_ms : ms_before(job->queue, job),
        .time_ms = job->begun_ms ? clock_ms() - job->begun_ms : 0,
        .wait_ms = (job->begun_ms ? job->begun_ms : clock_ms()) - job->added_ms,
        .model = job->request.model_path,
        .client = job->client,
    };
    memcpy(ret->detail, job->detail, sizeof(ret->detail));
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
            job_tell(j);
    if (!q->first)
        uv_timer_stop(q->tick);
}

void queue_renumber(struct job_queue *q)
{
    int position = 0;

    for (struct job *j = q->first; j; j = j->next, position++) {
        if (j->position == position)
            continue;
        j->position = position;
        job_tell(j);
    }
}

/* ---- jobs ---- */

static int check_limits(const struct job_queue *q, const char *client, struct err *err)
{
    size_t waiting = job_queue_waiting(q), own = 0;

    if (q->closing)
        return err_set(err, ERR_UNAVAILABLE, "the server is shutting down");
    if (q->first && waiting >= q->o.limit)
        return err_set(err, ERR_RATE_LIMIT,
                       "%zu picture requests are waiting already, which is the limit "
                       "(--queue-limit): try again in a moment",
                       waiting);
    for (const struct job *j = q->first; j; j = j->next)
        own += !strcmp(j->client, client);
    if (own > q->o.client_limit)
        return err_set(
            err, ERR_RATE_LIMIT,
            "%s has %zu picture requests here already, which is the limit of one "
            "client (--client-queue-limit): try again in a moment",
            client, own);
    return 0;
}

static int64_t draw_seed(void)
{
    uint32_t seed = 0;

    if (getrandom(&seed, sizeof(seed), 0) == sizeof(seed))
        return seed;
    return clock_unix_us() & 0xffffffff;
}

/* Into the list, at its end. */
static struct job *job_new(struct job_queue *q, struct image_request *request,
                           const char *client)
{
    struct job *job = mem_zalloc(sizeof(*job)), **last = &q->first;

    job->queue = q;
    job->request = *request;
    *request = (struct image_request)IMAGE_REQUEST_DEFAULT;
    job->client = mem_strdup(client);
    job->eta_ms = -1;
    job->added_ms = clock_ms();
    job->slots = mem_zalloc((size_t)job->request.count * sizeof(*job->slots));
    while (*last) {
        job->position++;
        last = &(*last)->next;
    }
    *last = job;
    if (!uv_is_active((uv_handle_t *)q->tick))
        uv_timer_start(q->tick, on_tick, TICK_MS, TICK_MS);
    return job;
}

struct job_watch *job_watch(struct job *job, const struct job_handlers *on, void *user)
{
    struct job_watch *w = mem_zalloc(sizeof(*w)), **last = &job->watches;

    *w = (struct job_watch){.job = job, .on = *on, .user = user};
    while (*last)
        last = &(*last)->next;
    *last = w;
    job_hand_out(job);
    return w;
}

struct job *job_watched(const struct job_watch *watch)
{
    return watch->job;
}

bool job_is_kept(const struct job *job)
{
    return job->kept;
}

static void watch_remove(struct job_watch *watch)
{
    struct job_watch **at = &watch->job->watches;

    while (*at != watch)
        at = &(*at)->next;
    *at = watch->next;
    free(watch);
}

void job_leave(struct job_watch *watch)
{
    struct job *job = watch->job;

    watch_remove(watch);
    if (!job->watches && !job->kept)
        job_cancel(job);
}

/* The key belongs to another job already. */
static void join(struct job *job, const char *existing, bool same_body)
{
    struct job_watch *w = job->watches;
    struct err err = {0};

    if (!same_body) {
        err_set_param(
            &err, ERR_CONFLICT, "Idempotency-Key",
            "this Idempotency-Key was used for another request (%s): a new request "
            "needs a new key",
            existing);
        job->is_stored = false; /* it never was */
        job_end(job, JOB_FAILED, &err);
        return;
    }
    if (w && w->on.on_joined) {
        struct job_handlers on = w->on;
        void *user = w->user;

        watch_remove(w);
        on.on_joined(user, existing);
    }
    job_end(job, JOB_CANCELLED, NULL);
}

static void on_added(void *user, const struct err *err, const char *existing,
                     bool same_body)
{
    struct job *job = user;
    struct job_queue *q = job->queue;

    job->is_asked = false;
    if (job->ended) { /* cancelled meanwhile: its end was stored behind its beginning */
        job_free_if_over(job);
    } else if (err && job->kept) {
        struct err why = *err;

        err_wrap(&why, "the job could not be stored");
        job_end(job, JOB_FAILED, &why);
    } else if (existing) {
        join(job, existing, same_body);
    } else {
        if (err)
            log_error(q->o.log,
                      "%s could not be stored and would not survive a restart: %s",
                      job->id, err->message);
        job->is_fleeting = err != NULL;
        job->is_stored = true;
        for (struct job_watch *w = job->watches, *next; w; w = next) {
            next = w->next;
            if (w->on.on_accepted)
                w->on.on_accepted(w->user);
        }
        job_told(job, NULL);
        if (job != q->first)
            log_info(q->o.log, "[Queue] %s: waiting, position %d", job->id,
                     job->position);
        run_next(q);
        if (job != q->first)
            queue_tell(q);
    }
    job_queue_unref(q);
}

static void store_job(struct job *job, const struct job_new *new)
{
    json_t *request = image_request_json(&job->request);
    char *text = json_dumps(request, JSON_COMPACT);
    const struct job_row row = {.id = job->id,
                                .kind = "image",
                                .request = text ? text : "{}",
                                .client = job->client,
                                .key = new->key,
                                .body = new->body,
                                .kept = new->kept,
                                .created_ms = clock_unix_us() / 1000};

    job->is_asked = true;
    job->queue->references++;
    job_store_add(job->queue->o.db, &row, on_added, job);
    free(text);
    json_decref(request);
}

struct job_watch *job_queue_add(struct job_queue *q, const struct job_new *new,
                                const struct job_handlers *on, void *user,
                                struct err *err)
{
    struct job *job;
    struct job_watch *watch;

    if (check_limits(q, new->client, err))
        return NULL;
    job = job_new(q, new->request, new->client);
    if (job->request.seed < 0)
        job->request.seed =
            draw_seed(); /* here, so that it is the same after a restart */
    if (job->request.variation_strength > 0 && job->request.variation_seed < 0)
        job->request.variation_seed = draw_seed();
    job->kept = new->kept;
    job->body = new->body;
    snprintf(job->id, sizeof(job->id), "job-%llx-%llu",
             (unsigned long long)clock_unix_us(), (unsigned long long)++q->serial);
    watch = job_watch(job, on, user);
    store_job(job, new);
    return watch;
}

/* ---- what an earlier server had accepted ---- */

static void restore_pictures(struct job *job, const json_t *pictures)
{
    size_t i;
    json_t *p;

    json_array_foreach((json_t *)(uintptr_t)pictures, i, p)
    {
        if (job->received == job->request.count)
            break;
        struct job_slot *slot = &job->slots[job->received++];

        slot->seed = json_integer_value(json_object_get(p, "seed"));
        slot->width = (int)json_integer_value(json_object_get(p, "width"));
        slot->height = (int)json_integer_value(json_object_get(p, "height"));
        slot->file = mem_strdup(json_string_value(json_object_get(p, "file")));
        slot->saved = true;
    }
    job->handed = job->received;
}

static void restore_one(struct job_queue *q, const json_t *row)
{
    struct image_request request;
    struct err err = {0};
    const char *id = json_string_value(json_object_get(row, "id"));
    struct job *job;

    if (image_request_from_json(json_object_get(row, "request"), &request, &err)) {
        log_error(q->o.log, "%s cannot be taken up again: %s", id, err.message);
        job_store_end(q->o.db, q->o.log, id, job_step_word(JOB_FAILED), NULL,
                      q->o.keep);
        return;
    }
    job = job_new(q, &request, json_string_value(json_object_get(row, "client")));
    snprintf(job->id, sizeof(job->id), "%s", id);
    job->kept =
        true; /* whoever asked for it has lost his connection, but may ask again */
    job->is_stored = true;
    job->attempts = (int)json_integer_value(json_object_get(row, "attempts"));
    restore_pictures(job, json_object_get(row, "pictures"));
}

static bool is_input_wanted(void *user, const char *path)
{
    const struct job_queue *q = user;

    for (const struct job *j = q->first; j; j = j->next)
        if ((j->request.start.image && !strcmp(path, j->request.start.image)) ||
            (j->request.start.mask && !strcmp(path, j->request.start.mask)))
            return true;
    return false;
}

static void on_unfinished(void *user, const struct err *err, json_t *jobs)
{
    struct job_queue *q = user;
    size_t i;
    json_t *row;

    if (err)
        log_error(q->o.log, "Jobs of before could not be read: %s", err->message);
    if (!err && !q->closing) {
        json_array_foreach(jobs, i, row)
        {
            restore_one(q, row);
        }
        inputs_sweep(q->o.home, is_input_wanted, q);
        if (json_array_size(jobs))
            log_info(q->o.log,
                     "[Queue] %zu picture job(s) of before are taken up again",
                     json_array_size(jobs));
        run_next(q);
        queue_tell(q);
    }
    job_queue_unref(q);
}

void job_queue_restore(struct job_queue *q)
{
    q->references++;
    job_store_unfinished(q->o.db, on_unfinished, q);
}

void job_free_if_over(struct job *job)
{
    if (!job->ended || job->saving || job->is_asked)
        return;
    for (int i = 0; i < job->request.count; i++) {
        free(job->slots[i].png);
        free(job->slots[i].file);
    }
    free(job->slots);
    free(job->client);
    json_decref(job->drawn_with);
    image_request_release(&job->request);
    free(job);
}

static void store_end(const struct job *job, enum job_step how, const struct err *err)
{
    struct job_queue *q = job->queue;
    json_t *error = err && how == JOB_FAILED ? http_error_json(err) : NULL;
    char *text =
        error ? json_dumps(json_object_get(error, "error"), JSON_COMPACT) : NULL;

    job_store_end(q->o.db, q->o.log, job->id, job_step_word(how), text, q->o.keep);
    free(text);
    json_decref(error);
}

static void end_watches(struct job *job, const struct err *err)
{
    while (job->watches) {
        struct job_watch *w = job->watches;
        struct job_handlers on = w->on;
        void *user = w->user;

        job->watches = w->next;
        free(w);
        if (on.on_end)
            on.on_end(user, err);
    }
}

void job_end(struct job *job, enum job_step how, const struct err *err)
{
    struct job_queue *q = job->queue;
    struct job **at = &q->first;

    if (q->holding && !q->closing && job->kept && how == JOB_FAILED) {
        run_drop(q); /* it goes on with the next server */
        return;
    }
    if (q->run.job == job) {
        run_drop(q);
        log_info(q->o.log, "[Queue] %s: released after %.1f s, %s", job->id,
                 (double)(clock_ms() - job->begun_ms) / 1000, job_step_word(how));
    }
    job->step = how;
    if (!q->closing)
        job_told(job, err);
    if (how == JOB_FAILED)
        log_error(q->o.log, "Picture %s failed: %s", job->id, err->message);
    else
        log_debug(q->o.log, "%s: %s", job->id, job_step_word(how));
    /* kept jobs of a server that closes go on with the next one */
    if ((job->is_stored || job->is_asked) && !job->is_fleeting &&
        !(q->closing && job->kept))
        store_end(job, how, err);
    if (!(q->closing && job->kept))
        inputs_drop(&job->request);
    if (job == q->first)
        queue_tell(q);
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    job->ended = true;
    end_watches(job, err);
    job_free_if_over(job);
    if (q->closing)
        return;
    queue_renumber(q);
    queue_tell(q);
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

struct job *job_queue_find_same(const struct job_queue *q, const char *client,
                                uint64_t body)
{
    for (struct job *j = q->first; j; j = j->next)
        if (j->body == body && !strcmp(j->client, client))
            return j;
    return NULL;
}

void job_queue_each(const struct job_queue *q, job_each_fn *each, void *user)
{
    for (const struct job *j = q->first; j; j = j->next) {
        struct job_progress now;

        job_progress_get(j, &now);
        each(user, &now);
    }
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

void job_queue_set_limits(struct job_queue *q, const struct job_queue_options *limits)
{
    q->o.limit = limits->limit;
    q->o.client_limit = limits->client_limit;
    q->o.age_bound_ms = limits->age_bound_ms;
    q->o.keep = limits->keep;
    q->o.silence_limit_ms = limits->silence_limit_ms;
}

void job_queue_hold(struct job_queue *q)
{
    q->holding = true;
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

/* GET /v1/jobs/{id}/events: the events of one job, numbered, from its state as it is to its end.
 *
 *   queue_status  {status: waiting|acquired, message, run_id, wait_time_ms, position, eta_ms}    (the predecessors' fields)
 *   progress      {state, label, image, images, step, steps, eta_ms, time_ms}
 *   picture       {index, file, url, seed, width, height}
 *   preview       without a number: the next one is better, none is told twice
 *   done | failed | cancelled                                                     the job
 *
 * As in events/feed.c there is one ring of numbered events, here per job, and one number per listener: who comes back with
 * Last-Event-ID and who reads slowly are the same case. The ring begins when somebody follows the job for the first time, and goes
 * on without listeners while the job does, so that a connection may break; only a job that ends with its client is let go with the
 * last listener, because to listen is to want it. The newest few that have ended are kept for those who come back late. Whoever
 * cannot be given what he missed is told so (`gap`) and gets the state; nothing is lost by that, for pictures and the end are on
 * disk. A client that comes back after the last event is answered with 204, which is how browsers learn to stop asking.
 *
 * Rejected: to keep rings for all jobs (nobody follows most of them), and events in the database. */
#include "base/base64.h"
#include "base/mem.h"
#include "http/http.h"
#include "server/api/handlers.h"
#include "server/queue/queue.h"
#include "server/store/jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define KEPT 256      /* events of a job */
#define ENDED_KEPT 16 /* jobs that have ended */
#define BEHIND_BYTES ((size_t)64 * 1024)
#define ID_SIZE 64
#define END_ID "end" /* of the last event, when it comes from the database alone */

struct event {
    const char *name;
    char *text;
};

struct feed {
    struct job_feeds *all; /* NULL: the server has ended meanwhile */
    char *id;
    char name[40];           /* what its ids begin with */
    struct job_watch *watch; /* NULL: the job has ended */
    bool is_acquired;        /* that was told */
    bool is_asked;           /* the database, for the last event */
    bool is_over;            /* that is in the ring */
    struct event ring[KEPT]; /* number n is at n % KEPT */
    uint64_t oldest, next;
    json_t *pictures; /* those that are there, as they were told */
    struct listener *listeners;
    struct feed *older;
};

struct job_feeds {
    struct api *api;
    char boot[17];
    unsigned count; /* feeds so far: no two have the same name */
    struct feed *newest;
};

struct listener {
    struct api *api;
    struct feed *feed; /* NULL: the job is asked of the database */
    struct http_exchange *x;
    char *id;
    char *after; /* Last-Event-ID, while the database is asked; or NULL */
    bool wants_previews;
    struct job_watch *previews; /* NULL: none are wanted */
    uint64_t at;                /* the event that comes next */
    struct listener *next;
};

/* ---- writing to a listener ---- */

static void send_numbered(struct listener *l, uint64_t number, const char *name,
                          const char *text)
{
    char id[ID_SIZE];

    snprintf(id, sizeof(id), "%s-%" PRIu64, l->feed->name, number);
    http_sse_event_with_id(l->x, id, name, text);
}

static void send_gap(struct http_exchange *x)
{
    http_sse_event(x, "gap",
                   "{\"reason\":\"what came after this id is not kept any more\"}");
}

static json_t *queue_status_json(const struct job_progress *now)
{
    const bool waits = now->step == JOB_WAITING;
    char message[80] = "It is being worked on";

    if (waits)
        snprintf(message, sizeof(message),
                 "Waiting for its turn, %d before it (%" PRIu64 " s)", now->position,
                 now->wait_ms / 1000);
    return json_pack("{s:s, s:s, s:s, s:I, s:i, s:o}", "status",
                     waits ? "waiting" : "acquired", "message", message, "run_id",
                     now->id, "wait_time_ms", (json_int_t)now->wait_ms, "position",
                     now->position, "eta_ms",
                     !waits            ? json_integer(0)
                     : now->eta_ms < 0 ? json_null()
                                       : json_integer(now->eta_ms));
}

static json_t *progress_json(const struct job_progress *now)
{
    return json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:o, s:I}", "state",
                     job_step_word(now->step), "label", job_step_label(now->step),
                     "image", now->image, "images", now->images, "step",
                     now->sample_step, "steps", now->sample_steps, "eta_ms",
                     now->eta_ms < 0 ? json_null() : json_integer(now->eta_ms),
                     "time_ms", (json_int_t)now->time_ms);
}

/* Under the number of the newest event, so that a client that comes back goes on from here. Takes the JSON. */
static void send_state(struct listener *l, const char *name, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT);

    json_decref(data);
    send_numbered(l, l->feed->next - 1, name, text ? text : "{}");
    free(text);
}

/* The job as it is, for somebody who knows nothing of it. */
static void send_all(struct listener *l)
{
    struct feed *f = l->feed;
    struct job_progress now;
    json_t *picture;
    size_t i;

    if (f->watch) {
        job_progress_get(job_watched(f->watch), &now);
        if (now.step != JOB_WAITING || now.position > 0)
            send_state(l, "queue_status", queue_status_json(&now));
        if (now.step != JOB_WAITING)
            send_state(l, "progress", progress_json(&now));
    }
    json_array_foreach(f->pictures, i, picture)
    {
        if (!f->is_over) /* else they are part of the last event */
            send_state(l, "picture", json_incref(picture));
    }
    /* of what has ended the last event is all that is left to tell */
    l->at = f->is_over ? f->next - 1 : f->next;
}

static void pump(struct listener *l)
{
    const struct feed *f = l->feed;

    while (l->at < f->next && http_buffered(l->x) <= BEHIND_BYTES) {
        const struct event *e = &f->ring[l->at % KEPT];

        if (l->at < f->oldest) {
            send_gap(l->x);
            send_all(l);
            continue;
        }
        send_numbered(l, l->at++, e->name, e->text);
    }
    if (f->is_over && l->at == f->next)
        http_end(l->x);
}

static void on_drain(struct http_exchange *x, void *user)
{
    struct listener *l = user;

    (void)x;
    if (l->feed)
        pump(l);
}

/* ---- the ring of a job ---- */

static void drop_oldest(struct feed *f)
{
    free(f->ring[f->oldest++ % KEPT].text);
}

static void pump_all(struct feed *f)
{
    for (struct listener *l = f->listeners, *next; l; l = next) {
        next = l->next;
        pump(l);
    }
}

/* Takes the JSON. */
static void tell(struct feed *f, const char *name, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT);

    json_decref(data);
    if (f->next - f->oldest == KEPT)
        drop_oldest(f);
    f->ring[f->next++ % KEPT] = (struct event){name, text ? text : mem_strdup("{}")};
    pump_all(f);
}

static struct feed **place_of(struct job_feeds *all, const struct feed *f)
{
    struct feed **at = &all->newest;

    while (*at && *at != f)
        at = &(*at)->older;
    return at;
}

static void feed_free(struct feed *f)
{
    while (f->oldest < f->next)
        drop_oldest(f);
    json_decref(f->pictures);
    free(f->id);
    free(f);
}

static void forget(struct feed *f)
{
    *place_of(f->all, f) = f->older;
    if (f->watch)
        job_leave(f->watch);
    feed_free(f);
}

static void keep_the_newest(struct job_feeds *all)
{
    int ended = 0;

    for (struct feed *f = all->newest, *older; f; f = older) {
        older = f->older;
        if (f->is_over && ++ended > ENDED_KEPT && !f->listeners)
            forget(f);
    }
}

static void on_change(void *user, const struct job_progress *now)
{
    struct feed *f = user;

    if (now->step == JOB_WAITING) {
        if (now->position > 0)
            tell(f, "queue_status", queue_status_json(now));
        return;
    }
    if (!f->is_acquired && now->step < JOB_DONE)
        tell(f, "queue_status", queue_status_json(now));
    f->is_acquired = true;
    tell(f, "progress", progress_json(now));
}

static void on_picture(void *user, const struct job_picture *p)
{
    struct feed *f = user;
    char *url = p->file ? mem_printf("/outputs/%s", p->file) : NULL;
    json_t *told = json_pack("{s:i, s:s?, s:s?, s:I, s:i, s:i}", "index", p->index,
                             "file", p->file, "url", url, "seed", (json_int_t)p->seed,
                             "width", p->width, "height", p->height);

    free(url);
    json_object_update(told, p->drawn_with);
    json_array_append(f->pictures, told);
    tell(f, "picture", told);
}

/* What the database says of an end: done, failed, cancelled. */
static const char *end_word(const json_t *row)
{
    static const char *const words[] = {"done", "failed", "cancelled"};
    const char *state = json_string_value(json_object_get(row, "state"));

    for (size_t i = 0; state && i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcmp(state, words[i]))
            return words[i];
    return NULL;
}

/* Nothing more will come: the last listener that leaves takes it along. */
static bool is_spent(const struct feed *f)
{
    return !f->watch && !f->is_asked && !f->is_over;
}

static void end_without_a_row(struct feed *f, const struct err *err)
{
    for (struct listener *l = f->listeners, *next; l; l = next) {
        next = l->next;
        if (err)
            http_respond_err(l->x, err);
        else
            http_end(l->x); /* it was forgotten at once */
    }
    if (!f->listeners)
        forget(f);
}

/* The last event: the job as it is on disk. */
static void on_row(void *user, const struct err *err, json_t *row)
{
    struct feed *f = user;
    struct job_feeds *all = f->all;
    const char *word = err ? NULL : end_word(row);

    if (!all) {
        feed_free(f);
        return;
    }
    f->is_asked = false;
    if (word) {
        f->is_over = true;
        tell(f, word, jobs_row_json(all->api, row));
    } else {
        end_without_a_row(f, err);
    }
    keep_the_newest(all);
}

static void on_end(void *user, const struct err *err)
{
    struct feed *f = user;

    (void)err; /* it is in the row */
    f->watch = NULL;
    f->is_asked = true;
    job_store_get(f->all->api->server->db, f->id, NULL, on_row, f);
}

static struct feed *find(struct job_feeds *all, const char *id)
{
    for (struct feed *f = all->newest; f; f = f->older)
        if (!strcmp(f->id, id))
            return f;
    return NULL;
}

static struct feed *feed_new(struct job_feeds *all, struct job *job)
{
    const struct job_handlers on = {
        .on_change = on_change, .on_picture = on_picture, .on_end = on_end};
    struct feed *f = mem_zalloc(sizeof(*f));
    struct job_progress now;

    f->all = all;
    f->id = mem_strdup(job_id(job));
    snprintf(f->name, sizeof(f->name), "%s-%u", all->boot, ++all->count);
    f->oldest = f->next = 1;
    f->pictures = json_array();
    f->older = all->newest;
    all->newest = f;
    job_progress_get(job, &now);
    f->is_acquired = now.step != JOB_WAITING;
    f->watch = job_watch(job, &on, f);
    return f;
}

/* ---- a listener ---- */

json_t *preview_json(const struct job_preview *p)
{
    struct buf text = {0};
    json_t *preview;

    base64_append(&text, p->png, p->size);
    preview = json_pack("{s:i, s:i, s:i, s:i, s:i, s:s%}", "image", p->image, "step",
                        p->step, "steps", p->steps, "width", p->width, "height",
                        p->height, "b64_json", buf_str(&text), text.len);
    buf_release(&text);
    return preview;
}

static void on_preview(void *user, const struct job_preview *p)
{
    struct listener *l = user;

    if (http_buffered(l->x) <= BEHIND_BYTES)
        http_sse_json(l->x, "preview", preview_json(p));
}

static void on_preview_end(void *user, const struct err *err)
{
    (void)err;
    ((struct listener *)user)->previews = NULL;
}

static void listener_free(struct listener *l)
{
    free(l->id);
    free(l->after);
    free(l);
}

static void on_gone(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct listener *l = user, **at;
    struct feed *f = l->feed;

    (void)x;
    (void)outcome;
    if (!f) {
        l->x = NULL; /* the database's answer frees */
        return;
    }
    for (at = &f->listeners; *at != l;)
        at = &(*at)->next;
    *at = l->next;
    if (l->previews)
        job_leave(l->previews);
    listener_free(l);
    if (!f->listeners &&
        (is_spent(f) || (f->watch && !job_is_kept(job_watched(f->watch)))))
        forget(f);
}

/* Where to go on after the event with that id; false: it cannot be said. */
static bool resume(struct listener *l, const char *after)
{
    const struct feed *f = l->feed;
    size_t len = strlen(f->name);
    char *end;
    unsigned long long number;

    if (strncmp(after, f->name, len) != 0 || after[len] != '-')
        return false;
    number = strtoull(after + len + 1, &end, 10);
    if (*end || end == after + len + 1 || number >= f->next || number + 1 < f->oldest)
        return false;
    l->at = number + 1;
    return true;
}

static void hear(struct listener *l, struct feed *f, const char *after)
{
    const struct job_handlers previews = {.on_preview = on_preview,
                                          .on_end = on_preview_end};
    bool goes_on;

    l->feed = f;
    goes_on = after && resume(l, after);
    if (goes_on && f->is_over && l->at == f->next) {
        http_set_user(l->x, NULL, NULL);
        http_respond(l->x, 204, NULL, "", 0);
        listener_free(l);
        return;
    }
    l->next = f->listeners;
    f->listeners = l;
    http_on_drain(l->x, on_drain);
    http_sse_start(l->x);
    if (after && !goes_on)
        send_gap(l->x);
    if (!goes_on)
        send_all(l);
    if (l->wants_previews && f->watch)
        l->previews = job_watch(job_watched(f->watch), &previews, l);
    pump(l);
}

/* The feed of a job, if it is there or the job is in the queue. */
static struct feed *feed_of(struct api *api, const char *id)
{
    struct job *job = job_queue_find(api->server->queue, id);
    struct feed *f = find(api->job_feeds, id);

    if (!f && job)
        f = feed_new(api->job_feeds, job);
    return f && !is_spent(f) ? f : NULL;
}

static void respond_end(struct listener *l, const char *word, const json_t *row)
{
    json_t *job = jobs_row_json(l->api, row);
    char *text = json_dumps(job, JSON_COMPACT);

    http_sse_start(l->x);
    if (l->after)
        send_gap(l->x);
    http_sse_event_with_id(l->x, END_ID, word, text);
    http_end(l->x);
    free(text);
    json_decref(job);
}

/* A job that ended before anybody followed it, or long ago: its last event is what there is. One that has not ended was being
 * taken up again when the server had just been started, and is there by now. */
static void on_row_alone(void *user, const struct err *err, json_t *row)
{
    struct listener *l = user;
    const char *word = err ? NULL : end_word(row);
    struct feed *f = !l->x || err || word ? NULL : feed_of(l->api, l->id);

    if (f) {
        hear(l, f, l->after);
        return;
    }
    if (l->x) {
        http_set_user(l->x, NULL, NULL);
        if (err)
            http_respond_err(l->x, err);
        else if (word)
            respond_end(l, word, row);
        else
            jobs_respond_unknown(l->x, l->id);
    }
    listener_free(l);
}

void jobs_follow(struct api *api, struct http_exchange *x, const char *arg)
{
    const char *header = http_header(x, "last-event-id");
    const char *after = header && *header ? header : http_query_get(x, "last_event_id");
    const char *previews = http_query_get(x, "previews");
    struct feed *f = feed_of(api, arg);
    struct listener *l;

    if (!f && after && !strcmp(after, END_ID)) {
        http_respond(x, 204, NULL, "", 0);
        return;
    }
    l = mem_zalloc(sizeof(*l));
    *l = (struct listener){.api = api,
                           .x = x,
                           .id = mem_strdup(arg),
                           .wants_previews = previews && !strcmp(previews, "true")};
    http_set_user(x, l, on_gone);
    if (f) {
        hear(l, f, after);
        return;
    }
    l->after = after ? mem_strdup(after) : NULL;
    job_store_get(api->server->db, arg, NULL, on_row_alone, l);
}

/* ---- their life ---- */

struct job_feeds *job_feeds_new(struct api *api)
{
    struct job_feeds *all = mem_zalloc(sizeof(*all));
    unsigned char bytes[8] = {0};

    if (getentropy(bytes, sizeof(bytes)))
        memcpy(bytes, &(uint64_t){uv_hrtime()}, sizeof(bytes));
    for (int i = 0; i < 8; i++)
        snprintf(all->boot + 2 * i, 3, "%02x", bytes[i]);
    all->api = api;
    return all;
}

void job_feeds_free(struct job_feeds *all)
{
    for (struct feed *f = all->newest, *older; f; f = older) {
        older = f->older;
        f->all = NULL;
        if (!f->is_asked) /* else the database's answer frees it */
            feed_free(f);
    }
    free(all);
}

/* GET /v1/events: what the parts of the server say, put into the words of the API and given to the feed.
 *
 * Jobs are told as they move. Workers and the queue change with every text request, thousands of times a second: they are
 * marked, looked at once a moment later, and told if they look different from what was told last. What is foreseen on the
 * devices changes with the workers and is told with them; what is free has nobody who would tell it: it is looked at once
 * a second. Both only while somebody listens. */
#include "base/mem.h"
#include "server/api/handlers.h"
#include "server/events/feed.h"
#include "server/memory/memory.h"
#include "server/queue/queue.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define LOOK_MS 50      /* after a change */
#define MEMORY_MS 1000  /* while somebody listens */
#define MEMORY_STEP 256 /* a change of total / this is worth telling */

struct watch {
    struct api *api;
    struct feed *feed;
    uv_timer_t look, pace;
    int open_handles;
    bool is_marked;
    char *workers[WORKERS_MAX]; /* as they were told last */
    char *queue;
    uint64_t available;
    char *foreseen; /* on each device, as it was told last */
};

/* ---- what is told ---- */

/* Without what changes by itself and what has events of its own. */
static json_t *worker_for_event(struct api *api, int id)
{
    json_t *worker = worker_json(api, id);

    json_object_del(worker, "log");
    json_object_del(worker, "uptime_s");
    return worker;
}

static json_t *memory_for_event(struct api *api, const struct memory_now *now)
{
    return json_pack("{s:I, s:I, s:o, s:o}", "total", (json_int_t)now->total,
                     "available", (json_int_t)now->available, "limit",
                     now->limit ? json_integer((json_int_t)now->limit) : json_null(),
                     "devices", memory_devices_json(api));
}

/* What is free changes all the time; what is foreseen, with what was decided. */
static char *foreseen_of(const json_t *memory)
{
    json_t *devices = json_deep_copy(json_object_get(memory, "devices")), *device;
    char *text;
    size_t i;

    json_array_foreach(devices, i, device)
    {
        json_object_del(device, "free");
    }
    text = json_dumps(devices, JSON_COMPACT);
    json_decref(devices);
    return text;
}

static json_t *job_for_event(struct api *api, const struct job_progress *now,
                             const struct err *err)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s?, s:i, s:i, s:i, s:i, s:i, s:o, s:I, s:I, s:s?}", "id",
        now->id, "state", job_step_word(now->step), "label", job_step_label(now->step),
        "model", now->model ? catalog_id(api->catalog, now->model) : NULL, "position",
        now->position, "image", now->image, "images", now->images, "step",
        now->sample_step, "steps", now->sample_steps, "eta_ms",
        now->eta_ms < 0 ? json_null() : json_integer(now->eta_ms), "time_ms",
        (json_int_t)now->time_ms, "wait_time_ms", (json_int_t)now->wait_ms, "reason",
        err ? err->message : NULL);
}

/* Tells it unless it is what was told last. Takes the JSON. */
static void tell_if_new(struct watch *w, enum feed_topic topic, json_t *now,
                        char **last)
{
    char *text = json_dumps(now, JSON_COMPACT);

    if (text && (!*last || strcmp(text, *last))) {
        feed_add(w->feed, topic, json_incref(now));
        free(*last);
        *last = text;
    } else {
        free(text);
    }
    json_decref(now);
}

/* Waiting times pass by themselves; who waits and runs is what is compared. */
static json_t *queue_for_event(struct api *api)
{
    json_t *queue = queue_json(api), *list, *one;
    const char *kind;
    size_t i;

    json_object_foreach(queue, kind, list)
    {
        json_array_foreach(list, i, one)
        {
            json_object_del(one, "wait_time_ms");
            json_object_del(one, "eta_ms");
        }
    }
    return queue;
}

/* ---- when it is looked at ---- */

static void look_at_memory(struct watch *w)
{
    struct memory_now now;
    json_t *memory;
    char *foreseen;

    if (!feed_is_heard(w->feed) || memory_read("", &now))
        return;
    memory = memory_for_event(w->api, &now);
    foreseen = foreseen_of(memory);
    if (foreseen && (!w->foreseen || strcmp(foreseen, w->foreseen) != 0)) {
        free(w->foreseen);
        w->foreseen = foreseen;
        w->available = now.available;
        feed_add(w->feed, FEED_MEMORY, json_incref(memory));
    } else {
        free(foreseen);
    }
    json_decref(memory);
}

static void look(struct watch *w)
{
    const struct supervisor *s = w->api->server->supervisor;

    w->is_marked = false;
    for (int id = 0; id < supervisor_count(s); id++)
        if (w->workers[id] || supervisor_is_shown(s, id))
            tell_if_new(w, FEED_WORKER, worker_for_event(w->api, id), &w->workers[id]);
    look_at_memory(w);
    tell_if_new(w, FEED_QUEUE, queue_for_event(w->api), &w->queue);
}

static void on_look(uv_timer_t *timer)
{
    look(timer->data);
}

static void mark(struct watch *w)
{
    if (!w->is_marked)
        uv_timer_start(&w->look, on_look, LOOK_MS, 0);
    w->is_marked = true;
}

static void on_pace(uv_timer_t *timer)
{
    struct watch *w = timer->data;
    struct memory_now now;

    if (!feed_is_heard(w->feed)) {
        uv_timer_stop(timer);
        return;
    }
    mark(w); /* text requests that came and wait tell nobody */
    if (memory_read("", &now))
        return;
    uint64_t change = now.available > w->available ? now.available - w->available
                                                   : w->available - now.available;

    if (change < now.total / MEMORY_STEP)
        return;
    w->available = now.available;
    feed_add(w->feed, FEED_MEMORY, memory_for_event(w->api, &now));
}

static void on_worker(void *data, int id)
{
    struct watch *w = data;

    (void)id;
    mark(w);
}

static void on_job(void *user, const struct job_progress *now, const struct err *err)
{
    struct watch *w = user;

    feed_add(w->feed, FEED_JOB, job_for_event(w->api, now, err));
    mark(w);
}

static bool wants_previews(void *user)
{
    const struct watch *w = user;

    return feed_wants(w->feed, FEED_PREVIEW);
}

static void on_preview(void *user, const char *id, const struct job_preview *p)
{
    struct watch *w = user;
    json_t *preview;

    if (!wants_previews(w))
        return;
    preview = preview_json(p);
    json_object_set_new(preview, "id", json_string(id));
    feed_tell(w->feed, FEED_PREVIEW, preview);
}

static void on_move(void *data, const struct supervisor_move *move)
{
    struct watch *w = data;

    feed_add(w->feed, FEED_MOVE, move_json(w->api, move));
    mark(w);
}

/* ---- the route ---- */

static json_t *snapshot(void *user)
{
    struct watch *w = user;
    struct memory_now now = {0};
    char *progress = job_queue_progress_text(w->api->server->queue);

    memory_read("", &now);
    json_t *state =
        json_pack("{s:o, s:o, s:o, s:o}", "workers", workers_json(w->api), "queue",
                  queue_json(w->api), "progress", json_loads(progress, 0, NULL),
                  "memory", memory_for_event(w->api, &now));

    free(progress);
    return state;
}

void events_follow(struct api *api, struct http_exchange *x, const char *arg)
{
    const char *after = http_header(x, "last-event-id");
    struct feed_wish wish;
    struct err err = {0};

    (void)arg;
    if (feed_wish_read(&wish, http_query_get(x, "types"), http_query_get(x, "log"),
                       &err)) {
        http_respond_err(x, &err);
        return;
    }
    wish.after = after && *after ? after : http_query_get(x, "last_event_id");
    feed_subscribe(api->watch->feed, x, &wish, snapshot, api->watch);
    if (!uv_is_active((uv_handle_t *)&api->watch->pace))
        uv_timer_start(&api->watch->pace, on_pace, MEMORY_MS, MEMORY_MS);
}

/* ---- its life ---- */

struct watch *watch_new(struct api *api)
{
    struct server *server = api->server;
    struct watch *w = mem_zalloc(sizeof(*w));

    w->api = api;
    w->feed = feed_new(server->loop, server->log);
    uv_timer_init(server->loop, &w->look);
    uv_timer_init(server->loop, &w->pace);
    w->look.data = w->pace.data = w;
    w->open_handles = 2;
    uv_unref((uv_handle_t *)&w->look);
    uv_unref((uv_handle_t *)&w->pace);
    supervisor_listen(server->supervisor, on_worker, w);
    supervisor_on_move(server->supervisor, on_move, w);
    job_queue_follow(server->queue, on_job, w);
    job_queue_follow_previews(
        server->queue, &(struct job_preview_follower){
                           .wants = wants_previews, .preview = on_preview, .user = w});
    return w;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;

    if (--w->open_handles > 0)
        return;
    for (int id = 0; id < WORKERS_MAX; id++)
        free(w->workers[id]);
    free(w->queue);
    free(w->foreseen);
    free(w);
}

void watch_free(struct watch *w)
{
    feed_free(w->feed);
    uv_close((uv_handle_t *)&w->look, on_handle_closed);
    uv_close((uv_handle_t *)&w->pace, on_handle_closed);
}

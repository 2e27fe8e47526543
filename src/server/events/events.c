/* One list of listeners, one timer for their comments. The queue says "something changed", the state is written as
 * JSON once and sent to all. A listener that still has bytes of an earlier event in this process's memory is
 * marked as behind and gets the state of that moment once it has taken them: a slow reader costs one event of
 * memory, never a queue of them, and always ends up with the newest state.
 */
#include "server/events/events.h"

#include "base/mem.h"
#include "http/http.h"
#include "server/queue/queue.h"

#include <stdbool.h>
#include <stdlib.h>

#define PING_MS 15000
#define BEHIND_BYTES ((size_t)16 * 1024)

struct listener {
    struct events *events;
    struct http_exchange *x;
    struct listener *next;
    bool behind;
};

struct events {
    struct job_queue *queue;
    struct listener *first;
    uv_timer_t ping;
};

static void on_changed(void *user)
{
    struct events *e = user;
    char *text = e->first ? job_queue_progress_text(e->queue) : NULL;

    for (struct listener *l = e->first; l; l = l->next) {
        l->behind = http_buffered(l->x) > BEHIND_BYTES;
        if (!l->behind)
            http_sse_event(l->x, NULL, text);
    }
    free(text);
}

static void on_ping(uv_timer_t *timer)
{
    struct events *e = timer->data;

    for (struct listener *l = e->first; l; l = l->next)
        if (!l->behind)
            http_sse_comment(l->x, "ping");
}

static void on_drain(struct http_exchange *x, void *user)
{
    struct listener *l = user;

    (void)x;
    if (!l->behind || !l->events)
        return;
    char *text = job_queue_progress_text(l->events->queue);

    l->behind = false;
    http_sse_event(l->x, NULL, text);
    free(text);
}

static void on_close(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct listener *l = user;

    (void)x;
    (void)outcome;
    if (l->events) {
        struct listener **at = &l->events->first;

        while (*at != l)
            at = &(*at)->next;
        *at = l->next;
    }
    free(l);
}

struct events *events_new(struct uv_loop_s *loop, struct job_queue *queue)
{
    struct events *e = mem_zalloc(sizeof(*e));

    e->queue = queue;
    uv_timer_init(loop, &e->ping);
    e->ping.data = e;
    uv_timer_start(&e->ping, on_ping, PING_MS, PING_MS);
    uv_unref((uv_handle_t *)&e->ping);
    job_queue_listen(queue, on_changed, e);
    return e;
}

static void on_ping_closed(uv_handle_t *timer)
{
    free(timer->data);
}

void events_free(struct events *e)
{
    if (!e)
        return;
    job_queue_listen(e->queue, NULL, NULL);
    for (struct listener *l = e->first; l; l = l->next) {
        l->events = NULL; /* its exchange ends by itself and frees it */
        http_end(l->x);
    }
    uv_close((uv_handle_t *)&e->ping, on_ping_closed);
}

void events_subscribe(struct events *e, struct http_exchange *x)
{
    struct listener *l = mem_zalloc(sizeof(*l));

    l->events = e;
    l->x = x;
    l->next = e->first;
    e->first = l;
    http_set_user(x, l, on_close);
    http_on_drain(x, on_drain);
    http_sse_start(x);
    char *text = job_queue_progress_text(e->queue);

    http_sse_event(x, NULL, text);
    free(text);
}

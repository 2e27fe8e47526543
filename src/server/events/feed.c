/* A ring of the newest events and, per listener, the number of the next one it gets: there is no queue per listener, so
 * a slow reader costs nothing, and coming back after a broken connection is the same as having been slow. Who falls
 * behind the ring is told so and gets the state instead.
 *
 * Lines of the log come from any thread. They wait in a small list under a lock, and the loop is woken to number them.
 * What waits there is bounded; lines beyond it are missing here as they would be in a log that nobody reads.
 */
#include "server/events/feed.h"

#include "base/mem.h"
#include "base/str.h"
#include "http/http.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define KEPT 1024                       /* events */
#define KEPT_BYTES ((size_t)512 * 1024) /* of their text */
#define WAITING_LINES 512
#define BEHIND_BYTES ((size_t)64 * 1024)
#define PING_MS 15000

static const char *const topic_names[] = {
#define X(name, word) word,
    FEED_TOPICS(X)
#undef X
};
static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const char *const source_names[] = {"orchestrator", "sd", "llm"};

struct event {
    enum feed_topic topic;
    enum log_level level; /* of a line */
    char *text;
    size_t len;
};

struct listener {
    struct feed *feed; /* NULL: it is gone */
    struct http_exchange *x;
    struct listener *next;
    struct feed_wish wish;
    feed_snapshot_fn *snapshot;
    void *user;
    uint64_t at; /* the event that comes next */
};

struct feed {
    char boot[17];
    struct log *log;
    struct event ring[KEPT]; /* number n is at n % KEPT */
    uint64_t oldest, next;
    size_t bytes;
    struct listener *listeners;
    uv_timer_t ping;
    uv_async_t wake;
    int open_handles;
    pthread_mutex_t mutex; /* for what follows */
    struct event waiting[WAITING_LINES];
    int waiting_count;
};

/* ---- writing to a listener ---- */

static void send_event(struct listener *l, uint64_t number, const char *name,
                       const char *text)
{
    char id[48];

    snprintf(id, sizeof(id), "%s-%llu", l->feed->boot, (unsigned long long)number);
    http_sse_event_with_id(l->x, id, name, text);
}

/* Its id is that of the newest event, so that a client that comes back goes on from here. */
static void send_snapshot(struct listener *l)
{
    json_t *state = l->snapshot(l->user);
    char *text = json_dumps(state, JSON_COMPACT);

    l->at = l->feed->next;
    send_event(l, l->at - 1, "snapshot", text ? text : "{}");
    free(text);
    json_decref(state);
}

static void send_gap(struct listener *l, const char *reason)
{
    json_t *gap = json_pack("{s:s}", "reason", reason);
    char *text = json_dumps(gap, JSON_COMPACT);

    http_sse_event(l->x, "gap", text);
    free(text);
    json_decref(gap);
    send_snapshot(l);
}

static void pump(struct listener *l)
{
    const struct feed *f = l->feed;

    while (l->at < f->next && http_buffered(l->x) <= BEHIND_BYTES) {
        const struct event *e = &f->ring[l->at % KEPT];

        if (l->at < f->oldest) {
            send_gap(l, "more has happened than is kept");
            return;
        }
        if (l->wish.wants[e->topic] &&
            (e->topic != FEED_LOG || e->level <= l->wish.level))
            send_event(l, l->at, topic_names[e->topic], e->text);
        l->at++;
    }
}

static void on_drain(struct http_exchange *x, void *user)
{
    struct listener *l = user;

    (void)x;
    if (l->feed)
        pump(l);
}

static void on_close(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct listener *l = user;

    (void)x;
    (void)outcome;
    if (l->feed) {
        struct listener **at = &l->feed->listeners;

        while (*at != l)
            at = &(*at)->next;
        *at = l->next;
    }
    free(l);
}

/* ---- the ring ---- */

static void drop_oldest(struct feed *f)
{
    struct event *e = &f->ring[f->oldest++ % KEPT];

    f->bytes -= e->len;
    free(e->text);
    *e = (struct event){0};
}

/* Takes the event's text. */
static void add(struct feed *f, struct event e)
{
    e.len = strlen(e.text);
    while (f->next - f->oldest == KEPT ||
           (f->next > f->oldest && f->bytes + e.len > KEPT_BYTES))
        drop_oldest(f);
    f->ring[f->next++ % KEPT] = e;
    f->bytes += e.len;
    for (struct listener *l = f->listeners, *next; l; l = next) {
        next = l->next;
        pump(l);
    }
}

void feed_add(struct feed *f, enum feed_topic topic, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(6));

    json_decref(data);
    if (text)
        add(f, (struct event){.topic = topic, .text = text});
}

void feed_tell(struct feed *f, enum feed_topic topic, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT);

    json_decref(data);
    for (struct listener *l = f->listeners, *next; text && l; l = next) {
        next = l->next;
        if (l->wish.wants[topic] && http_buffered(l->x) <= BEHIND_BYTES)
            http_sse_event(l->x, topic_names[topic], text);
    }
    free(text);
}

bool feed_wants(const struct feed *f, enum feed_topic topic)
{
    for (const struct listener *l = f->listeners; l; l = l->next)
        if (l->wish.wants[topic])
            return true;
    return false;
}

bool feed_is_heard(const struct feed *f)
{
    return f->listeners != NULL;
}

/* ---- lines of the log ---- */

static char *line_text(enum log_level level, enum log_source source, const char *text,
                       size_t len)
{
    json_t *line =
        json_pack("{s:s, s:s, s:o}", "level", level_names[level], "source",
                  source_names[source], "line",
                  str_is_utf8(text, len) ? json_stringn(text, len)
                                         : json_string("(not readable as UTF-8)"));
    char *out = json_dumps(line, JSON_COMPACT);

    json_decref(line);
    return out;
}

/* Any thread. */
static void on_line(void *data, enum log_level level, enum log_source source,
                    const char *text, size_t len)
{
    struct feed *f = data;
    char *json = line_text(level, source, text, len);

    if (!json)
        return;
    pthread_mutex_lock(&f->mutex);
    if (f->waiting_count < WAITING_LINES) {
        f->waiting[f->waiting_count++] =
            (struct event){.topic = FEED_LOG, .level = level, .text = json};
        json = NULL;
    }
    pthread_mutex_unlock(&f->mutex);
    free(json);
    uv_async_send(&f->wake);
}

static void on_wake(uv_async_t *wake)
{
    struct feed *f = wake->data;
    struct event lines[WAITING_LINES];
    int count;

    pthread_mutex_lock(&f->mutex);
    count = f->waiting_count;
    memcpy(lines, f->waiting, (size_t)count * sizeof(lines[0]));
    f->waiting_count = 0;
    pthread_mutex_unlock(&f->mutex);
    for (int i = 0; i < count; i++)
        add(f, lines[i]);
}

/* ---- its life ---- */

static void on_ping(uv_timer_t *timer)
{
    struct feed *f = timer->data;

    for (struct listener *l = f->listeners; l; l = l->next)
        if (http_buffered(l->x) <= BEHIND_BYTES)
            http_sse_comment(l->x, "ping");
}

static void name_boot(char boot[17])
{
    unsigned char bytes[8] = {0};

    if (getentropy(bytes, sizeof(bytes)))
        memcpy(bytes, &(uint64_t){uv_hrtime()}, sizeof(bytes));
    for (int i = 0; i < 8; i++)
        snprintf(boot + 2 * i, 3, "%02x", bytes[i]);
}

struct feed *feed_new(struct uv_loop_s *loop, struct log *log)
{
    struct feed *f = mem_zalloc(sizeof(*f));

    name_boot(f->boot);
    f->log = log;
    f->oldest = f->next = 1;
    pthread_mutex_init(&f->mutex, NULL);
    uv_timer_init(loop, &f->ping);
    uv_async_init(loop, &f->wake, on_wake);
    f->ping.data = f->wake.data = f;
    f->open_handles = 2;
    uv_timer_start(&f->ping, on_ping, PING_MS, PING_MS);
    uv_unref((uv_handle_t *)&f->ping);
    uv_unref((uv_handle_t *)&f->wake);
    log_listen(log, on_line, f);
    return f;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct feed *f = handle->data;

    if (--f->open_handles > 0)
        return;
    while (f->oldest < f->next)
        drop_oldest(f);
    for (int i = 0; i < f->waiting_count; i++)
        free(f->waiting[i].text);
    pthread_mutex_destroy(&f->mutex);
    free(f);
}

void feed_free(struct feed *f)
{
    if (!f)
        return;
    log_listen(f->log, NULL, NULL);
    for (struct listener *l = f->listeners; l; l = l->next) {
        l->feed = NULL; /* its exchange ends by itself and frees it */
        http_end(l->x);
    }
    uv_close((uv_handle_t *)&f->ping, on_handle_closed);
    uv_close((uv_handle_t *)&f->wake, on_handle_closed);
}

/* ---- who listens to what ---- */

static int index_of(const char *word, size_t len, const char *const *words, int count)
{
    for (int i = 0; i < count; i++)
        if (strlen(words[i]) == len && !strncmp(word, words[i], len))
            return i;
    return -1;
}

int feed_wish_read(struct feed_wish *ret, const char *types, const char *level,
                   struct err *err)
{
    int n = level ? index_of(level, strlen(level), level_names, 4) : LOG_INFO;

    if (n < 0)
        return err_set_param(err, ERR_INVALID, "log",
                             "log: \"%.40s\" is none of error, warning, info, debug",
                             level);
    *ret = (struct feed_wish){.level = (enum log_level)n};
    for (int i = 0; i < FEED_TOPIC_COUNT && !types; i++)
        ret->wants[i] = i != FEED_PREVIEW;
    while (types && *types) {
        size_t len = strcspn(types, ",");
        int topic = index_of(types, len, topic_names, FEED_TOPIC_COUNT);

        if (topic < 0)
            return err_set_param(err, ERR_INVALID, "types",
                                 "types: \"%.*s\" is none of worker, job, queue, "
                                 "memory, move, log, preview",
                                 (int)(len < 40 ? len : 40), types);
        ret->wants[topic] = true;
        types += len + (types[len] == ',');
    }
    return 0;
}

/* Goes on after the event with that id, if it can. */
static bool resume(struct listener *l, const char *after)
{
    size_t boot = strlen(l->feed->boot);
    char *end;

    if (strncmp(after, l->feed->boot, boot) || after[boot] != '-') {
        send_gap(l, "the server was started anew");
        return false;
    }
    unsigned long long number = strtoull(after + boot + 1, &end, 10);

    if (*end || end == after + boot + 1 || number >= l->feed->next) {
        send_gap(l, "there is no event with this id");
        return false;
    }
    l->at = number + 1;
    return true;
}

void feed_subscribe(struct feed *f, struct http_exchange *x,
                    const struct feed_wish *wish, feed_snapshot_fn *snapshot,
                    void *user)
{
    struct listener *l = mem_zalloc(sizeof(*l));

    *l = (struct listener){.feed = f,
                           .x = x,
                           .next = f->listeners,
                           .wish = *wish,
                           .snapshot = snapshot,
                           .user = user};
    http_set_user(x, l, on_close);
    http_on_drain(x, on_drain);
    http_sse_start(x);
    if (!wish->after)
        send_snapshot(l);
    else if (resume(l, wish->after))
        pump(l);
    l->wish.after = NULL; /* the request's */
    f->listeners = l;
}

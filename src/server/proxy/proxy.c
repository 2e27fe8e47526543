/* proxy: one exchange, one worker, the rules of a stream.
 *
 *   body -> acquire ... proxy_ready -> call -> head -> data ... -> end
 *             ^                          |
 *             +---- died, nothing came --+      at most once when the request had been sent
 *
 * The request's body is collected before the worker is asked: it has to be there whole to be sent a second
 * time, and whether the client wants a stream stands in it. The answer is never collected.
 *
 * Silence. A client that wants a stream gets, after comment_after_ms without a head, our own 200 with
 * text/event-stream and from then on a comment per second; the same comments go into a worker's event
 * stream before its first byte, never later, because only there we know to be between two events. Once we
 * have answered 200 ourselves ("committed"), a worker's answer that is no event stream cannot be passed on
 * as it is: it is collected (it is small, an error as a rule) and becomes one event.
 *
 * Failure after the head. In an event stream: a blank line if the worker stopped inside an event, then the
 * error as an event of its own, then a proper end. In anything else the connection is cut; a client must
 * never take half an answer for a whole one.
 *
 * Sent again. A worker that dies before its answer began is acquired again (its source waits until it is
 * back) and the request goes out once more; a second death is an error. The bare head of an event stream is no
 * beginning: llama-server sends it long before the first token, and what comes from the next worker continues
 * it as if the 200 had been our own. A target that cannot be connected
 * to has seen nothing of the request, so that this does not count, but it is not asked for ever either.
 *
 * Ends. Whatever ends the exchange, on_exchange_close() is the only place where a proxy is taken apart. A
 * client that left is such an end: closing the worker's connection is what makes it stop.
 */
#include "server/proxy/proxy.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "server/proxy/fields.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    BUFFERED_HIGH =
        256 * 1024, /* bytes the client has not taken: the worker is paused */
    DETECT_BYTES = 1024 * 1024, /* larger bodies are not looked into */
    LATE_BYTES = 64 * 1024,
    AGAIN_MS = 100,        /* a dead worker is noticed by its owner within that */
    UNREACHED_LIMIT = 100, /* times AGAIN_MS */
};

enum late { LATE_NONE, LATE_ERROR, LATE_WHOLE };

struct proxy {
    struct http_exchange *x;
    struct proxy_options o;
    struct http_call *call;
    const char *body;
    size_t body_len;
    uv_timer_t comments, again;
    struct buf late; /* of an answer that came after we had committed */
    unsigned open_timers, unreached;
    enum late late_kind : 8;
    bool is_stream : 1;
    bool is_acquired : 1;
    bool is_committed : 1;
    bool has_head : 1;
    bool has_data : 1;
    bool
        is_bare : 1; /* the head was passed on, and it promises no more than our own would */
    bool was_resent : 1;
    bool has_comments : 1; /* the timer exists */
    bool has_again : 1;
    bool is_events : 1; /* an event stream of unknown length is under way */
    char tail[2];       /* the last bytes sent of it */
    char progress[96];
    char target[]; /* at the worker */
};

static void acquire(struct proxy *p);

/* ---- the end ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct proxy *p = handle->data;

    if (--p->open_timers == 0)
        free(p);
}

static void release(struct proxy *p)
{
    if (!p->is_acquired)
        return;
    p->is_acquired = false;
    if (p->o.release)
        p->o.release(p->o.source, p);
}

static void on_exchange_close(struct http_exchange *x, void *user,
                              enum http_outcome outcome)
{
    struct proxy *p = user;

    http_call_cancel(p->call);
    release(p);
    if (p->o.on_done)
        p->o.on_done(p->o.user, x, outcome);
    buf_release(&p->late);
    free(p->o.body);
    p->open_timers = p->has_comments + p->has_again;
    if (p->has_comments)
        uv_close((uv_handle_t *)&p->comments, on_timer_closed);
    if (p->has_again)
        uv_close((uv_handle_t *)&p->again, on_timer_closed);
    if (!p->open_timers)
        free(p);
}

static void stop_comments(struct proxy *p)
{
    if (p->has_comments)
        uv_timer_stop(&p->comments);
}

static void end_with_error(struct proxy *p, const struct err *err)
{
    stop_comments(p);
    if (http_started(p->x) && p->is_events) {
        if (p->has_data && !(p->tail[0] == '\n' && p->tail[1] == '\n'))
            http_write(p->x, "\n\n", 2);
        http_sse_json(p->x, NULL, http_error_json(err));
        http_end(p->x);
    } else {
        http_respond_err(p->x, err);
    }
}

/* ---- comments ---- */

static void on_comment_time(uv_timer_t *timer)
{
    struct proxy *p = timer->data;

    if (!http_started(p->x)) {
        http_sse_start(p->x);
        p->is_committed = p->is_events = true;
    }
    if (*p->progress)
        http_sse_comment(p->x, p->progress);
    else
        http_sse_comment(p->x, p->call ? "waiting" : "loading");
}

static void start_comments(struct proxy *p)
{
    uv_timer_init(http_loop(p->x), &p->comments);
    p->comments.data = p;
    p->has_comments = true;
    uv_timer_start(&p->comments, on_comment_time,
                   p->o.comment_after_ms ? p->o.comment_after_ms : 500,
                   p->o.comment_every_ms ? p->o.comment_every_ms : 1000);
}

void proxy_progress(struct proxy *p, const char *text)
{
    snprintf(p->progress, sizeof(p->progress), "%s", text);
}

struct http_exchange *proxy_exchange(const struct proxy *p)
{
    return p->x;
}

/* ---- the worker's answer ---- */

static bool is_event_stream(const struct http_answer *head)
{
    const char *type = http_answer_field(head, "content-type");

    return type && !strncasecmp(type, "text/event-stream", 17);
}

static void on_head(void *user, const struct http_answer *head)
{
    struct proxy *p = user;

    p->has_head = true;
    if (p->is_committed) {
        if (head->status != 200)
            p->late_kind = LATE_ERROR;
        else if (!is_event_stream(head))
            p->late_kind = LATE_WHOLE;
        p->is_bare = p->late_kind == LATE_NONE;
        return;
    }
    p->is_events = is_event_stream(head) && head->length < 0;
    p->is_bare = p->is_events && head->status == 200;
    if (!p->is_events)
        stop_comments(p);
    proxy_fields_to_client(p->x, head);
    if (p->is_events && !http_answer_field(head, "x-accel-buffering"))
        http_set_header(p->x, "x-accel-buffering", "no"); /* nginx holds streams back */
    http_start(p->x, head->status, NULL, head->length);
}

static void on_drain(struct http_exchange *x, void *user)
{
    struct proxy *p = user;

    (void)x;
    if (p->call)
        http_call_resume(p->call);
}

static void note_tail(struct proxy *p, const char *data, size_t len)
{
    p->tail[0] = *(len > 1 ? &data[len - 2] : &p->tail[1]);
    p->tail[1] = data[len - 1];
}

static void on_data(void *user, const char *data, size_t len)
{
    struct proxy *p = user;

    if (!p->has_data)
        stop_comments(p);
    p->has_data = true;
    if (p->late_kind != LATE_NONE) {
        if (p->late.len + len <= LATE_BYTES)
            buf_append(&p->late, data, len);
        return;
    }
    note_tail(p, data, len);
    http_write(p->x, data, len);
    if (http_buffered(p->x) > BUFFERED_HIGH)
        http_call_pause(p->call);
}

/* A worker's answer after our own 200, as one event. */
static void end_late(struct proxy *p)
{
    json_t *answer = json_loadb(buf_str(&p->late), p->late.len, 0, NULL);
    struct err err;

    p->has_data = false; /* nothing of it was sent: we are between two events */
    if (p->late_kind == LATE_WHOLE ? answer != NULL
                                   : json_object_get(answer, "error") != NULL) {
        http_sse_json(p->x, NULL, answer);
        http_end(p->x);
        return;
    }
    json_decref(answer);
    err_set(&err, ERR_BAD_GATEWAY,
            "The worker answered with something that is no stream.");
    end_with_error(p, &err);
}

static void on_end(void *user)
{
    struct proxy *p = user;

    p->call = NULL;
    stop_comments(p);
    release(p);
    if (p->late_kind != LATE_NONE)
        end_late(p);
    else
        http_end(p->x);
}

/* ---- sent again ---- */

static void on_again(uv_timer_t *timer)
{
    acquire(timer->data);
}

static void acquire_again(struct proxy *p)
{
    if (!p->has_again) {
        uv_timer_init(http_loop(p->x), &p->again);
        p->again.data = p;
        p->has_again = true;
    }
    uv_timer_start(&p->again, on_again, AGAIN_MS, 0);
}

/* Has nothing of the answer reached the client, but for a head that another answer can stand under? */
static bool is_unanswered(const struct proxy *p)
{
    return !p->has_head || (p->is_bare && !p->has_data);
}

static void on_error(void *user, enum http_failure failure, const struct err *err)
{
    struct proxy *p = user;

    p->call = NULL;
    release(p);
    if (!p->has_head && failure == HTTP_UNREACHED && p->unreached++ < UNREACHED_LIMIT) {
        acquire_again(p);
    } else if (is_unanswered(p) && failure == HTTP_BROKEN && !p->was_resent) {
        p->is_committed = p->is_committed || p->has_head;
        p->has_head = false;
        p->was_resent = true;
        acquire_again(p);
    } else {
        end_with_error(p, err);
    }
}

static const struct http_call_handlers handlers = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end, .on_error = on_error};

/* ---- the request ---- */

static void acquire(struct proxy *p)
{
    p->is_acquired = true;
    p->o.acquire(p->o.source, p);
}

void proxy_ready(struct proxy *p, const struct proxy_target *target)
{
    struct proxy_fields fields;
    struct http_call_options call = {
        .host = target->host,
        .port = target->port,
        .method = http_method(p->x),
        .target = p->target,
        .body = p->body,
        .body_len = p->body_len,
        .first_byte_timeout_ms =
            p->o.first_byte_timeout_ms ? p->o.first_byte_timeout_ms : 300 * 1000,
        .on = &handlers,
        .user = p,
    };

    if (!p->is_acquired || p->call)
        return;
    proxy_fields_for_worker(p->x, target->token,
                            p->o.body ? PROXY_BODY_REPLACED : PROXY_BODY_CLIENTS,
                            &fields);
    call.headers = fields.list;
    call.header_count = fields.count;
    p->call = http_call_start(p->o.client, &call);
    *p->progress = '\0';
    proxy_fields_release(&fields);
}

void proxy_fail(struct proxy *p, const struct err *err)
{
    if (p->is_acquired && !p->call)
        end_with_error(p, err);
}

/* Does the body ask for a stream? A cheap look first: most of the large ones have no such word. */
static bool asks_for_stream(const char *body, size_t len)
{
    json_t *root;
    bool is_stream;

    if (!len || len > DETECT_BYTES || !memmem(body, len, "\"stream\"", 8))
        return false;
    root = json_loadb(body, len, 0, NULL);
    is_stream = json_is_true(json_object_get(root, "stream"));
    json_decref(root);
    return is_stream;
}

static void on_body(struct http_exchange *x, void *user, const char *data, size_t len)
{
    struct proxy *p = user;

    (void)x;
    p->body = data;
    p->body_len = len;
    if (p->o.stream == PROXY_STREAM_DETECT)
        p->is_stream = asks_for_stream(data, len);
    else
        p->is_stream = p->o.stream == PROXY_STREAM_YES;
    if (p->is_stream)
        start_comments(p);
    acquire(p);
}

void proxy_forward(struct http_exchange *x, const struct proxy_options *o)
{
    const char *target = o->target ? o->target : http_target(x);
    size_t target_bytes = strlen(target) + 1, len;
    struct proxy *p = mem_zalloc(sizeof(*p) + target_bytes);
    const char *body;

    memcpy(p->target, target, target_bytes);
    p->x = x;
    p->o = *o;
    http_set_user(x, p, on_exchange_close);
    http_on_drain(x, on_drain);
    body = http_body(x, &len);
    if (o->body)
        on_body(x, p, o->body, o->body_len);
    else if (body)
        on_body(x, p, body, len);
    else
        http_collect_body(x, 0, on_body);
}

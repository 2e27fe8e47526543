/* conn: one connection of the server, from accept to close.
 *
 * Life: WAIT_REQUEST (idle) -> WAIT_HEAD (first byte came) -> [WAIT_BODY] -> WAIT_ANSWER -> WAIT_REQUEST ...
 * and in the end closed, or WAIT_LINGER when the client may still be sending: then our side is shut down
 * and what comes is thrown away for two seconds, because closing a socket with unread bytes makes the
 * kernel send a reset, and the client would lose the very answer that tells it what was wrong.
 *
 * One exchange at a time. Bytes that come too early (a pipelined request; a body that the handler has not
 * asked for) are held, at most HELD_LIMIT and one read, then reading stops. Otherwise the connection is
 * always read, also while the handler works in silence: that is how a client that left is seen at once.
 * End of stream counts as left, half-closed or not.
 *
 * Handlers are called from feed() (a request, body pieces) and from conn_turn() (ends). They may call
 * anything: what they call only sets flags and queues the connection for the end of this turn of the loop,
 * where conn_turn() looks at what is to be done: send a head that has no body yet, finish an exchange,
 * begin with the next request, close. That is the only place where an exchange is freed.
 *
 * If you add a way for an exchange to end, set a flag and call conn_wake(); never free from there.
 */
#include "http/conn.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static void conn_turn(struct turn_item *item);

static uint64_t in_ms(const struct conn *c, uint64_t ms)
{
    return uv_now(c->server->loop) + ms;
}

static void set_wait(struct conn *c, enum conn_wait wait)
{
    const struct http_limits *l = &c->server->options.limits;

    c->wait = wait;
    switch (wait) {
    case WAIT_REQUEST:
    case WAIT_BODY:
        c->deadline_ms = in_ms(c, l->idle_timeout_ms);
        break;
    case WAIT_HEAD:
        c->deadline_ms = in_ms(c, l->head_timeout_ms);
        break;
    case WAIT_LINGER:
        c->deadline_ms = in_ms(c, LINGER_MS);
        break;
    case WAIT_ANSWER:
        c->deadline_ms = 0;
        break;
    }
}

void conn_wake(struct conn *c)
{
    if (!c->is_closing)
        turn_add(&c->server->turn, &c->turn);
}

/* ---- the exchange ---- */

static struct http_exchange *begin_exchange(struct conn *c)
{
    struct http_exchange *x = mem_zalloc(sizeof(*x));

    x->conn = c;
    x->began_ns = clock_ns();
    x->has_body_end = !c->in.has_body;
    x->keeps_alive = c->in.keep_alive && c->server->state == SERVER_OPEN;
    x->is_head = c->in.parser.method == HTTP_HEAD;
    c->x = x;
    return x;
}

static void finish_exchange(struct conn *c, enum http_outcome outcome)
{
    struct http_exchange *x = c->x;
    const struct http_server_options *o = &c->server->options;
    struct decoded *next;

    if (o->on_finished)
        o->on_finished(o->user, x, x->status, x->sent_bytes,
                       (double)(clock_ns() - x->began_ns) / 1e6);
    if (x->on_close)
        x->on_close(x, x->user, outcome);
    c->x = NULL;
    for (struct decoded *d = x->decoded; d; d = next) {
        next = d->next;
        free(d);
    }
    buf_release(&x->body);
    buf_release(&x->fields);
    free(x);
}

void conn_refuse(struct conn *c, const struct err *err)
{
    struct http_exchange *x = c->x ? c->x : begin_exchange(c);

    x->is_refused = true;
    x->keeps_alive = false;
    x->has_body_end = false; /* whatever else comes is thrown away */
    x->on_body = NULL;
    set_wait(c, WAIT_ANSWER);
    http_respond_err(x, err); /* cuts an answer that has started */
    conn_wake(c);
}

static void refuse_size(struct conn *c, size_t limit)
{
    struct err err;

    err_set(&err, ERR_TOO_LARGE, "The body of the request is larger than %zu bytes.",
            limit);
    conn_refuse(c, &err);
}

static void begin_request(struct conn *c)
{
    const struct http_server_options *o = &c->server->options;
    struct http_exchange *x = begin_exchange(c);

    set_wait(c, WAIT_ANSWER);
    if (c->in.length > 0 && (uint64_t)c->in.length > o->limits.body_bytes)
        refuse_size(c, o->limits.body_bytes);
    else
        o->on_request(o->user, x);
}

static void take_body(struct conn *c, const char *data, size_t len)
{
    struct http_exchange *x = c->x;

    set_wait(c, WAIT_BODY);
    x->body_bytes += len;
    if (x->body_bytes > x->body_limit) {
        refuse_size(c, x->body_limit);
    } else if (x->mode == BODY_COLLECT) {
        buf_append(&x->body, data, len);
    } else if (x->on_body) {
        x->on_body(x, x->user, data, len);
    }
}

static void end_body(struct conn *c)
{
    struct http_exchange *x = c->x;

    set_wait(c, WAIT_ANSWER);
    x->has_body_end = true;
    if (!x->on_body)
        return;
    if (x->mode == BODY_COLLECT)
        x->on_body(x, x->user, buf_str(&x->body), x->body.len);
    else
        x->on_body(x, x->user, "", 0);
}

/* ---- reading ---- */

static bool can_feed(const struct conn *c)
{
    const struct http_exchange *x = c->x;

    if (c->is_gone || c->is_aborted || c->is_closing || c->wait == WAIT_LINGER)
        return false;
    return !x || (!x->has_body_end && x->mode != BODY_UNASKED && !x->is_paused &&
                  !x->is_refused && !x->is_ended);
}

/* Returns how much was used: everything, or up to where the handler has to act first. */
static size_t feed(struct conn *c, char *data, size_t len)
{
    size_t used = 0;

    if (c->is_feeding)
        return 0;
    c->is_feeding = true;
    while (used < len && can_feed(c)) {
        enum message_event event;
        struct err err;

        used += message_feed(&c->in, data + used, len - used, &event);
        if (c->in.body_len && event != MESSAGE_BAD)
            take_body(c, c->in.body, c->in.body_len);
        if (event == MESSAGE_HEAD) {
            begin_request(c);
        } else if (event == MESSAGE_END && c->x && !c->x->is_refused) {
            end_body(c);
        } else if (event == MESSAGE_BAD) {
            message_error(&c->in, &err);
            conn_refuse(c, &err);
        }
    }
    if (!c->x && c->wait == WAIT_REQUEST && message_has_begun(&c->in))
        set_wait(c, WAIT_HEAD);
    c->is_feeding = false;
    return used;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    struct conn *c = handle->data;

    (void)suggested;
    *ret_buf = uv_buf_init(c->server->read_buffer, READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    size_t used = 0;

    if (n == 0)
        return;
    if (n < 0) {
        c->is_gone = true;
        conn_wake(c);
        return;
    }
    if (c->wait == WAIT_LINGER)
        return;
    if (!c->held.len)
        used = feed(c, buf->base, (size_t)n);
    if (used < (size_t)n && !c->is_gone && !c->is_aborted)
        buf_append(&c->held, buf->base + used, (size_t)n - used);
    if (c->held.len > HELD_LIMIT && !can_feed(c)) {
        c->is_paused = true;
        uv_read_stop(stream);
    }
    if (c->held.len)
        conn_wake(c);
}

static void read_again(struct conn *c)
{
    if (!c->is_paused || c->is_closing)
        return;
    c->is_paused = false;
    uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

void conn_wants_body(struct conn *c)
{
    if (c->x->has_body_end)
        return;
    set_wait(c, c->x->is_paused ? WAIT_ANSWER : WAIT_BODY);
    conn_wake(c);
}

static void feed_held(struct conn *c)
{
    if (c->held.len && can_feed(c)) {
        buf_consume(&c->held, feed(c, c->held.data, c->held.len));
        if (!c->held.len)
            buf_release(&c->held);
        else if (can_feed(c))
            conn_wake(c);
    }
    if (c->held.len <= HELD_LIMIT)
        read_again(c);
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    struct http_server *s = c->server;

    message_release(&c->in);
    buf_release(&c->held);
    server_forget_conn(s, c);
    free(c);
}

/* What has ended must not look complete to a client that knows the end only by the connection's. */
void conn_close(struct conn *c)
{
    bool must_reset = c->is_aborted && c->x && c->x->is_until_close && !c->x->is_ended;

    if (c->is_closing)
        return;
    c->is_closing = true;
    if (c->x)
        finish_exchange(c, c->is_aborted ? HTTP_ABORTED : HTTP_CLIENT_GONE);
    turn_remove(&c->server->turn, &c->turn);
    outbox_release(&c->out);
    if (!must_reset || uv_tcp_close_reset(&c->tcp, on_closed))
        uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void on_shut_down(uv_shutdown_t *request, int status)
{
    (void)status;
    free(request);
}

static void linger(struct conn *c)
{
    uv_shutdown_t *request = mem_zalloc(sizeof(*request));

    buf_release(&c->held);
    set_wait(c, WAIT_LINGER);
    if (uv_shutdown(request, (uv_stream_t *)&c->tcp, on_shut_down)) {
        free(request);
        conn_close(c);
        return;
    }
    read_again(c);
}

void conn_timed_out(struct conn *c)
{
    struct err err;

    if (c->is_closing)
        return;
    switch (c->wait) {
    case WAIT_HEAD:
        err_set(&err, ERR_TIMEOUT,
                "The head of the request was not complete after %u seconds.",
                (c->server->options.limits.head_timeout_ms + 999) / 1000);
        conn_refuse(c, &err);
        break;
    case WAIT_BODY:
        err_set(&err, ERR_TIMEOUT, "Nothing came of the request's body for %u seconds.",
                (c->server->options.limits.idle_timeout_ms + 999) / 1000);
        conn_refuse(c, &err);
        break;
    default:
        conn_close(c);
    }
}

/* The answer is with the kernel. */
static void end_exchange(struct conn *c)
{
    struct http_exchange *x = c->x;
    bool goes_on = x->keeps_alive && x->has_body_end && c->server->state == SERVER_OPEN;
    bool is_clean = x->has_body_end && !c->held.len;

    finish_exchange(c, x->is_refused ? HTTP_ABORTED : HTTP_DONE);
    if (goes_on) {
        message_next(&c->in);
        set_wait(c, WAIT_REQUEST);
        conn_wake(c);
    } else if (is_clean) {
        conn_close(c);
    } else {
        linger(c);
    }
}

static void conn_turn(struct turn_item *item)
{
    struct conn *c = (struct conn *)((char *)item - offsetof(struct conn, turn));

    if (c->is_gone || c->is_aborted) {
        conn_close(c);
        return;
    }
    if (c->x && c->x->is_started && !c->x->has_sent_head)
        answer_flush_head(c->x);
    if (c->is_gone)
        conn_close(c);
    else if (c->x && c->x->is_ended && !outbox_size(&c->out))
        end_exchange(c);
    else
        feed_held(c);
}

static void on_out_drained(struct outbox *o)
{
    struct conn *c = (struct conn *)((char *)o - offsetof(struct conn, out));

    if (c->x && c->x->is_ended)
        conn_wake(c);
    else if (c->x && c->x->on_drain)
        c->x->on_drain(c->x, c->x->user);
}

static void on_out_failed(struct outbox *o)
{
    struct conn *c = (struct conn *)((char *)o - offsetof(struct conn, out));

    c->is_gone = true;
    conn_wake(c);
}

/* ---- the beginning ---- */

static void on_surplus_closed(uv_handle_t *handle)
{
    free(handle);
}

static void turn_away(struct http_server *s, uv_stream_t *listener)
{
    static char answer[] =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
        "content-length: 116\r\nconnection: close\r\n\r\n"
        "{\"error\":{\"message\":\"Too many connections are open.\","
        "\"type\":\"unavailable_error\",\"param\":null,\"code\":\"unavailable\"}}\n";
    uv_tcp_t *tcp = mem_zalloc(sizeof(*tcp));
    uv_buf_t buf = uv_buf_init(answer, sizeof(answer) - 1);

    uv_tcp_init(s->loop, tcp);
    if (!uv_accept(listener, (uv_stream_t *)tcp))
        uv_try_write((uv_stream_t *)tcp, &buf, 1);
    uv_close((uv_handle_t *)tcp, on_surplus_closed);
}

void conn_accept(struct http_server *s, uv_stream_t *listener)
{
    struct conn *c;

    if (s->conn_count >= s->options.limits.max_connections) {
        turn_away(s, listener);
        return;
    }
    c = mem_zalloc(sizeof(*c));
    c->server = s;
    c->tcp.data = c;
    c->turn.run = conn_turn;
    c->out.on_drained = on_out_drained;
    c->out.on_failed = on_out_failed;
    message_init(&c->in, MESSAGE_REQUEST, &s->head_limits);
    outbox_init(&c->out, (uv_stream_t *)&c->tcp);
    uv_tcp_init(s->loop, &c->tcp);
    c->next = s->conns;
    if (c->next)
        c->next->prev = c;
    s->conns = c;
    s->conn_count++;
    set_wait(c, WAIT_REQUEST);
    server_start_sweep(s);
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) ||
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read)) {
        conn_close(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
}

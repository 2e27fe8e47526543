/* client: calls to other processes.
 *
 * Life of a call: NEW -> CONNECTING -> SENT -> ANSWERED (its head came) -> OVER. A pooled connection skips
 * CONNECTING. Every way out goes through call_free() or, when one of its own callbacks is running, through
 * the end of call_take(): a handler may cancel its call from inside on_head, on_data or on_drain.
 *
 * Sent twice? A pooled connection may have been closed by its server at the very moment it was taken. When
 * such a connection ends before a byte of the answer, the call goes out once more on a fresh one, unless
 * pieces of a streamed body, which nobody keeps, are gone with it. If that one cannot connect, the failure
 * is still HTTP_BROKEN, not HTTP_UNREACHED: somebody may have begun to work on the first.
 *
 * An answer is taken as strictly as a request (message.c). 1xx heads are skipped. Bytes behind the end of
 * an answer make the connection unusable, not the call.
 *
 * Servers with a thread per connection (llama-server is one) hold that thread for an idle kept connection, for
 * seconds. When all its threads are held that way, a call on one more connection waits for nothing. So while a
 * call waits for its head longer than a moment, idle connections to the same port are closed.
 *
 * Limits in time are swept by one timer, which runs while there are calls or connections.
 */
#include "http/client_conn.h"

#include "base/mem.h"
#include "http/field.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void on_turn(struct turn_item *item);

/* ---- the client ---- */

static void on_sweep(uv_timer_t *timer);

struct http_client *http_client_new(uv_loop_t *loop)
{
    struct http_client *client = mem_zalloc(sizeof(*client));

    client->loop = loop;
    client->open_handles = 2;
    turn_init(&client->turn, loop);
    uv_timer_init(loop, &client->sweep);
    client->sweep.data = client;
    return client;
}

uv_loop_t *http_client_loop(const struct http_client *client)
{
    return client->loop;
}

void client_free_when_done(struct http_client *client)
{
    void (*on_closed)(void *user) = client->on_closed;
    void *user = client->on_closed_user;

    if (!client->is_closing || client->open_handles || client->conn_count)
        return;
    free(client->fields);
    free(client);
    if (on_closed)
        on_closed(user);
}

static void on_sweep_closed(uv_handle_t *handle)
{
    struct http_client *client = handle->data;

    client->open_handles--;
    client_free_when_done(client);
}

static void on_turn_closed(struct turn *turn)
{
    struct http_client *client =
        (struct http_client *)((char *)turn - offsetof(struct http_client, turn));

    client->open_handles--;
    client_free_when_done(client);
}

void http_client_close(struct http_client *client, void (*on_closed)(void *user),
                       void *user)
{
    struct http_call *next_call;
    struct client_conn *next;

    if (client->is_closing)
        return;
    client->is_closing = true;
    client->on_closed = on_closed;
    client->on_closed_user = user;
    for (struct http_call *call = client->calls; call; call = next_call) {
        next_call = call->next;
        http_call_cancel(call);
    }
    for (struct client_conn *c = client->idle; c; c = next) {
        next = c->next;
        client_conn_close(c);
    }
    uv_close((uv_handle_t *)&client->sweep, on_sweep_closed);
    turn_close(&client->turn, on_turn_closed);
}

/* ---- ends ---- */

static void call_free(struct http_call *call)
{
    turn_remove(&call->client->turn, &call->turn);
    buf_release(&call->head);
    buf_release(&call->early);
    buf_release(&call->held);
    free(call);
}

/* From here on nobody may call it back. */
static void call_over(struct http_call *call)
{
    if (call->state == CALL_OVER)
        return;
    call->state = CALL_OVER;
    *call->link = call->next;
    if (call->next)
        call->next->link = call->link;
    if (call->conn)
        client_conn_close(call->conn);
    if (!call->is_in_callback)
        call_free(call);
}

void http_call_cancel(struct http_call *call)
{
    if (call)
        call_over(call);
}

static void explain(const struct http_call *call, enum http_failure failure,
                    struct err *err)
{
    switch (failure) {
    case HTTP_UNREACHED:
        err_set(err, ERR_UNAVAILABLE, "Cannot reach %s port %d: %s.", call->host,
                call->port, uv_strerror(call->uv_error));
        break;
    case HTTP_BROKEN:
        err_set(err, ERR_BAD_GATEWAY,
                "The process on port %d closed the connection before its answer was "
                "complete.",
                call->port);
        break;
    case HTTP_MALFORMED:
        message_error(&call->conn->in, err);
        err->code = ERR_BAD_GATEWAY;
        err_wrap(err, "The process on port %d", call->port);
        break;
    case HTTP_SILENT:
        err_set(err, ERR_GATEWAY_TIMEOUT,
                "The process on port %d has not begun to answer within %g seconds.",
                call->port, call->first_byte_timeout_ms / 1000.0);
        break;
    }
}

static void call_fail(struct http_call *call, enum http_failure failure)
{
    const struct http_call_handlers *on = call->on;
    void *user = call->user;
    struct err err;

    explain(call, failure, &err);
    call_over(call);
    on->on_error(user, failure, &err);
}

/* The answer is complete; its connection is already given back or closed. */
static void call_end(struct http_call *call)
{
    const struct http_call_handlers *on = call->on;
    void *user = call->user;

    call_over(call);
    on->on_end(user);
}

static void fail_later(struct http_call *call, enum http_failure failure, int uv_error)
{
    call->has_failed = true;
    call->failure = failure;
    call->uv_error = uv_error;
    turn_add(&call->client->turn, &call->turn);
}

/* ---- sending ---- */

static void begin_waiting(struct http_call *call)
{
    call->deadline_ms = call->first_byte_timeout_ms
                            ? uv_now(call->client->loop) + call->first_byte_timeout_ms
                            : 0;
}

static void send_request(struct http_call *call)
{
    uv_buf_t parts[2] = {{.base = call->head.data, .len = call->head.len}, call->body};

    if (call->is_streamed) {
        parts[1] = (uv_buf_t){.base = call->early.data, .len = call->early.len};
        call->has_streamed = call->early.len > 0;
    }
    call->state = CALL_SENT;
    call->was_sent = true;
    call->sent_ms = uv_now(call->client->loop);
    call->deadline_ms = 0;
    if (!call->is_streamed || call->has_finished)
        begin_waiting(call);
    if (call->is_streamed)
        outbox_send(&call->conn->out, parts, parts[1].len ? 2 : 1);
    else
        outbox_send_lent(&call->conn->out, parts[0], parts[1]);
    buf_release(&call->early);
}

void call_connected(struct http_call *call)
{
    send_request(call);
}

static void find_connection(struct http_call *call, enum pool_choice choice)
{
    int r = pool_take(call, choice);

    if (r) {
        fail_later(call, call->was_sent ? HTTP_BROKEN : HTTP_UNREACHED, r);
        return;
    }
    if (call->conn->is_connected) {
        send_request(call);
        return;
    }
    call->state = CALL_CONNECTING;
    call->deadline_ms = uv_now(call->client->loop) + call->connect_timeout_ms;
}

static void write_head(struct http_call *call, const struct http_call_options *o)
{
    const char *method = o->method ? o->method : "GET";
    bool is_v6 = strchr(call->host, ':') != NULL;
    struct buf *b = &call->head;
    char number[FIELD_NUMBER_BYTES];

    buf_reserve(b, 500);
    buf_append_str(b, method);
    buf_append(b, " ", 1);
    buf_append_str(b, o->target);
    buf_append_str(b, " HTTP/1.1\r\nhost: ");
    buf_append_str(b, is_v6 ? "[" : "");
    buf_append_str(b, call->host);
    buf_append_str(b, is_v6 ? "]:" : ":");
    buf_append_str(b, field_number((unsigned)call->port, number));
    buf_append(b, "\r\n", 2);
    for (size_t i = 0; i < o->header_count; i++) {
        bool is_clean =
            field_is_token(o->headers[i].name) && field_is_clean(o->headers[i].value);

        assert(is_clean); /* and never let a line end through where asserts are off */
        if (!is_clean)
            continue;
        buf_append_str(b, o->headers[i].name);
        buf_append(b, ": ", 2);
        buf_append_str(b, o->headers[i].value);
        buf_append(b, "\r\n", 2);
    }
    if (call->is_streamed)
        buf_append_str(b, "transfer-encoding: chunked\r\n");
    else if (o->body_len || !strcmp(method, "POST") || !strcmp(method, "PUT") ||
             !strcmp(method, "PATCH")) {
        buf_append_str(b, "content-length: ");
        buf_append_str(b, field_number(o->body_len, number));
        buf_append(b, "\r\n", 2);
    }
    buf_append(b, "\r\n", 2);
}

struct http_call *http_call_start(struct http_client *client,
                                  const struct http_call_options *o)
{
    struct http_call *call = mem_zalloc(sizeof(*call));
    union {
        const void *constant;
        char *base;
    } body = {.constant = o->body}; /* uv_buf_t has no const */

    call->client = client;
    call->turn.run = on_turn;
    call->on = o->on;
    call->user = o->user;
    call->port = o->port;
    call->is_head = o->method && !strcmp(o->method, "HEAD");
    call->is_streamed = o->body_len == HTTP_BODY_STREAMED;
    call->connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : 5000;
    call->first_byte_timeout_ms = o->first_byte_timeout_ms;
    snprintf(call->host, sizeof(call->host), "%s",
             o->host && *o->host ? o->host : "127.0.0.1");
    if (!call->is_streamed)
        call->body = (uv_buf_t){.base = body.base, .len = o->body_len};
    write_head(call, o);
    call->next = client->calls;
    if (call->next)
        call->next->link = &call->next;
    call->link = &client->calls;
    client->calls = call;
    if (!client->is_sweeping) {
        client->is_sweeping = true;
        uv_timer_start(&client->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
        uv_unref((uv_handle_t *)&client->sweep);
    }
    find_connection(call, POOL_ANY);
    return call;
}

static void send_streamed(struct http_call *call, const uv_buf_t *parts, unsigned count)
{
    if (call->state == CALL_SENT || call->state == CALL_ANSWERED) {
        if (call->conn)
            outbox_send(&call->conn->out, parts, count);
        call->has_streamed = true;
        return;
    }
    for (unsigned i = 0; i < count; i++)
        buf_append(&call->early, parts[i].base, parts[i].len);
}

void http_call_write(struct http_call *call, const void *data, size_t len)
{
    union {
        const void *constant;
        char *base;
    } piece = {.constant = data};
    static char line_end[] = "\r\n";
    char size[24];
    uv_buf_t parts[3];

    assert(call->is_streamed && !call->has_finished);
    if (!len)
        return;
    parts[0] =
        uv_buf_init(size, (unsigned)snprintf(size, sizeof(size), "%zx\r\n", len));
    parts[1] = (uv_buf_t){.base = piece.base, .len = len};
    parts[2] = uv_buf_init(line_end, 2);
    send_streamed(call, parts, 3);
}

void http_call_finish(struct http_call *call)
{
    static char last[] = "0\r\n\r\n";
    uv_buf_t part = uv_buf_init(last, 5);

    assert(call->is_streamed && !call->has_finished);
    call->has_finished = true;
    send_streamed(call, &part, 1);
    if (call->state == CALL_SENT)
        begin_waiting(call);
}

size_t http_call_buffered(const struct http_call *call)
{
    return call->early.len + (call->conn ? outbox_size(&call->conn->out) : 0);
}

/* ---- the answer ---- */

const char *http_answer_field(const struct http_answer *a, const char *name)
{
    for (size_t i = 0; i < a->field_count; i++)
        if (field_same(a->fields[i].name, name))
            return a->fields[i].value;
    return NULL;
}

static void hand_out_head(struct http_call *call)
{
    struct http_client *client = call->client;
    struct message *in = &call->conn->in;
    struct http_answer head = {.status = in->parser.status_code, .length = in->length};

    if (client->field_cap < in->field_count) {
        client->field_cap = in->field_cap;
        client->fields =
            mem_realloc(client->fields, client->field_cap * sizeof(client->fields[0]));
    }
    for (size_t i = 0; i < in->field_count; i++)
        client->fields[i] = message_field_at(in, i);
    head.fields = client->fields;
    head.field_count = in->field_count;
    call->state = CALL_ANSWERED;
    call->deadline_ms = 0;
    buf_release(&call->head);
    call->on->on_head(call->user, &head);
}

/* Can the connection carry another call? */
static bool is_reusable(const struct http_call *call, size_t left)
{
    struct client_conn *c = call->conn;

    return c->in.keep_alive && !left && !outbox_size(&c->out) && !c->out.has_failed &&
           (!call->is_streamed || call->has_finished);
}

static void take_end(struct http_call *call, size_t left)
{
    if (is_reusable(call, left))
        pool_give_back(call->conn);
    else
        client_conn_close(call->conn);
    call->has_end = true;
}

/* Feeds until all is used, something ends, or the handler has paused or cancelled. Returns whether what
 * came was HTTP. */
static bool take_bytes(struct http_call *call, char *data, size_t len)
{
    enum message_event event;
    size_t used = 0;

    do {
        struct message *in = &call->conn->in;

        if (call->is_paused && (used < len || !in->has_head || in->has_body)) {
            buf_append(&call->held, data + used, len - used);
            return true;
        }
        used += message_feed(in, data + used, len - used, &event);
        if (event == MESSAGE_BAD)
            return false;
        if (event == MESSAGE_END) {
            size_t body_len = in->body_len;
            char *body = in->body;

            take_end(call, len - used);
            if (body_len)
                call->on->on_data(call->user, body, body_len);
            return true;
        }
        if (event == MESSAGE_HEAD && in->parser.status_code < 200) {
            message_next(in);
            in->is_head_answer = call->is_head;
        } else if (event == MESSAGE_HEAD) {
            hand_out_head(call);
        } else if (in->body_len) {
            call->on->on_data(call->user, in->body, in->body_len);
        }
    } while (call->state != CALL_OVER && event == MESSAGE_HEAD);
    return true;
}

void call_take(struct http_call *call, char *data, size_t len)
{
    bool is_good;

    call->is_in_callback = true;
    is_good = take_bytes(call, data, len);
    call->is_in_callback = false;
    if (call->state == CALL_OVER)
        call_free(call);
    else if (!is_good)
        call_fail(call, HTTP_MALFORMED);
    else if (call->has_end && !call->is_paused)
        call_end(call);
}

void call_lost(struct http_call *call, int uv_error)
{
    struct client_conn *c = call->conn;
    bool is_stale = c->was_used && call->state == CALL_SENT &&
                    !message_has_begun(&c->in) && !call->was_retried &&
                    !call->has_streamed;

    call->uv_error = uv_error;
    if (call->state == CALL_ANSWERED && message_eof(&c->in) == MESSAGE_END) {
        client_conn_close(c);
        call->has_end = true;
        if (!call->is_paused)
            call_end(call);
    } else if (is_stale) {
        call->was_retried = true;
        client_conn_close(c);
        find_connection(call, POOL_FRESH);
    } else {
        call_fail(call, call->was_sent ? HTTP_BROKEN : HTTP_UNREACHED);
    }
}

void http_call_pause(struct http_call *call)
{
    call->is_paused = true;
    if (call->conn)
        client_conn_pause(call->conn);
}

void http_call_resume(struct http_call *call)
{
    if (!call->is_paused)
        return;
    call->is_paused = false;
    if (call->has_end || call->held.len)
        turn_add(&call->client->turn, &call->turn);
    else if (call->conn)
        client_conn_resume(call->conn);
}

/* What could not be told where it happened. */
static void on_turn(struct turn_item *item)
{
    struct http_call *call =
        (struct http_call *)((char *)item - offsetof(struct http_call, turn));

    if (call->has_failed) {
        call_fail(call, call->failure);
    } else if (call->is_paused) {
        return;
    } else if (call->held.len) {
        struct buf held = call->held;

        call->held = (struct buf){0};
        client_conn_resume(call->conn);
        call_take(call, held.data, held.len);
        buf_release(&held);
    } else if (call->has_end) {
        call_end(call);
    }
}

static struct http_call *find_overdue(struct http_client *client, uint64_t now)
{
    for (struct http_call *call = client->calls; call; call = call->next)
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what has ended is not in the list */
        if (call->deadline_ms && now >= call->deadline_ms && !call->has_failed)
            return call;
    return NULL;
}

static void on_sweep(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    uint64_t now = uv_now(client->loop);
    struct http_call *call;

    pool_sweep(client, now);
    for (call = client->calls; call; call = call->next)
        if (call->state == CALL_SENT && now - call->sent_ms > CROWDED_MS)
            http_client_forget(client, call->host, call->port);
    /* Look anew after each: its handler may have cancelled others. */
    while ((call = find_overdue(client, now))) {
        call->uv_error = UV_ETIMEDOUT;
        call_fail(call, call->state == CALL_SENT ? HTTP_SILENT : HTTP_UNREACHED);
    }
    if (!client->calls && !client->conn_count) {
        uv_timer_stop(timer);
        client->is_sweeping = false;
    }
}

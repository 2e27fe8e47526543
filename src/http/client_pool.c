/* client_pool: the client's connections, busy and idle.
 *
 * An idle connection stays in the read set: its server closing it (a worker that died, a keep-alive limit)
 * is seen at once and answered by closing, so that none is left in CLOSE_WAIT; so is one that says
 * something without being asked. The one used last is taken first, so that surplus ones grow old and are
 * closed after a minute.
 */
#include "http/client_conn.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static const struct message_limits answer_limits = {.head_bytes = 64 * 1024,
                                                    .header_count = 200};

static struct client_conn **list_of(struct client_conn *c)
{
    return c->is_idle ? &c->client->idle : &c->client->busy;
}

static void link_conn(struct client_conn *c)
{
    struct client_conn **list = list_of(c);

    c->prev = NULL;
    c->next = *list;
    if (c->next)
        c->next->prev = c;
    *list = c;
    c->client->idle_count += c->is_idle;
}

static void unlink_conn(struct client_conn *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        *list_of(c) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->client->idle_count -= c->is_idle;
}

static void set_idle(struct client_conn *c, bool is_idle)
{
    unlink_conn(c);
    c->is_idle = is_idle;
    link_conn(c);
}

static void on_closed(uv_handle_t *handle)
{
    struct client_conn *c = handle->data;
    struct http_client *client = c->client;

    unlink_conn(c);
    client->conn_count--;
    message_release(&c->in);
    free(c);
    client_free_when_done(client);
}

void client_conn_close(struct client_conn *c)
{
    if (c->is_closing)
        return;
    c->is_closing = true;
    if (c->call)
        c->call->conn = NULL;
    c->call = NULL;
    if (c->is_idle)
        set_idle(c, false);
    outbox_release(&c->out);
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    struct client_conn *c = handle->data;

    (void)suggested;
    *ret_buf = uv_buf_init(c->client->read_buffer, CLIENT_READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client_conn *c = stream->data;

    if (n == 0)
        return;
    if (!c->call)
        client_conn_close(c); /* idle, and closed or talking out of turn */
    else if (n < 0)
        call_lost(c->call, (int)n);
    else
        call_take(c->call, buf->base, (size_t)n);
}

void client_conn_pause(struct client_conn *c)
{
    if (c->is_paused || c->is_closing || !c->is_connected)
        return;
    c->is_paused = true;
    uv_read_stop((uv_stream_t *)&c->tcp);
}

void client_conn_resume(struct client_conn *c)
{
    if (!c->is_paused || c->is_closing)
        return;
    c->is_paused = false;
    uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct client_conn *c = request->data;

    if (c->is_closing)
        return;
    if (!status)
        status = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    if (status) {
        call_lost(c->call, status);
        return;
    }
    c->is_connected = true;
    uv_tcp_nodelay(&c->tcp, 1);
    call_connected(c->call);
}

static void on_out_drained(struct outbox *o)
{
    struct client_conn *c =
        (struct client_conn *)((char *)o - offsetof(struct client_conn, out));

    if (c->call && c->call->is_streamed && c->call->on->on_drain)
        c->call->on->on_drain(c->call->user);
}

/* Nothing to do: an answer may have come before the connection broke, and the reading side, which is
 * always watched, finds out. */
static void on_out_failed(struct outbox *o)
{
    (void)o;
}

static struct client_conn *find_idle(struct http_call *call)
{
    for (struct client_conn *c = call->client->idle; c; c = c->next)
        if (c->port == call->port && !strcmp(c->host, call->host))
            return c;
    return NULL;
}

static void bind_call(struct client_conn *c, struct http_call *call)
{
    c->call = call;
    call->conn = c;
    if (c->was_used)
        message_next(&c->in);
    c->in.is_head_answer = call->is_head;
}

static int connect_new(struct http_call *call, const struct sockaddr *address)
{
    struct http_client *client = call->client;
    struct client_conn *c = mem_zalloc(sizeof(*c));
    int r;

    c->client = client;
    c->tcp.data = c;
    c->connect.data = c;
    c->out.on_drained = on_out_drained;
    c->out.on_failed = on_out_failed;
    c->port = call->port;
    memcpy(c->host, call->host, sizeof(c->host));
    message_init(&c->in, MESSAGE_ANSWER, &answer_limits);
    outbox_init(&c->out, (uv_stream_t *)&c->tcp);
    uv_tcp_init(client->loop, &c->tcp);
    client->conn_count++;
    link_conn(c);
    bind_call(c, call);
    r = uv_tcp_connect(&c->connect, &c->tcp, address, on_connected);
    if (r)
        client_conn_close(c);
    return r;
}

int pool_take(struct http_call *call, enum pool_choice choice)
{
    struct client_conn *c = choice == POOL_ANY ? find_idle(call) : NULL;
    struct sockaddr_storage address;
    int r;

    if (c) {
        set_idle(c, false);
        bind_call(c, call);
        return 0;
    }
    r = uv_ip4_addr(call->host, call->port, (struct sockaddr_in *)&address);
    if (r)
        r = uv_ip6_addr(call->host, call->port, (struct sockaddr_in6 *)&address);
    return r ? r : connect_new(call, (struct sockaddr *)&address);
}

void pool_give_back(struct client_conn *c)
{
    if (c->client->is_closing || c->client->idle_count >= IDLE_LIMIT) {
        client_conn_close(c);
        return;
    }
    c->call->conn = NULL;
    c->call = NULL;
    c->was_used = true;
    c->idle_since_ms = uv_now(c->client->loop);
    set_idle(c, true);
    client_conn_resume(c);
}

void pool_sweep(struct http_client *client, uint64_t now)
{
    struct client_conn *next;

    for (struct client_conn *c = client->idle; c; c = next) {
        next = c->next;
        if (now - c->idle_since_ms >= IDLE_MS)
            client_conn_close(c);
    }
}

void http_client_forget(struct http_client *client, const char *host, int port)
{
    struct client_conn *next;

    for (struct client_conn *c = client->idle; c; c = next) {
        next = c->next;
        if (c->port == port && !strcmp(c->host, host ? host : "127.0.0.1"))
            client_conn_close(c);
    }
}

size_t http_client_connections(const struct http_client *client)
{
    return client->conn_count;
}

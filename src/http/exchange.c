/* exchange: a request as its handler sees it. The texts live in the connection's message, which stays as
 * it is until the exchange is over; what has to be decoded on the way is kept in a list and freed with
 * the exchange. */
#include "http/conn.h"

#include "base/mem.h"
#include "http/field.h"

#include <stdlib.h>
#include <string.h>

static const char *text_at(const struct http_exchange *x, uint32_t offset)
{
    return x->conn->in.text.data ? x->conn->in.text.data + offset : "";
}

const char *http_method(const struct http_exchange *x)
{
    if (!x->conn->in.has_head)
        return "";
    return llhttp_method_name((llhttp_method_t)x->conn->in.parser.method);
}

/* A refused head may have been cut anywhere: nothing of it is shown then. */
static bool has_whole_head(const struct http_exchange *x)
{
    return x->conn->in.has_head && x->conn->in.path;
}

const char *http_path(const struct http_exchange *x)
{
    return has_whole_head(x) ? text_at(x, x->conn->in.path) : "";
}

const char *http_target(const struct http_exchange *x)
{
    return has_whole_head(x) ? text_at(x, 0) : "";
}

const char *http_query(const struct http_exchange *x)
{
    return has_whole_head(x) ? text_at(x, x->conn->in.query) : "";
}

static const char *keep_decoded(struct http_exchange *x, const char *s, size_t len)
{
    struct decoded *d = mem_alloc(sizeof(*d) + len + 1);

    memcpy(d->text, s, len);
    d->text[len] = '\0';
    for (char *p = d->text; *p; p++)
        if (*p == '+')
            *p = ' ';
    if (field_percent_decode(d->text, len, d->text) < 0) {
        memcpy(d->text, s, len); /* broken escapes are taken as they came */
        d->text[len] = '\0';
    }
    d->next = x->decoded;
    x->decoded = d;
    return d->text;
}

const char *http_query_get(struct http_exchange *x, const char *name)
{
    const char *p = http_query(x);
    size_t want = strlen(name);

    while (*p) {
        size_t len = strcspn(p, "&"), key = strcspn(p, "=&");

        if (key == want && !strncmp(p, name, key)) {
            const char *value = key < len ? p + key + 1 : p + key;

            return keep_decoded(x, value, (size_t)(p + len - value));
        }
        p += len;
        p += *p == '&';
    }
    return NULL;
}

const char *http_header(const struct http_exchange *x, const char *name)
{
    return has_whole_head(x) ? message_field_get(&x->conn->in, name) : NULL;
}

size_t http_header_count(const struct http_exchange *x)
{
    return has_whole_head(x) ? x->conn->in.field_count : 0;
}

struct http_field http_header_at(const struct http_exchange *x, size_t i)
{
    return message_field_at(&x->conn->in, i);
}

static bool is_plain_id(const char *id)
{
    size_t len = strlen(id);

    return len > 0 && len < REQUEST_ID_BYTES &&
           strspn(
               id,
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               len;
}

/* "req_" and 16 hexadecimal digits: the server's own, then counting. */
static void make_id(struct http_server *s, char *id)
{
    uint64_t n = (uint64_t)s->id_prefix << 32 | (uint32_t)++s->next_request;

    memcpy(id, "req_", 4);
    for (int i = 19; i >= 4; i--, n >>= 4)
        id[i] = "0123456789abcdef"[n & 15];
    id[20] = '\0';
}

const char *http_request_id(const struct http_exchange *x)
{
    struct http_server *s = x->conn->server;
    char *id =
        x->conn->x->request_id; /* x, writable: the id is made when first asked for */
    const char *given;

    if (*id)
        return id;
    given = http_header(x, "x-request-id");
    if (given && is_plain_id(given))
        memcpy(id, given, strlen(given) + 1);
    else
        make_id(s, id);
    return id;
}

const char *http_peer(const struct http_exchange *x)
{
    struct conn *c = x->conn;
    struct sockaddr_storage address;
    int len = sizeof(address);

    if (*c->peer || uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&address, &len))
        return c->peer;
    if (address.ss_family == AF_INET6)
        uv_ip6_name((struct sockaddr_in6 *)&address, c->peer, sizeof(c->peer));
    else
        uv_ip4_name((struct sockaddr_in *)&address, c->peer, sizeof(c->peer));
    return c->peer;
}

uv_loop_t *http_loop(const struct http_exchange *x)
{
    return x->conn->server->loop;
}

void http_set_user(struct http_exchange *x, void *user, http_on_close_fn *on_close)
{
    x->user = user;
    x->on_close = on_close;
}

void *http_user(const struct http_exchange *x)
{
    return x->user;
}

void http_abort(struct http_exchange *x)
{
    if (exchange_is_over(x))
        return;
    x->conn->is_aborted = true;
    conn_wake(x->conn);
}

/* ---- the body ---- */

int64_t http_content_length(const struct http_exchange *x)
{
    return x->conn->in.length;
}

/* Somebody may be waiting for leave to send it. */
static void send_continue(struct http_exchange *x)
{
    static char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    uv_buf_t buf = uv_buf_init(text, sizeof(text) - 1);

    if (!x->conn->in.expects_continue || x->body_bytes || x->conn->held.len ||
        x->is_started)
        return;
    x->conn->in.expects_continue = false;
    outbox_send(&x->conn->out, &buf, 1);
}

static void ask_body(struct http_exchange *x, enum body_mode mode, size_t max_bytes,
                     http_on_body_fn *on_body)
{
    size_t limit = x->conn->server->options.limits.body_bytes;

    if (exchange_is_over(x) || x->mode != BODY_UNASKED)
        return;
    x->mode = mode;
    x->on_body = on_body;
    x->body_limit = max_bytes && max_bytes < limit ? max_bytes : limit;
    if (x->has_body_end) {
        on_body(x, x->user, "", 0);
        return;
    }
    send_continue(x);
    conn_wants_body(x->conn);
}

void http_collect_body(struct http_exchange *x, size_t max_bytes,
                       http_on_body_fn *on_body)
{
    ask_body(x, BODY_COLLECT, max_bytes, on_body);
}

const char *http_body(const struct http_exchange *x, size_t *ret_len)
{
    if (x->mode != BODY_COLLECT || !x->has_body_end || x->is_refused)
        return NULL;
    *ret_len = x->body.len;
    return buf_str(&x->body);
}

void http_read_body(struct http_exchange *x, http_on_body_fn *on_piece)
{
    ask_body(x, BODY_PIECES, 0, on_piece);
}

void http_pause_body(struct http_exchange *x)
{
    if (exchange_is_over(x))
        return;
    x->is_paused = true;
    if (x->mode != BODY_UNASKED)
        conn_wants_body(x->conn);
}

void http_resume_body(struct http_exchange *x)
{
    if (exchange_is_over(x))
        return;
    x->is_paused = false;
    if (x->mode != BODY_UNASKED)
        conn_wants_body(x->conn);
}

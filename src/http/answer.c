/* answer: what goes back to the client.
 *
 * An answer is a status line, fields as text, and pieces. The head is not sent when http_start() is called
 * but with the first piece, in one system call; when no piece comes in this turn of the loop,
 * conn_turn() sends it alone. Every piece is one writev of parts that lie where they are: status line,
 * fields, chunk size, the caller's bytes, line end. Nothing is copied while the kernel keeps up.
 *
 * Framing: a known length gives Content-Length, otherwise chunks; a client that speaks HTTP/1.0 gets the
 * bare bytes and the end of the connection. An answer that ends short of its length is cut, so that the
 * client can tell.
 *
 * Every answer carries x-request-id and date. Fields that a handler sets come first, in its order.
 */
#include "http/conn.h"

#include "base/clock.h"
#include "http/field.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STATUS_LINE_BYTES = 64, CHUNK_HEAD_BYTES = 24, PARTS = 6 };

static const char *phrase_of(int status)
{
    static const struct {
        int status;
        const char *phrase;
    } known[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].status == status)
            return known[i].phrase;
    return "Unknown";
}

static const char *date_now(struct http_server *s)
{
    time_t now = clock_unix();
    struct tm tm;

    if (now != s->date_second) {
        gmtime_r(&now, &tm);
        strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_second = now;
    }
    return s->date;
}

static void add_field(struct buf *b, const char *name, const char *value)
{
    buf_append_str(b, name);
    buf_append(b, ": ", 2);
    buf_append_str(b, value);
    buf_append(b, "\r\n", 2);
}

void http_set_header(struct http_exchange *x, const char *name, const char *value)
{
    bool is_clean = field_is_token(name) && field_is_clean(value);

    assert(is_clean); /* and never let a line end through where asserts are off */
    if (is_clean && !x->is_started && !exchange_is_over(x))
        add_field(&x->fields, name, value);
}

static bool has_no_body(int status)
{
    return status < 200 || status == 204 || status == 304;
}

static void add_framing(struct http_exchange *x)
{
    bool is_old = x->conn->in.parser.http_minor == 0;
    char number[FIELD_NUMBER_BYTES];

    if (x->length >= 0 && !(has_no_body(x->status) && x->length == 0)) {
        add_field(&x->fields, "content-length",
                  field_number((uint64_t)x->length, number));
    } else if (x->length < 0 && !has_no_body(x->status)) {
        x->is_until_close = is_old;
        if (is_old)
            x->keeps_alive = false;
        else
            add_field(&x->fields, "transfer-encoding", "chunked");
    }
    if (!x->has_body_end && x->mode == BODY_UNASKED)
        x->keeps_alive = false; /* the rest of the request is not worth reading */
    if (!x->keeps_alive)
        add_field(&x->fields, "connection", "close");
    else if (is_old)
        add_field(&x->fields, "connection", "keep-alive");
}

void http_start(struct http_exchange *x, int status, const char *content_type,
                int64_t length)
{
    assert(status >= 200 && status < 600);
    if (x->is_started || exchange_is_over(x))
        return;
    x->is_started = true;
    x->status = status;
    x->length = length;
    buf_reserve(&x->fields, 200);
    if (content_type)
        add_field(&x->fields, "content-type", content_type);
    add_field(&x->fields, "x-request-id", http_request_id(x));
    add_field(&x->fields, "date", date_now(x->conn->server));
    add_framing(x);
    buf_append(&x->fields, "\r\n", 2);
    conn_wake(x->conn);
}

bool http_started(const struct http_exchange *x)
{
    return x->is_started;
}

/* ---- pieces ---- */

struct piece {
    uv_buf_t parts[PARTS];
    unsigned count;
    char status_line[STATUS_LINE_BYTES];
    char chunk_head[CHUNK_HEAD_BYTES];
};

static void add_part(struct piece *p, const void *data, size_t len)
{
    union {
        const void *constant;
        char *base;
    } as = {.constant = data}; /* uv_buf_t has no const */

    p->parts[p->count++] = (uv_buf_t){.base = as.base, .len = len};
}

static void add_head(struct piece *p, struct http_exchange *x)
{
    int n;

    if (x->has_sent_head)
        return;
    x->has_sent_head = true;
    if (x->status == 200) {
        add_part(p, "HTTP/1.1 200 OK\r\n", 17);
        add_part(p, x->fields.data, x->fields.len);
        return;
    }
    n = snprintf(p->status_line, sizeof(p->status_line), "HTTP/1.1 %d %s\r\n",
                 x->status, phrase_of(x->status));
    add_part(p, p->status_line, (size_t)n);
    add_part(p, x->fields.data, x->fields.len);
}

static void send_piece(struct http_exchange *x, struct piece *p)
{
    bool had_fields = x->fields.data && x->has_sent_head;

    if (p->count)
        outbox_send(&x->conn->out, p->parts, p->count);
    if (had_fields)
        buf_release(&x->fields);
}

static bool is_chunked(const struct http_exchange *x)
{
    return x->length < 0 && !x->is_until_close && !has_no_body(x->status);
}

void answer_flush_head(struct http_exchange *x)
{
    struct piece p = {.count = 0};

    add_head(&p, x);
    send_piece(x, &p);
}

static void add_chunk_head(struct piece *p, size_t len)
{
    char *end = p->chunk_head + sizeof(p->chunk_head), *at = end;

    *--at = '\n';
    *--at = '\r';
    do
        *--at = "0123456789abcdef"[len & 15];
    while (len >>= 4);
    add_part(p, at, (size_t)(end - at));
}

void http_write(struct http_exchange *x, const void *data, size_t len)
{
    struct piece p;

    assert(x->is_started || exchange_is_over(x));
    if (exchange_is_over(x) || !len)
        return;
    x->sent_bytes += len;
    if (x->is_head || has_no_body(x->status))
        return;
    if (x->length >= 0 && x->sent_bytes > (uint64_t)x->length) {
        http_abort(
            x); /* more than was promised: the connection cannot be used any more */
        return;
    }
    p.count = 0;
    add_head(&p, x);
    if (is_chunked(x))
        add_chunk_head(&p, len);
    add_part(&p, data, len);
    if (is_chunked(x))
        add_part(&p, "\r\n", 2);
    send_piece(x, &p);
}

void http_end(struct http_exchange *x)
{
    struct piece p = {.count = 0};

    assert(x->is_started || exchange_is_over(x));
    if (exchange_is_over(x))
        return;
    if (!x->is_head && !has_no_body(x->status)) {
        if (x->length >= 0 && x->sent_bytes != (uint64_t)x->length) {
            http_abort(x);
            return;
        }
        add_head(&p, x);
        if (is_chunked(x))
            add_part(&p, "0\r\n\r\n", 5);
    } else {
        add_head(&p, x);
    }
    send_piece(x, &p);
    x->is_ended = true;
    conn_wake(x->conn);
}

size_t http_buffered(const struct http_exchange *x)
{
    return outbox_size(&x->conn->out);
}

void http_on_drain(struct http_exchange *x, http_on_drain_fn *on_drain)
{
    x->on_drain = on_drain;
}

/* ---- whole answers ---- */

void http_respond(struct http_exchange *x, int status, const char *content_type,
                  const void *data, size_t len)
{
    if (x->is_started)
        return;
    http_start(x, status, content_type, (int64_t)len);
    http_write(x, data, len);
    http_end(x);
}

void http_respond_text(struct http_exchange *x, int status, const char *text)
{
    http_respond(x, status, "text/plain; charset=utf-8", text, strlen(text));
}

void http_respond_json(struct http_exchange *x, int status, json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);

    json_decref(body);
    if (text)
        http_respond(x, status, "application/json", text, strlen(text));
    else
        http_respond_error(x, ERR_INTERNAL, NULL,
                           "The answer cannot be written as JSON: something in it is "
                           "not UTF-8.");
    free(text);
}

json_t *http_error_json(const struct err *err)
{
    json_t *param = *err->param ? json_string(err->param) : json_null();
    json_t *message = json_string(err->message);

    if (!message) /* not UTF-8: a client's bytes found their way into the sentence */
        message = json_string("The request has bytes that are not UTF-8.");
    if (!param)
        param = json_null();
    return json_pack("{s:{s:o,s:s,s:o,s:s}}", "error", "message", message, "type",
                     err_type(err->code), "param", param, "code", err_slug(err->code));
}

void http_respond_err(struct http_exchange *x, const struct err *err)
{
    if (!x->is_started) {
        http_respond_json(x, err_http_status(err->code), http_error_json(err));
    } else if (x->is_sse && !exchange_is_over(x)) {
        http_sse_json(x, NULL, http_error_json(err));
        http_end(x);
    } else {
        http_abort(x);
    }
}

void http_respond_error(struct http_exchange *x, enum err_code code, const char *param,
                        const char *format, ...)
{
    struct err err = {.code = code};
    va_list args;

    va_start(args, format);
    vsnprintf(err.message, sizeof(err.message), format, args);
    va_end(args);
    if (param)
        snprintf(err.param, sizeof(err.param), "%s", param);
    http_respond_err(x, &err);
}

#include "http/conn.h"

#include <stdlib.h>
#include <string.h>

void http_sse_start(struct http_exchange *x)
{
    if (x->is_started || exchange_is_over(x))
        return;
    http_set_header(x, "cache-control", "no-cache");
    http_set_header(x, "x-accel-buffering", "no"); /* nginx holds streams back */
    http_start(x, 200, "text/event-stream", HTTP_CHUNKED);
    x->is_sse = true;
}

bool http_sse_started(const struct http_exchange *x)
{
    return x->is_sse;
}

/* One field per line; a line ends at CR, LF or CRLF (the format knows all three). */
static void add_lines(struct buf *b, const char *field, const char *text)
{
    do {
        size_t len = strcspn(text, "\r\n");

        buf_append_str(b, field);
        buf_append(b, ": ", 2);
        buf_append(b, text, len);
        buf_append(b, "\n", 1);
        text += len;
        if (*text == '\r')
            text++;
        if (*text == '\n')
            text++;
    } while (*text);
}

static void send_scratch(struct http_exchange *x, struct buf *b)
{
    buf_append(b, "\n", 1);
    http_write(x, b->data, b->len);
    if (b->cap > 64 * 1024)
        buf_release(b);
    else
        buf_clear(b);
}

void http_sse_event(struct http_exchange *x, const char *name, const char *data)
{
    http_sse_event_with_id(x, NULL, name, data);
}

void http_sse_event_with_id(struct http_exchange *x, const char *id, const char *name,
                            const char *data)
{
    struct buf *b = &x->conn->server->scratch;

    if (exchange_is_over(x))
        return;
    if (id)
        add_lines(b, "id", id);
    if (name)
        add_lines(b, "event", name);
    add_lines(b, "data", data);
    send_scratch(x, b);
}

void http_sse_json(struct http_exchange *x, const char *name, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY);

    json_decref(data);
    if (text)
        http_sse_event(x, name, text);
    free(text);
}

void http_sse_comment(struct http_exchange *x, const char *text)
{
    struct buf *b = &x->conn->server->scratch;

    if (exchange_is_over(x))
        return;
    add_lines(b, "", text);
    send_scratch(x, b);
}

#include "http/client.h"

#include "base/buf.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct http_fetch {
    struct http_call *call;
    uv_timer_t timer;
    http_on_fetched_fn *on_done; /* NULL once told or cancelled */
    void *user;
    char *body;
    struct buf answer;
    size_t max_bytes;
    unsigned timeout_ms;
    int status, port;
};

static void on_timer_closed(uv_handle_t *handle)
{
    struct http_fetch *f = handle->data;

    buf_release(&f->answer);
    free(f->body);
    free(f);
}

static void finish(struct http_fetch *f, const struct err *err)
{
    http_on_fetched_fn *on_done = f->on_done;

    if (!on_done)
        return;
    f->on_done = NULL;
    uv_close((uv_handle_t *)&f->timer, on_timer_closed);
    on_done(f->user, err, err ? 0 : f->status, buf_str(&f->answer), f->answer.len);
}

static void on_head(void *user, const struct http_answer *head)
{
    struct http_fetch *f = user;

    f->status = head->status;
}

static void on_data(void *user, const char *data, size_t len)
{
    struct http_fetch *f = user;
    struct err err;

    if (f->answer.len + len <= f->max_bytes) {
        buf_append(&f->answer, data, len);
        return;
    }
    http_call_cancel(f->call);
    err_set(&err, ERR_TOO_LARGE, "The answer of port %d is larger than %zu bytes.",
            f->port, f->max_bytes);
    finish(f, &err);
}

static void on_end(void *user)
{
    finish(user, NULL);
}

static void on_error(void *user, enum http_failure failure, const struct err *err)
{
    (void)failure;
    finish(user, err);
}

static void on_timeout(uv_timer_t *timer)
{
    struct http_fetch *f = timer->data;
    struct err err;

    http_call_cancel(f->call);
    err_set(&err, ERR_GATEWAY_TIMEOUT, "Port %d has not answered within %g seconds.",
            f->port, f->timeout_ms / 1000.0);
    finish(f, &err);
}

static const struct http_call_handlers handlers = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end, .on_error = on_error};

struct http_fetch *http_fetch_start(struct http_client *client,
                                    const struct http_fetch_options *o,
                                    http_on_fetched_fn *on_done, void *user)
{
    struct http_fetch *f = mem_zalloc(sizeof(*f));
    char *bearer = o->bearer ? mem_printf("Bearer %s", o->bearer) : NULL;
    struct http_field fields[2];
    struct http_call_options call = {.host = o->host,
                                     .port = o->port,
                                     .method = o->method,
                                     .target = o->target,
                                     .headers = fields,
                                     .on = &handlers,
                                     .user = f};

    f->on_done = on_done;
    f->user = user;
    f->port = o->port;
    f->timeout_ms = o->timeout_ms;
    f->max_bytes = o->max_bytes ? o->max_bytes : 1024 * 1024;
    if (bearer)
        fields[call.header_count++] = (struct http_field){"authorization", bearer};
    if (o->body) {
        f->body = mem_alloc(o->body_len + 1);
        memcpy(f->body, o->body, o->body_len);
        call.body = f->body;
        call.body_len = o->body_len;
        fields[call.header_count++] = (struct http_field){
            "content-type", o->content_type ? o->content_type : "application/json"};
    }
    uv_timer_init(http_client_loop(client), &f->timer);
    f->timer.data = f;
    if (o->timeout_ms)
        uv_timer_start(&f->timer, on_timeout, o->timeout_ms, 0);
    f->call = http_call_start(client, &call);
    free(bearer);
    return f;
}

void http_fetch_cancel(struct http_fetch *f)
{
    if (!f || !f->on_done)
        return;
    f->on_done = NULL;
    http_call_cancel(f->call);
    uv_close((uv_handle_t *)&f->timer, on_timer_closed);
}

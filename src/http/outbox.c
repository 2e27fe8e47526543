#include "http/outbox.h"

#include "base/mem.h"

#include <stdlib.h>

/* Lives until libuv calls back, which may be after its outbox is gone. */
struct outbox_write {
    uv_write_t request;
    struct outbox *owner; /* NULL once released */
    struct buf bytes;
};

static void send_waiting(struct outbox *o);

void outbox_init(struct outbox *o, uv_stream_t *stream)
{
    o->stream = stream;
}

static void fail(struct outbox *o)
{
    if (o->has_failed)
        return;
    o->has_failed = true;
    buf_release(&o->waiting);
    o->on_failed(o);
}

static void on_written(uv_write_t *request, int status)
{
    struct outbox_write *w = (struct outbox_write *)request;
    struct outbox *o = w->owner;

    buf_release(&w->bytes);
    free(w);
    if (!o)
        return;
    o->on = NULL;
    if (status < 0)
        fail(o);
    else if (o->waiting.len)
        send_waiting(o);
    else
        o->on_drained(o);
}

static void send_waiting(struct outbox *o)
{
    struct outbox_write *w = mem_zalloc(sizeof(*w));
    uv_buf_t buf;

    w->owner = o;
    w->bytes = o->waiting;
    o->waiting = (struct buf){0};
    buf = uv_buf_init(w->bytes.data, (unsigned)w->bytes.len);
    if (uv_write(&w->request, o->stream, &buf, 1, on_written)) {
        buf_release(&w->bytes);
        free(w);
        fail(o);
        return;
    }
    o->on = w;
}

void outbox_send(struct outbox *o, const uv_buf_t *bufs, unsigned count)
{
    size_t sent = 0;
    int n;

    if (o->has_failed)
        return;
    if (!o->on && !o->waiting.len) {
        n = uv_try_write(o->stream, bufs, count);
        if (n < 0 && n != UV_EAGAIN) {
            fail(o);
            return;
        }
        sent = n > 0 ? (size_t)n : 0;
    }
    for (unsigned i = 0; i < count; i++) {
        if (sent >= bufs[i].len) {
            sent -= bufs[i].len;
            continue;
        }
        buf_append(&o->waiting, bufs[i].base + sent, bufs[i].len - sent);
        sent = 0;
    }
    if (o->waiting.len && !o->on)
        send_waiting(o);
}

size_t outbox_size(const struct outbox *o)
{
    return o->waiting.len + (o->on ? o->on->bytes.len : 0);
}

void outbox_release(struct outbox *o)
{
    if (o->on)
        o->on->owner = NULL;
    o->on = NULL;
    buf_release(&o->waiting);
}

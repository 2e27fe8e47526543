#include "http/outbox.h"

#include "base/mem.h"

#include <stdlib.h>

/* Lives until libuv calls back, which may be after its outbox is gone. */
struct outbox_write {
    uv_write_t request;
    struct outbox *owner; /* NULL once released */
    struct buf bytes;
    size_t lent; /* bytes that are not ours */
};

enum { LENT_BYTES = 64 * 1024 }; /* less is copied */

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

/* All that waits, then what is lent. */
static void write_out(struct outbox *o, uv_buf_t lent)
{
    struct outbox_write *w = mem_zalloc(sizeof(*w));
    uv_buf_t bufs[2];

    w->owner = o;
    w->bytes = o->waiting;
    w->lent = lent.len;
    o->waiting = (struct buf){0};
    bufs[0] = (uv_buf_t){.base = w->bytes.data, .len = w->bytes.len};
    bufs[1] = lent;
    if (uv_write(&w->request, o->stream, bufs[0].len ? bufs : bufs + 1,
                 bufs[0].len && lent.len ? 2 : 1, on_written)) {
        buf_release(&w->bytes);
        free(w);
        fail(o);
        return;
    }
    o->on = w;
}

static void send_waiting(struct outbox *o)
{
    write_out(o, (uv_buf_t){.len = 0});
}

void outbox_send_lent(struct outbox *o, uv_buf_t head, uv_buf_t body)
{
    uv_buf_t parts[2] = {head, body};
    size_t sent;
    int n;

    if (body.len < LENT_BYTES || o->on || o->waiting.len || o->has_failed) {
        outbox_send(o, parts, body.len ? 2 : 1);
        return;
    }
    n = uv_try_write(o->stream, parts, 2);
    if (n < 0 && n != UV_EAGAIN) {
        fail(o);
        return;
    }
    sent = n > 0 ? (size_t)n : 0;
    if (sent < head.len) {
        buf_append(&o->waiting, head.base + sent, head.len - sent);
        sent = head.len;
    }
    body.base += sent - head.len;
    body.len -= sent - head.len;
    if (o->waiting.len || body.len)
        write_out(o, body);
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
    return o->waiting.len + (o->on ? o->on->bytes.len + o->on->lent : 0);
}

void outbox_release(struct outbox *o)
{
    if (o->on)
        o->on->owner = NULL;
    o->on = NULL;
    buf_release(&o->waiting);
}

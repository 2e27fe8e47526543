/* outbox: what is to be sent on a socket. Bytes go to the kernel at once as far as it takes them; the
 * rest is copied and follows when there is room. Costs no memory while the kernel keeps up. */
#ifndef MYSTI_HTTP_OUTBOX_H
#define MYSTI_HTTP_OUTBOX_H

#include "base/buf.h"

#include <stdbool.h>
#include <uv.h>

struct outbox {
    uv_stream_t *stream;
    struct buf waiting;      /* not yet given to libuv */
    struct outbox_write *on; /* with libuv; NULL when nothing is */
    bool has_failed;
    /* Both are called from the loop, or on_failed from inside outbox_send: only note it there. */
    void (*on_drained)(struct outbox *o);
    void (*on_failed)(struct outbox *o);
};

void outbox_init(struct outbox *o, uv_stream_t *stream);
void outbox_send(struct outbox *o, const uv_buf_t *bufs, unsigned count);
/* The same for a head and a large body that stays valid until the stream is closed or everything was taken: what the
 * kernel does not take of the body at once is sent from where it is. */
void outbox_send_lent(struct outbox *o, uv_buf_t head, uv_buf_t body);
size_t outbox_size(const struct outbox *o);
/* To be called when the stream is being closed. */
void outbox_release(struct outbox *o);

#endif

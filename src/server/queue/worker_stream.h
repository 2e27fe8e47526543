/* worker_stream: takes apart what the picture worker sends while it works: one JSON object per line, and after an
 * {"event":"image"} line exactly as many bytes of PNG as it said, and a newline.
 *
 *   struct worker_stream s = {.on_event = event, .on_picture = picture, .user = me};
 *   if (worker_stream_feed(&s, data, len, &err)) ...        // not of that form: nothing more is to be fed
 *   worker_stream_release(&s);
 *
 * Bytes come from another process and may be anything; memory is bounded.
 */
#ifndef MYSTI_SERVER_QUEUE_WORKER_STREAM_H
#define MYSTI_SERVER_QUEUE_WORKER_STREAM_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define WORKER_LINE_MAX ((size_t)256 * 1024)
#define WORKER_PICTURE_MAX ((size_t)512 * 1024 * 1024)

struct worker_stream {
    /* event is borrowed, "event" in it is a string. Every line but those of pictures. */
    void (*on_event)(void *user, const char *name, const json_t *event);
    /* head: the line before the picture ("event": "image" or "preview"), borrowed. The malloc'd bytes become the
     * callee's. */
    void (*on_picture)(void *user, const json_t *head, unsigned char *png, size_t size);
    void *user;

    /* its own */
    struct buf line;
    json_t *head; /* of the picture that is coming */
    unsigned char *png;
    size_t have;
    size_t size;
    bool newline_due; /* after a picture */
};

int worker_stream_feed(struct worker_stream *s, const char *data, size_t len,
                       struct err *err) MUST_CHECK;
void worker_stream_release(struct worker_stream *s);

#endif

/* Three states: in a line, in a picture's bytes, at the newline behind a picture. The worker is our own program, but it
 * links libraries that crash, and a process on its port may be somebody else's: a line has a limit, a picture has one and
 * says its size before it comes, so that its memory is asked for once and may be refused, and anything that does not
 * fit is one sentence, after which nothing more is read.
 *
 * Rejected: pictures as base64 in the JSON (a third more bytes through two parsers), and a second connection for them
 * (their order among the events would be lost). */
#include "server/queue/worker_stream.h"

#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int begin_picture(struct worker_stream *s, json_t *head, struct err *err)
{
    json_int_t size = json_integer_value(json_object_get(head, "bytes"));

    if (size <= 0 || (uint64_t)size > WORKER_PICTURE_MAX)
        return err_set(err, ERR_BAD_GATEWAY,
                       "the picture worker announced a picture of %lld bytes",
                       (long long)size);
    s->png = mem_try_alloc((size_t)size);
    if (!s->png)
        return err_set(err, ERR_NO_MEMORY,
                       "no memory for a finished picture of %lld bytes",
                       (long long)size);
    s->head = json_incref(head);
    s->size = (size_t)size;
    s->have = 0;
    return 0;
}

static int take_line(struct worker_stream *s, struct err *err)
{
    json_error_t why;
    json_t *event = json_loadb(s->line.data, s->line.len, JSON_REJECT_DUPLICATES, &why);
    const char *name = json_string_value(json_object_get(event, "event"));
    int rc = 0;

    buf_clear(&s->line);
    if (!name)
        rc = err_set(err, ERR_BAD_GATEWAY,
                     "the picture worker sent a line that is no event");
    else if (!strcmp(name, "image") || !strcmp(name, "preview"))
        rc = begin_picture(s, event, err);
    else
        s->on_event(s->user, name, event);
    json_decref(event);
    return rc;
}

static void end_picture(struct worker_stream *s)
{
    unsigned char *png = s->png;
    json_t *head = s->head;

    s->png = NULL;
    s->head = NULL;
    s->newline_due = true;
    s->on_picture(s->user, head, png, s->size);
    json_decref(head);
}

int worker_stream_feed(struct worker_stream *s, const char *data, size_t len,
                       struct err *err)
{
    while (len) {
        size_t n;

        if (s->png) {
            n = s->size - s->have < len ? s->size - s->have : len;
            memcpy(s->png + s->have, data, n);
            s->have += n;
            if (s->have == s->size)
                end_picture(s);
        } else if (s->newline_due) {
            if (*data != '\n')
                return err_set(err, ERR_BAD_GATEWAY,
                               "the picture worker sent more bytes than it announced");
            s->newline_due = false;
            n = 1;
        } else {
            const char *end = memchr(data, '\n', len);

            n = end ? (size_t)(end - data) : len;
            if (s->line.len + n > WORKER_LINE_MAX)
                return err_set(err, ERR_BAD_GATEWAY,
                               "the picture worker sent an endless line");
            buf_append(&s->line, data, n);
            if (end) {
                n++;
                if (take_line(s, err))
                    return -1;
            }
        }
        data += n;
        len -= n;
    }
    return 0;
}

void worker_stream_release(struct worker_stream *s)
{
    buf_release(&s->line);
    json_decref(s->head);
    free(s->png);
    s->head = NULL;
    s->png = NULL;
    s->newline_due = false;
}

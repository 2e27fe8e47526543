/* What a picture worker sends: events and pictures, in any pieces. Read whole and byte by byte, the same must come out. */
#include "fuzz.h"

#include "server/queue/worker_stream.h"

#include <stdlib.h>
#include <string.h>

struct seen {
    unsigned events;
    unsigned pictures;
    size_t bytes;
    int failed;
};

static void on_event(void *user, const char *name, const json_t *event)
{
    struct seen *seen = user;

    if (!json_is_object(event) || !name || !strcmp(name, "image"))
        abort();
    seen->events++;
}

static void on_picture(void *user, const json_t *head, unsigned char *png, size_t size)
{
    struct seen *seen = user;

    if (!json_is_object(head) || !size)
        abort();
    seen->pictures++;
    seen->bytes += size;
    free(png);
}

static struct seen read_in_pieces(const char *data, size_t size, size_t piece)
{
    struct seen seen = {0};
    struct worker_stream s = {
        .on_event = on_event, .on_picture = on_picture, .user = &seen};
    struct err err = {0};

    for (size_t at = 0; at < size && !seen.failed; at += piece)
        seen.failed = worker_stream_feed(&s, data + at,
                                         size - at < piece ? size - at : piece, &err);
    if (seen.failed && !err.message[0])
        abort();
    worker_stream_release(&s);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole = read_in_pieces((const char *)data, size, size ? size : 1);
    struct seen bytes = read_in_pieces((const char *)data, size, 1);

    if (whole.events != bytes.events || whole.pictures != bytes.pictures ||
        whole.bytes != bytes.bytes || whole.failed != bytes.failed)
        abort();
    return 0;
}

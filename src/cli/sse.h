/* sse: takes a stream of server-sent events apart. Zero-initialise, set the callbacks, feed, release.
 * Lines end with \n or \r\n; several data lines are joined by \n, as the standard says. */
#ifndef MYSTI_CLI_SSE_H
#define MYSTI_CLI_SSE_H

#include "base/buf.h"

struct sse {
    void (*on_event)(void *user, const char *name,
                     const char *data); /* name "" when none */
    void (*on_comment)(void *user, const char *text);
    void *user;

    /* its own */
    struct buf line;
    struct buf data;
    struct buf name;
};

void sse_feed(struct sse *s, const char *bytes, size_t len);
void sse_release(struct sse *s);

#endif

/* proxy: passes one exchange through to a worker and its answer back as it comes.
 *
 *   struct proxy_options o = {
 *       .client = client, .acquire = ask, .release = forget, .source = worker};
 *   proxy_forward(x, &o);             // from here on the exchange belongs to the proxy
 *
 *   static void ask(void *source, struct proxy *p)   // "give me a ready worker"
 *   {
 *       ... now or later: proxy_ready(p, &target), or proxy_fail(p, &err);
 *       ... meanwhile, as often as wanted: proxy_progress(p, "loading 40%");
 *   }
 *
 * - The worker's status and headers go out as soon as they are there, its body as it
 * comes; slow clients slow the worker down, not this process's memory. A client that
 * leaves closes the worker's connection.
 * - A client that asked for a stream ("stream": true) and has heard nothing for
 * comment_after_ms gets 200, text/event-stream and a comment per second until the
 * worker speaks. What then goes wrong is an SSE error event.
 * - A worker that dies before a byte of its answer came is asked for again (acquire)
 * and the request is sent once more; a later death ends the answer with an error event,
 * or cut when it is no SSE.
 *
 * acquire is called once or more per exchange; each is followed by exactly one release,
 * after which p must not be used by the source. proxy_ready and proxy_fail may be
 * called from inside acquire. After proxy_ready the source keeps p only to know that it
 * is in use (for "busy"); release comes when it is not. The proxy takes the exchange's
 * user slot; on_done tells its end.
 */
#ifndef MYSTI_SERVER_PROXY_PROXY_H
#define MYSTI_SERVER_PROXY_PROXY_H

#include "http/client.h"
#include "http/http.h"

struct proxy;

struct proxy_target {
    char host[46]; /* "" = 127.0.0.1 */
    int port;
    char token[136]; /* sent as the worker's bearer token; "" = none */
};

enum proxy_stream {
    PROXY_STREAM_DETECT, /* by the body: JSON with "stream": true */
    PROXY_STREAM_NO,
    PROXY_STREAM_YES,
};

struct proxy_options {
    struct http_client *client;
    void (*acquire)(void *source, struct proxy *p);
    void (*release)(void *source, struct proxy *p); /* may be NULL */
    void *source;
    const char
        *target; /* path and query at the worker; copied; NULL = the client's own */
    /* NULL: the client's body (collected here when it is not yet). Else a malloc'd one
     * to send instead, which the proxy takes over, as Content-Type application/json. */
    char *body;
    size_t body_len;
    enum proxy_stream stream;
    unsigned first_byte_timeout_ms; /* 0 = 300 s, counted from the moment it is sent */
    unsigned comment_after_ms;      /* 0 = 500 */
    unsigned comment_every_ms;      /* 0 = 1000 */
    /* May be NULL. Called once when all is over and x is about to end. */
    void (*on_done)(void *user, struct http_exchange *x, enum http_outcome outcome);
    void *user;
};

void proxy_forward(struct http_exchange *x, const struct proxy_options *o);

/* For the source: */
void proxy_ready(struct proxy *p, const struct proxy_target *target);
void proxy_fail(struct proxy *p, const struct err *err);
void proxy_progress(struct proxy *p, const char *text); /* one line; the next comment */
struct http_exchange *proxy_exchange(const struct proxy *p);

#endif

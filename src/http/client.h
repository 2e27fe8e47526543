/* client: HTTP/1.1 calls to other processes on the same loop, over pooled keep-alive
 * connections.
 *
 *   struct http_call_options o = {.host = "127.0.0.1", .port = 1236, .method = "POST",
 *       .target = "/v1/completions", .headers = fields, .header_count = 2,
 *       .body = text, .body_len = n, .on = &handlers, .user = me};
 *   struct http_call *call = http_call_start(client, &o);
 *
 * A call ends with exactly one on_end or on_error, or by http_call_cancel (no callback
 * afterwards); then the pointer is dead. No callback is called from inside
 * http_call_start. Answers are parsed strictly: a malformed one is an error
 * (ERR_BAD_GATEWAY), as is one that breaks off. Idle pooled connections are watched:
 * one that its server closes is closed at once. A call on a pooled connection that
 * turns out to be dead before a byte of the answer came is sent again once on a fresh
 * one by itself, unless pieces of a streamed body were already given away. Loop thread
 * only.
 */
#ifndef MYSTI_HTTP_CLIENT_H
#define MYSTI_HTTP_CLIENT_H

#include "http/http.h"

struct http_client;
struct http_call;

struct http_client *http_client_new(uv_loop_t *loop);
uv_loop_t *http_client_loop(const struct http_client *c);
/* Cancels running calls, closes every connection, frees the client, calls on_closed
 * (may be NULL). */
void http_client_close(struct http_client *c, void (*on_closed)(void *user),
                       void *user);
/* Closes the idle connections to one port: its process is being replaced. */
void http_client_forget(struct http_client *c, const char *host, int port);
size_t http_client_connections(const struct http_client *c); /* idle ones too */

/* The head of an answer; valid inside on_head only. */
struct http_answer {
    int status;
    int64_t length; /* of the body; -1: not known beforehand */
    const struct http_field *fields;
    size_t field_count;
};
/* First field of that name, case-insensitive; NULL. */
const char *http_answer_field(const struct http_answer *a, const char *name);

enum http_failure {
    HTTP_UNREACHED, /* could not connect: nothing was sent (ERR_UNAVAILABLE) */
    HTTP_BROKEN,    /* the connection broke off (ERR_BAD_GATEWAY) */
    HTTP_MALFORMED, /* what came is not HTTP as we accept it (ERR_BAD_GATEWAY) */
    HTTP_SILENT,    /* first_byte_timeout_ms passed (ERR_GATEWAY_TIMEOUT) */
};

struct http_call_handlers {
    void (*on_head)(void *user, const struct http_answer *head);
    /* Everything of the body that one read from the socket brought, in one piece. */
    void (*on_data)(void *user, const char *data, size_t len);
    void (*on_end)(void *user);
    void (*on_error)(void *user, enum http_failure failure, const struct err *err);
    void (*on_drain)(
        void *user); /* streamed body: everything kept was taken; may be NULL */
};

#define HTTP_BODY_STREAMED ((size_t)-1)

struct http_call_options {
    const char *host; /* an address; NULL = 127.0.0.1 */
    int port;
    const char *method; /* NULL = GET */
    const char *target; /* path and query, as it goes on the wire */
    /* Host, framing and Connection are added here and must not be among them. */
    const struct http_field *headers;
    size_t header_count;
    /* Whole body: stays the caller's and must stay valid until the call is over. Or
     * body NULL and body_len HTTP_BODY_STREAMED: chunked, with http_call_write and
     * http_call_finish. */
    const void *body;
    size_t body_len;
    unsigned connect_timeout_ms;    /* 0 = 5 s */
    unsigned first_byte_timeout_ms; /* from the request being sent to the answer's head;
                                       0 = none */
    const struct http_call_handlers *on;
    void *user;
};

struct http_call *http_call_start(struct http_client *c,
                                  const struct http_call_options *o);
void http_call_write(struct http_call *call, const void *data, size_t len);
void http_call_finish(struct http_call *call);
size_t http_call_buffered(const struct http_call *call);
/* No on_data between pause and resume (each may be called in any state). */
void http_call_pause(struct http_call *call);
void http_call_resume(struct http_call *call);
/* Closes the connection at once. NULL is fine. */
void http_call_cancel(struct http_call *call);

/* ---- a whole answer, for health checks and small questions ---- */
struct http_fetch;
/* err is NULL when an answer came, whatever its status. body is NUL-terminated, valid
 * inside only. */
typedef void http_on_fetched_fn(void *user, const struct err *err, int status,
                                const char *body, size_t len);
struct http_fetch_options {
    const char *host;
    int port;
    const char *method; /* NULL = GET */
    const char *target;
    const char *bearer;       /* adds "Authorization: Bearer ..."; may be NULL */
    const char *content_type; /* of the body; NULL = application/json */
    const char *body;         /* copied; may be NULL */
    size_t body_len;
    size_t max_bytes;    /* of the answer; 0 = 1 MiB */
    unsigned timeout_ms; /* for the whole of it; 0 = none */
};
struct http_fetch *http_fetch_start(struct http_client *c,
                                    const struct http_fetch_options *o,
                                    http_on_fetched_fn *on_done, void *user);
void http_fetch_cancel(struct http_fetch *f);

#endif

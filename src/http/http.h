/* http: an HTTP/1.1 server on one libuv loop.
 *
 *   struct http_server_options o = {.on_request = handle, .user = app};
 *   struct http_server *s = http_server_new(loop, &o);
 *   if (http_server_listen(s, "127.0.0.1", 1234, &err)) ...
 *
 *   static void handle(void *user, struct http_exchange *x) // the head is complete
 *   {
 *       if (!strcmp(http_path(x), "/health"))
 *           http_respond_json(x, 200, json_pack("{s:s}", "status", "ok"));
 *       else
 *           http_respond_error(x, ERR_NOT_FOUND, NULL, "No route %s.", http_path(x));
 *   }
 *
 * An exchange is one request and its answer. It lives from on_request until its
 * on_close, which is called exactly once whatever happens (answer sent, client gone,
 * aborted) and never from inside a call into this module: free your state there and
 * forget the pointer. Until then every function may be called at any time; once the
 * client is gone or the answer has ended, they do nothing. A handler that does not
 * answer at once sets on_close, so that it learns when the client leaves.
 *
 * Malformed requests are answered by the server itself and never reach on_request.
 * Everything happens on the loop's thread. Strings belong to the exchange and live as
 * long as it does.
 */
#ifndef MYSTI_HTTP_HTTP_H
#define MYSTI_HTTP_HTTP_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct http_server;
struct http_exchange;

/* A header field; also what lists of them are made of. */
struct http_field {
    const char *name;
    const char *value;
};

/* 0 means the default that is given here. */
struct http_limits {
    size_t head_bytes;      /* request line and headers: 32 KiB, then 431 (414 for the
                               target) */
    size_t header_count;    /* 100, then 431 */
    size_t body_bytes;      /* 64 MiB, then 413 */
    size_t max_connections; /* 4096; further ones are answered 503 and closed */
    unsigned
        head_timeout_ms; /* from the first byte of a head to its end: 15 s, then 408 */
    unsigned idle_timeout_ms; /* between requests, and between bytes of a body: 75 s */
};

typedef void http_on_request_fn(void *user, struct http_exchange *x);
/* For an access log: called once per request, before its on_close; also for the refused
 * ones, whose method and path may be "". bytes: of the answer's body. */
typedef void http_on_finished_fn(void *user, struct http_exchange *x, int status,
                                 uint64_t bytes, double ms);

struct http_server_options {
    struct http_limits limits;
    http_on_request_fn *on_request;
    http_on_finished_fn *on_finished; /* may be NULL */
    void *user;
};

/* Once per process, from main: ignores SIGPIPE (libuv does not) and raises the soft
 * limit of open files to the hard one. */
void http_prepare_process(void);

struct http_server *http_server_new(uv_loop_t *loop,
                                    const struct http_server_options *o);
#define HTTP_LISTENERS_MAX 8
/* port 0: any free one, see http_server_port. A taken port is one sentence that names
 * it. May be called again for another address. */
int http_server_listen(struct http_server *s, const char *ip, int port,
                       struct err *err) MUST_CHECK;
/* On a TCP socket that was bound by somebody else (systemd); the server's from here on. */
int http_server_listen_fd(struct http_server *s, int fd, struct err *err) MUST_CHECK;
int http_server_port(const struct http_server *s); /* of the first */
/* Does it listen on loopback addresses only? */
bool http_server_is_loopback(const struct http_server *s);
size_t http_server_connections(const struct http_server *s);
/* For connections and requests from now on. */
void http_server_set_limits(struct http_server *s, const struct http_limits *limits);
/* Stops listening, closes idle connections, lets running exchanges end for grace_ms
 * (then aborts them; 0 = at once), frees the server, calls on_closed (may be NULL). */
void http_server_close(struct http_server *s, unsigned grace_ms,
                       void (*on_closed)(void *user), void *user);

/* ---- the request ---- */
const char *http_method(const struct http_exchange *x); /* "GET" ... */
/* The path, percent-decoded: no "..", no control characters, no NUL; starts with "/".
 */
const char *http_path(const struct http_exchange *x);
const char *
http_target(const struct http_exchange *x); /* path and query as they came */
const char *
http_query(const struct http_exchange *x); /* after the "?", as it came; "" */
/* A query parameter, decoded; NULL when absent. The first one counts. */
const char *http_query_get(struct http_exchange *x, const char *name);
/* Case-insensitive; repeated fields give the first. NULL when absent. */
const char *http_header(const struct http_exchange *x, const char *name);
size_t http_header_count(const struct http_exchange *x);
struct http_field http_header_at(const struct http_exchange *x, size_t i);
/* The client's own x-request-id when it is plain, else a fresh one. On every answer. */
const char *http_request_id(const struct http_exchange *x);
const char *http_peer(const struct http_exchange *x); /* the client's address */
uv_loop_t *http_loop(const struct http_exchange *x);

/* ---- its end ---- */
enum http_outcome {
    HTTP_DONE,        /* the whole answer was handed to the kernel */
    HTTP_CLIENT_GONE, /* closed, half closed or reset by the client */
    HTTP_ABORTED,     /* http_abort, a refused or broken body, a timeout, or the server
                         closing */
};
typedef void http_on_close_fn(struct http_exchange *x, void *user,
                              enum http_outcome outcome);
/* `user` is handed to every callback of this exchange. on_close may be NULL. */
void http_set_user(struct http_exchange *x, void *user, http_on_close_fn *on_close);
void *http_user(const struct http_exchange *x);
/* Closes the connection at once: a client in the middle of an answer sees that it was
 * cut. */
void http_abort(struct http_exchange *x);

/* ---- the request's body: ask for it in one of two ways, or leave it; "100 Continue"
 * is sent when the client waits for it. A body that breaks off or is too large is
 * answered by the server; the callbacks are then not called again, only on_close. ----
 */
int64_t http_content_length(const struct http_exchange *x); /* -1: chunked */
typedef void http_on_body_fn(struct http_exchange *x, void *user, const char *data,
                             size_t len);
/* Whole, NUL-terminated, at most max_bytes (0 = the server's limit). It stays readable
 * until on_close. on_body may be called before this returns. */
void http_collect_body(struct http_exchange *x, size_t max_bytes,
                       http_on_body_fn *on_body);
const char *http_body(const struct http_exchange *x, size_t *ret_len); /* NULL before */
/* In pieces as they come; len 0 is the end, called exactly once. */
void http_read_body(struct http_exchange *x, http_on_body_fn *on_piece);
void http_pause_body(struct http_exchange *x);
void http_resume_body(struct http_exchange *x);

/* ---- the answer: whole ---- */
/* Adds a field to the answer; before it starts. The name and value must be clean
 * (asserted). The server itself adds x-request-id, date, framing and connection. */
void http_set_header(struct http_exchange *x, const char *name, const char *value);
void http_respond(struct http_exchange *x, int status, const char *content_type,
                  const void *data, size_t len);
void http_respond_text(struct http_exchange *x, int status, const char *text);
/* Takes the reference over. NULL, as json_pack() makes it of bytes that are not UTF-8, is answered with 500. */
void http_respond_json(struct http_exchange *x, int status, json_t *body);
/* OpenAI's error object with all four keys, status from the code. When the answer has
 * started already: an SSE stream ends with the error as an event, any other is cut. */
void http_respond_err(struct http_exchange *x, const struct err *err);
void http_respond_error(struct http_exchange *x, enum err_code code, const char *param,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The error object alone, a new reference. */
json_t *http_error_json(const struct err *err);

/* ---- the answer: in pieces ---- */
#define HTTP_CHUNKED (-1)
/* length: of the body to come, or HTTP_CHUNKED. The head leaves with the first piece,
 * or at the end of this turn of the loop. content_type may be NULL. HEAD requests:
 * pieces are counted and dropped. */
void http_start(struct http_exchange *x, int status, const char *content_type,
                int64_t length);
bool http_started(const struct http_exchange *x);
/* Sent at once as far as the kernel takes it, the rest is copied and kept. Watch
 * http_buffered: a writer that can pause should, above 256 KiB or so, until on_drain.
 */
void http_write(struct http_exchange *x, const void *data, size_t len);
void http_end(struct http_exchange *x);
size_t http_buffered(const struct http_exchange *x);
/* Called each time the kernel has taken everything that was kept. */
typedef void http_on_drain_fn(struct http_exchange *x, void *user);
void http_on_drain(struct http_exchange *x, http_on_drain_fn *on_drain);

/* ---- server-sent events ---- */
void http_sse_start(struct http_exchange *x);
bool http_sse_started(const struct http_exchange *x);
/* name may be NULL; data may have several lines. */
void http_sse_event(struct http_exchange *x, const char *name, const char *data);
/* id: what the client sends as Last-Event-ID when it comes back */
void http_sse_event_with_id(struct http_exchange *x, const char *id, const char *name,
                            const char *data);
void http_sse_json(struct http_exchange *x, const char *name,
                   json_t *data); /* takes it */
void http_sse_comment(struct http_exchange *x, const char *text);

#endif

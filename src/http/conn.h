/* conn: the inside of the server, shared by server.c (listening, time limits), conn.c (one connection),
 * exchange.c (the request as handlers see it), answer.c and sse.c (what goes back). Not for others.
 *
 * Ownership: a server owns its connections (a list), a connection owns at most one exchange. Memory of a
 * connection goes in its close callback, an exchange's in conn_finish(), nowhere else. */
#ifndef MYSTI_HTTP_CONN_H
#define MYSTI_HTTP_CONN_H

#include "http/http.h"
#include "http/message.h"
#include "http/outbox.h"
#include "http/turn.h"

enum {
    READ_BYTES = 64 * 1024, /* one buffer for all connections of a server */
    HELD_LIMIT = 16 * 1024, /* bytes kept of what comes too early, then reading stops */
    LINGER_MS = 2000,       /* how long a refused client may go on sending */
    REQUEST_ID_BYTES = 64 + 1,
};

enum server_state { SERVER_OPEN, SERVER_CLOSING, SERVER_FREEING };

struct http_server {
    uv_loop_t *loop;
    uv_tcp_t listeners[HTTP_LISTENERS_MAX];
    int listener_count;
    uv_timer_t sweep;
    struct turn turn;
    struct http_server_options options;
    struct message_limits head_limits;
    struct conn *conns; /* doubly linked, no order */
    size_t conn_count;
    uint64_t close_deadline_ms; /* loop time */
    void (*on_closed)(void *user);
    void *on_closed_user;
    uint64_t next_request;
    uint32_t id_prefix;
    uint32_t open_handles;
    int port;
    enum server_state state;
    bool is_sweeping;
    int64_t date_second;
    char date[40];
    struct buf scratch; /* for building one event; empty between calls */
    char read_buffer[READ_BYTES];
};

enum conn_wait { WAIT_REQUEST, WAIT_HEAD, WAIT_BODY, WAIT_ANSWER, WAIT_LINGER };

struct conn {
    uv_tcp_t tcp;
    struct http_server *server;
    struct conn *prev, *next;
    struct turn_item turn;
    struct message in;
    struct buf held; /* came too early: the next request, or a body nobody wants yet */
    struct outbox out;
    struct http_exchange *x;
    uint64_t deadline_ms; /* loop time; 0: none */
    enum conn_wait wait;
    bool is_feeding : 1;
    bool is_gone : 1;    /* by the client */
    bool is_aborted : 1; /* by us */
    bool is_closing : 1;
    bool is_paused : 1; /* not reading */
    char peer[46];
};

enum body_mode { BODY_UNASKED, BODY_COLLECT, BODY_PIECES };

struct decoded {
    struct decoded *next;
    char text[];
};

struct http_exchange {
    struct conn *conn;
    void *user;
    http_on_close_fn *on_close;
    http_on_body_fn *on_body;
    http_on_drain_fn *on_drain;
    struct buf body;
    size_t body_limit, body_bytes;
    struct buf fields; /* of the answer, as text; empty once sent */
    struct decoded *decoded;
    uint64_t began_ns, sent_bytes;
    int64_t length; /* of the answer's body */
    int status;
    enum body_mode mode : 8;
    bool has_body_end : 1; /* the request's body is complete */
    bool is_paused : 1;
    bool is_refused : 1; /* answered by the server itself */
    bool is_head : 1;
    bool is_started : 1;
    bool has_sent_head : 1;
    bool is_ended : 1;
    bool is_sse : 1;
    bool is_until_close : 1; /* HTTP/1.0 and length unknown */
    bool keeps_alive : 1;
    char request_id[REQUEST_ID_BYTES];
};

/* server.c */
void server_forget_conn(struct http_server *s, struct conn *c);
void server_start_sweep(struct http_server *s);

/* conn.c */
void conn_accept(struct http_server *s, uv_stream_t *listener);
void conn_close(struct conn *c);
void conn_wake(struct conn *c); /* look at it before the loop sleeps */
void conn_refuse(struct conn *c, const struct err *err);
void conn_timed_out(struct conn *c);
/* The handler wants the body now, or wants it no more, or wants it again. */
void conn_wants_body(struct conn *c);

/* Nothing more can be answered: the client is gone, or the answer has ended. */
static inline bool exchange_is_over(const struct http_exchange *x)
{
    return x->is_ended || x->conn->is_gone || x->conn->is_aborted;
}

/* answer.c */
void answer_flush_head(struct http_exchange *x);

#endif

/* client_conn: the inside of the client, shared by client.c (calls) and client_pool.c (connections). Not
 * for others. A client owns its connections and calls; a call in progress and its connection point at each
 * other; an idle connection has no call. */
#ifndef MYSTI_HTTP_CLIENT_CONN_H
#define MYSTI_HTTP_CLIENT_CONN_H

#include "http/client.h"
#include "http/message.h"
#include "http/outbox.h"
#include "http/turn.h"

enum {
    CLIENT_READ_BYTES = 64 * 1024, /* one buffer for all connections of a client */
    IDLE_LIMIT = 256,              /* pooled connections; more are closed */
    IDLE_MS = 60 * 1000,
    SWEEP_MS = 250,
    CROWDED_MS =
        100, /* a call that waits longer may be waiting for a thread; see client.c */
};

struct http_client {
    uv_loop_t *loop;
    uv_timer_t sweep;
    struct turn turn;
    struct client_conn *idle,
        *busy; /* doubly linked; idle: the one used last comes first */
    struct http_call *calls;
    size_t conn_count, idle_count;
    void (*on_closed)(void *user);
    void *on_closed_user;
    unsigned open_handles;
    bool is_closing, is_sweeping;
    struct http_field *fields; /* room for the head that is being handed out */
    size_t field_cap;
    char read_buffer[CLIENT_READ_BYTES];
};

struct client_conn {
    uv_tcp_t tcp;
    uv_connect_t connect;
    struct http_client *client;
    struct client_conn *prev, *next;
    bool is_idle; /* which of the lists */
    struct message in;
    struct outbox out;
    struct http_call *call; /* NULL: idle, or closing */
    uint64_t idle_since_ms; /* loop time */
    int port;
    bool is_connected : 1;
    bool is_closing : 1;
    bool is_paused : 1;
    bool was_used : 1; /* has carried a call before */
    char host[46];
};

enum call_state { CALL_NEW, CALL_CONNECTING, CALL_SENT, CALL_ANSWERED, CALL_OVER };

struct http_call {
    struct http_client *client;
    struct http_call *next, **link; /* of the client's list; what points here */
    struct client_conn *conn;
    struct turn_item turn;
    const struct http_call_handlers *on;
    void *user;
    struct buf head; /* kept until the answer begins: it may have to be sent again */
    uv_buf_t body;
    struct buf early; /* streamed body, before the connection is there */
    struct buf held;  /* of the answer, came while paused */
    uint64_t deadline_ms, sent_ms;
    unsigned connect_timeout_ms, first_byte_timeout_ms;
    int port;
    enum call_state state : 8;
    enum http_failure failure : 8; /* to be told in the turn */
    bool is_streamed : 1;
    bool has_finished : 1; /* the streamed body */
    bool has_streamed : 1; /* pieces of it are on a wire */
    bool was_sent : 1;     /* on some connection */
    bool was_retried : 1;
    bool is_head : 1;
    bool is_paused : 1;
    bool is_in_callback : 1;
    bool has_failed : 1;
    bool has_end : 1; /* the answer is complete; to be told when not paused */
    char host[46];
    const char *why; /* static, or NULL */
    int uv_error;
};

/* client_pool.c */
enum pool_choice { POOL_ANY, POOL_FRESH };
/* Gives the call a connection: an idle one (then it is connected) or a new one (call_connected follows).
 * Returns 0 or libuv's error. */
int pool_take(struct http_call *call, enum pool_choice choice);
void pool_give_back(struct client_conn *c);
void client_conn_close(struct client_conn *c); /* its call is left without one */
void client_conn_pause(struct client_conn *c);
void client_conn_resume(struct client_conn *c);
void pool_sweep(struct http_client *client, uint64_t now);

/* client.c */
void call_connected(struct http_call *call);
void call_take(struct http_call *call, char *data, size_t len);
/* Its connection ended: UV_EOF or an error, while connecting or later. */
void call_lost(struct http_call *call, int uv_error);
void client_free_when_done(struct http_client *client);

#endif

/* loop: what the tests of http and proxy share: one event loop, raw peers that say exactly the bytes they
 * are told to, and scripted servers that answer with them. */
#ifndef MYSTI_TESTS_LOOP_H
#define MYSTI_TESTS_LOOP_H

#include "unit.h"

#include "base/buf.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/http.h"

#include <stdbool.h>
#include <string.h>
#include <uv.h>

extern uv_loop_t *loop;

void loop_begin(void);
void loop_end(void);  /* every handle must be closed or closing by now */
void loop_turn(void); /* waits 5 ms at most */
bool loop_is_late(uint64_t since);

/* Runs the loop until it holds; fails the test after five seconds. */
#define LOOP_UNTIL(condition)                                                          \
    for (uint64_t since_ = uv_hrtime(); !(condition); loop_turn())                     \
        if (loop_is_late(since_))                                                      \
    fail_msg("%s:%d: still not: %s", __FILE__, __LINE__, #condition)
void loop_for_ms(unsigned ms);

/* ---- a raw connection ---- */
struct peer {
    uv_tcp_t tcp;
    struct buf got;
    struct script *script; /* of an accepted one */
    struct peer *next;
    bool is_connected, is_ended, is_closed, is_stalled;
    int request_count; /* scripts may count here */
};

struct peer *peer_connect(int port);
void peer_send(struct peer *p, const void *data, size_t len);
void peer_say(struct peer *p, const char *text);
void peer_stall(struct peer *p); /* stop reading */
void peer_go_on(struct peer *p);
void peer_half_close(struct peer *p);
void peer_close(struct peer *p); /* and free */
void peer_reset(struct peer *p); /* with RST, and free */
bool peer_has(const struct peer *p, const char *text);
/* The status of the n-th answer in what came, 0 when there is none. */
int peer_status(const struct peer *p);

/* ---- a scripted server ---- */
struct script {
    uv_tcp_t listener;
    struct peer *peers; /* newest first */
    /* Called whenever bytes came; reads p->got. */
    void (*on_bytes)(struct peer *p);
    void *user;
    int port, accepted, alive;
};

void script_open(struct script *s, void (*on_bytes)(struct peer *p));
void script_close(struct script *s); /* its peers too */
void script_drop_all(struct script *s);

/* ---- a collected answer ---- */
struct answer {
    int status;
    struct buf body;
    struct err err;
    enum http_failure failure;
    char type[64];
    int heads, ends, errors;
    bool is_done;
};

extern const struct http_call_handlers answer_handlers; /* user: struct answer */
void answer_release(struct answer *a);

/* Descriptors that this process has open. */
int open_files(void);
/* Sockets of this process's ports in a TCP state ("08" = CLOSE_WAIT), from /proc/self/net/tcp. */
int sockets_in_state(const char *state, int port);

#endif

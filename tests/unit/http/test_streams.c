/* A thousand streams that are broken off, first by clients, then by workers: nothing may be left, neither a
 * descriptor nor a socket in CLOSE_WAIT, on either side. */
#include "loop.h"

#include "server/proxy/proxy.h"

#include <sys/resource.h>

enum { STREAMS = 1000, BATCH = 100 };

static struct http_server *server;
static struct http_client *client;
static struct script worker;

static void on_acquire(void *source, struct proxy *p)
{
    struct proxy_target target = {.port = worker.port};

    (void)source;
    proxy_ready(p, &target);
}

static void handle(void *user, struct http_exchange *x)
{
    struct proxy_options o = {.client = client, .acquire = on_acquire};

    (void)user;
    proxy_forward(x, &o);
}

/* A worker that streams, and like any real one closes when its client has. */
static void on_bytes(struct peer *p)
{
    if (peer_has(p, "true}")) {
        buf_release(&p->got);
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
    }
}

static void close_ended(void)
{
    struct peer *next;

    for (struct peer *p = worker.peers; p; p = next) {
        next = p->next;
        if (p->is_ended)
            peer_close(p);
    }
}

static void set_flag(void *user)
{
    *(bool *)user = true;
}

static void thousand_aborted_streams_leave_nothing(void **state)
{
    struct http_server_options o = {.on_request = handle};
    struct peer *peers[BATCH];
    bool is_closed = false, is_client_closed = false;
    int before, port;
    struct err err;

    (void)state;
    loop_begin();
    server = http_server_new(loop, &o);
    client = http_client_new(loop);
    assert_int_equal(http_server_listen(server, "127.0.0.1", 0, &err), 0);
    port = http_server_port(server);
    script_open(&worker, on_bytes);
    before = open_files();
    for (int round = 0; round < STREAMS / BATCH; round++) {
        for (int i = 0; i < BATCH; i++) {
            peers[i] = peer_connect(port);
            peer_say(peers[i], "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
                               "Content-Length: 15\r\n\r\n{\"stream\":true}");
        }
        for (int i = 0; i < BATCH; i++)
            LOOP_UNTIL(peer_has(peers[i], "data: 1"));
        assert_int_equal(worker.alive, BATCH);
        if (round % 2)
            script_drop_all(&worker);
        for (int i = 0; i < BATCH; i++)
            (i % 3 ? peer_close : peer_reset)(peers[i]);
        for (uint64_t since = uv_hrtime(); worker.alive && !loop_is_late(since);) {
            loop_turn();
            close_ended();
        }
        assert_int_equal(worker.alive, 0);
        LOOP_UNTIL(http_server_connections(server) == 0);
        LOOP_UNTIL(http_client_connections(client) == 0);
    }
    assert_int_equal(open_files(), before);
    assert_int_equal(sockets_in_state("08", port), 0);
    assert_int_equal(sockets_in_state("08", worker.port), 0);
    http_server_close(server, 0, set_flag, &is_closed);
    http_client_close(client, set_flag, &is_client_closed);
    LOOP_UNTIL(is_closed && is_client_closed);
    script_close(&worker);
    loop_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousand_aborted_streams_leave_nothing),
    };

    http_prepare_process();
    return RUN_TESTS(tests);
}

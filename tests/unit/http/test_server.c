/* The server over real sockets: one story per test, each with a server of its own. */
#include "loop.h"

#include "http/cors.h"

static struct http_server *server;
static int port, requests, finished_requests, closes, drains;
static enum http_outcome last_outcome;
static struct http_exchange *waiting; /* of /wait */
static struct buf pieces;

static void on_close(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    (void)user;
    closes++;
    last_outcome = outcome;
    if (waiting == x)
        waiting = NULL;
}

static void on_finished(void *user, struct http_exchange *x, int status, uint64_t bytes,
                        double ms)
{
    (void)user;
    (void)x;
    (void)status;
    (void)bytes;
    (void)ms;
    finished_requests++;
}

static void echo(struct http_exchange *x, void *user, const char *data, size_t len)
{
    (void)user;
    http_respond(x, 200, "text/plain", data, len);
}

static void on_piece(struct http_exchange *x, void *user, const char *data, size_t len)
{
    (void)user;
    if (len) {
        buf_append(&pieces, data, len);
        http_pause_body(x);
        waiting = x;
        return;
    }
    http_respond_text(x, 200, "all of it");
}

static void on_drain(struct http_exchange *x, void *user)
{
    (void)x;
    (void)user;
    drains++;
}

static void describe(struct http_exchange *x)
{
    const char *b = http_query_get(x, "b");

    http_respond_json(x, 200,
                      json_pack("{s:s,s:s,s:s,s:s,s:s?,s:s,s:s?}", "method",
                                http_method(x), "path", http_path(x), "target",
                                http_target(x), "query", http_query(x), "b", b, "peer",
                                http_peer(x), "h", http_header(x, "x-h")));
}

static void handle(void *user, struct http_exchange *x)
{
    const char *path = http_path(x);

    (void)user;
    requests++;
    http_set_user(x, NULL, on_close);
    if (!strcmp(path, "/echo")) {
        http_collect_body(x, 0, echo);
    } else if (!strcmp(path, "/small")) {
        http_collect_body(x, 10, echo);
    } else if (!strcmp(path, "/pieces")) {
        http_read_body(x, on_piece);
    } else if (!strcmp(path, "/wait") || !strcmp(path, "/sse")) {
        waiting = x;
        if (path[1] == 's')
            http_sse_start(x);
    } else if (!strcmp(path, "/chunks")) {
        http_start(x, 200, "text/plain", HTTP_CHUNKED);
        http_write(x, "one", 3);
        http_write(x, " two", 4);
        http_end(x);
    } else if (!strcmp(path, "/short")) {
        http_start(x, 200, "text/plain", 10);
        http_write(x, "one", 3);
        http_end(x);
    } else if (!strcmp(path, "/stream")) {
        waiting = x;
        http_on_drain(x, on_drain);
        http_start(x, 200, "text/plain", HTTP_CHUNKED);
    } else if (!strcmp(path, "/error")) {
        http_respond_error(x, ERR_CONFLICT, "field", "It is \"busy\".");
    } else {
        describe(x);
    }
}

static void begin(struct http_limits limits)
{
    struct http_server_options o = {
        .limits = limits, .on_request = handle, .on_finished = on_finished};
    struct err err;

    loop_begin();
    server = http_server_new(loop, &o);
    assert_int_equal(http_server_listen(server, "127.0.0.1", 0, &err), 0);
    port = http_server_port(server);
    assert_int_not_equal(port, 0);
    requests = finished_requests = closes = drains = 0;
    waiting = NULL;
}

static void set_flag(void *user)
{
    *(bool *)user = true;
}

static void end(unsigned grace_ms)
{
    bool is_closed = false;

    http_server_close(server, grace_ms, set_flag, &is_closed);
    LOOP_UNTIL(is_closed);
    assert_int_equal(requests, closes);
    buf_release(&pieces);
    loop_end();
}

#define BEGIN begin((struct http_limits){0})

static void keeps_connections_alive(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    for (int i = 1; i <= 3; i++) {
        peer_say(p, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        LOOP_UNTIL(closes == i);
        LOOP_UNTIL(peer_has(p, "hello"));
        assert_int_equal(peer_status(p), 200);
        assert_true(peer_has(p, "\r\nx-request-id: req_"));
        assert_false(peer_has(p, "connection: close"));
        buf_clear(&p->got);
    }
    peer_say(p, "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                "x-request-id: mine-1\r\n\r\n");
    LOOP_UNTIL(p->is_ended);
    assert_true(peer_has(p, "connection: close"));
    assert_true(peer_has(p, "x-request-id: mine-1\r\n"));
    assert_int_equal(finished_requests, 4);
    peer_close(p);
    end(0);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct peer *p;
    struct buf b = {0};

    (void)state;
    BEGIN;
    p = peer_connect(port);
    for (int i = 0; i < 50; i++)
        buf_printf(
            &b,
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            "4\r\n<%02d>\r\n0\r\n\r\n",
            i);
    /* the same bytes, in two unequal parts */
    peer_send(p, b.data, 77);
    loop_for_ms(10);
    peer_send(p, b.data + 77, b.len - 77);
    LOOP_UNTIL(closes == 50);
    LOOP_UNTIL(peer_has(p, "<49>"));
    for (int i = 0, at = 0; i < 50; i++) {
        char wanted[8];
        char *found;

        snprintf(wanted, sizeof(wanted), "<%02d>", i);
        found = strstr(p->got.data + at, wanted);
        assert_non_null(found);
        at = (int)(found - p->got.data);
    }
    buf_release(&b);
    peer_close(p);
    end(0);
}

static void a_request_waits_for_the_one_before(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p,
             "GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(waiting);
    loop_for_ms(20);
    assert_int_equal(requests, 1);
    http_respond_text(waiting, 200, "first");
    LOOP_UNTIL(requests == 2);
    LOOP_UNTIL(peer_has(p, "\"path\":\"/x\""));
    peer_close(p);
    end(0);
}

static void describes_the_request(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p, "PUT /a%20b/%C3%A4?a=1&b=x%20y+z&c HTTP/1.1\r\nHost: a\r\nX-H:  v \r\n"
                "Content-Length: 0\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "}"));
    assert_true(peer_has(p, "\"method\":\"PUT\""));
    assert_true(peer_has(p, "\"path\":\"/a b/\303\244\""));
    assert_true(peer_has(p, "\"query\":\"a=1&b=x%20y+z&c\""));
    assert_true(peer_has(p, "\"b\":\"x y z\""));
    assert_true(peer_has(p, "\"peer\":\"127.0.0.1\""));
    assert_true(peer_has(p, "\"h\":\"v\""));
    peer_close(p);
    end(0);
}

static void errors_have_all_four_keys(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    /* the handler tries to give back a path that is no UTF-8 */
    peer_say(p, "GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "}}"));
    assert_int_equal(peer_status(p), 500);
    buf_clear(&p->got);
    peer_say(p, "GET /error HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "}}"));
    assert_int_equal(peer_status(p), 409);
    assert_true(peer_has(p,
                         "{\"error\":{\"message\":\"It is \\\"busy\\\".\",\"type\":"
                         "\"conflict_error\",\"param\":\"field\",\"code\":\"busy\"}}"));
    peer_close(p);
    end(0);
}

static void chunks_and_heads_and_old_clients(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p, "GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n"));
    assert_true(peer_has(p, "transfer-encoding: chunked"));
    buf_clear(&p->got);
    peer_say(p, "HEAD /chunks HTTP/1.1\r\nHost: a\r\n\r\n"
                "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(closes == 3);
    loop_for_ms(10);
    assert_false(peer_has(p, "one"));
    assert_false(peer_has(p, "{"));
    assert_true(peer_has(p, "content-length: "));
    buf_clear(&p->got);
    peer_say(p, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "}"));
    assert_true(peer_has(p, "connection: keep-alive"));
    buf_clear(&p->got);
    peer_say(p, "GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    LOOP_UNTIL(p->is_ended);
    assert_true(peer_has(p, "\r\n\r\none two"));
    assert_false(peer_has(p, "chunked"));
    peer_close(p);
    end(0);
}

static void an_answer_that_falls_short_is_cut(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p, "GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(p->is_ended);
    assert_int_equal(last_outcome, HTTP_ABORTED);
    peer_close(p);
    end(0);
}

static void says_continue_only_when_asked(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
                "Expect: 100-continue\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "HTTP/1.1 100 Continue\r\n\r\n"));
    peer_say(p, "ok");
    LOOP_UNTIL(peer_has(p, "\r\n\r\nok"));
    buf_clear(&p->got);
    /* refused by its length: no leave to send it */
    peer_say(p, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n"
                "Expect: 100-continue\r\n\r\n");
    LOOP_UNTIL(p->is_ended);
    assert_int_equal(peer_status(p), 413);
    assert_false(peer_has(p, "100 Continue"));
    peer_close(p);
    end(0);
}

static void bodies_have_limits(void **state)
{
    struct peer *p;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p, "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                "6\r\n123456\r\n");
    loop_for_ms(5);
    peer_say(p, "6\r\n123456\r\n");
    LOOP_UNTIL(p->is_ended);
    assert_int_equal(peer_status(p), 413);
    assert_true(peer_has(p, "larger than 10 bytes"));
    LOOP_UNTIL(closes == 1);
    assert_int_equal(last_outcome, HTTP_ABORTED);
    peer_close(p);
    end(0);
}

static void a_refused_client_may_go_on_sending(void **state)
{
    struct peer *p;
    char block[65536];

    (void)state;
    begin((struct http_limits){.body_bytes = 1000});
    memset(block, 'x', sizeof(block));
    p = peer_connect(port);
    peer_say(p, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6553600\r\n\r\n");
    for (int i = 0; i < 100; i++)
        peer_send(p, block, sizeof(block));
    LOOP_UNTIL(p->is_ended);
    assert_int_equal(peer_status(p), 413); /* not lost to a reset */
    peer_close(p);
    LOOP_UNTIL(http_server_connections(server) == 0);
    end(0);
}

static void a_paused_body_waits(void **state)
{
    struct peer *p;
    struct buf body = {0};
    size_t before;

    (void)state;
    BEGIN;
    for (int i = 0; i < 500000; i++)
        buf_printf(&body, "%d,", i);
    p = peer_connect(port);
    buf_printf(&pieces,
               "POST /pieces HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n",
               body.len);
    peer_say(p, pieces.data);
    buf_clear(&pieces);
    peer_send(p, body.data, body.len);
    LOOP_UNTIL(waiting);
    before = pieces.len;
    loop_for_ms(30);
    assert_int_equal(pieces.len, before);
    while (closes == 0) {
        if (waiting)
            http_resume_body(waiting);
        loop_turn();
    }
    LOOP_UNTIL(peer_has(p, "all of it"));
    assert_int_equal(pieces.len, body.len);
    assert_memory_equal(pieces.data, body.data, body.len);
    buf_release(&body);
    peer_close(p);
    end(0);
}

static void sees_at_once_that_the_client_left(void **state)
{
    struct peer *p;
    void (*const ways[])(struct peer *) = {peer_close, peer_reset, peer_half_close};

    (void)state;
    BEGIN;
    for (int way = 0; way < 3; way++) {
        p = peer_connect(port);
        peer_say(p, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        LOOP_UNTIL(waiting);
        ways[way](p);
        LOOP_UNTIL(!waiting);
        assert_int_equal(last_outcome, HTTP_CLIENT_GONE);
        LOOP_UNTIL(http_server_connections(server) == 0);
        if (ways[way] == peer_half_close)
            peer_close(p);
    }
    end(0);
}

static void sends_events(void **state)
{
    struct peer *p;
    struct err err;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p, "GET /sse HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(
        peer_has(p, "\r\n\r\n")); /* the head comes without waiting for an event */
    assert_true(peer_has(p, "content-type: text/event-stream\r\n"));
    assert_true(peer_has(p, "x-accel-buffering: no\r\n"));
    http_sse_comment(waiting, "loading 40%");
    http_sse_event(waiting, "step", "a\nb\r\nc");
    http_sse_json(waiting, NULL, json_pack("{s:i}", "n", 1));
    LOOP_UNTIL(peer_has(p, "data: {\"n\":1}\n\n"));
    assert_true(peer_has(p, ": loading 40%\n\n"));
    assert_true(peer_has(p, "event: step\ndata: a\ndata: b\ndata: c\n\n"));
    err_set(&err, ERR_BAD_GATEWAY, "It died.");
    http_respond_err(waiting, &err);
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_true(peer_has(p, "data: {\"error\":{\"message\":\"It died.\""));
    peer_close(p);
    end(0);
}

static void a_stalled_reader_is_noticed(void **state)
{
    struct peer *p;
    char block[32768];
    size_t sent = 0;

    (void)state;
    BEGIN;
    memset(block, 'y', sizeof(block));
    p = peer_connect(port);
    peer_say(p, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(waiting);
    peer_stall(p);
    while (http_buffered(waiting) < 4 * sizeof(block) && sent < 64u << 20) {
        http_write(waiting, block, sizeof(block));
        sent += sizeof(block);
        loop_turn();
    }
    assert_true(http_buffered(waiting) >= 4 * sizeof(block));
    assert_int_equal(drains, 0);
    peer_go_on(p);
    LOOP_UNTIL(drains == 1);
    assert_int_equal(http_buffered(waiting), 0);
    http_end(waiting);
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_true(p->got.len > sent);
    peer_close(p);
    end(0);
}

static void slow_heads_and_idle_connections_are_closed(void **state)
{
    struct peer *slow, *idle, *working, *body;

    (void)state;
    begin((struct http_limits){.head_timeout_ms = 150, .idle_timeout_ms = 400});
    slow = peer_connect(port);
    idle = peer_connect(port);
    working = peer_connect(port);
    body = peer_connect(port);
    peer_say(working, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_say(body, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    LOOP_UNTIL(waiting);
    /* a byte now and then does not help */
    for (int i = 0; i < 60 && !slow->is_ended; i++) {
        peer_say(slow, i ? "X" : "GET / HTTP/1.1\r\n");
        loop_for_ms(10);
    }
    assert_true(slow->is_ended);
    assert_int_equal(peer_status(slow), 408);
    LOOP_UNTIL(idle->is_ended);
    assert_int_equal(idle->got.len, 0);
    LOOP_UNTIL(body->is_ended);
    assert_int_equal(peer_status(body), 408);
    loop_for_ms(200);
    assert_false(working->is_ended); /* work has no limit */
    http_respond_text(waiting, 200, "done");
    LOOP_UNTIL(peer_has(working, "done"));
    peer_close(slow);
    peer_close(idle);
    peer_close(working);
    peer_close(body);
    end(0);
}

static void surplus_connections_are_turned_away(void **state)
{
    struct peer *p[3];

    (void)state;
    begin((struct http_limits){.max_connections = 2});
    for (int i = 0; i < 3; i++)
        p[i] = peer_connect(port);
    LOOP_UNTIL(p[2]->is_ended);
    assert_int_equal(peer_status(p[2]), 503);
    assert_true(peer_has(p[2], "}}\n"));
    peer_say(p[0], "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(peer_has(p[0], "}"));
    for (int i = 0; i < 3; i++)
        peer_close(p[i]);
    end(0);
}

static void a_taken_port_is_one_sentence(void **state)
{
    struct http_server_options o = {.on_request = handle};
    struct http_server *second;
    struct err err;
    bool is_closed = false;
    char number[16];

    (void)state;
    BEGIN;
    second = http_server_new(loop, &o);
    assert_int_equal(http_server_listen(second, "127.0.0.1", port, &err), -1);
    snprintf(number, sizeof(number), "Port %d", port);
    assert_non_null(strstr(err.message, number));
    assert_non_null(strstr(err.message, "taken"));
    assert_int_equal(http_server_listen(second, "localhost", port, &err), -1);
    assert_non_null(strstr(err.message, "'localhost'"));
    http_server_close(second, 0, set_flag, &is_closed);
    LOOP_UNTIL(is_closed);
    end(0);
}

static void closing_lets_running_answers_end(void **state)
{
    struct peer *working, *idle;
    bool is_closed = false;

    (void)state;
    BEGIN;
    working = peer_connect(port);
    idle = peer_connect(port);
    peer_say(working, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(waiting);
    http_server_close(server, 2000, set_flag, &is_closed);
    LOOP_UNTIL(idle->is_ended);
    assert_false(is_closed);
    http_respond_text(waiting, 200, "last words");
    LOOP_UNTIL(is_closed);
    LOOP_UNTIL(working->is_ended);
    assert_true(peer_has(working, "last words"));
    assert_true(peer_has(working, "connection: close"));
    peer_close(working);
    peer_close(idle);
    loop_end();
}

static void closing_has_an_end(void **state)
{
    struct peer *p;
    bool is_closed = false;

    (void)state;
    BEGIN;
    p = peer_connect(port);
    peer_say(p, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    LOOP_UNTIL(waiting);
    http_server_close(server, 60, set_flag, &is_closed);
    LOOP_UNTIL(is_closed);
    assert_int_equal(closes, 1);
    assert_int_equal(last_outcome, HTTP_ABORTED);
    peer_close(p);
    loop_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_connections_alive),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(a_request_waits_for_the_one_before),
        cmocka_unit_test(describes_the_request),
        cmocka_unit_test(errors_have_all_four_keys),
        cmocka_unit_test(chunks_and_heads_and_old_clients),
        cmocka_unit_test(an_answer_that_falls_short_is_cut),
        cmocka_unit_test(says_continue_only_when_asked),
        cmocka_unit_test(bodies_have_limits),
        cmocka_unit_test(a_refused_client_may_go_on_sending),
        cmocka_unit_test(a_paused_body_waits),
        cmocka_unit_test(sees_at_once_that_the_client_left),
        cmocka_unit_test(sends_events),
        cmocka_unit_test(a_stalled_reader_is_noticed),
        cmocka_unit_test(slow_heads_and_idle_connections_are_closed),
        cmocka_unit_test(surplus_connections_are_turned_away),
        cmocka_unit_test(a_taken_port_is_one_sentence),
        cmocka_unit_test(closing_lets_running_answers_end),
        cmocka_unit_test(closing_has_an_end),
    };

    return RUN_TESTS(tests);
}

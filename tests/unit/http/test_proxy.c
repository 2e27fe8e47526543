/* The proxy between raw clients and a scripted worker. */
#include "loop.h"

#include "server/proxy/proxy.h"

static struct http_server *server;
static struct http_client *client;
static struct script worker;
static struct proxy *asking; /* in acquire, when answers are not automatic */
static struct proxy_options options;
static int port, acquired, released, done;
static enum http_outcome last_outcome;
static bool is_automatic;
static const char *replacement;

static void supply(struct proxy *p)
{
    struct proxy_target target = {.port = worker.port, .token = "boot-secret"};

    proxy_ready(p, &target);
}

static void on_acquire(void *source, struct proxy *p)
{
    (void)source;
    acquired++;
    if (is_automatic)
        supply(p);
    else
        asking = p;
}

static void on_release(void *source, struct proxy *p)
{
    (void)source;
    released++;
    if (asking == p)
        asking = NULL;
}

static void on_done(void *user, struct http_exchange *x, enum http_outcome outcome)
{
    (void)user;
    (void)x;
    done++;
    last_outcome = outcome;
}

static void handle(void *user, struct http_exchange *x)
{
    struct proxy_options o = options;

    (void)user;
    if (replacement) {
        o.body = mem_strdup(replacement);
        o.body_len = strlen(replacement);
    }
    proxy_forward(x, &o);
}

static void begin(void (*on_bytes)(struct peer *p))
{
    struct http_server_options o = {.on_request = handle};
    struct err err;

    loop_begin();
    server = http_server_new(loop, &o);
    client = http_client_new(loop);
    assert_int_equal(http_server_listen(server, "127.0.0.1", 0, &err), 0);
    port = http_server_port(server);
    worker = (struct script){0};
    script_open(&worker, on_bytes);
    options = (struct proxy_options){.client = client,
                                     .acquire = on_acquire,
                                     .release = on_release,
                                     .on_done = on_done,
                                     .comment_after_ms = 60,
                                     .comment_every_ms = 30};
    acquired = released = done = 0;
    is_automatic = true;
    asking = NULL;
    replacement = NULL;
}

static void set_flag(void *user)
{
    *(bool *)user = true;
}

static void end(void)
{
    bool is_closed = false, is_client_closed = false;

    http_server_close(server, 0, set_flag, &is_closed);
    LOOP_UNTIL(is_closed);
    assert_int_equal(acquired, released);
    http_client_close(client, set_flag, &is_client_closed);
    LOOP_UNTIL(is_client_closed);
    script_close(&worker);
    loop_end();
}

static struct peer *ask(const char *body)
{
    struct peer *p = peer_connect(port);
    struct buf b = {0};

    buf_printf(&b,
               "POST /v1/chat?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
               strlen(body), body);
    peer_send(p, b.data, b.len);
    buf_release(&b);
    return p;
}

#define STREAM "{\"stream\": true}"
#define EVENTS                                                                         \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"                           \
    "Transfer-Encoding: chunked\r\n\r\n"

static struct peer *wait_request(void)
{
    LOOP_UNTIL(worker.peers && peer_has(worker.peers, "}"));
    return worker.peers;
}

static void heads_are_cleaned_both_ways(void **state)
{
    struct peer *p, *w;

    (void)state;
    begin(NULL);
    p = peer_connect(port);
    peer_say(
        p, "POST /v1/chat?x=1 HTTP/1.1\r\nHost: public:1234\r\nX-Keep: yes\r\n"
           "Connection: keep-alive, X-Drop\r\nX-Drop: 1\r\nTE: trailers\r\n"
           "Authorization: Bearer clients-own\r\nX-Api-Key: k\r\nCookie: c=1\r\n"
           "Upgrade: websocket\r\nAccept-Encoding: gzip\r\nContent-Type: text/json\r\n"
           "x-request-id: abc\r\nTransfer-Encoding: chunked\r\n\r\n"
           "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n");
    w = wait_request();
    assert_true(peer_has(w, "POST /v1/chat?x=1 HTTP/1.1\r\nhost: 127.0.0.1:"));
    assert_true(peer_has(w, "\r\nX-Keep: yes\r\n"));
    assert_true(peer_has(w, "\r\nauthorization: Bearer boot-secret\r\n"));
    assert_true(peer_has(w, "\r\nx-request-id: abc\r\n"));
    assert_true(peer_has(w, "\r\nContent-Type: text/json\r\n"));
    assert_true(peer_has(w, "\r\ncontent-length: 2\r\n\r\n{}"));
    for (const char *const *s =
             (const char *const[]){"X-Drop", "clients-own", "Api-Key", "Cookie",
                                   "pgrade", "TE:", "gzip", "chunked", "onnection",
                                   NULL};
         *s; s++)
        if (peer_has(w, *s))
            fail_msg("the worker was told '%s'", *s);
    peer_say(
        w, "HTTP/1.1 418 Teapot\r\nX-Worker: w\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
           "Keep-Alive: timeout=5\r\nAccess-Control-Allow-Origin: *\r\n"
           "X-Request-Id: other\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc");
    LOOP_UNTIL(peer_has(p, "abc"));
    assert_int_equal(peer_status(p), 418);
    assert_true(peer_has(p, "\r\nX-Worker: w\r\n"));
    assert_true(peer_has(p, "\r\nContent-Type: a/b\r\n"));
    assert_true(peer_has(p, "\r\ncontent-length: 3\r\n"));
    assert_true(peer_has(p, "\r\nx-request-id: abc\r\n"));
    for (const char *const *s =
             (const char *const[]){"X-Hop", "eep-", "ccess", "other", NULL};
         *s; s++)
        if (peer_has(p, *s))
            fail_msg("the client was told '%s'", *s);
    LOOP_UNTIL(done == 1);
    assert_int_equal(last_outcome, HTTP_DONE);
    peer_close(p);
    end();
}

static void a_replaced_body_is_sent(void **state)
{
    struct peer *p, *w;

    (void)state;
    begin(NULL);
    replacement = "{\"model\":\"real\"}";
    options.target = "/v1/other";
    p = ask("{\"model\":\"alias\"}");
    w = wait_request();
    assert_true(peer_has(w, "POST /v1/other HTTP/1.1\r\n"));
    assert_true(peer_has(w, "\r\ncontent-type: application/json\r\n"));
    assert_true(peer_has(w, "\r\n\r\n{\"model\":\"real\"}"));
    peer_say(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    LOOP_UNTIL(peer_status(p) == 200);
    peer_close(p);
    end();
}

static void tokens_pass_one_by_one(void **state)
{
    struct peer *p, *w;

    (void)state;
    begin(NULL);
    options.comment_after_ms = 5000;
    p = ask(STREAM);
    w = wait_request();
    peer_say(w, EVENTS);
    LOOP_UNTIL(peer_has(p, "\r\n\r\n")); /* the head at once */
    assert_int_equal(peer_status(p), 200);
    for (int i = 0; i < 20; i++) {
        char event[60], wanted[40];

        snprintf(wanted, sizeof(wanted), "data: %02d\n\n", i);
        snprintf(event, sizeof(event), "a\r\n%s\r\n", wanted);
        peer_say(w, event);
        LOOP_UNTIL(peer_has(p, wanted));
    }
    peer_say(w, "0\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_false(peer_has(p, ": "
                             "waiting"));
    LOOP_UNTIL(done == 1);
    peer_close(p);
    end();
}

static void silence_is_filled_with_comments(void **state)
{
    struct peer *p, *w;

    (void)state;
    begin(NULL);
    is_automatic = false;
    p = ask(STREAM);
    LOOP_UNTIL(asking);
    LOOP_UNTIL(peer_has(p, ": loading\n\n"));
    assert_int_equal(peer_status(p), 200);
    assert_true(peer_has(p, "content-type: text/event-stream"));
    proxy_progress(asking, "loading 40%");
    LOOP_UNTIL(peer_has(p, ": loading 40%\n\n"));
    supply(asking);
    w = wait_request();
    LOOP_UNTIL(peer_has(p, ": waiting\n\n"));
    peer_say(w, EVENTS);
    loop_for_ms(100); /* its head has come, its first byte has not */
    buf_clear(&p->got);
    LOOP_UNTIL(peer_has(p, ": waiting\n\n"));
    peer_say(w, "9\r\ndata: 1\n\n\r\n");
    LOOP_UNTIL(peer_has(p, "data: 1\n\n"));
    buf_clear(&p->got);
    loop_for_ms(100);
    assert_int_equal(p->got.len, 0); /* never between tokens */
    peer_say(w, "0\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    peer_close(p);
    end();
}

static void comments_come_after_the_head_too(void **state)
{
    struct peer *p, *w;

    (void)state;
    begin(NULL);
    options.comment_after_ms = 700;
    p = ask(STREAM);
    w = wait_request();
    peer_say(w, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-W: 1\r\n"
                "Transfer-Encoding: chunked\r\n\r\n");
    LOOP_UNTIL(peer_has(p, ": waiting\n\n"));
    assert_true(peer_has(p, "X-W: 1")); /* the worker's head, our comment */
    peer_close(p);
    end();
}

static void others_hear_nothing_before_the_worker(void **state)
{
    struct peer *p;
    struct err err;

    (void)state;
    begin(NULL);
    is_automatic = false;
    p = ask("{\"stream\": false, \"x\": \"\\\"stream\\\": true\"}");
    LOOP_UNTIL(asking);
    loop_for_ms(150);
    assert_int_equal(p->got.len, 0);
    err_set(&err, ERR_NO_MEMORY, "The model needs 9 GiB.");
    proxy_fail(asking, &err);
    LOOP_UNTIL(peer_has(p, "}}"));
    assert_int_equal(peer_status(p), 503);
    assert_true(peer_has(p, "out_of_memory"));
    peer_close(p);
    end();
}

static void failures_after_our_head_are_events(void **state)
{
    struct peer *p, *w;
    struct err err;

    (void)state;
    begin(NULL);
    is_automatic = false;
    p = ask(STREAM);
    LOOP_UNTIL(peer_has(p, ": loading"));
    err_set(&err, ERR_BAD_FILE, "The model is broken.");
    proxy_fail(asking, &err);
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_true(peer_has(
        p, "data: {\"error\":{\"message\":\"The model is broken.\",\"type\":"
           "\"invalid_request_error\",\"param\":null,\"code\":\"bad_file\"}}\n\n"));
    peer_close(p);

    /* the worker's own error, late */
    is_automatic = true;
    p = ask(STREAM);
    w = wait_request();
    LOOP_UNTIL(peer_has(p, ": waiting"));
    peer_say(w, "HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: "
                "45\r\n\r\n"
                "{\"error\":{\"code\":400,\n \"message\":\"too long\"}}");
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_true(
        peer_has(p, "data: {\"error\":{\"code\":400,\"message\":\"too long\"}}\n\n"));
    peer_close(p);

    /* and one that is no JSON */
    buf_clear(&w->got);
    p = ask(STREAM);
    w = wait_request();
    LOOP_UNTIL(peer_has(p, ": waiting"));
    peer_say(w, "HTTP/1.1 500 Bad\r\nContent-Length: 4\r\n\r\noops");
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_true(peer_has(p, "\"code\":\"worker_failed\"}}\n\n"));
    peer_close(p);
    end();
}

static void a_death_in_the_stream_is_an_event(void **state)
{
    struct peer *p;

    (void)state;
    begin(NULL);
    p = ask(STREAM);
    peer_say(wait_request(), EVENTS "9\r\ndata: 1\n\n\r\n7\r\ndata: {\r\n");
    LOOP_UNTIL(peer_has(p, "data: {"));
    peer_reset(worker.peers);
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_true(peer_has(p, "2\r\n\n\n\r\n")); /* out of the event that it was in */
    assert_true(peer_has(p, "data: {\"error\":{\"message\":\"The process on port "));
    assert_int_equal(acquired, 1); /* bytes came: not sent again */
    peer_close(p);
    end();
}

static void a_death_in_a_plain_answer_cuts_it(void **state)
{
    struct peer *p;

    (void)state;
    begin(NULL);
    p = ask("{}");
    peer_say(wait_request(), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    LOOP_UNTIL(peer_has(p, "half"));
    peer_close(worker.peers);
    LOOP_UNTIL(p->is_ended);
    assert_false(peer_has(p, "error"));
    LOOP_UNTIL(done);
    assert_int_equal(last_outcome, HTTP_ABORTED);
    peer_close(p);
    end();
}

static void malformed_answers_are_502(void **state)
{
    static const char *const bad[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: "
        "chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
        "upgrade\r\n\r\n",
        "garbage\r\n\r\n",
    };

    (void)state;
    begin(NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct peer *p = ask("{}");

        peer_say(wait_request(), bad[i]);
        LOOP_UNTIL(peer_has(p, "}}"));
        assert_int_equal(peer_status(p), 502);
        assert_int_equal(acquired, (int)i + 1); /* not worth another try */
        peer_close(p);
        script_drop_all(&worker);
    }
    end();
}

static void a_request_without_answer_is_sent_once_more(void **state)
{
    struct peer *p;
    int at = 0;

    (void)state;
    begin(NULL);
    p = ask("{\"n\": 1}");
    wait_request();
    at = worker.port;
    script_close(&worker); /* it died; nobody listens for a while */
    loop_for_ms(250);
    assert_int_equal(p->got.len, 0);
    worker = (struct script){.port = at};
    script_open(&worker, NULL);
    assert_true(peer_has(wait_request(), "{\"n\": 1}"));
    peer_say(worker.peers, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    LOOP_UNTIL(peer_has(p, "ok"));
    assert_true(acquired >= 2);
    peer_close(p);
    /* a second death is final */
    script_drop_all(&worker);
    loop_for_ms(10);
    p = ask("{}");
    wait_request();
    script_drop_all(&worker);
    wait_request();
    script_drop_all(&worker);
    LOOP_UNTIL(peer_has(p, "}}"));
    assert_int_equal(peer_status(p), 502);
    peer_close(p);
    end();
}

static void a_client_that_leaves_stops_the_worker(void **state)
{
    static const char *const stages[] = {NULL, "", EVENTS,
                                         EVENTS "9\r\ndata: 1\n\n\r\n"};

    (void)state;
    begin(NULL);
    for (int i = 0; i < 4; i++) {
        struct peer *p;

        is_automatic = stages[i] != NULL;
        done = 0;
        p = ask(STREAM);
        if (!stages[i]) {
            LOOP_UNTIL(asking);
        } else {
            peer_say(wait_request(), stages[i]);
            if (*stages[i])
                LOOP_UNTIL(peer_has(p, "\r\n\r\n"));
        }
        peer_close(p);
        LOOP_UNTIL(done);
        assert_int_equal(last_outcome, HTTP_CLIENT_GONE);
        if (stages[i])
            LOOP_UNTIL(worker.peers->is_ended);
        assert_int_equal(acquired, released);
        script_drop_all(&worker);
    }
    end();
}

/* The body is sent from where it was collected: nobody may touch it once the client is gone. */
static void a_client_may_leave_during_the_upload(void **state)
{
    enum { BYTES = 8 << 20 };
    char *body = mem_alloc(BYTES);
    struct buf head = {0};
    struct peer *p;

    (void)state;
    begin(NULL);
    memset(body, 'u', BYTES);
    p = peer_connect(port);
    buf_printf(&head, "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
               BYTES);
    peer_send(p, head.data, head.len);
    peer_send(p, body, BYTES);
    LOOP_UNTIL(worker.peers);
    peer_stall(worker.peers);
    loop_for_ms(50);
    assert_int_equal(acquired, 1);
    peer_close(p);
    LOOP_UNTIL(done);
    assert_int_equal(last_outcome, HTTP_CLIENT_GONE);
    peer_go_on(worker.peers);
    LOOP_UNTIL(worker.peers->is_ended);
    assert_true(worker.peers->got.len < BYTES);
    buf_release(&head);
    free(body);
    end();
}

static void a_silent_worker_is_504(void **state)
{
    struct peer *p;

    (void)state;
    begin(NULL);
    options.first_byte_timeout_ms = 100;
    p = ask("{}");
    LOOP_UNTIL(peer_has(p, "}}"));
    assert_int_equal(peer_status(p), 504);
    assert_true(peer_has(p, "\"code\":\"worker_timeout\""));
    assert_int_equal(acquired, 1);
    peer_close(p);
    end();
}

static void a_stalled_client_stalls_the_worker(void **state)
{
    static char block[65536];
    struct peer *p, *w;
    size_t sent = 0;
    int quiet = 0;

    (void)state;
    begin(NULL);
    memset(block, 'z', sizeof(block));
    p = ask("{}");
    w = wait_request();
    peer_say(w, "HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n");
    LOOP_UNTIL(peer_status(p));
    peer_stall(p);
    /* what the worker cannot send any more stays in its own write queue */
    while (quiet < 10 && sent < 268435456) {
        if (w->tcp.write_queue_size == 0) {
            peer_send(w, block, sizeof(block));
            sent += sizeof(block);
            quiet = 0;
        } else {
            quiet++;
        }
        loop_turn();
    }
    assert_true(sent < 64u << 20); /* kernel buffers and ours, not the whole of it */
    buf_release(&p->got);
    peer_go_on(p);
    while (sent < 268435456 && sent < 40u << 20) {
        if (w->tcp.write_queue_size == 0) {
            peer_send(w, block, sizeof(block));
            sent += sizeof(block);
        }
        loop_turn();
    }
    LOOP_UNTIL(p->got.len >= sent);
    peer_close(p);
    end();
}

static void fixed_and_chunked_bodies_pass_unchanged(void **state)
{
    struct peer *p, *w;
    struct buf body = {0}, chunks = {0};

    (void)state;
    begin(NULL);
    for (int i = 0; i < 300000; i++)
        buf_printf(&body, "%d ", i);
    buf_append_str(&body, "}");
    p = peer_connect(port);
    buf_append_str(
        &chunks, "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (size_t at = 0; at < body.len;) {
        size_t n = 1 + at * 7919 % 30000;

        n = n < body.len - at ? n : body.len - at;
        buf_printf(&chunks, "%zx\r\n", n);
        buf_append(&chunks, body.data + at, n);
        buf_append(&chunks, "\r\n", 2);
        at += n;
    }
    buf_append_str(&chunks, "0\r\n\r\n");
    peer_send(p, chunks.data, chunks.len);
    w = wait_request();
    assert_memory_equal(w->got.data + w->got.len - body.len, body.data, body.len);
    peer_say(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    LOOP_UNTIL(peer_has(p, "0\r\n\r\n"));
    assert_true(peer_has(p, "7\r\nabcdefg\r\n")); /* one read, one piece */
    peer_close(p);
    buf_release(&body);
    buf_release(&chunks);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_cleaned_both_ways),
        cmocka_unit_test(a_replaced_body_is_sent),
        cmocka_unit_test(tokens_pass_one_by_one),
        cmocka_unit_test(silence_is_filled_with_comments),
        cmocka_unit_test(comments_come_after_the_head_too),
        cmocka_unit_test(others_hear_nothing_before_the_worker),
        cmocka_unit_test(failures_after_our_head_are_events),
        cmocka_unit_test(a_death_in_the_stream_is_an_event),
        cmocka_unit_test(a_death_in_a_plain_answer_cuts_it),
        cmocka_unit_test(malformed_answers_are_502),
        cmocka_unit_test(a_request_without_answer_is_sent_once_more),
        cmocka_unit_test(a_client_that_leaves_stops_the_worker),
        cmocka_unit_test(a_client_may_leave_during_the_upload),
        cmocka_unit_test(a_silent_worker_is_504),
        cmocka_unit_test(a_stalled_client_stalls_the_worker),
        cmocka_unit_test(fixed_and_chunked_bodies_pass_unchanged),
    };

    return RUN_TESTS(tests);
}

/* The client against scripted servers that answer exactly what the test says. */
#include "loop.h"

static struct http_client *client;
static struct script script;
static const char *answer_text;  /* what the script says to each request */
static const char *answer_again; /* ... from the second connection on, when set */
static enum { THEN_STAY, THEN_CLOSE, THEN_RESET } then;
static int requests;

static void reply(struct peer *p)
{
    const char *end;

    while (p->got.len && (end = strstr(p->got.data, "\r\n\r\n"))) {
        const char *text =
            answer_again && script.accepted > 1 ? answer_again : answer_text;

        requests++;
        buf_consume(&p->got, (size_t)(end - p->got.data) + 4);
        if (text)
            peer_say(p, text);
        if (then == THEN_CLOSE) {
            loop_turn();
            peer_close(p);
            return;
        }
        if (then == THEN_RESET) {
            peer_reset(p);
            return;
        }
    }
}

static void begin(void (*on_bytes)(struct peer *p))
{
    loop_begin();
    client = http_client_new(loop);
    script = (struct script){0};
    script_open(&script, on_bytes);
    answer_text = answer_again = NULL;
    then = THEN_STAY;
    requests = 0;
}

static void set_flag(void *user)
{
    *(bool *)user = true;
}

static void end(void)
{
    bool is_closed = false;

    http_client_close(client, set_flag, &is_closed);
    LOOP_UNTIL(is_closed);
    script_close(&script);
    loop_end();
}

static struct http_call *call(struct answer *a, const char *method, const char *target)
{
    struct http_call_options o = {.port = script.port,
                                  .method = method,
                                  .target = target,
                                  .on = &answer_handlers,
                                  .user = a};

    return http_call_start(client, &o);
}

static void get(struct answer *a)
{
    answer_release(a);
    call(a, "GET", "/x");
    LOOP_UNTIL(a->is_done);
}

static void reuses_connections(void **state)
{
    struct answer a = {0};

    (void)state;
    begin(reply);
    answer_text =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/x\r\n\r\nok";
    for (int i = 0; i < 5; i++) {
        get(&a);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body.data, "ok");
        assert_string_equal(a.type, "text/x");
        assert_int_equal(a.heads + a.ends, 2);
    }
    assert_int_equal(script.accepted, 1);
    answer_text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    get(&a);
    get(&a);
    assert_int_equal(a.status, 200);
    assert_int_equal(script.accepted, 2);
    answer_release(&a);
    end();
}

static void reads_every_kind_of_body(void **state)
{
    struct answer a = {0};

    (void)state;
    begin(reply);
    answer_text =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n4;x\r\ndefg\r\n0\r\nT: 1\r\n\r\n";
    get(&a);
    assert_int_equal(a.heads, 1);
    assert_string_equal(a.body.data, "abcdefg");
    answer_text = "HTTP/1.1 204 No Content\r\n\r\n";
    get(&a);
    assert_int_equal(a.status, 204);
    assert_int_equal(script.accepted, 1);
    answer_release(&a);
    answer_text = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n";
    call(&a, "HEAD", "/");
    LOOP_UNTIL(a.is_done);
    assert_int_equal(a.ends, 1);
    assert_int_equal(script.accepted, 1);
    then = THEN_CLOSE;
    answer_text = "HTTP/1.0 200 OK\r\n\r\nuntil the end";
    get(&a);
    assert_int_equal(a.ends, 1);
    assert_string_equal(a.body.data, "until the end");
    answer_release(&a);
    end();
}

static void malformed_answers_are_errors(void **state)
{
    static const char *const bad[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: "
        "chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "RTSP/1.0 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "what?\r\n\r\n",
    };
    static const char bad_chunk[] =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n";
    struct answer a = {0};

    (void)state;
    begin(reply);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        answer_text = bad[i];
        get(&a);
        if (a.errors != 1 || a.heads || a.failure != HTTP_MALFORMED ||
            a.err.code != ERR_BAD_GATEWAY)
            fail_msg("accepted: %s", bad[i]);
    }
    answer_text = bad_chunk;
    get(&a);
    assert_int_equal(a.heads, 1); /* the head was good */
    assert_int_equal(a.errors, 1);
    assert_int_equal(a.failure, HTTP_MALFORMED);
    LOOP_UNTIL(http_client_connections(client) == 0);
    answer_release(&a);
    end();
}

static void an_answer_that_breaks_off_is_an_error(void **state)
{
    static const char *const cut[] = {
        "",
        "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    };
    struct answer a = {0};

    (void)state;
    begin(reply);
    then = THEN_CLOSE;
    for (size_t i = 0; i < 4; i++) {
        answer_text = cut[i];
        get(&a);
        assert_int_equal(a.errors, 1);
        assert_int_equal(a.ends, 0);
        assert_int_equal(a.failure, HTTP_BROKEN);
        assert_int_equal(requests,
                         (int)i + 1); /* never sent again: the connection was new */
    }
    answer_release(&a);
    end();
}

static void a_dead_pooled_connection_is_replaced(void **state)
{
    struct answer a = {0};

    (void)state;
    begin(reply);
    answer_text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    get(&a);
    /* the next request on it is met with a reset */
    then = THEN_RESET;
    answer_text = NULL;
    answer_release(&a);
    call(&a, "GET", "/x");
    LOOP_UNTIL(requests == 2);
    then = THEN_STAY;
    answer_text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain";
    LOOP_UNTIL(a.is_done);
    assert_int_equal(a.ends, 1);
    assert_string_equal(a.body.data, "again");
    assert_int_equal(requests, 3);
    assert_int_equal(script.accepted, 2);
    /* once only: the second connection is new */
    then = THEN_RESET;
    answer_text = NULL;
    get(&a);
    assert_int_equal(a.errors, 1);
    assert_int_equal(a.failure, HTTP_BROKEN);
    assert_int_equal(requests, 5);
    answer_release(&a);
    end();
}

static void idle_connections_are_watched(void **state)
{
    struct answer a = {0}, b = {0};

    (void)state;
    begin(reply);
    answer_text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    call(&a, "GET", "/");
    call(&b, "GET", "/");
    LOOP_UNTIL(a.is_done && b.is_done);
    assert_int_equal(http_client_connections(client), 2);
    peer_close(script.peers);
    LOOP_UNTIL(http_client_connections(client) == 1);
    peer_say(script.peers, "HTTP/1.1 200 OK\r\n\r\n"); /* unasked */
    LOOP_UNTIL(http_client_connections(client) == 0);
    peer_close(script.peers); /* ours is closed, so this leaves none half open */
    loop_for_ms(5);
    assert_int_equal(sockets_in_state("08", script.port), 0);
    get(&a);
    http_client_forget(client, NULL, script.port);
    LOOP_UNTIL(http_client_connections(client) == 0);
    answer_release(&a);
    answer_release(&b);
    end();
}

/* A server with one thread per connection would never come to the second call. */
static void idle_connections_make_room(void **state)
{
    struct answer a = {0}, b = {0}, waiting = {0};

    (void)state;
    begin(reply);
    answer_text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    call(&a, "GET", "/");
    call(&b, "GET", "/");
    LOOP_UNTIL(a.is_done && b.is_done);
    answer_text = NULL;
    call(&waiting, "GET", "/");
    assert_int_equal(http_client_connections(client), 2);
    LOOP_UNTIL(http_client_connections(client) == 1);
    assert_false(waiting.is_done);
    answer_release(&a);
    answer_release(&b);
    end();
}

static void a_closed_port_is_said(void **state)
{
    struct answer a = {0};
    int port;

    (void)state;
    begin(reply);
    port = script.port;
    script_close(&script);
    call(&a, "GET", "/");
    assert_false(a.is_done); /* never from inside the call */
    LOOP_UNTIL(a.is_done);
    assert_int_equal(a.failure, HTTP_UNREACHED);
    assert_int_equal(a.err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(a.err.message, "refused"));
    answer_release(&a);
    script = (struct script){.port = port};
    script_open(&script, reply);
    struct http_call_options o = {.host = "not-an-address",
                                  .port = port,
                                  .target = "/",
                                  .on = &answer_handlers,
                                  .user = &a};
    http_call_start(client, &o);
    LOOP_UNTIL(a.is_done);
    assert_int_equal(a.failure, HTTP_UNREACHED);
    end();
}

static void silence_has_a_limit(void **state)
{
    struct answer a = {0};
    struct http_call_options o = {.target = "/",
                                  .first_byte_timeout_ms = 100,
                                  .on = &answer_handlers,
                                  .user = &a};

    (void)state;
    begin(reply);
    o.port = script.port;
    http_call_start(client, &o);
    LOOP_UNTIL(a.is_done);
    assert_int_equal(a.failure, HTTP_SILENT);
    assert_int_equal(a.err.code, ERR_GATEWAY_TIMEOUT);
    assert_non_null(strstr(a.err.message, "within 0.1 seconds"));
    /* the head came in time: the body may take longer */
    answer_release(&a);
    answer_text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    o.first_byte_timeout_ms = 1000;
    http_call_start(client, &o);
    LOOP_UNTIL(a.heads);
    loop_for_ms(1500);
    assert_false(a.is_done);
    peer_say(script.peers, "ok");
    LOOP_UNTIL(a.is_done);
    assert_int_equal(a.ends, 1);
    answer_release(&a);
    end();
}

static void a_cancelled_call_is_never_heard_of(void **state)
{
    struct answer a = {0};
    struct http_call *c;

    (void)state;
    begin(reply);
    http_call_cancel(call(&a, "GET", "/")); /* connecting */
    c = call(&a, "GET", "/");
    LOOP_UNTIL(requests == 1);
    http_call_cancel(c); /* sent */
    LOOP_UNTIL(http_client_connections(client) == 0);
    for (struct peer *p = script.peers; p; p = p->next)
        LOOP_UNTIL(p->is_ended);
    assert_int_equal(a.heads + a.ends + a.errors, 0);
    end();
}

static struct http_call *pausing;
static int pauses;

static void on_data_pause(void *user, const char *data, size_t len)
{
    struct answer *a = user;

    assert_int_equal(pauses, 0); /* never while paused */
    buf_append(&a->body, data, len);
    http_call_pause(pausing);
    pauses++;
}

static void on_head_pause(void *user, const struct http_answer *head)
{
    answer_handlers.on_head(user, head);
    http_call_pause(pausing);
    pauses++;
}

static void on_end_unpaused(void *user)
{
    assert_int_equal(pauses, 0);
    answer_handlers.on_end(user);
}

static void a_paused_call_waits(void **state)
{
    struct answer a = {0};
    struct http_call_handlers on = answer_handlers;
    struct http_call_options o = {.target = "/", .on = &on, .user = &a};
    struct buf big = {0};

    (void)state;
    begin(reply);
    on.on_head = on_head_pause;
    on.on_data = on_data_pause;
    on.on_end = on_end_unpaused;
    o.port = script.port;
    buf_append_str(&big, "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n");
    for (int i = 0; i < 300; i++) {
        buf_reserve(&big, 10000);
        memset(big.data + big.len, '0' + i % 10, 10000);
        big.len += 10000;
        big.data[big.len] = '\0';
    }
    answer_text = big.data;
    pauses = 0;
    pausing = http_call_start(client, &o);
    while (!a.is_done) {
        size_t before = a.body.len;

        LOOP_UNTIL(pauses || a.is_done);
        if (before < 200000)
            loop_for_ms(6);
        if (a.is_done)
            break;
        pauses = 0;
        http_call_resume(pausing);
    }
    assert_int_equal(a.body.len, 3000000);
    assert_int_equal(a.body.data[2999999], '9');
    answer_release(&a);
    buf_release(&big);
    end();
}

static void collect(struct peer *p)
{
    if (strstr(p->got.data, "\r\n0\r\n\r\n"))
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

static void bodies_can_be_streamed(void **state)
{
    struct answer a = {0};
    struct http_call_options o = {.method = "POST",
                                  .target = "/up",
                                  .body_len = HTTP_BODY_STREAMED,
                                  .on = &answer_handlers,
                                  .user = &a};
    struct http_call *c;

    (void)state;
    begin(collect);
    o.port = script.port;
    c = http_call_start(client, &o);
    http_call_write(c, "early ", 6);
    LOOP_UNTIL(script.peers && script.peers->got.len);
    http_call_write(c, "late", 4);
    http_call_finish(c);
    LOOP_UNTIL(a.is_done);
    assert_int_equal(a.status, 200);
    assert_true(peer_has(script.peers, "transfer-encoding: chunked\r\n\r\n"
                                       "6\r\nearly \r\n4\r\nlate\r\n0\r\n\r\n"));
    assert_int_equal(http_client_connections(client), 1);
    answer_release(&a);
    end();
}

struct fetched {
    struct err err;
    char body[64];
    int status, count;
};

static void on_fetched(void *user, const struct err *err, int status, const char *body,
                       size_t len)
{
    struct fetched *f = user;

    f->count++;
    f->status = status;
    f->err = err ? *err : (struct err){0};
    snprintf(f->body, sizeof(f->body), "%.*s", (int)len, body);
}

static void fetch_collects(void **state)
{
    struct fetched f = {0};
    struct http_fetch_options o = {.target = "/health",
                                   .bearer = "secret",
                                   .body = "{}",
                                   .body_len = 2,
                                   .method = "POST"};

    (void)state;
    begin(collect);
    o.port = script.port;
    http_fetch_start(client, &o, on_fetched, &f);
    LOOP_UNTIL(script.peers && peer_has(script.peers, "{}"));
    assert_true(peer_has(script.peers, "POST /health HTTP/1.1\r\nhost: 127.0.0.1:"));
    assert_true(peer_has(script.peers, "authorization: Bearer secret\r\n"));
    assert_true(peer_has(script.peers, "content-type: application/json\r\n"));
    peer_say(script.peers, "HTTP/1.1 503 No\r\nContent-Length: 7\r\n\r\nloading");
    LOOP_UNTIL(f.count);
    assert_int_equal(f.status, 503);
    assert_string_equal(f.body, "loading");

    o.max_bytes = 3;
    buf_clear(&script.peers->got);
    http_fetch_start(client, &o, on_fetched, &f);
    LOOP_UNTIL(peer_has(script.peers, "{}"));
    peer_say(script.peers, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ntoolong");
    LOOP_UNTIL(f.count == 2);
    assert_int_equal(f.err.code, ERR_TOO_LARGE);

    o.timeout_ms = 50;
    http_fetch_start(client, &o, on_fetched, &f);
    LOOP_UNTIL(f.count == 3);
    assert_int_equal(f.err.code, ERR_GATEWAY_TIMEOUT);
    http_fetch_cancel(http_fetch_start(client, &o, on_fetched, &f));
    loop_for_ms(100);
    assert_int_equal(f.count, 3);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reuses_connections),
        cmocka_unit_test(reads_every_kind_of_body),
        cmocka_unit_test(malformed_answers_are_errors),
        cmocka_unit_test(an_answer_that_breaks_off_is_an_error),
        cmocka_unit_test(a_dead_pooled_connection_is_replaced),
        cmocka_unit_test(idle_connections_are_watched),
        cmocka_unit_test(idle_connections_make_room),
        cmocka_unit_test(a_closed_port_is_said),
        cmocka_unit_test(silence_has_a_limit),
        cmocka_unit_test(a_cancelled_call_is_never_heard_of),
        cmocka_unit_test(a_paused_call_waits),
        cmocka_unit_test(bodies_can_be_streamed),
        cmocka_unit_test(fetch_collects),
    };

    return RUN_TESTS(tests);
}

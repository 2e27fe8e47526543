/* The parser: the same message must be read the same however it is cut, bodies come out in one piece per
 * feed, and what follows a message is left alone. */
#include "unit.h"

#include "base/mem.h"
#include "http/message.h"

static const struct message_limits limits = {.head_bytes = 4096, .header_count = 20};

/* Feeds all, cut into pieces of `step`, collecting the body; returns the last event. */
static enum message_event feed_all(struct message *m, const char *text, size_t len,
                                   size_t step, struct buf *body, size_t *ret_used)
{
    enum message_event event = MESSAGE_MORE;
    size_t used = 0;

    for (;;) {
        size_t n = len - used < step ? len - used : step;
        char *copy = mem_alloc(n + 1);

        memcpy(copy, text + used, n);
        used += message_feed(m, copy, n, &event);
        if (m->body_len && event != MESSAGE_BAD)
            buf_append(body, m->body, m->body_len);
        free(copy);
        if (event == MESSAGE_END || event == MESSAGE_BAD ||
            (used == len && event == MESSAGE_MORE))
            break;
    }
    *ret_used = used;
    return event;
}

static const char chunked[] =
    "\r\nPOST /a%20b/c?x=1&y HTTP/1.1\r\nHost: localhost:1\r\n"
    "Empty:\r\nPadded:  a b \t\r\n"
    "Transfer-Encoding: Chunked\r\n\r\n"
    "5;ext=1\r\nhello\r\n1\r\n,\r\n6\r\n world\r\n0\r\n"
    "Trailer: gone\r\n\r\n";

static void reads_the_same_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t step = 1; step <= sizeof(chunked); step++) {
        struct message m;
        struct buf body = {0};
        size_t used;

        message_init(&m, MESSAGE_REQUEST, &limits);
        assert_int_equal(feed_all(&m, chunked, sizeof(chunked) - 1, step, &body, &used),
                         MESSAGE_END);
        assert_int_equal(used, sizeof(chunked) - 1);
        assert_string_equal(buf_str(&body), "hello, world");
        assert_string_equal(message_target(&m), "/a%20b/c?x=1&y");
        assert_string_equal(m.text.data + m.path, "/a b/c");
        assert_string_equal(m.text.data + m.query, "x=1&y");
        assert_string_equal(message_field_get(&m, "empty"), "");
        assert_string_equal(message_field_get(&m, "PADDED"), "a b");
        assert_null(message_field_get(&m, "trailer"));
        assert_int_equal(m.length, -1);
        assert_true(m.keep_alive);
        buf_release(&body);
        message_release(&m);
    }
}

static void body_of_one_feed_is_one_piece(void **state)
{
    struct message m;
    enum message_event event;
    char text[sizeof(chunked)];
    size_t n;

    (void)state;
    memcpy(text, chunked, sizeof(chunked));
    message_init(&m, MESSAGE_REQUEST, &limits);
    n = message_feed(&m, text, sizeof(chunked) - 1, &event);
    assert_int_equal(event, MESSAGE_HEAD);
    assert_int_equal(m.body_len, 0);
    n += message_feed(&m, text + n, sizeof(chunked) - 1 - n, &event);
    assert_int_equal(event, MESSAGE_END);
    assert_int_equal(m.body_len, 12);
    assert_memory_equal(m.body, "hello, world", 12);
    message_release(&m);
}

static void leaves_the_next_message_alone(void **state)
{
    static const char two[] =
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
        "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        "GET /3 HTTP/1.0\r\n\r\n";

    (void)state;
    for (size_t step = 1; step < sizeof(two); step++) {
        struct message m;
        struct buf body = {0};
        size_t used, at = 0;

        message_init(&m, MESSAGE_REQUEST, &limits);
        for (int i = 1; i <= 3; i++) {
            char path[] = "/0";

            path[1] = (char)('0' + i);
            assert_int_equal(
                feed_all(&m, two + at, sizeof(two) - 1 - at, step, &body, &used),
                MESSAGE_END);
            at += used;
            assert_string_equal(message_target(&m), path);
            assert_int_equal(m.keep_alive, i < 3);
            message_next(&m);
        }
        assert_int_equal(at, sizeof(two) - 1);
        assert_string_equal(buf_str(&body), "abc");
        buf_release(&body);
        message_release(&m);
    }
}

static void limits_hold(void **state)
{
    struct message m;
    struct buf body = {0}, text = {0};
    size_t used;

    (void)state;
    buf_append_str(&text, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    for (int i = 0; i < 5000; i++)
        buf_append(&text, "a", 1);
    message_init(&m, MESSAGE_REQUEST, &limits);
    assert_int_equal(feed_all(&m, text.data, text.len, 100, &body, &used), MESSAGE_BAD);
    assert_int_equal(m.bad, ERR_HEADERS);
    message_release(&m);

    buf_clear(&text);
    buf_append_str(&text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 20; i++)
        buf_printf(&text, "X%d: 1\r\n", i);
    message_init(&m, MESSAGE_REQUEST, &limits);
    assert_int_equal(feed_all(&m, text.data, text.len, 7, &body, &used), MESSAGE_BAD);
    assert_int_equal(m.bad, ERR_HEADERS);
    message_release(&m);

    buf_clear(&text);
    buf_append_str(&text,
                   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 5000; i++)
        buf_append_str(&text, "1;aaaaaaaa\r\nx\r\n");
    message_init(&m, MESSAGE_REQUEST, &limits);
    assert_int_equal(feed_all(&m, text.data, text.len, 4096, &body, &used),
                     MESSAGE_BAD);
    message_release(&m);
    buf_release(&body);
    buf_release(&text);
}

static enum message_event read_answer(const char *text, struct buf *body, bool at_eof,
                                      struct message *m)
{
    size_t used;
    enum message_event event;

    message_init(m, MESSAGE_ANSWER, &limits);
    event = feed_all(m, text, strlen(text), 3, body, &used);
    return event == MESSAGE_MORE && at_eof ? message_eof(m) : event;
}

static void answers_end_where_they_should(void **state)
{
    struct message m;
    struct buf body = {0};

    (void)state;
    assert_int_equal(
        read_answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", &body, false, &m),
        MESSAGE_END);
    assert_string_equal(buf_str(&body), "ab");
    message_release(&m);
    assert_int_equal(
        read_answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", &body,
                    false, &m),
        MESSAGE_END);
    assert_int_equal(m.length, 9);
    message_release(&m);
    assert_int_equal(read_answer("HTTP/1.0 200 OK\r\n\r\nrest", &body, false, &m),
                     MESSAGE_MORE);
    assert_int_equal(message_eof(&m), MESSAGE_END);
    assert_false(m.keep_alive);
    message_release(&m);
    assert_int_equal(
        read_answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", &body, true, &m),
        MESSAGE_BAD);
    message_release(&m);
    assert_int_equal(read_answer("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n"
                                 "Connection: upgrade\r\n\r\n",
                                 &body, false, &m),
                     MESSAGE_BAD);
    message_release(&m);
    buf_release(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_same_however_it_is_cut),
        cmocka_unit_test(body_of_one_feed_is_one_piece),
        cmocka_unit_test(leaves_the_next_message_alone),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(answers_end_where_they_should),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

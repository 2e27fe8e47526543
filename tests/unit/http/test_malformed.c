/* What must be refused, and that it never reaches a handler. Each line is sent on a connection of its own,
 * once whole and once byte by byte. What differs between programs is how requests are smuggled, so that
 * everything ambiguous is refused rather than repaired. */
#include "loop.h"

#define HOST "Host: a\r\n"
#define POST(fields) "POST /p HTTP/1.1\r\n" HOST fields "\r\n"
#define GET(fields) "GET /p HTTP/1.1\r\n" HOST fields "\r\n"
#define HIDDEN "GET /hidden HTTP/1.1\r\n" HOST "\r\n"

struct sample {
    const char *name, *text;
    size_t len;
};
#define SAMPLE(name, text)                                                             \
    {                                                                                  \
        name, text, sizeof(text) - 1                                                   \
    }

static const struct sample refused[] = {
    /* two lengths */
    SAMPLE(
        "length and chunks",
        POST("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") "0\r\n\r\n" HIDDEN),
    SAMPLE(
        "chunks and length",
        POST("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") "0\r\n\r\n" HIDDEN),
    SAMPLE("two lengths", POST("Content-Length: 0\r\nContent-Length: 4\r\n") "abcd"),
    SAMPLE("the same length twice",
           POST("Content-Length: 4\r\nContent-Length: 4\r\n") "abcd"),
    SAMPLE("a list of lengths", POST("Content-Length: 4, 4\r\n") "abcd"),
    SAMPLE("a signed length", POST("Content-Length: +4\r\n") "abcd"),
    SAMPLE("a negative length", POST("Content-Length: -1\r\n") "abcd"),
    SAMPLE("a hexadecimal length", POST("Content-Length: 0x4\r\n") "abcd"),
    SAMPLE("a length with more", POST("Content-Length: 4 x\r\n") "abcd"),
    SAMPLE("a length beyond 64 bits",
           POST("Content-Length: 99999999999999999999999\r\n") "a"),
    SAMPLE("a length beyond 63 bits",
           POST("Content-Length: 18446744073709551615\r\n") "a"),
    SAMPLE("space before the colon", POST("Content-Length : 4\r\n") "abcd"),
    /* transfer encodings */
    SAMPLE("encoding, space, colon",
           POST("Transfer-Encoding : chunked\r\n") "0\r\n\r\n"),
    SAMPLE("an unknown encoding",
           POST("Transfer-Encoding: xchunked\r\n") "0\r\n\r\n" HIDDEN),
    SAMPLE("chunked, then identity",
           POST("Transfer-Encoding: chunked, identity\r\n") "0\r\n\r\n" HIDDEN),
    SAMPLE("gzip, then chunked",
           POST("Transfer-Encoding: gzip, chunked\r\n") "0\r\n\r\n"),
    SAMPLE("chunked twice",
           POST("Transfer-Encoding: chunked, chunked\r\n") "0\r\n\r\n"),
    SAMPLE("a vertical tab", POST("Transfer-Encoding: \x0b"
                                  "chunked\r\n") "0\r\n\r\n"),
    SAMPLE("two encodings",
           POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n") "0\r\n\r\n"),
    SAMPLE("chunks in HTTP/1.0",
           "POST /p HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    /* chunks */
    SAMPLE("a chunk beyond 64 bits",
           POST("Transfer-Encoding: chunked\r\n") "fffffffffffffffff5\r\nabcde\r\n0\r\n"
                                                  "\r\n"),
    SAMPLE("a prefixed chunk size",
           POST("Transfer-Encoding: chunked\r\n") "0x5\r\nabcde\r\n0\r\n\r\n"),
    SAMPLE("a negative chunk size",
           POST("Transfer-Encoding: chunked\r\n") "-5\r\nabcde\r\n0\r\n\r\n"),
    SAMPLE("chunk lines that end in LF",
           POST("Transfer-Encoding: chunked\r\n") "5\nabcde\n0\n\n"),
    SAMPLE("an extension that ends in LF",
           POST("Transfer-Encoding: chunked\r\n") "5;a\nX\r\nabcde\r\n0\r\n\r\n"),
    SAMPLE("a chunk longer than it says",
           POST("Transfer-Encoding: chunked\r\n") "5\r\nabcdeXX0\r\n\r\n"),
    /* lines and fields */
    SAMPLE("a folded line", GET("X: a\r\n b\r\n")),
    SAMPLE("lines that end in LF", "GET /p HTTP/1.1\nHost: a\n\n"),
    SAMPLE("a bare CR", GET("X: a\rY: b\r\n")),
    SAMPLE("a NUL in a value", GET("X: a\0b\r\n")),
    SAMPLE("a control character in a name", GET("X\x01Y: b\r\n")),
    SAMPLE("a control character in a value", GET("X: a\x02"
                                                 "b\r\n")),
    SAMPLE("a space in a name", GET("X Y: b\r\n")),
    SAMPLE("an empty name", GET(": b\r\n")),
    SAMPLE("a line without a colon", GET("justtext\r\n")),
    SAMPLE("space before the first field", "GET /p HTTP/1.1\r\n X: 1\r\n" HOST "\r\n"),
    SAMPLE("no host", "GET /p HTTP/1.1\r\n\r\n"),
    SAMPLE("two hosts", GET("Host: b\r\n")),
    SAMPLE("a host that is none", "GET /p HTTP/1.1\r\nHost: a b\r\n\r\n"),
    SAMPLE("a host with a path", "GET /p HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    SAMPLE("an unknown expectation", GET("Expect: the-unexpected\r\n")),
    /* request lines */
    SAMPLE("an absolute target", "GET http://evil/p HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a star for GET", "GET * HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a space in the target", "GET /p q HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("8-bit bytes in the target", "GET /p\xff\xfe HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a NUL in the target", "GET /p\0q HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a tab in the target", "GET /p\tq HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a fragment", "GET /p#q HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("climbing", "GET /../p HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("hidden climbing", "GET /a/%2e%2E/p HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("climbing with backslashes", "GET /a%5c..%5cp HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("an escaped NUL", "GET /a%00 HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a broken escape", "GET /a%4 HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a method in lower case", "get /p HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("an unknown method", "FROB /p HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("CONNECT", "CONNECT a:80 HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("TRACE", "TRACE /p HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("HTTP/1.2", "GET /p HTTP/1.2\r\n" HOST "\r\n"),
    SAMPLE("HTTP/2.0", "GET /p HTTP/2.0\r\n" HOST "\r\n"),
    SAMPLE("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    SAMPLE("HTTP/0.9", "GET /p\r\n\r\n"),
    SAMPLE("HTTP/0.9 with fields", "GET /p\r\n" HOST "Content-Length: 5\r\n\r\nhello"),
    SAMPLE("HTTP/0.9 with LF", "GET /p\n" HOST "Content-Length: 5\r\n\r\nhello"),
    SAMPLE("a version with more", "GET /p HTTP/1.1x\r\n" HOST "\r\n"),
    SAMPLE("RTSP", "GET /p RTSP/1.0\r\n" HOST "\r\n"),
    SAMPLE("TLS",
           "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on, and on and on"),
};

/* Odd, but with one meaning only: these are answered as what they are. */
static const struct sample accepted[] = {
    SAMPLE("blank lines first", "\r\n\r\nGET /p HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a body with GET",
           "GET /p HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\nabcd"),
    SAMPLE("an upgrade that is not followed",
           GET("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "
               "13\r\n")),
    SAMPLE("an upgrade to HTTP/2",
           GET("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
               "A\r\n")),
    SAMPLE("empty host", "GET /p HTTP/1.1\r\nHost:\r\n\r\n"),
    SAMPLE("an address as host", "GET /p HTTP/1.1\r\nHost: [::1]:1234\r\n\r\n"),
    SAMPLE("8-bit bytes in a value", GET("X: caf\xc3\xa9\r\n")),
    SAMPLE("OPTIONS *", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n"),
    SAMPLE("a trailer",
           POST("Transfer-Encoding: chunked\r\n") "1\r\nx\r\n0\r\nT: 1\r\n\r\n"),
};

static int heads, bodies;

static void on_body(struct http_exchange *x, void *user, const char *data, size_t len)
{
    (void)user;
    bodies++;
    http_respond(x, 200, "text/plain", data, len);
}

static void handle(void *user, struct http_exchange *x)
{
    (void)user;
    heads++;
    http_collect_body(x, 0, on_body);
}

static void send_sample(struct peer *p, const struct sample *s, int way)
{
    if (way == 0) {
        peer_send(p, s->text, s->len);
        return;
    }
    for (size_t i = 0; i < s->len && !p->is_ended && !peer_status(p); i++) {
        peer_send(p, s->text + i, 1);
        loop_turn();
    }
}

static int status_of(int port, const struct sample *s, int way)
{
    struct peer *p = peer_connect(port);
    int status;

    send_sample(p, s, way);
    for (uint64_t since = uv_hrtime(); !peer_status(p) && !loop_is_late(since);)
        loop_turn();
    status = peer_status(p);
    peer_close(p);
    return status;
}

static void set_flag(void *user)
{
    *(bool *)user = true;
}

static void check(const struct sample *samples, size_t count, bool is_refused)
{
    struct http_server_options o = {.on_request = handle};
    struct http_server *server;
    bool is_closed = false;
    struct err err;

    loop_begin();
    server = http_server_new(loop, &o);
    assert_int_equal(http_server_listen(server, "127.0.0.1", 0, &err), 0);
    for (size_t i = 0; i < count; i++) {
        for (int way = 0; way < 2; way++) {
            int status;

            heads = bodies = 0;
            status = status_of(http_server_port(server), &samples[i], way);
            if (is_refused ? status < 400 || status > 505 || bodies
                           : status != 200 || bodies != 1)
                fail_msg("%s: status %d, %d bodies", samples[i].name, status, bodies);
        }
    }
    http_server_close(server, 0, set_flag, &is_closed);
    LOOP_UNTIL(is_closed);
    loop_end();
}

static void malformed_requests_are_refused(void **state)
{
    (void)state;
    check(refused, sizeof(refused) / sizeof(refused[0]), true);
}

static void odd_but_clear_ones_are_served(void **state)
{
    (void)state;
    check(accepted, sizeof(accepted) / sizeof(accepted[0]), false);
}

static void oversized_heads_are_refused(void **state)
{
    struct buf big = {0}, many = {0};
    struct sample samples[2];

    (void)state;
    buf_append_str(&big, "GET /p HTTP/1.1\r\n" HOST "X: ");
    for (int i = 0; i < 100 * 1024; i++)
        buf_append(&big, "a", 1);
    buf_append_str(&big, "\r\n\r\n");
    buf_append_str(&many, "GET /p HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 300; i++)
        buf_printf(&many, "X%d: 1\r\n", i);
    buf_append_str(&many, "\r\n");
    samples[0] = (struct sample){"a head of 100 KiB", big.data, big.len};
    samples[1] = (struct sample){"300 fields", many.data, many.len};
    check(samples, 2, true);
    buf_release(&big);
    buf_release(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_requests_are_refused),
        cmocka_unit_test(odd_but_clear_ones_are_served),
        cmocka_unit_test(oversized_heads_are_refused),
    };

    return RUN_TESTS(tests);
}

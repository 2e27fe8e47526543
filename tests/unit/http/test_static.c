/* Files below a folder, and CORS: what a browser needs and what it must not get. */
#include "loop.h"

#include "base/file.h"
#include "http/cors.h"
#include "http/static.h"

#include <sys/stat.h>
#include <unistd.h>

static struct http_server *server;
static struct http_static *files;
static const char *const allowed[] = {"https://studio.example"};
static const struct http_cors cors = {allowed, 1};
static char folder[] = "/tmp/mysti-static-XXXXXX";

static void handle(void *user, struct http_exchange *x)
{
    (void)user;
    if (!http_cors_handle(x, &cors))
        http_static_serve(files, x, http_path(x), NULL);
}

static void set_flag(void *user)
{
    *(bool *)user = true;
}

static void write_file(const char *name, const char *text, size_t len)
{
    char *path = file_join(folder, name);
    struct err err;

    if (file_write_atomic(path, text, len, 0644, &err))
        fail_msg("%s", err.message);
    free(path);
}

static void link_file(const char *to, const char *name)
{
    char *path = file_join(folder, name);

    unlink(path);
    assert_int_equal(symlink(to, path), 0);
    free(path);
}

static int begin(void **state)
{
    struct http_server_options o = {.on_request = handle};
    struct err err;
    char *sub;
    char *big = mem_zalloc(3000000);

    (void)state;
    assert_non_null(mkdtemp(folder));
    sub = file_join(folder, "root/sub");
    assert_int_equal(file_make_folder(sub, 0755, &err), 0);
    free(sub);
    write_file("secret.txt", "secret", 6);
    write_file("root/index.html", "<h1>page</h1>", 13);
    write_file("root/sub/index.html", "<h1>sub</h1>", 12);
    write_file("root/app.js", "1", 1);
    write_file("root/.hidden", "no", 2);
    write_file("root/empty.css", "", 0);
    memset(big, 'b', 3000000);
    write_file("root/big.bin", big, 3000000);
    free(big);
    link_file("../secret.txt", "root/out.txt");
    link_file("/etc", "root/etc");
    link_file("app.js", "root/in.js");
    sub = file_join(folder, "root");
    loop_begin();
    server = http_server_new(loop, &o);
    files = http_static_new(loop, sub);
    free(sub);
    return http_server_listen(server, "127.0.0.1", 0, &err);
}

static int end(void **state)
{
    bool is_closed = false;
    char *command = mem_printf("rm -r %s", folder);

    (void)state;
    http_server_close(server, 0, set_flag, &is_closed);
    LOOP_UNTIL(is_closed);
    http_static_free(files);
    loop_end();
    assert_int_equal(system(command), 0);
    free(command);
    return 0;
}

static struct peer *request(const char *method, const char *path, const char *fields)
{
    struct peer *p = peer_connect(http_server_port(server));
    struct buf b = {0};

    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n%s\r\n", method,
               path, fields);
    peer_say(p, b.data);
    buf_release(&b);
    LOOP_UNTIL(p->is_ended);
    return p;
}

static void expect(const char *path, int status, const char *text)
{
    struct peer *p = request("GET", path, "");

    if (peer_status(p) != status || !peer_has(p, text))
        fail_msg("%s: %.*s", path, (int)p->got.len, p->got.data);
    assert_false(peer_has(p, "secret\n") || peer_has(p, "root:x:"));
    peer_close(p);
}

static void serves_what_is_below(void **state)
{
    (void)state;
    expect("/", 200, "\r\n\r\n<h1>page</h1>");
    expect("/", 200, "content-type: text/html; charset=utf-8\r\n");
    expect("/index.html?x", 200, "x-content-type-options: nosniff");
    expect("/sub/", 200, "<h1>sub</h1>");
    expect("/app.js", 200, "content-type: text/javascript");
    expect("/empty.css", 200, "content-length: 0\r\n");
    expect("/in.js", 200, "\r\n\r\n1");
}

static void serves_nothing_else(void **state)
{
    (void)state;
    expect("/none", 404, "There is no 'none' here.");
    expect("/sub", 404, "}}");
    expect("/out.txt", 404, "}}");
    expect("/etc/passwd", 404, "}}");
    expect("/.hidden", 404, "}}");
    expect("/../secret.txt", 400, "}}");
    expect("/sub/%2e%2e/%2e%2e/secret.txt", 400, "}}");
    expect("//etc/passwd", 404, "}}");
    expect("/app.js/x", 404, "}}");
}

static void large_files_come_whole(void **state)
{
    struct peer *p = request("GET", "/big.bin", "");
    struct peer *gone;

    (void)state;
    assert_int_equal(peer_status(p), 200);
    assert_true(p->got.len > 3000000 && p->got.len < 3000600);
    peer_close(p);
    p = request("HEAD", "/big.bin", "");
    assert_true(peer_has(p, "content-length: 3000000\r\n"));
    assert_true(p->got.len < 600);
    peer_close(p);
    /* clients that leave in the middle */
    for (int i = 0; i < 20; i++) {
        gone = peer_connect(http_server_port(server));
        peer_say(gone, "GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        for (int n = 0; n < i % 4; n++)
            loop_turn();
        peer_close(gone);
    }
    LOOP_UNTIL(http_server_connections(server) == 0);
}

static void unchanged_files_are_304(void **state)
{
    struct peer *p = request("GET", "/app.js", "");
    char *etag = strstr(p->got.data, "etag: "), *date, fields[200];

    (void)state;
    assert_non_null(etag);
    date = strstr(p->got.data, "last-modified: ") + 15;
    snprintf(fields, sizeof(fields), "If-None-Match: W/\"x\", %.*s\r\n",
             (int)strcspn(etag + 6, "\r"), etag + 6);
    peer_close(p);
    p = request("GET", "/app.js", fields);
    assert_int_equal(peer_status(p), 304);
    assert_false(peer_has(p, "content-length"));
    date = strstr(p->got.data, "last-modified: ") + 15;
    snprintf(fields, sizeof(fields), "If-Modified-Since: %.*s\r\n",
             (int)strcspn(date, "\r"), date);
    peer_close(p);
    p = request("GET", "/app.js", fields);
    assert_int_equal(peer_status(p), 304);
    peer_close(p);
    p = request("GET", "/app.js", "If-None-Match: \"other\"\r\n");
    assert_int_equal(peer_status(p), 200);
    peer_close(p);
    p = request("POST", "/app.js", "");
    assert_int_equal(peer_status(p), 405);
    assert_true(peer_has(p, "allow: GET, HEAD"));
    peer_close(p);
}

static int origin_status(const char *method, const char *origin, const char *wanted)
{
    char fields[400];
    struct peer *p;
    int status;

    snprintf(fields, sizeof(fields),
             "Origin: %s\r\nAccess-Control-Request-Method: POST\r\n"
             "Access-Control-Request-Headers: authorization, x-stainless-os\r\n",
             origin);
    p = request(method, "/app.js", fields);
    status = peer_status(p);
    if (wanted)
        assert_true(peer_has(p, wanted));
    peer_close(p);
    return status;
}

static void loopback_and_listed_pages_may_call(void **state)
{
    (void)state;
    assert_int_equal(
        origin_status("OPTIONS", "http://localhost:5173",
                      "access-control-allow-origin: http://localhost:5173\r\n"),
        204);
    assert_int_equal(origin_status("OPTIONS", "http://127.0.0.1",
                                   "access-control-allow-headers: authorization, "
                                   "x-stainless-os\r\n"),
                     204);
    assert_int_equal(origin_status("GET", "http://[::1]:80", "vary: Origin"), 200);
    assert_int_equal(origin_status("GET", "https://app.localhost:1", NULL), 200);
    assert_int_equal(origin_status("GET", "https://studio.example", NULL), 200);
    assert_int_equal(origin_status("GET", "http://a:1", NULL),
                     200); /* the server's own */
    assert_int_equal(origin_status("GET", "http://evil.example", "may not call"), 403);
    assert_int_equal(origin_status("OPTIONS", "http://evil.example", NULL), 403);
    assert_int_equal(origin_status("GET", "null", NULL), 403);
    assert_int_equal(origin_status("GET", "http://localhost.evil.example", NULL), 403);
    assert_int_equal(origin_status("GET", "http://localhost:80@evil.example", NULL),
                     403);
    assert_int_equal(origin_status("GET", "http://127.0.0.1.evil.example", NULL), 403);
    assert_int_equal(origin_status("GET", "http://[::1].evil.example", NULL), 403);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serves_what_is_below),
        cmocka_unit_test(serves_nothing_else),
        cmocka_unit_test(large_files_come_whole),
        cmocka_unit_test(unchanged_files_are_304),
        cmocka_unit_test(loopback_and_listed_pages_may_call),
    };

    return cmocka_run_group_tests(tests, begin, end);
}

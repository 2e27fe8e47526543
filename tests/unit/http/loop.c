#include "loop.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static uv_loop_t the_loop;
static uv_timer_t ticker;
uv_loop_t *loop = &the_loop;

void loop_begin(void)
{
    uv_loop_init(loop);
    uv_timer_init(loop, &ticker);
}

void loop_end(void)
{
    uv_close((uv_handle_t *)&ticker, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

void loop_turn(void)
{
    uv_timer_start(&ticker, on_tick, 5, 0);
    uv_run(loop, UV_RUN_ONCE);
    uv_timer_stop(&ticker);
}

bool loop_is_late(uint64_t since)
{
    return uv_hrtime() - since > 5000000000ull;
}

void loop_for_ms(unsigned ms)
{
    uint64_t since = uv_hrtime();

    while (uv_hrtime() - since < ms * 1000000ull)
        loop_turn();
}

/* ---- peers ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    static char buffer[65536];

    (void)handle;
    (void)suggested;
    *ret_buf = uv_buf_init(buffer, sizeof(buffer));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct peer *p = stream->data;

    if (n < 0) {
        p->is_ended = true;
        return;
    }
    buf_append(&p->got, buf->base, (size_t)n);
    if (n && p->script && p->script->on_bytes)
        p->script->on_bytes(p);
}

static void on_connected(uv_connect_t *request, int status)
{
    struct peer *p = request->data;

    free(request);
    if (status == UV_ECANCELED)
        return;
    assert_int_equal(status, 0);
    p->is_connected = true;
    uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read);
}

struct peer *peer_connect(int port)
{
    struct peer *p = mem_zalloc(sizeof(*p));
    uv_connect_t *request = mem_zalloc(sizeof(*request));
    struct sockaddr_in address;

    uv_ip4_addr("127.0.0.1", port, &address);
    uv_tcp_init(loop, &p->tcp);
    p->tcp.data = p;
    request->data = p;
    uv_tcp_connect(request, &p->tcp, (struct sockaddr *)&address, on_connected);
    LOOP_UNTIL(p->is_connected);
    return p;
}

struct sending {
    uv_write_t request;
    char bytes[];
};

static void on_sent(uv_write_t *request, int status)
{
    (void)status;
    free(request);
}

void peer_send(struct peer *p, const void *data, size_t len)
{
    struct sending *s = mem_alloc(sizeof(*s) + len);
    uv_buf_t buf = uv_buf_init(s->bytes, (unsigned)len);

    memcpy(s->bytes, data, len);
    if (uv_write(&s->request, (uv_stream_t *)&p->tcp, &buf, 1, on_sent))
        free(s);
}

void peer_say(struct peer *p, const char *text)
{
    peer_send(p, text, strlen(text));
}

void peer_stall(struct peer *p)
{
    uv_read_stop((uv_stream_t *)&p->tcp);
}

void peer_go_on(struct peer *p)
{
    uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read);
}

static void on_shut_down(uv_shutdown_t *request, int status)
{
    (void)status;
    free(request);
}

void peer_half_close(struct peer *p)
{
    uv_shutdown_t *request = mem_zalloc(sizeof(*request));

    if (uv_shutdown(request, (uv_stream_t *)&p->tcp, on_shut_down))
        free(request);
}

static void on_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;

    buf_release(&p->got);
    free(p);
}

static void forget(struct peer *p)
{
    struct peer **at;

    if (!p->script)
        return;
    for (at = &p->script->peers; *at != p; at = &(*at)->next)
        ;
    *at = p->next;
    p->script->alive--;
}

void peer_close(struct peer *p)
{
    forget(p);
    uv_close((uv_handle_t *)&p->tcp, on_closed);
}

void peer_reset(struct peer *p)
{
    forget(p);
    if (uv_tcp_close_reset(&p->tcp, on_closed))
        uv_close((uv_handle_t *)&p->tcp, on_closed);
}

bool peer_has(const struct peer *p, const char *text)
{
    return p->got.len && memmem(p->got.data, p->got.len, text, strlen(text));
}

int peer_status(const struct peer *p)
{
    int status = 0;

    if (p->got.len > 12 && !strncmp(p->got.data, "HTTP/1.", 7))
        status = (int)strtol(p->got.data + 9, NULL, 10);
    return status;
}

/* ---- scripts ---- */

static void on_accept(uv_stream_t *listener, int status)
{
    struct script *s = listener->data;
    struct peer *p = mem_zalloc(sizeof(*p));

    assert_int_equal(status, 0);
    uv_tcp_init(loop, &p->tcp);
    p->tcp.data = p;
    p->script = s;
    p->is_connected = true;
    p->next = s->peers;
    s->peers = p;
    s->accepted++;
    s->alive++;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&p->tcp), 0);
    uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read);
}

void script_open(struct script *s, void (*on_bytes)(struct peer *p))
{
    struct sockaddr_in address;
    int len = sizeof(address);

    uv_ip4_addr("127.0.0.1", s->port, &address);
    s->on_bytes = on_bytes;
    uv_tcp_init(loop, &s->listener);
    s->listener.data = s;
    assert_int_equal(uv_tcp_bind(&s->listener, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&s->listener, 2048, on_accept), 0);
    uv_tcp_getsockname(&s->listener, (struct sockaddr *)&address, &len);
    s->port = ntohs(address.sin_port);
}

void script_drop_all(struct script *s)
{
    while (s->peers)
        peer_close(s->peers);
}

void script_close(struct script *s)
{
    script_drop_all(s);
    uv_close((uv_handle_t *)&s->listener, NULL);
    loop_for_ms(5);
}

/* ---- answers ---- */

static void on_head(void *user, const struct http_answer *head)
{
    struct answer *a = user;
    const char *type = http_answer_field(head, "content-type");

    a->heads++;
    a->status = head->status;
    snprintf(a->type, sizeof(a->type), "%s", type ? type : "");
}

static void on_data(void *user, const char *data, size_t len)
{
    struct answer *a = user;

    buf_append(&a->body, data, len);
}

static void on_end(void *user)
{
    struct answer *a = user;

    a->ends++;
    a->is_done = true;
}

static void on_error(void *user, enum http_failure failure, const struct err *err)
{
    struct answer *a = user;

    a->errors++;
    a->failure = failure;
    a->err = *err;
    a->is_done = true;
}

const struct http_call_handlers answer_handlers = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end, .on_error = on_error};

void answer_release(struct answer *a)
{
    buf_release(&a->body);
    *a = (struct answer){0};
}

/* ---- the process ---- */

int open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

int sockets_in_state(const char *state, int port)
{
    FILE *file = fopen("/proc/self/net/tcp", "r");
    char line[512], wanted[8], local[64], remote[64], st[8];
    int count = 0;

    assert_non_null(file);
    snprintf(wanted, sizeof(wanted), ":%04X", port);
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, " %*d: %63s %63s %7s", local, remote, st) == 3 &&
            !strcmp(st, state) && (strstr(local, wanted) || strstr(remote, wanted)))
            count++;
    fclose(file);
    return count;
}

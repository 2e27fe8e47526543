/* server: listening, limits in time, and the end.
 *
 * One timer sweeps all connections, at a quarter of the shortest limit but at most once a second, and only
 * while there are connections: a thousand streams cost no timer each, and an idle server sleeps. A limit
 * is therefore met up to a quarter late, which nobody minds.
 *
 * Closing. http_server_close() stops listening and closes what is idle; connections in the middle of an
 * exchange lose keep-alive and may end until the grace is over. Whoever comes last (the last connection
 * or the last handle) frees the server.
 */
#include "http/conn.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

enum { BACKLOG = 1024 };

void http_prepare_process(void)
{
    struct rlimit files;

    signal(SIGPIPE, SIG_IGN);
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void set_defaults(struct http_limits *l)
{
    if (!l->head_bytes)
        l->head_bytes = 32 * 1024;
    if (!l->header_count)
        l->header_count = 100;
    if (!l->body_bytes)
        l->body_bytes = 64u * 1024 * 1024;
    if (!l->max_connections)
        l->max_connections = 4096;
    if (!l->head_timeout_ms)
        l->head_timeout_ms = 15 * 1000;
    if (!l->idle_timeout_ms)
        l->idle_timeout_ms = 75 * 1000;
}

void http_server_set_limits(struct http_server *s, const struct http_limits *limits)
{
    s->options.limits = *limits;
    set_defaults(&s->options.limits);
    s->head_limits.head_bytes = s->options.limits.head_bytes;
    s->head_limits.header_count = s->options.limits.header_count;
}

struct http_server *http_server_new(uv_loop_t *loop,
                                    const struct http_server_options *o)
{
    struct http_server *s = mem_zalloc(sizeof(*s));

    signal(SIGPIPE, SIG_IGN); /* libuv writes without MSG_NOSIGNAL */
    s->loop = loop;
    s->options = *o;
    http_server_set_limits(s, &o->limits);
    if (getrandom(&s->id_prefix, sizeof(s->id_prefix), GRND_NONBLOCK) < 0)
        s->id_prefix = (uint32_t)clock_ns();
    turn_init(&s->turn, loop);
    uv_timer_init(loop, &s->sweep);
    s->sweep.data = s;
    s->open_handles = 2; /* sweep, turn */
    return s;
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (!status)
        conn_accept(listener->data, listener);
}

static int parse_address(const char *ip, int port, struct sockaddr_storage *ret_address,
                         struct err *err)
{
    if (!uv_ip4_addr(ip, port, (struct sockaddr_in *)ret_address) ||
        !uv_ip6_addr(ip, port, (struct sockaddr_in6 *)ret_address))
        return 0;
    return err_set(err, ERR_INVALID, "'%s' is not an IP address to listen on.", ip);
}

static void on_handle_closed(uv_handle_t *handle);

static int add_listener(struct http_server *s, uv_tcp_t **ret, struct err *err)
{
    uv_tcp_t *listener = &s->listeners[s->listener_count];
    int r;

    if (s->listener_count == HTTP_LISTENERS_MAX)
        return err_set(err, ERR_INVALID, "No more than %d addresses can be served on.",
                       HTTP_LISTENERS_MAX);
    r = uv_tcp_init(s->loop, listener);
    if (r)
        return err_set(err, ERR_INTERNAL, "Cannot make a socket: %s.", uv_strerror(r));
    listener->data = s;
    s->open_handles++;
    s->listener_count++;
    *ret = listener;
    return 0;
}

/* A bound socket begins to listen, and its port is the server's if it is the first. */
static int begin_to_listen(struct http_server *s, uv_tcp_t *listener)
{
    struct sockaddr_storage bound;
    int len = sizeof(bound);
    int r = uv_listen((uv_stream_t *)listener, BACKLOG, on_connection);

    if (!r)
        r = uv_tcp_getsockname(listener, (struct sockaddr *)&bound, &len);
    if (!r && listener == s->listeners)
        s->port = ntohs(bound.ss_family == AF_INET6
                            ? ((struct sockaddr_in6 *)&bound)->sin6_port
                            : ((struct sockaddr_in *)&bound)->sin_port);
    return r;
}

int http_server_listen(struct http_server *s, const char *ip, int port, struct err *err)
{
    struct sockaddr_storage address;
    uv_tcp_t *listener = NULL;
    int r;

    if (parse_address(ip, port, &address, err) || add_listener(s, &listener, err))
        return -1;
    r = uv_tcp_bind(listener, (const struct sockaddr *)&address, 0);
    if (!r)
        r = begin_to_listen(s, listener);
    if (!r)
        return 0;
    uv_close((uv_handle_t *)listener, on_handle_closed);
    if (r == UV_EADDRINUSE)
        return err_set(err, ERR_CONFLICT,
                       "Port %d of %s is taken by another program: stop it or choose "
                       "another port.",
                       port, ip);
    if (r == UV_EACCES)
        return err_set(err, ERR_FORBIDDEN,
                       "Port %d may not be opened by this user: choose one above 1023.",
                       port);
    return err_set(err, ERR_UNAVAILABLE, "Cannot listen on port %d of %s: %s.", port,
                   ip, uv_strerror(r));
}

int http_server_listen_fd(struct http_server *s, int fd, struct err *err)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound), kind_len = sizeof(int);
    uv_tcp_t *listener = NULL;
    int kind = 0, r;

    if (getsockname(fd, (struct sockaddr *)&bound, &len) ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &kind_len))
        return err_set(err, ERR_INVALID, "Descriptor %d is no socket: %s.", fd,
                       strerror(errno));
    if (kind != SOCK_STREAM ||
        (bound.ss_family != AF_INET && bound.ss_family != AF_INET6))
        return err_set(err, ERR_INVALID,
                       "The socket with descriptor %d is no TCP socket: only those "
                       "are served on.",
                       fd);
    if (add_listener(s, &listener, err))
        return -1;
    r = uv_tcp_open(listener, fd);
    if (!r)
        r = begin_to_listen(s, listener);
    if (!r)
        return 0;
    uv_close((uv_handle_t *)listener, on_handle_closed);
    return err_set(err, ERR_UNAVAILABLE, "Cannot listen on descriptor %d: %s.", fd,
                   uv_strerror(r));
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

bool http_server_is_loopback(const struct http_server *s)
{
    for (int i = 0; i < s->listener_count; i++) {
        struct sockaddr_storage at = {0};
        int len = sizeof(at);
        const struct in6_addr *six = &((struct sockaddr_in6 *)&at)->sin6_addr;

        if (uv_tcp_getsockname(&s->listeners[i], (struct sockaddr *)&at, &len))
            return false;
        if (at.ss_family == AF_INET6
                ? !IN6_IS_ADDR_LOOPBACK(six)
                : ntohl(((struct sockaddr_in *)&at)->sin_addr.s_addr) >> 24 != 127)
            return false;
    }
    return true;
}

size_t http_server_connections(const struct http_server *s)
{
    return s->conn_count;
}

/* ---- limits in time ---- */

static void free_when_done(struct http_server *s)
{
    void (*on_closed)(void *user) = s->on_closed;
    void *user = s->on_closed_user;

    if (s->state != SERVER_FREEING || s->open_handles || s->conn_count)
        return;
    buf_release(&s->scratch);
    free(s);
    if (on_closed)
        on_closed(user);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http_server *s = handle->data;

    s->open_handles--;
    free_when_done(s);
}

static void on_turn_closed(struct turn *turn)
{
    struct http_server *s =
        (struct http_server *)((char *)turn - offsetof(struct http_server, turn));

    s->open_handles--;
    free_when_done(s);
}

/* The last connection of a closing server has gone. */
static void close_handles(struct http_server *s)
{
    if (s->state != SERVER_CLOSING || s->conn_count)
        return;
    s->state = SERVER_FREEING;
    uv_close((uv_handle_t *)&s->sweep, on_handle_closed);
    turn_close(&s->turn, on_turn_closed);
}

static void abort_conn(struct conn *c)
{
    if (c->x)
        http_abort(c->x);
    else
        conn_close(c);
}

static void on_sweep(uv_timer_t *timer)
{
    struct http_server *s = timer->data;
    uint64_t now = uv_now(s->loop);
    bool is_over = s->state == SERVER_CLOSING && now >= s->close_deadline_ms;
    struct conn *next;

    for (struct conn *c = s->conns; c; c = next) {
        next = c->next;
        if (is_over)
            abort_conn(c);
        else if (c->deadline_ms && now >= c->deadline_ms)
            conn_timed_out(c);
    }
    if (!s->conns) {
        uv_timer_stop(timer);
        s->is_sweeping = false;
    }
}

void server_start_sweep(struct http_server *s)
{
    const struct http_limits *l = &s->options.limits;
    uint64_t every = l->head_timeout_ms < l->idle_timeout_ms ? l->head_timeout_ms
                                                             : l->idle_timeout_ms;

    if (s->is_sweeping)
        return;
    every = every / 4 > 1000 ? 1000 : every / 4 + 1;
    s->is_sweeping = true;
    uv_timer_start(&s->sweep, on_sweep, every, every);
    uv_unref((uv_handle_t *)&s->sweep); /* connections keep the loop alive */
}

void server_forget_conn(struct http_server *s, struct conn *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    s->conn_count--;
    close_handles(s);
}

void http_server_close(struct http_server *s, unsigned grace_ms,
                       void (*on_closed)(void *user), void *user)
{
    struct conn *next;

    if (s->state != SERVER_OPEN)
        return;
    s->state = SERVER_CLOSING;
    s->on_closed = on_closed;
    s->on_closed_user = user;
    s->close_deadline_ms = uv_now(s->loop) + grace_ms;
    for (int i = 0; i < s->listener_count; i++)
        if (!uv_is_closing((uv_handle_t *)&s->listeners[i]))
            uv_close((uv_handle_t *)&s->listeners[i], on_handle_closed);
    s->listener_count = 0;
    for (struct conn *c = s->conns; c; c = next) {
        next = c->next;
        if (!c->x || !grace_ms)
            abort_conn(c);
        else
            c->x->keeps_alive = false;
    }
    close_handles(s);
    if (s->state == SERVER_CLOSING) /* the grace's end must be seen soon */
        uv_timer_start(&s->sweep, on_sweep, grace_ms < 50 ? grace_ms : 50, 50);
}

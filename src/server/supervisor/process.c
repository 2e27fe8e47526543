/* Child processes.
 *
 * Groups and sessions: each worker makes itself the leader of a process group (first thing, like the parent-death
 * signal): Ctrl+C in the terminal then reaches the server alone, which ends its workers in order, and one kill()
 * reaches whatever a worker has started itself. A session of its own (uv_spawn's UV_PROCESS_DETACHED) was tried and
 * rejected: Linux shares processor time between sessions first (autogroup), so the niceness of the painting threads
 * would not count against text, and when the painter's whole session was made nice instead, its health checks starved
 * on a busy machine and it was taken for hung.
 *
 * What uv_spawn cannot do is to set the parent-death signal between fork and exec; the workers ask for it themselves and
 * compare getppid() with MYSTI_SERVER_PID, which closes the moment in which the server may have died already. A
 * trampoline program was rejected: both workers are ours.
 *
 * Output is read through two pipes and never blocks the child for long: the loop takes what is there, and
 * the log drops rather than waits. When the process ends, what is still in the pipes is read at once, so that its
 * last words (mostly the reason) come before its end is told.
 *
 * Lifetime: three handles (process, two pipes) share this struct; it is freed by the last of their close
 * callbacks. on_exit comes at most once and never after process_close(). */
#include "server/supervisor/process.h"

#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define DRAIN_MAX (1024 * 1024)

struct stream {
    uv_pipe_t pipe;
    struct line_splitter lines;
    enum process_stream which;
    struct process *process;
};

struct process {
    uv_process_t handle;
    struct stream out;
    struct stream err;
    int open_handles;
    bool exited;
    bool closed; /* process_close() was called: no callbacks */
    bool signalled;
    void (*on_line)(void *data, enum process_stream stream, const char *line,
                    size_t len);
    void (*on_exit)(void *data, const struct process_exit *how);
    void *data;
    char read_buffer[8192];
};

static void on_handle_closed(uv_handle_t *handle)
{
    struct process *p = handle->data;

    if (--p->open_handles > 0)
        return;
    lines_release(&p->out.lines);
    lines_release(&p->err.lines);
    free(p);
}

static void close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, on_handle_closed);
}

static void on_line(void *data, const char *line, size_t len)
{
    struct stream *s = data;

    if (!s->process->closed)
        s->process->on_line(s->process->data, s->which, line, len);
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct process *p = handle->data;

    (void)suggested;
    *ret = uv_buf_init(p->read_buffer, sizeof(p->read_buffer));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
    struct process *p = stream->data;
    struct stream *s = stream == (uv_stream_t *)&p->out.pipe ? &p->out : &p->err;

    if (n > 0)
        lines_feed(&s->lines, b->base, (size_t)n, on_line, s);
    if (n >= 0)
        return;
    lines_finish(&s->lines, on_line, s);
    close_handle((uv_handle_t *)stream);
}

/* What is in the pipe already, so that a process's last words come before its end is told. */
static void drain(struct stream *s)
{
    struct process *p = s->process;
    uv_os_fd_t fd;
    ssize_t n = 0;

    if (uv_is_closing((uv_handle_t *)&s->pipe) ||
        uv_fileno((uv_handle_t *)&s->pipe, &fd))
        return;
    for (size_t got = 0; got < DRAIN_MAX; got += (size_t)n) {
        n = read(fd, p->read_buffer, sizeof(p->read_buffer));
        if (n <= 0)
            break;
        lines_feed(&s->lines, p->read_buffer, (size_t)n, on_line, s);
    }
    lines_finish(&s->lines, on_line, s);
}

static void on_ended(uv_process_t *handle, int64_t code, int signal)
{
    struct process *p = handle->data;
    struct process_exit how = {
        .signal = signal, .code = (int)code, .by_us = p->signalled};

    p->exited = true;
    kill(-handle->pid, SIGKILL); /* what it has left in its group */
    close_handle((uv_handle_t *)handle);
    drain(&p->out);
    drain(&p->err);
    if (!p->closed)
        p->on_exit(p->data, &how);
}

static void stream_init(struct process *p, struct stream *s, enum process_stream which,
                        uv_loop_t *loop)
{
    s->process = p;
    s->which = which;
    uv_pipe_init(loop, &s->pipe, 0);
    s->pipe.data = p;
    p->open_handles++;
}

int process_start(const struct process_options *o, struct process **ret,
                  struct err *err)
{
    struct process *p = mem_zalloc(sizeof(*p));
    uv_stdio_container_t stdio[3] = {{.flags = UV_IGNORE}};
    uv_process_options_t options = {
        .file = o->program,
        .args = o->argv,
        .env = o->env,
        .stdio = stdio,
        .stdio_count = 3,
        .exit_cb = on_ended,
    };
    int rc;

    p->on_line = o->on_line;
    p->on_exit = o->on_exit;
    p->data = o->data;
    stream_init(p, &p->out, PROCESS_STDOUT, o->loop);
    stream_init(p, &p->err, PROCESS_STDERR, o->loop);
    stdio[1].flags = stdio[2].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
    stdio[1].data.stream = (uv_stream_t *)&p->out.pipe;
    stdio[2].data.stream = (uv_stream_t *)&p->err.pipe;
    rc = uv_spawn(o->loop, &p->handle, &options);
    p->handle.data = p;
    p->open_handles++; /* also a failed uv_spawn leaves a handle to close */
    if (rc) {
        p->exited = p->closed = true;
        close_handle((uv_handle_t *)&p->handle);
        close_handle((uv_handle_t *)&p->out.pipe);
        close_handle((uv_handle_t *)&p->err.pipe);
        return err_set(err, ERR_UNAVAILABLE, "cannot start %s: %s", o->program,
                       uv_strerror(rc));
    }
    uv_read_start((uv_stream_t *)&p->out.pipe, give_buffer, on_read);
    uv_read_start((uv_stream_t *)&p->err.pipe, give_buffer, on_read);
    *ret = p;
    return 0;
}

int process_pid(const struct process *p)
{
    return p && !p->exited ? p->handle.pid : 0;
}

void process_signal(struct process *p, int signal)
{
    if (p->exited)
        return;
    p->signalled = true;
    /* no group yet when the child has not come to making it: then the child itself */
    if (kill(-p->handle.pid, signal))
        uv_process_kill(&p->handle, signal);
}

void process_close(struct process *p)
{
    if (!p || p->closed)
        return;
    p->closed = true;
    if (!p->exited)
        process_signal(p, SIGKILL); /* its exit callback closes the handle */
    close_handle((uv_handle_t *)&p->out.pipe);
    close_handle((uv_handle_t *)&p->err.pipe);
}

void process_exit_text(const struct process_exit *how, char *ret, size_t size)
{
    if (how->signal)
        snprintf(ret, size, "killed by signal %d (%s)", how->signal,
                 strsignal(how->signal));
    else
        snprintf(ret, size, "exited with code %d", how->code);
}

void process_random_token(char ret[PROCESS_TOKEN_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[(PROCESS_TOKEN_SIZE - 1) / 2];

    for (size_t got = 0; got < sizeof(bytes);) {
        ssize_t n = getrandom(bytes + got, sizeof(bytes) - got, 0);

        if (n > 0)
            got += (size_t)n;
        else if (errno != EINTR)
            abort(); /* a kernel without random numbers: no secret can be made */
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[PROCESS_TOKEN_SIZE - 1] = '\0';
}

/* Binds 127.0.0.1:port as a server would and lets it go again; the port, or -1 with errno. */
static int try_port(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    int rc = -1;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (!bind(fd, (struct sockaddr *)&a, len) && !listen(fd, 1) &&
        !getsockname(fd, (struct sockaddr *)&a, &len))
        rc = ntohs(a.sin_port);
    close(fd);
    return rc;
}

int process_free_port(int *ret_port, struct err *err)
{
    int port = try_port(0);

    if (port < 0)
        return err_set(err, ERR_UNAVAILABLE, "no free port on 127.0.0.1: %s",
                       strerror(errno));
    *ret_port = port;
    return 0;
}

bool process_port_is_free(int port)
{
    return try_port(port) >= 0 || errno != EADDRINUSE;
}

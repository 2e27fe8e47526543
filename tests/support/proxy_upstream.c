/* A fast upstream for measuring proxies: answers everything with a small JSON object, and requests that carry
 * `x-bench-events: N` with a stream of N server-sent events, one each `x-bench-gap-us: G`, in which stands when
 * it was sent (monotonic nanoseconds). It can stand in for llama-server: unknown arguments are ignored.
 *
 * One epoll loop, no allocation per request. Streams have their phases spread over the gap; the one due next is
 * at the front of a queue per run, kept in order by inserting at the end (all gaps of a run are the same; others
 * are merely late). Not a server for anything else: it trusts its client.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { IN_BYTES = 8192, EVENTS_AT_ONCE = 256 };

struct conn {
    int fd;
    size_t len;
    long events_left;
    uint64_t gap_ns, due_ns;
    struct conn *next_due, *prev_due;
    char in[IN_BYTES + 1];
};

static int poll_fd, timer_fd;
static struct conn *first_due, *last_due;
static uint32_t phase;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void arm(void)
{
    struct itimerspec at = {0};

    if (first_due) {
        at.it_value.tv_sec = (time_t)(first_due->due_ns / 1000000000u);
        at.it_value.tv_nsec = (long)(first_due->due_ns % 1000000000u);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void unschedule(struct conn *c)
{
    if (!c->due_ns)
        return;
    *(c->prev_due ? &c->prev_due->next_due : &first_due) = c->next_due;
    *(c->next_due ? &c->next_due->prev_due : &last_due) = c->prev_due;
    c->next_due = c->prev_due = NULL;
    c->due_ns = 0;
}

static void schedule(struct conn *c, uint64_t due_ns)
{
    struct conn *before = last_due;

    while (before && before->due_ns > due_ns)
        before = before->prev_due;
    c->due_ns = due_ns;
    c->prev_due = before;
    c->next_due = before ? before->next_due : first_due;
    *(c->next_due ? &c->next_due->prev_due : &last_due) = c;
    *(before ? &before->next_due : &first_due) = c;
}

static void drop(struct conn *c)
{
    unschedule(c);
    close(c->fd);
    free(c);
}

static bool say(struct conn *c, const char *text, size_t len)
{
    return send(c->fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool send_event(struct conn *c)
{
    char event[400], chunk[440];
    int n =
        snprintf(event, sizeof(event),
                 "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                 "\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,"
                 "\"delta\":{\"content\":\" token\"},\"finish_reason\":null}],"
                 "\"t\":\"%020llu\"}\n\n",
                 (unsigned long long)now_ns());
    int total = snprintf(chunk, sizeof(chunk), "%x\r\n%s\r\n", n, event);

    c->events_left--;
    if (!say(c, chunk, (size_t)total))
        return false;
    if (c->events_left)
        return true;
    return say(c, "0\r\n\r\n", 5);
}

static bool begin_stream(struct conn *c, long events, long gap_us)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nServer: bench\r\n"
                               "Content-Type: text/event-stream\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";

    c->events_left = events;
    c->gap_ns = (uint64_t)gap_us * 1000u;
    if (!say(c, head, sizeof(head) - 1))
        return false;
    phase = phase * 1103515245u + 12345u;
    schedule(c, now_ns() + 1 + (c->gap_ns ? (phase >> 8) * 1000ull % c->gap_ns : 0));
    arm();
    return true;
}

static bool answer_small(struct conn *c)
{
    static const char answer[] =
        "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/json\r\n"
        "Content-Length: 156\r\n\r\n"
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
        "\"model\":"
        "\"bench\",\"choices\":[{\"index\":0,\"text\":\"A red circle on a blue "
        "background.\","
        "\"x\":\"01\"}]}";

    return say(c, answer, sizeof(answer) - 1);
}

static long number_after(const char *head, const char *name)
{
    const char *at = strcasestr(head, name);

    return at ? strtol(at + strlen(name), NULL, 10) : 0;
}

/* Returns how many bytes the request at the front took; 0: not all of it is there. -1: give up. */
static long serve_one(struct conn *c)
{
    char *end = strstr(c->in, "\r\n\r\n");
    long body, events, gap;
    size_t head;

    if (!end)
        return c->len == IN_BYTES ? -1 : 0;
    head = (size_t)(end - c->in) + 4;
    *end = '\0';
    body = number_after(c->in, "\r\ncontent-length:");
    events = number_after(c->in, "\r\nx-bench-events:");
    gap = number_after(c->in, "\r\nx-bench-gap-us:");
    *end = '\r';
    if (c->len < head + (size_t)body)
        return head + (size_t)body > IN_BYTES ? -1 : 0;
    if (!(events > 0 ? begin_stream(c, events, gap) : answer_small(c)))
        return -1;
    return (long)head + body;
}

static void on_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, IN_BYTES - c->len, 0);
    long used = 0;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        drop(c);
        return;
    }
    c->len += (size_t)n;
    c->in[c->len] = '\0';
    while (c->len && (used = serve_one(c)) > 0) {
        c->len -= (size_t)used;
        memmove(c->in, c->in + used, c->len + 1);
    }
    if (used < 0)
        drop(c);
}

static void on_due(void)
{
    uint64_t now = now_ns(), expirations;
    ssize_t n = read(timer_fd, &expirations, sizeof(expirations));

    (void)n;
    while (first_due && first_due->due_ns <= now) {
        struct conn *c = first_due;
        uint64_t next = c->due_ns + c->gap_ns;

        unschedule(c);
        if (!send_event(c))
            drop(c);
        else if (c->events_left)
            schedule(c, next);
    }
    arm();
}

static void on_connection(int listener)
{
    int fd, one = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof(*c));
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

        if (!c)
            abort();
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &ev);
    }
}

static int listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &len)) {
        perror("listen");
        exit(1);
    }
    printf("listening 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    struct rlimit files;
    int port = 0, listener;

    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--port"))
            port = (int)strtol(argv[i + 1], NULL, 10);
    signal(SIGPIPE, SIG_IGN);
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    listener = listen_on(port);
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener,
              &(struct epoll_event){.events = EPOLLIN, .data.ptr = &listener});
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer_fd,
              &(struct epoll_event){.events = EPOLLIN, .data.ptr = &timer_fd});
    for (;;) {
        int n = epoll_wait(poll_fd, events, EVENTS_AT_ONCE, -1);
        bool is_due = false;

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &listener)
                on_connection(listener);
            else if (events[i].data.ptr == &timer_fd)
                is_due =
                    true; /* last: it may free connections that are still in this list */
            else
                on_readable(events[i].data.ptr);
        }
        if (is_due)
            on_due();
    }
}

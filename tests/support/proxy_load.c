/* Opens streams through a proxy to proxy_upstream and measures how long each event was under way.
 *
 * usage: proxy_load --port N [--path P] [--streams N] [--events N] [--gap-us G]
 *
 * Prints "open" once every stream has had its first event (the moment to look at the proxy's memory), and in the
 * end one line of JSON: events, lost, p50_us, p99_us. Events are counted and their order checked: an event that is
 * missing, late in its stream or cut counts as lost.
 */
#include <arpa/inet.h>
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
#include <time.h>
#include <unistd.h>

enum { CARRY = 512, READ_BYTES = 65536, SILENCE_MS = 10000 };

struct stream {
    int fd;
    long got;
    uint64_t last_sent;
    size_t carried;
    char carry[CARRY];
};

static const char mark[] = "\"t\":\"";
static const size_t stamp_bytes = sizeof(mark) - 1 + 20;
static uint32_t *delays_us;
static size_t delay_count;
static long disorder;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note(struct stream *s, const char *digits, uint64_t now, size_t limit)
{
    uint64_t sent = strtoull(digits, NULL, 10);

    if (sent <= s->last_sent || sent > now)
        disorder++;
    s->last_sent = sent;
    s->got++;
    if (delay_count < limit)
        delays_us[delay_count++] = (uint32_t)((now - sent) / 1000u);
}

/* buffer has CARRY bytes of room in front for what the last read left over. */
static void take(struct stream *s, char *data, size_t len, uint64_t now, size_t limit)
{
    char *at, *end = data + len, *start = data - s->carried;

    memcpy(start, s->carry, s->carried);
    while ((at = memmem(start, (size_t)(end - start), mark, sizeof(mark) - 1)) &&
           (size_t)(end - at) >= stamp_bytes) {
        char digits[21] = {0};

        memcpy(digits, at + sizeof(mark) - 1, 20);
        note(s, digits, now, limit);
        start = at + stamp_bytes;
    }
    if (!at && (size_t)(end - start) >= sizeof(mark))
        start = end - sizeof(mark) + 1;
    else if (at)
        start = at;
    s->carried = (size_t)(end - start);
    memcpy(s->carry, start, s->carried);
}

static int connect_to(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static long option(int argc, char **argv, const char *name, long otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name))
            return strtol(argv[i + 1], NULL, 10);
    return otherwise;
}

static const char *text_option(int argc, char **argv, const char *name,
                               const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name))
            return argv[i + 1];
    return otherwise;
}

static void open_streams(struct stream *streams, long count, int poll_fd, int argc,
                         char **argv)
{
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"stream\":true}";
    int port = (int)option(argc, argv, "--port", 0);
    char request[1024];
    int n = snprintf(
        request, sizeof(request),
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "x-bench-events: %ld\r\nx-bench-gap-us: %ld\r\nContent-Length: %zu\r\n\r\n%s",
        text_option(argc, argv, "--path", "/v1/chat/completions"),
        option(argc, argv, "--events", 100), option(argc, argv, "--gap-us", 20000),
        sizeof(body) - 1, body);

    for (long i = 0; i < count; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &streams[i]};

        streams[i].fd = connect_to(port);
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, streams[i].fd, &ev);
        if (send(streams[i].fd, request, (size_t)n, MSG_NOSIGNAL) != n)
            perror("send");
    }
}

int main(int argc, char **argv)
{
    long count = option(argc, argv, "--streams", 100),
         each = option(argc, argv, "--events", 100);
    size_t total = (size_t)(count * each);
    struct stream *streams = calloc((size_t)count, sizeof(*streams));
    static char buffer[CARRY + READ_BYTES];
    struct epoll_event events[256];
    struct rlimit files;
    int poll_fd = epoll_create1(EPOLL_CLOEXEC);
    long begun = 0, done = 0;
    bool is_open = false;

    delays_us = calloc(total + 1, sizeof(*delays_us));
    if (!streams || !delays_us)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    open_streams(streams, count, poll_fd, argc, argv);
    while (done < count) {
        int n = epoll_wait(poll_fd, events, 256, SILENCE_MS);

        if (n <= 0)
            break;
        for (int i = 0; i < n; i++) {
            struct stream *s = events[i].data.ptr;
            bool was_new = s->got == 0;
            ssize_t r = recv(s->fd, buffer + CARRY, READ_BYTES, MSG_DONTWAIT);

            if (r < 0 && errno == EAGAIN)
                continue;
            if (r > 0)
                take(s, buffer + CARRY, (size_t)r, now_ns(), total);
            begun += was_new && s->got > 0;
            if (r <= 0 || s->got >= each) {
                close(s->fd);
                done++;
            }
        }
        if (!is_open && begun == count) {
            is_open = true;
            puts("open");
            fflush(stdout);
        }
    }
    qsort(delays_us, delay_count, sizeof(*delays_us), compare);
    printf("{\"streams\": %ld, \"events\": %zu, \"lost\": %ld, \"p50_us\": %u, "
           "\"p99_us\": %u}\n",
           count, delay_count, (long)(total - delay_count) + disorder,
           delays_us[delay_count / 2], delays_us[delay_count * 99 / 100]);
    return 0;
}

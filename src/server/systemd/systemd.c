/* The two protocols (sd_listen_fds(3), sd_notify(3)) are a few environment variables and a datagram; systemd's own manual
 * promises that they stay and advises to speak them directly rather than to load a library for it, which is what is
 * done here: mysti_server stays a program that runs the same without systemd.
 *
 * The watchdog is fed by a timer of the loop, at half the interval: a loop that hangs stops feeding, and that is all the
 * watchdog is for. The workers have their own health checks and are restarted by the server.
 *
 * The variables are removed: the workers inherit the environment, and one that believed the sockets or the watchdog
 * to be its own would do harm. */
#include "server/systemd/systemd.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3 /* SD_LISTEN_FDS_START */

/* A number from the environment, taken out of it; 0: none, or not for this process. */
static int64_t take_number(const char *name, int64_t max)
{
    const char *text = getenv(name);
    int64_t value = 0;

    if (text && str_to_int(text, name, 0, max, &value, NULL))
        value = 0;
    unsetenv(name);
    return value;
}

void systemd_open(struct systemd *s)
{
    const char *address = getenv("NOTIFY_SOCKET");
    int64_t listen_pid = take_number("LISTEN_PID", INT_MAX);
    int64_t fds = take_number("LISTEN_FDS", INT_MAX - FIRST_FD);
    int64_t watchdog_us = take_number("WATCHDOG_USEC", INT64_MAX);
    bool has_pid = getenv("WATCHDOG_PID") != NULL;
    int64_t watchdog_pid = take_number("WATCHDOG_PID", INT_MAX);

    *s = (struct systemd){0};
    unsetenv("LISTEN_FDNAMES");
    if (address && (*address == '/' || *address == '@') && address[1])
        s->address = mem_strdup(address);
    unsetenv("NOTIFY_SOCKET");
    if (!has_pid || watchdog_pid == getpid())
        s->watchdog_us = (uint64_t)watchdog_us;
    if (listen_pid != getpid())
        return;
    for (int fd = FIRST_FD; fd < FIRST_FD + fds; fd++) {
        if (s->fd_count < SYSTEMD_FDS_MAX) {
            fcntl(fd, F_SETFD, FD_CLOEXEC);
            s->fds[s->fd_count++] = fd;
        } else {
            close(fd);
            s->fds_too_many++;
        }
    }
}

static void send_text(const struct systemd *s, const char *text)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t n = strlen(s->address);
    int fd;

    if (n >= sizeof(to.sun_path))
        return;
    memcpy(to.sun_path, s->address, n);
    if (to.sun_path[0] == '@')
        to.sun_path[0] = '\0'; /* an abstract name */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* the manager restarting, or gone, is no reason to wait or to fail */
    (void)!sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL,
                  (const struct sockaddr *)&to,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

void systemd_notify(const struct systemd *s, const char *format, ...)
{
    char text[512];
    va_list args;

    if (!s->address)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    send_text(s, text);
}

void systemd_reloading(const struct systemd *s)
{
    systemd_notify(s, "RELOADING=1\nMONOTONIC_USEC=%llu",
                   (unsigned long long)clock_ns() / 1000);
}

static void on_watchdog(uv_timer_t *timer)
{
    systemd_notify(timer->data, "WATCHDOG=1");
}

void systemd_watch(struct systemd *s, uv_loop_t *loop)
{
    uint64_t every_ms = s->watchdog_us / 2000;

    if (!s->address || !s->watchdog_us)
        return;
    uv_timer_init(loop, &s->watchdog);
    s->watchdog.data = s;
    s->is_watching = true;
    uv_timer_start(&s->watchdog, on_watchdog, 0, every_ms ? every_ms : 1);
    uv_unref((uv_handle_t *)&s->watchdog);
}

void systemd_close(struct systemd *s)
{
    if (s->is_watching)
        uv_close((uv_handle_t *)&s->watchdog, NULL);
    s->is_watching = false;
    free(s->address);
    s->address = NULL;
}

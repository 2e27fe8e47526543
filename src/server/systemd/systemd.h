/* systemd: what a service says to the service manager and gets from it, when there is one: sockets that are bound already,
 * "I am ready", "I am still alive".
 *
 *   systemd_open(&s);                       first of all: takes the variables out of the environment
 *   for (i < s.fd_count) http_server_listen_fd(http, s.fds[i], &err);
 *   systemd_watch(&s, loop);                pets the watchdog from the loop, as long as the loop turns
 *   systemd_notify(&s, "READY=1\nSTATUS=...");
 *   systemd_close(&s);                      before the loop ends
 *
 * Without a service manager every call does nothing. Main thread only. */
#ifndef MYSTI_SERVER_SYSTEMD_SYSTEMD_H
#define MYSTI_SERVER_SYSTEMD_SYSTEMD_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define SYSTEMD_FDS_MAX 8

struct systemd {
    char *address;        /* of the manager's socket; NULL: there is none */
    uint64_t watchdog_us; /* it wants to hear of us at least so often; 0: never */
    int fds[SYSTEMD_FDS_MAX];
    int fd_count;
    int fds_too_many; /* sockets beyond SYSTEMD_FDS_MAX, which were closed */
    uv_timer_t watchdog;
    bool is_watching;
};

void systemd_open(struct systemd *s);
void systemd_watch(struct systemd *s, uv_loop_t *loop);
/* Lines of sd_notify(3). */
void systemd_notify(const struct systemd *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Before a reload; "READY=1" ends it. */
void systemd_reloading(const struct systemd *s);
void systemd_close(struct systemd *s);

#endif

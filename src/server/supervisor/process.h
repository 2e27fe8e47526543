/* process: one child of the server: started in a process group of its own, its output cut into lines, its
 * end told once.
 *
 *   struct process *p;
 *   if (process_start(&options, &p, &err)) ...
 *   ... on_line(data, line, len) while it talks; on_exit(data, text) exactly once ...
 *   process_close(p);   // from on_exit, or later; kills what still runs
 *
 * Loop thread only, and that matters beyond races: the parent-death signal which a child asks for belongs to
 * the thread that started it. */
#ifndef MYSTI_SERVER_SUPERVISOR_PROCESS_H
#define MYSTI_SERVER_SUPERVISOR_PROCESS_H

#include "base/err.h"
#include "server/log/lines.h"

#include <uv.h>

struct process;

enum process_stream { PROCESS_STDOUT, PROCESS_STDERR };

struct process_exit {
    int signal; /* that ended it; 0: none */
    int code;
    bool by_us; /* process_signal() came before */
};

struct process_options {
    uv_loop_t *loop;
    const char *program; /* file */
    char **argv;         /* argv[0] is what it is called */
    char **env;
    void (*on_line)(void *data, enum process_stream stream, const char *line,
                    size_t len);
    void (*on_exit)(void *data, const struct process_exit *how);
    void *data;
};

int process_start(const struct process_options *options, struct process **ret,
                  struct err *err) MUST_CHECK;
int process_pid(const struct process *p); /* 0 after its end */
/* To the whole group. */
void process_signal(struct process *p, int signal);
/* No callbacks from here on; the memory goes when libuv has let go. NULL is fine. */
void process_close(struct process *p);
/* "killed by signal 9 (Killed)", "exited with code 1" */
void process_exit_text(const struct process_exit *how, char *ret, size_t size);

/* 32 random bytes in hexadecimal and a NUL. */
#define PROCESS_TOKEN_SIZE 65
void process_random_token(char ret[PROCESS_TOKEN_SIZE]);
/* A port of 127.0.0.1 that is free at this moment. */
int process_free_port(int *ret_port, struct err *err) MUST_CHECK;
/* Can 127.0.0.1:port be listened on? */
bool process_port_is_free(int port);

#endif

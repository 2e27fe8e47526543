/* Which graphics cards can the text engine use? It is asked once, before the first model is started, and only where
 * there is a card at all. A card that the driver knows and the engine does not (no back end for it was installed) is no place for a
 * model, and "as many layers as fit" means none there.
 *
 * The answer is waited for: a model that is planned without it would be planned for the wrong memory. An engine takes tens of
 * milliseconds for it, with CUDA up to seconds; who connects meanwhile waits in the backlog of the socket. After LIMIT_MS it
 * is given up, and models go to memory unless a load says how many layers lie on a card. */
#include "base/clock.h"
#include "base/mem.h"
#include "server/config/config.h"
#include "server/log/lines.h"
#include "server/memory/devices.h"
#include "server/supervisor/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef LIMIT_MS /* a test does not wait that long */
#define LIMIT_MS 10000
#endif
#define ANSWER_MAX 65536

extern char **environ;

/* Its standard output goes to the pipe, what it says besides to nobody: the load of a model says it again. */
static pid_t start(struct supervisor *s, int output)
{
    char *program = worker_program(s->workers[s->default_text]);
    char name[] = "mysti_llm_worker", list[] = "--list-devices",
         which[] = "--llama-server";
    char *argv[] = {name, list, NULL, NULL, NULL};
    char *server = mem_printf("MYSTI_SERVER_PID=%d", (int)getpid());
    posix_spawn_file_actions_t files;
    size_t count = 0;
    char **env;
    pid_t pid;

    if (*s->config->llama_server) {
        argv[2] = which;
        argv[3] = s->config->llama_server;
    }
    while (environ[count])
        count++;
    env = mem_zalloc((count + 2) * sizeof(*env));
    env[0] = server;
    memcpy(env + 1, environ, count * sizeof(*env));
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (posix_spawn(&pid, program, &files, NULL, argv, env))
        pid = -1;
    posix_spawn_file_actions_destroy(&files);
    free(env);
    free(server);
    free(program);
    return pid;
}

/* true: it has said everything within the limit */
static bool read_all(int fd, struct buf *ret)
{
    uint64_t until = clock_ms() + LIMIT_MS, now;
    char part[4096];
    ssize_t n;

    while ((now = clock_ms()) < until && ret->len < ANSWER_MAX) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (poll(&p, 1, (int)(until - now)) < 1)
            continue; /* a signal, or the end of the time */
        n = read(fd, part, sizeof(part));
        if (n <= 0)
            return n == 0;
        buf_append(ret, part, (size_t)n);
    }
    return false;
}

static void take(struct supervisor *s, const struct buf *answer)
{
    char *text = mem_strdup(buf_str(answer)), *rest = NULL;

    for (char *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest))
        devices_take_listed(s->devices, line);
    free(text);
}

void listing_ask(struct supervisor *s)
{
    struct gpu gpu;
    struct buf answer = {0};
    bool is_whole = false;
    int ends[2];
    pid_t pid;

    if (!devices_gpus(s->devices, "", &gpu, 1) || pipe2(ends, O_CLOEXEC))
        return;
    pid = start(s, ends[1]);
    close(ends[1]);
    if (pid > 0) {
        is_whole = read_all(ends[0], &answer);
        kill(pid, SIGKILL); /* it has ended, or shall */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(ends[0]);
    if (is_whole)
        take(s, &answer);
    else
        log_warning(s->log, "The text engine does not say which graphics cards it can "
                            "use: models go to memory unless a load says gpu_layers");
    buf_release(&answer);
}

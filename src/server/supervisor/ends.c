/* A SIGKILL that nobody of us sent has two usual senders: a person, and the kernel when memory runs out. The control group
 * counts the kernel's kills (memory.events in version 2, memory.oom_control in version 1), and a count that went up while
 * the process lived tells the two apart. Outside of any such group the kernel's own count does (/proc/vmstat, of the whole
 * machine; its log names the process, but is not ours to read as a rule). Where neither went up the sentence says that it may have been memory.
 *
 * Its own fault is what the process did by itself: it ended with an error, by a fault (SEGV, ABRT, ...), for want of
 * memory, or hung. Only that counts towards safe mode. */
#include "server/supervisor/ends.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CGROUP_MAX 65536

struct worker_exit ends_of(const struct process_exit *how,
                           const struct end_signs *signs)
{
    struct worker_exit e = {.signal = how->signal, .code = how->code};
    bool killed = how->signal == SIGKILL || how->signal == SIGTERM;

    if (signs->hung)
        e.end = WORKER_END_HUNG;
    else if (how->by_us)
        e.end = WORKER_END_ASKED;
    else if (how->signal == SIGKILL && signs->memory_kills)
        e.end = WORKER_END_OUT_OF_MEMORY;
    else if (killed)
        e.end = WORKER_END_KILLED;
    else if (signs->log_says_memory && (how->signal || how->code))
        e.end = WORKER_END_OUT_OF_MEMORY;
    else
        e.end = how->signal ? WORKER_END_SIGNAL : WORKER_END_EXITED;
    e.is_own_fault = e.end == WORKER_END_HUNG || e.end == WORKER_END_OUT_OF_MEMORY ||
                     e.end == WORKER_END_SIGNAL || e.end == WORKER_END_EXITED;
    return e;
}

void ends_text(const struct worker_exit *e, char *ret, size_t size)
{
    struct process_exit how = {.signal = e->signal, .code = e->code};
    char text[96];

    process_exit_text(&how, text, sizeof(text));
    switch (e->end) {
    case WORKER_END_HUNG:
        snprintf(ret, size, "killed after three health checks without an answer");
        break;
    case WORKER_END_OUT_OF_MEMORY:
        snprintf(ret, size, "out of memory (%s)", text);
        break;
    case WORKER_END_KILLED:
        snprintf(ret, size, "%s from outside%s", text,
                 e->signal == SIGKILL ? ", perhaps for want of memory" : "");
        break;
    case WORKER_END_NONE:
    case WORKER_END_ASKED:
    case WORKER_END_SIGNAL:
    case WORKER_END_EXITED:
        snprintf(ret, size, "%s", text);
        break;
    }
}

bool ends_is_memory_line(const char *line)
{
    static const char *const signs[] = {"std::bad_alloc", "failed to allocate",
                                        "out of memory", "cannot allocate memory"};

    for (size_t i = 0; i < sizeof(signs) / sizeof(*signs); i++)
        if (strcasestr(line, signs[i]))
            return true;
    return false;
}

/* The number behind "oom_kill " at the start of a line. */
static uint64_t count_in(const char *text)
{
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "oom_kill ", 9) == 0)
            return strtoull(line + 9, NULL, 10);
    }
    return 0;
}

/* -1: there is no such file */
static int count_of_file(const char *root, const char *mount, const char *group,
                         const char *file, uint64_t *count)
{
    char *path = mem_printf("%s%s%s/%s", root, mount, group, file);
    struct buf text = {0};
    int rc = file_read(path, CGROUP_MAX, &text, NULL);

    if (!rc)
        *count += count_in(buf_str(&text));
    buf_release(&text);
    free(path);
    return rc;
}

/* One line of /proc/self/cgroup: "0::/path" (version 2) or "9:memory:/path" (version 1). */
static int count_of_line(const char *root, const char *line, uint64_t *count)
{
    const char *kind = strchr(line, ':'), *group = kind ? strchr(kind + 1, ':') : NULL;

    if (!group)
        return -1;
    group++;
    if (!strcmp(group, "/"))
        group = "";
    if (strncmp(line, "0::", 3) == 0)
        return count_of_file(root, "/sys/fs/cgroup", group, "memory.events", count);
    if (strncmp(kind, ":memory:", 8) == 0)
        return count_of_file(root, "/sys/fs/cgroup/memory", group, "memory.oom_control",
                             count);
    return -1;
}

uint64_t ends_memory_kills(const char *root)
{
    char *path = mem_printf("%s/proc/self/cgroup", root), *rest = NULL;
    struct buf text = {0};
    uint64_t count = 0;
    bool is_counted = false;

    if (!file_read(path, CGROUP_MAX, &text, NULL)) {
        char *copy = mem_strdup(buf_str(&text));

        for (char *line = strtok_r(copy, "\n", &rest); line;
             line = strtok_r(NULL, "\n", &rest))
            is_counted = !count_of_line(root, line, &count) || is_counted;
        free(copy);
    }
    buf_release(&text);
    free(path);
    if (!is_counted)
        (void)count_of_file(root, "/proc", "", "vmstat", &count);
    return count;
}

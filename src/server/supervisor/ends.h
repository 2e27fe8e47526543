/* ends: why a process ended, in words that programs can tell apart and people can read.
 *
 *   before = ends_memory_kills("");                     // when the process is started
 *   struct end_signs signs = {.memory_kills = ends_memory_kills("") - before, ...};
 *   struct worker_exit e = ends_of(&how, &signs);
 *   ends_text(&e, text, sizeof(text));
 */
#ifndef MYSTI_SERVER_SUPERVISOR_ENDS_H
#define MYSTI_SERVER_SUPERVISOR_ENDS_H

#include "server/supervisor/process.h"
#include "server/supervisor/supervisor.h"

struct end_signs {
    bool hung;             /* we killed it because it did not answer */
    bool log_says_memory;  /* its log complained about memory */
    uint64_t memory_kills; /* of the kernel in our control group, while it lived */
};

struct worker_exit ends_of(const struct process_exit *how,
                           const struct end_signs *signs);
void ends_text(const struct worker_exit *e, char *ret, size_t size);
/* Does a line of a worker's log say that it got no memory? */
bool ends_is_memory_line(const char *line);
/* How often the kernel has killed in our control group for want of memory; 0 where it does not say.
 * `root`: "" for the machine itself. */
uint64_t ends_memory_kills(const char *root);

#endif

/* memory: what this machine has: processor, memory as it is now, graphics cards. Read from /proc and /sys (no
 * library, no process), so that it is cheap enough to ask on the loop thread; what cannot change is read once.
 */
#ifndef MYSTI_SERVER_MEMORY_MEMORY_H
#define MYSTI_SERVER_MEMORY_MEMORY_H

#include <jansson.h>
#include <stdint.h>

struct memory_now {
    uint64_t total;     /* bytes; the machine's */
    uint64_t available; /* usable without swapping, within the control group's limit */
    uint64_t limit;     /* the control group's, 0: none */
};

/* root: "" for the machine itself; tests pass a folder with proc/ and sys/ in it. Returns 0, or -1 when the
 * machine does not say. */
int memory_read(const char *root, struct memory_now *ret);
/* Resident bytes of a process, 0 when there is none. */
uint64_t memory_of_process(const char *root, int pid);
/* Bytes of a process, from /proc/PID/status. */
struct memory_use {
    uint64_t resident; /* anonymous + file + shared */
    uint64_t anonymous;
    uint64_t file; /* pages of files: a mapped model */
    uint64_t swapped;
};
/* -1: there is no such process. */
int memory_use_of_process(const char *root, int pid, struct memory_use *ret);
/* Processor time that a process has used so far, 0 when there is none. */
uint64_t memory_cpu_ms_of_process(const char *root, int pid);
/* docs/openapi.yaml, System.processor. A new reference. */
json_t *memory_processor_json(const char *root);

#endif

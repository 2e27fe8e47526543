/* room: is there memory for what a job is going to allocate? Asked before it starts, so that the answer is a
 * sentence and not the kernel's out-of-memory killer. */
#ifndef MYSTI_SD_WORKER_ROOM_H
#define MYSTI_SD_WORKER_ROOM_H

#include "base/err.h"

#include <stdint.h>

#define ROOM_MEMINFO "/proc/meminfo"

/* meminfo: a file in the form of ROOM_MEMINFO. Fails with ERR_NO_MEMORY and both numbers when `need` bytes are more
 * than the machine has available; where that cannot be read, everything fits. Limits of control groups are the
 * server's to know: it decides what else gives way. */
int room_check(const char *meminfo, uint64_t need, struct err *err) MUST_CHECK;

#endif

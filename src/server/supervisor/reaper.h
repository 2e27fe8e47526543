/* reaper: the server's claim on its state folder, and what is written there about its child processes, so that the
 * next server finds and ends those that a killed one left behind.
 *
 *   reaper_new(home, &r, &err)      takes the folder; waits for leftovers to be gone
 *   reaper_add(r, "mysti_sd_worker", pid);  reaper_remove(r, pid);
 *   reaper_free(r);
 */
#ifndef MYSTI_SERVER_SUPERVISOR_REAPER_H
#define MYSTI_SERVER_SUPERVISOR_REAPER_H

#include "base/err.h"

#include <stddef.h>

struct reaper;

/* Makes the folder. ERR_CONFLICT when another server has it. */
int reaper_new(const char *home, struct reaper **ret, struct err *err) MUST_CHECK;
void reaper_free(struct reaper *r);
/* How many leftovers were ended at the start. */
size_t reaper_found(const struct reaper *r);
void reaper_add(struct reaper *r, const char *name, int pid);
void reaper_remove(struct reaper *r, int pid);

/* When the process was started, in the kernel's ticks since boot; 0: there is none. */
unsigned long long reaper_start_time(int pid);

#endif

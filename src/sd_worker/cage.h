/* cage: what the worker does to itself before it works: dies with its parent, gains no privileges, keeps its
 * secret out of its environment, and gives its compute threads the place in the scheduler that leaves text its
 * tokens. */
#ifndef MYSTI_SD_WORKER_CAGE_H
#define MYSTI_SD_WORKER_CAGE_H

#include "base/err.h"
#include "base/sharing.h"

/* The name of every thread that computes. */
#define CAGE_COMPUTE "compute"

/* First thing in main. Fails when the parent is dead already. */
int cage_enter(struct err *err) MUST_CHECK;
/* OpenMP reads its environment before main: when it is not as the worker wants it, starts the program again
 * with the right one (same pid) and does not return. threads 0: one per physical core. Returns the threads. */
int cage_threads(int threads, char **argv);
/* The secret, cleared from the environment's memory; NULL when there is none. Free it. */
char *cage_take_token(void);
/* For every thread of this process that computes, and for those that they start from then on. Without privileges a
 * thread can be lowered and not raised again. */
void cage_place_compute(struct sharing_place place);

#endif

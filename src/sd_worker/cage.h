/* cage: what the worker does to itself before it works: dies with its parent, gains no privileges, keeps its
 * secret out of its environment, and gives its compute threads the place in the scheduler that leaves text its
 * tokens. */
#ifndef MYSTI_SD_WORKER_CAGE_H
#define MYSTI_SD_WORKER_CAGE_H

#include "base/err.h"

enum cage_scheduling {
    CAGE_BATCH, /* a low weight: text keeps nearly all, the picture always progresses */
    CAGE_IDLE, /* only what nobody else wants: may stand still beside spinning threads */
    CAGE_NORMAL,
};

int cage_scheduling_parse(const char *name, enum cage_scheduling *ret,
                          struct err *err) MUST_CHECK;

/* First thing in main. Fails when the parent is dead already. */
int cage_enter(struct err *err) MUST_CHECK;
/* OpenMP reads its environment before main: when it is not as the worker wants it, starts the program again
 * with the right one (same pid) and does not return. threads 0: one per physical core. Returns the threads. */
int cage_threads(int threads, char **argv);
/* The secret, cleared from the environment's memory; NULL when there is none. Free it. */
char *cage_take_token(void);
/* For every thread of this process but the main one, and for those that they start from then on. Without
 * privileges there is no way back, so it is left until the first picture: models load at full weight. */
void cage_schedule_compute(enum cage_scheduling scheduling);

#endif

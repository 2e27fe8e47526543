/* cage: what holds for the process that becomes llama-server, set before it does. */
#ifndef MYSTI_LLM_WORKER_CAGE_H
#define MYSTI_LLM_WORKER_CAGE_H

#include "base/err.h"

/* Dies with the server that started it, when one did (MYSTI_SERVER_PID). Call first thing. Fails when that server
 * is gone already. */
int cage_follow_server(struct err *err) MUST_CHECK;
/* Own process group, no new privileges, no core files, first choice of the out-of-memory killer, no inherited
 * descriptors besides the standard three. */
void cage_close(void);

#endif

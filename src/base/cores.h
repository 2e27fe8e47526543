/* cores: how many threads of computing make sense for this process. */
#ifndef MYSTI_BASE_CORES_H
#define MYSTI_BASE_CORES_H

/* Physical cores that the process may use: those of its affinity mask, hardware threads of one core counted once,
 * at most what its control groups' quota (cgroup v2) amounts to. At least 1. */
int cores_usable(void);

#endif

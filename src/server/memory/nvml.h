/* nvml: how much memory NVIDIA's cards have, as the library of their driver says. It is loaded when the program runs, so
 * that a machine without it needs nothing; its few declarations are written here after NVIDIA's documentation of NVML. */
#ifndef MYSTI_SERVER_MEMORY_NVML_H
#define MYSTI_SERVER_MEMORY_NVML_H

#include "server/memory/devices.h"

#define NVML_LIBRARY "libnvidia-ml.so.1"

struct nvml;

/* NULL: there is no such library, or it does not work. */
struct nvml *nvml_open(const char *library);
void nvml_close(struct nvml *n);
/* Returns how many were written. */
int nvml_gpus(const struct nvml *n, struct gpu *ret, int max);
/* What a process has on all cards. false: it has nothing there, or is not seen (in a container, where it has another id). */
bool nvml_of_process(const struct nvml *n, int pid, uint64_t *ret);

#endif

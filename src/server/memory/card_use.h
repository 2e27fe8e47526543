/* card_use: how much of the memory of graphics cards a process has, as the kernel's drivers say it (amdgpu, xe, i915: the
 * drm-... lines of /proc/PID/fdinfo; ROCm: /sys/class/kfd). NVIDIA's driver says it through NVML alone (nvml.h). */
#ifndef MYSTI_SERVER_MEMORY_CARD_USE_H
#define MYSTI_SERVER_MEMORY_CARD_USE_H

#include <stdbool.h>
#include <stdint.h>

/* All cards together. false: nothing, or it is not said. */
bool card_use_of_process(const char *root, int pid, uint64_t *ret);

#endif

/* A stand-in for libnvidia-ml.so.1: three cards, of which the second has fallen off the bus, and the third says neither its name
 * nor its memory. Process 77 computes on the first and on the third and draws on the first. */
#include <stdio.h>

struct memory {
    unsigned long long total, free, used;
};

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *ret)
{
    *ret = 3;
    return 0;
}

static unsigned handles[] = {1, 2, 3};

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **ret)
{
    *ret = &handles[index];
    return index == 1 ? 15 : 0;
}

int nvmlDeviceGetName(void *device, char *ret, unsigned size)
{
    if (*(unsigned *)device == 3)
        return 3;
    snprintf(ret, size, "NVIDIA Fake %u", *(unsigned *)device);
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *ret)
{
    if (*(unsigned *)device == 3)
        return 3;
    *ret = (struct memory){.total = 8ULL << 30, .free = 6ULL << 30, .used = 2ULL << 30};
    return 0;
}

struct process {
    unsigned pid;
    unsigned long long bytes;
    unsigned instance, compute_instance;
};

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count,
                                            struct process *ret)
{
    ret[0] = (struct process){.pid = 12, .bytes = 5ULL << 30};
    ret[1] = (struct process){.pid = 77, .bytes = 3ULL << 30};
    ret[2] = (struct process){.pid = 78, .bytes = ~0ULL}; /* not available */
    *count = *(unsigned *)device == 3 ? 2 : 3;
    return 0;
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(void *device, unsigned *count,
                                             struct process *ret)
{
    ret[0] = (struct process){.pid = 77, .bytes = 4ULL << 30};
    *count = 1;
    return *(unsigned *)device == 3 ? 3 : 0;
}

/* The handles that NVML gives are good until nvmlShutdown(), and a question takes microseconds, so they are asked for each
 * time: a card that was taken out or reset meanwhile is simply not in the answer. */
#include "server/memory/nvml.h"

#include "base/mem.h"
#include "base/str.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* nvmlMemory_t */
struct nvml_memory {
    unsigned long long total, free, used;
};

/* nvmlProcessInfo_t of versions 2 and 3 */
struct nvml_process {
    unsigned pid;
    unsigned long long bytes;
    unsigned instance, compute_instance;
};

typedef int nvml_processes_fn(void *device, unsigned *count, struct nvml_process *ret);

#define PROCESSES_MAX 512
#define BYTES_NOT_KNOWN (~0ULL)

struct nvml {
    void *library;
    int (*shutdown)(void);
    int (*count)(unsigned *ret);
    int (*device)(unsigned index, void **ret);
    int (*name)(void *device, char *ret, unsigned size);
    int (*memory)(void *device, struct nvml_memory *ret);
    nvml_processes_fn *processes[2]; /* that compute, that draw; NULL: an old driver */
};

/* ISO C knows no conversion from an object pointer to a function pointer; POSIX promises that the bits are the same. */
static bool find(void *library, const char *symbol, void *ret_function)
{
    void *address = dlsym(library, symbol);

    memcpy(ret_function, &address, sizeof(address));
    return address != NULL;
}

/* A process that does both is in both lists, with the same number. */
static void find_processes(struct nvml *n)
{
    static const char *const names[2][2] = {
        {"nvmlDeviceGetComputeRunningProcesses_v3",
         "nvmlDeviceGetComputeRunningProcesses_v2"},
        {"nvmlDeviceGetGraphicsRunningProcesses_v3",
         "nvmlDeviceGetGraphicsRunningProcesses_v2"}};

    for (int i = 0; i < 2; i++)
        if (!find(n->library, names[i][0], &n->processes[i]))
            (void)find(n->library, names[i][1], &n->processes[i]);
}

struct nvml *nvml_open(const char *library)
{
    struct nvml *n = mem_zalloc(sizeof(*n));
    int (*init)(void);

    n->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (n->library && find(n->library, "nvmlInit_v2", &init) &&
        find(n->library, "nvmlShutdown", &n->shutdown) &&
        find(n->library, "nvmlDeviceGetCount_v2", &n->count) &&
        find(n->library, "nvmlDeviceGetHandleByIndex_v2", &n->device) &&
        find(n->library, "nvmlDeviceGetName", &n->name) &&
        find(n->library, "nvmlDeviceGetMemoryInfo", &n->memory) && init() == 0) {
        find_processes(n);
        return n;
    }
    if (n->library)
        dlclose(n->library);
    free(n);
    return NULL;
}

void nvml_close(struct nvml *n)
{
    if (!n)
        return;
    n->shutdown();
    dlclose(n->library);
    free(n);
}

int nvml_gpus(const struct nvml *n, struct gpu *ret, int max)
{
    unsigned count = 0;
    int found = 0;

    if (n->count(&count))
        return 0;
    for (unsigned i = 0; i < count && found < max; i++) {
        struct gpu *gpu = &ret[found];
        struct nvml_memory memory = {0};
        void *device;

        if (n->device(i, &device))
            continue;
        *gpu = (struct gpu){.vendor = "NVIDIA"};
        if (n->name(device, gpu->name, sizeof(gpu->name)) ||
            !str_is_utf8(gpu->name, strlen(gpu->name)))
            snprintf(gpu->name, sizeof(gpu->name), "NVIDIA %u", i);
        gpu->is_known = !n->memory(device, &memory);
        gpu->total = memory.total;
        gpu->free = memory.free;
        found++;
    }
    return found;
}

static uint64_t bytes_on(const struct nvml *n, void *device, int pid)
{
    struct nvml_process *list = mem_alloc(PROCESSES_MAX * sizeof(*list));
    uint64_t bytes = 0;

    for (int kind = 0; kind < 2; kind++) {
        unsigned count = PROCESSES_MAX;

        if (!n->processes[kind] || n->processes[kind](device, &count, list))
            continue;
        for (unsigned i = 0; i < count && i < PROCESSES_MAX; i++)
            if (list[i].pid == (unsigned)pid && list[i].bytes != BYTES_NOT_KNOWN &&
                list[i].bytes > bytes)
                bytes = list[i].bytes;
    }
    free(list);
    return bytes;
}

bool nvml_of_process(const struct nvml *n, int pid, uint64_t *ret)
{
    unsigned count = 0;
    void *device;

    *ret = 0;
    if (n->count(&count))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!n->device(i, &device))
            *ret += bytes_on(n, device, pid);
    return *ret > 0;
}

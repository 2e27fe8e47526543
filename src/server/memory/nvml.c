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

struct nvml {
    void *library;
    int (*shutdown)(void);
    int (*count)(unsigned *ret);
    int (*device)(unsigned index, void **ret);
    int (*name)(void *device, char *ret, unsigned size);
    int (*memory)(void *device, struct nvml_memory *ret);
};

/* ISO C knows no conversion from an object pointer to a function pointer; POSIX promises that the bits are the same. */
static bool find(void *library, const char *symbol, void *ret_function)
{
    void *address = dlsym(library, symbol);

    memcpy(ret_function, &address, sizeof(address));
    return address != NULL;
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
        find(n->library, "nvmlDeviceGetMemoryInfo", &n->memory) && init() == 0)
        return n;
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

#include "base/cores.h"

#include "base/mem.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Is `cpu` the first of its core among those in the mask? The list of a core's threads reads "0,4" or "0-1". */
static bool leads_core(int cpu, const cpu_set_t *mask)
{
    char *path =
        mem_printf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    bool leads = true;
    int first;

    free(path);
    while (f && leads && fscanf(f, "%d", &first) == 1) {
        int last = first;
        int c = fgetc(f);

        if (c == '-' && fscanf(f, "%d", &last) == 1)
            c = fgetc(f);
        for (int s = first; s <= last && s < cpu; s++)
            leads = leads && !(s >= 0 && CPU_ISSET((size_t)s, mask));
        if (c != ',')
            break;
    }
    if (f)
        fclose(f);
    return leads;
}

/* Cores' worth of time that one group allows, rounded up; 0: no limit. */
static int group_quota(const char *group)
{
    char *path = mem_printf("/sys/fs/cgroup%s/cpu.max", group);
    FILE *f = fopen(path, "re");
    long limit = 0;
    long period = 0;
    bool is_limited = f && fscanf(f, "%ld %ld", &limit, &period) == 2; /* else "max" */

    if (f)
        fclose(f);
    free(path);
    return is_limited && period > 0 ? (int)((limit + period - 1) / period) : 0;
}

/* The tightest quota on the way from our group to the root. */
static int quota(void)
{
    char line[4096];
    FILE *f = fopen("/proc/self/cgroup", "re");
    int least = group_quota("");

    while (f && fgets(line, sizeof(line), f)) {
        char *path = line + 3;

        if (strncmp(line, "0::/", 4) != 0)
            continue;
        path[strcspn(path, "\n")] = '\0';
        for (char *slash; (slash = strrchr(path, '/')); *slash = '\0') {
            int here = group_quota(path);

            if (here && (!least || here < least))
                least = here;
        }
    }
    if (f)
        fclose(f);
    return least;
}

int cores_usable(void)
{
    cpu_set_t mask;
    int cores = 0;
    int limit = quota();

    CPU_ZERO(&mask);
    if (sched_getaffinity(0, sizeof(mask), &mask))
        return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, &mask) && leads_core(cpu, &mask))
            cores++;
    if (limit && limit < cores)
        cores = limit;
    return cores ? cores : 1;
}

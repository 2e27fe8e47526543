#include "sd_worker/room.h"

#include <stdio.h>

int room_check(const char *meminfo, uint64_t need, struct err *err)
{
    const double gib = 1024.0 * 1024 * 1024;
    unsigned long long available_kib = 0;
    char line[256];
    FILE *f = fopen(meminfo, "re");
    int found = 0;

    while (f && !found && fgets(line, sizeof(line), f))
        found = sscanf(line, "MemAvailable: %llu kB", &available_kib) == 1;
    if (f)
        fclose(f);
    if (!found || need / 1024 <= available_kib)
        return 0;
    return err_set(
        err, ERR_NO_MEMORY,
        "the picture needs %.1f GiB, %.1f GiB of memory are free: choose a smaller "
        "size, or unload the text model",
        (double)need / gib, (double)available_kib * 1024 / gib);
}

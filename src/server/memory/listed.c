/* "  Vulkan0: NVIDIA H100 80GB HBM3 (81559 MiB, 80994 MiB free)": the name may have brackets of its own, so it is read from the end. */
#include "server/memory/listed.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool listed_read(const char *line, struct listed *ret)
{
    const char *colon = strchr(line, ':'), *bracket = strrchr(line, '(');
    uint64_t total, free_bytes;
    const char *id = line + strspn(line, " \t");
    const char *name;
    char end;

    if (!colon || !bracket || bracket < colon || colon == id ||
        !isalpha((unsigned char)*id) ||
        sscanf(bracket, "(%" SCNu64 " MiB, %" SCNu64 " MiB free%c", &total, &free_bytes,
               &end) != 3 ||
        end != ')' || total > (UINT64_MAX >> 20) || free_bytes > total)
        return false;
    name = colon + 1 + strspn(colon + 1, " ");
    while (bracket > name && bracket[-1] == ' ')
        bracket--;
    if (bracket <= name)
        return false;
    *ret = (struct listed){.total = total << 20, .free = free_bytes << 20};
    snprintf(ret->name, sizeof(ret->name), "%.*s", (int)(bracket - name), name);
    return true;
}

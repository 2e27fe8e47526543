/* listed: a device as ggml names it, in the answer to `llama-server --list-devices`. Only those of its back ends that are graphics
 * cards are in that list: one that is there is one that text models can lie on. */
#ifndef MYSTI_SERVER_MEMORY_LISTED_H
#define MYSTI_SERVER_MEMORY_LISTED_H

#include <stdbool.h>
#include <stdint.h>

struct listed {
    char name[96];
    uint64_t total; /* bytes */
    uint64_t free;  /* when it was asked */
};

/* false: the line names no device. */
bool listed_read(const char *line, struct listed *ret);

#endif

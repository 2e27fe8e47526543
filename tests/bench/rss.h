/* rss: memory of this process, for the benches. */
#ifndef MYSTI_TESTS_BENCH_RSS_H
#define MYSTI_TESTS_BENCH_RSS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line of /proc/self/status that is in kB, "RssAnon:", in bytes; 0 without it. */
static inline size_t rss_bytes(const char *key)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    size_t kib = 0;

    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, strlen(key)))
            kib = strtoul(line + strlen(key), NULL, 10);
    if (f)
        fclose(f);
    return kib * 1024;
}

#endif

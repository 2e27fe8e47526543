#include "base/pages.h"

#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, SMALL_PAGE = 4096 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* mmap gives 4 KiB alignment: take one huge page more and give back what sticks out. */
void *pages_alloc(size_t bytes)
{
    size_t wanted = round_up(bytes, SMALL_PAGE), before;
    char *p = mmap(NULL, wanted + HUGE_PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    before = round_up((uintptr_t)p, HUGE_PAGE) - (uintptr_t)p;
    if (before)
        munmap(p, before);
    if (before < HUGE_PAGE)
        munmap(p + before + wanted, HUGE_PAGE - before);
    /* a wish; without it all still works */
    madvise(p + before, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return p + before;
}

void pages_free(void *p, size_t bytes)
{
    if (p)
        munmap(p, round_up(bytes, SMALL_PAGE));
}

size_t pages_touched(size_t touched, size_t bytes)
{
    size_t whole = round_up(touched, HUGE_PAGE);

    return whole <= bytes / HUGE_PAGE * HUGE_PAGE ? whole : touched;
}

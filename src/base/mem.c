#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint fail_in; /* test hook: countdown to an injected failure */

static void *check(void *p, size_t size)
{
    if (!p) {
        fprintf(stderr, "mysti: out of memory while allocating %zu bytes\n", size);
        abort();
    }
    return p;
}

void *mem_alloc(size_t size)
{
    return check(malloc(size ? size : 1), size);
}

void *mem_zalloc(size_t size)
{
    return check(calloc(1, size ? size : 1), size);
}

void *mem_realloc(void *p, size_t size)
{
    return check(realloc(p, size ? size : 1), size);
}

char *mem_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = mem_alloc(len + 1);

    memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_printf(const char *format, ...)
{
    va_list args;
    char *out;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    out = mem_alloc((size_t)n + 1);
    va_start(args, format);
    vsnprintf(out, (size_t)n + 1, format, args);
    va_end(args);
    return out;
}

static int injected_failure(void)
{
    unsigned left = atomic_load(&fail_in);

    if (!left)
        return 0;
    return atomic_fetch_sub(&fail_in, 1) == 1;
}

void *mem_try_alloc(size_t size)
{
    return injected_failure() ? NULL : malloc(size ? size : 1);
}

void *mem_try_zalloc(size_t count, size_t size)
{
    return injected_failure() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void mem_fail_after(unsigned n)
{
    atomic_store(&fail_in, n);
}

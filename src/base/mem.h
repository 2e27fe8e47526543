/* mem: allocation. Small allocations never fail: running out of memory for a few
 * hundred bytes leaves nothing sensible to do, so they end the process with one line.
 * Anything whose size a user or a model decides goes through mem_try_*, which returns
 * NULL, and the caller makes a sentence of it. */
#ifndef MYSTI_BASE_MEM_H
#define MYSTI_BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *p, size_t size) __attribute__((returns_nonnull));
char *mem_strdup(const char *s) __attribute__((malloc, returns_nonnull));
char *mem_strndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *mem_printf(const char *format, ...)
    __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));

void *mem_try_alloc(size_t size) __attribute__((malloc));
void *mem_try_zalloc(size_t count, size_t size) __attribute__((malloc));

/* Tests make the n-th mem_try_* from now on fail (1 = the next); 0 turns it off. */
void mem_fail_after(unsigned n);

#endif

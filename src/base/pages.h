/* pages: large blocks of zeroed memory from the system, in huge pages where it has them.
 *
 * A block begins at a huge page and is touched by whole ones, but for what is left behind the last: that stays in small pages, so
 * that no more than `bytes` (rounded to small pages) is ever taken. */
#ifndef MYSTI_BASE_PAGES_H
#define MYSTI_BASE_PAGES_H

#include <stddef.h>

void *
pages_alloc(size_t bytes); /* NULL when there are none left; 64-aligned and more */
void pages_free(void *p, size_t bytes); /* NULL is fine; bytes as they were asked for */
/* Bytes that are there once the first `touched` of a block of `bytes` have been written to. */
size_t pages_touched(size_t touched, size_t bytes);

#endif

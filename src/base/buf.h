/* buf: bytes that grow at the end and are consumed from the front. Zero-initialise,
 * then use; the data is always followed by a NUL that is not counted, so a buffer of
 * text is also a C string. */
#ifndef MYSTI_BASE_BUF_H
#define MYSTI_BASE_BUF_H

#include <stddef.h>

struct buf {
    char *data; /* NULL while nothing was ever added */
    size_t len;
    size_t cap;
};

void buf_append(struct buf *b, const void *data, size_t len);
void buf_append_str(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Makes room for `extra` bytes after the data and returns where they go; raise len
 * yourself. */
char *buf_reserve(struct buf *b, size_t extra);
void buf_consume(struct buf *b, size_t n);
void buf_clear(struct buf *b); /* keeps the memory */
void buf_release(
    struct buf *b); /* gives it back; the buffer is empty and usable again */
/* Hands the bytes to the caller (free them with free()); the buffer is empty again.
 * Never NULL. */
char *buf_take(struct buf *b);
const char *buf_str(const struct buf *b); /* "" when empty */

#endif

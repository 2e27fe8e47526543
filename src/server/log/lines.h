/* lines: cuts a stream of bytes into lines. A worker writes what it likes: half lines, a megabyte without
 * a newline, progress bars that go back with \r. Each line comes out once, cut at LOG_LINE_MAX.
 *
 *   struct line_splitter l = {0};
 *   lines_feed(&l, data, n, on_line, data);    lines_finish(...) at the end of the stream
 *   lines_release(&l);
 */
#ifndef MYSTI_SERVER_LOG_LINES_H
#define MYSTI_SERVER_LOG_LINES_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

/* without its newline, NUL-terminated; never empty */
typedef void line_fn(void *data, const char *line, size_t len);

struct line_splitter {
    struct buf partial;
    bool skipping; /* the rest of an overlong line */
};

void lines_feed(struct line_splitter *l, const char *bytes, size_t len,
                line_fn *on_line, void *data);
/* What came without a newline at the end is a line too. */
void lines_finish(struct line_splitter *l, line_fn *on_line, void *data);
void lines_release(struct line_splitter *l);

/* The newest lines of a worker, in a ring. */
#define LINES_KEPT 50

struct line_ring {
    char *lines[LINES_KEPT];
    size_t next;
    size_t count;
};

void line_ring_add(struct line_ring *r, const char *line, size_t len);
/* oldest first, at most max (then the newest max); returns how many */
size_t line_ring_tail(const struct line_ring *r, const char **ret_lines, size_t max);
void line_ring_release(struct line_ring *r);

#endif

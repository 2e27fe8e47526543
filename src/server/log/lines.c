#include "server/log/lines.h"

#include "base/mem.h"
#include "server/log/log.h"

#define RING_LINE_MAX 1000 /* bytes kept of one line: 2 workers x 50 lines stay small */

static void emit(struct line_splitter *l, line_fn *on_line, void *data)
{
    if (l->partial.len > 0)
        on_line(data, l->partial.data, l->partial.len);
    buf_clear(&l->partial);
    if (l->partial.cap > LOG_LINE_MAX * 2)
        buf_release(&l->partial);
}

void lines_feed(struct line_splitter *l, const char *bytes, size_t len,
                line_fn *on_line, void *data)
{
    for (size_t at = 0; at < len;) {
        size_t end = at;
        size_t room = LOG_LINE_MAX - l->partial.len;
        size_t part;

        while (end < len && bytes[end] != '\n' && bytes[end] != '\r')
            end++;
        part = end - at;
        if (!l->skipping && part > 0)
            buf_append(&l->partial, bytes + at, part < room ? part : room);
        if (!l->skipping && part >= room) { /* as long as a line may be: out with it */
            emit(l, on_line, data);
            l->skipping = true;
        }
        if (end < len) {
            emit(l, on_line, data);
            l->skipping = false;
            end++;
        }
        at = end;
    }
}

void lines_finish(struct line_splitter *l, line_fn *on_line, void *data)
{
    emit(l, on_line, data);
    l->skipping = false;
}

void lines_release(struct line_splitter *l)
{
    buf_release(&l->partial);
    l->skipping = false;
}

void line_ring_add(struct line_ring *r, const char *line, size_t len)
{
    free(r->lines[r->next]);
    r->lines[r->next] = mem_strndup(line, len < RING_LINE_MAX ? len : RING_LINE_MAX);
    r->next = (r->next + 1) % LINES_KEPT;
    if (r->count < LINES_KEPT)
        r->count++;
}

size_t line_ring_tail(const struct line_ring *r, const char **ret_lines, size_t max)
{
    size_t n = r->count < max ? r->count : max;

    for (size_t i = 0; i < n; i++)
        ret_lines[i] = r->lines[(r->next + LINES_KEPT - n + i) % LINES_KEPT];
    return n;
}

void line_ring_release(struct line_ring *r)
{
    for (size_t i = 0; i < LINES_KEPT; i++)
        free(r->lines[i]);
    *r = (struct line_ring){0};
}

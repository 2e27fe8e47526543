#include "cli/sse.h"

#include "base/str.h"

#include <string.h>

static const char *field_value(const char *line, const char *name)
{
    const char *value = line + strlen(name);

    if (!str_has_prefix(line, name) || *value != ':')
        return NULL;
    value++;
    return *value == ' ' ? value + 1 : value;
}

static void take_line(struct sse *s, const char *line)
{
    const char *value;

    if (!*line) {
        if (s->data.len && s->on_event)
            s->on_event(s->user, buf_str(&s->name), buf_str(&s->data));
        buf_clear(&s->data);
        buf_clear(&s->name);
    } else if (*line == ':') {
        if (s->on_comment)
            s->on_comment(s->user, line[1] == ' ' ? line + 2 : line + 1);
    } else if ((value = field_value(line, "data"))) {
        if (s->data.len)
            buf_append_str(&s->data, "\n");
        buf_append_str(&s->data, value);
    } else if ((value = field_value(line, "event"))) {
        buf_clear(&s->name);
        buf_append_str(&s->name, value);
    }
}

void sse_feed(struct sse *s, const char *bytes, size_t len)
{
    while (len) {
        const char *newline = memchr(bytes, '\n', len);
        size_t n = newline ? (size_t)(newline - bytes) : len;

        buf_append(&s->line, bytes, n);
        if (!newline)
            return;
        if (s->line.len && s->line.data[s->line.len - 1] == '\r')
            s->line.data[--s->line.len] = '\0';
        take_line(s, buf_str(&s->line));
        buf_clear(&s->line);
        bytes += n + 1;
        len -= n + 1;
    }
}

void sse_release(struct sse *s)
{
    buf_release(&s->line);
    buf_release(&s->data);
    buf_release(&s->name);
}

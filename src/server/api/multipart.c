/* A body is: preamble, then for each part "\r\n--boundary\r\n", header lines, an empty line, bytes; at the end
 * "\r\n--boundary--". The first delimiter may stand at the very beginning, without its line break. Of a part's headers only
 * Content-Disposition is read: its name, and whether there is a file name. What a part says about its type is not believed by
 * anybody here: pictures are recognised by their bytes. */
#include "server/api/multipart.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

bool multipart_is(const char *content_type)
{
    static const char type[] = "multipart/form-data";

    return content_type && strncasecmp(content_type, type, sizeof(type) - 1) == 0;
}

static int broken(struct err *err, const char *what)
{
    return err_set(err, ERR_INVALID, "the form (multipart/form-data) is broken: %s",
                   what);
}

int multipart_begin(struct multipart *m, const char *content_type, const char *data,
                    size_t len, struct err *err)
{
    const char *boundary = strcasestr(content_type, "boundary=");
    size_t n;

    if (!boundary)
        return broken(err, "its Content-Type names no boundary");
    boundary += strlen("boundary=");
    n = *boundary == '"' ? strcspn(++boundary, "\"") : strcspn(boundary, "; \t");
    if (n < 1 || n > 70)
        return broken(err, "its boundary must have 1 to 70 characters");
    snprintf(m->delimiter, sizeof(m->delimiter), "\r\n--%.*s", (int)n, boundary);
    m->end = data + len;
    n = strlen(m->delimiter);
    if (len >= n - 2 && memcmp(data, m->delimiter + 2, n - 2) == 0) {
        m->at = data + n - 2;
        return 0;
    }
    m->at = memmem(data, len, m->delimiter, n);
    if (!m->at)
        return broken(err, "its boundary is not in it");
    m->at += n;
    return 0;
}

/* name="...", of the header line at text; false when the line has none */
static bool take_parameter(const char *text, size_t len, const char *key, char *ret,
                           size_t size)
{
    size_t n = strlen(key);

    for (size_t i = 0; i + n + 1 < len; i++) {
        if (strncasecmp(text + i, key, n) != 0 || text[i + n] != '=' ||
            (i > 0 && !strchr("; \t", text[i - 1])))
            continue;
        bool is_quoted = text[i + n + 1] == '"';
        size_t from = i + n + 1 + is_quoted, to = from;

        while (to < len && text[to] != '"' && (is_quoted || !strchr("; \t", text[to])))
            to++;
        if (ret && to - from < size) {
            memcpy(ret, text + from, to - from);
            ret[to - from] = '\0';
        }
        return !ret || to - from < size;
    }
    return false;
}

/* Reads the header lines at m->at, up to the empty one. */
static int take_head(struct multipart *m, struct multipart_part *ret, struct err *err)
{
    static const char wanted[] = "content-disposition:";
    bool is_named = false;

    for (;;) {
        const char *line = m->at;
        const char *over = memmem(line, (size_t)(m->end - line), "\r\n", 2);
        size_t len;

        if (!over)
            return broken(err, "a part's head does not end");
        len = (size_t)(over - line);
        m->at = over + 2;
        if (len == 0)
            break;
        if (len < sizeof(wanted) || strncasecmp(line, wanted, sizeof(wanted) - 1) != 0)
            continue;
        is_named = take_parameter(line, len, "name", ret->name, sizeof(ret->name));
        ret->is_file = take_parameter(line, len, "filename", NULL, 0);
    }
    return is_named ? 0 : broken(err, "a part has no name, or one over 63 characters");
}

int multipart_next(struct multipart *m, struct multipart_part *ret, struct err *err)
{
    size_t left = (size_t)(m->end - m->at);
    const char *over;

    *ret = (struct multipart_part){0};
    if (left >= 2 && memcmp(m->at, "--", 2) == 0)
        return 0;
    if (left < 2 || memcmp(m->at, "\r\n", 2) != 0)
        return broken(err, "a boundary is not followed by a line break");
    m->at += 2;
    if (take_head(m, ret, err))
        return -1;
    /* an empty part's delimiter shares its line break with the head's end */
    over = memmem(m->at - 2, (size_t)(m->end - m->at) + 2, m->delimiter,
                  strlen(m->delimiter));
    if (!over)
        return broken(err, "it ends before its last boundary");
    ret->data = m->at;
    ret->len = over < m->at ? 0 : (size_t)(over - m->at);
    m->at = over + strlen(m->delimiter);
    return 1;
}

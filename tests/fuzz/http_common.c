#include "http_common.h"

#include "base/mem.h"
#include "http/field.h"

#include <strings.h>

static const struct message_limits limits = {.head_bytes = 2048, .header_count = 16};

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_head(const struct message *m)
{
    unsigned hosts = 0, encodings = 0, lengths = 0;

    must(m->field_count <= limits.header_count);
    for (size_t i = 0; i < m->field_count; i++) {
        struct http_field f = message_field_at(m, i);

        must(field_is_token(f.name) && field_is_clean(f.value));
        hosts += !strcasecmp(f.name, "host");
        lengths += !strcasecmp(f.name, "content-length");
        if (!strcasecmp(f.name, "transfer-encoding")) {
            encodings++;
            must(!strcasecmp(f.value, "chunked"));
        }
    }
    must(encodings + lengths <= 1);
    must(m->parser.http_major == 1 && m->parser.http_minor <= 1);
    must(!encodings || m->parser.http_minor == 1);
    if (m->kind == MESSAGE_REQUEST) {
        const char *path = m->text.data + m->path;

        must(hosts == 1 || (!hosts && m->parser.http_minor == 0));
        must(*path == '/' || !strcmp(path, "*"));
        must(!field_path_climbs(path) && field_is_clean(path));
        must(!m->until_eof);
    }
}

static void note_head(const struct message *m, struct reading *r)
{
    check_head(m);
    buf_append(&r->heads, m->text.data ? m->text.data : "", m->text.len);
    buf_printf(&r->heads, "|%lld|%d%d%d|", (long long)m->length, m->has_body,
               m->until_eof, m->keep_alive);
}

static size_t next_piece(size_t left, unsigned max_piece, unsigned *seed)
{
    size_t n = left;

    if (max_piece) {
        *seed = *seed * 1103515245u + 12345u;
        n = 1 + (*seed >> 16) % max_piece;
    }
    return n < left ? n : left;
}

/* One piece of the stream may hold several messages. Returns false when it is refused. */
static bool read_piece(struct message *m, char *piece, size_t n, struct reading *r)
{
    enum message_event event;
    size_t used = 0;

    do {
        used += message_feed(m, piece + used, n - used, &event);
        must(used <= n);
        must(!m->body_len || (m->body >= piece && m->body + m->body_len <= piece + n));
        if (event == MESSAGE_BAD)
            return false;
        buf_append(&r->bodies, m->body, m->body_len);
        if (event == MESSAGE_HEAD)
            note_head(m, r);
        if (event == MESSAGE_END) {
            must(m->has_head);
            r->ended++;
            message_next(m);
        }
    } while (used < n || event == MESSAGE_HEAD);
    return true;
}

void read_in_pieces(enum message_kind kind, const uint8_t *data, size_t size,
                    unsigned max_piece, unsigned seed, struct reading *ret_reading)
{
    struct reading *r = ret_reading;
    struct message m;
    size_t at = 0;

    message_init(&m, kind, &limits);
    while (at < size && !r->is_bad) {
        size_t n = next_piece(size - at, max_piece, &seed);
        char *piece = mem_alloc(n);

        memcpy(piece, data + at, n);
        r->is_bad = !read_piece(&m, piece, n, r);
        at += n;
        free(piece);
    }
    if (!r->is_bad && message_has_begun(&m)) {
        if (message_eof(&m) == MESSAGE_END)
            r->ended++;
        else
            r->is_bad = true;
    }
    r->why = m.bad;
    if (r->is_bad) {
        struct err err;

        message_error(&m, &err);
        must(*err.message && err.code);
    }
    message_release(&m);
}

void read_both_ways(enum message_kind kind, const uint8_t *data, size_t size)
{
    struct reading whole = {0}, pieces = {0};

    if (!size)
        return;
    read_in_pieces(kind, data + 1, size - 1, 0, 0, &whole);
    read_in_pieces(kind, data + 1, size - 1, 1 + data[0] % 40, data[0], &pieces);
    /* Limits on size may strike a little earlier or later, and of a refused stream more or less of the
     * body may have been seen; all else must be the same. */
    if (whole.why != ERR_HEADERS && pieces.why != ERR_HEADERS) {
        must(whole.is_bad == pieces.is_bad);
        must(whole.ended == pieces.ended);
        must(whole.heads.len == pieces.heads.len);
        must(!whole.heads.len ||
             !memcmp(whole.heads.data, pieces.heads.data, whole.heads.len));
        if (!whole.is_bad)
            must(whole.bodies.len == pieces.bodies.len &&
                 (!whole.bodies.len ||
                  !memcmp(whole.bodies.data, pieces.bodies.data, whole.bodies.len)));
    }
    buf_release(&whole.heads);
    buf_release(&whole.bodies);
    buf_release(&pieces.heads);
    buf_release(&pieces.bodies);
}

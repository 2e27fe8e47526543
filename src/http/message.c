/* message: llhttp plus what it leaves to us.
 *
 * llhttp in its strict setting refuses most of what is dangerous: Content-Length together with
 * Transfer-Encoding, repeated or non-numeric lengths, bare LF and CR, folded lines, control characters in
 * names, broken chunks. No lenient flag is ever set here. On top of it, once a head is complete:
 *   - the version is exactly 1.0 or 1.1 of HTTP (llhttp would take RTSP and ICE, and a versionless line
 *     with a bare LF);
 *   - a request has exactly one Host, of legal characters (1.0: at most one);
 *   - Transfer-Encoding occurs once and is exactly "chunked", and never in 1.0. Anything else is refused:
 *     two programs that read it differently are how requests are smuggled;
 *   - the target is a path that begins with "/" ("*" for OPTIONS); no fragment, no 8-bit or control byte,
 *     no broken escape, no ".." part once decoded; CONNECT and methods that nothing here serves are
 *     refused;
 *   - sizes: bytes and number of fields of a head, bytes of chunk extensions and trailers;
 *   - an answer is never 101 (no upgrade is ever asked for).
 *
 * Flow. llhttp calls back; the callbacks only collect. It is paused at the end of the head and at the end
 * of the message, so that users' code runs outside of it and may do what it likes, destroying the
 * connection included. A message without a body never goes back into llhttp after its head: whether there
 * is a body is decided once, in judge_body(), for both kinds. llhttp is set up anew for each message.
 *
 * Body bytes are handed out in place. The pieces that one call finds lie behind each other with chunk
 * framing in between, so each is moved down to the end of the one before: one contiguous piece per read,
 * no copy for the usual case of one piece, no allocation.
 *
 * Trailers are read, counted and dropped.
 */
#include "http/message.h"

#include "base/mem.h"
#include "http/field.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    EXTRA_LIMIT = 16 * 1024, /* bytes of chunk extensions and trailers in a message */
    KEEP_TEXT = 4096,        /* text memory kept from one message to the next */
    KEEP_FIELDS = 32,
};

static int refuse(struct message *m, enum err_code code, const char *why)
{
    if (!m->bad) {
        m->bad = code;
        m->why = why;
    }
    return -1;
}

static int add_text(struct message *m, const char *at, size_t len)
{
    if (m->has_head) {
        m->extra_bytes += len;
        return m->extra_bytes > EXTRA_LIMIT
                   ? refuse(m, ERR_HEADERS, "The trailer fields are too large.")
                   : 0;
    }
    if (m->text.len + len + 1 > m->limits->head_bytes)
        return refuse(m, ERR_HEADERS, "The request line and headers are too large.");
    buf_append(&m->text, at, len);
    return 0;
}

static int on_text(llhttp_t *parser, const char *at, size_t len)
{
    return add_text(parser->data, at, len);
}

static int end_text(struct message *m)
{
    buf_append(&m->text, "", 1);
    return 0;
}

static int on_target_complete(llhttp_t *parser)
{
    return end_text(parser->data);
}

/* The next thing in text is a field's name. */
static int begin_field(struct message *m)
{
    if (m->field_count >= m->limits->header_count)
        return refuse(m, ERR_HEADERS, "There are too many header fields.");
    if (m->field_count == m->field_cap) {
        m->field_cap = m->field_cap ? m->field_cap * 2 : 16;
        m->fields = mem_realloc(m->fields, m->field_cap * sizeof(m->fields[0]));
    }
    m->fields[m->field_count++] = (struct message_field){0, 0};
    return 0;
}

/* llhttp does not tell which protocol's version this is: look at the bytes before it. */
static int on_version(llhttp_t *parser, const char *at, size_t len)
{
    struct message *m = parser->data;
    size_t behind = (size_t)(at - m->fed);
    char name[5];

    (void)len;
    if (m->has_version)
        return 0; /* the rest of it */
    m->has_version = true;
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = *(i + behind >= 5 ? &m->fed[i + behind - 5] : &m->before[i + behind]);
    if (memcmp(name, "HTTP/", sizeof(name)) != 0)
        return refuse(m, ERR_INVALID, "Only HTTP is spoken here.");
    return 0;
}

static void remember_before(struct message *m, const char *data, size_t len)
{
    size_t keep = len < sizeof(m->before) ? sizeof(m->before) - len : 0;

    memmove(m->before, m->before + sizeof(m->before) - keep, keep);
    memcpy(m->before + keep, data + len - (sizeof(m->before) - keep),
           sizeof(m->before) - keep);
}

static int on_name(llhttp_t *parser, const char *at, size_t len)
{
    struct message *m = parser->data;
    bool is_first = !m->field_count || m->fields[m->field_count - 1].value;

    if (!m->has_head && is_first) {
        if (begin_field(m))
            return -1;
        m->fields[m->field_count - 1].name = (uint32_t)m->text.len;
    }
    return add_text(m, at, len);
}

static int on_name_complete(llhttp_t *parser)
{
    struct message *m = parser->data;

    if (m->has_head)
        return 0;
    end_text(m);
    m->fields[m->field_count - 1].value = (uint32_t)m->text.len;
    return 0;
}

static int on_value_complete(llhttp_t *parser)
{
    struct message *m = parser->data;
    size_t start;

    if (m->has_head)
        return 0;
    start = m->fields[m->field_count - 1].value;
    while (m->text.len > start && strchr(" \t", m->text.data[m->text.len - 1]))
        m->text.len--;
    return end_text(m);
}

static int on_chunk_extension(llhttp_t *parser, const char *at, size_t len)
{
    struct message *m = parser->data;

    (void)at;
    m->extra_bytes += len;
    if (m->extra_bytes > EXTRA_LIMIT)
        return refuse(m, ERR_INVALID, "The chunk extensions are too large.");
    return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t len)
{
    struct message *m = parser->data;

    if (!m->body_len)
        m->body = m->body + (at - m->body);
    else
        memmove(m->body + m->body_len, at, len);
    m->body_len += len;
    return 0;
}

static int on_pause(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_text,
    .on_url_complete = on_target_complete,
    .on_version = on_version,
    .on_header_field = on_name,
    .on_header_field_complete = on_name_complete,
    .on_header_value = on_text,
    .on_header_value_complete = on_value_complete,
    .on_chunk_extension_name = on_chunk_extension,
    .on_chunk_extension_value = on_chunk_extension,
    .on_headers_complete = on_pause,
    .on_body = on_body,
    .on_message_complete = on_pause,
};

void message_init(struct message *m, enum message_kind kind,
                  const struct message_limits *limits)
{
    *m = (struct message){.kind = kind, .limits = limits};
    llhttp_init(&m->parser, kind == MESSAGE_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE,
                &settings);
    m->parser.data = m;
}

void message_next(struct message *m)
{
    struct buf text = m->text;
    struct message_field *fields = m->fields;
    uint32_t cap = m->field_cap;

    if (text.cap > KEEP_TEXT)
        buf_release(&text);
    buf_clear(&text);
    if (cap > KEEP_FIELDS) {
        free(fields);
        fields = NULL;
        cap = 0;
    }
    message_init(m, m->kind, m->limits);
    m->text = text;
    m->fields = fields;
    m->field_cap = cap;
}

void message_release(struct message *m)
{
    buf_release(&m->text);
    free(m->fields);
    m->fields = NULL;
    m->field_count = m->field_cap = 0;
}

bool message_has_begun(const struct message *m)
{
    return m->head_bytes > 0;
}

struct http_field message_field_at(const struct message *m, size_t i)
{
    return (struct http_field){m->text.data + m->fields[i].name,
                               m->text.data + m->fields[i].value};
}

const char *message_field_get(const struct message *m, const char *name)
{
    for (size_t i = 0; i < m->field_count; i++)
        if (field_same(m->text.data + m->fields[i].name, name))
            return m->text.data + m->fields[i].value;
    return NULL;
}

static int check_target(struct message *m)
{
    const char *target = m->text.data;
    size_t len = strlen(target), path_len = strcspn(target, "?");
    size_t at = m->text.len;
    long decoded;
    char *out;

    for (const char *p = target; *p; p++)
        if (*p <= 0x20 || *p >= 0x7f || *p == '#')
            return refuse(m, ERR_INVALID, "The request target has an illegal byte.");
    if (m->parser.method == HTTP_OPTIONS && !strcmp(target, "*"))
        path_len = 1;
    else if (*target != '/')
        return refuse(m, ERR_INVALID, "The request target must be a path.");
    out = buf_reserve(&m->text, path_len + 2);
    decoded = field_percent_decode(m->text.data, path_len, out);
    if (decoded < 0)
        return refuse(m, ERR_INVALID, "The request target has a broken escape.");
    if (field_path_climbs(out))
        return refuse(m, ERR_INVALID, "A path must not have \"..\" in it.");
    m->path = (uint32_t)at;
    m->query = (uint32_t)(path_len < len ? path_len + 1 : len);
    m->text.len += (size_t)decoded + 1;
    return 0;
}

static int check_method(struct message *m)
{
    switch (m->parser.method) {
    case HTTP_GET:
    case HTTP_HEAD:
    case HTTP_POST:
    case HTTP_PUT:
    case HTTP_PATCH:
    case HTTP_DELETE:
    case HTTP_OPTIONS:
        return 0;
    default:
        return refuse(m, ERR_UNSUPPORTED, "This method is not served here.");
    }
}

/* Host, Transfer-Encoding, Expect; how often and with what. */
static int check_fields(struct message *m)
{
    bool is_request = m->kind == MESSAGE_REQUEST;
    unsigned hosts = 0, encodings = 0, lengths = 0;

    for (size_t i = 0; i < m->field_count; i++) {
        struct http_field f = message_field_at(m, i);

        if (!field_is_token(f.name) || !field_is_clean(f.value))
            return refuse(m, ERR_INVALID, "A header field has an illegal byte.");
        if (field_same(f.name, "host")) {
            hosts++;
            if (is_request && !field_is_host(f.value))
                return refuse(m, ERR_INVALID, "The Host field is not a host.");
        } else if (field_same(f.name, "content-length")) {
            lengths++;
        } else if (field_same(f.name, "transfer-encoding")) {
            encodings++;
            if (strcasecmp(f.value, "chunked") != 0)
                return refuse(m, is_request ? ERR_UNSUPPORTED : ERR_INVALID,
                              "The only transfer encoding here is \"chunked\".");
        } else if (is_request && field_same(f.name, "expect")) {
            if (strcasecmp(f.value, "100-continue") != 0)
                return refuse(m, ERR_INVALID, "This expectation cannot be met.");
            m->expects_continue = m->parser.http_minor == 1;
        }
    }
    if (encodings > 1 || lengths > 1 || (encodings && lengths) ||
        (encodings && m->parser.http_minor == 0))
        return refuse(m, ERR_INVALID, "The length of the body is given ambiguously.");
    if (is_request && (hosts > 1 || (!hosts && m->parser.http_minor == 1)))
        return refuse(m, ERR_INVALID, "A request must have exactly one Host field.");
    if (encodings)
        m->length = -1;
    return 0;
}

/* RFC 9112, 6.3: is there a body, and how long is it? */
static void judge_body(struct message *m)
{
    int status = m->parser.status_code;

    if (m->kind == MESSAGE_ANSWER &&
        (status < 200 || status == 204 || status == 304 || m->is_head_answer)) {
        m->has_body = false;
    } else if (m->length < 0) {
        m->has_body = true;
    } else if (m->parser.flags & F_CONTENT_LENGTH) {
        m->has_body = m->parser.content_length > 0;
    } else if (m->kind == MESSAGE_ANSWER) {
        m->has_body = m->until_eof = true;
        m->length = -1;
    }
    if (m->length >= 0 && (m->parser.flags & F_CONTENT_LENGTH))
        m->length = m->parser.content_length > INT64_MAX
                        ? INT64_MAX
                        : (int64_t)m->parser.content_length;
}

static int check_head(struct message *m)
{
    if (m->parser.http_major != 1 || m->parser.http_minor > 1)
        return refuse(m, ERR_INVALID, "Only HTTP/1.0 and HTTP/1.1 are spoken here.");
    if (m->kind == MESSAGE_REQUEST) {
        if (check_method(m) || check_target(m))
            return -1;
    } else if (m->parser.status_code < 100 || m->parser.status_code > 599) {
        return refuse(m, ERR_INVALID, "The status is none of HTTP's.");
    } else if (m->parser.status_code == 101) {
        return refuse(m, ERR_INVALID, "The protocol was switched without being asked.");
    }
    if (check_fields(m))
        return -1;
    judge_body(m);
    m->keep_alive = llhttp_should_keep_alive(&m->parser) && !m->until_eof;
    m->parser.upgrade =
        0; /* an Upgrade is not followed: the message is an ordinary one */
    return 0;
}

/* What llhttp found, in our words. */
static void explain(struct message *m, enum llhttp_errno code, const char *data)
{
    if (m->bad)
        return;
    switch (code) {
    case HPE_INVALID_METHOD:
        if (m->head_bytes == 0 && data[0] == 0x16)
            refuse(m, ERR_INVALID, "This port speaks plain HTTP, not TLS.");
        else
            refuse(m, ERR_INVALID, "The request does not begin with a known method.");
        break;
    case HPE_INVALID_VERSION:
        refuse(m, ERR_INVALID, "Only HTTP/1.0 and HTTP/1.1 are spoken here.");
        break;
    default:
        refuse(m, ERR_INVALID, llhttp_get_error_reason(&m->parser));
    }
}

static size_t feed_parser(struct message *m, char *data, size_t len,
                          enum message_event *ret_event)
{
    enum llhttp_errno code;
    size_t used = len;

    m->fed = data;
    code = llhttp_execute(&m->parser, data, len);

    *ret_event = MESSAGE_MORE;
    if (code == HPE_PAUSED) {
        used = (size_t)(llhttp_get_error_pos(&m->parser) - data);
        llhttp_resume(&m->parser);
        if (m->has_head) {
            m->at_end = true;
            *ret_event = MESSAGE_END;
        } else {
            m->head_bytes += used;
            m->has_head = true;
            *ret_event = check_head(m) ? MESSAGE_BAD : MESSAGE_HEAD;
        }
    } else if (code != HPE_OK) {
        explain(m, code, data);
        *ret_event = MESSAGE_BAD;
    } else if (!m->has_head) {
        m->head_bytes += len;
        remember_before(m, data, len);
    }
    if (!m->bad && m->head_bytes > m->limits->head_bytes)
        refuse(m, ERR_HEADERS, "The request line and headers are too large.");
    if (m->bad)
        *ret_event = MESSAGE_BAD;
    return used;
}

/* The RFC tolerates blank lines before a request line; here only whole ones. */
static size_t skip_blank_lines(struct message *m, const char *data, size_t len)
{
    size_t n = 0;

    while (n < len && (m->has_cr || data[n] == '\r' || data[n] == '\n')) {
        if (m->has_cr != (data[n] == '\n')) {
            refuse(m, ERR_INVALID, "The request begins with half a line end.");
            return n;
        }
        m->has_cr = data[n] == '\r';
        n++;
    }
    return n;
}

size_t message_feed(struct message *m, char *data, size_t len,
                    enum message_event *ret_event)
{
    size_t skipped = 0;

    m->body = data;
    m->body_len = 0;
    *ret_event = MESSAGE_MORE;
    if (m->bad) {
        *ret_event = MESSAGE_BAD;
        return 0;
    }
    if (m->has_head && (!m->has_body || m->at_end)) {
        m->at_end = true;
        *ret_event = MESSAGE_END;
        return 0;
    }
    if (!m->has_head && !m->head_bytes && m->kind == MESSAGE_REQUEST) {
        skipped = skip_blank_lines(m, data, len);
        if (m->bad) {
            *ret_event = MESSAGE_BAD;
            return skipped;
        }
    }
    if (skipped == len)
        return len;
    return skipped + feed_parser(m, data + skipped, len - skipped, ret_event);
}

enum message_event message_eof(struct message *m)
{
    if (m->has_head && (m->until_eof || m->at_end || !m->has_body)) {
        m->at_end = true;
        return MESSAGE_END;
    }
    refuse(m, ERR_INVALID, "The connection ended in the middle of the message.");
    return MESSAGE_BAD;
}

void message_error(const struct message *m, struct err *err)
{
    const char *what =
        m->kind == MESSAGE_REQUEST ? "Malformed request" : "Malformed answer";

    err_set(err, m->bad, "%s: %s", what, m->why);
}

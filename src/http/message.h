/* message: one HTTP/1.1 message, read from bytes as they come: llhttp in its strict setting plus the
 * checks that it leaves to us (listed in message.c). Pull style: feed it until it says something.
 *
 *   message_init(&m, MESSAGE_REQUEST, &limits);
 *   n = message_feed(&m, data, len, &event);  // n bytes were used
 *     MESSAGE_MORE  all used, wants more (there may be body bytes)
 *     MESSAGE_HEAD  the head is complete and passed the checks
 *     MESSAGE_END   the message is complete; message_next before feeding the rest
 *     MESSAGE_BAD   refused: message_error says why; nothing more may be fed
 *   After each call m.body[0 .. m.body_len) is what came of the body, in place: data is overwritten.
 *
 * Used by the server for requests and by the client for answers; knows no sockets.
 */
#ifndef MYSTI_HTTP_MESSAGE_H
#define MYSTI_HTTP_MESSAGE_H

#include "base/buf.h"
#include "base/err.h"
#include "http/http.h"

#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>

enum message_kind { MESSAGE_REQUEST, MESSAGE_ANSWER };
enum message_event { MESSAGE_MORE, MESSAGE_HEAD, MESSAGE_END, MESSAGE_BAD };

struct message_limits {
    size_t head_bytes;
    size_t header_count;
};

struct message_field {
    uint32_t name, value; /* offsets into text */
};

struct message {
    llhttp_t parser;
    const struct message_limits *limits;
    struct buf
        text; /* target, names, values, each with its NUL; then the decoded path */
    struct message_field *fields;
    uint32_t field_count, field_cap;
    uint32_t path, query; /* offsets into text; requests only */
    size_t head_bytes;    /* seen of the head so far */
    size_t extra_bytes;   /* of chunk extensions and trailers */
    int64_t length;       /* of the body; -1: chunked, or until the connection ends */
    const char *fed;      /* the data being fed */
    char before[5];       /* the last bytes fed before it, while in the head */
    char *body;           /* within the fed data */
    size_t body_len;
    enum err_code bad;
    const char *why; /* a whole sentence, static */
    enum message_kind kind : 8;
    bool has_head : 1;
    bool has_body : 1;
    bool until_eof : 1;
    bool keep_alive : 1;
    bool expects_continue : 1;
    bool
        is_head_answer : 1; /* set by the user: the answer to a HEAD request has no body */
    bool at_end : 1;
    bool has_version : 1;
    bool has_cr : 1; /* of a blank line before the head */
};

void message_init(struct message *m, enum message_kind kind,
                  const struct message_limits *limits);
void message_next(struct message *m); /* keeps the memory */
void message_release(struct message *m);
/* Did anything of a head come? Blank lines before it do not count. */
bool message_has_begun(const struct message *m);
size_t message_feed(struct message *m, char *data, size_t len,
                    enum message_event *ret_event);
/* The connection ended: MESSAGE_END when that is this body's end, else MESSAGE_BAD. */
enum message_event message_eof(struct message *m);
void message_error(const struct message *m, struct err *err);

const char *message_field_get(const struct message *m, const char *name);
struct http_field message_field_at(const struct message *m, size_t i);
static inline const char *message_target(const struct message *m)
{
    return m->text.data ? m->text.data : "";
}

#endif

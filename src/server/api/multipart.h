/* multipart: the parts of a multipart/form-data body (RFC 7578), one after the other, without copying.
 *
 *   struct multipart m;
 *   struct multipart_part part;
 *   if (multipart_begin(&m, content_type, data, len, err)) ...
 *   while ((more = multipart_next(&m, &part, err)) > 0) ...            // -1: err says what is wrong
 *
 * Pure; everything points into the body. Failures: 400 with a sentence. */
#ifndef MYSTI_SERVER_API_MULTIPART_H
#define MYSTI_SERVER_API_MULTIPART_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct multipart {
    char delimiter[80]; /* "\r\n--boundary" */
    const char *at, *end;
};

struct multipart_part {
    char name[64];
    bool is_file; /* has a file name */
    const char *data;
    size_t len;
};

bool multipart_is(const char *content_type); /* NULL: no */
int multipart_begin(struct multipart *m, const char *content_type, const char *data,
                    size_t len, struct err *err) MUST_CHECK;
/* 1: ret is filled in; 0: there are no more; -1: error */
int multipart_next(struct multipart *m, struct multipart_part *ret,
                   struct err *err) MUST_CHECK;

#endif

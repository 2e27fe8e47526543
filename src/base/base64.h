/* base64: bytes to text and back, RFC 4648, the standard alphabet, no line breaks. */
#ifndef MYSTI_BASE_BASE64_H
#define MYSTI_BASE_BASE64_H

#include "base/buf.h"
#include "base/err.h"

void base64_append(struct buf *b, const void *data, size_t len); /* with padding */
/* Appends; padding is optional. */
int base64_decode(const char *text, struct buf *ret, struct err *err) MUST_CHECK;

#endif

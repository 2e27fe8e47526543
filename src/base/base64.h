/* base64: bytes to text, RFC 4648, with padding, no line breaks. */
#ifndef MYSTI_BASE_BASE64_H
#define MYSTI_BASE_BASE64_H

#include "base/buf.h"

void base64_append(struct buf *b, const void *data, size_t len);

#endif

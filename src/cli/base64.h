/* base64: bytes from the text of an answer (RFC 4648, standard alphabet, padding optional). */
#ifndef MYSTI_CLI_BASE64_H
#define MYSTI_CLI_BASE64_H

#include "base/buf.h"
#include "base/err.h"

int base64_decode(const char *text, struct buf *ret, struct err *err) MUST_CHECK;

#endif

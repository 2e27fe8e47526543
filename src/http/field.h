/* field: what header fields may look like, and which of them belong to one connection only. */
#ifndef MYSTI_HTTP_FIELD_H
#define MYSTI_HTTP_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <strings.h>

/* The same name, in whatever case. Names are compared by the hundred per request and differ in the first
 * letter as a rule. */
static inline bool field_same(const char *a, const char *b)
{
    return ((a[0] ^ b[0]) & 0xdf) == 0 && !strcasecmp(a, b);
}

/* RFC 9110, 5.6.2: letters, digits and !#$%&'*+-.^_`|~ */
bool field_is_token(const char *s);
/* No control characters but the tab. */
bool field_is_clean(const char *value);
/* host[:port], RFC 3986: a name, an IPv4 address, or [IPv6]. */
bool field_is_host(const char *value);
/* Is `token` in the comma-separated list? Case-insensitive. */
bool field_list_has(const char *list, const char *token);
/* Connection, Keep-Alive, Transfer-Encoding and their like: never forwarded. */
bool field_is_hop_by_hop(const char *name);

/* Percent-decodes s[0 .. len) into out (at least len + 1 bytes; out may be s). Returns the length, or -1
 * for a broken escape or one that makes a control character. */
long field_percent_decode(const char *s, size_t len, char *out);
/* In decimal, at the end of room; returns where it begins. */
#define FIELD_NUMBER_BYTES 21
const char *field_number(uint64_t n, char room[FIELD_NUMBER_BYTES]);
/* Does the path have a ".." part? */
bool field_path_climbs(const char *path);

#endif

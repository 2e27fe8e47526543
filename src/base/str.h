/* str: small questions about text: numbers that must be whole and in range, and the
 * known name that somebody who mistyped probably meant. */
#ifndef MYSTI_BASE_STR_H
#define MYSTI_BASE_STR_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool str_has_prefix(const char *s, const char *prefix);
bool str_has_suffix(const char *s, const char *suffix);
/* Whole string, decimal, within [min, max]; `what` names it in the sentence. */
int str_to_int(const char *s, const char *what, int64_t min, int64_t max,
               int64_t *ret_value, struct err *err) MUST_CHECK;
/* Bytes: digits, perhaps with K, M, G or T (1024 ...); within [min, max]. */
int str_to_size(const char *s, const char *what, int64_t min, int64_t max,
                int64_t *ret_value, struct err *err) MUST_CHECK;
/* The entry of names[count] nearest to `name` by edit distance, NULL when none is near.
 */
const char *str_nearest(const char *name, const char *const *names, size_t count);
/* Valid UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above
 * U+10FFFF. */
bool str_is_utf8(const char *s, size_t len);

#endif

/* body: a request's JSON and the values in it. Every getter returns 0 or -1 with a sentence that names the field, what
 * it must be and what it was; an absent field (or null) is 0 and leaves *ret alone.
 *
 *   json_t *body = body_parse(data, len, &err);
 *   int64_t steps = 20;
 *   if (body_whole(body, "steps", 1, 150, &steps, &err)) ...
 */
#ifndef MYSTI_SERVER_API_BODY_H
#define MYSTI_SERVER_API_BODY_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A JSON object, a new reference; NULL with a sentence that says where the text stops being JSON. */
json_t *body_parse(const char *data, size_t len, struct err *err);

int body_whole(const json_t *body, const char *key, int64_t min, int64_t max,
               int64_t *ret, struct err *err) MUST_CHECK;
int body_number(const json_t *body, const char *key, double min, double max,
                double *ret, struct err *err) MUST_CHECK;
int body_bool(const json_t *body, const char *key, bool *ret,
              struct err *err) MUST_CHECK;
/* *ret points into body. At most max bytes, when max is not 0. */
int body_text(const json_t *body, const char *key, size_t max, const char **ret,
              struct err *err) MUST_CHECK;
/* The field that is there among two names of the same thing (NULL-terminated list); the first one's name when
 * none is. */
const char *body_name(const json_t *body, const char *const *names);
/* A value as it stands in JSON, cut to a few words, for a sentence. */
const char *body_shown(const json_t *value, char *ret, size_t size);

#endif

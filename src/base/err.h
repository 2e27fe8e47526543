/* err: how a failure travels.
 *
 *   struct err err = {0};
 *   if (checkpoint_open(&c, path, &err))
 *       return http_respond_error(x, &err);
 *
 * A fallible function returns 0 or -1 and takes `struct err *err` last. On -1 it has
 * put one finished sentence there that names the thing, the values and the way out; on
 * 0 it has not touched it. `err` may be NULL when the caller does not care why. A
 * message longer than the buffer is cut, never lost.
 */
#ifndef MYSTI_BASE_ERR_H
#define MYSTI_BASE_ERR_H

#include <stdarg.h>

/* name, HTTP status, OpenAI "type", slug ("code" in answers) */
#define ERR_CODES(X)                                                                   \
    X(INVALID, 400, "invalid_request_error", "invalid_value")                          \
    X(UNAUTHORIZED, 401, "authentication_error", "unauthorized")                       \
    X(FORBIDDEN, 403, "permission_error", "forbidden")                                 \
    X(NOT_FOUND, 404, "not_found_error", "not_found")                                  \
    X(NO_MODEL, 404, "not_found_error", "model_not_found")                             \
    X(METHOD, 405, "invalid_request_error", "method_not_allowed")                      \
    X(TIMEOUT, 408, "timeout_error", "request_timeout")                                \
    X(CONFLICT, 409, "conflict_error", "busy")                                         \
    X(TOO_LARGE, 413, "invalid_request_error", "too_large")                            \
    X(RATE_LIMIT, 429, "rate_limit_error", "queue_full")                               \
    X(HEADERS, 431, "invalid_request_error", "headers_too_large")                      \
    X(CANCELLED, 499, "cancelled_error", "cancelled")                                  \
    X(INTERNAL, 500, "server_error", "internal_error")                                 \
    X(UNSUPPORTED, 501, "not_supported_error", "not_supported")                        \
    X(BAD_GATEWAY, 502, "server_error", "worker_failed")                               \
    X(UNAVAILABLE, 503, "unavailable_error", "unavailable")                            \
    X(GATEWAY_TIMEOUT, 504, "timeout_error", "worker_timeout")                         \
    X(STORAGE, 507, "server_error", "storage")                                         \
    X(NO_MEMORY, 503, "unavailable_error", "out_of_memory")                            \
    X(BAD_FILE, 400, "invalid_request_error", "bad_file")

enum err_code {
    ERR_NONE = 0,
#define X(name, status, type, slug) ERR_##name,
    ERR_CODES(X)
#undef X
};

struct err {
    enum err_code code;
    char param[48]; /* the request field at fault, "" if none */
    char message[720];
};

/* Both return -1, so that a failing function can end with `return err_set(...)`. */
int err_set(struct err *err, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int err_set_param(struct err *err, enum err_code code, const char *param,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Puts "context: " before the sentence that is there. */
int err_wrap(struct err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int err_http_status(enum err_code code);
const char *err_type(enum err_code code);
const char *err_slug(enum err_code code);
/* the code whose slug this is (a worker's answer on its way back); fallback when
 * unknown */
enum err_code err_code_from_slug(const char *slug, enum err_code fallback);

#define MUST_CHECK __attribute__((warn_unused_result))

#endif

/* cors: which web pages may call this server. Loopback origins always may, and the page
 * that the server itself served; others when configured.
 *
 *   if (http_cors_handle(x, &cors))
 *       return; // a preflight, or a foreign page: answered
 */
#ifndef MYSTI_HTTP_CORS_H
#define MYSTI_HTTP_CORS_H

#include "http/http.h"

struct http_cors {
    const char *const *origins; /* e.g. "https://example.org"; "*" allows all */
    size_t count;
};

/* Adds the CORS fields to the answer. Returns true when it has answered: OPTIONS
 * preflights with 204 (requested headers and method echoed), requests of foreign
 * origins with 403. */
bool http_cors_handle(struct http_exchange *x, const struct http_cors *cors);
/* "http://localhost:5173", "http://127.0.0.1", "http://[::1]:80",
 * "https://app.localhost" */
bool http_cors_is_loopback(const char *origin);
/* A page of this machine, or the one that this server served. */
bool http_cors_is_own(const struct http_exchange *x, const char *origin);

#endif

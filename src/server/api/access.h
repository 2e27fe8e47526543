/* access: may this request be here at all? Looked at before any handler.
 *
 *   if (!access_check(api, x, route->scope)) return;      // answered: 401 or 403
 *   const char *who = access_client(api, x);              // a key's name, or the address
 */
#ifndef MYSTI_SERVER_API_ACCESS_H
#define MYSTI_SERVER_API_ACCESS_H

#include "server/keys/keys.h"

#include <stdbool.h>

struct api;
struct config;
struct http_exchange;

/* The name that the request was sent to (its Host): this machine's, one that was configured, or an address? Answers with
 * 403 when not. */
bool access_check_host(struct api *api, struct http_exchange *x);
/* Key and origin for a route of this scope. Answers when refused. */
bool access_check(struct api *api, struct http_exchange *x, enum key_scope needed);
/* Does it come with a key of this scope, where keys are asked for at all? Never answers. */
bool access_has(struct api *api, struct http_exchange *x, enum key_scope needed);
/* Who asks, for fairness and for logs; good until control returns to the loop. */
const char *access_client(struct api *api, struct http_exchange *x);

/* Pure, for tests. host: as the header has it, with or without port. */
bool access_is_own_host(const char *host, const struct config *config);

#endif

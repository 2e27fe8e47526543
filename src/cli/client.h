/* client: requests to mysti_server, one at a time.
 *
 *   json_t *health;
 *   int rc = client_get(server, "/health", &health, &err);     CLI_OK, CLI_REFUSED, CLI_UNREACHABLE
 *
 * `server` is a URL ("http://127.0.0.1:1234"). On anything but CLI_OK err holds one sentence: the server's own
 * where it gave one. */
#ifndef MYSTI_CLI_CLIENT_H
#define MYSTI_CLI_CLIENT_H

#include "base/err.h"
#include "cli/sse.h"

#include <jansson.h>

#define CLIENT_DEFAULT_SERVER "http://127.0.0.1:1234"
#define CLIENT_SERVER_HELP "(" CLIENT_DEFAULT_SERVER ", or $MYSTI_SERVER)"

/* the option's value, else MYSTI_SERVER, else the default */
const char *client_server(const char *option);

int client_get(const char *server, const char *path, json_t **ret,
               struct err *err) MUST_CHECK;
/* Takes the body. ret may be NULL. */
int client_post(const char *server, const char *path, json_t *body, json_t **ret,
                struct err *err) MUST_CHECK;
/* The answer is a stream of events, fed into `events` as it comes. Takes the body. */
int client_stream(const char *server, const char *path, json_t *body,
                  struct sse *events, struct err *err) MUST_CHECK;
/* Is this event's or answer's JSON an error object? Then its sentence is in err. */
int client_error_of(const json_t *answer, struct err *err);
/* "mysti draw: sentence" on stderr; returns rc. */
int client_complain(const char *command, int rc, const struct err *err);

#endif

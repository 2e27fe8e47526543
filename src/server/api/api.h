/* api: what every route does. main.c makes it last, from the other parts:
 *
 *   struct api *api = api_new(&server);          // server: filled in, lives longer
 *   struct http_server_options o = {.on_request = api_handle, .user = api, ...};
 *   ...
 *   api_free(api);         // after http_server_close() and supervisor_shutdown() have called back
 *
 * api_handle finds the route (routes.c has the table of all of them), answers CORS preflights, unknown paths
 * (404 with the nearest route) and wrong methods (405 with Allow), and calls the handler. Handlers belong to one
 * file per subject: text.c, images.c, models.c, workers.c, about.c. Loop thread only.
 */
#ifndef MYSTI_SERVER_API_API_H
#define MYSTI_SERVER_API_API_H

#include "http/http.h"

struct api;
struct server;

struct api *api_new(struct server *server);
void api_free(struct api *api);
/* An http_on_request_fn; user is the struct api. */
void api_handle(void *api, struct http_exchange *x);

#endif

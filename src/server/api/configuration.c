/* The options as a client sees them, and changing them. A change lasts until the server ends; the file is the user's and is
 * not written. */
#include "server/api/body.h"
#include "server/api/handlers.h"
#include "server/config/reload.h"
#include "server/log/log.h"

void config_show(struct api *api, struct http_exchange *x, const char *arg)
{
    (void)arg;
    http_respond_json(x, 200,
                      json_pack("{s:o}", "options", config_json(api->server->config)));
}

static void set(struct api *api, struct http_exchange *x, const char *arg,
                const json_t *body)
{
    struct server *server = api->server;
    struct config_changes changes;
    struct err err = {0};

    (void)arg;
    config_changes_init(&changes);
    if (config_change(server->config, body, &changes, &err)) {
        http_respond_err(x, &err);
    } else {
        server->configured(server);
        log_info(server->log,
                 "Configuration changed by %s: %zu option(s) now, %zu with the "
                 "next load",
                 access_client(api, x), json_array_size(changes.now),
                 json_array_size(changes.at_load));
        http_respond_json(
            x, 200,
            json_pack("{s:O, s:O}", "now", changes.now, "at_load", changes.at_load));
    }
    config_changes_release(&changes);
}

void config_set(struct api *api, struct http_exchange *x, const char *arg)
{
    with_body(api, x, arg, BODY_REQUIRED, set);
}

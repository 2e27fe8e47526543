/* From a request to its handler: Host and CORS, then the table of routes, then the page's files. A handful of routes is
 * compared one by one; that is a microsecond, and the table stays readable.
 *
 * An unknown path is one of two things. A file of the page has a dot in its last part (or is a folder, "/"): that goes
 * to the static files. Everything else was meant as a route and is told the nearest one, in the error object that
 * API clients can read. HEAD is GET everywhere; the HTTP layer drops the body.
 */
#include "server/api/api.h"

#include "base/mem.h"
#include "base/str.h"
#include "server/api/handlers.h"
#include "server/api/text_gate.h"
#include "server/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARG_MAX_BYTES 1024

struct api *api_new(struct server *server)
{
    const struct config *config = server->config;
    struct api *api = mem_zalloc(sizeof(*api));

    api->server = server;
    api->catalog = catalog_new(server->loop, config);
    api->gate = text_gate_new(server);
    if (config->public_dir && *config->public_dir)
        api->page = http_static_new(server->loop, config->public_dir);
    api->watch = watch_new(api);
    api->job_feeds = job_feeds_new(api);
    return api;
}

void api_free(struct api *api)
{
    if (!api)
        return;
    job_feeds_free(api->job_feeds);
    watch_free(api->watch);
    text_gate_free(api->gate);
    catalog_free(api->catalog);
    if (api->page)
        http_static_free(api->page);
    json_decref(api->processor);
    free(api);
}

/* Does the path fit the pattern? What stood at {...} or * goes to arg. */
static bool fits(const char *pattern, const char *path, char arg[ARG_MAX_BYTES])
{
    arg[0] = '\0';
    while (*pattern) {
        if (*pattern == '*') {
            snprintf(arg, ARG_MAX_BYTES, "%s", path);
            return *path && strlen(path) < ARG_MAX_BYTES;
        }
        if (*pattern == '{') {
            size_t n = strcspn(path, "/");

            if (n == 0 || n >= ARG_MAX_BYTES)
                return false;
            snprintf(arg, ARG_MAX_BYTES, "%.*s", (int)n, path);
            path += n;
            pattern = strchr(pattern, '}') + 1;
            continue;
        }
        if (*pattern != *path)
            return false;
        pattern++;
        path++;
    }
    return !*path || (!strcmp(path, "/")); /* "/v1/models/" is /v1/models */
}

static bool method_fits(const char *wanted, const char *method)
{
    return !strcmp(wanted, method) ||
           (!strcmp(wanted, "GET") && !strcmp(method, "HEAD"));
}

/* The path is a route's, the method is none of its. */
static void refuse_method(struct http_exchange *x, const char *path)
{
    char allowed[64] = "", arg[ARG_MAX_BYTES];

    for (size_t i = 0; i < route_count; i++) {
        size_t n = strlen(allowed);

        if (fits(routes[i].path, path, arg) && !strstr(allowed, routes[i].method))
            snprintf(allowed + n, sizeof(allowed) - n, "%s%s%s", n ? ", " : "",
                     routes[i].method,
                     !strcmp(routes[i].method, "GET") ? ", HEAD" : "");
    }
    http_set_header(x, "Allow", allowed);
    http_respond_error(x, ERR_METHOD, NULL, "%.200s takes %s, not %s", path, allowed,
                       http_method(x));
}

static void refuse_path(struct http_exchange *x, const char *path)
{
    const char **paths = mem_alloc(route_count * sizeof(*paths));

    for (size_t i = 0; i < route_count; i++)
        paths[i] = routes[i].path;
    const char *nearest = str_nearest(path, paths, route_count);

    free(paths);
    http_respond_error(x, ERR_NOT_FOUND, NULL, "there is no %.200s here; %s%s%s", path,
                       nearest ? "did you mean " : "GET /v1 lists every route",
                       nearest ? nearest : "", nearest ? "?" : "");
}

static bool is_page_file(struct http_exchange *x, const char *path)
{
    const char *last = strrchr(path, '/');

    return method_fits("GET", http_method(x)) && !str_has_prefix(path, "/v1/") &&
           last && (!last[1] || strchr(last, '.'));
}

void api_handle(void *user, struct http_exchange *x)
{
    struct api *api = user;
    const struct config_list *origins = &api->server->config->cors_origins;
    const struct http_cors cors = {(const char *const *)origins->items, origins->count};
    const char *path = http_path(x);
    char arg[ARG_MAX_BYTES];
    bool known = false;

    if (!access_check_host(api, x) || http_cors_handle(x, &cors))
        return;
    for (size_t i = 0; i < route_count; i++) {
        if (!fits(routes[i].path, path, arg))
            continue;
        known = true;
        if (method_fits(routes[i].method, http_method(x))) {
            if (access_check(api, x, routes[i].scope))
                routes[i].handle(api, x, arg);
            return;
        }
    }
    if (known)
        refuse_method(x, path);
    else if (is_page_file(x, path) && api->page)
        http_static_serve(api->page, x, path, NULL);
    else if (!strcmp(path, "/") && method_fits("GET", http_method(x)))
        about_index(api, x, ""); /* built without the page */
    else
        refuse_path(x, path);
}

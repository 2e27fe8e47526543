/* Three questions, in this order:
 *
 *   Host     a page of a foreign site can make its own name point to 127.0.0.1 and then talks to us as if we were
 *            that site ("DNS rebinding"). It cannot make up an address literal, nor a name that only this machine has. So
 *            the Host of a request must be an address, localhost, this machine's name, or one that was configured.
 *   Origin   which pages may call is CORS's business (http/cors.h). Here: routes for administrators are not for pages
 *            of other sites, even of those that may ask for text and pictures.
 *   Key      when there are keys, every route but the public ones wants one whose scope is enough: "Authorization: Bearer",
 *            "x-api-key", or the password of "Basic" (for clients that know nothing else). A cookie counts for reading
 *            only, because a page's pictures cannot carry a header; it is the page's own cookie, and a foreign site
 *            cannot make a browser change anything with it.
 */
#include "server/api/access.h"

#include "base/base64.h"
#include "base/mem.h"
#include "base/str.h"
#include "server/api/handlers.h"
#include "server/config/config.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <uv.h>

#define COOKIE "mysti_key="

/* ---- host ---- */

/* Without port and brackets. */
static void name_of(const char *host, char *ret, size_t size)
{
    size_t n = *host == '[' ? strcspn(++host, "]") : strcspn(host, ":");

    snprintf(ret, size, "%.*s", (int)n, host);
}

static bool is_address(const char *name)
{
    struct in6_addr address;

    return uv_inet_pton(AF_INET, name, &address) == 0 ||
           uv_inet_pton(AF_INET6, name, &address) == 0;
}

static bool is_this_machine(const char *name)
{
    char own[256] = "";
    size_t n;

    if (!strcasecmp(name, "localhost") ||
        (strlen(name) > 10 && !strcasecmp(name + strlen(name) - 10, ".localhost")))
        return true;
    if (gethostname(own, sizeof(own) - 1))
        return false;
    n = strlen(own);
    return n && !strncasecmp(name, own, n) &&
           (!name[n] || !strcasecmp(name + n, ".local"));
}

bool access_is_own_host(const char *host, const struct config *config)
{
    char name[256];

    name_of(host, name, sizeof(name));
    if (is_address(name) || is_this_machine(name))
        return true;
    for (size_t i = 0; i < config->allowed_hosts.count; i++)
        if (!strcasecmp(config->allowed_hosts.items[i], name) ||
            !strcmp(config->allowed_hosts.items[i], "*"))
            return true;
    return false;
}

bool access_check_host(struct api *api, struct http_exchange *x)
{
    const char *host = http_header(x, "host");

    if (!host || access_is_own_host(host, api->server->config)) /* HTTP/1.0 has none */
        return true;
    http_respond_error(x, ERR_FORBIDDEN, NULL,
                       "this server is not %.100s: if it should answer to that name, "
                       "add --allowed-host",
                       host);
    return false;
}

/* ---- key ---- */

static const struct key *by_basic(const struct keys *keys, const char *text)
{
    struct buf plain = {0};
    const struct key *key = NULL;
    const char *colon;

    if (base64_decode(text, &plain, NULL) == 0 &&
        (colon = strchr(buf_str(&plain), ':')))
        key = keys_find(keys, colon + 1);
    buf_release(&plain);
    return key;
}

static const struct key *by_cookie(const struct keys *keys, const char *cookies)
{
    const char *at = cookies;

    while ((at = strstr(at, COOKIE)) && at != cookies && at[-1] != ' ' && at[-1] != ';')
        at++;
    if (!at)
        return NULL;
    at += strlen(COOKIE);
    char *value = mem_strndup(at, strcspn(at, "; "));
    const struct key *key = keys_find(keys, value);

    free(value);
    return key;
}

/* The key that came with the request, NULL: none, or a wrong one. */
static const struct key *key_of(const struct keys *keys, struct http_exchange *x)
{
    const char *authorization = http_header(x, "authorization");
    const char *plain = http_header(x, "x-api-key");
    const char *cookies = http_header(x, "cookie");
    bool reads = !strcmp(http_method(x), "GET") || !strcmp(http_method(x), "HEAD");

    if (authorization && !strncasecmp(authorization, "bearer ", 7))
        return keys_find(keys, authorization + 7 + strspn(authorization + 7, " "));
    if (authorization && !strncasecmp(authorization, "basic ", 6))
        return by_basic(keys, authorization + 6 + strspn(authorization + 6, " "));
    if (plain)
        return keys_find(keys, plain);
    return cookies && reads ? by_cookie(keys, cookies) : NULL;
}

bool access_has(struct api *api, struct http_exchange *x, enum key_scope needed)
{
    const struct keys *keys = api->server->keys;
    const struct key *key;

    if (!keys->count || needed == SCOPE_PUBLIC)
        return true;
    key = key_of(keys, x);
    return key && key->scope >= needed;
}

const char *access_client(struct api *api, struct http_exchange *x)
{
    const struct key *key =
        api->server->keys->count ? key_of(api->server->keys, x) : NULL;

    return key ? key->name : http_peer(x);
}

/* ---- all of it ---- */

/* Of another site, although CORS lets it in for text and pictures. */
static bool is_foreign(struct http_exchange *x)
{
    const char *origin = http_header(x, "origin");

    return origin && !http_cors_is_own(x, origin);
}

bool access_check(struct api *api, struct http_exchange *x, enum key_scope needed)
{
    const struct keys *keys = api->server->keys;
    const struct key *key;

    if (needed == SCOPE_ADMIN && is_foreign(x)) {
        http_respond_error(x, ERR_FORBIDDEN, NULL,
                           "pages of %.100s may ask for text and pictures, but not "
                           "administer this server",
                           http_header(x, "origin"));
        return false;
    }
    if (!keys->count || needed == SCOPE_PUBLIC)
        return true;
    key = key_of(keys, x);
    if (key && key->scope >= needed)
        return true;
    if (key) {
        http_respond_error(x, ERR_FORBIDDEN, NULL,
                           "the key '%s' is for %s; this takes one for %s", key->name,
                           key_scope_word(key->scope), key_scope_word(needed));
        return false;
    }
    http_set_header(x, "www-authenticate", "Bearer realm=\"mysti\"");
    http_set_header(x, "x-should-retry", "false");
    http_respond_error(
        x, ERR_UNAUTHORIZED, NULL,
        "this server wants a key: send it as \"Authorization: Bearer "
        "KEY\". On its machine, mysti_server --new-key NAME %s makes one",
        key_scope_word(needed));
    return false;
}

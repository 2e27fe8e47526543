#include "http/cors.h"

#include "base/str.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_port(const char *s)
{
    if (!*s)
        return true;
    if (*s != ':' || !s[1])
        return false;
    for (s++; *s; s++)
        if (!isdigit((unsigned char)*s))
            return false;
    return true;
}

static bool is_loopback_v4(const char *host, size_t len)
{
    char text[16];
    struct in_addr address;

    if (len >= sizeof(text))
        return false;
    memcpy(text, host, len);
    text[len] = '\0';
    return uv_inet_pton(AF_INET, text, &address) == 0 &&
           ntohl(address.s_addr) >> 24 == 127;
}

bool http_cors_is_loopback(const char *origin)
{
    const char *host;
    size_t len;

    if (!strncasecmp(origin, "http://", 7))
        host = origin + 7;
    else if (!strncasecmp(origin, "https://", 8))
        host = origin + 8;
    else
        return false;
    if (!strncmp(host, "[::1]", 5))
        return is_port(host + 5);
    len = strcspn(host, ":/?#@");
    if (!is_port(host + len))
        return false;
    if (len == 9 && !strncasecmp(host, "localhost", 9))
        return true;
    if (len > 10 && !strncasecmp(host + len - 10, ".localhost", 10))
        return true;
    return is_loopback_v4(host, len);
}

static bool is_own_page(const struct http_exchange *x, const char *origin)
{
    const char *host = http_header(x, "host");

    if (!strncasecmp(origin, "http://", 7))
        origin += 7;
    else if (!strncasecmp(origin, "https://", 8))
        origin += 8; /* behind a TLS front */
    return host && !strcasecmp(origin, host);
}

static bool is_configured(const struct http_cors *cors, const char *origin)
{
    for (size_t i = 0; cors && i < cors->count; i++)
        if (!strcmp(cors->origins[i], "*") || !strcasecmp(cors->origins[i], origin))
            return true;
    return false;
}

static void answer_preflight(struct http_exchange *x, const char *method)
{
    const char *headers = http_header(x, "access-control-request-headers");

    http_set_header(x, "access-control-allow-methods", method);
    if (headers)
        http_set_header(x, "access-control-allow-headers", headers);
    if (http_header(x, "access-control-request-private-network"))
        http_set_header(x, "access-control-allow-private-network", "true");
    http_set_header(x, "access-control-max-age", "600");
    http_respond(x, 204, NULL, "", 0);
}

bool http_cors_is_own(const struct http_exchange *x, const char *origin)
{
    return http_cors_is_loopback(origin) || is_own_page(x, origin);
}

bool http_cors_handle(struct http_exchange *x, const struct http_cors *cors)
{
    const char *origin = http_header(x, "origin");
    const char *method = http_header(x, "access-control-request-method");

    if (!origin)
        return false;
    if (!http_cors_is_own(x, origin) && !is_configured(cors, origin)) {
        http_respond_error(
            x, ERR_FORBIDDEN, NULL,
            "Pages of %s may not call this server: add it to the allowed "
            "origins.",
            origin);
        return true;
    }
    http_set_header(x, "access-control-allow-origin", origin);
    http_set_header(x, "vary", "Origin");
    http_set_header(x, "access-control-expose-headers", "x-request-id");
    if (strcmp(http_method(x), "OPTIONS") != 0 || !method)
        return false;
    answer_preflight(x, method);
    return true;
}

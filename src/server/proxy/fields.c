#include "server/proxy/fields.h"

#include "base/mem.h"
#include "base/str.h"
#include "http/field.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (field_same(name, *names))
            return true;
    return false;
}

/* Host, length and Expect are this connection's own. Authorization, keys and cookies are the client's with
 * us, not with the worker, and so is what predecessors called their internal one. Origin is checked here. Without Accept-Encoding a worker sends what an error
 * event can be put behind. */
static bool stays_here(const char *name)
{
    static const char *const names[] = {
        "host",         "content-length",   "expect", "authorization",
        "x-api-key",    "cookie",           "origin", "accept-encoding",
        "x-request-id", "x-internal-token", NULL};

    return is_one_of(name, names);
}

static bool describes_body(const char *name)
{
    static const char *const names[] = {"content-type", "content-encoding",
                                        "content-md5", "digest", NULL};

    return is_one_of(name, names);
}

void proxy_fields_for_worker(const struct http_exchange *x, const char *token,
                             enum proxy_body_kind body, struct proxy_fields *ret_fields)
{
    size_t count = http_header_count(x), n = 0;
    struct http_field *list = mem_alloc((count + 3) * sizeof(*list));
    const char *named = http_header(x, "connection");

    for (size_t i = 0; i < count; i++) {
        struct http_field f = http_header_at(x, i);

        if (field_is_hop_by_hop(f.name) || stays_here(f.name) ||
            (named && field_list_has(named, f.name)) ||
            (body == PROXY_BODY_REPLACED && describes_body(f.name)))
            continue;
        list[n++] = f;
    }
    *ret_fields = (struct proxy_fields){.list = list};
    list[n++] = (struct http_field){"x-request-id", http_request_id(x)};
    if (body == PROXY_BODY_REPLACED)
        list[n++] = (struct http_field){"content-type", "application/json"};
    if (*token) {
        ret_fields->bearer = mem_printf("Bearer %s", token);
        list[n++] = (struct http_field){"authorization", ret_fields->bearer};
    }
    ret_fields->count = n;
}

void proxy_fields_release(struct proxy_fields *f)
{
    free(f->list);
    free(f->bearer);
}

/* CORS is ours to grant. */
static bool is_cors(const char *name)
{
    return (name[0] | 0x20) == 'a' && !strncasecmp(name, "access-control-", 15);
}

void proxy_fields_to_client(struct http_exchange *x, const struct http_answer *head)
{
    static const char *const own[] = {"content-length", "date", "x-request-id", NULL};
    const char *named = http_answer_field(head, "connection");

    for (size_t i = 0; i < head->field_count; i++) {
        const struct http_field *f = &head->fields[i];

        if (field_is_hop_by_hop(f->name) || is_one_of(f->name, own) ||
            is_cors(f->name) || (named && field_list_has(named, f->name)))
            continue;
        http_set_header(x, f->name, f->value);
    }
}

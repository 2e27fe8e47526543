/* Two ways in which an answer comes later: after somebody else is done (struct later), and after the body is
 * there (with_body). Both must cope with a client who leaves in between: the exchange is then gone, the
 * question is not, and whichever of the two ends last frees. */
#include "base/mem.h"
#include "server/api/body.h"
#include "server/api/handlers.h"

#include <stdlib.h>
#include <string.h>

struct later {
    struct api *api;
    struct http_exchange *x; /* NULL: the client has left */
    int number;
    char *text;
};

static void on_client_left(struct http_exchange *x, void *user,
                           enum http_outcome outcome)
{
    struct later *l = user;

    (void)x;
    (void)outcome;
    l->x = NULL;
}

struct later *later_new(struct api *api, struct http_exchange *x)
{
    struct later *l = mem_zalloc(sizeof(*l));

    l->api = api;
    l->x = x;
    http_set_user(x, l, on_client_left);
    return l;
}

void later_note(struct later *l, int number, const char *text)
{
    l->number = number;
    free(l->text);
    l->text = text ? mem_strdup(text) : NULL;
}

int later_number(const struct later *l)
{
    return l->number;
}

const char *later_text(const struct later *l)
{
    return l->text;
}

struct http_exchange *later_claim(struct later *l, struct api **ret_api)
{
    struct http_exchange *x = l->x;

    *ret_api = l->api;
    if (x)
        http_set_user(x, NULL, NULL);
    free(l->text);
    free(l);
    return x;
}

/* ---- bodies ---- */

struct waiting_body {
    struct api *api;
    char *arg;
    enum body_need need;
    with_body_fn *handle;
};

static void free_waiting(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct waiting_body *w = user;

    (void)x;
    (void)outcome;
    free(w->arg);
    free(w);
}

static void on_body(struct http_exchange *x, void *user, const char *data, size_t len)
{
    struct waiting_body *w = user;
    struct waiting_body now = *w;
    struct err err = {0};
    json_t *body;

    http_set_user(x, NULL, NULL);
    free(w);
    if (len == 0 && now.need == BODY_OPTIONAL)
        body = json_object();
    else
        body = body_parse(data, len, &err);
    if (body)
        now.handle(now.api, x, now.arg, body);
    else
        http_respond_err(x, &err);
    json_decref(body);
    free(now.arg);
}

void with_body(struct api *api, struct http_exchange *x, const char *arg,
               enum body_need need, with_body_fn *handle)
{
    struct waiting_body *w = mem_zalloc(sizeof(*w));

    *w = (struct waiting_body){api, mem_strdup(arg), need, handle};
    http_set_user(x, w, free_waiting);
    http_collect_body(x, 0, on_body);
}

int read_force(struct http_exchange *x, const json_t *body, enum supervisor_force *ret,
               struct err *err)
{
    const char *query = http_query_get(x, "force");
    bool force =
        query && (!strcmp(query, "") || !strcmp(query, "1") || !strcmp(query, "true"));

    if (body_bool(body, "force", &force, err))
        return -1;
    *ret = force ? SUPERVISOR_FORCE : SUPERVISOR_POLITE;
    return 0;
}

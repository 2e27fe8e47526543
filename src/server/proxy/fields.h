/* fields: which header fields pass the proxy, in both directions. */
#ifndef MYSTI_SERVER_PROXY_FIELDS_H
#define MYSTI_SERVER_PROXY_FIELDS_H

#include "http/client.h"
#include "http/http.h"

struct proxy_fields {
    struct http_field *list; /* free() it */
    size_t count;
    char *bearer; /* free() it */
};

enum proxy_body_kind { PROXY_BODY_CLIENTS, PROXY_BODY_REPLACED };

/* What the worker is told: the client's fields without those of the connection, of the client's access,
 * and of its browser; with the worker's token. They point into the exchange. */
void proxy_fields_for_worker(const struct http_exchange *x, const char *token,
                             enum proxy_body_kind body,
                             struct proxy_fields *ret_fields);
void proxy_fields_release(struct proxy_fields *f);

/* Sets what the worker's answer tells the client, framing and the like aside. */
void proxy_fields_to_client(struct http_exchange *x, const struct http_answer *head);

#endif

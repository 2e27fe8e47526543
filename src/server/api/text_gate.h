/* text_gate: where text requests wait. Each gets its turn at the worker that has its model, in the order of arrival, as many
 * at once as that model has slots. It is the proxy's source of workers.
 *
 *   struct text_pass *pass = text_pass_new(gate, "/models/writer.gguf");   // NULL: the default model
 *   struct proxy_options o = {.acquire = text_acquire, .release = text_release, .source = pass, ...};
 *   ... text_pass_free(pass) in the proxy's on_done
 *
 * A model that is not resident is loaded for the request. Beyond --text-queue-limit requests that wait for one model
 * the next is refused with 429 and a Retry-After. Loop thread only.
 */
#ifndef MYSTI_SERVER_API_TEXT_GATE_H
#define MYSTI_SERVER_API_TEXT_GATE_H

#include "server/proxy/proxy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct server;
struct text_gate;
struct text_pass;

struct text_gate *text_gate_new(struct server *server);
void text_gate_free(struct text_gate *g);

enum text_need {
    TEXT_NEEDS_SLOT,
    TEXT_NEEDS_WORKER, /* answered beside the slots: token ids, properties */
};

struct text_pass *text_pass_new(struct text_gate *g, const char *model_path,
                                enum text_need need);
void text_pass_free(struct text_pass *pass);

/* For struct proxy_options; source is the pass. */
void text_acquire(void *source, struct proxy *p);
void text_release(void *source, struct proxy *p);

/* One request as others may see it. Text is good until control returns to the loop. */
struct text_place {
    const char *id;    /* of the request, as in X-Request-Id */
    const char *model; /* absolute path; NULL: none is loaded and none was named */
    bool is_running;
    int position;       /* 1: the next one of its model; 0: running */
    uint64_t waited_ms; /* until its turn came, or until now */
    int64_t eta_ms;     /* until its turn; -1: not known, 0: running */
};
typedef void text_place_fn(void *data, const struct text_place *place);
/* The running ones, then those that wait, in their order. */
void text_gate_each(struct text_gate *g, text_place_fn *each, void *data);

#endif

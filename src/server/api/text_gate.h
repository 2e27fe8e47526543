/* text_gate: lets text requests through to the text worker, in the order of their arrival, each with the model that it
 * asked for. It is the proxy's source of workers.
 *
 *   struct text_pass *pass = text_pass_new(gate, "/models/writer.gguf");   // NULL: the active model
 *   struct proxy_options o = {.acquire = text_acquire, .release = text_release, .source = pass, ...};
 *   ... text_pass_free(pass) in the proxy's on_done
 *
 * A request whose model is loaded passes at once, as many as come (the worker has its own slots). One that
 * wants another model waits until the running ones are done, has its model loaded, and those behind it wait with
 * it, so that nobody waits for ever. Loop thread only.
 */
#ifndef MYSTI_SERVER_API_TEXT_GATE_H
#define MYSTI_SERVER_API_TEXT_GATE_H

#include "server/proxy/proxy.h"

struct server;
struct text_gate;
struct text_pass;

struct text_gate *text_gate_new(struct server *server);
void text_gate_free(struct text_gate *g);

struct text_pass *text_pass_new(struct text_gate *g, const char *model_path);
void text_pass_free(struct text_pass *pass);

/* For struct proxy_options; source is the pass. */
void text_acquire(void *source, struct proxy *p);
void text_release(void *source, struct proxy *p);

#endif

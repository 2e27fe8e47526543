/* worker: the routes of mysti_sd_worker and what they know: state, model, the running job. Loop thread only. */
#ifndef MYSTI_SD_WORKER_WORKER_H
#define MYSTI_SD_WORKER_WORKER_H

#include "base/err.h"
#include "http/http.h"
#include "sd_worker/options.h"

struct worker;

/* Takes the token. The engine opens and options->model loads in the background. */
int worker_new(uv_loop_t *loop, const struct options *options, int threads, char *token,
               struct worker **ret, struct err *err) MUST_CHECK;
/* http_server_options.on_request with the worker as user */
void worker_on_request(void *worker, struct http_exchange *x);
/* The running job is told to end. */
void worker_stop(struct worker *w);

#endif

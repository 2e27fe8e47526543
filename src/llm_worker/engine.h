/* engine: which llama-server is used, and how it is started.
 *
 *   struct engine e;
 *   if (engine_find(given, &e, &err)) ...
 *   ... what to run, and with which libraries, is in e ...
 *   engine_release(&e);
 */
#ifndef MYSTI_LLM_WORKER_ENGINE_H
#define MYSTI_LLM_WORKER_ENGINE_H

#include "base/err.h"

struct engine {
    char *program; /* llama-server, absolute */
    char *loader;  /* the ld.so of the private prefix that it belongs to; NULL: none */
    char *library_path;
    char *folder; /* of ggml's plug-ins, to be the working folder; NULL: leave it */
    const char
        *found; /* "--llama-server", "MYSTI_LLAMA_SERVER", "PATH", "the prefix" */
};

/* `given`: by option; NULL or "" when not. What was named and is not there is an error, never skipped. */
int engine_find(const char *given, struct engine *ret, struct err *err) MUST_CHECK;
void engine_release(struct engine *e);

#endif

/* pool: a few threads that share one loop. Private to graph/ref.
 *
 *   pool_run(pool, count, fn, user);     fn(user, i, thread) for each i in 0..count-1,
 * in any order
 *
 * The caller takes part as thread 0; pool_run returns when all are done, or
 * when the one to ask whether to go on (pool_watch) says no. Another caller than the last one gets other
 * threads, so that they stand in the scheduler where their caller does, as OpenMP's do. */
#ifndef MYSTI_ENGINE_GRAPH_REF_POOL_H
#define MYSTI_ENGINE_GRAPH_REF_POOL_H

#include "base/err.h"
#include "engine/graph/stop.h"

struct pool;
typedef void pool_fn(void *user, int index, int thread);

int pool_new(struct pool **ret_pool, int threads, struct err *err) MUST_CHECK;
void pool_free(struct pool *pool);
int pool_threads(const struct pool *pool);
/* Asked between two calls of fn, until another one is to be; NULL: nobody is. Borrowed. */
void pool_watch(struct pool *pool, struct stop *stop);
void pool_run(struct pool *pool, int count, pool_fn *fn, void *user);

#endif

#include "engine/graph/ref/pool.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t *threads; /* threads - 1 of them: the caller is one */
    int thread_count, started;
    unsigned round; /* raised for each loop; guarded by lock, as are the next four */
    int busy;
    bool is_ending;
    pool_fn *fn;
    void *user;
    int count;
    atomic_int next;
};

struct worker {
    struct pool *pool;
    int thread;
};

static void work(struct pool *pool, int thread)
{
    int i;

    while ((i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) <
           pool->count)
        pool->fn(pool->user, i, thread);
}

static void *worker_main(void *arg)
{
    struct worker me = *(struct worker *)arg;
    struct pool *pool = me.pool;
    unsigned seen = 0;

    free(arg);
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == seen && !pool->is_ending)
            pthread_cond_wait(&pool->work, &pool->lock);
        if (pool->is_ending)
            break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->lock);
        work(pool, me.thread);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int pool_new(struct pool **ret_pool, int threads, struct err *err)
{
    struct pool *pool = mem_zalloc(sizeof(*pool));

    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->thread_count = threads;
    pool->threads = mem_zalloc((size_t)threads * sizeof(*pool->threads));
    for (int i = 1; i < threads; i++) {
        struct worker *worker = mem_alloc(sizeof(*worker));
        int failure;

        *worker = (struct worker){pool, i};
        failure = pthread_create(&pool->threads[i - 1], NULL, worker_main, worker);
        if (failure) {
            free(worker);
            pool_free(pool);
            return err_set(err, ERR_UNAVAILABLE, "cannot start compute thread %d: %s",
                           i, strerror(failure));
        }
        pool->started++;
    }
    *ret_pool = pool;
    return 0;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->is_ending = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    free(pool->threads);
    free(pool);
}

int pool_threads(const struct pool *pool)
{
    return pool->thread_count;
}

void pool_run(struct pool *pool, int count, pool_fn *fn, void *user)
{
    if (count <= 0)
        return;
    if (count == 1) {
        fn(user, 0, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->user = user;
    pool->count = count;
    pool->busy = pool->started;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->round++;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    work(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

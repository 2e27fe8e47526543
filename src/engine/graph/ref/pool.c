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
    pthread_t owner;    /* who started them */
    int thread_count, started;
    unsigned round; /* raised for each loop; guarded by lock, as are the next four */
    int busy;
    bool is_ending;
    pool_fn *fn;
    void *user;
    int count;
    atomic_int next;
    struct stop *stop; /* NULL: nobody is asked */
};

struct worker {
    struct pool *pool;
    int thread;
    unsigned seen; /* the round before its first */
};

static bool goes_on(const struct pool *pool, int thread)
{
    if (!pool->stop)
        return true;
    return !(thread ? stop_is_set(pool->stop) : stop_ask_soon(pool->stop));
}

static void work(struct pool *pool, int thread)
{
    int i;

    while (goes_on(pool, thread) &&
           (i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) <
               pool->count)
        pool->fn(pool->user, i, thread);
}

static void *worker_main(void *arg)
{
    struct worker me = *(struct worker *)arg;
    struct pool *pool = me.pool;
    unsigned seen = me.seen;

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

static int start_threads(struct pool *pool, struct err *err)
{
    pool->owner = pthread_self();
    pool->is_ending = false;
    while (pool->started < pool->thread_count - 1) {
        struct worker *worker = mem_alloc(sizeof(*worker));
        int failure;

        *worker = (struct worker){pool, pool->started + 1, pool->round};
        failure =
            pthread_create(&pool->threads[pool->started], NULL, worker_main, worker);
        if (failure) {
            free(worker);
            return err_set(err, ERR_UNAVAILABLE, "cannot start compute thread %d: %s",
                           pool->started + 1, strerror(failure));
        }
        pool->started++;
    }
    return 0;
}

static void end_threads(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->is_ending = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    while (pool->started)
        pthread_join(pool->threads[--pool->started], NULL);
}

int pool_new(struct pool **ret_pool, int threads, struct err *err)
{
    struct pool *pool = mem_zalloc(sizeof(*pool));

    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->thread_count = threads;
    pool->threads = mem_zalloc((size_t)threads * sizeof(*pool->threads));
    if (start_threads(pool, err)) {
        pool_free(pool);
        return -1;
    }
    *ret_pool = pool;
    return 0;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    end_threads(pool);
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

void pool_watch(struct pool *pool, struct stop *stop)
{
    pool->stop = stop;
}

void pool_run(struct pool *pool, int count, pool_fn *fn, void *user)
{
    if (count <= 0)
        return;
    if (count == 1) {
        fn(user, 0, 0);
        return;
    }
    if (!pthread_equal(pool->owner, pthread_self())) {
        end_threads(pool);
        (void)!start_threads(pool, NULL); /* fewer share the loop then */
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

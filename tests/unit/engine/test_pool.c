/* The reference back end's threads: every index once, whoever calls, and where the caller stands. */
#include "engine/graph/ref/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { COUNT = 64, THREADS = 3 };

struct loop {
    struct pool *pool;
    const char *name; /* of the caller and of its helpers */
    atomic_int times[COUNT];
    atomic_int strangers;
    atomic_int helped;
};

static void note(void *user, int index, int thread)
{
    const struct timespec moment = {.tv_nsec = 200000}; /* so that helpers get some */
    struct loop *loop = user;
    char name[16] = "";

    pthread_getname_np(pthread_self(), name, sizeof(name));
    atomic_fetch_add(&loop->times[index], 1);
    atomic_fetch_add(&loop->strangers, strcmp(name, loop->name) != 0);
    atomic_fetch_add(&loop->helped, thread > 0);
    nanosleep(&moment, NULL);
}

static void *run(void *user)
{
    struct loop *loop = user;

    pthread_setname_np(pthread_self(), loop->name);
    for (int i = 0; i < 3; i++)
        pool_run(loop->pool, COUNT, note, loop);
    return NULL;
}

static void check(const struct loop *loop)
{
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(loop->times[i], 3);
    assert_int_equal(loop->strangers, 0);
    assert_true(loop->helped > 0);
}

static void helpers_follow_their_caller(void **state)
{
    struct loop first = {.name = "first"}, second = {.name = "second"};
    struct err err = {0};
    struct pool *pool;
    pthread_t thread;

    (void)state;
    pthread_setname_np(pthread_self(), first.name);
    assert_int_equal(pool_new(&pool, THREADS, &err), 0);
    first.pool = second.pool = pool;
    run(&first);
    check(&first);
    assert_int_equal(pthread_create(&thread, NULL, run, &second), 0);
    pthread_join(thread, NULL);
    check(&second);
    pool_free(pool);
}

static bool is_cancelled(void *user)
{
    return *(bool *)user;
}

static void count_call(void *user, int index, int thread)
{
    (void)index;
    (void)thread;
    ++*(int *)user;
}

/* The caller is asked before its first task, and the answer holds until another one is to be asked. */
static void stops_between_tasks(void **state)
{
    bool answer = true;
    struct stop stop = {.is_cancelled = is_cancelled, .user = &answer};
    struct err err = {0};
    struct pool *pool;
    int calls = 0;

    (void)state;
    assert_int_equal(pool_new(&pool, 1, &err), 0);
    pool_watch(pool, &stop);
    pool_run(pool, COUNT, count_call, &calls);
    assert_int_equal(calls, 0);
    assert_true(stop_is_set(&stop));
    pool_watch(pool, NULL);
    pool_run(pool, COUNT, count_call, &calls);
    assert_int_equal(calls, COUNT);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(helpers_follow_their_caller),
                                       cmocka_unit_test(stops_between_tasks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

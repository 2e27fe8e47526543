/* stop: whether an operation that takes long should go on; asked between its parts and in its loops.
 *
 *   stop_ask(stop)        on the thread that runs the program: asks its caller
 *   stop_ask_soon(stop)   the same, for loops: asks when the last time was a while ago
 *   stop_is_set(stop)     on any thread: what the caller said
 *
 * The caller's function is called by its own thread alone; the other threads of a loop see what it said. An operation that
 * stops leaves its result unfinished. */
#ifndef MYSTI_ENGINE_GRAPH_STOP_H
#define MYSTI_ENGINE_GRAPH_STOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct stop {
    bool (*is_cancelled)(void *user); /* NULL: never */
    void *user;
    uint64_t asked_ns; /* of the monotonic clock */
    atomic_bool is_set;
};

bool stop_ask(struct stop *stop);
bool stop_ask_soon(struct stop *stop);

static inline bool stop_is_set(struct stop *stop)
{
    return atomic_load_explicit(&stop->is_set, memory_order_relaxed);
}

#endif

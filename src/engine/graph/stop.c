#include "engine/graph/stop.h"

#include "base/clock.h"

enum { PAUSE_NS = 10000000 }; /* between two questions in a loop */

bool stop_ask(struct stop *s)
{
    if (!s->is_cancelled)
        return false;
    s->asked_ns = clock_ns();
    if (s->is_cancelled(s->user))
        atomic_store_explicit(&s->is_set, true, memory_order_relaxed);
    return stop_is_set(s);
}

bool stop_ask_soon(struct stop *s)
{
    if (!s->is_cancelled || clock_ns() - s->asked_ns < PAUSE_NS)
        return stop_is_set(s);
    return stop_ask(s);
}

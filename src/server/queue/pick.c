/* Which job is next. A change of model costs seconds, so those whose model is loaded go first; but whoever came first waits at
 * most the age bound longer than strict order would have made him wait: from then on nobody overtakes him. So two clients
 * that alternate between two models get AABB instead of ABAB, and one who asks for a rare model is served in time
 * however many ask for the common one. */
#include "server/queue/run.h"

#include <string.h>

int pick_next(const struct pick_job *jobs, int count, const char *loaded,
              uint64_t age_bound_ms)
{
    int first = -1;

    for (int i = 0; i < count; i++) {
        const struct pick_job *j = &jobs[i];

        if (!j->is_ready)
            continue;
        if (first < 0) {
            first = i;
            if (j->waited_ms >= age_bound_ms)
                return i;
        }
        if (!j->model || (loaded && !strcmp(j->model, loaded)))
            return i;
    }
    return first;
}

/* desired: what should be loaded, as a record on disk (desired.json in the state folder), so that a restart of a worker
 * or of the server brings it back. Only loads that went well are stored.
 *
 *   desired_read(path, &wishes, &err);          at the start
 *   desired_write(d, &wishes, done, data);      after a change: on another thread, atomic, `done` on the loop
 *   desired_wishes_release(&wishes);
 */
#ifndef MYSTI_SERVER_SUPERVISOR_DESIRED_H
#define MYSTI_SERVER_SUPERVISOR_DESIRED_H

#include "base/err.h"
#include "server/supervisor/supervisor.h"

#include <uv.h>

/* What one worker should have loaded. */
struct wish {
    bool known; /* false: nobody has decided yet, so the starter model it is */
    char *path; /* NULL: nothing */
    struct worker_load_options options;
};

void wish_set(struct wish *w, const char *path,
              const struct worker_load_options *options);
void wish_release(struct wish *w);
bool load_options_are_same(const struct worker_load_options *a,
                           const struct worker_load_options *b);
/* same file and same options? */
bool wish_is_same(const struct wish *a, const struct wish *b);

struct desired_wishes {
    struct wish sd;
    bool text_known; /* false: nobody has decided about text yet */
    int text_count;
    struct wish text[WORKERS_MAX - 1]; /* the default first */
};

void desired_wishes_release(struct desired_wishes *d);
/* A missing file leaves the wishes unknown and is no error; a damaged one is. The record of version 1, which knew
 * one text model, is read too. */
int desired_read(const char *path, struct desired_wishes *ret,
                 struct err *err) MUST_CHECK;

struct desired;

/* err is NULL when it is on disk */
typedef void desired_done_fn(void *data, const struct err *err);

struct desired *desired_new(uv_loop_t *loop, const char *path);
/* A write while one is under way waits for it; of several waiting ones only the last is done, and its `done`
 * alone is called. */
void desired_write(struct desired *d, const struct desired_wishes *wishes,
                   desired_done_fn *done, void *data);
bool desired_is_writing(const struct desired *d);
void desired_free(struct desired *d); /* not while it is writing */

#endif

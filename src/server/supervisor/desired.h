/* desired: what should be loaded, as a record on disk (desired.json in the state folder), so that a restart of a worker
 * or of the server brings it back. Only loads that went well are stored.
 *
 *   desired_read(path, &wishes, &err);          at the start
 *   record_write(r, desired_text(&wishes), done, data);     after a change (record.h)
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
    bool is_parked; /* text, on disk: out of memory until it is wanted again */
    bool gave_way;  /* parked for somebody else: comes back by itself */
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

/* What record_write() is to write. Release with free(). */
char *desired_text(const struct desired_wishes *wishes);

#endif

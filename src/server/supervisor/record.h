/* record: a small file that is written as a whole, on libuv's thread pool, because a slow disk must not stop a stream of tokens.
 * Atomic and synced, readable by the owner alone.
 *
 *   record_write(r, text, done, data);      `done` on the loop; the newest text wins
 */
#ifndef MYSTI_SERVER_SUPERVISOR_RECORD_H
#define MYSTI_SERVER_SUPERVISOR_RECORD_H

#include "base/err.h"

#include <stdbool.h>
#include <uv.h>

struct record;

/* err is NULL when it is on disk */
typedef void record_done_fn(void *data, const struct err *err);

struct record *record_new(uv_loop_t *loop, const char *path);
/* Takes the text. A write while one is under way waits for it; of several waiting ones only the last is done, and its
 * `done` alone is called. */
void record_write(struct record *r, char *text, record_done_fn *done, void *data);
bool record_is_writing(const struct record *r);
void record_free(struct record *r); /* not while it is writing */

#endif

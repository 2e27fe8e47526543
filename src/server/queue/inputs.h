/* inputs: the pictures that jobs begin with. They are files beside the database, so that a job that is taken up again
 * after a restart, or drawn again after its worker died, still has them, and so that no copy of them waits in memory.
 *
 *   inputs_keep(loop, home, &bytes, on_kept, me);      writes on a thread
 *   inputs_drop(&request);                              the job has ended
 *   inputs_sweep(home, is_wanted, me);                  once, at the start: what a killed server left behind
 *
 * Loop thread. Failures: what writing a file can be refused for (507, 500). */
#ifndef MYSTI_SERVER_QUEUE_INPUTS_H
#define MYSTI_SERVER_QUEUE_INPUTS_H

#include "base/buf.h"
#include "server/queue/job.h"

struct uv_loop_s;

/* On success the paths are the receiver's. err: nothing was kept. */
typedef void inputs_kept_fn(void *user, const struct err *err, char *image, char *mask);
/* Takes over both buffers; an empty one is left out. */
void inputs_keep(struct uv_loop_s *loop, const char *home, struct buf image,
                 struct buf mask, inputs_kept_fn *kept, void *user);
void inputs_drop(const struct image_request *r);
/* Removes the files of earlier servers that nobody wants. */
void inputs_sweep(const char *home, bool (*is_wanted)(void *user, const char *path),
                  void *user);

#endif

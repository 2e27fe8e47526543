/* compute: the one thread on which the engine works, and the way its news come to the loop.
 *
 *   compute_start(&options, &c, err);
 *   compute_submit(c, task);            the task is the thread's until it comes back in on_done
 *   compute_cancel(c);                  the running task ends within one operation
 *   compute_share(c, place, 75);        from now on 75 % of the time goes to others, between two steps
 *
 * on_event and on_done are called on the loop thread. The only lock guards a list's two pointers, for as long as
 * it takes to move them: the loop never waits for work. */
#ifndef MYSTI_SD_WORKER_COMPUTE_H
#define MYSTI_SD_WORKER_COMPUTE_H

#include "base/buf.h"
#include "base/err.h"
#include "sd_worker/cage.h"
#include "sd_worker/request.h"

#include <stdbool.h>
#include <uv.h>

struct compute;

enum task_kind { TASK_OPEN, TASK_LOAD, TASK_UNLOAD, TASK_ESTIMATE, TASK_GENERATE };

struct task {
    enum task_kind kind;
    char *path;             /* load */
    struct request request; /* estimate, generate */
    /* filled in by the compute thread */
    int rc; /* 0, or -1 and err */
    struct err err;
    char *facts; /* load: JSON text of what was loaded; NULL otherwise */
    struct engine_estimate estimate;
    double elapsed_ms;
};

struct task *task_new(enum task_kind kind);
void task_free(struct task *task);

enum compute_event {
    COMPUTE_STARTED, /* generate: the job is right and begins; no data */
    COMPUTE_LINE,    /* generate: bytes for the client */
};

struct compute_options {
    uv_loop_t *loop;
    const char *backend;                           /* NULL: the best */
    const char *weights;                           /* NULL: auto */
    const char *embedding_folder;                  /* NULL: none */
    const char *vae_folder;                        /* NULL: none */
    const char *vae;                               /* NULL: the model's own */
    const char *preview_method;                    /* NULL: the engine's own */
    const char *lora_folders[ENGINE_LORA_FOLDERS]; /* NULL: no more */
    const char *upscaler_folder;
    int threads;
    struct sharing_place place; /* of the threads while they draw */
    void (*on_event)(void *user, enum compute_event event, const struct buf *data);
    void (*on_done)(void *user, struct task *task); /* takes the task back */
    void *user;
};

int compute_start(const struct compute_options *options, struct compute **ret,
                  struct err *err) MUST_CHECK;
void compute_submit(struct compute *c, struct task *task);
void compute_cancel(struct compute *c);
/* Where the threads stand while they draw: a lower place is taken at once, a higher one by the next picture. And how
 * much of the time they rest, between two steps: at once, also in the middle of a rest. */
void compute_share(struct compute *c, struct sharing_place place, int rest_percent);
bool compute_is_resting(const struct compute *c);
double compute_progress(const struct compute *c); /* of the running task, 0..1 */
const char *
compute_backend(const struct compute *c); /* NULL until the engine is open */

#endif

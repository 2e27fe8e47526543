/* queue: picture jobs, first come first served, one at a time.
 *
 *   struct job_handlers on = {.on_change = show, .on_picture = deliver, .on_end = finish};
 *   struct job *job = job_queue_add(queue, &request, &on, me, &err);   // takes the request's text
 *   ... job_cancel(job) when the client has left
 *
 * A job waits its turn, waits for its model to be loaded, is sent to the picture worker, and its pictures are
 * saved before they are handed out. If the worker dies under it, it is run again once, for the pictures that are
 * still missing and with the same seeds. Cancelling stops the worker within one operation.
 *
 * Everything belongs to the loop thread. Callbacks come from the loop, never from inside job_queue_add;
 * job_cancel may call on_end from inside. on_end is the last one and comes exactly once; the job is dead after it.
 */
#ifndef MYSTI_SERVER_QUEUE_QUEUE_H
#define MYSTI_SERVER_QUEUE_QUEUE_H

#include "server/queue/job.h"

struct http_client;
struct job;
struct job_queue;
struct log;
struct store;
struct supervisor;
struct uv_loop_s;

struct job_queue_options {
    struct uv_loop_s *loop;
    struct log *log;
    struct http_client *client;
    struct supervisor *supervisor;
    struct store *store;
    size_t limit; /* jobs waiting; one more is ERR_RATE_LIMIT */
    unsigned
        silence_limit_ms; /* a worker that says nothing for so long is taken for hung */
};

struct job_handlers {
    void (*on_change)(void *user, const struct job_progress *now);
    void (*on_picture)(void *user, const struct job_picture *picture);
    /* err is NULL when all pictures were handed out; ERR_CANCELLED after a cancel */
    void (*on_end)(void *user, const struct err *err);
};

struct job_queue *job_queue_new(const struct job_queue_options *options);
/* Ends every job with ERR_UNAVAILABLE, takes no more, frees the queue once its handles are closed, then calls
 * on_closed (may be NULL). */
void job_queue_close(struct job_queue *q, void (*on_closed)(void *user), void *user);

/* Takes the request's text over on success. NULL: the queue is full or closing (err says which). */
struct job *job_queue_add(struct job_queue *q, struct image_request *request,
                          const struct job_handlers *on, void *user,
                          struct err *err) MUST_CHECK;
const char *job_id(const struct job *job);
void job_progress_get(const struct job *job, struct job_progress *ret);
void job_cancel(struct job *job);

/* The job that is being worked on, or NULL. */
struct job *job_queue_running(const struct job_queue *q);
struct job *job_queue_find(const struct job_queue *q, const char *id);
size_t job_queue_waiting(const struct job_queue *q);
size_t job_queue_limit(const struct job_queue *q);
void job_queue_set_limits(struct job_queue *q, size_t waiting, unsigned silence_ms);
void job_queue_cancel_all(struct job_queue *q, json_t *ret_ids);

/* The state as clients see it (docs/openapi.yaml, Progress): of the running job, or idle. JSON text; free() it. */
char *job_queue_progress_text(const struct job_queue *q);
/* After every change of that state. One listener. */
void job_queue_listen(struct job_queue *q, void (*changed)(void *user), void *user);

#endif

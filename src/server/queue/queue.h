/* queue: picture jobs, one at a time, kept in the database so that none is lost.
 *
 *   struct job_handlers on = {.on_accepted = ..., .on_change = show, .on_picture = deliver, .on_end = finish};
 *   struct job_watch *watch = job_queue_add(queue, &new, &on, me, &err);   // takes the request's text
 *   ... job_leave(watch) when the client has left
 *
 * A job is accepted once it is on disk. It waits its turn, waits for its model to be loaded, is sent to the picture
 * worker, and its pictures are saved before they are handed out. If the worker dies under it, it is run again, for the pictures
 * that are still missing and with the same seeds: as often as the worker was killed from outside, once after it failed
 * by itself. What had not ended when the server did is taken up again at its next start. Cancelling stops the worker
 * within one operation.
 *
 * Order: first come, first served, but a job whose model is loaded may go before others that would need another one, until
 * the first of those has waited for the age bound.
 *
 * Everything belongs to the loop thread. Callbacks come from the loop, never from inside job_queue_add;
 * job_cancel may call on_end from inside. on_end is the last one and comes exactly once; the watch is dead after it.
 */
#ifndef MYSTI_SERVER_QUEUE_QUEUE_H
#define MYSTI_SERVER_QUEUE_QUEUE_H

#include "server/queue/job.h"

struct db;
struct http_client;
struct job;
struct job_queue;
struct job_watch;
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
    struct db *db;
    const char *home;      /* below it are the pictures that jobs begin with */
    size_t limit;          /* jobs waiting; one more is ERR_RATE_LIMIT */
    size_t client_limit;   /* of one client */
    unsigned age_bound_ms; /* how long a job may be overtaken */
    int keep;              /* ended jobs that are remembered */
    unsigned
        silence_limit_ms; /* a worker that says nothing for so long is taken for hung */
};

/* A small look at a picture that is being drawn, a pixel for eight of each side. Good during the call. */
struct job_preview {
    int image;
    int step;
    int steps;
    int width;
    int height;
    const unsigned char *png;
    size_t size;
};

struct job_handlers {
    /* it is on disk, and will be done or fail with a reason */
    void (*on_accepted)(void *user);
    /* this client's key (Idempotency-Key) belongs to that job already, and the body is the same one; nothing was
     * added and nothing else comes */
    void (*on_joined)(void *user, const char *id);
    void (*on_change)(void *user, const struct job_progress *now);
    void (*on_picture)(void *user, const struct job_picture *picture);
    /* Previews are made for a job that somebody watches with this when it begins. */
    void (*on_preview)(void *user, const struct job_preview *preview);
    /* err is NULL when all pictures were handed out; ERR_CANCELLED after a cancel */
    void (*on_end)(void *user, const struct err *err);
};

struct job_queue *job_queue_new(const struct job_queue_options *options);
/* Ends every job with ERR_UNAVAILABLE, takes no more, frees the queue once its handles are closed, then calls
 * on_closed (may be NULL). */
void job_queue_close(struct job_queue *q, void (*on_closed)(void *user), void *user);

struct job_new {
    struct image_request *request; /* its text is taken over on success */
    const char *client;            /* a key's name, or an address */
    const char *key;               /* Idempotency-Key; NULL: none */
    uint64_t body; /* hash of the body: the same key with another one is ERR_CONFLICT */
    bool kept;     /* goes on when nobody watches it */
};

/* NULL: the queue is full or closing (err says which). */
struct job_watch *job_queue_add(struct job_queue *q, const struct job_new *job,
                                const struct job_handlers *on, void *user,
                                struct err *err) MUST_CHECK;
/* One more who watches; the pictures that are there already are handed out from inside. */
struct job_watch *job_watch(struct job *job, const struct job_handlers *on, void *user);
/* No callbacks from here on. A job that is not kept ends with its last watch. */
void job_leave(struct job_watch *watch);
struct job *job_watched(const struct job_watch *watch);
/* Takes up what an earlier server had accepted. Once, at the start. */
void job_queue_restore(struct job_queue *q);
/* A job of this client with this body that is there: a retry that says so may join it. NULL: none. */
struct job *job_queue_find_same(const struct job_queue *q, const char *client,
                                uint64_t body);
/* Milliseconds until a job that came now would begin; -1: not known yet. */
int64_t job_queue_wait_ms(const struct job_queue *q);
/* Those that run or wait, in their order. */
typedef void job_each_fn(void *user, const struct job_progress *now);
void job_queue_each(const struct job_queue *q, job_each_fn *each, void *user);
const char *job_id(const struct job *job);
bool job_is_kept(const struct job *job); /* it goes on when nobody watches it */
void job_progress_get(const struct job *job, struct job_progress *ret);
void job_cancel(struct job *job);

/* The job that is being worked on, or NULL. */
struct job *job_queue_running(const struct job_queue *q);
struct job *job_queue_find(const struct job_queue *q, const char *id);
size_t job_queue_waiting(const struct job_queue *q);
size_t job_queue_limit(const struct job_queue *q);
/* Takes over what may change: limit, client_limit, age_bound_ms, keep, silence_limit_ms. */
void job_queue_set_limits(struct job_queue *q, const struct job_queue_options *limits);
/* The server is ending: nothing is begun, and what the workers' end does to kept jobs is not their end. */
void job_queue_hold(struct job_queue *q);
void job_queue_cancel_all(struct job_queue *q, json_t *ret_ids);

/* The state as clients see it (docs/openapi.yaml, Progress): of the running job, or idle. JSON text; free() it. */
char *job_queue_progress_text(const struct job_queue *q);
/* Each job when it is accepted, with each step, and at its end (err: why it failed or was cancelled, else NULL). One who
 * follows; NULL: none. */
typedef void job_told_fn(void *user, const struct job_progress *now,
                         const struct err *err);
void job_queue_follow(struct job_queue *q, job_told_fn *told, void *user);
/* Previews of all jobs, for one who shows them. They cost the worker a little, so each job that begins asks `wants` first. */
struct job_preview_follower {
    bool (*wants)(void *user);
    void (*preview)(void *user, const char *id, const struct job_preview *preview);
    void *user;
};
void job_queue_follow_previews(struct job_queue *q,
                               const struct job_preview_follower *follower);
/* After every change of that state. One listener. */
void job_queue_listen(struct job_queue *q, void (*changed)(void *user), void *user);

#endif

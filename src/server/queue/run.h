/* run: one picture job on its way through the picture worker. Private to the queue folder: queue.c keeps the jobs
 * and their order, run.c brings the first of them to an end. */
#ifndef MYSTI_SERVER_QUEUE_RUN_H
#define MYSTI_SERVER_QUEUE_RUN_H

#include "http/client.h"
#include "server/queue/queue.h"
#include "server/queue/worker_stream.h"
#include "server/supervisor/supervisor.h"

#include <uv.h>

/* A picture between the worker and the client. */
struct job_slot {
    unsigned char *png;
    size_t size;
    int64_t seed;
    int width;
    int height;
    char *file;
    struct err save_error;
    bool saved; /* the store has answered, well or not */
};

struct job {
    struct job_queue *queue;
    struct job *next;
    char id[24];
    struct image_request request;
    struct job_handlers on;
    void *user;
    enum job_step step;
    int position;
    int image;
    int sample_step;
    int sample_steps;
    int64_t eta_ms;
    uint64_t begun_ms;
    uint64_t told_ms; /* when its client last heard of it */
    char detail[160];
    struct job_slot *slots; /* [request.count] */
    int received;           /* pictures that came from the worker */
    int delivered;          /* pictures handed out, in their order */
    int saving;             /* pictures that the store has at this moment */
    int attempts;
    bool ended; /* on_end was called; the memory waits for the store */
};

enum run_stage {
    RUN_IDLE,    /* no job */
    RUN_LOADING, /* supervisor_load is under way for the job's model */
    RUN_WAITING, /* for the worker to be ready */
    RUN_BUSY,    /* the worker is still at something else: asked again in a moment */
    RUN_SENT,    /* the worker has the job */
    RUN_SAVING,  /* the worker is done, the store is not */
};

struct run {
    enum run_stage stage;
    struct job *job;
    struct supervisor_wait *wait;
    struct http_call *call;
    char *body;
    char authorization[192];
    unsigned generation; /* of the worker that has the job */
    int pid;             /* its process */
    uint64_t heard_ms;   /* when it last said something */
    uint64_t cpu_ms;     /* its processor time when that was last looked at */
    int status;          /* of its answer */
    struct buf answer;   /* of an answer that is an error */
    struct worker_stream stream;
    bool said_done;
    struct err said_error;
    int conflicts; /* loads that had to wait for another load */
};

struct job_queue {
    struct job_queue_options o;
    struct job *first; /* the running one, then those that wait */
    struct run run;
    uv_timer_t
        *silence; /* a worker that says nothing; also the pause before asking again */
    uv_timer_t *tick; /* while there are jobs: once a second */
    void (*changed)(void *user);
    void *changed_user;
    void (*on_closed)(void *user);
    void *closed_user;
    uint64_t serial;
    unsigned
        references; /* its own, one per timer, one per question that cannot be taken back */
    bool closing;
};

/* Takes the first job up when none is running. */
void run_next(struct job_queue *q);
/* Lets go of the running job (the worker's connection is closed, which stops the worker). The job itself stays. */
void run_drop(struct job_queue *q);

/* queue.c, for run.c: */
void job_changed(struct job *job);
/* Ends the job for its client and takes it out of the queue. err NULL: it went well. */
void job_end(struct job *job, enum job_step how, const struct err *err);
void job_queue_unref(struct job_queue *q);
/* Frees a job that has ended, once the store has let go of its pictures. */
void job_free_if_over(struct job *job);

#endif

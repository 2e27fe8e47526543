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

struct job_watch {
    struct job *job;
    struct job_handlers on;
    void *user;
    int delivered; /* pictures handed out, in their order */
    struct job_watch *next;
};

struct job {
    struct job_queue *queue;
    struct job *next;
    char id[32];
    struct image_request request;
    char *client;
    uint64_t body;
    bool kept;
    bool is_stored; /* on disk: may begin */
    bool
        is_fleeting; /* the disk would not have it, its client waits: drawn all the same */
    struct job_watch *watches;
    uint64_t added_ms; /* clock_ms() */
    enum job_step step;
    int position;
    int image;
    int sample_step;
    int sample_steps;
    int64_t eta_ms;
    uint64_t begun_ms;
    uint64_t told_ms; /* when its client last heard of it */
    uint64_t
        budget_bytes; /* of memory, for the worker: it draws in pieces where that is less than it needs; 0: none */
    json_t *drawn_with; /* as job_picture has it */
    char detail[160];
    struct job_slot *slots; /* [request.count] */
    int received;           /* pictures that came from the worker */
    int handed;             /* pictures that were saved and told, in their order */
    int saving;             /* pictures that the store has at this moment */
    int attempts;           /* that the worker failed at by itself */
    bool
        was_broken; /* the worker was lost under it: whose fault it was is seen when it is back */
    unsigned broken_generation;
    struct err broken_why;
    bool ended;    /* on_end was called; the memory waits for the store */
    bool is_asked; /* the database has not answered about it */
};

enum run_stage {
    RUN_IDLE,    /* no job */
    RUN_LOADING, /* supervisor_load is under way for the job's model */
    RUN_WAITING, /* for the worker to be ready */
    RUN_ASKING,  /* the worker works out how much memory the job needs */
    RUN_ROOM,    /* for that memory */
    RUN_BUSY,    /* the worker is still at something else: asked again in a moment */
    RUN_SENT,    /* the worker has the job */
    RUN_SAVING,  /* the worker is done, the store is not */
};

struct run {
    enum run_stage stage;
    struct job *job;
    struct supervisor_wait *wait;
    struct http_fetch *question; /* RUN_ASKING */
    uint64_t
        needed; /* bytes that the picture takes at once, beside its model; 0: not known */
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
    job_told_fn *told;
    void *told_user;
    struct job_preview_follower previews; /* of all jobs */
    void (*on_closed)(void *user);
    void *closed_user;
    uint64_t serial;
    double ms_per_work;        /* of drawing, measured; 0: nothing yet */
    double ms_per_upscale;
    uint64_t sampling_from_ms; /* of the running picture, for that measure */
    unsigned
        references; /* its own, one per timer, one per question that cannot be taken back */
    bool holding;
    bool closing;
};

/* Of the jobs that wait, which is next? Pure; see pick.c. */
struct pick_job {
    const char *model; /* NULL: whichever is loaded */
    uint64_t waited_ms;
    bool is_ready; /* on disk */
};
/* -1: none */
int pick_next(const struct pick_job *jobs, int count, const char *loaded,
              uint64_t age_bound_ms);

/* Takes the next job up when none is running. */
void run_next(struct job_queue *q);
/* Lets go of the running job (the worker's connection is closed, which stops the worker). The job itself stays. */
void run_drop(struct job_queue *q);

/* room.c: asks the worker what the running job needs and the supervisor for that much, then goes on with
 * run_send(), or run_fail(). */
void run_ask_room(struct job_queue *q);
/* Takes the questions back, gives the room back. */
void run_leave_room(struct job_queue *q);
/* run.c, for room.c */
enum supervisor_need run_need(const struct job *job);
char *run_job_body(const struct job *job);
void run_send(struct job_queue *q);
void run_fail(struct job_queue *q, const struct err *err);
/* The worker could not be asked: its end, or its being busy, is dealt with as that of a sent job is. */
void run_ask_again(struct job_queue *q);

/* Hands out what is saved, in order, to each watch. */
void job_hand_out(struct job *job);

/* queue.c, for run.c: */
/* A picture of this job took so long: what the estimates are made of. */
void job_measured(struct job *job, uint64_t ms);
/* tell.c: this job's clients; who follows all jobs (err: why it failed); who listens to the running one. job_changed is
 * all three. */
void job_tell(struct job *job);
void job_told(struct job *job, const struct err *err);
void queue_tell(struct job_queue *q);
void job_changed(struct job *job);
/* Ends the job for its client and takes it out of the queue. err NULL: it went well. */
void job_end(struct job *job, enum job_step how, const struct err *err);
void job_queue_unref(struct job_queue *q);
/* After the order has changed: who has another position is told. */
void queue_renumber(struct job_queue *q);
/* Frees a job that has ended, once the store has let go of its pictures. */
void job_free_if_over(struct job *job);

#endif

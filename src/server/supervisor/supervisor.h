/* supervisor: brings the worker processes into the wanted state and keeps them there: one
 * that draws, and one for each text model that is resident.
 *
 *   struct supervisor_load load = {.path = path, .options = WORKER_LOAD_OPTIONS_DEFAULT};
 *   supervisor_load(s, WORKER_SD, &load, &err);            // in place of what it has
 *   supervisor_load_text(s, &load, &id, &err);             // beside the others, if it may
 *   wait = supervisor_when_ready(s, id, NEED_MODEL, on_ready, data);
 *   ... on_ready: generation = supervisor_work_begin(s, id); forward;
 *                 supervisor_work_end(s, id, generation);
 *
 * A worker is named by its id, a small number that never changes: WORKER_SD is the
 * picture worker, WORKER_LLM the first text worker, those after it (below
 * supervisor_count()) further text workers. An id whose worker has neither a model nor a
 * process is free and is used again. Names are for people: "sd"; "llm" is the text worker
 * that answers requests which name no model; "llm-2", "llm-3" ... are the others. When
 * another one becomes the default, the two change names.
 *
 * Everything here belongs to the loop thread, and every callback comes from the loop,
 * never from inside the call that asked for it. A call that returns an error never
 * calls its callback. Text in a snapshot is owned by the supervisor and good until
 * control returns to the loop: copy what you keep. */
#ifndef MYSTI_SERVER_SUPERVISOR_SUPERVISOR_H
#define MYSTI_SERVER_SUPERVISOR_SUPERVISOR_H

#include "base/err.h"

#include "server/memory/cache_type.h"
#include "server/memory/plan.h"
#include "server/memory/predict.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct devices;
struct http_client;
struct log;
struct uv_loop_s;
struct supervisor;
struct supervisor_wait;

enum worker_kind { WORKER_SD, WORKER_LLM };
#define WORKER_KINDS 2
#define WORKERS_MAX                                                                    \
    17 /* the picture worker and as many text models as may be resident */
#define WORKER_NAME_SIZE 16

/* The states and the words for them in logs, in REST answers and on the page. */
#define WORKER_STATES(X)                                                               \
    X(STOPPED, "stopped")   /* no process, and none wanted */                          \
    X(WAITING, "waiting")   /* for memory: others give way */                          \
    X(STARTING, "starting") /* process there, does not listen yet */                   \
    X(LOADING, "loading")   /* listens, the model is being read */                     \
    X(READY, "ready")       /* takes work (a picture worker may be without model) */   \
    X(BUSY, "busy")         /* works; text takes more up to its slots */               \
    X(PARKING, "parking")   /* ends what runs, saves its context */                    \
    X(PARKED, "parked")     /* out of memory, comes back with its context */           \
    X(STOPPING, "stopping") /* asked to go */                                          \
    X(RESTARTING, "restarting") /* gone, comes back by itself in a moment */           \
    X(FAILED, "failed")         /* did not come up; tried again after the back-off */

enum worker_state {
#define X(name, word) WORKER_##name,
    WORKER_STATES(X)
#undef X
};

/* What a text model is for: it writes, it turns texts into vectors, or it says how well texts answer a question. The
 * words are those of the load option "task" and of mysti_llm_worker --task. */
#define WORKER_TASKS(X)                                                                \
    X(AUTO, "auto") /* as the file says */                                             \
    X(CHAT, "chat")                                                                    \
    X(EMBEDDING, "embedding")                                                          \
    X(RERANK, "rerank")

enum worker_task {
#define X(name, word) TASK_##name,
    WORKER_TASKS(X)
#undef X
};

const char *worker_task_name(enum worker_task task);
int worker_task_from_name(const char *name, enum worker_task *ret,
                          struct err *err) MUST_CHECK;
/* What the file was made for; TASK_CHAT when it does not say. */
enum worker_task worker_task_of_file(const char *path);

/* What a load may say; standard values mean the server's configuration. */
struct worker_load_options {
    int gpu_layers; /* -1: as configured */
    int context;    /* tokens of a slot; 0: as configured */
    int slots;      /* 0: as configured */
    enum worker_task task;
    enum cache_type cache_type; /* CACHE_AUTO: as configured */
    int idle_timeout_s; /* parked after that long without work; 0: never, -1: as configured */
    bool is_pinned; /* never chosen to give way, nor parked because nobody uses it */
};
#define WORKER_LOAD_OPTIONS_DEFAULT                                                    \
    {                                                                                  \
        .gpu_layers = -1, .idle_timeout_s = -1                                         \
    }

/* How its last process ended, and the words for it in REST answers. */
#define WORKER_ENDS(X)                                                                 \
    X(NONE, "none")                   /* it never did */                               \
    X(ASKED, "asked")                 /* we told it to go */                           \
    X(EXITED, "exited")               /* by itself, with a code */                     \
    X(SIGNAL, "signal")               /* by a fault of its own: SEGV, ABRT ... */      \
    X(OUT_OF_MEMORY, "out_of_memory") /* by the kernel, or it said so itself */        \
    X(KILLED, "killed")               /* from outside */                               \
    X(HUNG, "hung")                   /* by us, because it did not answer */

enum worker_end {
#define X(name, word) WORKER_END_##name,
    WORKER_ENDS(X)
#undef X
};

struct worker_exit {
    enum worker_end end;
    int signal; /* 0: none */
    int code;
    bool is_own_fault; /* counts towards safe mode, and as an attempt of its job */
};

const char *worker_end_name(enum worker_end end);

struct worker_snapshot {
    int id;
    enum worker_kind kind;
    enum worker_state state;
    const char *name;       /* "sd", "llm", "llm-2" */
    const char *state_name; /* "ready" */
    bool is_default;        /* answers text requests that name no model */
    bool is_pinned;         /* not to be moved or unloaded by itself */
    int pid;                /* 0: no process */
    int port;               /* 0: not known yet */
    const char *token;   /* for `Authorization: Bearer <token>`; new with every start;
                            never log it */
    unsigned generation; /* counts starts: tells one process from the next */
    uint64_t uptime_ms;  /* of this process; 0: none */
    unsigned
        restarts; /* since the server started, without those that a user asked for */
    const char *
        last_exit; /* "killed by signal 9 (Killed)", "exited with code 1"; "" : never */
    struct worker_exit exit; /* the same for programs */
    bool
        is_safe_mode; /* its model has ended it again and again: not loaded by itself */
    const char *reason;   /* one sentence when it is not as wanted, else "" */
    const char *model;    /* absolute path of what is loaded, or NULL */
    const char *wanted;   /* absolute path of what is wanted or being loaded, or NULL */
    double progress;      /* of a load, 0..1; -1: not known */
    unsigned running;     /* work that was begun and not ended */
    unsigned slots;       /* requests that it answers at the same time */
    uint64_t used_ms;     /* clock_ms() of the last work or load */
    int64_t saved_tokens; /* of its context, in files */
    uint64_t saved_bytes;
    struct worker_load_options wish;    /* as asked for with `wanted` */
    struct worker_load_options present; /* what `model` was really started with */
    const struct prediction *predicted; /* text: what it was expected to take; NULL: not
                                           known, or no process */
    const json_t
        *details; /* the worker's own answer to its last load (sd), or NULL; borrowed */
};

enum supervisor_force { SUPERVISOR_POLITE, SUPERVISOR_FORCE };

/* err is NULL when it went well; gone after the callback returns. */
typedef void supervisor_done_fn(void *data, const struct err *err);
typedef void supervisor_change_fn(void *data, int id);

struct supervisor_load {
    const char *path; /* absolute */
    struct worker_load_options options;
    enum supervisor_force force;
    bool keeps_default; /* text: requests without a model go where they went before */
    supervisor_done_fn *done; /* may be NULL */
    void *data;
};

struct supervisor_options {
    struct uv_loop_s *loop;
    struct log *log;
    const struct config *config;
    struct http_client *client;
    struct devices *devices;
};

/* Takes the state folder for itself, puts an end to workers that a killed server left
 * behind, checks that fixed worker ports are free. Fails with one sentence
 * (ERR_CONFLICT) when something of it is taken. */
int supervisor_new(const struct supervisor_options *options, struct supervisor **ret,
                   struct err *err) MUST_CHECK;
void supervisor_free(
    struct supervisor *s); /* after supervisor_shutdown() has called back */
/* Spawns the workers and loads what is wanted: options, else the stored state, else the
 * starters. */
void supervisor_begin(struct supervisor *s);
/* Asks every worker to go, kills after 3 s, calls back when none is left. */
void supervisor_shutdown(struct supervisor *s, supervisor_done_fn *done, void *data);

/* Ids run from 0 to this, without it. */
int supervisor_count(const struct supervisor *s);
/* Has the id a worker to show: a process, a model wanted, or a name that always stands? */
bool supervisor_is_shown(const struct supervisor *s, int id);
void supervisor_snapshot(const struct supervisor *s, int id,
                         struct worker_snapshot *ret);
/* The newest lines of a worker's log, oldest first, at most max; returns how many. */
size_t supervisor_log_tail(const struct supervisor *s, int id, const char **ret_lines,
                           size_t max);
const char *worker_state_name(enum worker_state state);
/* The id that a name in a route means; the sentence lists the names there are. */
int supervisor_id_from_name(const struct supervisor *s, const char *name, int *ret_id,
                            struct err *err) MUST_CHECK;
/* The text worker that requests without a model go to. */
int supervisor_default_text(const struct supervisor *s);
/* The text worker that has this model or is getting it; -1: none. */
int supervisor_text_with(const struct supervisor *s, const char *path);
/* Text requests that are being answered, all workers together. */
unsigned supervisor_text_running(const struct supervisor *s);

/* Loads a model into this worker, in place of the one that is there. The file is looked
 * at first: missing, a folder, or not a model is refused here. A load that fails later
 * leaves the model that was there before. A second load of the same file joins the
 * first; of another, or while work runs (polite), is ERR_CONFLICT. */
int supervisor_load(struct supervisor *s, int id, const struct supervisor_load *load,
                    struct err *err) MUST_CHECK;
/* Loads a text model: into the worker that has it already (with other options it is
 * started anew there), else beside the others while --llm-resident and memory allow it,
 * else in place of the one that was used least recently and is neither busy nor pinned
 * (forced: only not pinned). ret_id: which worker it became. */
int supervisor_load_text(struct supervisor *s, const struct supervisor_load *load,
                         int *ret_id, struct err *err) MUST_CHECK;
int supervisor_unload(struct supervisor *s, int id, enum supervisor_force force,
                      supervisor_done_fn *done, void *data, struct err *err) MUST_CHECK;
/* Pins what this worker has or is getting; it is kept with the model. ERR_CONFLICT when that is nothing. */
int supervisor_pin(struct supervisor *s, int id, bool pinned,
                   struct err *err) MUST_CHECK;
/* What a text model would take if it were loaded so. Reads the file's head. */
int supervisor_predict(const struct supervisor *s, const char *path,
                       const struct worker_load_options *options,
                       struct prediction *ret, struct err *err) MUST_CHECK;

/* ---- memory ---- */

/* What lies where; residents[] goes by worker id. */
void supervisor_ledger(const struct supervisor *s, struct plan_ledger *ret);
/* Why a worker cannot be asked to give way; NULL: it can. */
const char *supervisor_why_it_stays(const struct supervisor *s, int id);
/* What loading this text model would do, and the ledger that it was decided on. Nothing is done. */
int supervisor_would_load(const struct supervisor *s, const char *path,
                          const struct worker_load_options *options,
                          struct plan_ledger *ret_ledger, struct plan *ret,
                          struct err *err) MUST_CHECK;
/* The same for a picture that needs so much beside its model. */
void supervisor_would_draw(const struct supervisor *s, uint64_t bytes,
                           struct plan_ledger *ret_ledger, struct plan *ret);

/* Room for what a picture needs beside its model, one at a time; low_bytes: what it takes at least, where the engine can draw
 * it in pieces, else 0. `done` comes once: NULL, and the room is kept until it is
 * given back; ERR_NO_MEMORY with the numbers when others would not be enough if they gave way. */
void supervisor_picture_room(struct supervisor *s, uint64_t bytes, uint64_t low_bytes,
                             supervisor_done_fn *done, void *data);
/* The room that was given: between low_bytes and bytes. */
uint64_t supervisor_picture_bytes(const struct supervisor *s);
/* Would it be given without anybody giving way? */
bool supervisor_picture_fits(const struct supervisor *s, uint64_t bytes);
/* Also takes the question back. */
void supervisor_picture_over(struct supervisor *s);

/* Has it no process because others have its place, in memory or among the residents, and would it have one when these had
 * nothing to do? Not while a picture is drawn, or a person is asked. */
bool supervisor_waits_for_memory(const struct supervisor *s, int id);
/* Has it less than its whole context, because the memory was needed elsewhere? */
bool supervisor_is_short(const struct supervisor *s, int id);
/* Has this text model room for a request that may need so many tokens? false: the rest of its context is on its way back,
 * or will be; ask again when the worker has changed. True also when it cannot be had. */
bool supervisor_has_context(struct supervisor *s, int id, int64_t tokens);

/* One that was carried out, or that leave is asked for. */
struct supervisor_move {
    uint64_t number;  /* from 1 on, in their order */
    int64_t time_ms;  /* since 1970 */
    const char *kind; /* a word of plan.h */
    int worker;       /* id; -1: the one that asked */
    char resident[64];
    char device[32];
    int layers; /* on the device afterwards */
    uint64_t bytes;
    char reason[320];
};

typedef void supervisor_moved_fn(void *data, const struct supervisor_move *move);

/* The newest ones, oldest first; returns how many. */
int supervisor_moves(const struct supervisor *s, struct supervisor_move *ret, int max);
void supervisor_on_move(struct supervisor *s, supervisor_moved_fn *moved, void *data);
/* --memory-policy ask: those who wait for leave, with what would happen. Owned by the supervisor, until the loop turns. */
struct supervisor_question {
    int id;
    const char *name;
    const struct plan *plan;
};
int supervisor_questions(const struct supervisor *s, struct supervisor_question *ret,
                         int max);
int supervisor_give_leave(struct supervisor *s, int id, bool leave,
                          struct err *err) MUST_CHECK;

/* POST /v1/workers/{name}/{start,stop,restart}. Stop and restart refuse (ERR_CONFLICT)
 * while work runs unless forced. Start of a running worker and stop of a stopped one
 * are done at once. A stopped worker stays stopped until started; what it had loaded is
 * still wanted and comes back with it. `done` comes when it is ready (start, restart)
 * or gone (stop). */
int supervisor_start(struct supervisor *s, int id, supervisor_done_fn *done, void *data,
                     struct err *err) MUST_CHECK;
int supervisor_stop(struct supervisor *s, int id, enum supervisor_force force,
                    supervisor_done_fn *done, void *data, struct err *err) MUST_CHECK;
int supervisor_restart(struct supervisor *s, int id, enum supervisor_force force,
                       supervisor_done_fn *done, void *data,
                       struct err *err) MUST_CHECK;

enum park_until {
    PARK_UNTIL_ASKED,  /* supervisor_unpark(); requests wait meanwhile */
    PARK_UNTIL_WANTED, /* the next request brings it back */
};

struct supervisor_park {
    const char *reason; /* one clause: "a picture needs 5.1 GiB" */
    enum park_until until;
    unsigned wait_ms; /* for what runs to end; 0: 30 s. Then it is ERR_CONFLICT */
    supervisor_done_fn *done; /* it is out of memory; may be NULL */
    void *data;
};

/* A model leaves memory; a text model saves its context where that helps, and new requests wait. ERR_CONFLICT when it is
 * neither ready nor, a text model, busy. */
int supervisor_park(struct supervisor *s, int id, const struct supervisor_park *park,
                    struct err *err) MUST_CHECK;
/* `done` comes when it is ready again, with its context. */
int supervisor_unpark(struct supervisor *s, int id, supervisor_done_fn *done,
                      void *data, struct err *err) MUST_CHECK;
/* A request waits for this worker: if it was parked until then, it comes back as soon as there is room. */
void supervisor_summon(struct supervisor *s, int id);

/* What a request wants of a worker. */
enum supervisor_need { NEED_MODEL, NEED_PROCESS /* with a model or without */ };

/* Takes work right now? */
bool supervisor_is_ready(const struct supervisor *s, int id, enum supervisor_need need);
/* Calls `ready` once: with NULL when the worker can take work, with an error
 * (ERR_UNAVAILABLE, with the reason) when nothing is loaded and nothing is coming, or
 * when it failed. There is no time limit here. */
struct supervisor_wait *supervisor_when_ready(struct supervisor *s, int id,
                                              enum supervisor_need need,
                                              supervisor_done_fn *ready, void *data);
void supervisor_wait_cancel(
    struct supervisor_wait *wait); /* before the callback only */
/* For the client who waits: "loading starter-writer.gguf", "restarting". */
void supervisor_progress_text(const struct supervisor *s, int id, char *ret_text,
                              size_t size);

/* Between these two the worker counts as busy. Ending twice is a bug. `generation` is
 * that of the snapshot which the work went to; the end of work of an earlier process is
 * ignored. Begin returns it. */
unsigned supervisor_work_begin(struct supervisor *s, int id);
void supervisor_work_end(struct supervisor *s, int id, unsigned generation);
/* "This process closed the connection on me": until its end was seen or it has answered
 * a health check, it does not count as ready. Call before supervisor_when_ready() when
 * a request is sent again. */
void supervisor_suspect(struct supervisor *s, int id, unsigned generation);

/* `changed` after every change of state, model, progress or running work. At most 8
 * listeners. */
void supervisor_listen(struct supervisor *s, supervisor_change_fn *changed, void *data);

#endif

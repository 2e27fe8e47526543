/* worker: what the files of this folder share about one worker. Nobody outside includes this.
 *
 *   states.c      what happens in which state (the table), and what to do about it
 *   starts.c      memory, process, model: how it becomes ready
 *   launch.c      arguments, environment, start of the process, its lines and its end
 *   listing.c     which graphics cards the text engine can use
 *   health.c      questions to the process: is it there, load this, let it go
 *   wishes.c      what may be asked: load, unload, start, stop, restart
 *   park.c        out of memory and back, with the context; what nobody uses
 *   trim.c        with less of its context, while memory is needed elsewhere
 *   contexts.c    (and context_record.c) the files of saved contexts, over a restart of the server, too
 *   ledger.c      what lies where in memory
 *   room.c        (and room_decide.c) who wants memory, and who gives way
 *   learn.c       what models really took, for the next time
 *   residents.c   which text worker takes a model, which is the default, what is stored
 *   supervisor.c  beginning and end, questions, those who wait, those who listen
 */
#ifndef MYSTI_SERVER_SUPERVISOR_WORKER_H
#define MYSTI_SERVER_SUPERVISOR_WORKER_H

#include "http/client.h"
#include "server/log/log.h"
#include "server/memory/learned.h"
#include "server/supervisor/desired.h"
#include "server/supervisor/process.h"
#include "server/supervisor/reaper.h"
#include "server/supervisor/record.h"
#include "server/supervisor/room.h"
#include "server/supervisor/supervisor.h"

#include <uv.h>

#define WORKER_EVENTS(X)                                                               \
    X(START)       /* it is wanted */                                                  \
    X(STOP)        /* it shall go; whether it comes back is in wants_up */             \
    X(LOAD)        /* `next` says what is to be loaded */                              \
    X(LISTENING)   /* it can be asked */                                               \
    X(LOADED)      /* what was asked for is loaded */                                  \
    X(LOAD_FAILED) /* it says why in load_error, and lives */                          \
    X(ROOM)        /* there is memory for it */                                        \
    X(NO_ROOM)     /* nor will there be: room_error says why */                        \
    X(EXITED)      /* the process is gone; `exit` says how */                          \
    X(TIMEOUT)     /* the state has lasted as long as it may */                        \
    X(HUNG)        /* three health checks without an answer */                         \
    X(PARK)        /* it shall leave memory and take its context along */              \
    X(SAVED)       /* its context is in files, as far as it could be */                \
    X(WORK)        /* the first request went to it */                                  \
    X(IDLE)        /* the last one is over */

enum worker_event {
#define X(name) EV_##name,
    WORKER_EVENTS(X)
#undef X
        EV_COUNT
};

#define KV_SLOTS_MAX 64
#define KV_NAME_SIZE 48
#define PARK_WAIT_MS 30000

/* The saved context of one slot. */
struct kv_slot {
    int slot;
    char file[KV_NAME_SIZE]; /* in the folder kv of the state folder */
    json_int_t tokens;
    uint64_t bytes;
    int64_t saved_us; /* since 1970 */
    bool is_synced;   /* on the disk, so it may stand in the record */
};

/* What it can be restored into: this file, started like this. */
struct kv_owner {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified;
    struct worker_load_options options;
};

struct kv {
    struct kv_owner owner;
    struct kv_slot slots[KV_SLOTS_MAX];
    int count;
    uint64_t stamp; /* of the names to come; no two are alike */
};

enum kv_step { KV_NOTHING, KV_RESTORING, KV_RESTORED };

/* How the two kinds differ in words. */
struct worker_profile {
    const char *title;   /* "SD": in log lines that users search for */
    const char *program; /* and argv[0] */
    const char *what;    /* "picture" */
    const char *route;   /* that loads a model, for sentences */
    enum log_source source;
};

struct worker {
    struct supervisor *s;
    int id;
    char name[WORKER_NAME_SIZE];
    enum worker_kind kind;
    const struct worker_profile *profile;
    enum worker_state state;
    bool wants_up; /* false after POST .../stop */

    struct process *process; /* NULL: none */
    int pid;
    struct process_exit exit;
    unsigned generation;
    uint64_t started_ms;
    int port;
    char token[PROCESS_TOKEN_SIZE];
    unsigned restarts;
    unsigned failures; /* starts and loads that failed in a row */
    bool was_lost;     /* the process before this one ended unasked */
    bool hung;         /* that is why we kill it */

    struct wish wanted; /* what it should have; kept over its death */
    struct wish next; /* known: somebody asks for this now; wanted when it is loaded */
    struct wish stored;          /* as on disk */
    struct prediction predicted; /* of what it was started with; with is_predicted */
    bool is_predicted;
    bool is_on_card;     /* text: so it was admitted */
    int granted_layers;  /* on the card, when fewer than wished; -1: as wished */
    int granted_context; /* tokens of a slot, when fewer than wished; 0: as wished */
    uint64_t measured_bytes; /* text: the most that this process had */
    uint64_t model_bytes;    /* picture: what its model has, as it said */
    uint64_t coming_bytes;   /* picture: of the model that is being loaded */
    bool gave_way;           /* parked for somebody else; comes back by itself */
    bool is_forced;          /* the load that asks for room was */
    bool comes_back;         /* it asks for room because it was parked */
    struct err room_error;
    struct worker_load_options present; /* what the process was started with */
    int wished_layers;  /* the same for the card, before some were taken away */
    int wished_context; /* and of the context */
    bool keeps_context; /* its slots can be saved and restored */
    int used_tokens;    /* of its fullest slot, as far as is known */
    struct http_fetch *slots_call;
    uint64_t slots_ms;    /* when that was asked for last */
    bool becomes_default; /* once `next` is loaded */
    uint64_t used_ms;
    char *loaded; /* NULL: nothing */
    json_t *details;
    double progress;
    uint64_t loading_ms; /* since when */
    struct err load_error;
    bool
        load_broke; /* the question broke off: failed, if the process turns out to live */
    char first_error[300]; /* of this process's own lines */

    unsigned running;
    bool suspected;
    unsigned missed;
    struct http_fetch *health;
    struct http_fetch *load_call;

    bool parks; /* that is why it is stopping */
    enum park_until park_until;
    unsigned park_wait_ms;
    char park_reason[160];
    struct kv kv;
    enum kv_step kv_step; /* of this process */
    int kv_at;            /* the slot that is asked for */
    json_int_t kv_restored;
    struct http_fetch *kv_call;
    uv_timer_t idle_timer;

    char last_exit[160];
    struct worker_exit last; /* the same, not only in words */
    uint64_t memory_kills;   /* of the kernel, when it was started */
    bool says_memory;        /* its log did */
    uint64_t ready_ms;       /* when this process became ready; 0: not yet */
    unsigned crashes; /* of its own fault, one soon after the other, with this model */
    bool safe_mode;
    char reason[sizeof(((struct err *)0)->message)];
    struct line_ring ring;
    uv_timer_t timer;        /* of the state */
    uv_timer_t health_timer; /* next check */
    bool changed;            /* listeners are to be told */
    bool to_announce;        /* "Saved ... model state" once it is on disk */
};

enum wait_type { WAIT_READY, WAIT_CHANGE, WAIT_START, WAIT_STOP, WAIT_PARK };

struct supervisor_wait {
    struct worker *worker;
    enum wait_type type;
    enum supervisor_need need; /* WAIT_READY */
    supervisor_done_fn *done;
    void *data;
    bool due; /* settled; called back in the next turn of the loop */
    bool failed;
    struct err err;
    struct supervisor_wait *next;
};

#define LISTENERS_MAX 8

struct supervisor {
    uv_loop_t *loop;
    struct log *log;
    const struct config *config;
    struct http_client *client;
    struct worker *workers[WORKERS_MAX];
    int worker_count;
    int default_text; /* an id */
    struct devices *devices;
    struct room room;
    struct record *desired;  /* desired.json */
    struct record *measured; /* measured.json */
    struct record *contexts; /* contexts.json */
    int contexts_syncing;    /* files on their way to the disk */
    struct learned *learned;
    struct reaper *reaper;
    struct supervisor_wait *waits;
    struct {
        supervisor_change_fn *changed;
        void *data;
    } listeners[LISTENERS_MAX];
    size_t listener_count;
    uv_idle_t wake;
    bool had_turn; /* those who listen had theirs, room_look() is next */
    bool shutting_down;
    supervisor_done_fn *shut_done;
    void *shut_data;
    int open_handles;
};

/* states.c */
void worker_event(struct worker *w, enum worker_event event);
bool worker_has_process(const struct worker *w);
/* what is being or would be loaded: next, else wanted */
const struct wish *worker_target(const struct worker *w);
void worker_timer_start(struct worker *w, uint64_t ms);
void worker_timer_stop(struct worker *w);
void worker_set_state(struct worker *w, enum worker_state state);
void worker_set_reason(struct worker *w, const char *sentence);
bool worker_is_restore(const struct worker *w);
void worker_forget_model(struct worker *w);
void worker_become_stopped(struct worker *w);

/* starts.c; but for the first two, actions of the table */
void worker_failed(struct worker *w, const char *what, const struct err *why);
/* what somebody asked for cannot be; the process is gone: start again with what was there before */
void worker_back_to_wanted(struct worker *w, const struct err *why);
void worker_spawn(struct worker *w);
void worker_begin_load(struct worker *w);
void worker_has_room(struct worker *w);
void worker_has_no_room(struct worker *w);
void worker_wants_other(struct worker *w);
void worker_listens(struct worker *w);
void worker_become_ready(struct worker *w);
void worker_load_again(struct worker *w);
void worker_load_refused(struct worker *w);

/* launch.c */
/* What is left open in the wish, as it will really be. */
struct worker_load_options launch_options(const struct config *c,
                                          const struct wish *target);
int worker_launch(struct worker *w, const struct wish *target,
                  struct err *err) MUST_CHECK;
void worker_forget_process(struct worker *w);
/* Its file. Release with free(). */
char *worker_program(const struct worker *w);

/* listing.c */
/* Tells the devices which cards the text engine can use; waits for its answer. */
void listing_ask(struct supervisor *s);

/* health.c */
void health_begin(struct worker *w);
void health_stop(struct worker *w);
void health_check_now(struct worker *w);
/* sd only: POST /internal/load or /internal/unload; ends in EV_LOADED or EV_LOAD_FAILED */
void health_load(struct worker *w, const char *path);

/* supervisor.c */
void supervisor_changed(struct worker *w);
/* the next turn of the loop looks at those who wait */
void supervisor_wake(struct supervisor *s);
struct supervisor_wait *supervisor_wait_add(struct worker *w, enum wait_type type,
                                            supervisor_done_fn *done, void *data);
/* err NULL: well */
void supervisor_settle(struct worker *w, enum wait_type type, const struct err *err);
struct worker *worker_new(struct supervisor *s, enum worker_kind kind);

/* residents.c */
/* `wanted` of this worker is loaded, or it was unloaded: keep that */
void supervisor_store(struct worker *w);
/* the same for its being parked, or not any more; only when that is news */
void supervisor_store_parked(struct worker *w);
void residents_choose_wanted(struct supervisor *s);
/* the default text worker from here on; the two change names */
void residents_make_default(struct worker *w);
/* a text worker that has lost its model for good: another one becomes the default */
void residents_without_model(struct worker *w);
bool worker_is_free(const struct worker *w);

/* May this parked worker come back now? Where one too many is resident another one is parked for it. ERR_NO_MEMORY: it
 * may not, and waiting will not change that. */
bool residents_may_return(struct worker *w, struct err *err);

/* learn.c */
void learn_begin(struct supervisor *s);
/* the worker is up, or has worked: what does it have? */
void learn_from(struct worker *w);
/* makes a prediction as large as it turned out to be, when that is known */
void learn_correct(const struct supervisor *s, const char *path,
                   const struct worker_load_options *present, bool is_on_card,
                   struct prediction *p);
/* of a picture model; 0: not known */
uint64_t learn_picture_model(const struct supervisor *s, const char *path);

/* contexts.c */
void kv_prepare(struct supervisor *s);
/* which contexts are still wanted; everything else goes. Once the wishes are known */
void kv_begin(struct supervisor *s);
void kv_new_name(const struct worker *w, int slot, char *ret, size_t size);
void kv_remove_file(struct supervisor *s, const char *name);
void kv_forget_slot(struct worker *w, int i);
void kv_forget(struct worker *w); /* the files, too */
void kv_sync(struct worker *w, const struct kv_slot *slot);
void kv_keep_bounds(struct supervisor *s);
bool kv_is_writing(const struct supervisor *s);
int64_t kv_tokens(const struct worker *w);
uint64_t kv_bytes(const struct worker *w);

/* context_record.c */
/* an entry of contexts.json; the model's path is borrowed from it */
json_t *kv_json(const char *model, const struct kv *kv);
int kv_from_json(const json_t *entry, const char **ret_model,
                 struct kv *ret) MUST_CHECK;

/* park.c */
void kv_save(struct worker *w); /* ends in EV_SAVED */
/* true: it is on its way and ends in EV_LOADED once more */
bool kv_restore(struct worker *w);
void kv_process_gone(struct worker *w);
/* true: it was parked when the server ended before, and is again */
bool park_take_up(struct worker *w);
void park_idle_begin(struct worker *w);
void park_idle_end(struct worker *w);

bool kv_is_of_use(const struct worker *w);

/* trim.c */
/* Tokens of a slot that this process could do with: fewer than it has, or as many. */
int trim_kept(const struct worker *w);
/* How much of its context is used? */
void trim_ask(struct worker *w);
/* Now and then: the same, if it has worked since and is idle. */
void trim_look(struct worker *w);
/* Its context is in files, and it is started anew: with enough for what is in them. */
void trim_saved(struct worker *w);
void trim_process_gone(struct worker *w);

/* wishes.c */
int worker_check_file(const struct worker *w, const char *path,
                      struct err *err) MUST_CHECK;

#endif

/* room: whoever is about to take memory asks here first: a text model before its process starts, a picture model before it
 * is read, a picture before it is drawn. What does not fit makes others give way, as server/memory/plan.h decides; every
 * move is told with its numbers and a reason.
 *
 *   switch (room_for_worker(w, bytes, &err)) ...     GRANTED now, COMING (EV_ROOM or EV_NO_ROOM follows), REFUSED
 *   ledger_fill(s, &ask, &ledger);                   what lies where at this moment; residents[] goes by worker id
 */
#ifndef MYSTI_SERVER_SUPERVISOR_ROOM_H
#define MYSTI_SERVER_SUPERVISOR_ROOM_H

#include "server/memory/plan.h"
#include "server/supervisor/supervisor.h"

#include <uv.h>

struct worker;

/* Who asks, and for what. */
struct room_ask {
    struct worker
        *worker; /* that it is for; NULL: a picture, or one that is not chosen yet */
    bool is_picture;
    char name[64];
    int device;
    uint64_t bytes;
    uint64_t ram_bytes; /* on a card: beside these, in RAM */
    uint64_t
        low_bytes; /* of a picture: what it takes at least, drawn in pieces; 0: not less */
    uint64_t
        firm_bytes; /* of these, without pages of files, which the kernel can read again */
    int layers;     /* on a card: of a text model; 0: it is not split */
    uint64_t layer_bytes;
    bool is_forced;     /* those that work are asked, too */
    bool keeps_default; /* the default text model goes last */

    int id;
    uint64_t since_ms;
    bool waits_for_leave; /* --memory-policy ask */
    bool has_leave;
    struct plan plan; /* that leave is waited for */
    supervisor_done_fn *done;
    void *data;
    struct room_ask *next;
};

#define ROOM_MOVES_KEPT 32
#define ROOM_SETTLE_MS 5000 /* the counts of control groups lag by seconds */

struct room {
    struct room_ask *asks; /* oldest first */
    int moving;            /* moves under way: nothing else is decided meanwhile */
    int last_id;
    uint64_t
        released_ms; /* when a process ended last: what it had shows as free a moment later */
    uint64_t picture_bytes; /* granted to the picture that is drawn */
    uv_timer_t timer;       /* looks again, and brings back what gave way */
    struct supervisor_move moves[ROOM_MOVES_KEPT]; /* number n at n % ROOM_MOVES_KEPT */
    uint64_t move_count;
    supervisor_moved_fn *moved;
    void *moved_data;
};

/* room_decide.c */
enum verdict {
    FITS,
    FITS_IN_PART, /* with fewer of its layers on the card */
    MOVES,        /* when others have given way as the plan says */
    LEAVE,        /* the same, and somebody has to agree first */
    PASSING,      /* not now, but what is in the way passes */
    REFUSED,
};
enum verdict room_decide(const struct supervisor *s, const struct room_ask *ask,
                         struct plan_ledger *ledger, struct plan *plan);
struct plan_want room_want_of(const struct room_ask *ask);
/* models there, without `but` */
int room_on_device(const struct plan_ledger *l, int device, int but);
/* refused by the plan, and to be let through all the same? */
bool room_may_try(const struct room_ask *ask, const struct plan_ledger *l);
/* a picture that takes nothing from anybody when it is drawn in pieces */
bool room_fits_low(const struct room_ask *ask, const struct plan_ledger *l);
/* as many of its layers as the card has room for, when all are too many; true: that is a way */
bool room_fewer_layers(const struct room_ask *ask, const struct plan_ledger *l,
                       int *ret_layers);
/* the others lie in RAM */
void room_keep_layers(struct room_ask *ask, int layers);

enum room_answer { ROOM_GRANTED, ROOM_COMING, ROOM_REFUSED };

/* ledger.c */
void ledger_fill(const struct supervisor *s, const struct room_ask *ask,
                 struct plan_ledger *ret);
/* Bytes that a resident will have when it is up, as far as is known. */
uint64_t ledger_foreseen(const struct worker *w);
/* Why it cannot be asked to give way; NULL: it can. */
const char *ledger_why_it_stays(const struct worker *w, const struct room_ask *ask);
/* The device that a text model with so many layers on a card (-1: as many as fit) goes to. */
int ledger_card(const struct plan_ledger *l, int gpu_layers);
bool ledger_is_for_card(const struct supervisor *s, int gpu_layers);
/* Does something hold memory which will be free, or can be asked for, soon? */
bool ledger_is_passing(const struct supervisor *s, const struct room_ask *ask);

/* room.c */
void room_init(struct supervisor *s);
void room_close(struct supervisor *s);
/* Something changed, or enough time went by. */
void room_look(struct supervisor *s);
/* For what the worker is about to load. Sets w->predicted, and w->granted_layers for a text model. */
enum room_answer room_for_worker(struct worker *w, struct err *err);
/* Does somebody else wait for memory already, and not for leave? */
bool room_is_wanted(const struct supervisor *s, const struct worker *but);
/* Its process is gone. */
/* somebody has given way, and is to come back when all is quiet */
void room_watch(struct supervisor *s);
void room_released(struct worker *w);
/* It does not want it any more. */
void room_forget(struct worker *w);
/* Would a text model be admitted now, by moves if need be? ERR_CONFLICT: not yet; ERR_NO_MEMORY: not at all. */
int room_would_admit(struct supervisor *s, const struct room_ask *ask,
                     struct err *err) MUST_CHECK;
/* Gets the rest of its context: started anew, with moves of others if need be. */
void room_grow(struct worker *w, const struct plan_ledger *l);
/* The question that loading this text model is. */
int room_ask_of(const struct supervisor *s, const char *path,
                const struct worker_load_options *options, struct room_ask *ret,
                struct err *err) MUST_CHECK;
/* The question that this worker's next start or load is, with what it was granted before. */
int room_ask_of_worker(struct worker *w, struct room_ask *ret,
                       struct err *err) MUST_CHECK;

#endif

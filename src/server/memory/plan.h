/* plan: how something that is wanted now gets its memory, as an ordered list of moves with bytes and one sentence each.
 * Pure: it reads a picture of the machine and of what is resident, and touches neither.
 *
 *   struct plan plan;
 *   plan_make(&ledger, &want, &plan);
 *   for (int i = 0; i < plan.count; i++) ... plan.moves[i].kind, .bytes, .reason
 *   plan_apply(&ledger, &plan.moves[i]);       // what the ledger is afterwards (tests, and what-if answers)
 *   plan_restore(&ledger, now_ms, &plan);      // the way back, when there is room and it was quiet long enough
 *
 * A plan either admits (`admits`; the moves make the room) or is a single PLAN_REFUSE with the numbers and the way out:
 * nothing is moved for somebody who is refused all the same.
 */
#ifndef MYSTI_SERVER_MEMORY_PLAN_H
#define MYSTI_SERVER_MEMORY_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define PLAN_DEVICES_MAX 17   /* device 0 is the system's RAM */
#define PLAN_RESIDENTS_MAX 17 /* as many as there can be workers */
#define PLAN_MOVES_MAX (4 * PLAN_RESIDENTS_MAX + 2)
#define PLAN_RAM 0

/* In the order in which they are tried. */
#define PLAN_MOVES(X)                                                                  \
    X(FITS, "fits")                                                                    \
    X(TRIM, "trim")     /* context cache that nobody uses is given back */             \
    X(LAYERS, "layers") /* fewer layers on the device; they go to RAM */               \
    X(PARK, "park")     /* out of memory, its context saved */                         \
    X(LOW, "low")       /* it is admitted with its low-memory mode */                  \
    X(REFUSE, "refuse") /* nothing of it is enough */                                  \
    X(UNPARK, "unpark") /* back, where it was */                                       \
    X(REGAIN, "regain") /* layers back on the device */                                \
    X(GROW, "grow")     /* its whole context again */

enum plan_move_kind {
#define X(name, word) PLAN_##name,
    PLAN_MOVES(X)
#undef X
};

const char *plan_move_name(enum plan_move_kind kind);

enum plan_policy { PLAN_AUTOMATIC, PLAN_ASK, PLAN_MANUAL };

struct plan_device {
    char name[32];
    uint64_t total;
    uint64_t free; /* observed, so that foreign processes count */
    bool is_simulated;
    bool
        is_observed; /* `free` is what there is now; else what there was before we took any */
    bool is_usable; /* a card that text models go to by themselves */
};

struct plan_resident {
    char name[64];
    int device;
    uint64_t
        fixed_bytes; /* on its device, whatever the number of layers; PLAN_RAM: all of it */
    uint64_t layer_bytes; /* of one layer with its cache; 0: it cannot be split */
    struct plan_context {
        int wished, present; /* tokens of a slot */
        int kept; /* that are enough for what is in it; fewer than present: the rest can be given back */
        uint64_t spare_bytes;       /* of fixed_bytes, that this gives back */
        uint64_t spare_layer_bytes; /* and of layer_bytes */
        uint64_t lacking_bytes;     /* beside fixed_bytes: what was given back */
        uint64_t lacking_layer_bytes;
    } context;
    uint64_t
        ram_bytes; /* in RAM beside what is on the device, without layers that went there */
    int layers; /* on the device now */
    int wished_layers;
    bool is_pinned;
    bool is_parkable;
    bool is_parked;
    uint64_t used_ms;
};

struct plan_ledger {
    struct plan_device devices[PLAN_DEVICES_MAX];
    int device_count;
    struct plan_resident residents[PLAN_RESIDENTS_MAX];
    int resident_count;
    uint64_t margin_bytes; /* kept free on each device */
    uint64_t quiet_ms;     /* without any work before something is restored */
    enum plan_policy policy;
};

struct plan_want {
    const char *name;
    int device;
    int self; /* the resident that wants it: never asked to give way; -1: none of them */
    uint64_t bytes;
    uint64_t ram_bytes; /* on a card: what of it lies in RAM all the same */
    uint64_t low_bytes; /* with the engine's low-memory mode; 0: it has none */
};

struct plan_move {
    enum plan_move_kind kind;
    int resident; /* index; -1: the one who wants */
    int device;
    int layers; /* LAYERS, REGAIN: on the device afterwards */
    uint64_t
        bytes; /* given back on the device, or taken by who comes (FITS, LOW, UNPARK, REGAIN) */
    char reason[320];
};

struct plan {
    struct plan_move moves[PLAN_MOVES_MAX];
    int count;
    bool admits;      /* the last move is FITS or LOW */
    bool needs_leave; /* policy ask: somebody has to approve it first */
};

/* What it occupies on its own device, and in RAM when that is another one. */
uint64_t plan_resident_bytes(const struct plan_resident *r);
uint64_t plan_resident_ram(const struct plan_resident *r);
void plan_make(const struct plan_ledger *ledger, const struct plan_want *want,
               struct plan *ret);
void plan_restore(const struct plan_ledger *ledger, uint64_t now_ms, struct plan *ret);
/* The move that gives this resident the rest of its context; why: a clause, or "". */
void plan_grow(const struct plan_ledger *ledger, int resident, const char *why,
               struct plan_move *ret);
/* FITS, LOW and REFUSE change nothing: who was admitted shows in what is free. */
void plan_apply(struct plan_ledger *ledger, const struct plan_move *move);

#endif

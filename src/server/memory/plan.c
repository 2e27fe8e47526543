/* The ladder. Rungs in their order, each one only as far as it must go: context cache that nobody uses, layers of text
 * models (in one step as many as are missing, from the bytes of a layer: one at a time would restart a worker for each),
 * parking (where RAM is missing those on a card last, which have parts of themselves there), the low-memory mode of the
 * one who asks, refusal. Within a rung the one that was used least recently
 * gives way first. Pinned ones and the one who asks never do.
 *
 * A copy of the ledger is what is planned on: every move is applied to it before the next one is chosen, so that a
 * later one sees what an earlier one left, RAM included (layers that leave a card need RAM, and a move that would push
 * RAM below its margin is not one). Who wants a card wants RAM as well, for the parts that lie there all the same: the ladder
 * is climbed for both. When the rungs are not enough, the moves are thrown away: nobody gives way for a
 * request that fails all the same. The low-memory mode is tried before refusing with the moves that it then needs,
 * which are fewer.
 *
 * "Free" is what was observed, never the total minus what we know of: a foreign process on the card counts.
 *
 * Hysteresis: nothing comes back until all residents were quiet for quiet_ms, and layers come back two at least (or the
 * last one), with the margin kept. A batch, whose jobs follow each other closely, therefore does not bounce. A parked
 * model comes back before layers of another grow, the most recently used first.
 *
 * If you add a rung, add it to PLAN_MOVES, to `rungs` here, and to what the arbiter carries out. */
#include "server/memory/plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define REGAIN_LAYERS_MIN 2
#define GIB(bytes) ((double)(bytes) / (1024.0 * 1024 * 1024))

const char *plan_move_name(enum plan_move_kind kind)
{
    static const char *const words[] = {
#define X(name, word) [PLAN_##name] = word,
        PLAN_MOVES(X)
#undef X
    };

    return words[kind];
}

uint64_t plan_resident_bytes(const struct plan_resident *r)
{
    return r->is_parked ? 0 : r->fixed_bytes + r->layer_bytes * (uint64_t)r->layers;
}

uint64_t plan_resident_ram(const struct plan_resident *r)
{
    if (r->is_parked || r->device == PLAN_RAM)
        return 0;
    return r->ram_bytes + r->layer_bytes * (uint64_t)(r->wished_layers - r->layers);
}

/* What may still be taken with the margin kept. */
static uint64_t usable(const struct plan_ledger *l, int device)
{
    uint64_t free_bytes = l->devices[device].free;

    return free_bytes > l->margin_bytes ? free_bytes - l->margin_bytes : 0;
}

static void trim_context(struct plan_resident *r)
{
    struct plan_context *c = &r->context;

    r->fixed_bytes -= c->spare_bytes;
    r->layer_bytes -= c->spare_layer_bytes;
    c->lacking_bytes += c->spare_bytes;
    c->lacking_layer_bytes += c->spare_layer_bytes;
    c->spare_bytes = c->spare_layer_bytes = 0;
    c->present = c->kept;
}

static void grow_context(struct plan_resident *r)
{
    struct plan_context *c = &r->context;

    r->fixed_bytes += c->lacking_bytes;
    r->layer_bytes += c->lacking_layer_bytes;
    c->spare_bytes += c->lacking_bytes;
    c->spare_layer_bytes += c->lacking_layer_bytes;
    c->lacking_bytes = c->lacking_layer_bytes = 0;
    c->present = c->wished;
}

/* On its own device. */
static uint64_t spare_bytes(const struct plan_resident *r)
{
    return r->context.spare_bytes + r->context.spare_layer_bytes * (uint64_t)r->layers;
}

void plan_apply(struct plan_ledger *l, const struct plan_move *m)
{
    struct plan_resident *r;

    if (m->resident < 0)
        return;
    r = &l->residents[m->resident];
    /* given back first, taken again as it is afterwards */
    l->devices[r->device].free += plan_resident_bytes(r);
    l->devices[PLAN_RAM].free += plan_resident_ram(r);
    switch (m->kind) {
    case PLAN_TRIM:
        trim_context(r);
        break;
    case PLAN_GROW:
        grow_context(r);
        break;
    case PLAN_LAYERS:
    case PLAN_REGAIN:
        r->layers = m->layers;
        break;
    case PLAN_PARK:
        r->is_parked = true;
        break;
    case PLAN_UNPARK:
        r->is_parked = false;
        r->layers = m->layers;
        break;
    case PLAN_FITS:
    case PLAN_LOW:
    case PLAN_REFUSE:
        break;
    }
    l->devices[r->device].free -= plan_resident_bytes(r);
    l->devices[PLAN_RAM].free -= plan_resident_ram(r);
}

__attribute__((format(printf, 3, 4))) static void
add_move(struct plan *p, const struct plan_move *move, const char *format, ...)
{
    struct plan_move *m = &p->moves[p->count++];
    va_list args;

    *m = *move;
    va_start(args, format);
    vsnprintf(m->reason, sizeof(m->reason), format, args);
    va_end(args);
}

/* ---- the rungs ---- */

struct attempt {
    struct plan_ledger ledger; /* as it is after the moves so far */
    const struct plan_want *want;
    int device;     /* that is looked at: its own, then RAM for the rest of it */
    uint64_t bytes; /* needed there */
    struct plan *plan;
};

static uint64_t missing(const struct attempt *a)
{
    uint64_t room = usable(&a->ledger, a->device);

    return a->bytes > room ? a->bytes - room : 0;
}

/* It is started anew for it, with its context restored. */
static bool may_trim(const struct attempt *a, const struct plan_resident *r)
{
    return r->is_parkable && r->device == a->device && spare_bytes(r) > 0;
}

/* Would RAM take at least one layer? Layers of a model that is in RAM have nowhere to go. It is started anew for it, so it must
 * be one that can be parked. */
static bool may_give_layers(const struct attempt *a, const struct plan_resident *r)
{
    return r->is_parkable && r->device == a->device && r->device != PLAN_RAM &&
           r->layer_bytes > 0 && r->layers > 0 &&
           usable(&a->ledger, PLAN_RAM) >= r->layer_bytes;
}

static bool may_park(const struct attempt *a, const struct plan_resident *r)
{
    return r->is_parkable && r->device == a->device && plan_resident_bytes(r) > 0;
}

/* It lies on a card, and in RAM with what does not. */
static bool may_park_beside(const struct attempt *a, const struct plan_resident *r)
{
    return r->is_parkable && a->device == PLAN_RAM && plan_resident_ram(r) > 0;
}

static void trim(struct attempt *a, int i)
{
    const struct plan_resident *r = &a->ledger.residents[i];
    const struct plan_move m = {.kind = PLAN_TRIM,
                                .resident = i,
                                .device = r->device,
                                .layers = r->layers,
                                .bytes = spare_bytes(r)};

    add_move(
        a->plan, &m,
        "%s gives back %.2f GiB of context cache that nobody uses (%d of %d tokens "
        "stay), because %s needs %.2f GiB on %s and %.2f GiB are free",
        r->name, GIB(m.bytes), r->context.kept, r->context.present, a->want->name,
        GIB(a->bytes), a->ledger.devices[r->device].name,
        GIB(usable(&a->ledger, r->device)));
}

static void give_layers(struct attempt *a, int i)
{
    const struct plan_resident *r = &a->ledger.residents[i];
    uint64_t wanted = (missing(a) + r->layer_bytes - 1) / r->layer_bytes;
    uint64_t take = usable(&a->ledger, PLAN_RAM) / r->layer_bytes;

    take = take < wanted ? take : wanted;
    take = take < (uint64_t)r->layers ? take : (uint64_t)r->layers;
    const struct plan_move m = {.kind = PLAN_LAYERS,
                                .resident = i,
                                .device = r->device,
                                .layers = r->layers - (int)take,
                                .bytes = take * r->layer_bytes};

    add_move(a->plan, &m,
             "%s moves %" PRIu64 " of its %d layers (%.2f GiB) from %s to RAM, because "
             "%s needs %.2f GiB there and %.2f GiB are free",
             r->name, take, r->layers, GIB(m.bytes), a->ledger.devices[r->device].name,
             a->want->name, GIB(a->bytes), GIB(usable(&a->ledger, r->device)));
}

static void park(struct attempt *a, int i)
{
    const struct plan_resident *r = &a->ledger.residents[i];
    const int device = a->device;
    const struct plan_move m = {.kind = PLAN_PARK,
                                .resident = i,
                                .device = device,
                                .layers = r->layers,
                                .bytes = device == r->device ? plan_resident_bytes(r)
                                                             : plan_resident_ram(r)};

    add_move(a->plan, &m,
             "%s is parked and gives back %.2f GiB on %s, because %s needs %.2f GiB "
             "there and %.2f GiB are free",
             r->name, GIB(m.bytes), a->ledger.devices[device].name, a->want->name,
             GIB(a->bytes), GIB(usable(&a->ledger, device)));
}

static const struct rung {
    bool (*may)(const struct attempt *a, const struct plan_resident *r);
    void (*move)(struct attempt *a, int resident);
} rungs[] = {{may_trim, trim},
             {may_give_layers, give_layers},
             {may_park, park},
             {may_park_beside, park}};

/* The least recently used one that this rung can ask; -1: none. */
static int next_to_give(const struct attempt *a, const struct rung *rung)
{
    int best = -1;

    for (int i = 0; i < a->ledger.resident_count; i++) {
        const struct plan_resident *r = &a->ledger.residents[i];

        if (i == a->want->self || r->is_pinned || r->is_parked || !rung->may(a, r))
            continue;
        if (best < 0 || r->used_ms < a->ledger.residents[best].used_ms)
            best = i;
    }
    return best;
}

static void climb(struct attempt *a, int device, uint64_t bytes)
{
    a->device = device;
    a->bytes = bytes;
    for (size_t r = 0; r < sizeof(rungs) / sizeof(rungs[0]); r++) {
        for (int i; missing(a) && (i = next_to_give(a, &rungs[r])) >= 0;) {
            /* each move ends a resident's turn on this rung, so this ends, and the moves have room */
            rungs[r].move(a, i);
            plan_apply(&a->ledger, &a->plan->moves[a->plan->count - 1]);
        }
    }
}

static uint64_t needed(const struct attempt *a, uint64_t bytes, int device)
{
    return device == a->want->device ? bytes : a->want->ram_bytes;
}

/* The device on which there is not enough; -1: none. */
static int lacking(const struct attempt *a, uint64_t bytes)
{
    const struct plan_want *w = a->want;

    if (bytes > usable(&a->ledger, w->device))
        return w->device;
    if (w->device != PLAN_RAM && w->ram_bytes > usable(&a->ledger, PLAN_RAM))
        return PLAN_RAM;
    return -1;
}

/* Who was asked first may turn out to be too small to matter beside the one that was asked last, or is asked for
 * everything in the end. What is not needed is left out, and the rest told anew, with the numbers that are true then. */
static void spare_the_needless(const struct plan_ledger *before, struct attempt *a,
                               uint64_t bytes)
{
    const struct plan all = *a->plan;
    bool spared[PLAN_MOVES_MAX] = {false};

    for (int tried = 0; tried < all.count; tried++) {
        struct attempt without = {.ledger = *before, .want = a->want};

        spared[tried] = true;
        for (int i = 0; i < all.count; i++)
            if (!spared[i])
                plan_apply(&without.ledger, &all.moves[i]);
        spared[tried] = lacking(&without, bytes) < 0;
    }
    a->ledger = *before;
    a->plan->count = 0;
    for (int i = 0; i < all.count; i++) {
        const struct plan_move *m = &all.moves[i];

        a->device = m->device;
        a->bytes = needed(a, bytes, m->device);
        if (spared[i] || !missing(a))
            continue;
        if (m->kind == PLAN_TRIM)
            trim(a, m->resident);
        else if (m->kind == PLAN_LAYERS)
            give_layers(a, m->resident);
        else
            park(a, m->resident);
        plan_apply(&a->ledger, &a->plan->moves[a->plan->count - 1]);
    }
    if (lacking(a, bytes) >= 0)
        *a->plan = all;
}

/* -1: there is room, and the plan has the moves that make it. Else the device on which there is not enough. */
static int try_with(const struct plan_ledger *ledger, const struct plan_want *want,
                    uint64_t bytes, struct plan *ret)
{
    struct attempt a = {.ledger = *ledger, .want = want, .plan = ret};
    int device;

    ret->count = 0;
    climb(&a, want->device, bytes);
    if (want->device != PLAN_RAM)
        climb(&a, PLAN_RAM, want->ram_bytes);
    device = lacking(&a, bytes);
    if (device >= 0)
        ret->count = 0;
    else
        spare_the_needless(ledger, &a, bytes);
    return device;
}

static void refuse(const struct plan_ledger *l, const struct plan_want *w, int device,
                   const char *way_out, struct plan *ret)
{
    const uint64_t bytes = device == w->device ? w->bytes : w->ram_bytes;
    const struct plan_move m = {
        .kind = PLAN_REFUSE, .resident = -1, .device = device, .bytes = bytes};

    char least[64] = "";

    if (w->low_bytes)
        snprintf(least, sizeof(least), ", at least %.2f GiB in pieces",
                 GIB(w->low_bytes));
    ret->count = 0;
    add_move(ret, &m,
             "%s needs %.2f GiB on %s%s; %.2f of %.2f GiB are free and %.2f GiB stay "
             "reserved: %s",
             w->name, GIB(bytes), l->devices[device].name, least,
             GIB(l->devices[device].free), GIB(l->devices[device].total),
             GIB(l->margin_bytes), way_out);
}

void plan_make(const struct plan_ledger *l, const struct plan_want *w, struct plan *ret)
{
    uint64_t bytes = w->bytes;
    enum plan_move_kind last = PLAN_FITS;
    int device;

    memset(ret, 0, sizeof(*ret));
    device = try_with(l, w, bytes, ret);
    if (device >= 0 && w->low_bytes && w->low_bytes < w->bytes) {
        bytes = w->low_bytes;
        last = PLAN_LOW;
        device = try_with(l, w, bytes, ret);
    }
    if (device >= 0) {
        refuse(l, w, device,
               "unload or unpin a model, or ask for less (a shorter context, a "
               "smaller picture or model)",
               ret);
        return;
    }
    if (ret->count && l->policy == PLAN_MANUAL) {
        refuse(l, w, ret->moves[0].device,
               "the memory policy is manual, so nothing gives way by itself; park or "
               "unload a model",
               ret);
        return;
    }
    ret->admits = true;
    ret->needs_leave = ret->count > 0 && l->policy == PLAN_ASK;
    const struct plan_move m = {
        .kind = last, .resident = -1, .device = w->device, .bytes = bytes};

    add_move(ret, &m, "%s %s %.2f GiB on %s", w->name,
             last == PLAN_LOW ? "is drawn in the low-memory mode and takes" : "takes",
             GIB(bytes), l->devices[w->device].name);
}

/* ---- the way back ---- */

static bool is_quiet(const struct plan_ledger *l, uint64_t now_ms)
{
    for (int i = 0; i < l->resident_count; i++)
        if (l->residents[i].used_ms + l->quiet_ms > now_ms)
            return false;
    return true;
}

/* It is started anew in any case, so it comes back with as many layers as there is room for on its device, not with those
 * that it was parked with: these may need RAM which by now somebody else has. */
static bool can_unpark(const struct plan_ledger *l, const struct plan_resident *r,
                       struct plan_resident *ret_back)
{
    struct plan_resident back = *r;
    uint64_t room = usable(l, r->device);

    if (!r->is_parked || room < r->fixed_bytes)
        return false;
    back.is_parked = false;
    back.layers = r->wished_layers;
    if (r->layer_bytes &&
        (room - r->fixed_bytes) / r->layer_bytes < (uint64_t)back.layers)
        back.layers = (int)((room - r->fixed_bytes) / r->layer_bytes);
    *ret_back = back;
    return r->device == PLAN_RAM || plan_resident_ram(&back) <= usable(l, PLAN_RAM);
}

/* How many layers could come back now; 0 when fewer than are worth a restart. */
static int layers_to_regain(const struct plan_ledger *l, const struct plan_resident *r)
{
    int lacking = r->wished_layers - r->layers;
    uint64_t room;

    if (r->is_parked || r->is_pinned || !r->layer_bytes || lacking <= 0)
        return 0;
    room = usable(l, r->device) / r->layer_bytes;
    if (room >= (uint64_t)lacking)
        return lacking;
    return room >= REGAIN_LAYERS_MIN ? (int)room : 0;
}

/* What the rest of its context would take on its device, and in RAM when that is another one. */
static bool can_grow(const struct plan_ledger *l, const struct plan_resident *r)
{
    struct plan_resident whole = *r;

    grow_context(&whole);
    if (r->is_parked || r->is_pinned || r->context.present >= r->context.wished)
        return false;
    return plan_resident_bytes(&whole) - plan_resident_bytes(r) <=
               usable(l, r->device) &&
           plan_resident_ram(&whole) - plan_resident_ram(r) <= usable(l, PLAN_RAM);
}

static bool can_return(const struct plan_ledger *l, const struct plan_resident *r,
                       enum plan_move_kind kind)
{
    struct plan_resident back;

    return kind == PLAN_UNPARK   ? can_unpark(l, r, &back)
           : kind == PLAN_REGAIN ? layers_to_regain(l, r) > 0
                                 : can_grow(l, r);
}

/* The most recently used one that can; -1: none. */
static int next_to_restore(const struct plan_ledger *l, enum plan_move_kind kind)
{
    int best = -1;

    for (int i = 0; i < l->resident_count; i++) {
        const struct plan_resident *r = &l->residents[i];

        if (!can_return(l, r, kind))
            continue;
        if (best < 0 || r->used_ms > l->residents[best].used_ms)
            best = i;
    }
    return best;
}

static void unpark(struct plan_ledger *l, int i, struct plan *ret)
{
    struct plan_resident back;

    if (!can_unpark(l, &l->residents[i], &back))
        return;
    const struct plan_move m = {.kind = PLAN_UNPARK,
                                .resident = i,
                                .device = back.device,
                                .layers = back.layers,
                                .bytes = plan_resident_bytes(&back)};

    add_move(ret, &m, "%s comes back: it needs %.2f GiB on %s and %.2f GiB are free",
             back.name, GIB(m.bytes), l->devices[m.device].name,
             GIB(l->devices[m.device].free));
    plan_apply(l, &m);
}

static void regain(struct plan_ledger *l, int i, struct plan *ret)
{
    const struct plan_resident *r = &l->residents[i];
    int more = layers_to_regain(l, r);
    const struct plan_move m = {.kind = PLAN_REGAIN,
                                .resident = i,
                                .device = r->device,
                                .layers = r->layers + more,
                                .bytes = (uint64_t)more * r->layer_bytes};

    add_move(ret, &m, "%d layers of %s come back to %s: %.2f GiB, %.2f GiB are free",
             more, r->name, l->devices[m.device].name, GIB(m.bytes),
             GIB(l->devices[m.device].free));
    plan_apply(l, &m);
}

void plan_grow(const struct plan_ledger *l, int i, const char *why,
               struct plan_move *ret)
{
    const struct plan_resident *before = &l->residents[i];
    struct plan_resident whole = *before;

    grow_context(&whole);
    *ret = (struct plan_move){.kind = PLAN_GROW,
                              .resident = i,
                              .device = before->device,
                              .layers = before->layers,
                              .bytes = plan_resident_bytes(&whole) -
                                       plan_resident_bytes(before)};
    if (!ret->bytes) { /* all of its layers have left its device */
        ret->device = PLAN_RAM;
        ret->bytes = plan_resident_ram(&whole) - plan_resident_ram(before);
    }
    snprintf(
        ret->reason, sizeof(ret->reason),
        "%s gets its whole context back%s (%d tokens instead of %d): %.2f GiB, %.2f "
        "GiB are free",
        before->name, why, before->context.wished, before->context.present,
        GIB(ret->bytes), GIB(l->devices[ret->device].free));
}

static void grow(struct plan_ledger *l, int i, struct plan *ret)
{
    plan_grow(l, i, "", &ret->moves[ret->count++]);
    plan_apply(l, &ret->moves[ret->count - 1]);
}

void plan_restore(const struct plan_ledger *ledger, uint64_t now_ms, struct plan *ret)
{
    struct plan_ledger l = *ledger;

    memset(ret, 0, sizeof(*ret));
    if (l.policy != PLAN_AUTOMATIC || !is_quiet(&l, now_ms))
        return;
    /* Layers that leave RAM may make the room for one that is parked, so all are asked until nothing moves. A
     * resident is unparked once, and gets layers back once or twice, its context once: the moves have room. */
    while (ret->count < PLAN_MOVES_MAX) {
        int parked = next_to_restore(&l, PLAN_UNPARK);
        int smaller = parked < 0 ? next_to_restore(&l, PLAN_REGAIN) : -1;
        int shorter = parked < 0 && smaller < 0 ? next_to_restore(&l, PLAN_GROW) : -1;

        if (parked >= 0)
            unpark(&l, parked, ret);
        else if (smaller >= 0)
            regain(&l, smaller, ret);
        else if (shorter >= 0)
            grow(&l, shorter, ret);
        else
            break;
    }
}

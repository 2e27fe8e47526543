/* One question about memory, decided on what lies where at this moment; nothing is changed here. What the plan refuses may pass by
 * itself, and a text model that is too large for a card may have a part of its layers there, if there is room in RAM for the others.
 */
#include "server/supervisor/room.h"
#include "server/supervisor/worker.h"

struct plan_want room_want_of(const struct room_ask *ask)
{
    return (struct plan_want){.name = ask->name,
                              .device = ask->device,
                              .self = ask->is_picture ? WORKER_SD
                                      : ask->worker   ? ask->worker->id
                                                      : -1,
                              .bytes = ask->bytes,
                              .ram_bytes = ask->ram_bytes,
                              .low_bytes = ask->low_bytes};
}

int room_on_device(const struct plan_ledger *l, int device, int but)
{
    int count = 0;

    for (int i = 0; i < l->resident_count; i++)
        count += i != but && l->residents[i].device == device &&
                 plan_resident_bytes(&l->residents[i]) > 0;
    return count;
}

/* Refused by the plan, and let through all the same? */
bool room_may_try(const struct room_ask *ask, const struct plan_ledger *l)
{
    uint64_t room = l->devices[ask->device].free;

    if (!ask->worker || l->policy == PLAN_MANUAL)
        return false;
    if (ask->worker->kind == WORKER_SD)
        return true;
    return ask->device == PLAN_RAM && ask->firm_bytes + l->margin_bytes <= room &&
           !room_on_device(l, PLAN_RAM, ask->worker->id);
}

bool room_fits_low(const struct room_ask *ask, const struct plan_ledger *l)
{
    return ask->low_bytes &&
           ask->low_bytes + l->margin_bytes <= l->devices[ask->device].free;
}

/* As many of its layers as the card has room for, when all are too many; true: that is a way. */
bool room_fewer_layers(const struct room_ask *ask, const struct plan_ledger *l,
                       int *ret_layers)
{
    uint64_t free_bytes = l->devices[ask->device].free;
    uint64_t fixed = ask->bytes - ask->layer_bytes * (uint64_t)ask->layers;

    if (ask->device == PLAN_RAM || !ask->layer_bytes ||
        free_bytes < fixed + l->margin_bytes)
        return false;
    *ret_layers = (int)((free_bytes - fixed - l->margin_bytes) / ask->layer_bytes);
    return *ret_layers < ask->layers;
}

/* The others lie in RAM. */
void room_keep_layers(struct room_ask *ask, int layers)
{
    uint64_t bytes = ask->layer_bytes * (uint64_t)(ask->layers - layers);

    ask->bytes -= bytes;
    ask->ram_bytes += bytes;
    ask->layers = layers;
}

static enum verdict verdict_of(const struct room_ask *ask, const struct plan *plan)
{
    if (!plan->admits)
        return REFUSED;
    if (plan->count == 1)
        return FITS;
    return plan->needs_leave && !ask->has_leave ? LEAVE : MOVES;
}

static bool plan_in_part(const struct room_ask *ask, const struct plan_ledger *ledger,
                         int layers, struct plan *way)
{
    struct room_ask part = *ask;

    room_keep_layers(&part, layers);
    const struct plan_want want = room_want_of(&part);

    plan_make(ledger, &want, way);
    return way->admits;
}

/* The plan stays the refusal unless there is a way with fewer layers: with as many as there is room for when others have given way,
 * as they would for a model that fits as a whole. */
static enum verdict decide_in_part(const struct room_ask *ask,
                                   const struct plan_ledger *ledger, struct plan *plan)
{
    struct plan way;

    for (int layers = ask->layers - 1; ask->device != PLAN_RAM && layers >= 0;
         layers--) {
        if (!plan_in_part(ask, ledger, layers, &way))
            continue;
        if (way.count == 1)
            return FITS_IN_PART;
        *plan = way;
        return verdict_of(ask, plan);
    }
    return REFUSED;
}

enum verdict room_decide(const struct supervisor *s, const struct room_ask *ask,
                         struct plan_ledger *ledger, struct plan *plan)
{
    const struct plan_want want = room_want_of(ask);

    ledger_fill(s, ask, ledger);
    if (!ledger->device_count) { /* this machine does not say: let it try */
        plan->count = 0;
        return FITS;
    }
    plan_make(ledger, &want, plan);
    if (plan->admits && plan->moves[plan->count - 1].kind == PLAN_LOW &&
        ledger_is_passing(s, ask))
        return PASSING; /* others are asked first, and these cannot give way just now */
    if (plan->admits)
        return verdict_of(ask, plan);
    return ledger_is_passing(s, ask) ? PASSING : decide_in_part(ask, ledger, plan);
}

/* What lies where, at this moment. The predictions of memory/predict.h and of the picture engine say what each resident
 * takes; the devices say what is free; this file brings the two together without counting anything twice.
 *
 * Free memory is what the machine says is available, less what residents are going to take of it or have of it without
 * the kernel counting it: a model that is still being loaded has not taken its memory yet, and the weights of one
 * that is loaded are pages of a file, which the kernel calls available although the model is slow without them. Both
 * are the same number, what was foreseen less what the process holds as memory of its own. On a simulated device
 * nothing can be observed; there free is the total less everything that was foreseen.
 *
 * A text model lies on a card when it was started with layers there, or with as many as fit and its engine can use the card
 * (listing.c); --simulate-device counts for that. Which of several cards llama-server takes is not known here: the largest is assumed.
 */
#include "base/clock.h"
#include "base/file.h"
#include "server/config/config.h"
#include "server/memory/devices.h"
#include "server/memory/memory.h"
#include "server/supervisor/worker.h"

/* A picture worker that was lost has nothing of its model until it has read it again. */
uint64_t ledger_foreseen(const struct worker *w)
{
    bool has_model = w->loaded || w->state == WORKER_PARKED;

    if (w->kind == WORKER_LLM)
        return w->is_predicted ? w->predicted.total_bytes : 0;
    return (has_model ? w->model_bytes : 0) + w->coming_bytes +
           w->s->room.picture_bytes;
}

static bool takes_memory(const struct worker *w)
{
    return w->process != NULL;
}

/* Will it be over by itself, one way or the other? */
static bool is_under_way(const struct worker *w)
{
    switch (w->state) {
    case WORKER_STARTING:
    case WORKER_LOADING:
    case WORKER_PARKING:
    case WORKER_STOPPING:
        return true;
    case WORKER_STOPPED:
    case WORKER_WAITING:
    case WORKER_READY:
    case WORKER_BUSY:
    case WORKER_PARKED:
    case WORKER_RESTARTING:
    case WORKER_FAILED:
        break;
    }
    return false;
}

const char *ledger_why_it_stays(const struct worker *w, const struct room_ask *ask)
{
    bool is_asked_of_all = ask && (ask->is_picture || ask->is_forced);

    if (w->state == WORKER_PARKED)
        return "it is parked";
    if (!takes_memory(w))
        return "it is not in memory";
    if (worker_target(w)->options.is_pinned)
        return "it is pinned";
    if (is_under_way(w))
        return "it is being loaded, or is about to go";
    if (w->next.known || !w->loaded)
        return "it is about to change";
    if (w->kind == WORKER_SD && w->running)
        return "it draws a picture";
    if (w->kind == WORKER_LLM && w->running && !is_asked_of_all)
        return "it answers requests";
    return w->state == WORKER_READY || w->state == WORKER_BUSY ? NULL : "it failed";
}

bool ledger_is_passing(const struct supervisor *s, const struct room_ask *ask)
{
    for (int id = 0; id < s->worker_count; id++) {
        const struct worker *w = s->workers[id];

        if (w != ask->worker && takes_memory(w) &&
            !worker_target(w)->options.is_pinned &&
            (is_under_way(w) || w->running || w->next.known))
            return true;
    }
    if (s->room.released_ms && clock_ms() - s->room.released_ms < ROOM_SETTLE_MS)
        return true;
    return s->room.picture_bytes > 0 && !ask->is_picture;
}

int ledger_card(const struct plan_ledger *l, int gpu_layers)
{
    int best = PLAN_RAM;

    for (int i = 1; i < l->device_count; i++)
        if ((gpu_layers > 0 || (gpu_layers < 0 && l->devices[i].is_usable)) &&
            (best == PLAN_RAM || l->devices[i].total > l->devices[best].total))
            best = i;
    return best;
}

bool ledger_is_for_card(const struct supervisor *s, int gpu_layers)
{
    struct plan_ledger l;

    l.device_count = devices_look(s->devices, "", l.devices);
    return ledger_card(&l, gpu_layers) != PLAN_RAM;
}

/* How its bytes are divided between a card and the memory: as it was started, whatever is asked for next. */
static void split(const struct worker *w, struct plan_resident *r)
{
    const struct prediction *p = &w->predicted;
    int all = (int)p->layers, wished = w->wished_layers;

    r->wished_layers = wished < 0 || wished > all ? all : wished;
    r->layers = w->present.gpu_layers;
    if (r->layers < 0 || r->layers > r->wished_layers)
        r->layers = r->wished_layers;
    r->layer_bytes = p->layer_bytes;
    r->fixed_bytes = p->compute_bytes;
    r->ram_bytes =
        p->total_bytes - p->compute_bytes - p->layer_bytes * (uint64_t)r->wished_layers;
}

/* The cache of a model on a card lies with its layers. */
static void fill_context(const struct worker *w, struct plan_resident *r)
{
    const struct prediction *p = &w->predicted;
    int present = w->present.context, kept = trim_kept(w);
    uint64_t spare = predict_spare(p, present, kept), lacking = 0;

    if (present <= 0)
        return;
    if (w->wished_context > present)
        lacking = p->cache_bytes / (uint64_t)present *
                  (uint64_t)(w->wished_context - present);
    r->context = (struct plan_context){
        .wished = w->wished_context, .present = present, .kept = kept};
    if (r->device == PLAN_RAM) {
        r->context.spare_bytes = spare;
        r->context.lacking_bytes = lacking;
    } else {
        r->context.spare_layer_bytes = spare / p->layers;
        r->context.lacking_layer_bytes = lacking / p->layers;
    }
}

static void fill_resident(const struct worker *w, const struct room_ask *ask,
                          struct plan_ledger *l)
{
    struct plan_resident *r = &l->residents[w->id];
    const struct wish *target = worker_target(w);
    uint64_t now = clock_ms();

    snprintf(r->name, sizeof(r->name), "%.63s",
             target->path ? file_name(target->path) : w->name);
    r->used_ms = w->running || is_under_way(w) ? now : w->used_ms;
    if (ask && ask->keeps_default && w->id == w->s->default_text)
        r->used_ms = now; /* who names no model did not ask for a change */
    r->is_pinned = target->options.is_pinned;
    r->is_parked = w->state == WORKER_PARKED && w->gave_way;
    r->is_parkable = !ledger_why_it_stays(w, ask);
    if (!takes_memory(w) && !r->is_parked)
        return;
    r->fixed_bytes = ledger_foreseen(w);
    if (w->kind != WORKER_LLM || !w->is_predicted)
        return;
    if (w->predicted.layers) {
        /* where it was meant to be: with no layer left there it still is, or they would not come back */
        r->device = ledger_card(l, w->wished_layers);
        if (r->device != PLAN_RAM)
            split(w, r);
    }
    fill_context(w, r);
}

/* Where nobody says what a process has on a card, it has all of it once it is ready. */
static uint64_t still_to_come_on_card(const struct worker *w, uint64_t foreseen)
{
    uint64_t has;

    if (!devices_of_process(w->s->devices, "", w->pid, &has))
        return w->ready_ms ? 0 : foreseen;
    return foreseen > has ? foreseen - has : 0;
}

/* What the device does not know of yet. */
static uint64_t still_to_come(const struct worker *w, const struct plan_ledger *l,
                              int device)
{
    const struct plan_resident *r = &l->residents[w->id];
    uint64_t foreseen = r->device == device  ? plan_resident_bytes(r)
                        : device == PLAN_RAM ? plan_resident_ram(r)
                                             : 0;
    struct memory_use use = {0};

    if (!l->devices[device].is_observed || !foreseen)
        return foreseen;
    if (device != PLAN_RAM)
        return still_to_come_on_card(w, foreseen);
    (void)memory_use_of_process("", w->pid, &use);
    return foreseen > use.anonymous + use.swapped
               ? foreseen - use.anonymous - use.swapped
               : 0;
}

static enum plan_policy policy_of(const char *word)
{
    return !strcmp(word, "manual") ? PLAN_MANUAL
           : !strcmp(word, "ask")  ? PLAN_ASK
                                   : PLAN_AUTOMATIC;
}

void ledger_fill(const struct supervisor *s, const struct room_ask *ask,
                 struct plan_ledger *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->device_count = devices_look(s->devices, "", ret->devices);
    ret->resident_count = s->worker_count;
    ret->margin_bytes = (uint64_t)s->config->memory_margin;
    ret->quiet_ms = (uint64_t)s->config->memory_quiet_s * 1000;
    ret->policy = policy_of(s->config->memory_policy);
    for (int id = 0; id < s->worker_count; id++)
        fill_resident(s->workers[id], ask, ret);
    for (int id = 0; id < s->worker_count; id++) {
        const struct worker *w = s->workers[id];

        for (int d = 0; d < ret->device_count && takes_memory(w); d++) {
            uint64_t more = still_to_come(w, ret, d);
            struct plan_device *device = &ret->devices[d];

            device->free = device->free > more ? device->free - more : 0;
        }
    }
}

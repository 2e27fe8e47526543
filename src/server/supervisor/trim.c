/* A text model with less of its context, while the memory is needed elsewhere.
 *
 *   idle: how much of the cache is used? -> the ladder asks for the rest -> saved, started anew with fewer tokens, restored
 *
 * llama-server allocates the cache of the whole context when it starts and gives nothing of it back, so the process is
 * started anew, as for fewer layers; what the conversations hold is saved before and restored after that, and until
 * then new requests wait. The model goes on answering beside the picture, which parking does not give.
 *
 * What is used is llama-server's own number (GET /slots, n_prompt_tokens), asked for beside the health checks when the model
 * has worked since, not after each answer: that would double the requests of a client that asks one after the other. What
 * runs while it is trimmed may make it more, so the number is looked at once more when the context is in its files.
 * RESERVE tokens stay beside it: a turn or two. A request that may need more waits until its model has its whole
 * context again (supervisor_has_context); only when that cannot be had it goes to the short one, and
 * llama-server says what does not fit.
 *
 * Not where the context cannot be saved (park.c says where): it would be lost for the sake of a trade that is told as harmless.
 *
 * Rejected: to trim to what is used and to grow with each turn. Every turn would start the process anew. */
#include "base/clock.h"
#include "base/file.h"
#include "server/config/config.h"
#include "server/memory/devices.h"
#include "server/supervisor/worker.h"

#define RESERVE 2048 /* tokens */
#define STEP 256     /* llama.cpp rounds a slot's context up to it */
#define ASK_MS 5000

static int rounded(int64_t tokens)
{
    return (int)((tokens + STEP - 1) / STEP * STEP);
}

int trim_kept(const struct worker *w)
{
    int kept = rounded((int64_t)w->used_tokens + RESERVE);

    /* less than half of it is not worth a start */
    return w->keeps_context && kept <= w->present.context / 2 ? kept
                                                              : w->present.context;
}

/* ---- how much is used ---- */

/* What llama-server says of a slot: n_prompt_tokens once it has answered a request; before that only we know whether
 * something was restored into it. */
static int64_t tokens_of(const struct worker *w, const json_t *slot)
{
    const json_t *said = json_object_get(slot, "n_prompt_tokens");
    json_int_t id = json_integer_value(json_object_get(slot, "id"));

    if (said)
        return json_integer_value(said);
    for (int i = 0; i < w->kv.count; i++)
        if (w->kv.slots[i].slot == id && w->kv_step == KV_RESTORED)
            return w->kv.slots[i].tokens;
    return 0;
}

static void on_slots(void *user, const struct err *err, int status, const char *body,
                     size_t len)
{
    struct worker *w = user;
    json_t *slots = err || status != 200 ? NULL : json_loadb(body, len, 0, NULL), *slot;
    int64_t most = 0;
    size_t i;

    w->slots_call = NULL;
    json_array_foreach(slots, i, slot)
    {
        int64_t tokens = tokens_of(w, slot);

        most = tokens > most ? tokens : most;
    }
    if (json_is_array(slots) && most <= w->present.context)
        w->used_tokens = (int)most;
    json_decref(slots);
}

static bool could_be_shorter(const struct worker *w)
{
    return w->keeps_context && rounded(RESERVE) <= w->present.context / 2;
}

void trim_ask(struct worker *w)
{
    struct http_fetch_options o = {
        .host = "127.0.0.1",
        .port = w->port,
        .method = "GET",
        .target = "/slots",
        .bearer = w->token,
        .timeout_ms = ASK_MS,
    };

    if (!could_be_shorter(w) || w->slots_call)
        return;
    w->slots_ms = clock_ms();
    w->slots_call = http_fetch_start(w->s->client, &o, on_slots, w);
}

void trim_look(struct worker *w)
{
    if (w->state == WORKER_READY && w->used_ms >= w->slots_ms)
        trim_ask(w);
}

void trim_process_gone(struct worker *w)
{
    if (w->slots_call)
        http_fetch_cancel(w->slots_call);
    w->slots_call = NULL;
    w->used_tokens = 0;
}

void trim_saved(struct worker *w)
{
    int64_t most = 0;

    if (!w->granted_context || w->granted_context >= w->present.context)
        return; /* it is not saved to become shorter */
    for (int i = 0; i < w->kv.count; i++)
        most = w->kv.slots[i].tokens > most ? w->kv.slots[i].tokens : most;
    if (most + RESERVE / 2 > w->granted_context)
        w->granted_context = rounded(most + RESERVE);
    if (w->granted_context >= w->wished_context)
        w->granted_context = 0;
}

/* ---- a request that needs more ---- */

/* What it asks the ladder for: the rest of its context, beside what it has. */
static void plan_growth(struct worker *w, const struct room_ask *ask,
                        struct plan_ledger *ledger, struct plan *ret)
{
    const struct plan_resident *r;

    ledger_fill(w->s, ask, ledger);
    r = &ledger->residents[w->id];
    const struct plan_want want = {
        .name = r->name,
        .device = r->device,
        .self = w->id,
        .bytes = r->context.lacking_bytes +
                 r->context.lacking_layer_bytes * (uint64_t)r->layers,
        .ram_bytes =
            r->context.lacking_layer_bytes * (uint64_t)(r->wished_layers - r->layers)};

    plan_make(ledger, &want, ret);
}

bool supervisor_is_short(const struct supervisor *s, int id)
{
    return s->workers[id]->present.context < s->workers[id]->wished_context;
}

bool supervisor_has_context(struct supervisor *s, int id, int64_t tokens)
{
    struct worker *w = s->workers[id];
    const struct room_ask ask = {.worker = w};
    struct plan_ledger ledger;
    struct plan plan;

    if (!supervisor_is_short(s, id) || tokens <= w->present.context)
        return true;
    if (s->room.moving || room_is_wanted(s, w))
        return false; /* looked at again when that is over */
    plan_growth(w, &ask, &ledger, &plan);
    if (!plan.admits)
        return !ledger_is_passing(s, &ask) && !s->room.picture_bytes;
    if (plan.count > 1 && ledger.policy != PLAN_AUTOMATIC)
        return true; /* nobody is asked to leave for what is only longer */
    room_grow(w, &ledger);
    return false;
}

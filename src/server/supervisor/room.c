/* The ladder of memory/plan.h, carried out.
 *
 * Who asks is answered at once when it fits, or when nothing could make it fit. Else it stands in a list. One decision is
 * carried out at a time, and what follows is decided on what is then observed to be free: a process that ends may leave less
 * than was foreseen, and a second plan made meanwhile would count the same bytes again. So the list is gone
 * through from the oldest, whenever a worker changed and twice a second, until one of them has to wait. Nobody passes: two
 * models that are wanted in turn would else take each other's place for ever, each with the memory that was freed for the other.
 *
 * Refused for now is not refused: while something is being loaded, works or is about to go, the answer may be another one in
 * a moment, so those who ask wait; and for seconds after a process ended, because what it had is not counted as free at once. A picture waits as long as that lasts; a model at most two minutes.
 *
 * A text model alone in memory, whose weights do not fit but whose cache and buffers do, is let through with a warning: its
 * weights are pages of its file, which the kernel reads again when it needs them. Slow, but people do run models that are
 * larger than their memory, and know it. A picture model that is refused is let through too: before it was loaded
 * once its size is not known well, and its worker looks for itself.
 *
 * What gave way comes back when all was quiet for --memory-quiet and there is room (plan_restore), or when a request
 * wants it (supervisor_summon).
 *
 * Rejected: to keep the moves of a refused plan as far as they were possible. Somebody would have given way for nothing.
 */
#include "server/supervisor/room.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/config/config.h"
#include "server/memory/devices.h"
#include "server/models/peek.h"
#include "server/supervisor/worker.h"

#include <inttypes.h>
#include <time.h>

#define LOOK_MS 500
#define MODEL_WAIT_MS 120000
#define GIB(bytes) ((double)(bytes) / (1024.0 * 1024 * 1024))

/* ---- when it is looked at ---- */

static void on_timer(uv_timer_t *timer);

void room_watch(struct supervisor *s)
{
    if (!uv_is_active((uv_handle_t *)&s->room.timer))
        uv_timer_start(&s->room.timer, on_timer, LOOK_MS, LOOK_MS);
}

/* ---- telling ---- */

static void tell(struct supervisor *s, const struct plan_ledger *l,
                 const struct plan_move *m, const char *who)
{
    struct room *room = &s->room;
    struct supervisor_move *told = &room->moves[room->move_count % ROOM_MOVES_KEPT];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    *told = (struct supervisor_move){.number = ++room->move_count,
                                     .time_ms = now.tv_sec * INT64_C(1000) +
                                                now.tv_nsec / 1000000,
                                     .kind = plan_move_name(m->kind),
                                     .worker = m->resident,
                                     .layers = m->layers,
                                     .bytes = m->bytes};
    snprintf(told->resident, sizeof(told->resident), "%.63s",
             m->resident >= 0 ? l->residents[m->resident].name : who);
    snprintf(told->device, sizeof(told->device), "%s", l->devices[m->device].name);
    snprintf(told->reason, sizeof(told->reason), "%s", m->reason);
    log_info(s->log, "[Memory] %s", m->reason);
    if (room->moved)
        room->moved(room->moved_data, told);
}

/* ---- answers ---- */

static void set_refusal(const struct plan *plan, struct err *err)
{
    err_set(err, ERR_NO_MEMORY, "%s",
            plan->count ? plan->moves[plan->count - 1].reason : "there is no memory");
}

static void grant(struct supervisor *s, const struct room_ask *ask)
{
    struct worker *w = ask->worker;

    if (!w)
        s->room.picture_bytes = ask->bytes;
    else if (w->kind == WORKER_SD)
        w->coming_bytes = ask->bytes;
}

static void grant_in_part(struct supervisor *s, const struct room_ask *ask,
                          const struct plan_ledger *l)
{
    struct plan_move m = {.kind = PLAN_LAYERS, .resident = -1, .device = ask->device};

    (void)room_fewer_layers(ask, l, &m.layers); /* so it was decided */
    if (ask->worker)
        ask->worker->granted_layers = m.layers;
    m.bytes = ask->bytes - (uint64_t)(ask->layers - m.layers) * ask->layer_bytes;
    snprintf(m.reason, sizeof(m.reason),
             "%s gets %d of its %d layers on %s: %.2f GiB are free there, and all "
             "would take %.2f GiB",
             ask->name, m.layers, ask->layers, l->devices[ask->device].name,
             GIB(l->devices[ask->device].free), GIB(ask->bytes));
    tell(s, l, &m, ask->name);
    room_watch(s);
}

/* A picture in pieces: as much as is free, for the fewer pieces the better. */
static void grant_low(struct supervisor *s, struct room_ask *ask,
                      const struct plan_ledger *l)
{
    uint64_t kept = l->margin_bytes, room = l->devices[ask->device].free;
    struct plan_move m = {.kind = PLAN_LOW, .resident = -1, .device = ask->device};

    m.bytes = room > kept + ask->low_bytes ? room - kept : ask->low_bytes;
    snprintf(
        m.reason, sizeof(m.reason),
        "%s is drawn in pieces: it would take %.2f GiB on %s at once, and %.2f GiB "
        "are free for it",
        ask->name, GIB(ask->bytes), l->devices[ask->device].name, GIB(m.bytes));
    ask->bytes = m.bytes;
    tell(s, l, &m, ask->name);
}

/* Refused, and let through all the same? */
static bool grant_all_the_same(struct supervisor *s, const struct room_ask *ask,
                               const struct plan_ledger *l, const struct plan *plan)
{
    if (!room_may_try(ask, l))
        return false;
    if (ask->worker->kind == WORKER_LLM)
        log_warning(s->log,
                    "[Memory] %s, and is started all the same: parts of its file will "
                    "be read again and again",
                    plan->moves[plan->count - 1].reason);
    return true;
}

/* ---- moves ---- */

static void on_moved(void *data, const struct err *err)
{
    struct supervisor *s = data;

    s->room.moving--;
    if (err)
        log_info(s->log, "[Memory] %s", err->message);
    supervisor_wake(s);
}

/* It was not started anew: it stays as it is, and gets the rest later. One that lost its process or is about to have another
 * model starts with everything. */
static void keep_what_it_has(struct worker *w)
{
    const struct worker_load_options *present = &w->present;
    bool stays = w->loaded != NULL;

    w->gave_way = false;
    w->granted_layers =
        stays && present->gpu_layers != w->wished_layers ? present->gpu_layers : -1;
    w->granted_context =
        stays && present->context < w->wished_context ? present->context : 0;
}

/* Its process starts anew with other layers or another context: what it has is saved and restored. */
static void on_split(void *data, const struct err *err)
{
    struct worker *w = data;

    if (!err && w->state == WORKER_PARKED)
        worker_event(w, EV_START);
    else if (err)
        keep_what_it_has(w);
    on_moved(w->s, err);
}

static int start_anew(struct worker *w, const char *reason, struct err *err)
{
    const struct supervisor_park park = {
        .reason = reason, .until = PARK_UNTIL_WANTED, .done = on_split, .data = w};

    if (supervisor_park(w->s, w->id, &park, err))
        return -1;
    w->s->room.moving++;
    /* a server that is killed meanwhile finds that in its record, and brings it back */
    w->gave_way = true;
    return 0;
}

static int park_for(struct worker *w, const char *reason, struct err *err)
{
    const struct supervisor_park park = {
        .reason = reason, .until = PARK_UNTIL_WANTED, .done = on_moved, .data = w->s};

    if (supervisor_park(w->s, w->id, &park, err))
        return -1;
    w->s->room.moving++;
    w->gave_way = true;
    return 0;
}

/* Less of it in memory, or nothing: a start anew serves all moves of one resident. */
static void carry_out(struct supervisor *s, const struct plan_ledger *l,
                      const struct plan_move *m, const struct room_ask *ask,
                      bool is_started_anew)
{
    struct worker *w = s->workers[m->resident];
    char reason[160];
    struct err err = {0};

    snprintf(reason, sizeof(reason), "%.60s needs %.2f GiB", ask->name,
             GIB(ask->bytes));
    if (!is_started_anew && (m->kind == PLAN_PARK ? park_for(w, reason, &err)
                                                  : start_anew(w, reason, &err))) {
        log_warning(s->log, "[Memory] %s", err.message); /* the timer looks again */
        return;
    }
    tell(s, l, m, ask->name);
    if (m->kind == PLAN_LAYERS)
        w->granted_layers = m->layers;
    else if (m->kind == PLAN_TRIM)
        w->granted_context = l->residents[m->resident].context.kept;
}

static bool was_asked_before(const struct plan *plan, int at)
{
    for (int i = 0; i < at; i++)
        if (plan->moves[i].resident == plan->moves[at].resident)
            return true;
    return false;
}

static void carry_out_all(struct supervisor *s, const struct plan_ledger *l,
                          const struct plan *plan, const struct room_ask *ask)
{
    for (int i = 0; i < plan->count; i++)
        if (plan->moves[i].resident >= 0)
            carry_out(s, l, &plan->moves[i], ask,
                      plan->moves[i].kind != PLAN_PARK && was_asked_before(plan, i));
}

/* ---- the list ---- */

static struct room_ask **place_of(struct supervisor *s, const struct worker *w)
{
    struct room_ask **at = &s->room.asks;

    while (*at && (*at)->worker != w)
        at = &(*at)->next;
    return at;
}

static void take_out(struct supervisor *s, const struct worker *w)
{
    struct room_ask **at = place_of(s, w), *ask = *at;

    if (!ask)
        return;
    *at = ask->next;
    free(ask);
}

static void put_in(struct supervisor *s, const struct room_ask *ask)
{
    struct room_ask **end = &s->room.asks, *kept = mem_alloc(sizeof(*kept));

    while (*end)
        end = &(*end)->next;
    *kept = *ask;
    kept->id = ++s->room.last_id;
    kept->since_ms = clock_ms();
    kept->next = NULL;
    *end = kept;
    room_watch(s);
    supervisor_wake(s);
}

/* Takes it out of the list and answers. */
static void answer(struct supervisor *s, struct room_ask *ask, const struct err *err)
{
    struct worker *w = ask->worker;
    supervisor_done_fn *done = ask->done;
    void *data = ask->data;

    if (!err)
        grant(s, ask);
    take_out(s, w);
    if (w && err)
        w->room_error = *err;
    if (w)
        worker_event(w, err ? EV_NO_ROOM : EV_ROOM);
    else
        done(data, err);
}

static void ask_for_leave(struct supervisor *s, struct room_ask *ask,
                          const struct plan_ledger *l, const struct plan *plan)
{
    ask->plan = *plan;
    if (ask->waits_for_leave)
        return;
    ask->waits_for_leave = true;
    for (int i = 0; i + 1 < plan->count; i++) {
        struct plan_move m = plan->moves[i];

        snprintf(m.reason, sizeof(m.reason), "Leave is asked for (%d): %.270s", ask->id,
                 plan->moves[i].reason);
        tell(s, l, &m, ask->name);
    }
}

static bool waited_long_enough(const struct room_ask *ask)
{
    return ask->worker && clock_ms() - ask->since_ms >= MODEL_WAIT_MS;
}

/* true: it is out of the list */
static bool look_at(struct supervisor *s, struct room_ask *ask)
{
    struct plan_ledger ledger;
    struct plan plan;
    struct err err = {0};

    switch (room_decide(s, ask, &ledger, &plan)) {
    case FITS_IN_PART:
        grant_in_part(s, ask, &ledger);
        answer(s, ask, NULL);
        return true;
    case FITS:
        if (plan.count && plan.moves[0].kind == PLAN_LOW)
            grant_low(s, ask, &ledger);
        answer(s, ask, NULL);
        return true;
    case MOVES: /* those that were asked before may not have ended their work in time */
        if (!waited_long_enough(ask)) {
            carry_out_all(s, &ledger, &plan, ask);
            return false;
        }
        err_set(&err, ERR_CONFLICT,
                "%s waited for memory for %d s, and what should give way works: wait, "
                "or unload it",
                ask->name, MODEL_WAIT_MS / 1000);
        answer(s, ask, &err);
        return true;
    case LEAVE:
        ask_for_leave(s, ask, &ledger, &plan);
        return false;
    case PASSING:
        if (!waited_long_enough(ask))
            return false;
        break;
    case REFUSED:
        break;
    }
    if (grant_all_the_same(s, ask, &ledger, &plan)) {
        answer(s, ask, NULL);
        return true;
    }
    set_refusal(&plan, &err);
    answer(s, ask, &err);
    return true;
}

/* ---- the way back ---- */

static bool anybody_gave_way(const struct supervisor *s)
{
    for (int id = 0; id < s->worker_count; id++)
        if ((s->workers[id]->gave_way && s->workers[id]->state == WORKER_PARKED) ||
            s->workers[id]->granted_layers >= 0 || s->workers[id]->granted_context)
            return true;
    return false;
}

static void bring_back(struct supervisor *s)
{
    struct plan_ledger ledger;
    struct plan plan;
    const struct plan_move *m = plan.moves;
    struct worker *w;

    ledger_fill(s, NULL, &ledger);
    plan_restore(&ledger, clock_ms(), &plan);
    if (!plan.count)
        return;
    /* the first one; the others are looked at when it is there */
    w = s->workers[m->resident];
    if (m->kind == PLAN_UNPARK)
        worker_event(w, EV_START);
    else if (start_anew(w,
                        m->kind == PLAN_GROW ? "its context comes back"
                                             : "its layers come back",
                        NULL))
        return; /* at the next look */
    if (m->kind == PLAN_REGAIN)
        w->granted_layers = -1;
    else if (m->kind == PLAN_GROW)
        w->granted_context = 0;
    tell(s, &ledger, m, w->name);
}

void room_grow(struct worker *w, const struct plan_ledger *l)
{
    struct plan_move m;

    if (start_anew(w, "its context comes back", NULL))
        return;
    w->granted_context = 0;
    plan_grow(l, w->id, ", because a request may need it", &m);
    tell(w->s, l, &m, w->name);
}

void room_look(struct supervisor *s)
{
    struct room_ask *ask = s->shutting_down ? NULL : s->room.asks;

    while (ask && !s->room.moving) {
        if (look_at(s, ask))
            ask = s->room.asks;
        else if (ask->waits_for_leave)
            ask = ask->next;
        else
            return; /* whoever comes later would take what this one waits for */
    }
}

/* A little longer than ledger_is_passing() waits, so that its end is seen, too. */
static bool is_settling(const struct supervisor *s)
{
    return s->room.released_ms &&
           clock_ms() - s->room.released_ms < ROOM_SETTLE_MS + 2 * LOOK_MS;
}

static void on_timer(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;

    room_look(s);
    if (is_settling(s)) /* those who were told "not yet" look again */
        supervisor_changed(s->workers[s->default_text]);
    if (s->room.asks || s->room.moving || is_settling(s))
        return;
    if (anybody_gave_way(s) && !s->shutting_down)
        bring_back(s);
    else
        uv_timer_stop(timer);
}

/* ---- asking ---- */

static void ask_for(const struct supervisor *s, const char *path, int gpu_layers,
                    const struct prediction *p, struct room_ask *ret)
{
    struct plan_ledger ledger;

    ledger_fill(s, NULL, &ledger);
    *ret = (struct room_ask){.bytes = p->total_bytes,
                             .firm_bytes = p->cache_bytes + p->compute_bytes};
    snprintf(ret->name, sizeof(ret->name), "%.63s", file_name(path));
    ret->device = ledger_card(&ledger, gpu_layers);
    if (ret->device == PLAN_RAM || !p->layers)
        return;
    ret->layers =
        gpu_layers < 0 || gpu_layers > (int)p->layers ? (int)p->layers : gpu_layers;
    ret->layer_bytes = p->layer_bytes;
    ret->bytes = p->compute_bytes + p->layer_bytes * (uint64_t)ret->layers;
    ret->ram_bytes = p->total_bytes - ret->bytes;
}

static struct worker_load_options present_for(const struct supervisor *s,
                                              const char *path,
                                              const struct worker_load_options *options)
{
    struct worker_load_options present;
    struct wish target = {0};

    wish_set(&target, path, options);
    present = launch_options(s->config, &target);
    wish_release(&target);
    return present;
}

int room_ask_of(const struct supervisor *s, const char *path,
                const struct worker_load_options *options, struct room_ask *ret,
                struct err *err)
{
    struct prediction p;

    if (supervisor_predict(s, path, options, &p, err))
        return -1;
    ask_for(s, path, present_for(s, path, options).gpu_layers, &p, ret);
    return 0;
}

static int ask_of_text(struct worker *w, struct room_ask *ret, struct err *err)
{
    const struct wish *target = worker_target(w);
    struct worker_load_options present;

    w->is_predicted =
        !supervisor_predict(w->s, target->path, &target->options, &w->predicted, err);
    if (!w->is_predicted)
        return -1;
    present = present_for(w->s, target->path, &target->options);
    if (w->granted_context)
        predict_shorten(&w->predicted, present.context, w->granted_context);
    ask_for(w->s, target->path, present.gpu_layers, &w->predicted, ret);
    w->is_on_card = ret->device != PLAN_RAM;
    if (w->granted_layers >= 0 && w->granted_layers < ret->layers)
        room_keep_layers(ret, w->granted_layers);
    return 0;
}

int room_ask_of_worker(struct worker *w, struct room_ask *ret, struct err *err)
{
    const struct wish *target = worker_target(w);
    struct model_peek peek;

    if (w->kind == WORKER_LLM) {
        if (ask_of_text(w, ret, err))
            return -1;
    } else {
        if (model_peek(target->path, &peek, err))
            return -1;
        *ret = (struct room_ask){.bytes = learn_picture_model(w->s, target->path)};
        if (!ret->bytes)
            ret->bytes = peek.size_bytes;
        snprintf(ret->name, sizeof(ret->name), "%.63s", file_name(target->path));
    }
    ret->worker = w;
    ret->is_forced = w->is_forced;
    ret->keeps_default = w->kind == WORKER_LLM && !w->becomes_default;
    return 0;
}

enum room_answer room_for_worker(struct worker *w, struct err *err)
{
    struct supervisor *s = w->s;
    struct plan_ledger ledger;
    struct room_ask ask;
    struct plan plan;

    w->gave_way = false;
    take_out(s, w);
    if (room_ask_of_worker(w, &ask, err))
        return ROOM_REFUSED;
    if (!s->room.moving && !room_is_wanted(s, w)) {
        switch (room_decide(s, &ask, &ledger, &plan)) {
        case FITS_IN_PART:
            grant_in_part(s, &ask, &ledger);
            return ROOM_GRANTED;
        case FITS:
            grant(s, &ask);
            return ROOM_GRANTED;
        case REFUSED:
            if (grant_all_the_same(s, &ask, &ledger, &plan)) {
                grant(s, &ask);
                return ROOM_GRANTED;
            }
            set_refusal(&plan, err);
            return ROOM_REFUSED;
        case MOVES:
        case LEAVE:
        case PASSING:
            break;
        }
    }
    put_in(s, &ask);
    return ROOM_COMING;
}

bool room_is_wanted(const struct supervisor *s, const struct worker *but)
{
    for (const struct room_ask *a = s->room.asks; a; a = a->next)
        if ((a->is_picture || a->worker != but) && !a->waits_for_leave)
            return true;
    return false;
}

bool supervisor_waits_for_memory(const struct supervisor *s, int id)
{
    const struct worker *w = s->workers[id];

    for (const struct room_ask *a = s->room.asks; a; a = a->next)
        if (a->worker == w && a->waits_for_leave)
            return false;
    return !s->room.picture_bytes &&
           (w->state == WORKER_WAITING ||
            (w->state == WORKER_PARKED && w->park_until == PARK_UNTIL_WANTED));
}

void room_released(struct worker *w)
{
    if (devices_simulate_memory(w->s->devices) || w->s->shutting_down)
        return; /* what is not observed does not lag */
    w->s->room.released_ms = clock_ms();
    room_watch(w->s);
}

void room_forget(struct worker *w)
{
    take_out(w->s, w);
}

int room_would_admit(struct supervisor *s, const struct room_ask *ask, struct err *err)
{
    struct plan_ledger ledger;
    struct plan plan;

    switch (room_decide(s, ask, &ledger, &plan)) {
    case FITS:
    case FITS_IN_PART:
    case MOVES:
    case LEAVE:
        return 0;
    case PASSING:
        return err_set(err, ERR_CONFLICT,
                       "%s does not fit beside the models that are resident, and they "
                       "are busy: wait, or load it with force",
                       ask->name);
    case REFUSED:
        break;
    }
    if (!room_on_device(&ledger, ask->device, -1) &&
        ask->firm_bytes + ledger.margin_bytes <= ledger.devices[ask->device].free)
        return 0;
    set_refusal(&plan, err);
    return -1;
}

/* ---- pictures ---- */

void supervisor_picture_room(struct supervisor *s, uint64_t bytes, uint64_t low_bytes,
                             supervisor_done_fn *done, void *data)
{
    struct room_ask ask = {.is_picture = true,
                           .bytes = bytes,
                           .low_bytes = low_bytes < bytes ? low_bytes : 0,
                           .done = done,
                           .data = data};

    snprintf(ask.name, sizeof(ask.name), "the picture");
    put_in(s, &ask); /* answered from the loop, in any case */
}

uint64_t supervisor_picture_bytes(const struct supervisor *s)
{
    return s->room.picture_bytes;
}

bool supervisor_picture_fits(const struct supervisor *s, uint64_t bytes)
{
    struct plan_ledger ledger;
    struct plan plan;

    if (s->room.asks || s->room.moving) /* who comes first may take it */
        return false;
    supervisor_would_draw(s, bytes, &ledger, &plan);
    return !ledger.device_count || (plan.admits && plan.count == 1);
}

void supervisor_picture_over(struct supervisor *s)
{
    take_out(s, NULL);
    s->room.picture_bytes = 0;
    supervisor_wake(s);
}

/* ---- questions ---- */

void supervisor_ledger(const struct supervisor *s, struct plan_ledger *ret)
{
    ledger_fill(s, NULL, ret);
}

const char *supervisor_why_it_stays(const struct supervisor *s, int id)
{
    return ledger_why_it_stays(s->workers[id], NULL);
}

int supervisor_would_load(const struct supervisor *s, const char *path,
                          const struct worker_load_options *options,
                          struct plan_ledger *ret_ledger, struct plan *ret,
                          struct err *err)
{
    int id = supervisor_text_with(s, path);
    struct room_ask ask;

    if (room_ask_of(s, path, options, &ask, err))
        return -1;
    ask.worker = id >= 0 ? s->workers[id] : NULL;
    const struct plan_want want = room_want_of(&ask);

    ledger_fill(s, &ask, ret_ledger);
    plan_make(ret_ledger, &want, ret);
    return 0;
}

void supervisor_would_draw(const struct supervisor *s, uint64_t bytes,
                           struct plan_ledger *ret_ledger, struct plan *ret)
{
    const struct room_ask ask = {
        .is_picture = true, .name = "the picture", .bytes = bytes};
    const struct plan_want want = room_want_of(&ask);

    ledger_fill(s, &ask, ret_ledger);
    plan_make(ret_ledger, &want, ret);
}

int supervisor_moves(const struct supervisor *s, struct supervisor_move *ret, int max)
{
    uint64_t kept =
        s->room.move_count < ROOM_MOVES_KEPT ? s->room.move_count : ROOM_MOVES_KEPT;
    int count = kept < (uint64_t)max ? (int)kept : max;

    for (int i = 0; i < count; i++)
        ret[i] =
            s->room
                .moves[(s->room.move_count - (uint64_t)(count - i)) % ROOM_MOVES_KEPT];
    return count;
}

void supervisor_on_move(struct supervisor *s, supervisor_moved_fn *moved, void *data)
{
    s->room.moved = moved;
    s->room.moved_data = data;
}

int supervisor_questions(const struct supervisor *s, struct supervisor_question *ret,
                         int max)
{
    int count = 0;

    for (const struct room_ask *a = s->room.asks; a && count < max; a = a->next)
        if (a->waits_for_leave)
            ret[count++] = (struct supervisor_question){a->id, a->name, &a->plan};
    return count;
}

int supervisor_give_leave(struct supervisor *s, int id, bool leave, struct err *err)
{
    struct room_ask *ask = s->room.asks;
    struct plan_ledger ledger;
    struct err no = {0};

    while (ask && (ask->id != id || !ask->waits_for_leave))
        ask = ask->next;
    if (!ask)
        return err_set_param(err, ERR_NOT_FOUND, "id",
                             "nothing waits for leave with the id %d: GET /v1/memory "
                             "lists what does",
                             id);
    ask->has_leave = leave;
    ask->waits_for_leave = false;
    if (leave) {
        ask->since_ms = clock_ms(); /* people think for as long as they like */
        supervisor_wake(s);
        return 0;
    }
    ledger_fill(s, ask, &ledger);
    if (room_fits_low(ask, &ledger)) {
        grant_low(s, ask, &ledger);
        answer(s, ask, NULL);
        return 0;
    }
    err_set(&no, ERR_NO_MEMORY, "leave was refused: %.600s", ask->plan.moves[0].reason);
    answer(s, ask, &no);
    return 0;
}

/* ---- life ---- */

void room_init(struct supervisor *s)
{
    uv_timer_init(s->loop, &s->room.timer);
    s->room.timer.data = s;
}

void room_close(struct supervisor *s)
{
    while (s->room.asks)
        take_out(s, s->room.asks->worker);
}

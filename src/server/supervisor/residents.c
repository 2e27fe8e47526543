/* The text models that are resident: which worker takes a new one, which of them answers requests that name none, and what
 * of it is on disk.
 *
 * A text worker is one process with one model, so "beside the others" means a worker of its own: the first free one, or a
 * new one. Where that is not allowed (--llm-resident), the model takes the place of the one that was used
 * least recently, in that worker, by the same path as ever: the old process ends, the new one starts, and the old
 * model returns when the new one fails. To end one worker and to start another would have been simpler here and would have
 * lost that. Where there is not enough memory, others are parked for it (room.c).
 *
 * Never chosen to give way: what is pinned, what works (unless forced), what is just being loaded. The default is
 * chosen last when the load comes from a request that names its model: who names none did not ask for a change.
 *
 * Names move, ids do not. "llm" is what scripts, the page and people look at for "the text model", so it follows the
 * default; a decision that was made about a process holds its id and its generation. */
#include "base/file.h"
#include "base/mem.h"
#include "server/config/config.h"
#include "server/memory/predict.h"
#include "server/models/peek.h"
#include "server/supervisor/worker.h"

static const char *const starter_names[WORKER_KINDS][3] = {
    [WORKER_SD] = {"starter-painter.safetensors", "starter-painter.gguf", NULL},
    [WORKER_LLM] = {"starter-writer.gguf", NULL},
};

bool worker_is_free(const struct worker *w)
{
    return w->kind == WORKER_LLM && !w->process && !w->wanted.path && !w->next.known;
}

/* ---- the default ---- */

void residents_make_default(struct worker *w)
{
    struct supervisor *s = w->s;
    struct worker *old = s->workers[s->default_text];
    char name[WORKER_NAME_SIZE];

    w->becomes_default = false;
    if (w == old)
        return;
    memcpy(name, old->name, sizeof(name));
    memcpy(old->name, w->name, sizeof(name));
    memcpy(w->name, name, sizeof(name));
    s->default_text = w->id;
    supervisor_changed(old);
    supervisor_changed(w);
}

void residents_without_model(struct worker *w)
{
    struct supervisor *s = w->s;
    struct worker *best = NULL;

    if (w->id != s->default_text)
        return;
    for (int id = WORKER_LLM; id < s->worker_count; id++) {
        struct worker *other = s->workers[id];

        if (other != w && other->wanted.path &&
            (!best || other->used_ms > best->used_ms))
            best = other;
    }
    if (best)
        residents_make_default(best);
}

/* ---- on disk ---- */

static void on_stored(void *data, const struct err *err)
{
    struct supervisor *s = data;

    if (err)
        log_error(s->log, "What is loaded could not be stored: %s", err->message);
    if (record_is_writing(s->desired))
        return; /* a newer record is on its way: speak when that is there */
    for (int id = 0; id < s->worker_count; id++) {
        if (s->workers[id]->to_announce && !err)
            log_info(s->log, "Saved %s model state", s->workers[id]->profile->title);
        s->workers[id]->to_announce = false;
    }
    supervisor_wake(s); /* an end may wait for this */
}

static void add_stored(struct desired_wishes *all, const struct worker *w)
{
    all->text_known = all->text_known || w->stored.known;
    if (w->stored.path)
        all->text[all->text_count++] = w->stored; /* borrowed */
}

static void store(struct worker *w)
{
    struct supervisor *s = w->s;
    struct desired_wishes all = {0};

    wish_set(&w->stored, w->wanted.path, &w->wanted.options);
    w->stored.is_parked = w->kind == WORKER_LLM && w->state == WORKER_PARKED;
    w->stored.gave_way = w->stored.is_parked && w->gave_way;
    all.sd = s->workers[WORKER_SD]->stored;
    add_stored(&all, s->workers[s->default_text]);
    for (int id = WORKER_LLM; id < s->worker_count; id++)
        if (id != s->default_text)
            add_stored(&all, s->workers[id]);
    record_write(s->desired, desired_text(&all), on_stored, s);
}

void supervisor_store(struct worker *w)
{
    w->to_announce = w->wanted.path != NULL;
    store(w);
}

void supervisor_store_parked(struct worker *w)
{
    if (w->kind == WORKER_LLM && w->stored.is_parked != (w->state == WORKER_PARKED))
        store(w);
}

/* ---- at the start ---- */

static void want_starter(struct worker *w)
{
    const char *const *name = starter_names[w->kind];

    for (; *name; name++) {
        char *path = file_join(w->s->config->starters_dir, *name);

        if (file_exists(path))
            wish_set(&w->wanted, path, NULL);
        free(path);
        if (w->wanted.path)
            return;
    }
    snprintf(w->reason, sizeof(w->reason), "there is no starter model in %s",
             w->s->config->starters_dir);
    log_warning(w->s->log, "No %s model: %s", w->profile->what, w->reason);
}

/* A starter of any copy of Mysti: what is wanted then is the starter of this one. */
static bool is_starter(enum worker_kind kind, const char *path)
{
    if (!strstr(path, "/models/starter/"))
        return false;
    for (const char *const *name = starter_names[kind]; *name; name++)
        if (strcmp(file_name(path), *name) == 0)
            return true;
    return false;
}

/* The record, as far as it still can be had. */
static void want_stored(struct worker *w)
{
    if (!w->stored.path) {
        wish_set(&w->wanted, NULL, NULL);
    } else if (is_starter(w->kind, w->stored.path)) {
        want_starter(w);
        w->wanted.options = w->stored.options;
        w->wanted.is_parked = w->stored.is_parked;
        w->wanted.gave_way = w->stored.gave_way;
    } else if (file_exists(w->stored.path)) {
        wish_set(&w->wanted, w->stored.path, &w->stored.options);
        w->wanted.is_parked = w->stored.is_parked;
        w->wanted.gave_way = w->stored.gave_way;
    } else if (w->kind == WORKER_SD || w->id == w->s->default_text) {
        log_warning(w->s->log, "%s model %s is gone: taking the starter instead",
                    w->profile->title, w->stored.path);
        want_starter(w);
    } else {
        log_warning(w->s->log, "%s model %s is gone: going on without it",
                    w->profile->title, w->stored.path);
        wish_release(&w->stored);
    }
}

static void choose(struct worker *w, const char *given)
{
    if (strcmp(given, "none") == 0)
        wish_set(&w->wanted, NULL, NULL);
    else if (*given && w->stored.path && !strcmp(w->stored.path, given))
        wish_set(&w->wanted, given, &w->stored.options);
    else if (*given)
        wish_set(&w->wanted, given, NULL);
    else if (w->stored.known)
        want_stored(w);
    else
        want_starter(w);
}

/* One worker for each text model of the record, the default in the first. */
static void take_record(struct supervisor *s, const struct desired_wishes *record)
{
    int count = record->text_count, residents = 0;

    if (record->sd.known)
        wish_set(&s->workers[WORKER_SD]->stored, record->sd.path, &record->sd.options);
    if (record->text_known && count == 0)
        wish_set(&s->workers[WORKER_LLM]->stored, NULL, NULL);
    for (int i = 0; i < count; i++) {
        const struct wish *wish = &record->text[i];
        struct worker *w;

        if (!wish->is_parked && ++residents > s->config->llm_resident)
            continue;
        w = i ? worker_new(s, WORKER_LLM) : s->workers[s->default_text];
        wish_set(&w->stored, wish->path, &wish->options);
        w->stored.is_parked = wish->is_parked;
        w->stored.gave_way = wish->gave_way;
    }
}

void residents_choose_wanted(struct supervisor *s)
{
    struct desired_wishes record = {0};
    char *path = file_join(s->config->home, "desired.json");
    struct err damaged = {0};

    if (desired_read(path, &record, &damaged))
        log_error(s->log, "%s; starting without it", damaged.message);
    free(path);
    take_record(s, &record);
    desired_wishes_release(&record);
    choose(s->workers[WORKER_SD], s->config->diffusion_model);
    choose(s->workers[WORKER_LLM], s->config->llm_model);
    for (int id = WORKER_LLM + 1; id < s->worker_count; id++) {
        struct worker *w = s->workers[id];

        if (*s->config->llm_model) /* the one that was named is the one that is meant */
            wish_release(&w->stored);
        else
            want_stored(w);
    }
}

/* ---- which worker takes a model ---- */

int supervisor_predict(const struct supervisor *s, const char *path,
                       const struct worker_load_options *options,
                       struct prediction *ret, struct err *err)
{
    struct model_peek peek;
    struct wish target = {0};
    struct worker_load_options o;

    wish_set(&target, path, options);
    o = launch_options(s->config, &target);
    wish_release(&target);
    if (model_peek(path, &peek, err))
        return -1;
    predict_text(&peek,
                 &(struct predict_start){.context = (uint64_t)o.context,
                                         .slots = (uint64_t)o.slots,
                                         .in_one_piece = o.task != TASK_CHAT,
                                         .cache_type = o.cache_type},
                 ret);
    learn_correct(s, path, &o, ret->layers && ledger_is_for_card(s, o.gpu_layers), ret);
    return 0;
}

static struct worker *a_free_one(struct supervisor *s)
{
    struct worker *best = NULL;

    for (int id = WORKER_LLM; id < s->worker_count; id++)
        if (worker_is_free(s->workers[id]))
            return s->workers[id];
    if (s->worker_count < WORKERS_MAX)
        return worker_new(s, WORKER_LLM);
    for (int id = WORKER_LLM; id < s->worker_count; id++) /* the ids are all in use */
        if (s->workers[id]->state == WORKER_PARKED &&
            !s->workers[id]->wanted.options.is_pinned &&
            (!best || s->workers[id]->used_ms < best->used_ms))
            best = s->workers[id];
    return best;
}

/* Takes memory, or is about to. */
static bool is_resident(const struct worker *w)
{
    return !worker_is_free(w) && w->state != WORKER_PARKED;
}

static bool may_give_way(const struct worker *w, const struct supervisor_load *load)
{
    if (w->wanted.options.is_pinned)
        return false;
    return load->force == SUPERVISOR_FORCE || (!w->next.known && w->running == 0);
}

static bool is_better_victim(const struct worker *w, const struct worker *than,
                             const struct supervisor_load *load)
{
    int standard = w->s->default_text;

    if (!than)
        return true;
    if (load->keeps_default && (w->id == standard) != (than->id == standard))
        return than->id == standard;
    return w->used_ms < than->used_ms;
}

static struct worker *a_victim(struct supervisor *s, const struct supervisor_load *load,
                               struct err *err)
{
    struct worker *best = NULL;
    bool all_pinned = true;

    for (int id = WORKER_LLM; id < s->worker_count; id++) {
        struct worker *w = s->workers[id];

        if (!is_resident(w))
            continue;
        all_pinned = all_pinned && w->wanted.options.is_pinned;
        if (may_give_way(w, load) && is_better_victim(w, best, load))
            best = w;
    }
    if (best)
        log_info(s->log, "LLM model %s gives way to %s",
                 best->wanted.path ? best->wanted.path : "(none)", load->path);
    else if (all_pinned)
        err_set(
            err, ERR_UNAVAILABLE,
            "%s does not fit beside the text models that are resident, and they are "
            "pinned: unload one with POST /v1/llm/unload",
            load->path);
    else
        err_set(
            err, ERR_CONFLICT,
            "%s does not fit beside the text models that are resident, and they are "
            "busy: wait, or load it with force",
            load->path);
    return best;
}

static int count_residents(const struct supervisor *s)
{
    int count = 0;

    for (int id = WORKER_LLM; id < s->worker_count; id++)
        count += is_resident(s->workers[id]);
    return count;
}

/* One too many: the victim is parked, and leaves room in the count and in memory. */
static int park_one_for(struct worker *w, struct err *err)
{
    struct supervisor *s = w->s;
    const struct supervisor_load load = {.path = w->wanted.path, .keeps_default = true};
    struct supervisor_park park = {.until = PARK_UNTIL_WANTED};
    struct worker *victim = a_victim(s, &load, err);
    char reason[160];

    if (!victim)
        return -1;
    snprintf(reason, sizeof(reason), "%.100s was wanted", file_name(w->wanted.path));
    park.reason = reason;
    return supervisor_park(s, victim->id, &park, err);
}

bool residents_may_return(struct worker *w, struct err *err)
{
    struct supervisor *s = w->s;
    struct room_ask ask;

    if (w->kind != WORKER_LLM)
        return true; /* it asks for room when it loads its model */
    if (room_is_wanted(s, w)) {
        err_set(err, ERR_CONFLICT, "others wait for memory before %s", w->name);
        return false;
    }
    if (count_residents(s) >= s->config->llm_resident)
        return !park_one_for(w, err);
    if (room_ask_of_worker(w, &ask, err))
        return true; /* its start will say what is wrong */
    ask.is_forced = false;
    ask.keeps_default = true;
    return !room_would_admit(s, &ask, err);
}

/* Memory, as far as it can be made: the worker waits for it when it starts. */
static bool may_have_room(struct supervisor *s, const struct supervisor_load *load,
                          struct err *err)
{
    struct room_ask ask;

    if (room_ask_of(s, load->path, &load->options, &ask, err))
        return false;
    ask.is_forced = load->force == SUPERVISOR_FORCE;
    ask.keeps_default = load->keeps_default;
    return !room_would_admit(s, &ask, err);
}

static struct worker *place(struct supervisor *s, const struct supervisor_load *load,
                            struct err *err)
{
    int residents = count_residents(s);

    if (residents == 0 && worker_is_free(s->workers[s->default_text]))
        return s->workers[s->default_text];
    if (s->config->llm_resident == 1 && is_resident(s->workers[s->default_text]) &&
        !(s->workers[s->default_text]->wanted.options.is_pinned && load->keeps_default))
        return s->workers[s->default_text]; /* which has the sentences for all cases */
    if (residents > 0 && residents >= s->config->llm_resident)
        return a_victim(s, load, err);
    return may_have_room(s, load, err) ? a_free_one(s) : NULL;
}

int supervisor_load_text(struct supervisor *s, const struct supervisor_load *load,
                         int *ret_id, struct err *err)
{
    struct worker *w;
    int id;

    if (s->shutting_down)
        return err_set(err, ERR_UNAVAILABLE, "the server is being stopped");
    if (load->path[0] == '/' &&
        worker_check_file(s->workers[WORKER_LLM], load->path, err))
        return -1;
    id = supervisor_text_with(s, load->path);
    w = id >= 0 ? s->workers[id] : place(s, load, err);
    if (!w)
        return -1;
    *ret_id = w->id;
    return supervisor_load(s, w->id, load, err);
}

int supervisor_pin(struct supervisor *s, int id, bool pinned, struct err *err)
{
    struct worker *w = s->workers[id];
    struct wish *target = w->next.known ? &w->next : &w->wanted;

    if (!target->path)
        return err_set(err, ERR_CONFLICT, "%s has no model that could be pinned",
                       w->name);
    target->options.is_pinned = pinned;
    if (target == &w->wanted) /* else it is stored once it is loaded */
        supervisor_store(w);
    supervisor_changed(w);
    return 0;
}

/* ---- questions ---- */

int supervisor_default_text(const struct supervisor *s)
{
    return s->default_text;
}

int supervisor_text_with(const struct supervisor *s, const char *path)
{
    for (int id = WORKER_LLM; id < s->worker_count; id++) {
        const struct wish *target = worker_target(s->workers[id]);

        if (target->path && strcmp(target->path, path) == 0)
            return id;
    }
    return -1;
}

unsigned supervisor_text_running(const struct supervisor *s)
{
    unsigned running = 0;

    for (int id = WORKER_LLM; id < s->worker_count; id++)
        running += s->workers[id]->running;
    return running;
}

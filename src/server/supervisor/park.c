/* Parking: a text model leaves memory and takes its context with it.
 *
 *   park:    no new work -> what runs ends (bounded) -> each slot's cache is written to a file -> the process ends
 *   unpark:  the process starts, loads -> each file is read back into its slot -> ready
 *
 * The files are llama-server's own (--slot-save-path, POST /slots/N?action=save|restore); it writes and reads them in its
 * process, so a large one costs the loop nothing. It says how many tokens it saved and how many came back; only when the
 * two are the same the context counts as restored, everything else is said in the log and costs the next turn a
 * reading of its prompt, never a wrong answer. The files are kept after that: a worker that crashes later gets them back as
 * well, and what the conversations have in common with them is not read again.
 *
 * Where it does not help it is not done, and said: a model with a sliding window has thrown away what lies behind it and
 * reads everything again anyway; a recurrent one keeps a state that fits to one position only; vectors and ranks have no
 * context. Images in a context cannot be saved by llama-server, which refuses, and the refusal is passed on.
 *
 * Stale files are removed: another model or another file of that name, other slots or task. What is kept, how
 * long, and over a restart of the server, is contexts.c.
 *
 * Two ways back. What was parked to make room for something else comes back when whoever parked it says so. What was
 * parked because nobody used it comes back with the next request for it (supervisor_summon), if need be in place of
 * another one that idles. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/config/config.h"
#include "server/models/peek.h"
#include "server/supervisor/worker.h"

#include <inttypes.h>
#include <sys/stat.h>

#define SLOT_LIMIT_MS 120000 /* for one file; it may be gigabytes on a slow disk */

/* ---- whose files they are ---- */

static struct kv_owner owner_of(const struct worker *w, const char *path)
{
    struct kv_owner owner = {.options = w->present};
    struct stat st;

    owner.options.gpu_layers = 0; /* where it lies does not change what it says */
    owner.options.context = 0;    /* nor what else would fit beside it */
    owner.options.idle_timeout_s = 0;
    if (path && stat(path, &st) == 0) {
        owner.device = st.st_dev;
        owner.inode = st.st_ino;
        owner.size = st.st_size;
        owner.modified = st.st_mtim;
    }
    return owner;
}

static bool is_same_owner(const struct kv_owner *a, const struct kv_owner *b)
{
    return a->inode && a->inode == b->inode && a->device == b->device &&
           a->size == b->size && a->modified.tv_sec == b->modified.tv_sec &&
           a->modified.tv_nsec == b->modified.tv_nsec &&
           load_options_are_same(&a->options, &b->options);
}

/* Why saving would not help; NULL: it does. */
static const char *why_not(const struct worker *w)
{
    struct model_peek peek;

    if (w->present.task != TASK_CHAT)
        return "it keeps none";
    if (model_peek(w->loaded, &peek, NULL))
        return "its file is gone";
    if (peek.is_recurrent)
        return "a recurrent model's state is of no use later";
    if (peek.sliding_window)
        return "its attention has a sliding window, so all of it is read again anyway";
    return NULL;
}

bool kv_is_of_use(const struct worker *w)
{
    return w->loaded && !why_not(w);
}

/* ---- save ---- */

static void ask_slot(struct worker *w, const char *action, int slot, const char *file,
                     http_on_fetched_fn *on_done)
{
    char target[64], body[96];
    struct http_fetch_options o = {
        .host = "127.0.0.1",
        .port = w->port,
        .method = "POST",
        .target = target,
        .bearer = w->token,
        .body = body,
        .timeout_ms = SLOT_LIMIT_MS,
    };

    snprintf(target, sizeof(target), "/slots/%d?action=%s", slot, action);
    o.body_len = (size_t)snprintf(body, sizeof(body), "{\"filename\":\"%s\"}", file);
    w->kv_call = http_fetch_start(w->s->client, &o, on_done, w);
}

static void save_next(struct worker *w);

static json_int_t number_of(const json_t *answer, const char *key)
{
    return json_integer_value(json_object_get(answer, key));
}

static void on_slot_saved(void *user, const struct err *err, int status,
                          const char *body, size_t len)
{
    struct worker *w = user;
    struct kv_slot slot = {.slot = w->kv_at, .saved_us = clock_unix_us()};
    json_t *answer = err ? NULL : json_loadb(body, len, 0, NULL);

    w->kv_call = NULL;
    kv_new_name(w, slot.slot, slot.file, sizeof(slot.file));
    slot.tokens = number_of(answer, "n_saved");
    slot.bytes = (uint64_t)number_of(answer, "n_written");
    if (status == 200 && slot.tokens > 0) {
        w->kv.slots[w->kv.count++] = slot;
        kv_sync(w, &slot);
    } else {
        kv_remove_file(w->s, slot.file);
    }
    if (status != 200)
        log_warning(w->s->log, "The context of slot %d could not be saved: %s",
                    slot.slot, err ? err->message : body);
    json_decref(answer);
    w->kv_at++;
    save_next(w);
}

static void save_next(struct worker *w)
{
    char file[KV_NAME_SIZE];

    if (w->kv_at < w->present.slots && w->kv_at < KV_SLOTS_MAX) {
        kv_new_name(w, w->kv_at, file, sizeof(file));
        ask_slot(w, "save", w->kv_at, file, on_slot_saved);
        return;
    }
    log_info(w->s->log, "Saved the context of %s: %" PRId64 " tokens in %d slots",
             file_name(w->loaded), kv_tokens(w), w->kv.count);
    kv_keep_bounds(w->s);
    trim_saved(w);
    worker_event(w, EV_SAVED);
}

void kv_save(struct worker *w)
{
    const char *why = why_not(w);

    kv_forget(w);
    w->kv_at = 0;
    w->kv.stamp = (uint64_t)clock_unix_us();
    if (why) {
        log_info(w->s->log, "The context of %s is not saved: %s", file_name(w->loaded),
                 why);
        worker_event(w, EV_SAVED);
        return;
    }
    w->kv.owner = owner_of(w, w->loaded);
    save_next(w);
}

/* ---- restore ---- */

static void restore_next(struct worker *w);

static void on_slot_restored(void *user, const struct err *err, int status,
                             const char *body, size_t len)
{
    struct worker *w = user;
    json_t *answer = err ? NULL : json_loadb(body, len, 0, NULL);
    const struct kv_slot *slot = &w->kv.slots[w->kv_at];

    w->kv_call = NULL;
    if (status == 200 && number_of(answer, "n_restored") == slot->tokens) {
        w->kv_restored += slot->tokens;
        w->kv_at++;
    } else {
        log_warning(w->s->log, "The context of slot %d did not come back: %s",
                    slot->slot, err ? err->message : body);
        kv_forget_slot(w, w->kv_at);
    }
    json_decref(answer);
    restore_next(w);
}

static void restore_next(struct worker *w)
{
    if (w->kv_at < w->kv.count) {
        ask_slot(w, "restore", w->kv.slots[w->kv_at].slot, w->kv.slots[w->kv_at].file,
                 on_slot_restored);
        return;
    }
    if (w->kv.count)
        log_info(w->s->log,
                 "Restored the context of %s: %" JSON_INTEGER_FORMAT
                 " tokens in %d slots",
                 file_name(worker_target(w)->path), w->kv_restored, w->kv.count);
    w->kv_step = KV_RESTORED;
    worker_event(w, EV_LOADED);
}

bool kv_restore(struct worker *w)
{
    struct kv_owner now;

    if (w->kv_step == KV_RESTORED || (w->kv_step == KV_NOTHING && !w->kv.count))
        return false;
    if (w->kv_step == KV_RESTORING)
        return true;
    now = owner_of(w, worker_target(w)->path);
    if (!is_same_owner(&now, &w->kv.owner)) {
        kv_forget(w);
        return false;
    }
    w->kv_step = KV_RESTORING;
    w->kv_at = 0;
    w->kv_restored = 0;
    restore_next(w);
    return true;
}

void kv_process_gone(struct worker *w)
{
    if (w->kv_call)
        http_fetch_cancel(w->kv_call);
    w->kv_call = NULL;
    w->kv_step = KV_NOTHING;
}

/* ---- nobody uses it ---- */

static void on_idle_over(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    struct supervisor_park park = {.until = PARK_UNTIL_WANTED};
    struct err err = {0};
    char reason[96];

    /* rounded: the loop's time may lie some milliseconds behind, and a timer of 1 s end after 0.998 s */
    snprintf(reason, sizeof(reason), "nobody used it for %" PRIu64 " s",
             (clock_ms() - w->used_ms + 500) / 1000);
    park.reason = reason;
    if (!w->wanted.options.is_pinned && supervisor_park(w->s, w->id, &park, &err))
        log_debug(w->s->log, "%s", err.message);
}

void park_idle_begin(struct worker *w)
{
    int64_t limit_s = w->wanted.options.idle_timeout_s;

    if (limit_s < 0)
        limit_s = w->s->config->llm_idle_timeout_s;
    if (w->kind == WORKER_LLM && limit_s > 0)
        uv_timer_start(&w->idle_timer, on_idle_over, (uint64_t)limit_s * 1000, 0);
}

void park_idle_end(struct worker *w)
{
    uv_timer_stop(&w->idle_timer);
}

/* ---- parked when the server before this one ended ---- */

bool park_take_up(struct worker *w)
{
    struct err ignored;

    if (w->kind != WORKER_LLM || !w->wanted.path || !w->wanted.is_parked)
        return false;
    w->is_predicted = !supervisor_predict(w->s, w->wanted.path, &w->wanted.options,
                                          &w->predicted, &ignored);
    if (!w->is_predicted)
        return false; /* its start will say what is wrong */
    w->present = launch_options(w->s->config, &w->wanted);
    w->wished_layers = w->present.gpu_layers;
    w->wished_context = w->present.context;
    w->gave_way = w->wanted.gave_way;
    w->park_until = PARK_UNTIL_WANTED;
    w->used_ms = clock_ms();
    snprintf(w->park_reason, sizeof(w->park_reason),
             "it was when the server ended, and nobody has wanted it since");
    snprintf(w->reason, sizeof(w->reason), "parked: %s", w->park_reason);
    log_info(w->s->log, "LLM model %s stays parked", w->wanted.path);
    worker_set_state(w, WORKER_PARKED);
    if (w->gave_way)
        room_watch(w->s);
    return true;
}

/* ---- asked for ---- */

/* A picture is never cut: its worker is parked between two of them, or not. */
static bool may_park(const struct worker *w)
{
    if (w->state == WORKER_PARKED)
        return true;
    return w->loaded && (w->state == WORKER_READY ||
                         (w->state == WORKER_BUSY && w->kind == WORKER_LLM));
}

int supervisor_park(struct supervisor *s, int id, const struct supervisor_park *park,
                    struct err *err)
{
    struct worker *w = s->workers[id];

    if (s->shutting_down)
        return err_set(err, ERR_UNAVAILABLE, "the server is being stopped");
    if (!may_park(w))
        return err_set(
            err, ERR_CONFLICT, "the %s worker %s %s%s: it cannot be parked now",
            w->profile->what, w->name, w->loaded ? "is " : "has no model, it is ",
            worker_state_name(w->state));
    w->gave_way = false;
    snprintf(w->park_reason, sizeof(w->park_reason), "%s", park->reason);
    w->park_until = park->until;
    w->park_wait_ms = park->wait_ms ? park->wait_ms : PARK_WAIT_MS;
    supervisor_wait_add(w, WAIT_PARK, park->done, park->data)->due =
        w->state == WORKER_PARKED;
    worker_event(w, EV_PARK);
    return 0;
}

int supervisor_unpark(struct supervisor *s, int id, supervisor_done_fn *done,
                      void *data, struct err *err)
{
    struct worker *w = s->workers[id];

    if (w->state != WORKER_PARKED && w->state != WORKER_PARKING)
        return err_set(err, ERR_CONFLICT, "the worker %s is %s, not parked", w->name,
                       worker_state_name(w->state));
    return supervisor_start(s, id, done, data, err);
}

void supervisor_summon(struct supervisor *s, int id)
{
    struct worker *w = s->workers[id];
    struct err err = {0};

    if (w->state != WORKER_PARKED || w->park_until != PARK_UNTIL_WANTED)
        return;
    if (residents_may_return(w, &err))
        worker_event(w, EV_START);
    else if (err.code == ERR_NO_MEMORY)
        supervisor_settle(w, WAIT_READY, &err);
    else
        log_debug(s->log, "%s", err.message); /* looked at again with the next change */
}

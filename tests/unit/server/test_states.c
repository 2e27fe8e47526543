/* The life of a worker, event by event, without a process: what states.c decides, what it asks of the
 * process, whom it tells. Time does not pass; the state's timer is looked at instead of waited for. */
#include "unit.h"

#include "server/supervisor/starts.c"
#include "server/supervisor/states.c"

#include <unistd.h>

static struct {
    int launches, launch_fails;
    const char *launched_with;
    int last_signal;
    const char *asked_to_load;
    int load_questions;
    int stores;
    int made_default, left_without_model;
    int saves, restores, forgets;
    bool restores_context;
    int settled[8], settled_with_error[8];
    char last_error[sizeof(((struct err *)0)->message)];
    bool file_is_gone;
    enum room_answer room; /* granted, unless said otherwise */
    int room_questions, room_forgotten, learned;
} did;

int worker_launch(struct worker *w, const struct wish *target, struct err *err)
{
    if (did.launch_fails)
        return err_set(err, ERR_UNAVAILABLE, "no such program");
    did.launches++;
    did.launched_with = target->path;
    w->process = (struct process *)(void *)w;
    return 0;
}

void worker_forget_process(struct worker *w)
{
    w->process = NULL;
}

void health_begin(struct worker *w)
{
    (void)w;
}

void health_stop(struct worker *w)
{
    (void)w;
}

void health_load(struct worker *w, const char *path)
{
    (void)w;
    did.asked_to_load = path;
    did.load_questions++;
}

bool kv_is_of_use(const struct worker *w)
{
    return w->loaded != NULL;
}

void trim_ask(struct worker *w)
{
    (void)w;
}

void trim_process_gone(struct worker *w)
{
    (void)w;
}

void supervisor_changed(struct worker *w)
{
    w->changed = true;
}

void supervisor_settle(struct worker *w, enum wait_type type, const struct err *err)
{
    (void)w;
    did.settled[type] += !err;
    did.settled_with_error[type] += err != NULL;
    if (err)
        snprintf(did.last_error, sizeof(did.last_error), "%s", err->message);
}

void supervisor_store(struct worker *w)
{
    did.stores++;
    wish_set(&w->stored, w->wanted.path, &w->wanted.options);
}

void supervisor_store_parked(struct worker *w)
{
    w->stored.is_parked = w->state == WORKER_PARKED;
}

void kv_save(struct worker *w)
{
    (void)w;
    did.saves++;
}

bool kv_restore(struct worker *w)
{
    (void)w;
    did.restores += did.restores_context;
    return did.restores_context;
}

void kv_forget(struct worker *w)
{
    (void)w;
    did.forgets++;
}

void kv_process_gone(struct worker *w)
{
    (void)w;
}

void park_idle_begin(struct worker *w)
{
    (void)w;
}

void park_idle_end(struct worker *w)
{
    (void)w;
}

void residents_make_default(struct worker *w)
{
    w->becomes_default = false;
    did.made_default++;
}

void residents_without_model(struct worker *w)
{
    (void)w;
    did.left_without_model++;
}

const char *worker_state_name(enum worker_state state)
{
    return state == WORKER_READY ? "ready" : "other";
}

void process_signal(struct process *p, int signal)
{
    (void)p;
    did.last_signal = signal;
}

void process_exit_text(const struct process_exit *how, char *ret, size_t size)
{
    snprintf(ret, size, "signal %d code %d", how->signal, how->code);
}

int model_peek(const char *path, struct model_peek *ret, struct err *err)
{
    (void)ret;
    return did.file_is_gone
               ? err_set(err, ERR_NOT_FOUND, "there is no model file %s", path)
               : 0;
}

enum room_answer room_for_worker(struct worker *w, struct err *err)
{
    (void)w;
    did.room_questions++;
    if (did.room == ROOM_REFUSED)
        err_set(err, ERR_NO_MEMORY, "it needs 9 GiB");
    return did.room;
}

void learn_from(struct worker *w)
{
    (void)w;
    did.learned++;
}

void room_released(struct worker *w)
{
    (void)w;
}

void room_forget(struct worker *w)
{
    (void)w;
    did.room_forgotten++;
}

/* ---- */

static const struct worker_profile profiles[WORKER_KINDS] = {
    {"SD", "mysti_sd_worker", "picture", "/v1/models/load", LOG_SD},
    {"LLM", "mysti_llm_worker", "text", "/v1/llm/load", LOG_LLM},
};
static uv_loop_t loop;
static struct supervisor s;
static struct worker worker, *w = &worker;

static int set_up(enum worker_kind kind)
{
    memset(&did, 0, sizeof(did));
    memset(&s, 0, sizeof(s));
    uv_loop_init(&loop);
    s.loop = &loop;
    memset(w, 0, sizeof(*w));
    w->s = &s;
    w->kind = kind;
    w->profile = &profiles[kind];
    w->wants_up = true;
    uv_timer_init(&loop, &w->timer);
    w->timer.data = w;
    return 0;
}

static int set_up_sd(void **state)
{
    (void)state;
    return set_up(WORKER_SD);
}

static int set_up_llm(void **state)
{
    (void)state;
    return set_up(WORKER_LLM);
}

static int tear_down(void **state)
{
    (void)state;
    wish_release(&w->wanted);
    wish_release(&w->next);
    wish_release(&w->stored);
    free(w->loaded);
    uv_close((uv_handle_t *)&w->timer, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static uint64_t timer_ms(void)
{
    uv_update_time(&loop);
    return uv_is_active((uv_handle_t *)&w->timer) ? uv_timer_get_due_in(&w->timer) : 0;
}

static bool about(uint64_t value, uint64_t wanted)
{
    return value <= wanted && value + 50 >= wanted;
}

static void ends(int signal, int code, bool by_us)
{
    w->exit = (struct process_exit){.signal = signal, .code = code, .by_us = by_us};
    worker_event(w, EV_EXITED);
}

static void ready_with(const char *path)
{
    wish_set(&w->wanted, path, NULL);
    worker_event(w, EV_START);
    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    assert_int_equal(w->state, WORKER_READY);
}

static void starts_loads_stores(void **state)
{
    (void)state;
    wish_set(&w->wanted, "/m/a", NULL);
    worker_event(w, EV_START);
    assert_int_equal(w->state, WORKER_STARTING);
    assert_true(about(timer_ms(), START_LIMIT_MS));
    worker_event(w, EV_LISTENING);
    assert_int_equal(w->state, WORKER_LOADING);
    assert_string_equal(did.asked_to_load, "/m/a");
    assert_int_equal(timer_ms(), 0); /* a load may take as long as it likes */
    assert_int_equal(did.stores, 0);
    worker_event(w, EV_LOADED);
    assert_int_equal(w->state, WORKER_READY);
    assert_string_equal(w->loaded, "/m/a");
    assert_int_equal(did.stores, 1);
    assert_int_equal(did.settled[WAIT_START], 1);
}

static void without_model_it_is_ready_and_stores_nothing(void **state)
{
    (void)state;
    wish_set(&w->wanted, NULL, NULL);
    worker_event(w, EV_START);
    worker_event(w, EV_LISTENING);
    assert_int_equal(w->state, WORKER_READY);
    assert_null(w->loaded);
    assert_int_equal(did.stores, 0);
}

static void work_makes_busy(void **state)
{
    (void)state;
    ready_with("/m/a");
    w->running = 1;
    worker_event(w, EV_WORK);
    assert_int_equal(w->state, WORKER_BUSY);
    w->running = 0;
    worker_event(w, EV_IDLE);
    assert_int_equal(w->state, WORKER_READY);
}

static void killed_workers_come_back_at_once(void **state)
{
    (void)state;
    ready_with("/m/a");
    for (int i = 1; i <= 20; i++) {
        ends(SIGKILL, 0, false);
        assert_int_equal(w->state, WORKER_RESTARTING);
        assert_true(timer_ms() <= RESPAWN_MS); /* never a back-off */
        assert_int_equal(w->restarts, i);
        assert_int_equal(w->failures, 0);
        worker_event(w, EV_TIMEOUT);
        worker_event(w, EV_LISTENING);
        assert_string_equal(did.asked_to_load, "/m/a");
        worker_event(w, EV_LOADED);
        assert_int_equal(w->state, WORKER_READY);
    }
    assert_int_equal(did.stores, 1); /* a restore changes nothing on disk */
}

static void failed_starts_back_off(void **state)
{
    static const uint64_t waits[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};

    (void)state;
    wish_set(&w->wanted, "/m/a", NULL);
    worker_event(w, EV_START);
    for (size_t i = 0; i < 7; i++) {
        ends(0, 3, false);
        assert_int_equal(w->state, i < 2 ? WORKER_RESTARTING : WORKER_FAILED);
        assert_true(about(timer_ms(), waits[i]));
        worker_event(w, EV_TIMEOUT);
        assert_int_equal(w->state, WORKER_STARTING);
    }
    assert_true(did.settled_with_error[WAIT_START] > 0);
    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    assert_int_equal(w->failures, 0); /* a success clears it */
    assert_string_equal(w->reason, "");
    ends(0, 3, false);
    assert_true(timer_ms() <= RESPAWN_MS);
}

static void a_kill_while_loading_is_no_failure_but_waits(void **state)
{
    (void)state;
    wish_set(&w->wanted, "/m/a", NULL);
    worker_event(w, EV_START);
    worker_event(w, EV_LISTENING);
    ends(SIGKILL, 0, false); /* by a user, or for want of memory */
    assert_int_equal(w->state, WORKER_RESTARTING);
    assert_int_equal(w->failures, 0);
    assert_true(about(timer_ms(), RESPAWN_LOADING_MS));
}

static void a_start_that_hangs_is_killed_and_counts(void **state)
{
    (void)state;
    wish_set(&w->wanted, "/m/a", NULL);
    worker_event(w, EV_START);
    worker_event(w, EV_TIMEOUT);
    assert_int_equal(did.last_signal, SIGKILL);
    ends(SIGKILL, 0, true);
    assert_int_equal(w->failures, 1);
    assert_int_equal(w->state, WORKER_RESTARTING);
}

static void a_hung_worker_is_killed_and_replaced(void **state)
{
    (void)state;
    ready_with("/m/a");
    worker_event(w, EV_HUNG);
    assert_int_equal(did.last_signal, SIGKILL);
    assert_true(w->suspected); /* nobody is sent to it any more */
    ends(SIGKILL, 0, true);
    assert_int_equal(w->state, WORKER_RESTARTING);
    assert_non_null(strstr(w->last_exit, "three health checks"));
}

static void a_refused_model_leaves_the_old_one(void **state)
{
    (void)state;
    ready_with("/m/a");
    wish_set(&w->next, "/m/b", NULL);
    worker_event(w, EV_LOAD);
    assert_int_equal(w->state, WORKER_LOADING);
    err_set(&w->load_error, ERR_BAD_FILE, "not a model");
    worker_event(w, EV_LOAD_FAILED);
    assert_int_equal(w->state, WORKER_READY);
    assert_string_equal(w->loaded, "/m/a");
    assert_string_equal(w->wanted.path, "/m/a");
    assert_false(w->next.known);
    assert_int_equal(did.stores, 1);
    assert_int_equal(did.settled_with_error[WAIT_CHANGE], 1);
    assert_string_equal(did.last_error, "not a model");
}

/* The new model kills the picture worker: told, forgotten, and the old one is loaded again. */
static void a_model_that_kills_is_not_tried_again(void **state)
{
    (void)state;
    ready_with("/m/a");
    wish_set(&w->next, "/m/b", NULL);
    worker_event(w, EV_LOAD);
    ends(SIGSEGV, 0, false);
    assert_int_equal(did.settled_with_error[WAIT_CHANGE], 1);
    assert_int_equal(w->state, WORKER_STARTING);
    worker_event(w, EV_LISTENING);
    assert_string_equal(did.asked_to_load, "/m/a");
}

static void a_restore_that_is_refused_fails_and_tries_again(void **state)
{
    (void)state;
    wish_set(&w->wanted, "/m/a", NULL);
    worker_event(w, EV_START);
    worker_event(w, EV_LISTENING);
    err_set(&w->load_error, ERR_NO_MEMORY, "needs 9 GiB");
    worker_event(w, EV_LOAD_FAILED);
    assert_int_equal(w->state, WORKER_FAILED);
    assert_string_equal(w->reason, "needs 9 GiB");
    assert_non_null(w->process);
    worker_event(w, EV_TIMEOUT);
    assert_int_equal(w->state, WORKER_LOADING);
    assert_int_equal(did.load_questions, 2);
    assert_int_equal(did.launches, 1);
}

static void a_worker_busy_with_itself_is_asked_again(void **state)
{
    (void)state;
    wish_set(&w->wanted, "/m/a", NULL);
    worker_event(w, EV_START);
    worker_event(w, EV_LISTENING);
    err_set(&w->load_error, ERR_CONFLICT, "it is starting");
    worker_event(w, EV_LOAD_FAILED);
    assert_int_equal(w->state, WORKER_LOADING);
    assert_true(about(timer_ms(), BUSY_AGAIN_MS));
    worker_event(w, EV_TIMEOUT);
    assert_int_equal(did.load_questions, 2);
    assert_int_equal(w->failures, 0);
    w->loading_ms -= BUSY_LIMIT_MS; /* not for ever */
    worker_event(w, EV_LOAD_FAILED);
    assert_int_equal(w->state, WORKER_FAILED);
}

static void text_changes_by_a_new_process(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    wish_set(&w->next, "/m/b.gguf", NULL);
    w->becomes_default = true;
    worker_event(w, EV_LOAD);
    assert_int_equal(w->state, WORKER_STOPPING);
    assert_int_equal(did.made_default, 0); /* not before it is loaded */
    assert_int_equal(did.last_signal, SIGTERM);
    assert_true(about(timer_ms(), STOP_LIMIT_MS));
    worker_event(w, EV_TIMEOUT);
    assert_int_equal(did.last_signal, SIGKILL);
    ends(SIGKILL, 0, true);
    assert_int_equal(w->state, WORKER_STARTING);
    assert_string_equal(did.launched_with, "/m/b.gguf");
    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    assert_string_equal(w->loaded, "/m/b.gguf");
    assert_int_equal(did.made_default, 1);
    assert_string_equal(w->stored.path, "/m/b.gguf");
    assert_int_equal(did.settled[WAIT_CHANGE], 2);
}

static void a_failed_text_load_brings_the_old_one_back(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    wish_set(&w->next, "/m/b.gguf", NULL);
    worker_event(w, EV_LOAD);
    ends(SIGTERM, 0, true);
    worker_event(w, EV_LISTENING);
    snprintf(w->first_error, sizeof(w->first_error), "error loading model: corrupted");
    w->becomes_default = true;
    ends(0, 1, false);
    assert_false(w->becomes_default);
    assert_int_equal(did.settled_with_error[WAIT_CHANGE], 1);
    assert_non_null(strstr(did.last_error, "corrupted"));
    assert_int_equal(w->state, WORKER_STARTING);
    assert_string_equal(did.launched_with, "/m/a.gguf");
    assert_string_equal(w->stored.path, "/m/a.gguf");
    assert_int_equal(w->failures, 0);
}

static void text_without_model_has_no_process(void **state)
{
    (void)state;
    wish_set(&w->wanted, NULL, NULL);
    worker_event(w, EV_START);
    assert_int_equal(w->state, WORKER_STOPPED);
    assert_int_equal(did.launches, 0);
    ready_with("/m/a.gguf");
    wish_set(&w->next, NULL, NULL); /* an unload */
    worker_event(w, EV_LOAD);
    ends(SIGTERM, 0, true);
    assert_int_equal(w->state, WORKER_STOPPED);
    assert_int_equal(did.settled[WAIT_CHANGE], 2);
    assert_int_equal(did.left_without_model, 1);
    assert_true(w->stored.known);
    assert_null(w->stored.path);
}

static void parking_saves_and_comes_back_with_the_context(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    worker_event(w, EV_PARK);
    assert_int_equal(w->state, WORKER_PARKING);
    assert_int_equal(did.saves, 1);
    worker_event(w, EV_SAVED);
    assert_int_equal(w->state, WORKER_STOPPING);
    assert_int_equal(did.settled[WAIT_PARK], 0); /* not before the memory is free */
    ends(SIGTERM, 0, true);
    assert_int_equal(w->state, WORKER_PARKED);
    assert_true(w->stored.is_parked); /* a restart of the server leaves it so */
    assert_int_equal(did.settled[WAIT_PARK], 1);
    assert_string_equal(w->wanted.path, "/m/a.gguf");
    assert_int_equal(did.forgets, 0);
    did.restores_context = true;
    worker_event(w, EV_START);
    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    assert_int_equal(w->state, WORKER_LOADING); /* the context is on its way */
    assert_int_equal(did.restores, 1);
    did.restores_context = false;
    worker_event(w, EV_LOADED);
    assert_int_equal(w->state, WORKER_READY);
    assert_false(w->stored.is_parked);
    assert_int_equal(w->restarts, 0);
}

static void text_waits_for_memory_before_it_has_a_process(void **state)
{
    (void)state;
    did.room = ROOM_COMING;
    wish_set(&w->wanted, "/m/a.gguf", NULL);
    worker_event(w, EV_START);
    assert_int_equal(w->state, WORKER_WAITING);
    assert_int_equal(did.launches, 0);
    worker_event(w, EV_ROOM);
    assert_int_equal(w->state, WORKER_STARTING);
    assert_int_equal(did.launches, 1);
}

static void a_text_model_without_memory_is_tried_again_or_given_up(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    did.room = ROOM_REFUSED;
    wish_set(&w->next, "/m/b.gguf", NULL);
    worker_event(w, EV_LOAD);
    did.room = ROOM_COMING;
    ends(SIGTERM, 0, true); /* its process is gone before it asks */
    assert_int_equal(w->state, WORKER_WAITING);
    assert_int_equal(did.settled_with_error[WAIT_CHANGE], 0);
    err_set(&w->room_error, ERR_NO_MEMORY, "it needs 9 GiB");
    did.room = ROOM_GRANTED;
    worker_event(w, EV_NO_ROOM);
    assert_int_equal(did.settled_with_error[WAIT_CHANGE], 1);
    assert_string_equal(did.last_error, "it needs 9 GiB");
    assert_string_equal(did.launched_with, "/m/a.gguf"); /* what was there before */
}

static void a_parked_one_without_memory_stays_parked(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    worker_event(w, EV_PARK);
    worker_event(w, EV_SAVED);
    ends(SIGTERM, 0, true);
    did.room = ROOM_REFUSED;
    worker_event(w, EV_START);
    assert_int_equal(w->state, WORKER_PARKED);
    assert_int_equal(did.settled_with_error[WAIT_READY], 1);
    did.room = ROOM_COMING;
    worker_event(w, EV_START);
    worker_event(w, EV_STOP);
    assert_int_equal(w->state, WORKER_STOPPED);
    assert_true(did.room_forgotten > 0);
}

/* Others may wait for its memory, and nothing else is decided before they heard. */
static void who_waits_for_parking_hears_of_a_change_of_mind(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    worker_event(w, EV_PARK);
    wish_set(&w->next, "/m/b.gguf", NULL);
    worker_event(w, EV_LOAD);
    ends(SIGTERM, 0, true);
    assert_string_equal(did.launched_with, "/m/b.gguf");
    assert_int_equal(did.settled_with_error[WAIT_PARK], 1);

    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    worker_event(w, EV_PARK);
    worker_event(w, EV_SAVED); /* on its way out already */
    wish_set(&w->next, "/m/c.gguf", NULL);
    worker_event(w, EV_LOAD);
    ends(SIGTERM, 0, true);
    assert_string_equal(did.launched_with, "/m/c.gguf");
    assert_int_equal(did.settled_with_error[WAIT_PARK], 2);
    assert_int_equal(did.settled[WAIT_PARK], 0);
}

static void a_picture_model_waits_for_memory_in_its_process(void **state)
{
    (void)state;
    did.room = ROOM_COMING;
    wish_set(&w->wanted, "/m/a.safetensors", NULL);
    worker_event(w, EV_START);
    worker_event(w, EV_LISTENING);
    assert_int_equal(w->state, WORKER_WAITING);
    assert_int_equal(did.load_questions, 0);
    worker_event(w, EV_ROOM);
    assert_int_equal(w->state, WORKER_LOADING);
    assert_int_equal(did.load_questions, 1);
    worker_event(w, EV_LOADED);
    assert_int_equal(w->state, WORKER_READY);
    worker_event(w, EV_PARK); /* no context: it goes at once */
    assert_int_equal(w->state, WORKER_STOPPING);
    assert_int_equal(did.saves, 0);
    ends(SIGTERM, 0, true);
    assert_int_equal(w->state, WORKER_PARKED);
}

static void parking_waits_for_what_runs_but_not_for_ever(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    w->running = 1;
    worker_event(w, EV_WORK);
    w->park_wait_ms = 5000;
    worker_event(w, EV_PARK);
    assert_int_equal(did.saves, 0);
    assert_true(about(timer_ms(), 5000));
    worker_event(w, EV_TIMEOUT);
    assert_int_equal(w->state, WORKER_BUSY);
    assert_int_equal(did.settled_with_error[WAIT_PARK], 1);
    worker_event(w, EV_PARK);
    w->running = 0;
    worker_event(w, EV_IDLE);
    assert_int_equal(did.saves, 1);
    ends(SIGSEGV, 0, false); /* over its own context */
    assert_int_equal(w->state, WORKER_RESTARTING);
    assert_int_equal(did.settled_with_error[WAIT_PARK], 2);
}

static void a_stop_while_it_is_parked_stays(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    worker_event(w, EV_PARK);
    worker_event(w, EV_SAVED);
    w->wants_up = false; /* while it stops */
    worker_event(w, EV_STOP);
    ends(SIGTERM, 0, true);
    assert_int_equal(w->state, WORKER_STOPPED);
    wish_set(&w->next, NULL, NULL); /* an unload takes the files along */
    w->wants_up = true;
    worker_event(w, EV_LOAD);
    assert_int_equal(did.forgets, 1);
}

/* Three faults of its own with one model, soon after each other: without it until somebody loads something. */
static void a_crash_loop_ends_in_safe_mode(void **state)
{
    (void)state;
    ready_with("/m/a");
    for (int i = 0; i < 2; i++) {
        ends(SIGSEGV, 0, false);
        assert_int_equal(w->state, WORKER_RESTARTING);
        worker_event(w, EV_TIMEOUT);
        worker_event(w, EV_LISTENING);
        worker_event(w, EV_LOADED);
    }
    ends(SIGKILL, 0, false); /* from outside: does not count */
    assert_false(w->safe_mode);
    worker_event(w, EV_TIMEOUT);
    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    ends(SIGSEGV, 0, false);
    assert_true(w->safe_mode);
    assert_int_equal(w->state, WORKER_STARTING); /* the picture worker is up, without */
    did.asked_to_load = NULL;
    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    assert_null(did.asked_to_load);
    assert_int_equal(w->state, WORKER_READY);
    assert_null(w->loaded);
    assert_non_null(strstr(w->reason, "safe mode"));
    wish_set(&w->next, "/m/a", NULL);
    worker_event(w, EV_LOAD);
    assert_string_equal(did.asked_to_load, "/m/a");
    worker_event(w, EV_LOADED);
    assert_false(w->safe_mode);
    assert_string_equal(w->loaded, "/m/a");
    assert_string_equal(w->reason, "");
}

static void crashes_far_apart_are_no_loop(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    for (int i = 0; i < 6; i++) {
        w->ready_ms -= CRASH_APART_MS;
        ends(SIGSEGV, 0, false);
        assert_int_equal(w->state, WORKER_RESTARTING);
        worker_event(w, EV_TIMEOUT);
        worker_event(w, EV_LISTENING);
        worker_event(w, EV_LOADED);
    }
    assert_false(w->safe_mode);
}

static void a_lost_file_is_not_spawned_for(void **state)
{
    (void)state;
    did.file_is_gone = true;
    wish_set(&w->wanted, "/m/a.gguf", NULL);
    worker_event(w, EV_START);
    assert_int_equal(w->state, WORKER_FAILED);
    assert_int_equal(did.launches, 0);
    assert_string_equal(w->reason, "there is no model file /m/a.gguf");
}

static void stop_stays_stopped_restart_does_not(void **state)
{
    (void)state;
    ready_with("/m/a.gguf");
    worker_event(w, EV_STOP); /* wants_up: a restart */
    ends(SIGTERM, 0, true);
    assert_int_equal(w->state, WORKER_STARTING);
    worker_event(w, EV_LISTENING);
    worker_event(w, EV_LOADED);
    w->wants_up = false;
    worker_event(w, EV_STOP);
    ends(SIGTERM, 0, true);
    assert_int_equal(w->state, WORKER_STOPPED);
    assert_int_equal(did.settled[WAIT_STOP], 1);
    assert_string_equal(w->wanted.path, "/m/a.gguf"); /* comes back with a start */
    assert_int_equal(w->restarts, 0);                 /* nobody's fault */
}

static void a_missing_program_is_a_failed_start(void **state)
{
    (void)state;
    did.launch_fails = 1;
    wish_set(&w->wanted, "/m/a.gguf", NULL);
    worker_event(w, EV_START);
    assert_int_equal(w->state, WORKER_RESTARTING);
    assert_string_equal(w->reason, "no such program");
    w->wants_up = false;
    worker_event(w, EV_STOP);
    assert_int_equal(w->state, WORKER_STOPPED);
}

/* Every event in every state: nothing crashes, and the process is never forgotten while it lives. */
static void no_pair_is_deadly(void **state)
{
    (void)state;
    for (int kind = 0; kind < WORKER_KINDS; kind++) {
        for (unsigned seed = 0; seed < 3000; seed++) {
            unsigned random = seed * 2654435761u + 12345;

            tear_down(NULL);
            set_up((enum worker_kind)kind);
            wish_set(&w->wanted, "/m/a", NULL);
            for (int step = 0; step < 30; step++) {
                enum worker_event event;

                random = random * 1664525u + 1013904223u;
                event = (enum worker_event)((random >> 16) % EV_COUNT);
                if (event == EV_EXITED && !w->process)
                    continue;
                if (event == EV_LOAD)
                    wish_set(&w->next, random & 1 << 12 ? "/m/b" : NULL, NULL);
                if (event == EV_STOP)
                    w->wants_up = random & 1 << 13;
                if (event == EV_START)
                    w->wants_up = true;
                w->exit.signal = random & 1 << 14 ? SIGKILL : 0;
                worker_event(w, event);
                assert_true(w->state != WORKER_STOPPED || !w->process);
                assert_true(w->state != WORKER_RESTARTING || timer_ms() > 0);
                assert_true((w->state != WORKER_READY && w->state != WORKER_STARTING &&
                             w->state != WORKER_STOPPING &&
                             w->state != WORKER_LOADING) ||
                            w->process);
            }
        }
    }
}

#define SD(name) cmocka_unit_test_setup_teardown(name, set_up_sd, tear_down)
#define LLM(name) cmocka_unit_test_setup_teardown(name, set_up_llm, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SD(starts_loads_stores),
        SD(without_model_it_is_ready_and_stores_nothing),
        SD(work_makes_busy),
        SD(killed_workers_come_back_at_once),
        SD(failed_starts_back_off),
        SD(a_kill_while_loading_is_no_failure_but_waits),
        SD(a_start_that_hangs_is_killed_and_counts),
        SD(a_hung_worker_is_killed_and_replaced),
        SD(a_refused_model_leaves_the_old_one),
        SD(a_model_that_kills_is_not_tried_again),
        SD(a_restore_that_is_refused_fails_and_tries_again),
        SD(a_worker_busy_with_itself_is_asked_again),
        LLM(text_changes_by_a_new_process),
        LLM(a_failed_text_load_brings_the_old_one_back),
        LLM(text_without_model_has_no_process),
        LLM(parking_saves_and_comes_back_with_the_context),
        LLM(parking_waits_for_what_runs_but_not_for_ever),
        LLM(text_waits_for_memory_before_it_has_a_process),
        LLM(a_text_model_without_memory_is_tried_again_or_given_up),
        LLM(a_parked_one_without_memory_stays_parked),
        LLM(who_waits_for_parking_hears_of_a_change_of_mind),
        SD(a_picture_model_waits_for_memory_in_its_process),
        LLM(a_stop_while_it_is_parked_stays),
        SD(a_crash_loop_ends_in_safe_mode),
        LLM(crashes_far_apart_are_no_loop),
        LLM(a_lost_file_is_not_spawned_for),
        LLM(stop_stays_stopped_restart_does_not),
        LLM(a_missing_program_is_a_failed_start),
        SD(no_pair_is_deadly),
    };

    return RUN_TESTS(tests);
}

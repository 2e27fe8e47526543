/* The way of the first job:
 *
 *   begin -> (another model was asked for: supervisor_load) -> supervisor_when_ready -> room for it (room.c)
 *         -> send -> stream of events
 *         -> the store saves each picture -> on_picture, in order -> on_end
 *
 * What can go wrong, and what then happens:
 * - the worker refuses the job (4xx, out of memory): the job fails with the worker's sentence.
 * - the worker is still at something else (409, a job that was just cancelled): asked again every 50 ms; it has
 *   to come free within one of its operations.
 * - the worker dies, or talks nonsense: the job is run again, for the pictures that are still missing. Seeds are
 *   drawn in the server, so the second run draws the same pictures. When the worker is back it is known how it ended: a
 *   second end by its own fault ends the job, for a job that kills its worker must not be fed to it for ever; being killed from
 *   outside does not count.
 * - the worker says nothing for long and uses no processor time either: it is hung and is restarted; the job fails.
 *   It is not run again, for the limit is minutes and the client has waited them once. As long as it computes it
 *   may take any time: one step of a large picture on a small machine can take longer than the limit.
 * - another load is under way when this job wants its own: waited for, then asked again.
 *
 * Cancelling closes the connection to the worker, which is its sign to stop. Rejected: POST /internal/cancel and
 * waiting for the stream's end, which is a second mechanism with states of its own for the same effect.
 *
 * Callbacks come late: a load or a save may be answered when its job is long over. Such questions carry the job's
 * memory (saves) or are recognised as stale by the stage and the job's id (loads), and hold a reference on the queue.
 */
#include "server/queue/run.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "server/log/log.h"
#include "server/memory/memory.h"
#include "server/store/jobs.h"
#include "server/store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTEMPTS 2
#define ASK_AGAIN_MS 50
#define CONFLICTS_MAX 100
#define COMPUTING_PERCENT 5 /* of the silent time spent on the processor: not hung */
#define PREVIEW_MS 50
#define ERROR_ANSWER_MAX ((size_t)64 * 1024)

static void prepare(struct job_queue *q);
static void wait_for_worker(struct job_queue *q);

static void set_step(struct job *job, enum job_step step)
{
    if (job->step != step)
        log_debug(job->queue->o.log, "%s: %s", job->id, job_step_word(step));
    job->step = step;
    job_changed(job);
}

void run_fail(struct job_queue *q, const struct err *err)
{
    job_end(q->run.job, JOB_FAILED, err);
}

/* ---- letting go ---- */

/* The worker's connection and all that belongs to one sending. */
static void drop_call(struct job_queue *q)
{
    struct run *r = &q->run;

    if (r->stage == RUN_SENT) {
        http_call_cancel(r->call);
        supervisor_work_end(q->o.supervisor, WORKER_SD, r->generation);
        run_leave_room(q);
        r->stage = RUN_WAITING;
    }
    r->call = NULL;
    uv_timer_stop(q->silence);
    worker_stream_release(&r->stream);
    buf_release(&r->answer);
    free(r->body);
    r->body = NULL;
}

void run_drop(struct job_queue *q)
{
    struct run *r = &q->run;

    if (r->stage == RUN_WAITING && r->wait)
        supervisor_wait_cancel(r->wait);
    drop_call(q);
    run_leave_room(q);
    r->wait = NULL;
    r->job = NULL;
    r->stage = RUN_IDLE;
}

/* ---- the model ---- */

struct load_question {
    struct job_queue *queue;
    char job[32];
};

static void on_loaded(void *user, const struct err *err)
{
    struct load_question *l = user;
    struct job_queue *q = l->queue;
    struct run *r = &q->run;

    if (r->stage == RUN_LOADING && !strcmp(r->job->id, l->job)) {
        if (err)
            run_fail(q, err);
        else
            wait_for_worker(q);
    }
    free(l);
    job_queue_unref(q);
}

static void start_load(struct job_queue *q, const char *path)
{
    struct run *r = &q->run;
    struct load_question *l = mem_zalloc(sizeof(*l));
    const struct supervisor_load load = {.path = path,
                                         .options = WORKER_LOAD_OPTIONS_DEFAULT,
                                         .done = on_loaded,
                                         .data = l};
    struct err err = {0};

    l->queue = q;
    snprintf(l->job, sizeof(l->job), "%s", r->job->id);
    r->stage = RUN_LOADING;
    q->references++;
    if (!supervisor_load(q->o.supervisor, WORKER_SD, &load, &err))
        return;
    q->references--;
    free(l);
    if (err.code == ERR_CONFLICT && ++r->conflicts < CONFLICTS_MAX)
        wait_for_worker(q);
    else
        run_fail(q, &err);
}

/* The same process is there still: then it talked nonsense. */
static bool was_its_own_fault(struct job_queue *q, unsigned generation)
{
    struct worker_snapshot w;

    supervisor_snapshot(q->o.supervisor, WORKER_SD, &w);
    if (q->holding)
        return false; /* it was told to go */
    return (w.pid && w.generation == generation) || w.exit.is_own_fault;
}

/* The worker that was lost is back, or it is known that it will not be. False: the job has failed. */
static bool judge_loss(struct job_queue *q)
{
    struct job *job = q->run.job;
    struct err err = {0};

    if (!job->was_broken)
        return true;
    job->was_broken = false;
    if (!was_its_own_fault(q, job->broken_generation))
        return true;
    job->attempts++;
    if (!job->is_fleeting)
        job_store_begun(q->o.db, q->o.log, job->id, job->attempts);
    if (job->attempts < ATTEMPTS)
        return true;
    err_set(
        &err, ERR_BAD_GATEWAY,
        "the picture worker failed twice at this picture (%s): it may be too large for "
        "this machine, or the model's file damaged",
        job->broken_why.message);
    run_fail(q, &err);
    return false;
}

static void on_ready(void *user, const struct err *err)
{
    struct job_queue *q = user;

    q->run.wait = NULL;
    if (!judge_loss(q))
        return;
    if (err)
        run_fail(q, err);
    else
        prepare(q);
}

/* A picture is made larger by whatever model is loaded, or without. */
enum supervisor_need run_need(const struct job *job)
{
    return job->request.upscale.upscaler ? NEED_PROCESS : NEED_MODEL;
}

static void wait_for_worker(struct job_queue *q)
{
    q->run.stage = RUN_WAITING;
    supervisor_summon(q->o.supervisor, WORKER_SD);
    q->run.wait = supervisor_when_ready(q->o.supervisor, WORKER_SD,
                                        run_need(q->run.job), on_ready, q);
}

/* The worker takes work or nothing is known of it: is its model the right one? */
static void prepare(struct job_queue *q)
{
    struct job *job = q->run.job;
    const char *wanted = job->request.model_path;
    struct worker_snapshot now;

    supervisor_snapshot(q->o.supervisor, WORKER_SD, &now);
    if (wanted && (!now.model || strcmp(now.model, wanted) != 0))
        start_load(q, wanted);
    else if (!supervisor_is_ready(q->o.supervisor, WORKER_SD, run_need(job)))
        wait_for_worker(q);
    else
        run_ask_room(q);
}

/* ---- the pictures ---- */

struct save_question {
    struct job *job;
    int index;
};

void job_hand_out(struct job *job)
{
    for (struct job_watch *w = job->watches, *next; w; w = next) {
        next = w->next;
        while (w->delivered < job->received && job->slots[w->delivered].saved) {
            struct job_slot *slot = &job->slots[w->delivered];
            struct job_picture picture = {
                .index = w->delivered++,
                .seed = slot->seed,
                .width = slot->width,
                .height = slot->height,
                .png = slot->png,
                .size = slot->size,
                .file = slot->file,
                .save_error = slot->save_error.code ? &slot->save_error : NULL,
                .drawn_with = job->drawn_with,
            };
            if (w->on.on_picture)
                w->on.on_picture(w->user, &picture);
        }
    }
}

/* Tells what is saved, in order; ends the job after the last one. */
static void deliver(struct job *job)
{
    struct job_queue *q = job->queue;

    while (job->handed < job->received && job->slots[job->handed].saved) {
        struct job_slot *slot = &job->slots[job->handed];
        const struct picture_row row = {.number = job->handed++,
                                        .file = slot->file,
                                        .seed = slot->seed,
                                        .width = slot->width,
                                        .height = slot->height,
                                        .drawn_with = job->drawn_with};

        if (slot->file && !job->is_fleeting)
            job_store_picture(q->o.db, q->o.log, job->id, &row);
    }
    job_hand_out(job);
    if (job->handed == job->request.count && q->run.stage == RUN_SAVING)
        job_end(job, JOB_DONE, NULL);
}

static void on_saved(void *user, const struct err *err, const char *name)
{
    struct save_question *v = user;
    struct job *job = v->job;
    struct job_queue *q = job->queue;
    struct job_slot *slot = &job->slots[v->index];

    slot->saved = true;
    if (err) {
        slot->save_error = *err;
        log_error(q->o.log, "%s: %s", job->id, err->message);
    } else {
        slot->file = mem_strdup(name);
    }
    job->saving--;
    free(v);
    if (job->ended)
        job_free_if_over(job);
    else
        deliver(job);
    job_queue_unref(q);
}

static int64_t integer_of(const json_t *o, const char *key, int64_t fallback)
{
    const json_t *v = json_object_get(o, key);

    return json_is_integer(v) ? json_integer_value(v) : fallback;
}

static void on_worker_preview(struct job_queue *q, struct job *job, const json_t *head,
                              const unsigned char *png, size_t size)
{
    const struct job_preview preview = {.image = job->image,
                                        .step = (int)integer_of(head, "step", 0),
                                        .steps = (int)integer_of(head, "steps", 0),
                                        .width = (int)integer_of(head, "width", 0),
                                        .height = (int)integer_of(head, "height", 0),
                                        .png = png,
                                        .size = size};

    for (struct job_watch *w = job->watches, *next; w; w = next) {
        next = w->next;
        if (w->on.on_preview)
            w->on.on_preview(w->user, &preview);
    }
    if (q->previews.preview)
        q->previews.preview(q->previews.user, job->id, &preview);
}

static void on_worker_picture(void *user, const json_t *head, unsigned char *png,
                              size_t size)
{
    struct job_queue *q = user;
    struct job *job = q->run.job;
    const char *event = json_string_value(json_object_get(head, "event"));

    if (event && !strcmp(event, "preview")) {
        on_worker_preview(q, job, head, png, size);
        free(png);
        return;
    }
    if (job->received >= job->request.count) {
        free(png);
        return;
    }
    struct job_slot *slot = &job->slots[job->received];
    struct save_question *v = mem_zalloc(sizeof(*v));

    if (q->sampling_from_ms)
        job_measured(job, clock_ms() - q->sampling_from_ms);
    q->sampling_from_ms = 0;
    slot->png = png;
    slot->size = size;
    slot->seed = integer_of(head, "seed", job->request.seed + job->received);
    slot->width = (int)integer_of(head, "width", job->request.width);
    slot->height = (int)integer_of(head, "height", job->request.height);
    v->job = job;
    v->index = job->received++;
    job->saving++;
    q->references++;
    set_step(job, JOB_SAVING);
    store_save(q->o.store, png, size, slot->seed, on_saved, v);
}

/* ---- the worker's events ---- */

static void on_phase(struct job *job, const json_t *event)
{
    static const struct {
        const char *word;
        enum job_step step;
    } phases[] = {{"encode", JOB_ENCODING},
                  {"sample", JOB_SAMPLING},
                  {"decode", JOB_DECODING},
                  {"upscale", JOB_UPSCALING}};
    const char *phase = json_string_value(json_object_get(event, "phase"));

    for (size_t i = 0; phase && i < sizeof(phases) / sizeof(phases[0]); i++) {
        if (strcmp(phase, phases[i].word) != 0)
            continue;
        if (phases[i].step == JOB_SAMPLING && !job->queue->sampling_from_ms)
            job->queue->sampling_from_ms = clock_ms();
        int image = job->received < job->request.count ? job->received : job->image;

        if (image != job->image) {
            job->image = image;
            job->sample_step = 0;
            job->eta_ms = -1;
        }
        set_step(job, phases[i].step);
    }
}

static int bounded(int64_t n)
{
    return n < 0 ? 0 : n > 1000000 ? 1000000 : (int)n;
}

/* Takes the event over. */
static void add_drawn_with(struct job *job, const char *what, json_t *event)
{
    json_object_del(event, "event");
    if (!job->drawn_with)
        job->drawn_with = json_object();
    if (!json_object_get(job->drawn_with, what))
        json_object_set_new(job->drawn_with, what, json_array());
    json_array_append_new(json_object_get(job->drawn_with, what), event);
}

/* Kept for the answer, and said in the log: a LoRA that changes half of what it was made to change looks like a weak
 * one. */
static void take_lora(struct job *job, const json_t *event)
{
    json_t *lora = json_deep_copy(event);
    const char *name = json_string_value(json_object_get(lora, "name"));
    const char *other = json_string_value(json_object_get(lora, "first_unmatched"));
    int64_t matched = integer_of(lora, "matched", 0),
            unmatched = integer_of(lora, "unmatched", 0);

    if (!name) {
        json_decref(lora);
        return;
    }
    log_info(job->queue->o.log,
             "%s: LoRA '%.100s', text %g, U-Net %g: %" PRId64 " of its %" PRId64
             " keys change the model%s%.200s",
             job->id, name, json_number_value(json_object_get(lora, "text")),
             json_number_value(json_object_get(lora, "unet")), matched,
             matched + unmatched, other ? "; not, for one: " : "", other ? other : "");
    add_drawn_with(job, "loras", lora);
}

static void take_embedding(struct job *job, const json_t *event)
{
    const char *name = json_string_value(json_object_get(event, "name"));

    if (!name)
        return;
    log_info(job->queue->o.log, "%s: textual inversion '%.100s', %" PRId64 " vectors",
             job->id, name, integer_of(event, "vectors", 0));
    add_drawn_with(job, "embeddings", json_deep_copy(event));
}

static void on_worker_event(void *user, const char *name, const json_t *event)
{
    struct job_queue *q = user;
    struct job *job = q->run.job;

    if (!strcmp(name, "phase")) {
        on_phase(job, event);
    } else if (!strcmp(name, "step")) {
        job->sample_step = bounded(integer_of(event, "step", 0));
        job->sample_steps = bounded(integer_of(event, "steps", 0));
        job->eta_ms = integer_of(event, "eta_ms", -1);
        set_step(job, job->request.upscale.upscaler ? JOB_UPSCALING : JOB_SAMPLING);
    } else if (!strcmp(name, "lora")) {
        take_lora(job, event);
    } else if (!strcmp(name, "embedding")) {
        take_embedding(job, event);
    } else if (!strcmp(name, "done")) {
        q->run.said_done = true;
    } else if (!strcmp(name, "error")) {
        const json_t *e = json_object_get(event, "error");
        const char *slug = json_string_value(json_object_get(e, "code"));
        const char *message = json_string_value(json_object_get(e, "message"));

        err_set(&q->run.said_error,
                err_code_from_slug(slug ? slug : "", ERR_BAD_GATEWAY), "%s",
                message ? message : "the picture worker failed without a reason");
    }
}

/* ---- failures ---- */

/* Nothing, or nothing sensible, came from the worker. Whose fault that was is known when its end is. */
static void worker_failed(struct job_queue *q, const struct err *why)
{
    struct job *job = q->run.job;
    unsigned generation = q->run.generation;

    drop_call(q);
    supervisor_suspect(q->o.supervisor, WORKER_SD, generation);
    if (job->received == job->request.count) { /* it only could not say so any more */
        q->run.stage = RUN_SAVING;
        deliver(job);
        return;
    }
    job->was_broken = true;
    job->broken_generation = generation;
    job->broken_why = *why;
    log_warning(q->o.log, "%s: %s; it is run again", job->id, why->message);
    job->sample_step = 0;
    job->eta_ms = -1;
    set_step(job, JOB_PREPARING);
    wait_for_worker(q);
}

static void on_ask_again(uv_timer_t *timer)
{
    struct job_queue *q = timer->data;

    if (q->run.stage == RUN_BUSY)
        prepare(q);
}

void run_ask_again(struct job_queue *q)
{
    q->run.stage = RUN_BUSY;
    uv_timer_start(q->silence, on_ask_again, ASK_AGAIN_MS, 0);
}

/* The answer was no 200: what the worker says about it. */
static void worker_refused(struct job_queue *q)
{
    struct run *r = &q->run;
    json_t *answer = json_loadb(buf_str(&r->answer), r->answer.len, 0, NULL);
    const json_t *e = json_object_get(answer, "error");
    const char *message = json_string_value(json_object_get(e, "message"));
    const char *slug = json_string_value(json_object_get(e, "code"));
    const char *param = json_string_value(json_object_get(e, "param"));
    struct err err = {0};
    int status = r->status;

    err_set_param(&err, err_code_from_slug(slug ? slug : "", ERR_BAD_GATEWAY),
                  param ? param : "", "%s",
                  message ? message
                          : "the picture worker refused the job without a reason");
    json_decref(answer);
    if (status == 409) {
        drop_call(q);
        run_ask_again(q);
    } else if (status == 401 || err.code == ERR_UNAVAILABLE) {
        worker_failed(
            q, &err); /* not the process, or not the model, that we took it for */
    } else {
        run_fail(q, &err);
    }
}

/* A hung process uses no processor time; one that computes a large step on a small machine does nothing else. */
static bool is_computing(struct job_queue *q)
{
    uint64_t before = q->run.cpu_ms;

    q->run.cpu_ms = memory_cpu_ms_of_process("", q->run.pid);
    return q->run.cpu_ms > before + q->o.silence_limit_ms / 100 * COMPUTING_PERCENT;
}

static void on_silence(uv_timer_t *timer)
{
    struct job_queue *q = timer->data;
    struct err err = {0};

    if (is_computing(q))
        return; /* the timer repeats: looked at again after as long a time */
    err_set(&err, ERR_GATEWAY_TIMEOUT,
            "the picture worker said nothing for %llu s and was restarted",
            (unsigned long long)(clock_ms() - q->run.heard_ms) / 1000);
    drop_call(q);
    (void)!supervisor_restart(q->o.supervisor, WORKER_SD, SUPERVISOR_FORCE, NULL, NULL,
                              NULL);
    run_fail(q, &err);
}

static void heard(struct job_queue *q)
{
    q->run.heard_ms = clock_ms();
    uv_timer_again(q->silence);
}

/* ---- the call ---- */

static void on_head(void *user, const struct http_answer *head)
{
    struct job_queue *q = user;

    q->run.status = head->status;
    heard(q);
}

static void on_data(void *user, const char *data, size_t len)
{
    struct job_queue *q = user;
    struct run *r = &q->run;
    struct err err = {0};

    heard(q);
    if (r->status != 200) {
        if (r->answer.len + len <= ERROR_ANSWER_MAX)
            buf_append(&r->answer, data, len);
    } else if (worker_stream_feed(&r->stream, data, len, &err)) {
        if (err.code == ERR_NO_MEMORY)
            run_fail(q, &err);
        else
            worker_failed(q, &err);
    }
}

static void on_end(void *user)
{
    struct job_queue *q = user;
    struct run *r = &q->run;
    struct job *job = r->job;
    struct err err = {0};

    r->call = NULL;
    if (r->status != 200) {
        worker_refused(q);
    } else if (r->said_error.code) {
        run_fail(q, &r->said_error);
    } else if (!r->said_done || job->received < job->request.count) {
        err_set(&err, ERR_BAD_GATEWAY, "the picture worker stopped before it was done");
        worker_failed(q, &err);
    } else {
        drop_call(q);
        r->stage = RUN_SAVING;
        deliver(job);
    }
}

static void on_error(void *user, enum http_failure failure, const struct err *err)
{
    struct job_queue *q = user;

    (void)failure;
    q->run.call = NULL;
    worker_failed(q, err);
}

static bool wants_previews(const struct job *job)
{
    for (const struct job_watch *w = job->watches; w; w = w->next)
        if (w->on.on_preview)
            return true;
    return job->queue->previews.wants &&
           job->queue->previews.wants(job->queue->previews.user);
}

/* The job as the worker wants it: what the request leaves open is left out. */
char *run_job_body(const struct job *job)
{
    const struct image_request *r = &job->request;
    bool varies = r->variation_strength > 0;
    int64_t seed = varies ? r->seed : r->seed + job->received;
    json_t *body =
        json_pack("{s:s, s:I, s:i}", "prompt", r->prompt, "seed",
                  (json_int_t)(seed & 0xffffffff), "count", r->count - job->received);

    if (varies)
        json_object_set_new(
            body, "variation_seed",
            json_integer((r->variation_seed + job->received) & 0xffffffff));
    if (r->seeds)
        json_object_set_new(body, "seeds", image_request_seeds(r, job->received));
    if (r->negative_prompt)
        json_object_set_new(body, "negative_prompt", json_string(r->negative_prompt));
    if (r->width)
        json_object_set_new(body, "width", json_integer(r->width));
    if (r->height)
        json_object_set_new(body, "height", json_integer(r->height));
    if (r->steps)
        json_object_set_new(body, "steps", json_integer(r->steps));
    if (r->cfg_scale >= 0)
        json_object_set_new(body, "cfg_scale", json_real(r->cfg_scale));
    if (job->budget_bytes)
        json_object_set_new(body, "budget_bytes",
                            json_integer((json_int_t)job->budget_bytes));
    if (wants_previews(job))
        json_object_set_new(body, "preview_ms", json_integer(PREVIEW_MS));
    image_request_put_sampling(body, r);
    image_request_put_start(body, r);
    image_request_put_upscale(body, r);
    image_request_put_hires(body, r);
    char *text = json_dumps(body, JSON_COMPACT);

    json_decref(body);
    return text;
}

void run_send(struct job_queue *q)
{
    static const struct http_call_handlers handlers = {
        .on_head = on_head, .on_data = on_data, .on_end = on_end, .on_error = on_error};
    struct run *r = &q->run;
    struct worker_snapshot worker;

    supervisor_snapshot(q->o.supervisor, WORKER_SD, &worker);
    snprintf(r->authorization, sizeof(r->authorization), "Bearer %s", worker.token);
    r->body = run_job_body(r->job);
    r->status = 0;
    r->said_done = false;
    q->sampling_from_ms = r->job->request.upscale.upscaler ? clock_ms() : 0;
    r->said_error.code = ERR_NONE;
    json_decref(r->job->drawn_with);
    r->job->drawn_with = NULL;
    r->stream = (struct worker_stream){
        .on_event = on_worker_event, .on_picture = on_worker_picture, .user = q};
    const struct http_field headers[] = {{"Authorization", r->authorization},
                                         {"Content-Type", "application/json"}};
    const struct http_call_options o = {
        .port = worker.port,
        .method = "POST",
        .target = "/internal/generate",
        .headers = headers,
        .header_count = 2,
        .body = r->body,
        .body_len = strlen(r->body),
        .on = &handlers,
        .user = q,
    };

    r->stage = RUN_SENT;
    r->pid = worker.pid;
    r->cpu_ms = memory_cpu_ms_of_process("", worker.pid);
    r->heard_ms = clock_ms();
    r->generation = supervisor_work_begin(q->o.supervisor, WORKER_SD);
    r->call = http_call_start(q->o.client, &o);
    uv_timer_start(q->silence, on_silence, q->o.silence_limit_ms,
                   q->o.silence_limit_ms);
}

/* ---- the beginning ---- */

/* The next one to the head of the list; NULL: none may begin. */
static struct job *take_next(struct job_queue *q)
{
    struct worker_snapshot worker;
    struct pick_job *jobs;
    struct job *job, **at = &q->first;
    int count = 0, index;

    supervisor_snapshot(q->o.supervisor, WORKER_SD, &worker);
    for (job = q->first; job; job = job->next)
        count++;
    jobs = mem_alloc(((size_t)count + 1) * sizeof(*jobs));
    count = 0;
    for (job = q->first; job; job = job->next)
        jobs[count++] = (struct pick_job){.model = job->request.model_path,
                                          .waited_ms = clock_ms() - job->added_ms,
                                          .is_ready = job->is_stored};
    index = pick_next(jobs, count, worker.model, q->o.age_bound_ms);
    free(jobs);
    if (index < 0)
        return NULL;
    for (int i = 0; i < index; i++)
        at = &(*at)->next;
    job = *at;
    *at = job->next;
    job->next = q->first;
    q->first = job;
    return job;
}

static void on_begin(uv_timer_t *timer)
{
    struct job_queue *q = timer->data;
    struct job *job;

    if (q->run.stage != RUN_IDLE)
        return;
    job = take_next(q);
    if (!job)
        return;
    q->run.job = job;
    q->run.conflicts = 0;
    job->begun_ms = clock_ms();
    if (!job->is_fleeting)
        job_store_begun(q->o.db, q->o.log, job->id, job->attempts);
    log_info(q->o.log, "[Queue] %s: acquired after %.1f s", job->id,
             (double)(job->begun_ms - job->added_ms) / 1000);
    queue_renumber(q);
    set_step(job, JOB_PREPARING);
    if (job->received < job->request.count) {
        prepare(q);
    } else { /* all its pictures were there before the server was started again */
        q->run.stage = RUN_SAVING;
        deliver(job);
    }
}

/* From the loop, so that a job that fails at once does not do so inside job_queue_add. */
void run_next(struct job_queue *q)
{
    if (q->run.stage == RUN_IDLE && q->first && !q->holding &&
        !uv_is_active((uv_handle_t *)q->silence))
        uv_timer_start(q->silence, on_begin, 0, 0);
}

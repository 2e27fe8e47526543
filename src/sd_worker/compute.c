/* The engine belongs to one thread, which does one task after the other: open, load, unload, estimate, generate.
 * News travel in messages: the compute thread links one into a list under a lock and rings a uv_async; the loop
 * takes the whole list under the same lock and works it off afterwards. Tasks go the other way through a single
 * slot with a condition variable, for the worker never has two. Progress and the wish to cancel are atomics: they
 * may be late by an operation and nobody is hurt.
 *
 * Rejected: uv_queue_work, whose four pool threads are the loop's own for files and names, have no scheduling
 * class and no stack size; a pipe to ourselves, which is the same with copies.
 *
 * A new model is loaded before the old one is let go: a load that fails leaves the worker as it was. Who has no
 * room for both unloads first.
 *
 * Places: models load where the loop's thread stands, pictures are drawn where the policy says. A thread is lowered by
 * itself at the first picture; for going up again it is replaced by a new one, because without privileges there is no
 * other way. (OpenMP's helpers belong to the thread that they help, and go and come with it. So do those of
 * the reference back end.)
 *
 * Resting: after a step, as long as the policy says, on a condition that a cancel, the end of the text or another policy
 * wakes. At most REST_MAX_MS, so that a step that takes minutes is not followed by minutes of nothing.
 *
 * The thread lives as long as the process: at the end main() leaves with it in the middle of whatever it does,
 * which the kernel cleans up faster than any operation could be waited for. */
#include "sd_worker/compute.h"

#include "base/clock.h"
#include "base/mem.h"
#include "sd_worker/room.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { STACK_BYTES = 16 << 20, REST_MAX_MS = 5000 };

struct message {
    struct message *next;
    enum compute_event event;
    struct buf data;
    struct task *task; /* not NULL: this task is done; event and data mean nothing */
};

struct compute {
    struct compute_options options;
    uv_async_t bell;
    int nice; /* where the thread stands, or will once it draws */
    bool draws;

    pthread_mutex_t lock; /* guards what follows, held for a few instructions */
    pthread_cond_t has_task;
    pthread_cond_t stirred; /* whoever rests looks again */
    struct task *task;      /* submitted, not yet taken */
    unsigned generation;    /* of the thread; an older one ends */
    struct sharing_place place;
    int rest_percent;
    atomic_bool resting;
    struct message *first;
    struct message **last;

    atomic_bool cancel;
    _Atomic double progress;
    _Atomic(const char *) backend;

    /* the compute thread's own */
    struct engine *engine;
    struct engine_model *model;
    struct err open_err;
};

/* one job's view for the engine's callbacks */
struct run {
    struct compute *c;
    struct task *task;
    int count;
    int steps;
    uint64_t began_ns;
    uint64_t
        sampling_ns; /* when the current image's first step began, or the last one ended */
    uint64_t rested_ns;  /* when the last rest ended: from there the step computes */
    uint64_t sampled_ns; /* time in finished steps, all images */
    unsigned sampled;    /* finished steps, all images */
    uint64_t preview_ns; /* when the last preview was begun */
    uint64_t preview_cost_ns; /* what it took */
};

struct task *task_new(enum task_kind kind)
{
    struct task *task = mem_zalloc(sizeof(*task));

    task->kind = kind;
    return task;
}

void task_free(struct task *task)
{
    if (!task)
        return;
    request_release(&task->request);
    free(task->path);
    free(task->facts);
    free(task);
}

/* ---- from the compute thread to the loop ---- */

static void post(struct compute *c, struct message *m)
{
    pthread_mutex_lock(&c->lock);
    *c->last = m;
    c->last = &m->next;
    pthread_mutex_unlock(&c->lock);
    uv_async_send(&c->bell);
}

static void post_line(struct compute *c, json_t *line, const void *more,
                      size_t more_len)
{
    struct message *m = mem_zalloc(sizeof(*m));
    char *text = json_dumps(line, JSON_COMPACT);

    m->event = COMPUTE_LINE;
    buf_append_str(&m->data, text ? text : "{}");
    buf_append_str(&m->data, "\n");
    if (more) {
        buf_append(&m->data, more, more_len);
        buf_append_str(&m->data, "\n");
    }
    free(text);
    json_decref(line);
    post(c, m);
}

static void on_bell(uv_async_t *bell)
{
    struct compute *c = bell->data;
    struct message *m;

    pthread_mutex_lock(&c->lock);
    m = c->first;
    c->first = NULL;
    c->last = &c->first;
    pthread_mutex_unlock(&c->lock);
    while (m) {
        struct message *next = m->next;

        if (m->task) {
            c->draws = false;
            c->options.on_done(c->options.user, m->task);
        } else {
            c->options.on_event(c->options.user, m->event, &m->data);
        }
        buf_release(&m->data);
        free(m);
        m = next;
    }
}

/* ---- generate ---- */

static double ms_since(uint64_t ns)
{
    return (double)(clock_ns() - ns) / 1e6;
}

static bool is_cancelled(void *user)
{
    struct run *run = user;

    return atomic_load_explicit(&run->c->cancel, memory_order_relaxed);
}

static void on_phase(void *user, enum engine_phase phase, int image)
{
    struct run *run = user;

    if (phase == ENGINE_PHASE_SAMPLE || phase == ENGINE_PHASE_UPSCALE)
        run->sampling_ns = run->rested_ns = clock_ns();
    post_line(run->c,
              json_pack("{s:s, s:s, s:i}", "event", "phase", "phase",
                        engine_phase_name(phase), "image", image),
              NULL, 0);
}

static struct timespec time_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
                             .tv_nsec = (long)(ns % 1000000000)};
}

/* The share of others, after a step that computed for so long. */
static void rest(struct compute *c, uint64_t step_ns)
{
    const uint64_t began = clock_ns(), max = (uint64_t)REST_MAX_MS * 1000000;

    pthread_mutex_lock(&c->lock);
    while (!atomic_load(&c->cancel)) {
        uint64_t percent = (uint64_t)c->rest_percent;
        uint64_t length = step_ns / (100 - percent) * percent;
        uint64_t end = began + (length < max ? length : max);
        struct timespec at = time_of(end);

        if (clock_ns() >= end)
            break;
        atomic_store(&c->resting, true);
        pthread_cond_timedwait(&c->stirred, &c->lock, &at);
    }
    atomic_store(&c->resting, false);
    pthread_mutex_unlock(&c->lock);
}

static void on_step(void *user, int image, int step, int steps)
{
    struct run *run = user;
    uint64_t now = clock_ns();
    int left = steps - step + steps * (run->count - 1 - image);

    run->sampled_ns += now - run->sampling_ns;
    run->sampling_ns = now;
    run->sampled++;
    double step_ms = (double)run->sampled_ns / 1e6 / run->sampled;
    atomic_store(&run->c->progress,
                 (double)(image * steps + step) / ((double)run->count * steps));
    post_line(run->c,
              json_pack("{s:s, s:i, s:i, s:i, s:I, s:I}", "event", "step", "step", step,
                        "steps", steps, "image", image, "elapsed_ms",
                        (json_int_t)ms_since(run->began_ns), "eta_ms",
                        (json_int_t)(step_ms * left)),
              NULL, 0);
    if (step < steps) {
        rest(run->c, now - run->rested_ns);
        run->rested_ns = clock_ns();
    }
}

static void on_lora(void *user, const struct engine_lora *lora)
{
    struct run *run = user;

    post_line(run->c,
              json_pack("{s:s, s:s, s:f, s:f, s:I, s:I, s:s*}", "event", "lora", "name",
                        lora->name, "text", lora->text, "unet", lora->unet, "matched",
                        (json_int_t)lora->matched, "unmatched",
                        (json_int_t)lora->unmatched, "first_unmatched",
                        lora->first_unmatched),
              NULL, 0);
}

enum { PREVIEW_PART = 2 }; /* previews take at most half of the time */

static void on_embedding(void *user, const struct engine_embedding *embedding)
{
    struct run *run = user;

    post_line(run->c,
              json_pack("{s:s, s:s, s:i}", "event", "embedding", "name",
                        embedding->name, "vectors", embedding->vectors),
              NULL, 0);
}

static bool wants_preview(void *user, int image, int step, int steps)
{
    struct run *run = user;
    int64_t every_ms = run->task->request.preview_ms;
    uint64_t now = clock_ns();

    (void)image;
    (void)step;
    (void)steps;
    if (every_ms < 0 || now - run->preview_ns < (uint64_t)every_ms * 1000000 ||
        (every_ms && now - run->preview_ns < PREVIEW_PART * run->preview_cost_ns))
        return false;
    run->preview_ns = now;
    return true;
}

static void on_preview(void *user, const struct engine_preview *p)
{
    struct run *run = user;

    run->preview_cost_ns = clock_ns() - run->preview_ns;
    post_line(run->c,
              json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:I}", "event", "preview",
                        "image", p->image, "step", p->step, "steps", p->steps, "width",
                        p->width, "height", p->height, "bytes",
                        (json_int_t)p->png_bytes),
              p->png, p->png_bytes);
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct run *run = user;

    (void)err;
    post_line(run->c,
              json_pack("{s:s, s:i, s:I, s:i, s:i, s:s, s:I}", "event", "image",
                        "index", image->index, "seed", (json_int_t)image->seed, "width",
                        image->width, "height", image->height, "parameters",
                        image->parameters, "bytes", (json_int_t)image->png_bytes),
              image->png, image->png_bytes);
    return true;
}

static int no_model(struct err *err)
{
    return err_set(err, ERR_UNAVAILABLE, "no picture model is loaded");
}

/* Everything that can be said against a job before it starts. */
static int admit(struct compute *c, const struct engine_job *job, struct err *err)
{
    struct engine_estimate estimate;

    if (engine_job_check(c->model, job, err) ||
        engine_estimate(c->model, job, &estimate, err))
        return -1;
    return room_check(ROOM_MEMINFO, estimate.peak_bytes - estimate.resident_bytes, err);
}

static void take_place(struct compute *c)
{
    struct sharing_place place;

    pthread_mutex_lock(&c->lock);
    place = c->place;
    pthread_mutex_unlock(&c->lock);
    cage_place_compute(place);
}

/* The job is right and begins. */
static void start_drawing(struct compute *c)
{
    struct message *started = mem_zalloc(sizeof(*started));

    take_place(c);
    started->event = COMPUTE_STARTED;
    post(c, started);
}

static struct engine_events events_of(struct run *run)
{
    return (struct engine_events){.on_lora = on_lora,
                                  .on_embedding = on_embedding,
                                  .on_phase = on_phase,
                                  .on_step = on_step,
                                  .wants_preview = wants_preview,
                                  .on_preview = on_preview,
                                  .on_image = on_image,
                                  .is_cancelled = is_cancelled,
                                  .user = run};
}

static struct run run_of(struct compute *c, struct task *task)
{
    return (struct run){.c = c,
                        .task = task,
                        .count = 1,
                        .began_ns = clock_ns(),
                        .sampling_ns = clock_ns()};
}

static int run_generate(struct compute *c, struct task *task)
{
    struct engine_job job;
    struct run run = run_of(c, task);
    const struct engine_events events = events_of(&run);
    struct request_files files = {0};
    int rc = -1;

    if (!c->model)
        return no_model(&task->err);
    request_job(&task->request, c->model, &job);
    if (request_read_files(&task->request, &files, &job, &task->err) ||
        admit(c, &job, &task->err))
        goto out;
    run.count = job.count;
    run.steps = job.steps;
    start_drawing(c);
    rc = engine_generate(c->model, &job, &events, &task->err);
out:
    request_files_release(&files);
    return rc;
}

/* ---- upscale ---- */

/* The network is there for one job: it is read in a second, and kept it would have to be counted as resident. */
static int run_upscale(struct compute *c, struct task *task)
{
    struct run run = run_of(c, task);
    const struct engine_events events = events_of(&run);
    struct upscale_request up;
    int rc = -1;

    if (!c->engine) {
        task->err = c->open_err;
        return -1;
    }
    if (upscale_request_open(&up, &task->request, c->engine, &task->err) == 0 &&
        engine_upscale_estimate(up.upscaler, &up.job, &task->estimate, &task->err) ==
            0) {
        if (task->kind == TASK_ESTIMATE) {
            rc = 0;
        } else if (room_check(ROOM_MEMINFO, task->estimate.peak_bytes, &task->err) ==
                   0) {
            start_drawing(c);
            rc = engine_upscale(up.upscaler, &up.job, &events, &task->err);
        }
    }
    upscale_request_release(&up);
    return rc;
}

/* ---- the other tasks ---- */

static int run_open(struct compute *c, struct err *err)
{
    struct engine_options options = {.backend = c->options.backend,
                                     .weights = c->options.weights,
                                     .threads = c->options.threads,
                                     .upscaler_folder = c->options.upscaler_folder,
                                     .embedding_folder = c->options.embedding_folder,
                                     .vae_folder = c->options.vae_folder,
                                     .vae = c->options.vae,
                                     .preview_method = c->options.preview_method};

    memcpy(options.lora_folders, c->options.lora_folders, sizeof(options.lora_folders));
    if (engine_open(&c->engine, &options, &c->open_err)) {
        if (err)
            *err = c->open_err;
        return -1;
    }
    atomic_store(&c->backend, engine_backend_name(c->engine));
    return 0;
}

static bool on_load_progress(void *user, double progress)
{
    struct compute *c = user;

    atomic_store(&c->progress, progress);
    return atomic_load(&c->cancel);
}

static char *facts_of(const struct engine_model *model)
{
    struct engine_model_info i;

    engine_model_info(model, &i);
    json_t *facts = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:f, s:s, s:s, s:s}", "model", i.path,
        "name", i.name, "family", i.family, "parameters", (json_int_t)i.parameters,
        "resident_bytes", (json_int_t)i.resident_bytes, "default_width",
        i.default_width, "default_height", i.default_height, "default_steps",
        i.default_steps, "default_cfg_scale", i.default_cfg_scale, "default_sampler",
        i.default_sampler, "default_scheduler", i.default_scheduler, "prediction",
        i.prediction);
    char *text = facts ? json_dumps(facts, JSON_COMPACT) : NULL;

    json_decref(facts);
    return text ? text : mem_strdup("{}"); /* a path that is no UTF-8 */
}

static int run_load(struct compute *c, struct task *task)
{
    const struct engine_load_events events = {.on_progress = on_load_progress,
                                              .user = c};
    struct engine_model *model;

    if (!c->engine) {
        task->err = c->open_err;
        return -1;
    }
    if (engine_model_load(&model, c->engine, task->path, &events, &task->err))
        return -1;
    engine_model_free(c->model);
    c->model = model;
    task->facts = facts_of(model);
    return 0;
}

static int run_estimate(struct compute *c, struct task *task)
{
    struct engine_job job;

    if (!c->model)
        return no_model(&task->err);
    struct request_files files = {0};
    int rc = -1;

    request_job(&task->request, c->model, &job);
    if (request_read_files(&task->request, &files, &job, &task->err) == 0)
        rc = engine_estimate(c->model, &job, &task->estimate, &task->err);
    request_files_release(&files);
    return rc;
}

static int run_task(struct compute *c, struct task *task)
{
    switch (task->kind) {
    case TASK_OPEN:
        return run_open(c, &task->err);
    case TASK_LOAD:
        return run_load(c, task);
    case TASK_UNLOAD:
        engine_model_free(c->model);
        c->model = NULL;
        return 0;
    case TASK_ESTIMATE:
        return task->request.upscaler ? run_upscale(c, task) : run_estimate(c, task);
    case TASK_GENERATE:
        return task->request.upscaler ? run_upscale(c, task) : run_generate(c, task);
    }
    return 0;
}

/* The next task; NULL: another thread has taken this one's place. */
static struct task *next_task(struct compute *c, unsigned generation)
{
    struct task *task = NULL;

    pthread_mutex_lock(&c->lock);
    while (!c->task && c->generation == generation)
        pthread_cond_wait(&c->has_task, &c->lock);
    if (c->generation == generation) {
        task = c->task;
        c->task = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    return task;
}

static void *compute_main(void *user)
{
    struct compute *c = user;
    struct task *task;
    unsigned generation;

    pthread_setname_np(pthread_self(), CAGE_COMPUTE);
    pthread_mutex_lock(&c->lock);
    generation = c->generation;
    pthread_mutex_unlock(&c->lock);
    while ((task = next_task(c, generation))) {
        struct message *done = mem_zalloc(sizeof(*done));
        uint64_t began = clock_ns();

        done->task = task;
        task->rc = run_task(c, task);
        task->elapsed_ms = ms_since(began);
        post(c, done);
    }
    return NULL;
}

/* ---- the loop's side ---- */

/* A thread where the loop's stands; the one before it, which has nothing to do, ends. */
static int start_thread(struct compute *c)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int rc;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_mutex_lock(&c->lock);
    rc = pthread_create(&thread, &attributes, compute_main, c);
    if (rc == 0) {
        c->generation++;
        c->nice = 0;
        pthread_cond_broadcast(&c->has_task);
    }
    pthread_mutex_unlock(&c->lock);
    pthread_attr_destroy(&attributes);
    return rc;
}

int compute_start(const struct compute_options *options, struct compute **ret,
                  struct err *err)
{
    struct compute *c = mem_zalloc(sizeof(*c));
    pthread_condattr_t monotonic;
    int rc;

    c->options = *options;
    c->place = options->place;
    c->last = &c->first;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->has_task, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC); /* that of clock_ns() */
    pthread_cond_init(&c->stirred, &monotonic);
    pthread_condattr_destroy(&monotonic);
    uv_async_init(options->loop, &c->bell, on_bell);
    c->bell.data = c;
    rc = start_thread(c);
    if (rc)
        return err_set(err, ERR_NO_MEMORY, "cannot start the compute thread: %s",
                       strerror(rc));
    *ret = c;
    return 0;
}

/* The place that the task is worked on from: models load at full weight. */
static int nice_for(const struct compute *c, enum task_kind kind)
{
    return kind == TASK_GENERATE ? c->place.nice : kind == TASK_LOAD ? 0 : c->nice;
}

void compute_submit(struct compute *c, struct task *task)
{
    int nice = nice_for(c, task->kind);

    if (nice < c->nice)
        (void)start_thread(
            c); /* none to be had: the old one goes on from where it is */
    if (nice > c->nice)
        c->nice = nice;
    c->draws = task->kind == TASK_GENERATE;
    atomic_store(&c->cancel, false);
    atomic_store(&c->progress, 0);
    pthread_mutex_lock(&c->lock);
    c->task = task;
    pthread_cond_signal(&c->has_task);
    pthread_mutex_unlock(&c->lock);
}

void compute_cancel(struct compute *c)
{
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->cancel, true);
    pthread_cond_signal(&c->stirred);
    pthread_mutex_unlock(&c->lock);
}

void compute_share(struct compute *c, struct sharing_place place, int rest_percent)
{
    pthread_mutex_lock(&c->lock);
    c->place = place;
    c->rest_percent = rest_percent;
    pthread_cond_signal(&c->stirred);
    pthread_mutex_unlock(&c->lock);
    if (c->draws && place.nice > c->nice) {
        cage_place_compute(place);
        c->nice = place.nice;
    }
}

bool compute_is_resting(const struct compute *c)
{
    return atomic_load(&c->resting);
}

double compute_progress(const struct compute *c)
{
    return atomic_load(&c->progress);
}

const char *compute_backend(const struct compute *c)
{
    return atomic_load(&c->backend);
}

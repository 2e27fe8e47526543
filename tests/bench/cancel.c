/* bench_cancel: how long after a cancel the engine is free again.
 *
 *   bench_cancel CHECKPOINT [--size 1024] [--cancels 20] [--threads 0] [--backend dnnl] [--precision bf16]
 *                [--weights int8] [--lora FOLDER NAME] [--upscaler FILE]
 *
 * Two looks at the same thing, a line of JSON each. First whole jobs: the longest silence between two questions whether
 * the job is cancelled, per phase; no cancel can take longer. Jobs are a load, a picture from noise (two steps), one from a
 * picture, and where asked for one with a LoRA (laid, taken off) and an upscaling. Then jobs that are cancelled at random moments: the
 * time from the cancel until the engine is free. cpu: processor seconds by threads in the same time, which is what the silence would be
 * on a machine that does nothing else. */
#include "base/buf.h"
#include "base/clock.h"
#include "engine/engine.h"

#include "rss.h"

#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

enum { PHASES = 5, START = 4 }; /* the engine's, and what is before the first */

struct silence {
    double wall, cpu;
};

struct watch {
    struct silence longest[PHASES];
    uint64_t questions[PHASES];
    int phase;
    uint64_t last;
    double last_cpu;
    uint64_t cancel_at; /* of the clock; 0: never */
    struct buf *png;    /* where the picture goes */
};

static struct engine *engine;
static struct engine_model *model;
static int threads, size;

static void die(const char *sentence)
{
    fprintf(stderr, "bench_cancel: %s\n", sentence);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec + (double)t.tv_nsec * 1e-9) / threads;
}

static void note(struct watch *w)
{
    uint64_t now = clock_ns();
    double cpu = cpu_seconds(), wall = (double)(now - w->last) / 1e9;
    struct silence *s = &w->longest[w->phase];

    if (wall > s->wall)
        s->wall = wall;
    if (cpu - w->last_cpu > s->cpu)
        s->cpu = cpu - w->last_cpu;
    w->questions[w->phase]++;
    w->last = now;
    w->last_cpu = cpu;
}

static bool is_cancelled(void *user)
{
    struct watch *w = user;

    note(w);
    return w->cancel_at && w->last >= w->cancel_at;
}

static bool on_progress(void *user, double progress)
{
    (void)progress;
    return is_cancelled(user);
}

static void on_phase(void *user, enum engine_phase phase, int image)
{
    struct watch *w = user;

    (void)image;
    note(w);
    w->phase = (int)phase;
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct watch *w = user;

    (void)err;
    note(w);
    if (w->png) {
        buf_clear(w->png);
        buf_append(w->png, image->png, image->png_bytes);
    }
    return true;
}

static struct watch begin(void)
{
    return (struct watch){
        .phase = START, .last = clock_ns(), .last_cpu = cpu_seconds()};
}

static struct engine_events events(struct watch *w)
{
    return (struct engine_events){.is_cancelled = is_cancelled,
                                  .on_phase = on_phase,
                                  .on_image = on_image,
                                  .user = w};
}

static void say(const char *job, const struct watch *w, double seconds)
{
    static const char *const names[] = {"encode", "sample", "decode", "upscale",
                                        "before"};

    printf("{\"job\":\"%s\",\"seconds\":%.2f", job, seconds);
    for (int i = 0; i < PHASES; i++)
        if (w->questions[i])
            printf(",\"%s\":{\"longest\":%.3f,\"cpu\":%.3f,\"questions\":%llu}",
                   names[i], w->longest[i].wall, w->longest[i].cpu,
                   (unsigned long long)w->questions[i]);
    printf("}\n");
    fflush(stdout);
}

/* ---- jobs ---- */

static struct engine_job a_job(const char *prompt)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = prompt;
    job.seed = 1;
    job.width = job.height = size;
    job.steps = 2;
    return job;
}

/* Seconds that it took. cancelled_at: seconds after its begin, 0 never. */
static double draw(struct engine_job *job, struct watch *w, double cancelled_at)
{
    struct engine_events how = events(w);
    struct err err = {0};
    uint64_t from = clock_ns();

    w->cancel_at = cancelled_at > 0 ? from + (uint64_t)(cancelled_at * 1e9) : 0;
    if (engine_generate(model, job, &how, &err) && err.code != ERR_CANCELLED)
        die(err.message);
    note(w);
    return (double)(clock_ns() - from) / 1e9;
}

static double whole(const char *name, struct engine_job *job, struct buf *png)
{
    struct watch w = begin();
    double seconds;

    w.png = png;
    seconds = draw(job, &w, 0);
    say(name, &w, seconds);
    return seconds;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Moments are spread evenly and shaken: every part of the job has its share. */
static void cancels(const char *name, struct engine_job *job, double seconds, int count)
{
    double *took = calloc((size_t)count + 1, sizeof(*took));

    for (int i = 0; i < count; i++) {
        struct watch w = begin();
        double at = seconds * (i + (double)rand() / RAND_MAX) / count;
        double ended = draw(job, &w, at > 0.001 ? at : 0.001);

        took[i] = ended > at ? ended - at : 0;
    }
    qsort(took, (size_t)count, sizeof(*took), by_value);
    printf("{\"job\":\"%s\",\"cancels\":%d,\"median\":%.3f,\"longest\":%.3f}\n", name,
           count, took[count / 2], took[count ? count - 1 : 0]);
    fflush(stdout);
    free(took);
}

static void load(const char *path)
{
    struct watch w = begin();
    struct err err = {0};
    uint64_t from = clock_ns();

    if (engine_model_load(
            &model, engine, path,
            &(struct engine_load_events){.on_progress = on_progress, .user = &w}, &err))
        die(err.message);
    note(&w);
    say("load", &w, (double)(clock_ns() - from) / 1e9);
}

static void upscale(const char *file, const struct buf *png)
{
    struct engine_upscale job = {.image = {png->data, png->len}};
    struct engine_upscaler *upscaler;
    struct watch w = begin();
    struct engine_events how = events(&w);
    struct err err = {0};
    uint64_t from = clock_ns();

    if (engine_upscaler_open(&upscaler, engine, file, &err) ||
        engine_upscale(upscaler, &job, &how, &err))
        die(err.message);
    note(&w);
    say("upscale", &w, (double)(clock_ns() - from) / 1e9);
    engine_upscaler_close(upscaler);
}

struct wishes {
    const char *checkpoint, *lora, *upscaler;
    struct engine_options engine;
    int cancels;
};

static struct wishes understand(int argc, char **argv)
{
    struct wishes w = {.cancels = 20};

    size = 1024;
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;

        if (has_value && !strcmp(argv[i], "--size"))
            size = (int)strtol(argv[++i], NULL, 10);
        else if (has_value && !strcmp(argv[i], "--cancels"))
            w.cancels = (int)strtol(argv[++i], NULL, 10);
        else if (has_value && !strcmp(argv[i], "--threads"))
            w.engine.threads = (int)strtol(argv[++i], NULL, 10);
        else if (has_value && !strcmp(argv[i], "--backend"))
            w.engine.backend = argv[++i];
        else if (has_value && !strcmp(argv[i], "--precision"))
            w.engine.precision = argv[++i];
        else if (i + 2 < argc && !strcmp(argv[i], "--lora")) {
            w.engine.lora_folders[0] = argv[++i];
            w.lora = argv[++i];
        } else if (has_value && !strcmp(argv[i], "--upscaler"))
            w.upscaler = argv[++i];
        else
            w.checkpoint = argv[i];
    }
    if (!w.checkpoint)
        die("usage: bench_cancel CHECKPOINT [--size 1024] [--cancels 20] [--threads 0] "
            "[--backend dnnl] [--precision bf16] [--lora FOLDER NAME] "
            "[--upscaler FILE]");
    return w;
}

int main(int argc, char **argv)
{
    struct wishes wishes = understand(argc, argv);
    struct engine_job job, again;
    struct buf png = {0};
    struct err err = {0};
    double seconds;
    char prompt[256];

    threads = wishes.engine.threads > 0 ? wishes.engine.threads
                                        : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (engine_open(&engine, &wishes.engine, &err))
        die(err.message);
    load(wishes.checkpoint);
    job = a_job("a boat on a lake");
    seconds = whole("from noise", &job, &png);
    if (wishes.cancels)
        cancels("from noise", &job, seconds, wishes.cancels);
    again = job;
    again.start.image = (struct engine_file){png.data, png.len};
    again.start.strength = 0.5;
    seconds = whole("from a picture", &again, NULL);
    if (wishes.cancels)
        cancels("from a picture", &again, seconds, wishes.cancels);
    if (wishes.lora) {
        snprintf(prompt, sizeof(prompt), "a boat <lora:%s:1>", wishes.lora);
        again = a_job(prompt);
        whole("with a LoRA", &again, NULL);
        whole("without it again", &job, NULL);
    }
    if (wishes.upscaler)
        upscale(wishes.upscaler, &png);
    buf_release(&png);
    engine_model_free(model);
    engine_close(engine);
    return 0;
}

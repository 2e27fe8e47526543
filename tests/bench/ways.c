/* bench_ways: the ways to draw when memory is short (src/engine/memory.c): what each was said to take beside the model, what
 * it took, and how long.
 *
 *   bench_ways CHECKPOINT [WIDTH HEIGHT [STEPS [WEIGHTS]]]         default 512 512 2 auto
 *
 * Two lines for each way that takes less than the one before: the first picture, and the next like it, which packs again
 * what the first gave back. Bytes are RssAnon beyond what is there when the estimate was told, asked before every operation and
 * when the picture comes; error is how much more was said, in percent of what was taken. */
#include "base/clock.h"
#include "engine/engine.h"

#include "rss.h"

static void die(const char *sentence)
{
    fprintf(stderr, "bench_ways: %s\n", sentence);
    exit(1);
}

static bool look(void *user)
{
    size_t *most = user, now = rss_bytes("RssAnon:");

    *most = now > *most ? now : *most;
    return false;
}

static uint64_t estimate(struct engine_model *model, const struct engine_job *job,
                         const char **ret_way)
{
    struct engine_estimate e;
    struct err err = {0};

    if (engine_estimate(model, job, &e, &err))
        die(err.message);
    *ret_way = e.way;
    return e.peak_bytes - e.resident_bytes;
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    (void)image;
    (void)err;
    return !look(user);
}

static void draw(struct engine_model *model, const struct engine_job *job, size_t *most)
{
    const struct engine_events events = {
        .is_cancelled = look, .on_image = on_image, .user = most};
    struct err err = {0};

    if (engine_generate(model, job, &events, &err))
        die(err.message);
}

/* What was said; the way. */
static uint64_t measure(struct engine_model *model, struct engine_job *job,
                        const char *which, const char **ret_way)
{
    uint64_t said = estimate(model, job, ret_way), began;
    struct engine_job own = *job;
    size_t before, most;

    if (job->budget_bytes && said > job->budget_bytes)
        return said;
    own.budget_bytes = said;
    before = most = rss_bytes("RssAnon:");
    began = clock_ns();
    draw(model, &own, &most);
    printf("{\"way\":\"%s\",\"picture\":\"%s\",\"said_mb\":%.1f,\"took_mb\":%.1f,"
           "\"error\":%.1f,\"seconds\":%.2f}\n",
           *ret_way, which, (double)said / 1e6, (double)(most - before) / 1e6,
           100 * ((double)said / (double)(most - before) - 1),
           (double)(clock_ns() - began) / 1e9);
    fflush(stdout);
    return said;
}

int main(int argc, char **argv)
{
    struct engine_options options = {.weights = argc > 5 ? argv[5] : NULL};
    struct engine_model *model;
    struct engine *engine;
    struct engine_job job;
    struct err err = {0};

    if (argc < 2 || argc == 3)
        die("usage: bench_ways CHECKPOINT [WIDTH HEIGHT [STEPS [WEIGHTS]]]");
    if (engine_open(&engine, &options, &err) ||
        engine_model_load(&model, engine, argv[1], NULL, &err))
        die(err.message);
    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.seed = 1;
    job.width = argc > 3 ? (int)strtol(argv[2], NULL, 10) : 512;
    job.height = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 512;
    job.steps = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 2;
    for (uint64_t budget = 0, next = 0;;) {
        struct engine_job small = job;
        const char *way, *again;
        size_t most = 0;
        uint64_t said;

        small.budget_bytes = 0;
        small.width = small.height = 64; /* the text encoder is in memory again */
        draw(model, &small, &most);
        job.budget_bytes = budget;
        said = measure(model, &job, "first", &way);
        if (budget && said > budget)
            break;
        budget = said / 100 * 95;
        /* in the same way: what the ways before it take now is too much */
        job.budget_bytes = 0;
        if (strcmp(way, "whole") != 0) {
            uint64_t whole = estimate(model, &job, &again);

            job.budget_bytes = (next && next < whole ? next : whole) / 100 * 95;
            next = measure(model, &job, "next", &again);
            continue;
        }
        (void)measure(model, &job, "next", &again);
    }
    engine_model_free(model);
    engine_close(engine);
    return 0;
}

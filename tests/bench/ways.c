/* bench_ways: the ways to draw when memory is short (src/engine/memory.c): what each was said to take beside the model, what
 * it took, and how long.
 *
 *   bench_ways CHECKPOINT [WIDTH HEIGHT [STEPS]]         default 512 512 2
 *
 * A line for each way that takes less than the one before. Bytes are RssAnon beyond what is there before the picture, asked
 * before every operation. */
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

static void draw(struct engine_model *model, const struct engine_job *job, size_t *most)
{
    struct err err = {0};

    /* random weights draw pictures that are no numbers: all the work is done then, too */
    if (engine_generate(model, job,
                        &(struct engine_events){.is_cancelled = look, .user = most},
                        &err) &&
        err.code != ERR_INTERNAL)
        die(err.message);
}

int main(int argc, char **argv)
{
    struct engine_model *model;
    struct engine *engine;
    struct engine_job job;
    struct err err = {0};

    if (argc < 2 || argc == 3)
        die("usage: bench_ways CHECKPOINT [WIDTH HEIGHT [STEPS]]");
    if (engine_open(&engine, &(struct engine_options){0}, &err) ||
        engine_model_load(&model, engine, argv[1], NULL, &err))
        die(err.message);
    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.seed = 1;
    job.width = argc > 3 ? (int)strtol(argv[2], NULL, 10) : 512;
    job.height = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 512;
    job.steps = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 2;
    for (uint64_t budget = 0;;) {
        struct engine_job small = job;
        const char *way;
        size_t before, most = 0;
        uint64_t began, said;

        small.budget_bytes = 0;
        small.width = small.height = 64; /* the text encoder is in memory again */
        draw(model, &small, &most);
        job.budget_bytes = budget;
        said = estimate(model, &job, &way);
        if (budget && said > budget)
            break;
        job.budget_bytes = said;
        before = most = rss_bytes("RssAnon:");
        began = clock_ns();
        draw(model, &job, &most);
        printf("{\"way\":\"%s\",\"said_mb\":%.1f,\"took_mb\":%.1f,\"seconds\":%.2f}\n",
               way, (double)said / 1e6, (double)(most - before) / 1e6,
               (double)(clock_ns() - began) / 1e9);
        fflush(stdout);
        budget = said / 100 * 95;
    }
    engine_model_free(model);
    engine_close(engine);
    return 0;
}

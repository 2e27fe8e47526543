/* bench_loras: what a LoRA costs the first picture that asks for it, in seconds and in bytes, and the first one
 * without it again.
 *
 *   bench_loras CHECKPOINT FOLDER NAME [--backend dnnl] [--precision auto|f32|bf16] [--threads 0] [--rounds 3]
 *
 * One line of JSON. Pictures are as small as they can be (64x64, one step), so that nearly all of their time is what the
 * LoRA takes: `plain` is that of a picture without one, `on` and `off` those of the first with and the first without,
 * `kept` of another with it. Medians. Bytes: RssAnon beyond what is there before the picture, asked before every weight that
 * is changed and every operation; and what the estimate said. */
#include "base/clock.h"
#include "engine/engine.h"

#include "rss.h"

enum { MAX_ROUNDS = 20 };

struct bench {
    struct engine_model *model;
    size_t most; /* bytes seen in this picture */
    size_t matched, unmatched;
};

static void die(const char *sentence)
{
    fprintf(stderr, "bench_loras: %s\n", sentence);
    exit(1);
}

static bool look(void *user)
{
    struct bench *b = user;
    size_t now = rss_bytes("RssAnon:");

    b->most = now > b->most ? now : b->most;
    return false;
}

static void on_lora(void *user, const struct engine_lora *lora)
{
    struct bench *b = user;

    b->matched = lora->matched;
    b->unmatched = lora->unmatched;
}

struct result {
    double seconds;
    size_t grown, predicted;
};

static struct result draw(struct bench *b, const char *prompt)
{
    const struct engine_events events = {
        .on_lora = on_lora, .is_cancelled = look, .user = b};
    struct engine_estimate estimate;
    struct engine_job job;
    struct result r;
    struct err err = {0};
    uint64_t began;
    size_t before;

    engine_job_defaults(b->model, &job);
    job.prompt = prompt;
    job.width = job.height = 64;
    job.steps = 1;
    job.seed = 1;
    if (engine_estimate(b->model, &job, &estimate, &err))
        die(err.message);
    b->most = before = rss_bytes("RssAnon:");
    began = clock_ns();
    /* random weights draw pictures that are no numbers: all the work is done then, too */
    if (engine_generate(b->model, &job, &events, &err) && err.code != ERR_INTERNAL)
        die(err.message);
    r.seconds = (double)(clock_ns() - began) / 1e9;
    r.grown = b->most - before;
    r.predicted = estimate.peak_bytes - estimate.resident_bytes;
    return r;
}

static int by_seconds(const void *a, const void *b)
{
    const struct result *x = a, *y = b;

    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

static struct result median(struct result *all, int count)
{
    qsort(all, (size_t)count, sizeof(*all), by_seconds);
    return all[count / 2];
}

static void say(const char *name, struct result r)
{
    printf("\"%s\":{\"seconds\":%.3f,\"grown_mb\":%.1f,\"predicted_mb\":%.1f},", name,
           r.seconds, (double)r.grown / 1e6, (double)r.predicted / 1e6);
}

int main(int argc, char **argv)
{
    struct result plain[MAX_ROUNDS], on[MAX_ROUNDS], kept[MAX_ROUNDS], off[MAX_ROUNDS];
    struct engine_options options = {0};
    struct bench b = {0};
    struct engine *engine;
    struct err err = {0};
    char prompt[256];
    int rounds = 3;

    if (argc < 4 || argc % 2)
        die("usage: bench_loras CHECKPOINT FOLDER NAME [--backend dnnl] [--precision "
            "auto] [--threads 0] [--rounds 3]");
    for (int i = 4; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--backend"))
            options.backend = argv[i + 1];
        else if (!strcmp(argv[i], "--precision"))
            options.precision = strcmp(argv[i + 1], "auto") ? argv[i + 1] : NULL;
        else if (!strcmp(argv[i], "--threads"))
            options.threads = (int)strtol(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--rounds"))
            rounds = (int)strtol(argv[i + 1], NULL, 10);
        else
            die("unknown option");
    }
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    options.lora_folders[0] = argv[2];
    snprintf(prompt, sizeof(prompt), "a boat <lora:%.200s:0.8>", argv[3]);
    if (engine_open(&engine, &options, &err))
        die(err.message);
    uint64_t began = clock_ns();
    if (engine_model_load(&b.model, engine, argv[1], NULL, &err))
        die(err.message);
    double load = (double)(clock_ns() - began) / 1e9;
    (void)draw(&b, "a boat"); /* compiles the size */
    for (int i = 0; i < rounds; i++) {
        plain[i] = draw(&b, "a boat");
        on[i] = draw(&b, prompt);
        kept[i] = draw(&b, prompt);
        off[i] = draw(&b, "a boat");
    }
    printf("{\"load_seconds\":%.2f,", load);
    say("plain", median(plain, rounds));
    say("on", median(on, rounds));
    say("kept", median(kept, rounds));
    say("off", median(off, rounds));
    printf("\"matched\":%zu,\"unmatched\":%zu}\n", b.matched, b.unmatched);
    engine_model_free(b.model);
    engine_close(engine);
    return 0;
}

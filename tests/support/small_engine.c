#include "small_engine.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct engine *engine;
struct engine_model *model;

void check(int result, const struct err *err)
{
    if (result)
        fail_msg("%s", err->message);
}

void small_engine_open(void)
{
    struct err err = {0};

    check(engine_open(&engine, &(struct engine_options){.backend = "ref", .threads = 2},
                      &err),
          &err);
}

struct engine_model *small_engine_load(const struct small_model *what)
{
    char *path = small_model_write(what);
    struct engine_model *loaded;
    struct err err = {0};

    check(engine_model_load(&loaded, engine, path, NULL, &err), &err);
    unlink(path);
    free(path);
    return loaded;
}

int small_engine_set_up(void **state)
{
    (void)state;
    small_engine_open();
    model = small_engine_load(&(struct small_model){0});
    return 0;
}

int small_engine_tear_down(void **state)
{
    (void)state;
    engine_model_free(model);
    engine_close(engine);
    return 0;
}

void expect_job_refused(const struct engine_job *job, const char *param,
                        const char *sentence)
{
    struct err err = {0};

    assert_int_equal(engine_job_check(model, job, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.param, param);
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
}

/* ---- memory ---- */

long anonymous_bytes(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[128];
    long kib = -1;

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Anonymous: %ld kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * 1024;
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
struct growth {
    long before, most;
};

static bool watch(void *user)
{
    struct growth *g = user;
    long now = anonymous_bytes();

    if (now > g->most)
        g->most = now;
    return false;
}

void expect_growth(const struct engine_job *job)
{
    struct growth growth = {0};
    struct engine_events events = {.is_cancelled = watch, .user = &growth};
    struct engine_estimate estimate;
    struct err err = {0};
    double predicted, measured;

    check(engine_estimate(model, job, &estimate, &err), &err);
    growth.before = anonymous_bytes();
    check(engine_generate(model, job, &events, &err), &err);
    predicted = (double)(estimate.peak_bytes - estimate.resident_bytes);
    measured = (double)(growth.most - growth.before);
    print_message("  %dx%d: %.1f MB predicted beside the weights, %.1f MB measured\n",
                  job->width, job->height, predicted / 1e6, measured / 1e6);
    assert_true(measured <= predicted * 1.05 + 300e3);
    assert_true(measured >= predicted * 0.85);
}
#else
void expect_growth(const struct engine_job *job)
{
    (void)job;
}
#endif

#include "small_engine.h"

#include "unit.h"

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

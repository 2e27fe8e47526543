/* small_engine: the engine on the reference back end with the small model in it, for the programs that test what the
 * engine does with jobs. One for each program. */
#ifndef MYSTI_TESTS_SMALL_ENGINE_H
#define MYSTI_TESTS_SMALL_ENGINE_H

#include "engine/engine.h"

#include "small_model.h"

extern struct engine *engine;
extern struct engine_model *model; /* NULL: none was loaded */

/* Fails the test with the error's sentence, if there is one. */
void check(int result, const struct err *err);
void small_engine_open(void);
/* The file is gone again when this returns: the mapping stays. */
struct engine_model *small_engine_load(const struct small_model *what);
/* For cmocka: the engine with the model as it is, and its end. */
int small_engine_set_up(void **state);
int small_engine_tear_down(void **state);

/* The check of a job blames `param`, in a sentence with these words. */
void expect_job_refused(const struct engine_job *job, const char *param,
                        const char *sentence);

/* Memory of this process that is no file's; -1: not known */
long anonymous_bytes(void);

/* Draws it, and memory grows by what the estimate says, at most 5 % more and at least 85 % of it. The block is mapped whole
 * but touched only as far as it is used, so what is measured between operations is at most the estimate; the largest stage
 * touches nearly all of it. Sanitizers have memory of their own: nothing is measured with them. */
void expect_growth(const struct engine_job *job);

#endif

/* hires: a job that is drawn twice, small and then large (A1111's "hires fix"). Private to the engine. */
#ifndef MYSTI_ENGINE_HIRES_H
#define MYSTI_ENGINE_HIRES_H

#include "engine/engine.h"

bool hires_is_wanted(const struct engine_job *job);
/* 0 also when none is wanted. */
int hires_check(const struct engine_model *model, const struct engine_job *job,
                struct err *err) MUST_CHECK;
int hires_estimate(struct engine_model *model, const struct engine_job *job,
                   struct engine_estimate *ret_estimate, struct err *err) MUST_CHECK;
int hires_generate(struct engine_model *model, const struct engine_job *job,
                   const struct engine_events *events, struct err *err) MUST_CHECK;

#endif

/* loras: the LoRAs that a job's prompts ask for, over a model's weights. Private to the engine.
 *
 *   if (loras_open(&loras, model, job, err)) return -1;
 *   ... model_compile() ...
 *   if (model_lay(model, loras, events, err)) ...        the model's from now on; packs what they change
 *
 * The model keeps the LoRAs of its last job: the next one that asks for the same costs nothing, another size is packed
 * with them, and one without packs what they changed from the base again. */
#ifndef MYSTI_ENGINE_LORAS_H
#define MYSTI_ENGINE_LORAS_H

#include "engine/model.h"

struct loras;

/* Finds and opens the files; those that the model has open and that did not change are cheap. No tag in the prompts:
 * none, and no error. ERR_INVALID for a tag or a name that means nothing, else what lora_open() says; the parameter is
 * the prompt. */
int loras_open(struct loras **ret_loras, const struct engine_model *model,
               const struct engine_job *job, struct err *err) MUST_CHECK;
void loras_close(struct loras *loras); /* NULL is fine */

/* Bytes that model_lay() allocates for a while, at most. */
size_t loras_lay_bytes(const struct engine_model *model, const struct loras *loras);
/* Tells about each. */
void loras_tell(const struct loras *loras, const struct engine_events *events);
/* Packs the model's stages with these LoRAs, which it takes over in any case. A failure leaves a model that does not
 * draw before the next call succeeds. */
int model_lay(struct engine_model *model, struct loras *loras,
              const struct engine_events *events, struct err *err) MUST_CHECK;

#endif

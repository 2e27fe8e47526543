/* family: which kind of model a LoRA was made for, for a sentence when it does not fit.
 * Private to lora/. */
#ifndef MYSTI_ENGINE_LORA_FAMILY_H
#define MYSTI_ENGINE_LORA_FAMILY_H

#include "base/buf.h"
#include "engine/lora/parts.h"

/* Appends ": it seems to be made for SDXL (...), the model is SD 1.x (...)", or nothing
 * when nothing can be told. */
void lora_family_explain(struct buf *sentence, const struct lora_groups *groups,
                         const struct weights_file *file,
                         const struct weights_file *base);

#endif

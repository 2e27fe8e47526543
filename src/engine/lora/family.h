/* family: which kind of model a LoRA was made for, for a sentence when it does not fit,
 * and for engine/inspect. */
#ifndef MYSTI_ENGINE_LORA_FAMILY_H
#define MYSTI_ENGINE_LORA_FAMILY_H

#include "base/buf.h"
#include "engine/lora/parts.h"

/* "SD 1.x" of 768; NULL when no family reads text of so many channels. */
const char *family_of_context(int64_t channels);
/* What is known about a LoRA: its family or NULL, and the channels of the text that it
 * reads or 0. */
const char *lora_family(const struct lora_groups *groups,
                        const struct weights_file *file, int64_t *ret_context);

/* What a file is that changes a model in a way that is not known here ("OFT as PEFT
 * writes it"), by the names of its tensors; NULL when nothing can be told. */
const char *lora_unknown_kind(const struct weights_file *file);

/* Appends ": it seems to be made for SDXL (...), the model is SD 1.x (...)", or nothing
 * when nothing can be told. */
void lora_family_explain(struct buf *sentence, const struct lora_groups *groups,
                         const struct weights_file *file,
                         const struct weights_file *base);

#endif

/* bundle: textual inversions inside a LoRA's file, as AUTOMATIC1111 and OneTrainer have them:
 * "bundle_emb.NAME.string_to_param.*", for SDXL "bundle_emb.NAME.clip_l" and "...clip_g". While the LoRA is asked for, NAME
 * is a word of prompts (engine/inversions.h); for the LoRA's own purposes these tensors are not there. */
#ifndef MYSTI_ENGINE_LORA_BUNDLE_H
#define MYSTI_ENGINE_LORA_BUNDLE_H

#include <stddef.h>

#define LORA_BUNDLE "bundle_emb."

/* The length of NAME, which begins at tensor + strlen(LORA_BUNDLE); 0 when the tensor is none of these. */
size_t lora_bundle_name(const char *tensor);

#endif

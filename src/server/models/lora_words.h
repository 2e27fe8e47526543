/* lora_words: what a LoRA's file says about its use, from the metadata that trainers write: for somebody who has found the
 * file and does not know what to type.
 *
 *   json_t *words = lora_words(path);       NULL: it says nothing, or is no safetensors file
 *   ... {"title": "Ink", "trigger": "ink style", "base": "sdxl_base_v1-0", "tags": ["boat", ...]} ...
 *
 * Each key only where there is something. tags are the most frequent words of the captions that it was trained with.
 * Reads the head alone, at most 1 MiB of it. Disk work: not for the loop's thread. */
#ifndef MYSTI_SERVER_MODELS_LORA_WORDS_H
#define MYSTI_SERVER_MODELS_LORA_WORDS_H

#include <jansson.h>
#include <stddef.h>

enum { LORA_TAGS_SHOWN = 20 };

json_t *lora_words(const char *path);
/* The same from a safetensors file's first bytes. */
json_t *lora_words_read(const void *head, size_t len);

#endif

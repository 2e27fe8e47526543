/* tags: which LoRAs a prompt asks for. <lora:name:te:unet>, as AUTOMATIC1111 has it: the first number is the text
 * encoder's strength, the second the U-Net's; one number is both, none is 1; te= and unet= say the same by name. "lyco"
 * is another word for "lora". A tag is no part of what is drawn: it is taken out of the prompt.
 *
 *   struct lora_tags tags = {0};
 *   if (lora_tags_read(&tags, job->prompt, err)) ... lora_tags_release(&tags)
 *   char *rest = lora_tags_strip(job->prompt);
 *
 * docs/prompts.md is the description for users. */
#ifndef MYSTI_ENGINE_LORA_TAGS_H
#define MYSTI_ENGINE_LORA_TAGS_H

#include "base/err.h"
#include "engine/lora/lora.h"

enum { LORA_TAGS_MAX = 32 };

struct lora_tag {
    char *name;
    struct lora_strength strength;
};

struct lora_tags {
    struct lora_tag all[LORA_TAGS_MAX];
    int count;
};

/* Adds those of `text`. ERR_INVALID for a tag without a name, with something else than numbers or with too many of them,
 * and for more than LORA_TAGS_MAX; release it then, too. */
int lora_tags_read(struct lora_tags *tags, const char *text,
                   struct err *err) MUST_CHECK;
void lora_tags_release(struct lora_tags *tags);
/* text without its tags; free() it. What lora_tags_read() refuses is taken out, too. */
char *lora_tags_strip(const char *text);

#endif

/* tokenizer: text to the ids of CLIP's byte-pair vocabulary (49,408 of them: CLIP L, H
 * and bigG).
 *
 *   int32_t ids[TOKENIZER_CONTEXT];
 *   size_t count;
 *   if (tokenizer_ids(text, strlen(text), ids, TOKENIZER_CONTEXT, &count, err))
 *       return -1;
 *
 * The tables (merges, letter and number classes, lower case) are constants made at
 * build time: there is nothing to open, nothing to free, and any thread may call. Fails
 * on text that is not UTF-8 or longer than 64 KiB.
 * Method: Sennrich et al. 2016 with CLIP's lower-casing and end-of-word marks (Radford
 * et al. 2021), checked against an independent implementation. */
#ifndef MYSTI_ENGINE_TEXT_TOKENIZER_H
#define MYSTI_ENGINE_TEXT_TOKENIZER_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
    TOKENIZER_VOCABULARY = 49408,
    TOKENIZER_BOS = 49406,
    TOKENIZER_EOS = 49407,
    TOKENIZER_CONTEXT =
        77, /* positions of the text encoder: BOS, up to 75 of the text, EOS */
};

/* The bare ids of any length of text, no BOS, EOS or padding. Stores at most `capacity`
 * of them and puts the number there are in ret_count, which may be larger. */
int tokenizer_ids(const char *text, size_t len, int32_t *ret_ids, size_t capacity,
                  size_t *ret_count, struct err *err) MUST_CHECK;

#endif

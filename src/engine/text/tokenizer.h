/* tokenizer: text to the ids of CLIP's byte-pair vocabulary (49,408 of them: CLIP L, H
 * and bigG).
 *
 *   struct tokens tokens;
 *   if (tokenizer_encode(prompt, strlen(prompt), &tokens, err))
 *       return -1;
 *   if (tokens.dropped)
 *       ... tell the user that the last `dropped` tokens of the prompt had no place
 *
 * The tables (merges, letter and number classes, lower case) are constants made at
 * build time: there is nothing to open, nothing to free, and any thread may call. Fails
 * on text that is not UTF-8 and, only for tokenizer_ids, when the ids do not fit.
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

struct tokens {
    int32_t ids[TOKENIZER_CONTEXT]; /* BOS, the text's, EOS, then padding */
    unsigned used;    /* ids before the padding, BOS and EOS among them: 2..77 */
    unsigned eos;     /* index of the first EOS: used - 1 */
    unsigned dropped; /* ids of the text that did not fit */
};

/* One prompt in one frame of 77, padded with EOS as CLIP L wants it. */
int tokenizer_encode(const char *text, size_t len, struct tokens *ret,
                     struct err *err) MUST_CHECK;

/* The bare ids of any length of text, no BOS, EOS or padding. Stores at most `capacity`
 * of them and puts the number there are in ret_count, which may be larger. */
int tokenizer_ids(const char *text, size_t len, int32_t *ret_ids, size_t capacity,
                  size_t *ret_count, struct err *err) MUST_CHECK;

#endif

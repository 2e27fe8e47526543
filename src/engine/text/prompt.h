/* prompt: what people write to what the text encoder reads: chunks of 77 ids, and how much each of them counts.
 *
 *   struct prompt p;
 *   if (prompt_read(&p, "a (red:1.3) boat", PROMPT_A1111, err))
 *       return -1;
 *   ... encode each p.chunks[i].ids to hidden [77, width]
 *   prompt_weigh(&p.chunks[i], PROMPT_A1111, &(struct prompt_hidden){hidden, NULL, width, width});
 *   prompt_release(&p);
 *
 * Any length of text: what does not fit into one chunk goes on in the next, nothing is dropped. Fails on text that is not
 * UTF-8, on more than PROMPT_CHUNKS_MAX chunks and on brackets in more than PROMPT_DEPTH_MAX others, each with a
 * sentence. Syntax and arithmetic are those of AUTOMATIC1111 and of ComfyUI; docs/prompts.md is the description for users. */
#ifndef MYSTI_ENGINE_TEXT_PROMPT_H
#define MYSTI_ENGINE_TEXT_PROMPT_H

#include "base/err.h"
#include "engine/text/tokenizer.h"

#include <stdbool.h>

enum { PROMPT_CHUNKS_MAX = 32, PROMPT_DEPTH_MAX = 100 };

enum prompt_syntax {
    PROMPT_A1111, /* ( ) [ ] (x:1.2) BREAK; phrases move to the next chunk at a comma */
    PROMPT_COMFY, /* ( ) (x:1.2); words stay whole */
};

struct prompt_chunk {
    int32_t ids[TOKENIZER_CONTEXT]; /* BOS, the text's, EOS to the end */
    float weights[TOKENIZER_CONTEXT];
    bool is_weighted; /* one of them is not 1 */
};

struct prompt {
    struct prompt_chunk *chunks;
    int count; /* at least 1 */
};

/* A word that stands for vectors of its own (a textual inversion). In A1111's syntax it is meant wherever its ids stand, in
 * ComfyUI's where "embedding:name" does. In a chunk it is `vectors` ids, TOKENIZER_VOCABULARY + first and on. */
struct prompt_word {
    const char *name; /* "style" or "anime/style", without the file's ending */
    const int32_t *ids;
    size_t count; /* of ids; 0: it has none and is never meant in A1111's syntax */
    int first, vectors;
    bool is_used; /* set by prompt_read_words() */
};

struct prompt_words {
    struct prompt_word *all;
    int count;
};

int prompt_read(struct prompt *ret, const char *text, enum prompt_syntax syntax,
                struct err *err) MUST_CHECK;
/* The same with such words. ERR_INVALID for an "embedding:name" that is none of them, which names the nearest. */
int prompt_read_words(struct prompt *ret, const char *text, enum prompt_syntax syntax,
                      struct prompt_words *words, struct err *err) MUST_CHECK;
void prompt_release(struct prompt *p);

/* What one encoder made of a chunk: [77, width], rows `pitch` numbers apart, because the next encoder's may stand beside
 * it. PROMPT_COMFY needs what it makes of a chunk without text, laid out alike; else NULL. */
struct prompt_hidden {
    float *values;
    const float *empty;
    int64_t width, pitch;
};

/* Changes hidden->values. Nothing happens when no weight differs from 1. */
void prompt_weigh(const struct prompt_chunk *chunk, enum prompt_syntax syntax,
                  const struct prompt_hidden *hidden);

/* The next place in text where word stands as a word of its own, or NULL; begin is where all of the text begins. */
const char *prompt_find_word(const char *text, const char *word, const char *begin);

/* ---- one step earlier, for tests: pieces of text with their weights ---- */
struct prompt_piece {
    char *text;
    double weight;
    bool is_break; /* no text: the chunk ends here */
};

struct prompt_pieces {
    struct prompt_piece *items; /* at least one */
    int count;
};

int prompt_split(struct prompt_pieces *ret, const char *text, enum prompt_syntax syntax,
                 struct err *err) MUST_CHECK;
void prompt_pieces_release(struct prompt_pieces *p);

#endif

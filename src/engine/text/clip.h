/* clip: CLIP's text encoders (Radford et al. 2021), OpenAI's and OpenCLIP's: token ids to one vector per position. Every
 * size is read from the file; only the number of heads is not in it.
 *
 * Tensors are called as Hugging Face's transformers calls them or as OpenCLIP does, which also has queries, keys and values
 * in one matrix; either encoder comes in either naming, depending on the program that wrote the file. */
#ifndef MYSTI_ENGINE_TEXT_CLIP_H
#define MYSTI_ENGINE_TEXT_CLIP_H

#include "engine/graph/build.h"

/* What a family's text encoder is, beyond its sizes. */
struct clip_kind {
    const char *prefix; /* of its tensors: "cond_stage_model." */
    enum activation activation;
    int32_t pad;    /* the id that fills a chunk after the end of the text */
    int skipped;    /* layers at the end that no prompt goes through */
    bool has_norm;  /* the final norm comes after the last layer that is used */
    bool is_pooled; /* the U-Net is told its summary of the whole text as well */
};

struct clip_naming;

struct clip {
    const struct clip_kind *kind;
    const struct clip_naming *naming;
    struct name prefix; /* of all its tensors, with the dot at the end */
    int layers;
    int skipped; /* of them, at the end */
    int heads;
    int64_t width;
    int64_t vocabulary;
    int64_t positions;               /* ids per prompt, 77 */
    const struct weight *projection; /* of the summary; NULL: the kind has none */
    int64_t summary_width;           /* 0: the kind has none */
};

/* The token table of the encoder with this prefix, [vocabulary, width] in a sound file; NULL: there is none. ret_is_openclip:
 * by the names. */
const struct weight *clip_find(const struct weights_file *file, const char *prefix,
                               bool *ret_is_openclip);
/* kind: borrowed. heads 0: one per 64 channels */
int clip_open(struct clip *ret_clip, const struct weights_file *file,
              const struct clip_kind *kind, int heads, struct err *err) MUST_CHECK;
/* ids [N, positions] i32 -> [N, positions, width], the output of the last layer but `skipped`, at least those of the
 * kind, after the final norm where the kind has it. ret_states, not NULL: the same of the very last layer after the final
 * norm, for clip_summarise. */
int clip_build(const struct clip *clip, struct build *b, int ids, int skipped,
               int *ret_states);
/* state [width], that of the position where the text ends -> ret [summary_width] */
void clip_summarise(const struct clip *clip, const float *state, float *ret);
/* "cond_stage_model.transformer.text_model.encoder.layers.": what the names of all layers begin with */
struct name clip_layers(const struct clip *clip);

#endif

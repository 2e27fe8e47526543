/* clip: CLIP's text encoder (Radford et al. 2021, the "L" of SD 1.x): token ids to one
 * vector per position. Every size is read from the file; only the number of heads is
 * not in it. */
#ifndef MYSTI_ENGINE_TEXT_CLIP_H
#define MYSTI_ENGINE_TEXT_CLIP_H

#include "engine/graph/build.h"

struct clip {
    const char *prefix; /* of all its tensors, with the dot at the end */
    int layers;
    int heads;
    int64_t width;
    int64_t vocabulary;
    int64_t positions; /* ids per prompt, 77 */
};

/* heads 0: one per 64 channels */
int clip_open(struct clip *ret_clip, const struct weights_file *file, int heads,
              struct err *err) MUST_CHECK;
/* ids [N, positions] i32 -> [N, positions, width], the output of the last layer but
 * `skipped` after the final norm */
int clip_build(const struct clip *clip, struct build *b, int ids, int skipped);

#endif

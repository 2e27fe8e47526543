/* predict: how many bytes a text model will take before it is started, from what its file says. Pure.
 *
 *   model_peek(path, &peek, &err);
 *   predict_text(&peek, &(struct predict_start){.context = 8192, .slots = 2}, &p);
 *   p.total_bytes ...
 *
 * Everything counts as if the model were in RAM alone. Where the file does not say enough, the prediction is an upper
 * bound.
 */
#ifndef MYSTI_SERVER_MEMORY_PREDICT_H
#define MYSTI_SERVER_MEMORY_PREDICT_H

#include "server/memory/cache_type.h"
#include "server/models/peek.h"

#include <stdbool.h>
#include <stdint.h>

struct predict_start {
    uint64_t context; /* tokens of a slot */
    uint64_t slots;
    bool in_one_piece; /* embeddings and rerank: a batch is as large as a slot */
    enum cache_type cache_type;
};

struct prediction {
    uint64_t
        weight_bytes; /* pages of the file: RssFile, must stay in the page cache to be fast */
    uint64_t cache_bytes;   /* keys and values of the context */
    uint64_t compute_bytes; /* buffers of one batch, and the process itself */
    uint64_t
        layer_bytes; /* of weight_bytes and cache_bytes: of one layer, on the average */
    uint64_t layers; /* 0: not known */
    uint64_t total_bytes;
    bool is_learned; /* the total is what it took the last time */
};

void predict_text(const struct model_peek *model, const struct predict_start *start,
                  struct prediction *ret);
/* The cache of the tokens of a slot that are left out of `context`. */
uint64_t predict_spare(const struct prediction *p, int context, int tokens);
/* What it is when a process with so many layers on a card (-1: all) was seen to have so many bytes there. The layers are what the
 * file says; the rest are buffers and the driver's context, which stand in no file. */
void predict_measured_on_card(struct prediction *p, uint64_t bytes, int gpu_layers);
/* What it is with so many of the tokens of its context. */
void predict_shorten(struct prediction *p, int context, int tokens);

#endif

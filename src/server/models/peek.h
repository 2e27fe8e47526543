/* peek: what kind of model is this file, or diffusers folder? Looks at the head only (GGUF, safetensors, torch), bounded
 * in time and memory, so that a wrong file is refused with a sentence before any process is started for it, and a file
 * given with --model finds the side it belongs to. Not a loader: the engines read the file themselves.
 *
 *   struct model_peek peek;
 *   if (model_peek(path, &peek, &err)) ...   // err: missing, a folder, no such format, cut short
 */
#ifndef MYSTI_SERVER_MODELS_PEEK_H
#define MYSTI_SERVER_MODELS_PEEK_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum model_kind {
    MODEL_UNKNOWN, /* a well-formed file that holds neither (an adapter, a projector, a LoRA) */
    MODEL_TEXT,
    MODEL_PICTURE,
};

enum model_format { MODEL_GGUF, MODEL_SAFETENSORS, MODEL_TORCH, MODEL_FOLDER };

struct model_peek {
    enum model_kind kind;
    enum model_format format;
    char architecture[64]; /* GGUF's general.architecture; "" when it says none */
    uint64_t size_bytes;   /* of the file, or of the folder's weights */
    uint64_t tensors;
    uint64_t context; /* GGUF's <architecture>.context_length; 0: unknown */
    int pooling; /* GGUF's <architecture>.pooling_type: 0 none, 1 mean, 2 first, 3 last, 4 rank; -1: says nothing */
    uint64_t sliding_window; /* tokens that attention looks back; 0: all of them */
    bool is_recurrent;       /* keeps a state instead of a cache of tokens */
    /* for predictions of memory (server/memory/predict.h); 0 where the file does not say */
    uint64_t layers;       /* <architecture>.block_count */
    uint64_t width;        /* embedding_length */
    uint64_t feed_forward; /* feed_forward_length; of the widest layer */
    uint64_t heads;        /* attention.head_count; of the widest layer */
    uint64_t kv_heads;     /* that keep keys and values, all layers together */
    uint64_t window_heads; /* of them, in layers that look back sliding_window tokens */
    uint64_t key_length, value_length; /* of one head */
    uint64_t window_key_length,
        window_value_length; /* the same with a window; 0: no other */
    bool keeps_no_values;    /* they come from the keys */
    uint64_t state_bytes;    /* of all recurrent layers, for one slot */
    uint64_t vocabulary;     /* entries of tokenizer.ggml.tokens */
    uint64_t layer_bytes;    /* tensors blk.*, all of them */
    uint64_t other_bytes;    /* embedding, output and what else there is */
    bool
        has_unknown_type; /* a tensor of a type that came after this was written: the bytes above lack it */
};

int model_peek(const char *path, struct model_peek *ret, struct err *err) MUST_CHECK;

#endif

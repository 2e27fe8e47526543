/* attention: which layers of a text model keep how much of a context, from what its file says of all of them. Pure. */
#ifndef MYSTI_SERVER_MODELS_ATTENTION_H
#define MYSTI_SERVER_MODELS_ATTENTION_H

#include "server/models/peek.h"

#define ATTENTION_LAYERS_MAX 1024 /* what a list says of more is not kept */

/* A number that is said once for all layers, or for each. */
struct layer_numbers {
    uint32_t of[ATTENTION_LAYERS_MAX];
    uint32_t count;
    bool is_said, is_list;
};

struct attention {
    struct layer_numbers kv_heads; /* attention.head_count_kv */
    struct layer_numbers
        pattern; /* attention.sliding_window_pattern: a period, or for each layer whether */
    uint64_t
        full_interval; /* full_attention_interval, of models that are recurrent in between */
    uint64_t conv, inner, state,
        groups;        /* ssm.conv_kernel, .inner_size, .state_size, .group_count */
    uint64_t wkv_head; /* wkv.head_size */
    uint64_t mla_key_length; /* attention.key_length_mla */
};

/* Sets kv_heads, window_heads, state_bytes, and value_length where no values are kept. */
void attention_sum_up(const struct attention *a, struct model_peek *p);

#endif

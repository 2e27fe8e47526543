/* Layers with a sliding window keep the window and one batch, whatever the context is; most models with such layers
 * have others between them. Which ones is said by the file (a list, or a period), or by nothing: then llama.cpp knows it by
 * the architecture, and so must we. `periods` repeats what its loaders set (set_swa_pattern in src/models); with an
 * architecture that is not listed all layers count in full, an upper bound.
 *
 * A period of n: the last of each n layers sees everything, or the first of them.
 *
 * Recurrent layers keep a state instead of a cache, of one size for each slot: the last values of the convolution, and what
 * the recurrence carries on, in f32 (n_embd_r and n_embd_s in llama-hparams.cpp). Models that mix both kinds say 0 heads for them, or
 * an interval; where neither is said every layer has both (Falcon-H1) or none has heads (Mamba, RWKV).
 *
 * DeepSeek's latent attention keeps keys alone: the values are computed from them. */
#include "server/models/attention.h"

#include <string.h>

static const struct {
    const char *architecture;
    uint32_t period;
    bool is_first_full;
} periods[] = {
    {"afmoe", 4, false},   {"cohere2", 4, false},         {"exaone-moe", 4, false},
    {"exaone4", 4, false}, {"gemma-embedding", 6, false}, {"gemma2", 2, false},
    {"gemma3", 6, false},  {"gemma3n", 5, false},         {"gpt-oss", 2, false},
    {"laguna", 4, true},   {"modern-bert", 3, true},      {"olmo2", 4, false},
    {"plamo3", 8, false},  {"smallthinker", 4, true},
};

/* What is said of this layer; false: nothing. */
static bool number_of(const struct layer_numbers *n, uint64_t layer, uint32_t *ret)
{
    if (!n->is_said || (n->is_list && layer >= n->count))
        return false;
    *ret = n->of[n->is_list ? layer : 0];
    return true;
}

static uint64_t heads_of(const struct attention *a, const struct model_peek *p,
                         uint64_t layer)
{
    uint32_t heads;

    if (p->is_recurrent && a->full_interval > 1 && (layer + 1) % a->full_interval)
        return 0;
    if (number_of(&a->kv_heads, layer, &heads))
        return heads;
    return p->is_recurrent ? 0 : p->heads; /* as many as there are heads */
}

static bool has_window(const struct attention *a, const struct model_peek *p,
                       uint64_t layer)
{
    uint32_t said = 0, period = 1;
    bool is_first_full = false;

    if (!p->sliding_window)
        return false;
    if (a->pattern.is_list)
        return number_of(&a->pattern, layer, &said) && said;
    for (size_t i = 0; i < sizeof(periods) / sizeof(periods[0]); i++)
        if (!strcmp(p->architecture, periods[i].architecture)) {
            period = periods[i].period;
            is_first_full = periods[i].is_first_full;
        }
    if (number_of(&a->pattern, layer, &said) && said)
        period = said;
    return is_first_full ? layer % period != 0 : layer % period < period - 1;
}

/* Of one layer and one slot, f32. Numbers of a file: sums that are too large mean nothing, and are not a size. */
static uint64_t state_of(const struct attention *a, const struct model_peek *p)
{
    const uint64_t most = (uint64_t)1
                          << 20; /* of each factor: products stay in 64 bits */
    uint64_t values;

    if (a->conv > most || a->inner > most || a->state > most || a->groups > most ||
        a->wkv_head > most || p->width > most)
        return 0;
    if (a->wkv_head)
        values = 2 * p->width + p->width * a->wkv_head;
    else
        values = (a->conv ? a->conv - 1 : 0) * (a->inner + 2 * a->groups * a->state) +
                 a->state * a->inner;
    return values > (uint64_t)1 << 40 ? 0 : values * sizeof(float);
}

void attention_sum_up(const struct attention *a, struct model_peek *p)
{
    uint64_t layers = p->layers < 4096 ? p->layers : 4096, states = 0;
    bool is_mixed = a->kv_heads.is_list || a->full_interval > 1;

    p->kv_heads = p->window_heads = 0;
    for (uint64_t i = 0; i < layers; i++) {
        uint64_t heads = heads_of(a, p, i);

        p->kv_heads += heads;
        if (has_window(a, p, i))
            p->window_heads += heads;
        states += !is_mixed || !heads;
    }
    p->state_bytes = p->is_recurrent ? states * state_of(a, p) : 0;
    if (a->mla_key_length)
        p->keeps_no_values = true;
}

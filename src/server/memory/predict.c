/* Weights: the bytes of the file's tensors. llama.cpp maps the file, so they are pages of the page cache (RssFile); what it
 * repacks for the processor becomes memory of the process instead, so the sum stays.
 *
 * Cache: for each layer context * slots * (key heads * key length + value heads * value length), f16 (llama.cpp's
 * standard) or as asked for, in blocks of 32 values. llama-server's log shows the same: "CPU KV buffer size".
 *
 * Compute buffers, from the widest moment of the graph of one batch of 512 tokens (llama.cpp's n_ubatch), or of
 * a whole slot where a text must go through in one piece: the logits, or
 * gate and up of the feed-forward, f32, beside four rows as wide as the model; and the attention mask, f16, a row of all
 * tokens of a slot for each token of the batch (flash attention, llama.cpp's standard, never holds the scores).
 * Against "CPU compute buffer size" of the starter writer: 512 tokens 6.50 MiB for 6.77, 8192 tokens 14.00 for 14.27;
 * 1024 in one piece, as llama-server gives vectors, 14.00 for 14.54.
 * The process itself takes 24 MiB more (measured: 50 MiB with the starter writer at 2048 tokens, where the rest is 25).
 *
 * Layers with a sliding window have the window and one batch instead of the whole context, in steps of 256 tokens (llama_kv_cache_iswa).
 * Recurrent layers have a state for each slot (models/attention.h).
 *
 * Numbers from a file are foreign: sums and products stop at the top instead of wrapping. */
#include "server/memory/predict.h"

#include <string.h>

#define CACHE_BLOCK 32
#define MASK_VALUE_BYTES 2
#define BATCH 512
#define STEP 256
#define PROCESS_BYTES                                                                  \
    ((uint64_t)24                                                                      \
     << 20) /* of which two thirds are pages of its programs and libraries */
#define STANDARD_CONTEXT 4096 /* of mysti_llm_worker */

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t n;

    return __builtin_mul_overflow(a, b, &n) ? UINT64_MAX : n;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t n;

    return __builtin_add_overflow(a, b, &n) ? UINT64_MAX : n;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t weights_of(const struct model_peek *m)
{
    uint64_t bytes = plus(m->layer_bytes, m->other_bytes);

    /* the file is the bound, and the answer where it says something that we do not know */
    return m->has_unknown_type || !bytes || bytes > m->size_bytes ? m->size_bytes
                                                                  : bytes;
}

/* Values of one head for one token. */
static uint64_t both_of(const struct model_peek *m, uint64_t key, uint64_t value)
{
    uint64_t head = m->heads ? m->width / m->heads : 0;

    return plus(key ? key : head, m->keeps_no_values ? 0 : value ? value : head);
}

static uint64_t cache_of_slot(const struct model_peek *m, uint64_t context,
                              uint64_t batch)
{
    uint64_t seen = plus(m->sliding_window, batch),
             whole = m->kv_heads - m->window_heads;
    uint64_t both = both_of(m, m->key_length, m->value_length);
    uint64_t windowed = m->window_key_length
                            ? both_of(m, m->window_key_length, m->window_value_length)
                            : both;

    seen = plus(seen < context ? seen : context, STEP - 1) / STEP * STEP;
    return plus(times(times(whole, both), context),
                times(times(m->window_heads, windowed), seen));
}

static uint64_t cache_of(const struct model_peek *m, uint64_t context, uint64_t slots,
                         uint64_t batch, enum cache_type type)
{
    uint64_t blocks =
        times(cache_of_slot(m, context, batch), cache_type_block_bytes(type));
    uint64_t bytes = blocks == UINT64_MAX ? blocks : blocks / CACHE_BLOCK;

    return times(slots, plus(bytes, m->state_bytes));
}

static uint64_t compute_of(const struct model_peek *m, uint64_t context, uint64_t batch)
{
    uint64_t widest =
        plus(larger(m->vocabulary, times(2, m->feed_forward)), times(4, m->width));
    uint64_t rows = times(widest, times(batch, sizeof(float)));

    return plus(plus(rows, times(context, times(batch, MASK_VALUE_BYTES))),
                PROCESS_BYTES);
}

void predict_text(const struct model_peek *m, const struct predict_start *start,
                  struct prediction *ret)
{
    uint64_t context = start->context ? start->context : STANDARD_CONTEXT;
    uint64_t slots = start->slots ? start->slots : 1;
    uint64_t batch = start->in_one_piece ? context : BATCH;
    struct prediction p = {.weight_bytes = weights_of(m)};

    p.cache_bytes = cache_of(m, context, slots, batch, start->cache_type);
    p.compute_bytes = compute_of(m, context, batch);
    p.layers = m->layers;
    if (m->layers)
        p.layer_bytes = plus(m->layer_bytes, p.cache_bytes) / m->layers;
    p.total_bytes = plus(plus(p.weight_bytes, p.cache_bytes), p.compute_bytes);
    *ret = p;
}

uint64_t predict_spare(const struct prediction *p, int context, int tokens)
{
    if (context <= 0 || tokens >= context)
        return 0;
    return p->cache_bytes / (uint64_t)context * (uint64_t)(context - tokens);
}

void predict_shorten(struct prediction *p, int context, int tokens)
{
    uint64_t spare = predict_spare(p, context, tokens);

    p->cache_bytes -= spare;
    p->total_bytes -= spare;
    if (p->layers)
        p->layer_bytes -= spare / p->layers;
}

void predict_measured_on_card(struct prediction *p, uint64_t bytes, int gpu_layers)
{
    bool is_all = gpu_layers < 0 || gpu_layers > (int)p->layers;
    uint64_t in_layers = p->layer_bytes * (is_all ? p->layers : (uint64_t)gpu_layers);

    if (bytes < in_layers)
        return; /* not all of it was in use */
    p->is_learned = true;
    p->total_bytes += bytes - in_layers - p->compute_bytes;
    p->compute_bytes = bytes - in_layers;
}

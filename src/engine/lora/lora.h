/* lora: a file of small changes to a model's weights, laid over an open model.
 *
 *   if (lora_open(&lora, path, base, &err)) return -1;
 *   if (lora_touches(lora, w)) {
 *       weight_to_f32(w, 0, weight_count(w), values);
 *       if (lora_add_delta(lora, w, strength, NULL, values, &err)) ...
 *   }
 *   lora_close(lora);
 *
 * Opening matches every key with a weight of the base and checks every shape, so that
 * what can fail later is memory and values that are no numbers. Nothing of the base is
 * changed and nothing is kept of what was computed: a weight without LoRA is read from
 * the base again, bit for bit.
 *
 * Several at once: call lora_add_delta for each on the same values, in the order of the
 * prompt. A lora is never written to after it was opened: threads may work on different
 * weights at the same time. */
#ifndef MYSTI_ENGINE_LORA_LORA_H
#define MYSTI_ENGINE_LORA_LORA_H

#include "engine/files/weights.h"

struct lora;

/* out [rows, cols] = a [rows, inner] b [inner, cols] */
typedef void lora_multiply_fn(const float *a, int64_t rows, const float *b,
                              int64_t inner, int64_t cols, float *out);

struct lora_strength {
    double unet, text; /* 1 is as it was trained, 0 leaves that network alone */
};

/* `base` is borrowed and must stay open longer. ERR_NOT_FOUND when there is no such
 * file; ERR_BAD_FILE when it is broken, no LoRA, has no key for this base, or has a
 * shape that does not fit: the sentence names the family it seems to be made for. */
int lora_open(struct lora **ret_lora, const char *path, const struct weights_file *base,
              struct err *err) MUST_CHECK;
/* The same for a file that is open; it belongs to the lora from now on, also when this
 * fails. */
int lora_read(struct lora **ret_lora, struct weights_file *file,
              const struct weights_file *base, struct err *err) MUST_CHECK;
void lora_close(struct lora *lora); /* NULL is fine */

/* Tensors of the file that change a weight of the base, and those that do not; bundled
 * textual inversions are neither. */
size_t lora_matched(const struct lora *lora);
size_t lora_unmatched(const struct lora *lora);
/* The name of an unmatched one, for a log; index < lora_unmatched() */
const char *lora_unmatched_name(const struct lora *lora, size_t index);

/* weight: one of the base, known by its name */
bool lora_touches(const struct lora *lora, const struct weight *weight);
/* values [weight_count(weight)], in the base's order: on entry the weight as it is
 * before this LoRA (the base's values, or what earlier LoRAs made of them; DoRA reads
 * them), then with strength * delta added. A weight that is not touched stays as it is.
 * multiply: what the products go through, NULL: a plain loop.
 * ERR_NO_MEMORY, or ERR_BAD_FILE when the file's values make no finite number: the
 * values are then spoilt. */
int lora_add_delta(const struct lora *lora, const struct weight *weight,
                   struct lora_strength strength, lora_multiply_fn *multiply,
                   float *values, struct err *err) MUST_CHECK;

/* Bytes that lora_add_delta() allocates for a while, at most. */
size_t lora_delta_bytes(const struct lora *lora);

/* Gives the mapped file's pages back, see weights_file_forget(). */
void lora_forget(const struct lora *lora);

#endif

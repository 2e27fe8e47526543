/* lora_case: a small base, and a LoRA over it whose change must be what a formula says.
 *
 *   struct made m = {0};
 *   PUT(&m, "lora_unet_..._attn1_to_q.diff", O, I);
 *   lora_expect(&m, Q, formula, names, 0.75);        releases m
 */
#ifndef MYSTI_TESTS_LORA_CASE_H
#define MYSTI_TESTS_LORA_CASE_H

#include "engine/lora/lora.h"

#include "made.h"

#define U "model.diffusion_model."
#define T "cond_stage_model.transformer.text_model.encoder.layers.0."

#define Q U "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
#define K U "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
#define OUT U "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight"
#define PROJ U "input_blocks.1.1.proj_in.weight"
#define V U "input_blocks.1.1.transformer_blocks.0.attn1.to_v.weight"
#define CONV U "input_blocks.1.0.in_layers.2.weight"
#define NORM U "input_blocks.1.0.in_layers.0.weight"
#define TEXT_Q T "self_attn.q_proj.weight"

enum { O = 9, I = 10, C = 6, P = 8 }; /* sizes; all but P are no multiples of a tile */

/* unet 0.75, text 0.5 */
extern const struct lora_strength lora_strengths;

struct weights_file *lora_base(struct made *m);

/* What the delta is by the formula, alpha and strength left out; k is the place in a
 * kernel. */
typedef double lora_formula_fn(const void *names, int64_t o, int64_t i, int64_t k);

/* The LoRA matches with all its tensors and adds factor * formula to the base's weight. */
void lora_expect(struct made *lora_file, const char *base_name,
                 lora_formula_fn *formula, const void *names, double factor);
/* It is refused with a sentence that has all of these (NULL ends them). */
void lora_expect_refusal(struct made *m, const char *const *sentences);
/* The delta is added again and again, each time with the next allocation failing: a sentence, until none fails. Returns how many
 * did; values: room for w, with the result in it. */
int lora_fail_each_allocation(const struct lora *lora, const struct weight *w,
                              float *values);

#endif

#include "lora_case.h"

#include "base/mem.h"

#include "unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct lora_strength lora_strengths = {.unet = 0.75, .text = 0.5};

struct weights_file *lora_base(struct made *m)
{
    PUT(m, U "input_blocks.0.0.weight", O, 4, 3, 3);
    PUT(m, NORM, I);
    PUT(m, U "input_blocks.1.0.in_layers.0.bias", I);
    PUT(m, CONV, O, I, 3, 3);
    PUT(m, U "input_blocks.1.0.in_layers.2.bias", O);
    PUT(m, PROJ, O, I, 1, 1);
    PUT(m, Q, O, I);
    PUT(m, K, O, C);
    PUT(m, OUT, O, I);
    PUT(m, U "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.bias", O);
    PUT(m, U "input_blocks.2.0.op.weight", O, I, 3, 3);
    PUT(m, U "input_blocks.3.0.in_layers.0.weight", I);
    PUT(m, U "input_blocks.3.1.proj_in.weight", O, I);
    PUT(m, TEXT_Q, O, I);
    PUT(m, T "self_attn.q_proj.bias", O);
    PUT(m, V, P, C);
    return made_open(m);
}

void lora_expect(struct made *lora_file, const char *base_name,
                 lora_formula_fn *formula, const void *names, double factor)
{
    struct made base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    const struct weight *w = weights_file_find(base, base_name);
    int64_t wide = w->rank > 1 ? w->dim[1] : 1, area = w->dim[2] * w->dim[3];
    float *values = mem_alloc(weight_count(w) * sizeof(*values));
    struct err err = {0};
    struct lora *lora;

    if (lora_read(&lora, made_open(lora_file), base, &err))
        fail_msg("%s", err.message);
    assert_int_equal(lora_unmatched(lora), 0);
    assert_true(lora_touches(lora, w));
    weight_to_f32(w, 0, weight_count(w), values);
    if (lora_add_delta(lora, w, lora_strengths, NULL, values, &err))
        fail_msg("%s", err.message);
    for (int64_t at = 0; at < (int64_t)weight_count(w); at++) {
        int64_t o = at / (wide * area), i = at / area % wide, k = at % area;
        double wanted = made_value(base_name, at) + factor * formula(names, o, i, k);

        if (fabs((double)values[at] - wanted) > 2e-5)
            fail_msg("%s: value %d is %g, %g was expected", base_name, (int)at,
                     (double)values[at], wanted);
    }
    free(values);
    lora_close(lora);
    weights_file_close(base);
    made_release(lora_file);
    made_release(&base_made);
}

void lora_expect_refusal(struct made *m, const char *const *sentences)
{
    struct made base_made = {0};
    struct weights_file *base = lora_base(&base_made);
    struct err err = {0};
    struct lora *lora;

    if (lora_read(&lora, made_open(m), base, &err) == 0)
        fail_msg("was read, '%s' was expected", sentences[0]);
    for (; *sentences; sentences++)
        if (!strstr(err.message, *sentences))
            fail_msg("'%s' lacks '%s'", err.message, *sentences);
    assert_int_equal(err.code, ERR_BAD_FILE);
    weights_file_close(base);
    made_release(m);
    made_release(&base_made);
}

int lora_fail_each_allocation(const struct lora *lora, const struct weight *w,
                              float *values)
{
    int failures = 0;

    for (unsigned n = 1;; n++, failures++) {
        struct err err = {0};
        int result;

        weight_to_f32(w, 0, weight_count(w), values);
        mem_fail_after(n);
        result = lora_add_delta(lora, w, lora_strengths, NULL, values, &err);
        mem_fail_after(0);
        if (result == 0)
            break;
        assert_int_equal(err.code, ERR_NO_MEMORY);
        assert_true(err.message[0] != '\0');
    }
    return failures;
}

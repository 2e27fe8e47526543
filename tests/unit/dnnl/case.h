/* case: one graph, run by `ref` and by `dnnl`, and how far apart they may be.
 *
 *   struct test_case *t = case_new(seed);
 *   x = case_input(t, shape4(2, 8, 8, 48));
 *   y = graph_conv2d(t->graph, x, "conv", case_weight(t, 4, 96, 48, 3, 3), NULL, &args);
 *   case_check(t, y, 1);
 *
 * Weights and inputs are random numbers that bf16 holds exactly, so that in bf16 the
 * only errors are the roundings of tensors between operations. case_check says how many such
 * roundings lie one behind the other on the longest way through the graph. */
#ifndef MYSTI_TESTS_DNNL_CASE_H
#define MYSTI_TESTS_DNNL_CASE_H

#include "engine/graph/backend.h"

enum { CASE_WEIGHTS = 64, CASE_INPUTS = 4 };

struct test_case {
    struct graph *graph;
    uint64_t random;
    struct weight weights[CASE_WEIGHTS];
    int weight_count;
    void *inputs[CASE_INPUTS];
    size_t input_elements[CASE_INPUTS];
    int input_count;
};

struct test_case *case_new(uint64_t seed);
void case_free(struct test_case *c);

float case_normal(struct test_case *c);              /* about N(0, 1), exact in bf16 */
int case_between(struct test_case *c, int a, int b); /* both included */

/* f32 input of N(offset, scale) */
int case_input_of(struct test_case *c, struct shape shape, float scale, float offset);
int case_input(struct test_case *c, struct shape shape);
/* token ids below `limit` */
int case_ids(struct test_case *c, struct shape shape, int limit);
/* deviation 1 / sqrt(inputs), so that products stay near 1; rank 1: N(0, 1) / 4 */
const struct weight *case_weight(struct test_case *c, int rank, int64_t a, int64_t b,
                                 int64_t h, int64_t w);
/* an f16 matrix of numbers of all sizes up to 1 */
const struct weight *case_halves(struct test_case *c, int64_t out, int64_t in);
/* near 1, for gamma */
const struct weight *case_gamma(struct test_case *c, int64_t channels);

/* Makes y the output, runs `ref` in f32 and `dnnl` in f32 and (where the processor has it)
 * bf16, fused and plain, with 1, 2 and 3 threads, and compares; frees the case. */
void case_check(struct test_case *c, int y, int roundings);

/* Makes y the output and runs `dnnl` with operations in one piece and in pieces as small as can be: the same bits, more
 * questions whether it is cancelled; returns how many. Where older processors multiply (no bf16) oneDNN's sums may differ in the
 * last bit, because their order depends on the number of rows. Frees the case. */
int case_check_pieces(struct test_case *c, int y);

/* Makes y the output and runs `dnnl` with int8 weights: within `drift` (rms of the errors to rms of the values) of `ref` with
 * the weights as they are, and as near as case_check wants it to `ref` with weights that are rounded to the same steps;
 * roundings 0: that is not looked at. Frees the case. */
void case_check_int8(struct test_case *c, int y, int roundings, double drift);

#endif

/* pieces: a product whose rows of y are computed some at a time, and what each piece reads of x.
 *
 * A row is a row of pixels for a convolution, a token for a linear one (kernel 1, stride 1). */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_PIECES_H
#define MYSTI_ENGINE_GRAPH_DNNL_PIECES_H

#include <stdbool.h>
#include <stdint.h>

/* The whole of it, in the direction that is cut. */
struct window {
    int64_t in, out; /* rows of x and y */
    int64_t kernel, stride, pad_before, pad_after;
    bool
        is_transposed; /* twice as many rows: kernel 4, stride 2, pad 1 on both sides */
};

struct piece {
    int64_t in_from, in_count;   /* rows of x */
    int64_t out_from, out_count; /* rows of y */
    int64_t pad_before, pad_after;
};

/* The piece that begins at row `from` of y and has `rows` of them, or what is left. Transposed: both even. */
struct piece piece_of(const struct window *w, int64_t from, int64_t rows);

#endif

/* moves: the operations that only carry memory from one place to another, whatever the
 * element type; sizes are in bytes, rows are dense. They use the caller's OpenMP threads
 * and cannot fail. */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_MOVES_H
#define MYSTI_ENGINE_GRAPH_DNNL_MOVES_H

#include <stddef.h>
#include <stdint.h>

/* a [rows, a_bytes], b [rows, b_bytes] -> y [rows, a_bytes + b_bytes] */
void move_concat(const void *a, size_t a_bytes, const void *b, size_t b_bytes, void *y,
                 int64_t rows);
/* y [rows, bytes] = x [rows, pitch] from byte `from` of each row on */
void move_slice(const void *x, size_t pitch, size_t from, void *y, size_t bytes,
                int64_t rows);
/* y [N, high, wide, pixel] = x [N, (high + 1) / 2, (wide + 1) / 2, pixel], each pixel four
 * times, at an odd border less often */
void move_upsample2x(const void *x, void *y, int64_t n, int64_t high, int64_t wide,
                     size_t pixel);

struct move_border {
    int64_t top, left, bottom, right;
};

/* x [N, high, wide, pixel] -> y [N, top + high + bottom, left + wide + right, pixel], beyond the edge what lies on the
 * other side */
void move_border(const void *x, void *y, int64_t n, int64_t high, int64_t wide,
                 const struct move_border *b, size_t pixel);

#endif

#include "engine/graph/dnnl/moves.h"

#include <string.h>

enum { PARALLEL_FROM = 1 << 20 }; /* bytes: below, waking threads costs more */

void move_concat(const void *a, size_t a_bytes, const void *b, size_t b_bytes, void *y,
                 int64_t rows)
{
    size_t bytes = a_bytes + b_bytes;

#pragma omp parallel for if ((size_t)rows * bytes >= PARALLEL_FROM)
    for (int64_t i = 0; i < rows; i++) {
        char *to = (char *)y + (size_t)i * bytes;

        memcpy(to, (const char *)a + (size_t)i * a_bytes, a_bytes);
        memcpy(to + a_bytes, (const char *)b + (size_t)i * b_bytes, b_bytes);
    }
}

void move_slice(const void *x, size_t pitch, size_t from, void *y, size_t bytes,
                int64_t rows)
{
#pragma omp parallel for if ((size_t)rows * bytes >= PARALLEL_FROM)
    for (int64_t i = 0; i < rows; i++)
        memcpy((char *)y + (size_t)i * bytes,
               (const char *)x + (size_t)i * pitch + from, bytes);
}

void move_upsample2x(const void *x, void *y, int64_t n, int64_t high, int64_t wide,
                     size_t pixel)
{
    int64_t h = (high + 1) / 2, w = (wide + 1) / 2;
    size_t row = (size_t)wide * pixel;

#pragma omp parallel for if ((size_t)(n * high) * row >= PARALLEL_FROM)
    for (int64_t i = 0; i < n * h; i++) {
        const char *from = (const char *)x + (size_t)(i * w) * pixel;
        char *to = (char *)y + (size_t)(i / h * high + i % h * 2) * row;

        for (int64_t j = 0; j < wide; j++)
            memcpy(to + (size_t)j * pixel, from + (size_t)(j / 2) * pixel, pixel);
        if (i % h * 2 + 1 < high)
            memcpy(to + row, to, row);
    }
}

void move_border(const void *x, void *y, int64_t n, int64_t high, int64_t wide,
                 const struct move_border *b, size_t pixel)
{
    int64_t all = b->top + high + b->bottom;
    size_t left = (size_t)b->left * pixel, row = (size_t)wide * pixel,
           right = (size_t)b->right * pixel;

#pragma omp parallel for if ((size_t)(n * high) * row >= PARALLEL_FROM)
    for (int64_t i = 0; i < n * all; i++) {
        int64_t of = (i % all - b->top + high) % high;
        const char *from = (const char *)x + (size_t)(i / all * high + of) * row;
        char *to = (char *)y + (size_t)i * (left + row + right);

        memcpy(to, from + row - left, left);
        memcpy(to + left, from, row);
        memcpy(to + left + row, from, right);
    }
}

#include "engine/graph/dnnl/moves.h"

#include <string.h>

enum { PARALLEL_FROM = 32 << 10 }; /* bytes: below, waking threads costs more */

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

void move_upsample2x(const void *x, void *y, int64_t n, int64_t h, int64_t w,
                     size_t pixel)
{
    size_t row = (size_t)w * pixel;

#pragma omp parallel for if ((size_t)(n * h) * row >= PARALLEL_FROM)
    for (int64_t i = 0; i < n * h; i++) {
        const char *from = (const char *)x + (size_t)i * row;
        char *to = (char *)y + (size_t)i * 4 * row;

        for (int64_t j = 0; j < w; j++) {
            memcpy(to + (size_t)(2 * j) * pixel, from + (size_t)j * pixel, pixel);
            memcpy(to + (size_t)(2 * j + 1) * pixel, from + (size_t)j * pixel, pixel);
        }
        memcpy(to + 2 * row, to, 2 * row);
    }
}

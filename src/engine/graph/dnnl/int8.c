/* int8: see the header.
 *
 * Unpacking goes over all weights of a network in each step: 860 million bytes in, twice as many out, at SD 1.5. So it is
 * one pass that multiplies sixteen bytes by sixteen scales that lie side by side.
 *
 * Rejected: oneDNN's own decompression of weights, which its products have and its convolutions lack (two thirds of a
 * U-Net); integer products, which would want the activations as bytes, too, and change pictures far more; multiplying
 * by the scales after the product, as a post-op that some of oneDNN's kernels refuse before a sum. */
#include "engine/graph/dnnl/int8.h"

#include "base/mem.h"
#include "engine/graph/dnnl/layout.h"

#include <stdlib.h>

enum { STEP = 16, CHUNK = 1 << 15 /* values that a thread takes at once */ };

struct int8_weights {
    struct output_lines lines;
    int64_t line; /* floats of a line of scales: periods, and a multiple of STEP */
    size_t value_bytes;
};

struct int8_weights *int8_new(const_dnnl_memory_desc_t layout)
{
    struct int8_weights *w = mem_zalloc(sizeof(*w));

    if (layout_outputs(layout, &w->lines)) {
        free(w);
        return NULL;
    }
    w->line = w->lines.period;
    while (w->line % STEP)
        w->line += w->lines.period;
    w->value_bytes = dnnl_memory_desc_get_size(layout);
    return w;
}

void int8_free(struct int8_weights *w)
{
    if (!w)
        return;
    output_lines_release(&w->lines);
    free(w);
}

static size_t scales_at(const struct int8_weights *w)
{
    return ((size_t)w->lines.count + 63) / 64 * 64;
}

size_t int8_bytes(const struct int8_weights *w)
{
    return scales_at(w) + (size_t)(w->lines.lines * w->line) * sizeof(float);
}

size_t int8_value_bytes(const struct int8_weights *w)
{
    return w->value_bytes;
}

/* Some values of one run. */
struct part {
    int64_t from, count, line;
};

static int64_t chunk_of(const struct int8_weights *w)
{
    return w->line > CHUNK ? w->line : CHUNK / w->line * w->line;
}

static int64_t parts_of_run(const struct int8_weights *w)
{
    return (w->lines.run + chunk_of(w) - 1) / chunk_of(w);
}

static int64_t count_parts(const struct int8_weights *w)
{
    return w->lines.count / w->lines.run * parts_of_run(w);
}

static struct part part_at(const struct int8_weights *w, int64_t index)
{
    int64_t run = index / parts_of_run(w), at = index % parts_of_run(w) * chunk_of(w);
    int64_t left = w->lines.run - at;

    return (struct part){.from = run * w->lines.run + at,
                         .count = left < chunk_of(w) ? left : chunk_of(w),
                         .line = run % w->lines.lines * w->line};
}

static void spread_scales(const struct int8_weights *w, const float *largest,
                          int64_t outputs, float *scales)
{
    for (int64_t l = 0; l < w->lines.lines; l++)
        for (int64_t i = 0; i < w->line; i++) {
            int64_t output =
                l * w->lines.in_line + w->lines.outputs[i % w->lines.period];

            scales[l * w->line + i] = output < outputs ? largest[output] / 127.0f : 0;
        }
}

void int8_pack(const struct int8_weights *w, const struct dnnl_backend *b,
               const void *values, const float *largest, int64_t outputs, void *to)
{
    float *scales = (float *)((char *)to + scales_at(w));
    int64_t parts = count_parts(w);

    spread_scales(w, largest, outputs, scales);
#pragma omp parallel for
    for (int64_t i = 0; i < parts; i++) {
        struct part p = part_at(w, i);

        b->kernels->to_bytes((const char *)values + (size_t)p.from * elem_bytes(b->act),
                             b->act, scales + p.line, w->line, (int8_t *)to + p.from,
                             p.count);
    }
}

void int8_unpack(const struct int8_weights *w, const struct dnnl_backend *b,
                 const void *from, void *values)
{
    const float *scales = (const float *)((const char *)from + scales_at(w));
    int64_t parts = count_parts(w);

#pragma omp parallel for if (w->lines.count >= 8 * CHUNK)
    for (int64_t i = 0; i < parts; i++) {
        struct part p = part_at(w, i);

        b->kernels->from_bytes((const int8_t *)from + p.from, scales + p.line, w->line,
                               (char *)values + (size_t)p.from * elem_bytes(b->act),
                               b->act, p.count);
    }
}

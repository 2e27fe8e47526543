/* layout: from a file's order of weights to the one that a primitive of oneDNN reads.
 *
 * Matrices are [O, I] in the file and [I, O] to oneDNN, kernels [O, I, KH, KW] to both. */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_LAYOUT_H
#define MYSTI_ENGINE_GRAPH_DNNL_LAYOUT_H

#include "engine/graph/dnnl/dnnl_backend.h"

/* plain: as the file has it, in the layout's type; to: as many bytes as the layout takes. -1: oneDNN cannot. */
int layout_fill(struct dnnl_backend *b, const_dnnl_memory_desc_t layout, void *plain,
                void *to);

/* Outputs (rows of a matrix in the file) along the memory of a layout: value i belongs to output
 *   (i / run) % lines * in_line + outputs[i % run % period]
 * A line is `in_line` outputs that take turns; it holds for a run of values. */
struct output_lines {
    int64_t count; /* values, with padding */
    int64_t run, period;
    int64_t lines, in_line;
    int64_t *outputs; /* [period] */
};

/* -1, with nothing to release: the layout is of no such kind. */
int layout_outputs(const_dnnl_memory_desc_t layout, struct output_lines *ret_lines);
void output_lines_release(struct output_lines *lines);

#endif

/* int8: weights as bytes, half of what bf16 takes and a quarter of f32, in the very layout that a primitive reads.
 *
 *   w = int8_new(layout);                          NULL: this layout stays as it is
 *   int8_pack(w, b, values, largest, to);          once
 *   int8_unpack(w, b, from, values);               before each run, into scratch
 *
 * value = byte * scale, with a scale for each output (a row of the matrix, a kernel): 127 is its largest weight. Symmetric,
 * so zero stays zero and padding too. Scales lie behind the bytes, spread out as the layout wants them: one line of them
 * serves a run of values, with no look-up per value. */
#ifndef MYSTI_ENGINE_GRAPH_DNNL_INT8_H
#define MYSTI_ENGINE_GRAPH_DNNL_INT8_H

#include "engine/graph/dnnl/dnnl_backend.h"

struct int8_weights;

struct int8_weights *int8_new(const_dnnl_memory_desc_t layout);
void int8_free(struct int8_weights *w);
size_t int8_bytes(const struct int8_weights *w); /* of bytes and scales */
size_t
int8_value_bytes(const struct int8_weights *w); /* of what they are unpacked to */
/* values: in the layout; largest [outputs]: the largest magnitude of each output's weights */
void int8_pack(const struct int8_weights *w, const struct dnnl_backend *b,
               const void *values, const float *largest, int64_t outputs, void *to);
void int8_unpack(const struct int8_weights *w, const struct dnnl_backend *b,
                 const void *from, void *values);

#endif

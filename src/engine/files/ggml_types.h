/* ggml_types: the quantisations that GGUF files come in, by way of ggml itself.
 *
 * Q4_K, IQ2_XXS, MXFP4 and two dozen more are ggml's own formats, and it adds to them; its
 * base library (no back end, no threads) is asked how each is packed and for the
 * values. A build without it answers -1 to every type, and such tensors stay
 * WEIGHT_OTHER. */
#ifndef MYSTI_ENGINE_FILES_GGML_TYPES_H
#define MYSTI_ENGINE_FILES_GGML_TYPES_H

#include <stddef.h>
#include <stdint.h>

struct ggml_block {
    size_t values, bytes; /* never split between rows */
};

/* 0 when values of this type can be had, -1 otherwise (a number from a file: any). */
int ggml_block(uint64_t ggml_type, struct ggml_block *ret_block);
/* "Q4_K"; "other" when ggml is not there or has no such type */
const char *ggml_name(uint64_t ggml_type);
/* Elements [first, first + count) of `data`; for types that ggml_block() knows. */
void ggml_to_f32(int ggml_type, const unsigned char *data, size_t first, size_t count,
                 float *ret_values);

#endif

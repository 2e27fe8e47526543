/* cache_type: in which type llama-server keeps the keys and values of a context (its --cache-type-k and -v). A smaller one is a longer
 * context in the same memory, and a little less exact. */
#ifndef MYSTI_SERVER_MEMORY_CACHE_TYPE_H
#define MYSTI_SERVER_MEMORY_CACHE_TYPE_H

#include "base/err.h"

#include <stdint.h>

/* Bytes of 32 values, as ggml packs them. The words are llama-server's, but for auto: as configured. */
#define CACHE_TYPES(X)                                                                 \
    X(AUTO, "auto", 64)                                                                \
    X(F16, "f16", 64)                                                                  \
    X(BF16, "bf16", 64)                                                                \
    X(Q8_0, "q8_0", 34)                                                                \
    X(Q5_1, "q5_1", 24)                                                                \
    X(Q5_0, "q5_0", 22)                                                                \
    X(Q4_1, "q4_1", 20)                                                                \
    X(Q4_0, "q4_0", 18)
#define CACHE_TYPE_WORDS "f16|bf16|q8_0|q5_1|q5_0|q4_1|q4_0"

enum cache_type {
#define X(name, word, bytes) CACHE_##name,
    CACHE_TYPES(X)
#undef X
};

const char *cache_type_name(enum cache_type type);
int cache_type_from_name(const char *name, enum cache_type *ret,
                         struct err *err) MUST_CHECK;
uint64_t cache_type_block_bytes(enum cache_type type);

#endif

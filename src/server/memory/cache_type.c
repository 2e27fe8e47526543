/* The words and sizes of cache_type.h. Left out are f32, which nobody gains by, and iq4_nl, which few processors have kernels for. */
#include "server/memory/cache_type.h"

#include <string.h>

static const struct {
    const char *word;
    uint64_t block_bytes;
} types[] = {
#define X(name, word, bytes) [CACHE_##name] = {word, bytes},
    CACHE_TYPES(X)
#undef X
};

const char *cache_type_name(enum cache_type type)
{
    return types[type].word;
}

uint64_t cache_type_block_bytes(enum cache_type type)
{
    return types[type].block_bytes;
}

int cache_type_from_name(const char *name, enum cache_type *ret, struct err *err)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (!strcmp(types[i].word, name)) {
            *ret = (enum cache_type)i;
            return 0;
        }
    }
    return err_set_param(err, ERR_INVALID, "cache_type",
                         "cache_type must be one of auto, f16, bf16, q8_0, q5_1, q5_0, "
                         "q4_1, q4_0, not \"%.60s\"",
                         name);
}

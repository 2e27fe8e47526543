/* ggml_types: blocks become floats.
 *
 * ggml converts whole blocks only. A range that begins or ends inside one takes that
 * block through a buffer on the stack: the largest block any type has is 256 values. */
#include "engine/files/ggml_types.h"

#if MYSTI_HAVE_GGML

#include <ggml.h>

#include <string.h>

#define MAX_BLOCK 256

int ggml_block(uint64_t ggml_type, struct ggml_block *ret_block)
{
    const struct ggml_type_traits *traits;

    if (ggml_type >= GGML_TYPE_COUNT)
        return -1;
    traits = ggml_get_type_traits((enum ggml_type)ggml_type);
    if (!traits->to_float || traits->blck_size <= 0 || traits->blck_size > MAX_BLOCK)
        return -1;
    ret_block->values = (size_t)traits->blck_size;
    ret_block->bytes = traits->type_size;
    return 0;
}

const char *ggml_name(uint64_t ggml_type)
{
    const char *name = ggml_type < GGML_TYPE_COUNT
                           ? ggml_get_type_traits((enum ggml_type)ggml_type)->type_name
                           : NULL;

    return name ? name : "other";
}

void ggml_to_f32(int ggml_type, const unsigned char *data, size_t first, size_t count,
                 float *ret_values)
{
    const struct ggml_type_traits *traits =
        ggml_get_type_traits((enum ggml_type)ggml_type);
    size_t block = (size_t)traits->blck_size;

    while (count) {
        const unsigned char *from = data + first / block * traits->type_size;
        size_t inside = first % block, taken;

        if (inside == 0 && count >= block) {
            taken = count / block * block;
            traits->to_float(from, ret_values, (int64_t)taken);
        } else {
            float whole[MAX_BLOCK];

            taken = block - inside < count ? block - inside : count;
            traits->to_float(from, whole, (int64_t)block);
            memcpy(ret_values, whole + inside, taken * sizeof(*ret_values));
        }
        first += taken;
        ret_values += taken;
        count -= taken;
    }
}

#else

int ggml_block(uint64_t ggml_type, struct ggml_block *ret_block)
{
    (void)ggml_type;
    (void)ret_block;
    return -1;
}

const char *ggml_name(uint64_t ggml_type)
{
    (void)ggml_type;
    return "other";
}

void ggml_to_f32(int ggml_type, const unsigned char *data, size_t first, size_t count,
                 float *ret_values)
{
    (void)ggml_type;
    (void)data;
    (void)first;
    for (size_t i = 0; i < count; i++)
        ret_values[i] = 0;
}

#endif

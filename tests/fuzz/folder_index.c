/* The index of weights that are cut into files: no name in it leads out of the folder, and any names of tensors can be
 * learned and translated. */
#include "base/buf.h"
#include "engine/files/diffusers.h"
#include "engine/files/folder.h"

#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void translate(const struct shard_index *index, enum diffusers_part part)
{
    struct diffusers_blocks blocks = {0};
    struct buf name = {0};

    for (size_t i = 0; i < index->count; i++)
        diffusers_learn(&blocks, index->entries[i].tensor);
    for (size_t i = 0; i < index->count; i++) {
        buf_clear(&name);
        diffusers_name(part, &blocks, index->entries[i].tensor, &name);
        if (name.len > 2 * strlen(index->entries[i].tensor) + 64)
            abort();
    }
    buf_release(&name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct shard_index index;
    struct err err = {0};

    if (shard_index_read(&index, (const char *)data, size, &err)) {
        if (!err.message[0] || err.code == ERR_NONE)
            abort();
        return 0;
    }
    if (!index.count)
        abort();
    for (size_t i = 0; i < index.count; i++) {
        const char *file = index.entries[i].file;

        if (!*file || strchr(file, '/') || !strcmp(file, ".") || !strcmp(file, ".."))
            abort();
    }
    translate(&index, DIFFUSERS_UNET);
    translate(&index, DIFFUSERS_VAE);
    translate(&index, DIFFUSERS_TEXT);
    shard_index_release(&index);
    return 0;
}

/* vae_names: a VAE alone in a file has its tensors without the checkpoint's prefix ("decoder.conv_in.weight"), or as
 * diffusers calls them ("decoder.up_blocks.0..."). Here they get a checkpoint's names, so that the rest of the engine knows
 * one kind of VAE. A file with the prefix, a whole checkpoint for instance, stays as it is. */
#include "engine/files/diffusers.h"
#include "engine/files/reader.h"

#include "base/str.h"

#include <stdlib.h>

#define PREFIX "first_stage_model."

void vae_names_complete(struct weights_file *file)
{
    struct diffusers_blocks blocks = {0};

    for (size_t i = 0; i < file->count; i++) {
        if (str_has_prefix(file->weights[i].name, PREFIX))
            return;
        diffusers_learn(&blocks, file->weights[i].name);
    }
    for (size_t i = 0; i < file->count; i++) {
        struct weight *w = &file->weights[i];
        struct buf name = {0};

        buf_append_str(&name, PREFIX);
        diffusers_name(DIFFUSERS_VAE, &blocks, w->name, &name);
        free((void *)(uintptr_t)w->name);
        w->name = buf_take(&name);
    }
}

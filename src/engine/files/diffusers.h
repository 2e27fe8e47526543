/* diffusers: what a tensor of a diffusers folder is called in a checkpoint of one file.
 * Private to files/.
 *
 *   struct diffusers_blocks blocks = {0};
 *   ... diffusers_learn(&blocks, name);          every name in unet/, in any order
 *   ... diffusers_name(DIFFUSERS_UNET, &blocks, name, &ours);
 *
 * "down_blocks.0.resnets.1.conv1.weight" is "input_blocks.2.0.in_layers.2.weight". */
#ifndef MYSTI_ENGINE_FILES_DIFFUSERS_H
#define MYSTI_ENGINE_FILES_DIFFUSERS_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum diffusers_part { DIFFUSERS_UNET, DIFFUSERS_VAE, DIFFUSERS_TEXT };

enum { DIFFUSERS_LEVELS = 8, DIFFUSERS_BLOCKS = 32 };

/* A level of the U-Net, or its middle. */
struct diffusers_level {
    int resnets;
    uint32_t attentions; /* a bit for each resnet that has one behind it */
    bool is_scaled;      /* it ends with a downsampler or an upsampler */
};

struct diffusers_blocks {
    struct diffusers_level down[DIFFUSERS_LEVELS], up[DIFFUSERS_LEVELS], middle;
    int decoder_levels; /* of the VAE */
};

void diffusers_learn(struct diffusers_blocks *blocks, const char *name);
/* Appends the name. One that has no other is appended as it is. */
void diffusers_name(enum diffusers_part part, const struct diffusers_blocks *blocks,
                    const char *name, struct buf *ret);

#endif

/* vae_names: a VAE alone in a file has its tensors without the checkpoint's prefix ("decoder.conv_in.weight"), or as
 * diffusers calls them ("decoder.up_blocks.0..."). Here they get a checkpoint's names, so that the rest of the engine knows
 * one kind of VAE. A file with the prefix, a whole checkpoint for instance, stays as it is.
 *
 * TAESD's original files have one half each, its layers under bare numbers ("1.weight", "3.conv.0.weight"). Which half, the
 * first layer tells: the decoder's number 0 is its clamp, which has no weights. ComfyUI writes both halves into one file as
 * "taesd_decoder.1.weight". */
#include "engine/files/diffusers.h"
#include "engine/files/reader.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#define PREFIX "first_stage_model."
#define TAESD_DECODER "taesd_decoder."
#define TAESD_ENCODER "taesd_encoder."

/* ---- TAESD's original names ---- */

/* In whatever order. */
static bool has(const struct weights_file *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->weights[i].name, name) == 0)
            return true;
    return false;
}

static enum vae_half half_of(const struct weights_file *file)
{
    if (has(file, "0.weight") && has(file, "1.conv.0.weight"))
        return VAE_HALF_ENCODER;
    if (!has(file, "0.weight") && has(file, "1.weight") && has(file, "3.conv.0.weight"))
        return VAE_HALF_DECODER;
    return VAE_HALF_NONE;
}

/* false: it has another name */
static bool append_taesd(const char *name, enum vae_half half, struct buf *ret)
{
    if (str_has_prefix(name, TAESD_DECODER)) {
        half = VAE_HALF_DECODER;
        name += strlen(TAESD_DECODER);
    } else if (str_has_prefix(name, TAESD_ENCODER)) {
        half = VAE_HALF_ENCODER;
        name += strlen(TAESD_ENCODER);
    }
    if (half == VAE_HALF_NONE)
        return false;
    buf_append_str(ret,
                   half == VAE_HALF_DECODER ? "decoder.layers." : "encoder.layers.");
    buf_append_str(ret, name);
    return true;
}

/* ---- all ---- */

enum vae_half vae_names_complete(struct weights_file *file)
{
    struct diffusers_blocks blocks = {0};
    enum vae_half half = half_of(file);

    for (size_t i = 0; i < file->count; i++) {
        if (str_has_prefix(file->weights[i].name, PREFIX))
            return VAE_HALF_NONE;
        diffusers_learn(&blocks, file->weights[i].name);
    }
    for (size_t i = 0; i < file->count; i++) {
        struct weight *w = &file->weights[i];
        struct buf name = {0};

        buf_append_str(&name, PREFIX);
        if (!append_taesd(w->name, half, &name))
            diffusers_name(DIFFUSERS_VAE, &blocks, w->name, &name);
        free((void *)(uintptr_t)w->name);
        w->name = buf_take(&name);
    }
    return half;
}

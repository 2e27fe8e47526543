/* vae_file: what is opened when somebody names a VAE. Mostly one file; of a folder as diffusers writes it the file in it;
 * and beside the half of a TAESD that lies in a file of its own, as its makers give it away ("taesd_decoder.pth"), the
 * file with the other half, if it is called the same but for that word. Whichever it is becomes one struct weights_file with
 * a checkpoint's names (vae_names.c), whose parts own the data. */
#include "engine/files/reader.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"

#include <stdlib.h>
#include <string.h>

/* "x/taesd_decoder.pth" is "x/taesd_encoder.pth"; free() it. NULL: there is no such file. */
static char *path_of_other(const char *path, enum vae_half half)
{
    const char *word = half == VAE_HALF_DECODER ? "decoder" : "encoder";
    const char *other = half == VAE_HALF_DECODER ? "encoder" : "decoder";
    const char *at = strstr(file_name(path), word);
    char *found;

    if (!at)
        return NULL;
    found = mem_printf("%.*s%s%s", (int)(at - path), path, other, at + strlen(word));
    if (file_exists(found))
        return found;
    free(found);
    return NULL;
}

static int add_tensors(struct weights_file *file, const struct weights_file *part,
                       struct err *err)
{
    for (size_t i = 0; i < part->count; i++)
        if (weights_file_adopt(file, &part->weights[i], part->weights[i].name, err))
            return -1;
    for (size_t i = 0; i < part->meta_count; i++)
        weights_file_add_meta(file, part->meta[i].key, strlen(part->meta[i].key),
                              part->meta[i].value, strlen(part->meta[i].value));
    return 0;
}

/* Opens it under a checkpoint's names. A `wanted` half that the file is not: it stays unread. */
static int add_file(struct weights_file *file, const char *path, enum vae_half wanted,
                    enum vae_half *ret_half, struct err *err)
{
    struct weights_file *part;

    if (weights_file_open_part(file, path, err))
        return -1;
    part = file->parts[file->part_count - 1];
    *ret_half = vae_names_complete(part);
    if (wanted != VAE_HALF_NONE && *ret_half != wanted)
        return 0;
    return add_tensors(file, part, err);
}

int vae_file_read(struct weights_file *file, struct err *err)
{
    char *inside = model_folder_network(file->path);
    enum vae_half half, other;
    char *beside = NULL;
    int result;

    if (file_is_folder(file->path) && !inside)
        return err_set(err, ERR_BAD_FILE,
                       "%s: is a folder without a config.json and a "
                       "diffusion_pytorch_model.safetensors: name a VAE's file, or a "
                       "folder as diffusers writes it",
                       file->path);
    file->may_share = true; /* each file was looked at by itself */
    result = add_file(file, inside ? inside : file->path, VAE_HALF_NONE, &half, err);
    if (!result && half != VAE_HALF_NONE)
        beside = path_of_other(file->path, half);
    if (beside)
        result =
            add_file(file, beside,
                     half == VAE_HALF_DECODER ? VAE_HALF_ENCODER : VAE_HALF_DECODER,
                     &other, err);
    for (size_t i = 0; i < file->part_count; i++)
        file->size += file->parts[i]->size;
    file->format = file->part_count ? file->parts[0]->format : "";
    free(inside);
    free(beside);
    return result;
}

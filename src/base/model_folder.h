/* model_folder: which files a model consists of that is kept as diffusers keeps it: a folder with a
 * model_index.json, and in it a folder for each part with the part's weights. The server asks what such a folder
 * is and how large, the engine reads it; both must mean the same files. */
#ifndef MYSTI_BASE_MODEL_FOLDER_H
#define MYSTI_BASE_MODEL_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_FOLDER_LIST "model_index.json"
#define MODEL_FOLDER_UNET "unet"

/* Is this a folder with a model_index.json? */
bool model_folder_is(const char *path);
/* The file with the weights of a part ("unet", "vae", ...), or the index of the files that it is cut into; free() it.
 * NULL: there is none. Whole ones are taken before cut ones, safetensors before torch's, full precision before fp16. */
char *model_folder_weights(const char *folder, const char *part);
/* The file with the weights of a folder that is one such part alone: a VAE that somebody gives away, or a part of a model. It
 * has a config.json and a whole diffusion_pytorch_model. free() it; NULL: it is none. */
char *model_folder_network(const char *folder);
/* Is this one of those indexes? */
bool model_folder_is_index(const char *path);
/* Bytes of all weights that model_folder_weights() finds, and when the newest of them was changed (seconds since
 * 1970). */
void model_folder_size(const char *folder, uint64_t *ret_bytes, int64_t *ret_modified);

#endif

/* small_folder: the small model (small_model.h) as diffusers would keep it: unet/ cut into two
 * files, text_encoder/ in torch's format, vae/ whole, and the JSON files beside them. Of SDXL's
 * second text encoder the matrices are taken apart and the names are Hugging Face's. */
#ifndef MYSTI_TESTS_SMALL_FOLDER_H
#define MYSTI_TESTS_SMALL_FOLDER_H

/* A folder under /tmp; small_folder_remove() it. Fails the test that calls it. */
char *small_folder_write(void);
char *small_folder_write_sdxl(void);
void small_folder_remove(char *path); /* frees the path, too */
/* Replaces a file in it by this text. */
void small_folder_put(const char *folder, const char *name, const char *text);

#define SMALL_FOLDER_SHARD_1 "diffusion_pytorch_model-00001-of-00002.safetensors"
#define SMALL_FOLDER_SHARD_2 "diffusion_pytorch_model-00002-of-00002.safetensors"
#define SMALL_FOLDER_INDEX "unet/diffusion_pytorch_model.safetensors.index.json"

#endif

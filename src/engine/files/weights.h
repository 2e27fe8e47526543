/* weights: the tensors of a model file, whatever its format. safetensors, GGUF, what
 * torch.save writes (.ckpt, .pt, .bin) and a folder as diffusers writes it open into the same
 * struct weights_file; the rest of the engine never asks which it was.
 *
 *   if (weights_file_open(&file, path, &err)) return -1;
 *   const struct weight *w = weights_file_find(file, "model.diffusion_model.out.2.weight");
 *   weight_to_f32(w, 0, weight_count(w), floats);
 *   weights_file_close(file);
 *
 * The file is mapped, never read into memory as a whole. Everything in it was checked
 * when it was opened: a struct weight that was handed out has data in bounds, known
 * type, rank 0..4, no overflow. The mapping lives as long as the file is open;
 * weights_file_forget() gives its pages back once they were packed (they come back from
 * disk if somebody looks again). Any thread may read. */
#ifndef MYSTI_ENGINE_FILES_WEIGHTS_H
#define MYSTI_ENGINE_FILES_WEIGHTS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum weight_type {
    WEIGHT_F32,
    WEIGHT_F16,
    WEIGHT_BF16,
    WEIGHT_Q8_0, /* blocks of 32 along the last dimension: an f16 scale, 32 signed bytes
                  */
    WEIGHT_GGML, /* one of GGUF's other quantisations, read by ggml; only in a build with it
                  */
    WEIGHT_OTHER, /* known to the format, not to us (integers, anything newer): no
                     values to be had */
};

#define WEIGHT_TYPE_NAME 16

struct weight {
    const char *name;
    enum weight_type type;
    int ggml_type; /* ggml's own number, for WEIGHT_GGML */
    int rank;
    int64_t dim[4]; /* as PyTorch has them, last fastest: linear [O, I], conv [O, I, KH,
                       KW]; unused are 1 */
    const unsigned char *data;
    size_t bytes;
    bool is_mapped;               /* data lies in a mapped file; else on the heap */
    char other[WEIGHT_TYPE_NAME]; /* what the format calls a WEIGHT_OTHER */
};

struct weights_file;

#define WEIGHTS_FOLDER "diffusers folder" /* the format of one */

int weights_file_open(struct weights_file **ret_file, const char *path,
                      struct err *err) MUST_CHECK;
/* The same for what is to be a VAE, a file or a folder as diffusers writes one: one without the rest of a checkpoint, also
 * under diffusers' names or TAESD's, gets a checkpoint's ("first_stage_model...."). Beside one half of a TAESD the file
 * with the other half is looked for. */
int weights_vae_open(struct weights_file **ret_file, const char *path,
                     struct err *err) MUST_CHECK;
void weights_file_close(struct weights_file *file); /* NULL is fine */

/* NULL when the file has no such tensor */
const struct weight *weights_file_find(const struct weights_file *file,
                                       const char *name);
size_t weights_file_count(const struct weights_file *file);
const struct weight *weights_file_at(const struct weights_file *file, size_t index);
/* a metadata value that is text (GGUF numbers are given as text too); NULL when absent
 */
const char *weights_file_meta(const struct weights_file *file, const char *key);
const char *weights_file_path(const struct weights_file *file);
/* The files that the tensors are in, where these are not all in the one that was opened; NULL: there are no more. */
const char *weights_file_part_path(const struct weights_file *file, size_t index);
const char *weights_file_format(const struct weights_file *file); /* "safetensors" */
uint64_t weights_file_bytes(const struct weights_file *file);
/* weight_forget() for all of the file */
void weights_file_forget(const struct weights_file *file);

size_t weight_count(const struct weight *w); /* elements */
/* Elements [first, first + count) as f32. The type must not be WEIGHT_OTHER. */
void weight_to_f32(const struct weight *w, size_t first, size_t count,
                   float *ret_values);
/* "F16", "Q4_K", "I64" */
const char *weight_type_name(const struct weight *w);
/* What can be read, for a sentence. */
const char *weight_types_read(void);
/* Tells the kernel that this tensor's pages are not needed any more; nothing for a
 * weight that is not mapped. The values can still be read: then they come from disk
 * again. */
void weight_forget(const struct weight *w);

#endif

/* checkpoint: a Stable Diffusion model file, opened, understood and checked, and the
 * graphs that make a picture with it. Private to the engine. Reads hardly any weights:
 * opening is quick. */
#ifndef MYSTI_ENGINE_CHECKPOINT_H
#define MYSTI_ENGINE_CHECKPOINT_H

#include "engine/family.h"
#include "engine/sampler/sampler.h"
#include "engine/vae/vae.h"

/* What the file's metadata says (keys "mysti...."), or what suits its family. */
struct checkpoint_defaults {
    int width, height, steps;
    double cfg_scale;
    enum sampler sampler;
    enum scheduler scheduler;
};

struct checkpoint {
    struct weights_file *file;
    char *name;
    const struct family *family;
    struct clip clips[FAMILY_TEXTS_MAX]; /* text_count of the family */
    int64_t text_width;                  /* of all text encoders side by side */
    const struct clip
        *summary; /* the one of clips whose summary the U-Net is told; NULL */
    struct unet *unet;
    struct vae own_vae; /* without a file where the checkpoint has none */
    struct vae vae;     /* in use: its own, or another file's */
    /* the U-Net is shown, beside the latent, a mask and the latent of what it keeps (SD's and SDXL's models for inpainting) */
    bool is_inpainting;
    enum prediction prediction;
    bool ends_in_noise; /* its schedule, see schedule_end_in_noise */
    struct checkpoint_defaults defaults;
    uint64_t parameters; /* numbers in the tensors that every picture uses */
};

int checkpoint_open(struct checkpoint **ret_checkpoint, const char *path,
                    struct err *err) MUST_CHECK;
void checkpoint_close(struct checkpoint *c);

/* The VAE of this file from now on, which must live as long; NULL: its own again. One that does not fit the model, by its
 * tensors, is ERR_BAD_FILE, and the one before stays. */
int checkpoint_use_vae(struct checkpoint *c, const struct weights_file *file,
                       struct err *err) MUST_CHECK;

/* of each of the ENGINE_SIZES sizes */
enum { CHECKPOINT_SINUSOIDS = 256 };

/* What one picture is made of: programs are compiled for it. */
struct picture_size {
    int width, height; /* pixels, multiples of the VAE's scale */
    int batch;    /* the parts of the prompt, then the negative prompt if it is used */
    int starts;   /* 1: from a picture, so that the encoder is needed */
    int chunks;   /* of each prompt, at least 1 */
    int vectors;  /* rows behind the text encoders' token tables, see inversions.h */
    int seamless; /* ENGINE_SEAMLESS_... */
    int apart;    /* 1: the U-Net has the rows of the batch one after the other */
    int tile;     /* latent pixels of a tile of the VAE; 0: it has the picture whole */
    int skipped; /* layers at the text encoders' ends that are left out, where it is more
                    than the family's own */
};

/* What the VAE has at once. */
struct picture_size checkpoint_tile_size(const struct checkpoint *c,
                                         const struct picture_size *size);

/* "ids" [batch chunks, positions] i32, per text encoder; then, if there are vectors, "rows"
 * [vectors, width] f32, per text encoder -> "hidden" [batch chunks,
 * positions, text_width] f32, and with a summary "states" [batch chunks, positions,
 * its encoder's width] f32 */
struct graph *checkpoint_encode_graph(const struct checkpoint *c,
                                      const struct picture_size *size);
/* "hidden" [batch, chunks positions, text_width] f32, and with a summary "label"
 * [batch, label_width] f32: the summary, then the sizes -> the outputs of
 * unet_build_context */
struct graph *checkpoint_context_graph(const struct checkpoint *c,
                                       const struct picture_size *size);
/* see unet_build_step */
struct graph *checkpoint_step_graph(const struct checkpoint *c,
                                    const struct picture_size *size);
/* see vae_build_decoder, one picture */
struct graph *checkpoint_decode_graph(const struct checkpoint *c,
                                      const struct picture_size *size);
/* see vae_build_encoder, one picture */
struct graph *checkpoint_start_graph(const struct checkpoint *c,
                                     const struct picture_size *size);

/* see vae_build_decoder, one picture, never in tiles, by another VAE than the one in use */
struct graph *checkpoint_preview_graph(const struct vae *vae,
                                       const struct picture_size *size);
/* Does it decode this model's latents? ERR_BAD_FILE with what it does instead. */
int checkpoint_check_preview(const struct checkpoint *c, const struct vae *vae,
                             struct err *err) MUST_CHECK;

#endif

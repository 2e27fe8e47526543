/* vae: SD's variational autoencoder (Rombach et al. 2022), or the small one that people put in its place (taesd.h): a
 * latent to a picture, and a picture to a latent. Every size is read from the file. A file without the encoder is a
 * model all the same; it only cannot start from a picture. */
#ifndef MYSTI_ENGINE_VAE_VAE_H
#define MYSTI_ENGINE_VAE_VAE_H

#include "engine/graph/build.h"

enum { VAE_USUAL_SCALE = 8 }; /* of every Stable Diffusion */

struct vae {
    const struct weights_file
        *file; /* NULL: there is none, and the rest is what one must be like */
    bool is_taesd;
    int levels;              /* 4 */
    int64_t latent_channels; /* 4 */
    int scale;               /* pixels per latent pixel, 2^(levels - 1) = 8 */
    bool has_encoder;
};

/* Borrows the file. */
int vae_open(struct vae *ret_vae, const struct weights_file *file,
             struct err *err) MUST_CHECK;

/* The encoder's output per latent pixel: 8, the mean of the latent's distribution and the logarithm of its variance; of
 * TAESD 4, the latent. */
int64_t vae_moments(const struct vae *vae);
/* What the mean is multiplied by for a latent as the U-Net has it: its family's scale; 1 for TAESD, which was trained on
 * such latents. */
double vae_latent_scale(const struct vae *vae, double family_scale);

/* Input 0: the latent divided by vae_latent_scale(), [N, H, W, 4] f32. Output 0: [N, H * scale,
 * W * scale, 3] f32, -1..1 and a little beyond. */
void vae_build_decoder(const struct vae *vae, struct build *b, int64_t batch,
                       int64_t high, int64_t wide);

/* Input 0: a picture [N, high, wide, 3] f32, -1..1, high and wide multiples of scale.
 * Output 0: [N, high / scale, wide / scale, vae_moments()] f32; its first 4 channels times vae_latent_scale() are a
 * latent. */
void vae_build_encoder(const struct vae *vae, struct build *b, int64_t batch,
                       int64_t high, int64_t wide);

#endif

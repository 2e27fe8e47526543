/* vae: SD's variational autoencoder (Rombach et al. 2022): a latent to a picture, and a
 * picture to a latent. Every size is read from the file. A file without the encoder is a
 * model all the same; it only cannot start from a picture. */
#ifndef MYSTI_ENGINE_VAE_VAE_H
#define MYSTI_ENGINE_VAE_VAE_H

#include "engine/graph/build.h"

struct vae {
    const struct weights_file *file;
    int levels;              /* 4 */
    int64_t latent_channels; /* 4 */
    int scale;               /* pixels per latent pixel, 2^(levels - 1) = 8 */
    bool has_encoder;
};

/* Borrows the file. */
int vae_open(struct vae *ret_vae, const struct weights_file *file,
             struct err *err) MUST_CHECK;
/* Input 0: the latent divided by its family's scale, [N, H, W, 4] f32. Output 0: [N, H * scale,
 * W * scale, 3] f32, -1..1 and a little beyond. */
void vae_build_decoder(const struct vae *vae, struct build *b, int64_t batch,
                       int64_t high, int64_t wide);

/* Input 0: a picture [N, high, wide, 3] f32, -1..1, high and wide multiples of scale.
 * Output 0: [N, high / scale, wide / scale, 2 * 4] f32, the mean of the latent's
 * distribution and the logarithm of its variance; the mean times the family's
 * scale is a latent. */
void vae_build_encoder(const struct vae *vae, struct build *b, int64_t batch,
                       int64_t high, int64_t wide);

#endif

/* taesd: the tiny autoencoder that knows Stable Diffusion's latents (Bohan, "TAESD"; diffusers' AutoencoderTiny): a fortieth
 * of the VAE's weights and a seventeenth of its work, for a picture with a little less in it. Private to vae/; what it
 * shares with a VAE is said in vae.h.
 *
 * Names: "first_stage_model.decoder.layers.N...", as in a diffusers folder; files/vae_names.c makes them of the original
 * ones. The numbers of layers that have no weights are left out, and differ between the two by one. */
#ifndef MYSTI_ENGINE_VAE_TAESD_H
#define MYSTI_ENGINE_VAE_TAESD_H

#include "engine/vae/vae.h"

/* Has the file a decoder or an encoder of this kind? */
bool taesd_is(const struct weights_file *file);
int taesd_open(struct vae *ret_vae, const struct weights_file *file,
               struct err *err) MUST_CHECK;
/* x: latents as the U-Net has them [N, H, W, 4] -> pictures [N, H * scale, W * scale, 3], -1..1 */
int taesd_build_decoder(struct build *b, int x);
/* x: pictures [N, H * scale, W * scale, 3], -1..1 -> latents [N, H, W, 4] */
int taesd_build_encoder(struct build *b, int x);

#endif

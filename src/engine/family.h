/* family: which Stable Diffusion a file is, told by its tensors, and what is so in every file of a family. Private to the
 * engine.
 *
 *   if (family_find(&family, file, &err)) return -1;
 *   clip_open(&clip, file, &family->texts[0], 0, &err);
 *   if (family_prediction(&prediction, family, file, &err)) return -1; */
#ifndef MYSTI_ENGINE_FAMILY_H
#define MYSTI_ENGINE_FAMILY_H

#include "engine/sampler/schedule.h"
#include "engine/text/clip.h"
#include "engine/unet/unet.h"

enum { FAMILY_TEXTS_MAX = 2 };

struct family {
    const char *name;  /* for programs: "sd1" */
    const char *title; /* for sentences: "SD 1.x" */
    int text_count;
    struct clip_kind texts[FAMILY_TEXTS_MAX];
    struct unet_heads heads;
    bool is_sdxl; /* told sizes; silent where there is no negative prompt (A1111) */
    double latent_scale; /* latents are the encoder's output times this */
    int side[2];         /* of a picture, in pixels, by enum prediction */
};

/* ret_family: static */
int family_find(const struct family **ret_family, const struct weights_file *file,
                struct err *err) MUST_CHECK;
/* Whose latents a VAE's file is for, where it tells: by the rest of a checkpoint in it, or by its metadata
 * (modelspec.architecture). The shapes of a VAE's tensors do not. */
enum latents { LATENTS_UNTOLD, LATENTS_SD, LATENTS_SDXL };
enum latents family_latents(const struct weights_file *file);
/* What the U-Net predicts: what the metadata says, else what the tensors do. */
int family_prediction(enum prediction *ret, const struct family *family,
                      const struct weights_file *file, struct err *err) MUST_CHECK;

#endif

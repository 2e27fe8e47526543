/* unet: the denoiser of Stable Diffusion 1, 2 and XL and of what was distilled from them (Rombach et al. 2022, Podell et
 * al. 2023), every size read from the file.
 *
 *   unet_open(&unet, file, heads, &err);
 *   unet_build_context(unet, &b, context);   once per prompt: keys and values of all cross-attentions
 *   unet_build_step(unet, &b, &size);        once per denoise step
 *   unet_free(unet);
 *
 * What depends on the prompt alone is a graph of its own, so that a step never computes
 * it again. */
#ifndef MYSTI_ENGINE_UNET_UNET_H
#define MYSTI_ENGINE_UNET_UNET_H

#include "engine/graph/build.h"

struct unet;

/* Of every attention; the tensors cannot say. Either as many heads at every width (SD 1.x: 8), or as many as there are
 * widths of a head in the channels (SD 2.x, SDXL: 64). One of the two is 0. */
struct unet_heads {
    int count, width;
};

int unet_open(struct unet **ret_unet, const struct weights_file *file,
              struct unet_heads heads, struct err *err) MUST_CHECK;
void unet_free(struct unet *unet);

int64_t unet_latent_channels(const struct unet *unet); /* 4 */
int64_t unet_context_width(const struct unet *unet);   /* 768: the text encoder's */
int unet_context_count(const struct unet *unet);       /* cross-attentions, 16 */
/* channels of context output i: keys and values side by side */
int64_t unet_context_channels(const struct unet *unet, int i);
/* SDXL is told the whole text and sizes beside the context, as one vector: its width,
 * 2816, and that of what is made of it, 1280. 0: no such vector */
int64_t unet_label_width(const struct unet *unet);
int64_t unet_label_channels(const struct unet *unet);

/* Distilled with guidance built in (LCM): it is told the scale, as so many sinusoids,
 * 256. 0: it is not */
int64_t unet_guide_width(const struct unet *unet);

/* context [N, T, context_width] -> one output per cross-attention, [N, T,
 * context_channels(i)], in the graph's outputs from its next free one on; then, of label
 * [N, label_width], one more, [N, label_channels] f32. label -1: there is none */
void unet_build_context(const struct unet *unet, struct build *b, int context,
                        int label);

struct unet_size {
    int64_t batch;
    int64_t high, wide; /* of the latent */
    int64_t tokens;     /* of the context */
};

/* Inputs, in this order: "latent" [N, H, W, 4] f32, "t" [1] f32, then the outputs of
 * the context graph, then "guide" [1, guide_width] f32 if there is one. Output 0: what the model predicts, [N, H, W, 4] f32. */
void unet_build_step(const struct unet *unet, struct build *b,
                     const struct unet_size *size);

#endif

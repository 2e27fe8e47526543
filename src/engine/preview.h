/* preview: what a latent will roughly look like, a pixel per latent pixel, without decoding it. Private to the engine.
 *
 *   if (!model->preview.is_known) preview_learn(model);
 *   preview_draw(&model->preview, denoised, count, rgb);
 *
 * Linear: each latent pixel's channels to red, green and blue. */
#ifndef MYSTI_ENGINE_PREVIEW_H
#define MYSTI_ENGINE_PREVIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PREVIEW_CHANNELS_MAX 16

struct preview {
    bool is_known;
    int channels;
    double factors[PREVIEW_CHANNELS_MAX + 1]
                  [3]; /* the last row: what is added; -1..1 */
};

struct engine_model;

/* Finds the factors of a model. Never fails: a model that cannot be asked gets Stable Diffusion's. */
void preview_learn(struct engine_model *model);
/* latent [count / channels, channels] -> ret_rgb [count / channels, 3] */
void preview_draw(const struct preview *p, const float *latent, size_t count,
                  uint8_t *ret_rgb);

#endif

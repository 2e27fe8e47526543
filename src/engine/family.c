/* family: a table with a row per family, and how a file's row is found.
 *
 * The text encoders tell the families apart: OpenAI's alone is SD 1.x, OpenCLIP's alone is SD 2.x, both are SDXL. How they are called and
 * how wide they are is in the file. What follows from the family and cannot be read from tensors is the row: activation and
 * padding of the text encoders, the layer their output is taken from, heads, the scale of latents, the size of the
 * pictures it was trained with. All other sizes are read by those who need them (unet/, text/, vae/), so that a distilled
 * model is its family's and no row of its own.
 *
 * What a U-Net predicts is not in its shape. Newer files say it with a tensor that is only a mark; SD 2.x's two
 * models differ in how far a norm's bias was trained, the measure that everybody uses since 2022.
 *
 * "If you add a family": a row, how family_find knows it, docs/models.md. */
#include "engine/family.h"

#include "base/mem.h"
#include "base/str.h"
#include "engine/text/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNET "model.diffusion_model."

enum family_row { ROW_SD1, ROW_SD2, ROW_SDXL, ROW_COUNT };

static const struct family rows[ROW_COUNT] = {
    [ROW_SD1] = {.name = "sd1",
                 .title = "SD 1.x",
                 .text_count = 1,
                 .texts = {{.prefix = "cond_stage_model.",
                            .activation = ACT_QUICK_GELU,
                            .pad = TOKENIZER_EOS,
                            .has_norm = true}},
                 .heads = {.count = 8},
                 .latent_scale = 0.18215,
                 .side = {[PREDICTION_EPS] = 512, [PREDICTION_V] = 512}},
    [ROW_SD2] = {.name = "sd2",
                 .title = "SD 2.x",
                 .text_count = 1,
                 .texts = {{.prefix = "cond_stage_model.",
                            .activation = ACT_GELU,
                            .pad = 0,
                            .skipped = 1,
                            .has_norm = true}},
                 .heads = {.width = 64},
                 .latent_scale = 0.18215,
                 .side = {[PREDICTION_EPS] = 512, [PREDICTION_V] = 768}},
    [ROW_SDXL] = {.name = "sdxl",
                  .title = "SDXL",
                  .text_count = 2,
                  .texts = {{.prefix = "conditioner.embedders.0.",
                             .activation = ACT_QUICK_GELU,
                             .pad = TOKENIZER_EOS,
                             .skipped = 1},
                            {.prefix = "conditioner.embedders.1.",
                             .activation = ACT_GELU,
                             .pad = 0,
                             .skipped = 1,
                             .is_pooled = true}},
                  .heads = {.width = 64},
                  .is_sdxl = true,
                  .latent_scale = 0.13025,
                  .side = {[PREDICTION_EPS] = 1024, [PREDICTION_V] = 1024}},
};

/* The narrowest text encoder of SD 2.x; SD 1.x's has 768 channels. */
#define OPENCLIP_WIDTH 1024

int family_find(const struct family **ret_family, const struct weights_file *file,
                struct err *err)
{
    bool is_openclip = false;
    const struct weight *table;

    if (weights_file_find(file, "edm_mean"))
        return err_set(err, ERR_BAD_FILE,
                       "was trained with EDM's noise levels (it has a tensor "
                       "edm_mean), which are not supported");
    if (clip_find(file, rows[ROW_SDXL].texts[1].prefix, &is_openclip)) {
        *ret_family = &rows[ROW_SDXL];
        return 0;
    }
    if (clip_find(file, rows[ROW_SDXL].texts[0].prefix, &is_openclip))
        return err_set(
            err, ERR_BAD_FILE,
            "is SDXL's refiner, or an SDXL model without its second text "
            "encoder (conditioner.embedders.1): only whole base models draw");
    table = clip_find(file, rows[ROW_SD1].texts[0].prefix, &is_openclip);
    is_openclip |= table && table->rank == 2 && table->dim[1] >= OPENCLIP_WIDTH;
    *ret_family = &rows[is_openclip ? ROW_SD2 : ROW_SD1];
    return 0;
}

static bool has_any(const struct weights_file *file, const char *prefix)
{
    for (size_t i = 0; i < weights_file_count(file); i++)
        if (str_has_prefix(weights_file_at(file, i)->name, prefix))
            return true;
    return false;
}

enum latents family_latents(const struct weights_file *file)
{
    const char *says = weights_file_meta(file, "modelspec.architecture");

    if (has_any(file, "conditioner.embedders."))
        return LATENTS_SDXL;
    if (has_any(file, "cond_stage_model."))
        return LATENTS_SD;
    if (says && str_has_prefix(says, "stable-diffusion-xl"))
        return LATENTS_SDXL;
    return says && str_has_prefix(says, "stable-diffusion-v") ? LATENTS_SD
                                                              : LATENTS_UNTOLD;
}

/* ---- prediction ---- */

/* Standard deviation of a tensor's numbers. */
static double spread(const struct weight *w)
{
    size_t count = weight_count(w);
    float *values = mem_alloc((count + 1) * sizeof(*values));
    double sum = 0, squares = 0;

    weight_to_f32(w, 0, count, values);
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    free(values);
    return count ? sqrt(fmax(0, squares / (double)count - pow(sum / (double)count, 2)))
                 : 0;
}

static enum prediction told_by_tensors(const struct family *family,
                                       const struct weights_file *file)
{
    const struct weight *first =
        weights_file_find(file, UNET "input_blocks.0.0.weight");
    const struct weight *bias = weights_file_find(
        file, UNET "output_blocks.11.1.transformer_blocks.0.norm1.bias");

    if (weights_file_find(file, "v_pred"))
        return PREDICTION_V;
    /* the models for inpainting and depth, which read more channels, all predict the noise */
    if (family != &rows[ROW_SD2] || !first || first->dim[1] != 4 || !bias ||
        bias->type == WEIGHT_OTHER)
        return PREDICTION_EPS;
    return spread(bias) > 0.09 ? PREDICTION_V : PREDICTION_EPS;
}

int family_prediction(enum prediction *ret, const struct family *family,
                      const struct weights_file *file, struct err *err)
{
    static const struct {
        const char *key, *eps, *v;
    } keys[] = {{"mysti.prediction", "eps", "v"},
                {"modelspec.prediction_type", "epsilon", "v"}};

    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        const char *text = weights_file_meta(file, keys[i].key);

        if (!text)
            continue;
        *ret = strcmp(text, keys[i].v) == 0 ? PREDICTION_V : PREDICTION_EPS;
        if (*ret == PREDICTION_V || strcmp(text, keys[i].eps) == 0)
            return 0;
        if (i == 0) /* our own key; what others wrote may say more than we know */
            return err_set(err, ERR_BAD_FILE,
                           "%s is '%.40s', 'eps' or 'v' was expected", keys[i].key,
                           text);
    }
    *ret = told_by_tensors(family, file);
    return 0;
}

/* show: the preview after a step. By the model's linear factors a pixel for each latent pixel, for next to nothing
 * (preview.c); or, where the engine was told so and the file is there, decoded by the TAESD of the model's family, which
 * costs a fraction of a step and shows the picture in its own size.
 *
 * The TAESD is found by name when a model is loaded, "taesd" or "taesdxl", because nothing in the two files tells them
 * apart; other programs have these names, too. It is one more stage beside the others, so its weights, its arena and its
 * kernels are counted like theirs; the picture's own memory is free while it is sampled. When memory is so short that the VAE
 * works in tiles there is no such stage, and previews are linear. */
#include "engine/run.h"
#include "engine/vaes.h"

#include "base/mem.h"
#include "engine/image/png.h"

#include <stdlib.h>

int preview_vae_open(struct engine_model *model, struct err *err)
{
    const char *name = model->checkpoint->family->is_sdxl ? "taesdxl" : "taesd";
    struct preview_vae *p = &model->preview_vae;
    char *path;
    int result;

    if (!model->engine->previews_by_taesd || vae_find(model->engine, name, &path, NULL))
        return 0;
    result = weights_vae_open(&p->file, path, err) || vae_open(&p->vae, p->file, err) ||
                     checkpoint_check_preview(model->checkpoint, &p->vae, err)
                 ? -1
                 : 0;
    free(path);
    return result ? err_wrap(err, "the VAE '%s', for previews", name) : 0;
}

void preview_vae_close(struct preview_vae *p)
{
    weights_file_close(p->file);
    *p = (struct preview_vae){0};
}

/* false: it was not to be had */
static bool draw_decoded(struct run *run, const float *denoised,
                         const struct engine_preview *p, uint8_t *rgb)
{
    float *picture = run_at(run, run->memory.picture);
    void *in = (void *)(uintptr_t)denoised; /* it is read alone */

    return run->model->stages->programs[STAGE_PREVIEW] &&
           run_stage(run, STAGE_PREVIEW, (void *[]){in}, (void *[]){picture}, NULL) ==
               0 &&
           run_to_bytes(picture, rgb, (size_t)p->width * (size_t)p->height * 3) == 0;
}

static void draw_factors(struct run *run, const float *denoised,
                         struct engine_preview *p, uint8_t *rgb)
{
    int scale = run->model->checkpoint->vae.scale;

    if (!run->model->preview.is_known)
        preview_learn(run->model);
    preview_draw(&run->model->preview, denoised, run->latent_count, rgb);
    p->width /= scale;
    p->height /= scale;
}

void run_show(struct run *run, const float *denoised, int step, int steps)
{
    uint8_t *rgb = run_at(run, run->memory.rgb);
    struct engine_preview preview = {.image = run->image,
                                     .step = step,
                                     .steps = steps,
                                     .width = run->job->width,
                                     .height = run->job->height,
                                     .rgb = rgb};
    struct buf png = {0};

    if (!draw_decoded(run, denoised, &preview, rgb))
        draw_factors(run, denoised, &preview, rgb);
    if (image_png_encode(rgb, (unsigned)preview.width, (unsigned)preview.height, NULL,
                         0, &png, NULL) == 0) {
        preview.png = png.data;
        preview.png_bytes = png.len;
        run->events->on_preview(run->events->user, &preview);
    }
    buf_release(&png);
}

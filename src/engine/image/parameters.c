#include "engine/image/parameters.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ", key: value", the value as a JSON string when a reader could not tell where it ends */
static void optional_field(struct buf *text, const char *key, const char *value)
{
    json_t *string = value && strpbrk(value, ",:\n") ? json_string(value) : NULL;
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;

    if (value && *value)
        buf_printf(text, ", %s: %s", key, quoted ? quoted : value);
    free(quoted);
    json_decref(string);
}

void parameters_format(const struct parameters *p, struct buf *ret_text)
{
    buf_printf(ret_text, "%s\n", p->prompt);
    if (p->negative_prompt && *p->negative_prompt)
        buf_printf(ret_text, "Negative prompt: %s\n", p->negative_prompt);
    buf_printf(ret_text, "Steps: %u", p->steps);
    optional_field(ret_text, "Sampler", p->sampler);
    optional_field(ret_text, "Schedule type", p->scheduler);
    buf_printf(ret_text, ", CFG scale: %g, Seed: %" PRId64 ", Size: %ux%u",
               p->cfg_scale, p->seed, p->width, p->height);
    optional_field(ret_text, "Model hash", p->model_hash);
    optional_field(ret_text, "Model", p->model);
    optional_field(ret_text, "VAE", p->vae);
    if (p->variation_strength > 0)
        buf_printf(ret_text,
                   ", Variation seed: %" PRId64 ", Variation seed strength: %g",
                   p->variation_seed, p->variation_strength);
    if (p->clip_skip > 1)
        buf_printf(ret_text, ", Clip skip: %d", p->clip_skip);
    if (p->has_start || p->hires_width)
        buf_printf(ret_text, ", Denoising strength: %g", p->strength);
    if (p->hires_width && p->hires_scale > 0)
        buf_printf(ret_text, ", Hires upscale: %g", p->hires_scale);
    else if (p->hires_width)
        buf_printf(ret_text, ", Hires resize: %ux%u", p->hires_width, p->hires_height);
    if (p->hires_width && p->hires_steps)
        buf_printf(ret_text, ", Hires steps: %u", p->hires_steps);
    if (p->hires_width)
        optional_field(ret_text, "Hires upscaler", p->hires_upscaler);
    if (p->has_mask)
        buf_printf(ret_text, ", Mask blur: %g", p->mask_blur);
    for (int i = 0; i < p->number_count; i++)
        buf_printf(ret_text, ", %s: %.10g", p->numbers[i].key, p->numbers[i].value);
    optional_field(ret_text, "RNG", p->rng);
    optional_field(ret_text, "Tiling", p->tiling);
    optional_field(ret_text, "Version", p->version);
}

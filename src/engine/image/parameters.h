/* parameters: the text that AUTOMATIC1111 writes into its pictures and that many tools
 * read back: the prompt, a "Negative prompt:" line, then one line of "Steps: 20,
 * Sampler: Euler, ...".
 *
 *   struct parameters p = {.prompt = "a boat", .steps = 20, .sampler = "Euler", ...};
 *   parameters_format(&p, &text);
 *
 * All strings are borrowed. Never fails. */
#ifndef MYSTI_ENGINE_IMAGE_PARAMETERS_H
#define MYSTI_ENGINE_IMAGE_PARAMETERS_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* "ENSD: 31337" */
struct parameters_number {
    const char *key;
    double value;
};

struct parameters {
    const char *prompt;
    const char *negative_prompt; /* NULL or "": the line is left out */
    unsigned steps;
    const char *sampler;   /* A1111's label, "DPM++ 2M" */
    const char *scheduler; /* A1111's label, "Karras" */
    double cfg_scale;
    int64_t seed;
    int64_t variation_seed;    /* only where the strength is above 0 */
    double variation_strength; /* 0: left out */
    unsigned width;
    unsigned height;
    const char
        *model_hash;    /* first 10 hex digits of the file's SHA-256, NULL: left out */
    const char *model;  /* NULL: left out */
    const char *vae;    /* another file's name; NULL: left out */
    int clip_skip;      /* 0, 1: left out */
    const char *tiling; /* NULL: left out */
    bool has_start;     /* it began with a picture: */
    double strength;
    unsigned hires_width,
        hires_height;           /* it was made larger, and drawn over; 0: not: */
    double hires_scale;         /* 0: the size is told instead */
    unsigned hires_steps;       /* 0: as many as steps */
    const char *hires_upscaler; /* A1111's label; `strength` is the hires fix's */
    bool has_mask;
    double mask_blur;
    const struct parameters_number *numbers; /* what else there is, in this order */
    int number_count;
    const char *rng;     /* "NV" or "CPU", NULL: left out */
    const char *version; /* NULL: left out */
};

void parameters_format(const struct parameters *p, struct buf *ret_text);

#endif

/* run: a job while it is drawn; what generate.c, encode.c, pixels.c and describe.c share. Nobody else includes it. */
#ifndef MYSTI_ENGINE_RUN_H
#define MYSTI_ENGINE_RUN_H

#include "base/buf.h"
#include "engine/model.h"

struct inversions;
struct start;

struct run {
    struct engine_model *model;
    const struct engine_job *job;
    const struct engine_events *events;
    struct plan_of_job plan;
    struct job_memory memory;
    char *block;
    struct script script;           /* what the prompts say in each run of the U-Net */
    int said[SCRIPT_PARTS_MAX + 1]; /* whose keys and values the contexts hold */
    int call;                       /* runs of the U-Net so far, of this picture */
    int look;                       /* the same, of this walk */
    size_t latent_count;            /* floats of one latent */
    struct schedule schedule;
    double *sigmas;         /* [levels + 1], the whole schedule */
    unsigned levels, first; /* the walk begins at sigmas[first] */
    int image;
    struct start *start; /* NULL: from noise alone */
    struct inversions *inversions;
};

int64_t run_draw_seed(void); /* at random, 0..2^32-1 */
void *run_at(const struct run *run, size_t offset);
int run_stage(struct run *run, enum stage stage, void *const *inputs,
              void *const *outputs, struct err *err) MUST_CHECK;

/* The "parameters" of one of the job's pictures. describe.c */
void run_describe(const struct run *run, const struct engine_image *image,
                  struct buf *ret_text);

/* Every text of the script through the text encoder, once per job. */
int run_encode(struct run *run, struct err *err) MUST_CHECK;
/* The contexts are those of this run of the U-Net. */
int run_say(struct run *run, int call, struct err *err) MUST_CHECK;

/* Through the VAE, whole or in tiles (pixels.c). x [H, W, C] divided by the family's scale -> picture [height, width, 3] */
int run_to_pixels(struct run *run, float *x, float *picture,
                  struct err *err) MUST_CHECK;
/* pixels [height, width, 3] -> moments [H, W, vae_moments()] */
int run_to_moments(struct run *run, float *pixels, float *moments,
                   struct err *err) MUST_CHECK;

/* picture [count], -1..1 -> bytes; -1: there was something that is no number */
int run_to_bytes(const float *picture, uint8_t *ret_rgb, size_t count) MUST_CHECK;

/* The preview after a step, to whoever listens (show.c). denoised [H, W, C] */
void run_show(struct run *run, const float *denoised, int step, int steps);

#endif

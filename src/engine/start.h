/* start: the picture and the mask that a job begins with (image to image, inpainting), from their files to what the
 * encoder and the walk read, and back into the picture they came from. Private to the engine.
 *
 *   if (start_open(&start, job, scale, err)) return -1;
 *   start->pixels -> encoder; start->keep -> the walk; the drawn picture -> start_compose()
 *   start_free(start);
 *
 * Masks: white is drawn anew, black stays (A1111); in a mask with transparent pixels, those are drawn anew (OpenAI);
 * without a mask, the picture's own transparent pixels are. */
#ifndef MYSTI_ENGINE_START_H
#define MYSTI_ENGINE_START_H

#include "engine/engine.h"
#include "engine/image/read.h"

struct region {
    int x, y, wide, high;
};

struct start {
    int width, height;     /* of the job: what is drawn */
    int scale;             /* pixels per latent pixel */
    struct image original; /* what the drawn part is put back into */
    struct region region;  /* of the original: the part that is drawn */
    uint8_t *mask;         /* [original.height, original.width], blurred; NULL: none */
    float *pixels;         /* [height, width, 3], -1..1 */
    float *
        keep; /* [height / scale, width / scale]: 1 stays, 0 is drawn anew; NULL: no mask */
};

int start_open(struct start **ret, const struct engine_job *job, int scale,
               struct err *err) MUST_CHECK;
/* Without files: rgb [height, width, 3], whole; NULL: there will be a latent. */
int start_from_rgb(struct start **ret, const uint8_t *rgb, const struct engine_job *job,
                   struct err *err) MUST_CHECK;
uint64_t start_rgb_bytes(const struct engine_job *job); /* that it holds */
void start_free(struct start *s);
/* What a U-Net for inpainting is shown: pixels [height, width, 3], -1..1, with grey where the picture is drawn anew, and
 * ret_mask [height / scale, width / scale], 1 there and 0 elsewhere. Only where there is a mask. */
int start_show(const struct start *s, float *ret_pixels, float *ret_mask,
               struct err *err) MUST_CHECK;
/* The drawn picture rgb [height, width, 3], put back where it belongs: ret is new, of the original's size. */
int start_compose(const struct start *s, const uint8_t *rgb, struct image *ret,
                  struct err *err) MUST_CHECK;
/* Bytes that start_open() and start_compose() will hold at most, from the files' heads alone. */
int start_bytes(const struct engine_job *job, uint64_t *ret,
                struct err *err) MUST_CHECK;

#endif

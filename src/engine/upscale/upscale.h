/* upscale: what the rest of the engine needs of upscale.c; the public part is in engine.h. */
#ifndef MYSTI_ENGINE_UPSCALE_UPSCALE_H
#define MYSTI_ENGINE_UPSCALE_UPSCALE_H

#include "engine/engine.h"
#include "engine/image/read.h"

struct upscale_size {
    int width, height;
};

/* The picture to exactly this size, by the network (NULL: none) and then by Lanczos, or nearest where there is no
 * network, whose weights leave memory again. Of the events is_cancelled and on_step (tiles) are asked and told. */
struct upscale_to {
    struct upscale_size size;
    bool is_nearest;
};
int upscale_image(struct engine_upscaler *u, struct image *picture,
                  const struct upscale_to *to, const struct engine_events *events,
                  struct err *err) MUST_CHECK;
/* What that takes at most, packed weights included. */
int upscale_bytes(struct engine_upscaler *u, struct upscale_size from,
                  const struct upscale_to *to, uint64_t *ret,
                  struct err *err) MUST_CHECK;

#endif

/* tiles: a picture in overlapping tiles of one size, and their enlarged versions put together again.
 *
 *   tiles_plan(&t, &(struct tiles_options){...});
 *   strip = memory of tiles_strip_bytes(&t);
 *   for (int i = 0; i < tiles_count(&t); i++) {
 *       tiles_cut(&t, i, &picture, in);
 *       ... the network ...
 *       tiles_put(&t, i, out, strip, &larger);
 *   }
 *
 * In this order: row by row, each tile faded in over the one before, each row over the row before. */
#ifndef MYSTI_ENGINE_UPSCALE_TILES_H
#define MYSTI_ENGINE_UPSCALE_TILES_H

#include "engine/image/read.h"

struct tiles_options {
    int width, height; /* of the picture */
    int tile, overlap; /* pixels; overlap at most tile / 2 */
    int shuffle;       /* tiles begin and end at multiples of this */
    int scale;         /* of the larger picture */
};

/* One direction. */
struct tiles_line {
    int size;  /* of the picture, rounded up to a multiple of shuffle */
    int tile;  /* of each tile */
    int count; /* tiles */
};

struct tiles {
    struct tiles_options o;
    struct tiles_line across, down;
};

void tiles_plan(struct tiles *ret, const struct tiles_options *options);
int tiles_count(const struct tiles *t);
/* ret [down.tile / shuffle, across.tile / shuffle, 3 shuffle^2], 0..1, as net_graph() takes it */
void tiles_cut(const struct tiles *t, int index, const struct image *picture,
               float *ret);
/* Where a row of tiles is put together, before it goes onto the picture. */
size_t tiles_strip_bytes(const struct tiles *t);
/* larger [down.tile * scale, across.tile * scale, 3], 0..1; onto: the picture times scale. -1: a value is not a number */
int tiles_put(const struct tiles *t, int index, const float *larger, uint8_t *strip,
              struct image *onto);

#endif

/* pixels: between latent and picture, through the VAE: in one piece, or in tiles when memory is short.
 *
 * Tiles overlap by a quarter. Each is laid over what is there, fading in within the overlap: tiles of a row into a strip as high
 * as they are, strips into the result. In the overlap the quarters at both ends are left out, because there a tile
 * sees the zeros beyond its border. The first tile begins at the border and the last one ends there; it may overlap more. */
#include "engine/run.h"

#include <math.h>
#include <string.h>

/* One direction, in latent pixels. */
struct line {
    int size, tile, count;
};

struct tiling {
    enum stage stage;
    struct line down, across;
    int in_scale, in_channels; /* numbers beside each other for each latent pixel */
    int out_scale, out_channels;
};

static struct line make_line(int size, int tile)
{
    int step = tile - tile / 4;

    return (struct line){
        .size = size, .tile = tile, .count = 1 + (size - tile + step - 1) / step};
}

static int begin_of(const struct line *l, int index)
{
    int begin = index * (l->tile - l->tile / 4), last = l->size - l->tile;

    return begin < last ? begin : last;
}

/* How much of a tile is seen at `at` from its begin, in parts of `overlap`: 0 to 1. */
static float seen(int at, int overlap)
{
    float t = ((float)at + 0.5F - (float)overlap / 4) / ((float)overlap / 2);

    return t < 0 ? 0 : t > 1 ? 1 : t;
}

static void lay_over(float *to, const float *from, size_t count, float share)
{
    for (size_t i = 0; i < count; i++)
        to[i] += share * (from[i] - to[i]);
}

static void cut(const struct tiling *t, int top, int left, const float *in, float *ret)
{
    size_t pitch = (size_t)(t->across.size * t->in_scale * t->in_channels);
    size_t row = (size_t)(t->across.tile * t->in_scale * t->in_channels);

    in += (size_t)(top * t->in_scale) * pitch +
          (size_t)(left * t->in_scale * t->in_channels);
    for (int y = 0; y < t->down.tile * t->in_scale; y++, in += pitch, ret += row)
        memcpy(ret, in, row * sizeof(*ret));
}

/* A tile onto the strip [tile, width, channels], column by column of its overlap. */
static void put_tile(const struct tiling *t, int index, const float *tile, float *strip)
{
    int begin = begin_of(&t->across, index) * t->out_scale;
    int wide = t->across.tile * t->out_scale;
    int overlap =
        index
            ? (begin_of(&t->across, index - 1) + t->across.tile) * t->out_scale - begin
            : 0;
    size_t channels = (size_t)t->out_channels;
    size_t pitch = (size_t)(t->across.size * t->out_scale) * channels;

    for (int y = 0; y < t->down.tile * t->out_scale; y++) {
        float *to = strip + (size_t)y * pitch + (size_t)begin * channels;
        const float *from = tile + (size_t)(y * wide) * channels;

        for (int x = 0; x < overlap; x++)
            lay_over(to + (size_t)x * channels, from + (size_t)x * channels, channels,
                     seen(x, overlap));
        memcpy(to + (size_t)overlap * channels, from + (size_t)overlap * channels,
               (size_t)(wide - overlap) * channels * sizeof(*to));
    }
}

static void put_strip(const struct tiling *t, int index, const float *strip, float *out)
{
    int begin = begin_of(&t->down, index) * t->out_scale;
    int overlap =
        index ? (begin_of(&t->down, index - 1) + t->down.tile) * t->out_scale - begin
              : 0;
    size_t pitch = (size_t)(t->across.size * t->out_scale * t->out_channels);

    for (int y = 0; y < t->down.tile * t->out_scale; y++) {
        float *to = out + (size_t)(begin + y) * pitch;
        const float *from = strip + (size_t)y * pitch;

        if (y < overlap)
            lay_over(to, from, pitch, seen(y, overlap));
        else
            memcpy(to, from, pitch * sizeof(*to));
    }
}

static int run_tiles(struct run *run, const struct tiling *t, const float *in,
                     float *out, struct err *err)
{
    float *tile_in = run_at(run, run->memory.tile_in),
          *tile_out = run_at(run, run->memory.tile_out),
          *strip = run_at(run, run->memory.strip);

    for (int row = 0; row < t->down.count; row++) {
        for (int column = 0; column < t->across.count; column++) {
            cut(t, begin_of(&t->down, row), begin_of(&t->across, column), in, tile_in);
            if (run_stage(run, t->stage, (void *[]){tile_in}, (void *[]){tile_out},
                          err))
                return -1;
            put_tile(t, column, tile_out, strip);
        }
        put_strip(t, row, strip, out);
    }
    return 0;
}

static int run_through(struct run *run, struct tiling t, float *in, float *out,
                       struct err *err)
{
    const struct checkpoint *c = run->model->checkpoint;
    const struct picture_size *size = &run->plan.size;
    struct picture_size tile = checkpoint_tile_size(c, size);
    int scale = c->vae.scale;

    if (!size->tile)
        return run_stage(run, t.stage, (void *[]){in}, (void *[]){out}, err);
    t.down = make_line(size->height / scale, tile.height / scale);
    t.across = make_line(size->width / scale, tile.width / scale);
    return run_tiles(run, &t, in, out, err);
}

int run_to_pixels(struct run *run, float *x, float *picture, struct err *err)
{
    const struct vae *vae = &run->model->checkpoint->vae;
    struct tiling t = {.stage = STAGE_DECODE,
                       .in_scale = 1,
                       .in_channels = (int)vae->latent_channels,
                       .out_scale = vae->scale,
                       .out_channels = 3};

    return run_through(run, t, x, picture, err);
}

int run_to_moments(struct run *run, float *pixels, float *moments, struct err *err)
{
    const struct vae *vae = &run->model->checkpoint->vae;
    struct tiling t = {.stage = STAGE_START,
                       .in_scale = vae->scale,
                       .in_channels = 3,
                       .out_scale = 1,
                       .out_channels = (int)vae_moments(vae)};

    return run_through(run, t, pixels, moments, err);
}

int run_to_bytes(const float *picture, uint8_t *ret_rgb, size_t count)
{
    bool is_finite = true;

    for (size_t i = 0; i < count; i++) {
        float v = (picture[i] + 1) * 127.5F;

        is_finite = is_finite && isfinite(v);
        v = v < 0 ? 0 : v > 255 ? 255 : v;
        ret_rgb[i] = is_finite ? (uint8_t)lrintf(v) : 0;
    }
    return is_finite ? 0 : -1;
}

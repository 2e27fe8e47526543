/* tiles: all tiles have one size, so that the network is compiled once, and are spread evenly, so that none is a
 * sliver. A tile's edge is the picture's edge or lies inside of another tile: at the first the network sees the same
 * padding as it would with the whole picture, near the second it lacks what lies beyond, and that is thrown away. Of
 * two tiles that overlap by L, a quarter of L at each one's edge is never used and the half in the middle fades from one
 * to the other. So where the network reaches no further than L / 4 the result is that of the whole picture; where it
 * reaches further, what is left of the difference has no edge that could be seen.
 *
 * A row of tiles is put together before it is faded in over the row above: faded in one by one, the edges that
 * tiles of a row throw away would shine through where rows meet. Fading is done on the finished bytes: tiles that agree
 * stay exactly what they are. */
#include "engine/upscale/tiles.h"

#include <math.h>
#include <string.h>

static struct tiles_line plan_line(int size, const struct tiles_options *o)
{
    struct tiles_line line = {.count = 1};

    line.size = (size + o->shuffle - 1) / o->shuffle * o->shuffle;
    line.tile = o->tile / o->shuffle * o->shuffle;
    if (line.size <= line.tile) {
        line.tile = line.size;
    } else {
        /* beginnings are rounded down, which costs less than one shuffle of overlap */
        int step = line.tile - o->overlap - (o->shuffle - 1);

        step = step < o->shuffle ? o->shuffle : step;
        line.count = 1 + (line.size - line.tile + step - 1) / step;
    }
    return line;
}

void tiles_plan(struct tiles *ret, const struct tiles_options *options)
{
    *ret = (struct tiles){.o = *options,
                          .across = plan_line(options->width, options),
                          .down = plan_line(options->height, options)};
}

int tiles_count(const struct tiles *t)
{
    return t->across.count * t->down.count;
}

static int begin_of(const struct tiles *t, const struct tiles_line *line, int i)
{
    int64_t spread = line->size - line->tile;

    if (i == 0)
        return 0;
    return (int)(i * spread / (line->count - 1) / t->o.shuffle * t->o.shuffle);
}

static int inside(int i, int size)
{
    return i < size ? i : size - 1;
}

void tiles_cut(const struct tiles *t, int index, const struct image *picture,
               float *ret)
{
    int left = begin_of(t, &t->across, index % t->across.count);
    int top = begin_of(t, &t->down, index / t->across.count);
    int s = t->o.shuffle, wide = t->across.tile, high = t->down.tile;

    for (int y = 0; y < high; y++) {
        const uint8_t *row = picture->rgba + (size_t)inside(top + y, picture->height) *
                                                 (size_t)picture->width * 4;

        for (int x = 0; x < wide; x++) {
            const uint8_t *pixel = row + (size_t)inside(left + x, picture->width) * 4;
            float *to = ret + ((size_t)(y / s) * (size_t)(wide / s) + (size_t)(x / s)) *
                                  (size_t)(3 * s * s);

            for (int c = 0; c < 3; c++)
                to[(c * s + y % s) * s + x % s] = (float)pixel[c] / 255;
        }
    }
}

/* How much of tile i is seen in each of its enlarged pixels, in one direction. */
static float share_at(const struct tiles *t, const struct tiles_line *line, int i,
                      int at)
{
    int begin = begin_of(t, line, i);
    float overlap, share;

    if (i == 0)
        return 1;
    overlap = (float)((begin_of(t, line, i - 1) + line->tile - begin) * t->o.scale);
    share = ((float)at + 0.5F - overlap / 4) / (overlap / 2);
    return share <= 0 ? 0 : share >= 1 ? 1 : share;
}

static uint8_t to_byte(float v)
{
    v *= 255;
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)lrintf(v);
}

static void fade(uint8_t *to, const uint8_t *over, float share)
{
    for (int c = 0; c < 3; c++)
        to[c] = (uint8_t)(to[c] + lrintf(share * (float)(over[c] - to[c])));
    to[3] = 255;
}

size_t tiles_strip_bytes(const struct tiles *t)
{
    return (size_t)t->o.width * (size_t)t->down.tile *
           (size_t)(t->o.scale * t->o.scale) * 4;
}

/* A finished row onto the picture. */
static void put_row(const struct tiles *t, int row, const uint8_t *strip,
                    struct image *onto)
{
    int top = begin_of(t, &t->down, row) * t->o.scale, high = t->down.tile * t->o.scale;
    size_t wide = (size_t)onto->width;

    for (int y = 0; y < high && top + y < onto->height; y++) {
        float share = share_at(t, &t->down, row, y);

        for (size_t x = 0; x < wide; x++)
            fade(onto->rgba + ((size_t)(top + y) * wide + x) * 4,
                 strip + ((size_t)y * wide + x) * 4, share);
    }
}

int tiles_put(const struct tiles *t, int index, const float *larger, uint8_t *strip,
              struct image *onto)
{
    int column = index % t->across.count;
    int left = begin_of(t, &t->across, column) * t->o.scale;
    int wide = t->across.tile * t->o.scale, high = t->down.tile * t->o.scale;

    for (int x = 0; x < wide && left + x < onto->width; x++) {
        float share = share_at(t, &t->across, column, x);

        for (int y = 0; y < high; y++) {
            const float *from = larger + ((size_t)y * (size_t)wide + (size_t)x) * 3;
            uint8_t over[3];

            for (int c = 0; c < 3; c++) {
                if (!isfinite(from[c]))
                    return -1;
                over[c] = to_byte(from[c]);
            }
            fade(strip + ((size_t)y * (size_t)onto->width + (size_t)(left + x)) * 4,
                 over, share);
        }
    }
    if (column == t->across.count - 1)
        put_row(t, index / t->across.count, strip, onto);
    return 0;
}

/* The tiles of the VAE: pictures of any size, cut and put together, are what they were, and what a tile sees near an edge that
 * is not the picture's is not used. The stage between is an enlargement to three times the size. */
#include "engine/pixels.c"

#include "base/mem.h"

#include "unit.h"

enum { SCALE = 3, TILE = 8 };

static float value_at(int y, int x)
{
    return (float)((y * 31 + x * 7) % 101);
}

/* Does a neighbour hide this pixel? at: of tile i, in enlarged pixels */
static bool is_hidden(const struct line *l, int i, int at)
{
    int begin = begin_of(l, i) * SCALE, next = begin_of(l, i + 1) * SCALE;
    int wide = l->tile * SCALE;
    int before = i ? (begin_of(l, i - 1) + l->tile) * SCALE - begin : 0;
    int after = i + 1 < l->count ? begin + wide - next : 0;

    return (at < before && seen(at, before) <= 0) ||
           (at >= wide - after && seen(at - (wide - after), after) >= 1);
}

/* Every pixel of the tile three times in both directions; those that must not be seen are others. */
static void enlarge(const struct tiling *t, int row, int column, const float *in,
                    float *out)
{
    for (int y = 0; y < t->down.tile * SCALE; y++)
        for (int x = 0; x < t->across.tile * SCALE; x++) {
            bool is_bad =
                is_hidden(&t->down, row, y) || is_hidden(&t->across, column, x);

            *out++ = is_bad ? -500 : in[(y / SCALE * t->across.tile + x / SCALE) * 2];
        }
}

static struct tiling tiling_of(int high, int wide)
{
    return (struct tiling){.down = make_line(high, high < TILE ? high : TILE),
                           .across = make_line(wide, wide < TILE ? wide : TILE),
                           .in_scale = 1,
                           .in_channels = 2,
                           .out_scale = SCALE,
                           .out_channels = 1};
}

static void expect_whole(int high, int wide)
{
    struct tiling t = tiling_of(high, wide);
    size_t count = (size_t)(high * wide);
    float *in = mem_alloc(2 * count * sizeof(*in));
    float *out = mem_zalloc(count * SCALE * SCALE * sizeof(*out));
    float *strip = mem_zalloc((size_t)(TILE * SCALE * wide * SCALE) * sizeof(*strip));
    float tile[TILE * TILE * 2], larger[TILE * SCALE * TILE * SCALE];

    for (int i = 0; i < high * wide; i++) {
        in[2 * i] = value_at(i / wide, i % wide);
        in[2 * i + 1] = -1;
    }
    for (int row = 0; row < t.down.count; row++) {
        for (int column = 0; column < t.across.count; column++) {
            cut(&t, begin_of(&t.down, row), begin_of(&t.across, column), in, tile);
            enlarge(&t, row, column, tile, larger);
            put_tile(&t, column, larger, strip);
        }
        put_strip(&t, row, strip, out);
    }
    for (int y = 0; y < high * SCALE; y++)
        for (int x = 0; x < wide * SCALE; x++) {
            float got = out[y * wide * SCALE + x];

            if (got != value_at(y / SCALE, x / SCALE))
                fail_msg("%d x %d: %g at %d, %d", wide, high, (double)got, x, y);
        }
    free(in);
    free(out);
    free(strip);
}

static void every_size_is_put_together(void **state)
{
    (void)state;
    for (int high = 1; high < 4 * TILE; high++)
        for (int wide = 1; wide < 4 * TILE; wide += high % 5 + 1)
            expect_whole(high, wide);
}

static void tiles_overlap_and_end_at_the_border(void **state)
{
    (void)state;
    for (int size = TILE; size < 40 * TILE; size++) {
        struct line l = make_line(size, TILE);

        assert_int_equal(begin_of(&l, 0), 0);
        assert_int_equal(begin_of(&l, l.count - 1) + TILE, size);
        for (int i = 1; i < l.count; i++)
            assert_in_range(begin_of(&l, i) - begin_of(&l, i - 1), 1, TILE - TILE / 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_is_put_together),
        cmocka_unit_test(tiles_overlap_and_end_at_the_border),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

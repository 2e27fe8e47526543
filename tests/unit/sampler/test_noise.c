/* Numbers of PyTorch's CPU generator (noise_torch.py prints them) and of CUDA's Philox (published by the
 * programs that reproduce it: seeds 0 and 42). Tolerance: the vectors have 5 or 6 digits, and log, sin and cos
 * may differ in a float's last bit between libraries: 2e-5 for values up to 4. */
#include "engine/sampler/noise.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static void assert_near(const float *found, const double *expected, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fabs((double)found[i] - expected[i]) > 2e-5)
            fail_msg("number %zu is %.6f, expected %.6f", i, (double)found[i],
                     expected[i]);
}
#define ASSERT_NEAR(found, ...)                                                        \
    assert_near(found, (const double[]){__VA_ARGS__},                                  \
                sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

static void nv_matches_cuda(void **state)
{
    struct noise n;
    float x[12];

    (void)state;
    noise_init(&n, NOISE_NV, 0);
    noise_fill(&n, x, 12);
    ASSERT_NEAR(x, -.92466, -.42534, -2.64385, .14518, -.12087, -.57973, -.62285,
                -.32839, -1.07454, -.36314, -1.67105, 2.2655);
    noise_init(&n, NOISE_NV, 42);
    noise_fill(&n, x, 8);
    ASSERT_NEAR(x, .19402, 2.16137, -.17205, .84906, -1.9244, .65299, -.64944, -.81752);
    noise_fill(&n, x, 4); /* the second call continues elsewhere */
    ASSERT_NEAR(x, .13914, -.10822, -.71742, .75665);
}

static void nv_does_not_depend_on_the_count(void **state)
{
    struct noise a;
    struct noise b;
    float x[5];
    float y[4096];

    (void)state;
    noise_init(&a, NOISE_NV, 123456789012345ULL);
    noise_init(&b, NOISE_NV, 123456789012345ULL);
    noise_fill(&a, x, 5);
    noise_fill(&b, y, 4096);
    assert_memory_equal(x, y, sizeof(x));
}

static void cpu_matches_torch_in_blocks(void **state)
{
    struct noise n;
    float x[64];

    (void)state;
    noise_init(&n, NOISE_CPU, 0);
    noise_fill(&n, x, 64);
    ASSERT_NEAR(x, -1.125840, -1.152360, -0.250579, -0.433879, 0.848710, 0.692009,
                -0.316013, -2.115219);
    ASSERT_NEAR(x + 62, 1.819725, -0.551529);
    noise_fill(&n, x, 16);
    ASSERT_NEAR(x, -0.569248, 0.919971, 1.110816, 1.289874);
    noise_init(&n, NOISE_CPU, 42);
    noise_fill(&n, x, 64);
    ASSERT_NEAR(x, 1.926915, 1.487284, 0.900717, -2.105521, 0.678418, -1.234545,
                -0.043067, -1.604667);
}

static void cpu_redraws_the_last_block(void **state)
{
    struct noise n;
    float x[21];

    (void)state;
    noise_init(&n, NOISE_CPU, 42);
    noise_fill(&n, x, 21);
    ASSERT_NEAR(x, 1.926915, 1.487284, 0.900717, -2.105521, 0.678418);
    ASSERT_NEAR(x + 18, 0.803409, -0.621595, -0.592001);
}

static void cpu_matches_torch_one_by_one(void **state)
{
    struct noise n;
    float x[9];

    (void)state;
    noise_init(&n, NOISE_CPU, 0);
    noise_fill(&n, x, 5); /* the sixth number waits in the generator */
    noise_fill(&n, x + 5, 4);
    ASSERT_NEAR(x, 1.540996, -0.293429, -2.178789, 0.568431, -1.084522, -1.398595,
                0.403347, 0.838026, -0.719258);
}

static void cpu_uses_32_bits_of_the_seed(void **state)
{
    struct noise n;
    float x[64];

    (void)state;
    noise_init(&n, NOISE_CPU, (1ULL << 33) + 5);
    noise_fill(&n, x, 64);
    ASSERT_NEAR(x, 1.842330, 0.518887, -1.711921, -1.701379);
}

static void cpu_goes_on_after_many(void **state)
{
    static float x[4 * 64 * 64];
    struct noise n;

    (void)state;
    noise_init(&n, NOISE_CPU, 7);
    noise_fill(&n, x, 4 * 64 * 64);
    noise_fill(&n, x, 16);
    ASSERT_NEAR(x, 0.216695, -0.103571, -0.019730, -0.734738);
}

/* [C, H, W] as torch has it -> [H, W, C], rows of H; the numbers of noise_torch.py */
static void draw_latent(uint64_t seed, float *ret)
{
    struct noise n;
    float x[4 * 8 * 6];

    noise_init(&n, NOISE_CPU, seed);
    noise_fill(&n, x, 4 * 8 * 6);
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 8 * 6; i++)
            ret[i * 4 + c] = x[c * 8 * 6 + i];
}

static void variations_are_mixed_on_a_sphere(void **state)
{
    float x[4 * 8 * 6], other[4 * 8 * 6], same[4 * 8 * 6], row[6];

    (void)state;
    draw_latent(42, x);
    draw_latent(43, other);
    noise_mix(x, other, 8, 24, 0.3);
    for (int w = 0; w < 6; w++)
        row[w] = x[(2 * 6 + w) * 4 + 1];
    ASSERT_NEAR(row, 0.379876, 0.550165, -0.818060, 0.888894, 1.706387, 0.539550);
    for (int w = 0; w < 6; w++)
        row[w] = x[(7 * 6 + w) * 4 + 3];
    ASSERT_NEAR(row, -2.064580, 0.313418, 1.393216, -0.784524, 1.033511, 0.429825);
    draw_latent(42, x);
    memcpy(same, x, sizeof(x));
    noise_mix(x, same, 8, 24, 0.3); /* no angle between them, no division by it */
    for (size_t i = 0; i < 4 * 8 * 6; i++)
        assert_true(fabs((double)(x[i] - same[i])) < 1e-6);
    noise_mix(x, other, 8, 24, 1);
    for (size_t i = 0; i < 4 * 8 * 6; i++)
        assert_true(fabs((double)(x[i] - other[i])) < 1e-5);
    /* a latent of one row: numbers point the same way or away from each other */
    draw_latent(42, x);
    memcpy(same, x, sizeof(x));
    noise_mix(x, other, 1, 4 * 8 * 6, 0.25);
    for (size_t i = 0; i < 4 * 8 * 6; i++)
        assert_true(fabs((double)(x[i] - (0.75F * same[i] + 0.25F * other[i]))) < 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nv_matches_cuda),
        cmocka_unit_test(nv_does_not_depend_on_the_count),
        cmocka_unit_test(cpu_matches_torch_in_blocks),
        cmocka_unit_test(cpu_redraws_the_last_block),
        cmocka_unit_test(cpu_matches_torch_one_by_one),
        cmocka_unit_test(cpu_uses_32_bits_of_the_seed),
        cmocka_unit_test(variations_are_mixed_on_a_sphere),
        cmocka_unit_test(cpu_goes_on_after_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

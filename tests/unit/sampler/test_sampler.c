/* Schedules and samplers against make_vectors.py, plus what no vector says: names, failing callbacks, memory. */
#include "base/mem.h"
#include "engine/sampler/sampler.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { COUNT = 8 };

static struct schedule schedule;
static json_t *vectors;

static int setup(void **state)
{
    (void)state;
    schedule_init(&schedule, SCHEDULE_SD_BETA_START, SCHEDULE_SD_BETA_END);
    vectors = json_load_file(VECTORS, 0, NULL);
    return vectors ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

static void assert_close(double found, double expected, double tolerance)
{
    if (!(fabs(found - expected) <= tolerance * fmax(1, fabs(expected))))
        fail_msg("%.12g, expected %.12g", found, expected);
}

static void the_table_is_sd(void **state)
{
    const char *index;
    json_t *sigma;

    (void)state;
    json_object_foreach(json_object_get(vectors, "table"), index, sigma) assert_close(
        schedule.sigma[strtol(index, NULL, 10)], json_real_value(sigma), 1e-12);
    assert_close(schedule.sigma[999], 14.6146412293, 1e-11);
    assert_close(schedule.sigma[0], .0291671582, 1e-9);
}

static void known_schedules(void **state)
{
    static const double normal[] = {14.614641, 7.839883, 4.609174, 2.918307, 1.950161,
                                    1.344928,  0.932358, 0.624977, 0.368658, 0.029167};
    static const double karras[] = {14.614641, 9.102928, 5.478392, 3.168603, 1.749417,
                                    0.914072,  0.446918, 0.201398, 0.081910, 0.029167};
    static const double karras_t[] = {999,     916.284, 815.045, 687.153, 523.198,
                                      327.146, 145.938, 40.856,  6.732,   0};
    double sigmas[11];

    (void)state;
    schedule_sigmas(&schedule, SCHEDULER_NORMAL, 10, sigmas);
    for (int i = 0; i < 10; i++)
        assert_close(sigmas[i], normal[i], 1e-6);
    assert_true(sigmas[10] == 0);
    schedule_sigmas(&schedule, SCHEDULER_KARRAS, 10, sigmas);
    for (int i = 0; i < 10; i++) {
        assert_close(sigmas[i], karras[i], 1e-6);
        assert_close(schedule_t(&schedule, sigmas[i]), karras_t[i], 1e-3);
    }
}

static void time_and_sigma_are_inverse(void **state)
{
    (void)state;
    for (double t = 0; t <= 999; t += 0.37)
        assert_close(schedule_t(&schedule, schedule_sigma(&schedule, t)), t, 1e-9);
    assert_true(schedule_t(&schedule, 1e9) == 999);
    assert_true(schedule_t(&schedule, 0) == 0);
    assert_true(schedule_t(&schedule, (double)NAN) == 0);
    assert_true(schedule_sigma(&schedule, (double)NAN) == schedule.sigma[0]);
}

static void v_and_eps_mean_the_same_picture(void **state)
{
    /* x = data + sigma * noise; v = cos * noise - sin * data with tan = sigma */
    const double data = 0.7;
    const double noise = -1.3;

    (void)state;
    for (double sigma = 0.03; sigma < 15; sigma *= 1.7) {
        double x = data + sigma * noise;
        double v = (noise - sigma * data) / sqrt(sigma * sigma + 1);
        struct scaling e = schedule_scaling(PREDICTION_EPS, sigma);
        struct scaling s = schedule_scaling(PREDICTION_V, sigma);

        assert_close(e.skip * x + e.out * noise, data, 1e-12);
        assert_close(s.skip * x + s.out * v, data, 1e-12);
        assert_close(e.in, 1 / sqrt(sigma * sigma + 1), 1e-12);
    }
}

static int toy(void *user, const float *x, double s, float *ret, struct err *err)
{
    (void)user;
    (void)err;
    for (int i = 0; i < COUNT; i++)
        ret[i] =
            (float)((sin(i) + tanh((double)x[i] / (1 + s)) * s * 0.3) / (1 + 0.1 * s));
    return 0;
}

static void samplers_reach_the_reference(void **state)
{
    size_t i;
    json_t *run;

    (void)state;
    assert_true(json_array_size(json_object_get(vectors, "runs")) >= 24);
    json_array_foreach(json_object_get(vectors, "runs"), i, run)
    {
        unsigned steps = (unsigned)json_integer_value(json_object_get(run, "steps"));
        double *sigmas = mem_alloc((steps + 1) * sizeof(*sigmas));
        enum scheduler scheduler;
        enum sampler sampler;
        struct noise noise;
        float x[COUNT];
        struct err err = {0};

        assert_int_equal(
            scheduler_parse(json_string_value(json_object_get(run, "scheduler")),
                            &scheduler, &err),
            0);
        assert_int_equal(
            sampler_parse(json_string_value(json_object_get(run, "sampler")), &sampler,
                          &scheduler, &err),
            0);
        schedule_sigmas(&schedule, scheduler, steps, sigmas);
        for (unsigned k = 0; k <= steps; k++)
            assert_close(
                sigmas[k],
                json_real_value(json_array_get(json_object_get(run, "sigmas"), k)),
                1e-9);
        for (size_t k = 0; k < COUNT; k++)
            x[k] = (float)json_real_value(
                json_array_get(json_object_get(run, "start"), k));
        struct sampler_run options = {.sampler = sampler,
                                      .sigmas = sigmas,
                                      .steps = steps,
                                      .count = COUNT,
                                      .noise = &noise,
                                      .denoise = toy};
        noise_init(&noise, NOISE_NV, 5);
        assert_int_equal(sampler_run(&options, x, &err), 0);
        /* latents are floats: 20 steps each round by 2^-24 of values up to 15 */
        for (size_t k = 0; k < COUNT; k++)
            assert_close(
                (double)x[k],
                json_real_value(json_array_get(json_object_get(run, "end"), k)), 1e-5);
        free(sigmas);
    }
}

struct observed {
    unsigned steps;
    unsigned stop_at;
};

static int observe(void *user, unsigned step, unsigned steps, const float *denoised,
                   struct err *err)
{
    struct observed *o = user;

    assert_non_null(denoised);
    assert_int_equal(step, ++o->steps);
    assert_int_equal(steps, 5);
    if (step == o->stop_at)
        return err_set(err, ERR_CANCELLED, "cancelled");
    return 0;
}

static void a_callback_ends_the_walk(void **state)
{
    struct observed o = {.stop_at = 3};
    struct noise noise;
    double sigmas[6];
    float x[COUNT] = {1};
    struct err err = {0};
    struct sampler_run run = {.sampler = SAMPLER_EULER_A,
                              .sigmas = sigmas,
                              .steps = 5,
                              .count = COUNT,
                              .noise = &noise,
                              .denoise = toy,
                              .on_step = observe,
                              .user = &o};

    (void)state;
    noise_init(&noise, NOISE_NV, 1);
    schedule_sigmas(&schedule, SCHEDULER_NORMAL, 5, sigmas);
    assert_int_equal(sampler_run(&run, x, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(o.steps, 3);
    o = (struct observed){0};
    assert_int_equal(sampler_run(&run, x, &err), 0);
    assert_int_equal(o.steps, 5);
}

static void no_memory_is_an_error(void **state)
{
    double sigmas[2] = {14, 0};
    float x[COUNT] = {0};
    struct err err = {0};
    struct sampler_run run = {.sampler = SAMPLER_DPMPP_2M,
                              .sigmas = sigmas,
                              .steps = 1,
                              .count = COUNT,
                              .denoise = toy};

    (void)state;
    mem_fail_after(1);
    assert_int_equal(sampler_run(&run, x, &err), -1);
    mem_fail_after(0);
    assert_int_equal(err.code, ERR_NO_MEMORY);
}

static void noise_is_drawn_channel_by_channel(void **state)
{
    struct noise a;
    struct noise b;
    float plain[24];
    float mixed[24];
    float scratch[24];

    (void)state;
    noise_init(&a, NOISE_CPU, 3);
    noise_init(&b, NOISE_CPU, 3);
    sampler_noise(&a, 0, plain, 24, NULL);
    sampler_noise(&b, 4, mixed, 24, scratch);
    for (size_t pixel = 0; pixel < 6; pixel++)
        for (size_t c = 0; c < 4; c++)
            assert_true(mixed[pixel * 4 + c] == plain[c * 6 + pixel]);
}

static void guidance(void **state)
{
    float cond[2] = {3, -1};
    const float uncond[2] = {1, 1};

    (void)state;
    sampler_guide(cond, uncond, 2, 7);
    assert_close((double)cond[0], 15, 1e-6);
    assert_close((double)cond[1], -13, 1e-6);
}

static void names_of_every_dialect(void **state)
{
    static const struct {
        const char *name;
        enum sampler sampler;
        enum scheduler scheduler; /* COUNT: not said */
    } known[] = {
        {"euler", SAMPLER_EULER, SCHEDULER_COUNT},
        {"Euler", SAMPLER_EULER, SCHEDULER_COUNT},
        {"k_euler", SAMPLER_EULER, SCHEDULER_COUNT},
        {"Euler a", SAMPLER_EULER_A, SCHEDULER_COUNT},
        {"euler_a", SAMPLER_EULER_A, SCHEDULER_COUNT},
        {"euler_ancestral", SAMPLER_EULER_A, SCHEDULER_COUNT},
        {"DPM++ 2M", SAMPLER_DPMPP_2M, SCHEDULER_COUNT},
        {"dpm++2m", SAMPLER_DPMPP_2M, SCHEDULER_COUNT},
        {"dpmpp_2m", SAMPLER_DPMPP_2M, SCHEDULER_COUNT},
        {"k_dpmpp_2m", SAMPLER_DPMPP_2M, SCHEDULER_COUNT},
        {"DPM++ 2M Karras", SAMPLER_DPMPP_2M, SCHEDULER_KARRAS},
        {"Euler Karras", SAMPLER_EULER, SCHEDULER_KARRAS},
        {"dpm++ 2m normal", SAMPLER_DPMPP_2M, SCHEDULER_NORMAL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        enum sampler sampler = SAMPLER_COUNT;
        enum scheduler scheduler = SCHEDULER_COUNT;
        struct err err = {0};

        if (sampler_parse(known[i].name, &sampler, &scheduler, &err))
            fail_msg("'%s': %s", known[i].name, err.message);
        assert_int_equal(sampler, known[i].sampler);
        assert_int_equal(scheduler, known[i].scheduler);
    }
    for (int i = 0; i < SAMPLER_COUNT; i++)
        assert_non_null(strstr(sampler_names(), sampler_name((enum sampler)i)));
    assert_int_equal(sampler_scheduler(SAMPLER_DPMPP_2M), SCHEDULER_KARRAS);
    assert_int_equal(sampler_scheduler(SAMPLER_EULER), SCHEDULER_NORMAL);
}

static void an_unknown_name_lists_the_known(void **state)
{
    static const char *const unknown[] = {
        "",
        "karras",
        "DPM++ 3M SDE",
        "eule",
        "Heun",
        "DPM++ 2M v2",
        "Euler aa",
        "a name that is longer than any buffer that a "
        "careless reader would have made for it, much"};
    enum sampler sampler = SAMPLER_COUNT;
    enum scheduler scheduler = SCHEDULER_COUNT;

    (void)state;
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        struct err err = {0};

        assert_int_equal(sampler_parse(unknown[i], &sampler, &scheduler, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_string_equal(err.param, "sampler");
        assert_non_null(strstr(err.message, "euler, euler_a, dpmpp_2m"));
    }
    struct err err = {0};
    assert_int_equal(scheduler_parse("sgm_uniform", &scheduler, &err), -1);
    assert_non_null(strstr(err.message, "normal and karras"));
    assert_int_equal(scheduler_parse("Discrete", &scheduler, &err), 0);
    assert_int_equal(scheduler, SCHEDULER_NORMAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_sd),
        cmocka_unit_test(known_schedules),
        cmocka_unit_test(time_and_sigma_are_inverse),
        cmocka_unit_test(v_and_eps_mean_the_same_picture),
        cmocka_unit_test(samplers_reach_the_reference),
        cmocka_unit_test(a_callback_ends_the_walk),
        cmocka_unit_test(no_memory_is_an_error),
        cmocka_unit_test(noise_is_drawn_channel_by_channel),
        cmocka_unit_test(guidance),
        cmocka_unit_test(names_of_every_dialect),
        cmocka_unit_test(an_unknown_name_lists_the_known),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Schedules and samplers against make_vectors.py, plus what no vector says: names, failing callbacks, memory. */
#include "base/mem.h"
#include "engine/sampler/brownian.h"
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

static unsigned make(enum scheduler scheduler, unsigned steps, double *ret)
{
    struct schedule_options how = {.scheduler = scheduler, .steps = steps};

    return schedule_sigmas(&schedule, &how, ret);
}

/* Computed in Python from the definition; the last one is the number that others have. */
static void a_schedule_may_end_in_noise(void **state)
{
    struct schedule s;

    (void)state;
    schedule_init(&s, SCHEDULE_SD_BETA_START, SCHEDULE_SD_BETA_END);
    schedule_end_in_noise(&s);
    assert_close(s.sigma[0], .0291671582, 1e-9);
    assert_close(s.sigma[1], .0420675658, 1e-9);
    assert_close(s.sigma[500], 1.7745574743, 1e-8);
    assert_close(s.sigma[998], 2254.2379783, 1e-4);
    assert_close(s.sigma[999], 4518.7636987, 1e-4);
    assert_close(schedule_t(&s, s.sigma[500]), 500, 1e-6);
}

static void known_schedules(void **state)
{
    static const double normal[] = {14.614641, 7.839883, 4.609174, 2.918307, 1.950161,
                                    1.344928,  0.932358, 0.624977, 0.368658, 0.029167};
    static const double karras[] = {14.614641, 9.102928, 5.478392, 3.168603, 1.749417,
                                    0.914072,  0.446918, 0.201398, 0.081910, 0.029167};
    static const double karras_t[] = {999,     916.284, 815.045, 687.153, 523.198,
                                      327.146, 145.938, 40.856,  6.732,   0};
    double sigmas[SCHEDULE_ROOM(10)];

    (void)state;
    make(SCHEDULER_NORMAL, 10, sigmas);
    for (int i = 0; i < 10; i++)
        assert_close(sigmas[i], normal[i], 1e-6);
    assert_true(sigmas[10] == 0);
    make(SCHEDULER_KARRAS, 10, sigmas);
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

static json_t *get(const json_t *object, const char *key)
{
    return json_object_get(object, key);
}

static double number_at(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

/* 1e-9 for what is arithmetic, 1e-6 for beta, whose reference is a sum over a grid */
static void every_schedule_is_the_reference(void **state)
{
    size_t i;
    json_t *row;

    (void)state;
    assert_int_equal(json_array_size(get(vectors, "schedules")), 139);
    json_array_foreach(get(vectors, "schedules"), i, row)
    {
        const char *name = json_string_value(get(row, "scheduler"));
        json_t *expected = get(row, "sigmas");
        struct schedule_options how = {
            .steps = (unsigned)json_integer_value(get(row, "steps")),
            .discards = json_is_true(get(row, "discards")),
            .has_timesteps = json_is_true(get(row, "timesteps")),
            .rho = json_number_value(get(row, "rho"))};
        double *sigmas = mem_alloc(SCHEDULE_ROOM(how.steps) * sizeof(*sigmas));
        struct err err = {0};
        unsigned steps;

        assert_int_equal(scheduler_parse(name, &how.scheduler, &err), 0);
        assert_int_equal(
            dialect_parse(json_string_value(get(row, "dialect")), &how.dialect, &err),
            0);
        steps = schedule_sigmas(&schedule, &how, sigmas);
        if (steps + 1 != json_array_size(expected))
            fail_msg("%s %s, %u steps: %u", name, dialect_name(how.dialect), how.steps,
                     steps);
        for (unsigned k = 0; k <= steps; k++) {
            if (!(fabs(sigmas[k] - number_at(expected, k)) <=
                  (how.scheduler == SCHEDULER_BETA ? 1e-6 : 1e-9) * 15))
                fail_msg("%s %s of %u steps, level %u: %.12g, expected %.12g", name,
                         dialect_name(how.dialect), how.steps, k, sigmas[k],
                         number_at(expected, k));
            assert_true(k == 0 || sigmas[k] < sigmas[k - 1]);
        }
        free(sigmas);
    }
}

/* Any number of steps gives a list that falls and fits into its room. */
static void every_schedule_falls(void **state)
{
    double *sigmas = mem_alloc(SCHEDULE_ROOM(1500) * sizeof(*sigmas));

    (void)state;
    for (unsigned steps = 1; steps <= 1500; steps += steps < 40 ? 1 : 97)
        for (int k = 0; k < SCHEDULER_COUNT * 4; k++) {
            struct schedule_options how = {.scheduler = (enum scheduler)(k / 4),
                                           .steps = steps,
                                           .discards = k & 1,
                                           .has_timesteps = k & 1,
                                           .dialect = (enum dialect)(k >> 1 & 1)};
            unsigned count = schedule_sigmas(&schedule, &how, sigmas);

            assert_true(count > 0 && count + 1 < SCHEDULE_ROOM(steps));
            for (unsigned i = 0; i < count; i++)
                if (!(sigmas[i] >= sigmas[i + 1] && sigmas[i] > 0 && sigmas[i] < 14.7))
                    fail_msg("%s, %u steps, level %u: %g, %g",
                             scheduler_name(how.scheduler), steps, i, sigmas[i],
                             sigmas[i + 1]);
        }
    free(sigmas);
}

/* Whatever exponent a job says: small ones are too much for a double, large ones let levels fall together. */
static void every_exponent_gives_levels(void **state)
{
    static const double rhos[] = {1e-9, 0.001, 0.01, 0.1, 0.5, 0.99, 1, 7, 50, 100};
    double *sigmas = mem_alloc(SCHEDULE_ROOM(40) * sizeof(*sigmas));

    (void)state;
    for (unsigned steps = 1; steps <= 40; steps++)
        for (int k = 0; k < 20; k++) {
            struct schedule_options how = {
                .scheduler = k & 1 ? SCHEDULER_POLYEXPONENTIAL : SCHEDULER_KARRAS,
                .steps = steps,
                .rho = rhos[k / 2]};
            unsigned count = schedule_sigmas(&schedule, &how, sigmas);

            assert_true(count > 0 && count <= steps);
            assert_true(fabs(sigmas[0] - schedule.sigma[SCHEDULE_TRAIN_STEPS - 1]) <
                        1e-9);
            if (steps > 1)
                assert_true(fabs(sigmas[count - 1] - schedule.sigma[0]) < 1e-3);
            for (unsigned i = 0; i < count; i++)
                if (!(sigmas[i] > sigmas[i + 1] && isfinite(sigmas[i])))
                    fail_msg("%s, rho %g, %u steps, level %u: %g, %g",
                             scheduler_name(how.scheduler), how.rho, steps, i,
                             sigmas[i], sigmas[i + 1]);
        }
    free(sigmas);
}

static int toy(void *user, const float *x, double s, const struct sampler_denoised *ret,
               struct err *err)
{
    (void)user;
    (void)err;
    for (int i = 0; i < COUNT; i++) {
        double d =
            (sin(i) + tanh((double)x[i] / (1 + s)) * (s + 0.5) * 0.3) / (1 + 0.1 * s);

        ret->guided[i] = (float)d;
        if (ret->uncond)
            ret->uncond[i] = (float)(0.8 * d);
    }
    return 0;
}

static void take_option(const json_t *options, const char *name, double *ret)
{
    if (get(options, name))
        *ret = json_number_value(get(options, name));
}

static struct sampler_options options_of(enum sampler sampler, const json_t *row)
{
    struct sampler_options o = sampler_options(sampler, DIALECT_A1111);

    take_option(get(row, "options"), "eta", &o.eta);
    take_option(get(row, "options"), "s_churn", &o.s_churn);
    take_option(get(row, "options"), "s_tmin", &o.s_tmin);
    take_option(get(row, "options"), "s_tmax", &o.s_tmax);
    take_option(get(row, "options"), "s_noise", &o.s_noise);
    take_option(get(row, "options"), "r", &o.r);
    return o;
}

/* latents are floats: 40 steps each round by 2^-24 of values up to 15, and a Brownian path's are rounded where it is
 * halved, some twenty times a query; a wrong coefficient shows in the first digits */
static void samplers_reach_the_reference(void **state)
{
    size_t i;
    json_t *row;

    (void)state;
    assert_int_equal(json_array_size(get(vectors, "runs")), SAMPLER_COUNT * 6 + 16);
    json_array_foreach(get(vectors, "runs"), i, row)
    {
        const char *name = json_string_value(get(row, "sampler"));
        unsigned steps = (unsigned)json_integer_value(get(row, "steps"));
        double *sigmas = mem_alloc(SCHEDULE_ROOM(steps) * sizeof(*sigmas));
        enum scheduler scheduler;
        enum sampler sampler;
        struct noise noise;
        float x[COUNT];
        struct err err = {0};

        assert_int_equal(
            scheduler_parse(json_string_value(get(row, "scheduler")), &scheduler, &err),
            0);
        if (sampler_parse(name, &sampler, &scheduler, &err))
            fail_msg("%s", err.message);
        steps = make(scheduler, steps, sigmas);
        for (size_t k = 0; k < COUNT; k++)
            x[k] = (float)number_at(get(row, "start"), k);
        struct sampler_run run = {.sampler = sampler,
                                  .options = options_of(sampler, row),
                                  .sigmas = sigmas,
                                  .steps = steps,
                                  .count = COUNT,
                                  .noise = &noise,
                                  .path_seed = 5,
                                  .schedule = &schedule,
                                  .denoise = toy};
        noise_init(&noise, NOISE_NV, 5);
        assert_int_equal(sampler_run(&run, x, &err), 0);
        for (size_t k = 0; k < COUNT; k++)
            if (!(fabs((double)x[k] - number_at(get(row, "end"), k)) <=
                  2e-5 * fmax(1, fabs((double)x[k]))))
                fail_msg("%s, %s, %u steps, number %zu: %.9g, expected %.9g", name,
                         scheduler_name(scheduler), steps, k, (double)x[k],
                         number_at(get(row, "end"), k));
        free(sigmas);
    }
}

/* A denoiser that knows its picture. */
static int knowing(void *user, const float *x, double s,
                   const struct sampler_denoised *ret, struct err *err)
{
    (void)user;
    (void)x;
    (void)s;
    (void)err;
    for (int i = 0; i < COUNT; i++) {
        ret->guided[i] = (float)sin(i);
        if (ret->uncond)
            ret->uncond[i] = (float)sin(i);
    }
    return 0;
}

static double arrives_within(const struct sampler_run *run)
{
    double last = run->sigmas[run->steps - 1];

    if (run->sampler == SAMPLER_DPM_FAST || run->sampler == SAMPLER_DPM_ADAPTIVE)
        return 4 * (last < run->sigmas[0] ? last : schedule.sigma[0]);
    return run->sampler == SAMPLER_LMS ? 0.1 : 0.01;
}

/* Whatever the sampler, schedule and number of steps, one and two included: a walk down to 0 with a denoiser that
 * knows ends at the picture, and every latent on the way is a number. */
static void every_sampler_arrives(void **state)
{
    static const unsigned all_steps[] = {1, 2, 3, 8, 25, 60};

    (void)state;
    for (int k = 0; k < SAMPLER_COUNT * SCHEDULER_COUNT * 6; k++) {
        enum sampler sampler = (enum sampler)(k % SAMPLER_COUNT);
        double sigmas[SCHEDULE_ROOM(60)];
        struct schedule_options how = {
            .scheduler = (enum scheduler)(k / SAMPLER_COUNT % SCHEDULER_COUNT),
            .steps = all_steps[k / (SAMPLER_COUNT * SCHEDULER_COUNT)],
            .dialect = DIALECT_COMFY,
            .discards = sampler_discards(sampler, DIALECT_COMFY)};
        struct noise noise;
        float x[COUNT];
        struct err err = {0};
        struct sampler_run run = {.sampler = sampler,
                                  .options = sampler_options(sampler, DIALECT_A1111),
                                  .sigmas = sigmas,
                                  .steps = schedule_sigmas(&schedule, &how, sigmas),
                                  .count = COUNT,
                                  .noise = &noise,
                                  .path_kind = k & 1 ? NOISE_CPU : NOISE_NV,
                                  .path_seed = (uint64_t)k,
                                  .channels = 4,
                                  .schedule = &schedule,
                                  .denoise = knowing};

        noise_init(&noise, NOISE_NV, (uint64_t)k);
        noise_fill(&noise, x, COUNT);
        for (int i = 0; i < COUNT; i++)
            x[i] = (float)(sin(i) + sigmas[0] * (double)x[i]);
        assert_int_equal(sampler_run(&run, x, &err), 0);
        for (int i = 0; i < COUNT; i++)
            /* UniPC ends at sigma 0.001, DPM fast and adaptive at the lowest level; LMS extrapolates from levels that
             * linear_quadratic lays close together to far ones, and rounding grows with it */
            if (!(fabs((double)x[i] - sin(i)) < arrives_within(&run)))
                fail_msg("%s, %s, %u steps: %g, expected %g", sampler_name(sampler),
                         scheduler_name(how.scheduler), how.steps, (double)x[i],
                         sin(i));
    }
}

/* More steps bring a deterministic sampler nearer to where a thousand of Heun's lead. */
static void more_steps_are_nearer(void **state)
{
    static const enum sampler all[] = {
        SAMPLER_EULER, SAMPLER_HEUN,   SAMPLER_DPM2,      SAMPLER_DPMPP_2M,
        SAMPLER_LMS,   SAMPLER_DDIM,   SAMPLER_PLMS,      SAMPLER_IPNDM,
        SAMPLER_DEIS,  SAMPLER_UNI_PC, SAMPLER_UNI_PC_BH2};
    double *sigmas = mem_alloc(SCHEDULE_ROOM(1000) * sizeof(*sigmas));

    (void)state;
    for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++) {
        static const unsigned all_steps[] = {1000, 10, 40};
        float ends[3][COUNT];
        double far[3] = {0};

        for (int n = 0; n < 3; n++) {
            struct err err = {0};
            struct sampler_run run = {.sampler = n ? all[k] : SAMPLER_HEUN,
                                      .options = sampler_options(all[k], DIALECT_COMFY),
                                      .sigmas = sigmas,
                                      .steps =
                                          make(SCHEDULER_KARRAS, all_steps[n], sigmas),
                                      .count = COUNT,
                                      .schedule = &schedule,
                                      .denoise = toy};

            for (int i = 0; i < COUNT; i++)
                ends[n][i] = (float)(14.6 * cos(3 * i));
            assert_int_equal(sampler_run(&run, ends[n], &err), 0);
            for (int i = 0; i < COUNT; i++)
                far[n] += fabs((double)ends[n][i] - (double)ends[0][i]);
        }
        /* LMS' last step, to 0, is longer than those it is made of: it stays some hundredths away */
        if (!(far[1] < 2 && far[2] < fmax(far[1] / 2, 0.05)))
            fail_msg("%s: 10 steps are %g away, 40 steps %g", sampler_name(all[k]),
                     far[1], far[2]);
    }
    free(sigmas);
}

static void the_path_is_torchsdes(void **state)
{
    float memory[BROWNIAN_VECTORS * COUNT], found[COUNT];
    struct brownian tree = {.kind = NOISE_NV,
                            .seed = 5,
                            .low = schedule.sigma[0],
                            .high = schedule.sigma[999],
                            .count = COUNT,
                            .memory = memory};
    size_t i;
    json_t *row;

    (void)state;
    json_array_foreach(get(vectors, "path"), i, row)
    {
        brownian_noise(&tree, json_number_value(get(row, "from")),
                       json_number_value(get(row, "to")), found);
        /* a short stretch is a small difference of large rounded numbers */
        for (size_t k = 0; k < COUNT; k++)
            if (!(fabs((double)found[k] - number_at(get(row, "noise"), k)) <= 1e-3))
                fail_msg("from %g to %g, number %zu: %g, expected %g",
                         json_number_value(get(row, "from")),
                         json_number_value(get(row, "to")), k, (double)found[k],
                         number_at(get(row, "noise"), k));
    }
}

/* numpy.random.SeedSequence(...).generate_state(1) */
static void seeds_are_numpys(void **state)
{
    (void)state;
    assert_int_equal(brownian_seed(5, 0, -1), 3154616629U);
    assert_int_equal(brownian_seed(5, 3, 2), 432122160U);
    assert_int_equal(brownian_seed(1ULL << 40 | 7, 1, 1), 500863053U);
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
    double sigmas[SCHEDULE_ROOM(5)];
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
    (void)make(SCHEDULER_NORMAL, 5, sigmas);
    assert_int_equal(sampler_run(&run, x, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(o.steps, 3);
    o = (struct observed){0};
    assert_int_equal(sampler_run(&run, x, &err), 0);
    assert_int_equal(o.steps, 5);
}

struct progress {
    unsigned last, steps;
};

static int rising(void *user, unsigned step, unsigned steps, const float *denoised,
                  struct err *err)
{
    struct progress *p = user;

    (void)err;
    assert_non_null(denoised);
    assert_true(step > p->last && step <= steps);
    *p = (struct progress){step, steps};
    return 0;
}

static int broken(void *user, const float *x, double s,
                  const struct sampler_denoised *ret, struct err *err)
{
    (void)toy(user, x, s, ret, err);
    ret->guided[3] = NAN;
    return 0;
}

/* Steps of three looks, told in looks. */
static void fast_tells_its_looks(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 9; n++) {
        double sigmas[SCHEDULE_ROOM(9)];
        struct progress progress = {0};
        struct noise noise;
        float x[COUNT] = {14, -3, 5, 9};
        struct err err = {0};
        struct sampler_run run = {.sampler = SAMPLER_DPM_FAST,
                                  .options =
                                      sampler_options(SAMPLER_DPM_FAST, DIALECT_A1111),
                                  .sigmas = sigmas,
                                  .steps = n,
                                  .count = COUNT,
                                  .noise = &noise,
                                  .schedule = &schedule,
                                  .denoise = toy,
                                  .on_step = rising,
                                  .user = &progress};

        noise_init(&noise, NOISE_NV, 1);
        (void)make(SCHEDULER_NORMAL, n, sigmas);
        assert_int_equal(sampler_run(&run, x, &err), 0);
        assert_int_equal(progress.last, n);
        assert_int_equal(progress.steps, n);
    }
}

/* It goes as many steps as it needs, tells them as the steps that were asked for, and ends with what is no number. */
static void adaptive_tells_what_is_done(void **state)
{
    double sigmas[SCHEDULE_ROOM(20)];
    struct progress progress = {0};
    float x[COUNT] = {14, -3, 5, 9};
    struct err err = {0};
    struct sampler_run run = {.sampler = SAMPLER_DPM_ADAPTIVE,
                              .options =
                                  sampler_options(SAMPLER_DPM_ADAPTIVE, DIALECT_COMFY),
                              .sigmas = sigmas,
                              .steps = 20,
                              .count = COUNT,
                              .denoise = toy,
                              .on_step = rising,
                              .user = &progress};

    (void)state;
    (void)make(SCHEDULER_NORMAL, 20, sigmas);
    assert_true(run.options.eta == 0);
    assert_true(sampler_options(SAMPLER_DPM_ADAPTIVE, DIALECT_A1111).eta == 1);
    assert_int_equal(sampler_run(&run, x, &err), 0);
    assert_int_equal(progress.last, 20);
    assert_int_equal(progress.steps, 20);
    progress = (struct progress){0};
    run.denoise = broken;
    assert_int_equal(sampler_run(&run, x, &err), -1);
    assert_int_equal(err.code, ERR_INTERNAL);
    assert_non_null(strstr(err.message, "not a number"));
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
        {"DPM++ 2M SDE Karras", SAMPLER_DPMPP_2M_SDE, SCHEDULER_KARRAS},
        {"DPM++ 2M SDE Heun Exponential", SAMPLER_DPMPP_2M_SDE_HEUN,
         SCHEDULER_EXPONENTIAL},
        {"DPM++ 2M SDE SGMUniform", SAMPLER_DPMPP_2M_SDE, SCHEDULER_SGM_UNIFORM},
        {"DPM++ 3M SDE Align Your Steps", SAMPLER_DPMPP_3M_SDE, SCHEDULER_AYS},
        {"DPM++ SDE", SAMPLER_DPMPP_SDE, SCHEDULER_COUNT},
        {"dpmpp_sde_gpu", SAMPLER_DPMPP_SDE, SCHEDULER_COUNT},
        {"dpmpp_2m_sde_gpu", SAMPLER_DPMPP_2M_SDE, SCHEDULER_COUNT},
        {"dpm++2m_sde_bt", SAMPLER_DPMPP_2M_SDE, SCHEDULER_COUNT},
        {"DPM++ 2S a", SAMPLER_DPMPP_2S_A, SCHEDULER_COUNT},
        {"dpmpp_2s_ancestral", SAMPLER_DPMPP_2S_A, SCHEDULER_COUNT},
        {"k_dpmpp_2s_a", SAMPLER_DPMPP_2S_A, SCHEDULER_COUNT},
        {"dpm++2s_a", SAMPLER_DPMPP_2S_A, SCHEDULER_COUNT},
        {"DPM2 a Karras", SAMPLER_DPM2_A, SCHEDULER_KARRAS},
        {"dpm_2_ancestral", SAMPLER_DPM2_A, SCHEDULER_COUNT},
        {"dpm_2", SAMPLER_DPM2, SCHEDULER_COUNT},
        {"k_dpm_2", SAMPLER_DPM2, SCHEDULER_COUNT},
        {"LMS Karras", SAMPLER_LMS, SCHEDULER_KARRAS},
        {"k_lms", SAMPLER_LMS, SCHEDULER_COUNT},
        {"ddim", SAMPLER_DDIM, SCHEDULER_COUNT},
        {"ddim_trailing", SAMPLER_DDIM, SCHEDULER_COUNT},
        {"DDIM CFG++", SAMPLER_DDIM_CFG_PP, SCHEDULER_COUNT},
        {"euler_cfg_pp", SAMPLER_DDIM_CFG_PP, SCHEDULER_COUNT},
        {"PLMS", SAMPLER_PLMS, SCHEDULER_COUNT},
        {"UniPC", SAMPLER_UNI_PC, SCHEDULER_COUNT},
        {"uni_pc_bh2", SAMPLER_UNI_PC_BH2, SCHEDULER_COUNT},
        {"LCM", SAMPLER_LCM, SCHEDULER_COUNT},
        {"k_lcm", SAMPLER_LCM, SCHEDULER_COUNT},
        {"TCD", SAMPLER_TCD, SCHEDULER_COUNT},
        {"iPNDM", SAMPLER_IPNDM, SCHEDULER_COUNT},
        {"deis", SAMPLER_DEIS, SCHEDULER_COUNT},
        {"Restart", SAMPLER_RESTART, SCHEDULER_COUNT},
        {"er_sde", SAMPLER_ER_SDE, SCHEDULER_COUNT},
        {"Heun", SAMPLER_HEUN, SCHEDULER_COUNT},
        {"DPM fast", SAMPLER_DPM_FAST, SCHEDULER_COUNT},
        {"k_dpm_fast", SAMPLER_DPM_FAST, SCHEDULER_COUNT},
        {"dpm_fast", SAMPLER_DPM_FAST, SCHEDULER_COUNT},
        {"DPM adaptive", SAMPLER_DPM_ADAPTIVE, SCHEDULER_COUNT},
        {"k_dpm_ad", SAMPLER_DPM_ADAPTIVE, SCHEDULER_COUNT},
        {"dpm_adaptive", SAMPLER_DPM_ADAPTIVE, SCHEDULER_COUNT},
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
        assert_non_null(strstr(SAMPLER_NAMES, sampler_name((enum sampler)i)));
    for (int i = 0; i < SCHEDULER_COUNT; i++)
        assert_non_null(strstr(SCHEDULER_NAMES, scheduler_name((enum scheduler)i)));
    assert_int_equal(sampler_scheduler(SAMPLER_DPMPP_2M), SCHEDULER_KARRAS);
    assert_int_equal(sampler_scheduler(SAMPLER_EULER), SCHEDULER_NORMAL);
}

static void an_unknown_name_lists_the_known(void **state)
{
    static const char *const unknown[] = {
        "",
        "karras",
        "DPM++ 4M SDE",
        "eule",
        "DPM slow",
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
        assert_non_null(strstr(err.message, "euler, euler_a, heun, dpm2"));
    }
    struct err err = {0};
    assert_int_equal(scheduler_parse("bong_tangent", &scheduler, &err), -1);
    assert_non_null(strstr(err.message, "normal, simple, karras"));
    assert_int_equal(scheduler_parse("Discrete", &scheduler, &err), 0);
    assert_int_equal(scheduler, SCHEDULER_NORMAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_sd),
        cmocka_unit_test(a_schedule_may_end_in_noise),
        cmocka_unit_test(known_schedules),
        cmocka_unit_test(time_and_sigma_are_inverse),
        cmocka_unit_test(v_and_eps_mean_the_same_picture),
        cmocka_unit_test(every_schedule_is_the_reference),
        cmocka_unit_test(every_schedule_falls),
        cmocka_unit_test(every_exponent_gives_levels),
        cmocka_unit_test(samplers_reach_the_reference),
        cmocka_unit_test(every_sampler_arrives),
        cmocka_unit_test(more_steps_are_nearer),
        cmocka_unit_test(the_path_is_torchsdes),
        cmocka_unit_test(seeds_are_numpys),
        cmocka_unit_test(a_callback_ends_the_walk),
        cmocka_unit_test(fast_tells_its_looks),
        cmocka_unit_test(adaptive_tells_what_is_done),
        cmocka_unit_test(no_memory_is_an_error),
        cmocka_unit_test(noise_is_drawn_channel_by_channel),
        cmocka_unit_test(guidance),
        cmocka_unit_test(names_of_every_dialect),
        cmocka_unit_test(an_unknown_name_lists_the_known),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

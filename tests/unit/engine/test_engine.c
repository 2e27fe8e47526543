/* The engine's own door: what loads, what is refused and with which sentence, what a
 * job may say, what an estimate is worth, how a job ends early. On the reference back
 * end, with the small model. */
#include "base/mem.h"
#include "engine/model.h"

#include "small_engine.h"
#include "unit.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#define UNET "model.diffusion_model."

static int set_up(void **state)
{
    (void)state;
    small_engine_open();
    model = small_engine_load(&(struct small_model){
        .metadata = "\"mysti.default_width\":\"64\",\"mysti.default_height\":"
                    "\"48\",\"mysti.default_steps\":\"3\","
                    "\"mysti.default_sampler\":\"DPM++ 2M Karras\","
                    "\"mysti.default_cfg_scale\":\"4.5\","
                    "\"mysti.name\":\"small one\""});
    return 0;
}

/* ---- what was loaded ---- */

static void test_info(void **state)
{
    struct engine_model_info info;
    struct engine_job job;

    (void)state;
    engine_model_info(model, &info);
    assert_string_equal(info.name, "small one");
    assert_string_equal(info.family, "sd1");
    assert_string_equal(info.prediction, "eps");
    assert_string_equal(info.default_sampler, "dpmpp_2m");
    assert_string_equal(info.default_scheduler, "karras");
    assert_int_equal(info.default_width, 64);
    assert_int_equal(info.default_steps, 3);
    assert_int_equal(info.parameters,
                     5111675); /* every tensor of the listing is used */
    /* packed: all but the 49,408 x 48 + 77 x 48 numbers of the tables, in f32, a little
     * padded */
    assert_true(info.resident_bytes > 4 * (info.parameters - 49485 * 48));
    assert_true(info.resident_bytes < 5 * (info.parameters - 49485 * 48));
    engine_job_defaults(model, &job);
    assert_int_equal(job.seed, -1);
    assert_int_equal(job.count, 1);
    assert_true(job.cfg_scale == 4.5);
}

static void expect_refused(const struct small_model *what, const char *sentence)
{
    char *path = small_model_write(what);
    struct engine_model *broken;
    struct err err = {0};

    assert_int_equal(engine_model_load(&broken, engine, path, NULL, &err), -1);
    if (err.code != ERR_BAD_FILE || !strstr(err.message, sentence) ||
        !strstr(err.message, path))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    unlink(path);
    free(path);
}

static void test_refuses_other_models(void **state)
{
    static const struct {
        struct small_model what;
        const char *sentence;
    } cases[] = {
        {{.without = UNET "input_blocks.0.0.weight"}, "no Stable Diffusion model"},
        {{.without = UNET "time_embed.0.weight"}, "time_embed.0.weight is missing"},
        {{.without = UNET "time_embed.2.bias"}, UNET "time_embed.2.bias is missing"},
        {{.without = UNET "out.2.weight"}, UNET "out.2.weight is missing"},
        {{.without = UNET "input_blocks.4.0.out_layers.3.bias"},
         UNET "input_blocks.4.0.out_layers.3.bias is missing"},
        {{.without = UNET "middle_block.1.transformer_blocks.0.attn2.to_v.weight"},
         "middle_block.1.transformer_blocks.0.attn2.to_v.weight is missing"},
        {{.without = UNET "output_blocks.8.0.in_layers.0.weight"},
         "more than output blocks"},
        {{.without = UNET "input_blocks.3.0.op.weight"}, "has no input block to join"},
        {{.without = "first_stage_model.decoder.conv_in.weight"}, "no decoder"},
        {{.without = "first_stage_model.decoder.up.2.block.1.conv2.weight"},
         "up.2.block.1.conv2.weight is missing"},
        {{.without = "cond_stage_model.transformer.text_model.embeddings.token_"
                     "embedding.weight"},
         "no text encoder"},
        {{.without = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1."
                     "weight"},
         "layers.1.mlp.fc1.weight is missing"},
        {{.extra = UNET "label_emb.0.0.weight"},
         "label_emb.0.0.weight is not part of a model of the SD 1.x family"},
        {{.doubled = UNET "input_blocks.1.0.in_layers.2.weight"}, "values"},
        {{.doubled = UNET "out.2.weight"}, "values"},
        {{.doubled = "cond_stage_model.transformer.text_model.embeddings.position_"
                     "embedding.weight"},
         "has 154 positions"},
        {{.metadata = "\"mysti.prediction\":\"flow\""}, "mysti.prediction is 'flow'"},
        {{.metadata = "\"mysti.default_steps\":\"many\""}, "mysti.default_steps"},
        {{.metadata = "\"mysti.default_width\":\"100\""}, "multiples of 8"},
        {{.metadata = "\"mysti.default_sampler\":\"magic\""}, "mysti.default_sampler"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        expect_refused(&cases[i].what, cases[i].sentence);
}

/* ---- jobs ---- */

static struct engine_job a_job(void)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.seed = 7;
    job.width = job.height = 32;
    return job;
}

static void test_job_checks(void **state)
{
    struct engine_job job = a_job();
    struct err err = {0};

    (void)state;
    check(engine_job_check(model, &job, &err), &err);
#define REFUSED(field, value, param, sentence)                                         \
    job = a_job();                                                                     \
    job.field = value;                                                                 \
    expect_job_refused(&job, param, sentence)
    REFUSED(prompt, NULL, "prompt", "no prompt");
    REFUSED(prompt, "\xff", "prompt", "UTF-8");
    REFUSED(negative_prompt, "\xc0\x80", "negative_prompt", "UTF-8");
    REFUSED(width, 100, "width", "multiple of 8 is needed: 96 or 104");
    REFUSED(height, 0, "height", "8 to 2048");
    REFUSED(height, 4096, "height", "8 to 2048");
    REFUSED(steps, 0, "steps", "1 to 150");
    REFUSED(count, 17, "count", "1 to 16");
    REFUSED(seed, -2, "seed", "-1 to");
    REFUSED(cfg_scale, -1, "cfg_scale", "0 to 100");
    REFUSED(cfg_scale, (double)NAN, "cfg_scale", "0 to 100");
    REFUSED(sampler, "dpm_slow", "sampler", "euler_a");
    REFUSED(scheduler, "bong_tangent", "scheduler", "karras");
    REFUSED(dialect, "latin", "dialect", "comfy");
    REFUSED(eta, 11, "eta", "0 to 10");
    REFUSED(r, 0, "r", "0.01 to 1");
    REFUSED(s_noise, -1, "s_noise", "0 to 10");
    REFUSED(rng, "gpu", "rng", "nv and cpu");
    REFUSED(prediction, "flow", "prediction", "eps and v");
    REFUSED(sizes[1], -2, "original_width", "-1 to 16384");
    REFUSED(sizes[5], 16385, "target_width", "-1 to 16384");
#undef REFUSED
    job = a_job();
    job.width = 40; /* a latent of 5: odd at every level */
    job.negative_prompt = NULL;
    job.sampler = job.scheduler = job.rng = NULL;
    check(engine_job_check(model, &job, &err), &err);
}

/* ---- drawing ---- */

struct seen {
    int phases[8], phase_count, steps, images;
    int64_t seeds[4];
    unsigned char first[4][3];
    uint32_t sums[4];
    int cancel_after, asked;
    bool refuses;
    char parameters[600]; /* of the last picture */
};

static void on_phase(void *user, enum engine_phase phase, int image)
{
    struct seen *s = user;

    (void)image;
    s->phases[s->phase_count++] = (int)phase;
}

static void on_step(void *user, int image, int step, int steps)
{
    struct seen *s = user;

    s->steps++;
    assert_int_equal(image, s->images);
    assert_true(step >= 1 && step <= steps);
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct seen *s = user;
    uint32_t sum = 2166136261U;

    assert_int_equal(image->index, s->images);
    assert_memory_equal(image->png, "\x89PNG", 4);
    assert_non_null(strstr(image->parameters, "Seed: "));
    snprintf(s->parameters, sizeof(s->parameters), "%s", image->parameters);
    for (int i = 0; i < image->width * image->height * 3; i++)
        sum = (sum ^ image->rgb[i]) * 16777619U;
    s->sums[s->images] = sum;
    s->seeds[s->images++] = image->seed;
    if (s->refuses)
        err_set(err, ERR_STORAGE, "the disk is full");
    return !s->refuses;
}

static bool is_cancelled(void *user)
{
    struct seen *s = user;

    return s->cancel_after && ++s->asked > s->cancel_after;
}

static int draw(const struct engine_job *job, struct seen *seen, struct err *err)
{
    struct engine_events events = {.on_phase = on_phase,
                                   .on_step = on_step,
                                   .on_image = on_image,
                                   .is_cancelled = is_cancelled,
                                   .user = seen};

    return engine_generate(model, job, &events, err);
}

static void test_draws(void **state)
{
    struct engine_job job = a_job();
    struct seen first = {0}, second = {0}, other = {0};
    struct err err = {0};
    const int phases[] = {ENGINE_PHASE_ENCODE, ENGINE_PHASE_SAMPLE, ENGINE_PHASE_DECODE,
                          ENGINE_PHASE_SAMPLE, ENGINE_PHASE_DECODE};

    (void)state;
    job.count = 2;
    check(draw(&job, &first, &err), &err);
    assert_int_equal(first.images, 2);
    assert_int_equal(first.steps, 2 * 3);
    assert_int_equal(first.phase_count, 5);
    assert_memory_equal(first.phases, phases, sizeof(phases));
    assert_int_equal(first.seeds[0], 7);
    assert_int_equal(first.seeds[1], 8);
    assert_int_not_equal(first.sums[0], first.sums[1]);

    job.count =
        1; /* image 1 of a job is the picture of seed + 1, whatever it is drawn with */
    job.seed = 8;
    check(draw(&job, &second, &err), &err);
    assert_int_equal(second.sums[0], first.sums[1]);

    job.prompt = "a house";
    check(draw(&job, &other, &err), &err);
    assert_int_not_equal(other.sums[0], second.sums[0]);
}

static uint32_t sum_of(const struct engine_job *job)
{
    struct seen seen = {0};
    struct err err = {0};

    check(draw(job, &seen, &err), &err);
    return seen.sums[0];
}

/* The same weights in another kind of file are the same picture. */
static void test_formats_draw_alike(void **state)
{
    static const enum small_model_format formats[] = {SMALL_MODEL_TORCH};
    struct engine_model *first = model;
    struct engine_job job = a_job();
    uint32_t expected = sum_of(&job);
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
        char *path = small_model_write(&(struct small_model){.format = formats[i]});

        check(engine_model_load(&model, engine, path, NULL, &err), &err);
        assert_int_equal(sum_of(&job), expected);
        engine_model_free(model);
        model = first;
        unlink(path);
        free(path);
    }
}

/* Every name draws in both dialects, and (but for two spellings of one method) another picture. */
static void test_every_sampler_draws(void **state)
{
    uint32_t sums[2 * SAMPLER_COUNT];
    unsigned count = 0, same = 0;

    (void)state;
    for (int i = 0; i < SAMPLER_COUNT; i++)
        for (int d = 0; d < 2; d++) {
            struct engine_job job = a_job();

            job.sampler = sampler_name((enum sampler)i);
            job.scheduler = "automatic";
            job.dialect = dialect_name((enum dialect)d);
            job.steps = 6;
            sums[count] = sum_of(&job);
            for (unsigned k = 0; k < count; k++)
                same += sums[k] == sums[count];
            count++;
        }
    assert_true(same <=
                2); /* of six steps Restart's are Heun's, but for the schedule */
}

static void test_every_schedule_draws(void **state)
{
    (void)state;
    for (int i = 0; i < SCHEDULER_COUNT; i++)
        for (int d = 0; d < 2; d++)
            for (int steps = 1; steps <= 7; steps += 3) {
                struct engine_job job = a_job();

                job.sampler = "dpm2";
                job.scheduler = scheduler_name((enum scheduler)i);
                job.dialect = dialect_name((enum dialect)d);
                job.steps = steps;
                (void)sum_of(&job);
            }
}

static void test_every_field_counts(void **state)
{
    struct engine_job base = a_job(), job;
    uint32_t sum = sum_of(&base);

    (void)state;
#define COUNTS(field, value)                                                           \
    job = base;                                                                        \
    job.field = value;                                                                 \
    assert_int_not_equal(sum_of(&job), sum)
    COUNTS(negative_prompt, "blue");
    COUNTS(steps, 4);
    COUNTS(cfg_scale, 3);
    COUNTS(cfg_scale, 1);
    COUNTS(sampler, "euler_a");
    COUNTS(scheduler, "normal"); /* the default sampler's label no longer sets it */
    COUNTS(rng, "cpu");
    COUNTS(dialect, "comfy");
    COUNTS(prediction, "v");
    job = base; /* SDXL alone is told sizes */
    job.sizes[0] = 1;
    assert_int_equal(sum_of(&job), sum);
    base.sampler = "euler";
    sum = sum_of(&base);
    COUNTS(s_churn, 5);
    base.sampler = "euler_a";
    base.scheduler = "karras";
    sum = sum_of(&base);
    COUNTS(eta, 0.5);
    COUNTS(rho, 3);
    COUNTS(s_min_uncond, 100);
    COUNTS(s_noise, 1.1);
    COUNTS(ensd, 31337);
    COUNTS(scheduler, "automatic");
    base.sampler = "dpmpp_sde";
    sum = sum_of(&base);
    COUNTS(r, 0.3);
    COUNTS(rng, "cpu"); /* the Brownian path's too */
    base = a_job();
    sum = sum_of(&base);
    COUNTS(width, 40);
#undef COUNTS
    job = base; /* at scale 1 the negative prompt plays no part */
    job.cfg_scale = 1;
    sum = sum_of(&job);
    job.negative_prompt = "blue";
    assert_int_equal(sum_of(&job), sum);
}

/* Below that level every second run is the prompt's alone; above it, and in the first run, nothing is left out. */
static void test_leaves_the_negative_prompt_out(void **state)
{
    struct engine_job job = a_job();
    uint32_t whole, first;

    (void)state;
    whole = sum_of(&job);
    job.s_min_uncond = 0.001;
    assert_int_equal(sum_of(&job), whole);
    job.s_min_uncond = 100;
    assert_int_not_equal(sum_of(&job), whole);
    job.steps = 1;
    first = sum_of(&job);
    job.s_min_uncond = 0;
    assert_int_equal(sum_of(&job), first);
    job.cfg_scale = 1; /* there is nothing to leave out */
    first = sum_of(&job);
    job.s_min_uncond = 100;
    assert_int_equal(sum_of(&job), first);
}

static void expect_parameters(const struct engine_job *job, const char *expected)
{
    struct seen seen = {0};
    struct err err = {0};

    check(draw(job, &seen, &err), &err);
    if (!strstr(seen.parameters, expected))
        fail_msg("'%s' lacks '%s'", seen.parameters, expected);
}

/* what is not as it would be by itself is told, and nothing else */
static void test_tells_of_the_sampling(void **state)
{
    struct engine_job job = a_job();

    (void)state;
    job.steps = 1;
    job.sampler = "euler_a";
    job.scheduler = "karras";
    job.eta = 1;
    expect_parameters(&job, "Size: 32x32, Model: small one, RNG: NV");
    job.eta = 0.5;
    job.ensd = 31337;
    job.s_noise = 1.1;
    job.s_min_uncond = 2;
    job.rho = 5;
    expect_parameters(&job, ", Eta: 0.5, ENSD: 31337, Sigma noise: 1.1, NGMS: 2, "
                            "Schedule rho: 5, RNG: NV");
    job = a_job();
    job.steps = 1;
    job.sampler = "ddim";
    job.dialect = "comfy"; /* which knows no ENSD */
    job.eta = 0.25;
    job.ensd = 5;
    expect_parameters(&job, ", Eta DDIM: 0.25, RNG: NV");
}

static void test_draws_a_seed(void **state)
{
    struct engine_job job = a_job();
    struct seen first = {0}, second = {0};
    struct err err = {0};

    (void)state;
    job.seed = -1;
    job.steps = 1;
    check(draw(&job, &first, &err), &err);
    check(draw(&job, &second, &err), &err);
    assert_true(first.seeds[0] >= 0 && first.seeds[0] <= UINT32_MAX);
    assert_int_not_equal(first.seeds[0], second.seeds[0]);
}

static void test_ends_early(void **state)
{
    struct engine_job job = a_job();
    struct seen seen = {.cancel_after = 1};
    struct err err = {0};

    (void)state;
    /* wherever it is cancelled: the next question is not asked, no picture comes */
    for (int after = 1; after < 900; after = after * 3 + 1) {
        seen = (struct seen){.cancel_after = after};
        err = (struct err){0};
        assert_int_equal(draw(&job, &seen, &err), -1);
        assert_int_equal(err.code, ERR_CANCELLED);
        assert_int_equal(seen.asked, after + 1);
        assert_int_equal(seen.images, 0);
    }
    seen = (struct seen){.refuses = true};
    err = (struct err){0};
    job.count = 2;
    assert_int_equal(draw(&job, &seen, &err), -1);
    assert_int_equal(err.code, ERR_STORAGE);
    assert_int_equal(seen.images, 1);
}

struct progress {
    double last;
    int asked, most;
};

static bool on_progress(void *user, double progress)
{
    struct progress *p = user;

    assert_true(progress >= p->last && progress <= 1);
    p->last = progress;
    return ++p->asked > p->most;
}

/* Before each weight, not once per network. */
static void test_load_ends_early(void **state)
{
    char *path = small_model_write(&(struct small_model){0});
    struct engine_model *other;
    int all = 0;

    (void)state;
    for (int most = INT_MAX; most > 0; most = all ? (most < all ? most : all) / 2 : 0) {
        struct progress p = {.most = most};
        struct engine_load_events events = {.on_progress = on_progress, .user = &p};
        struct err err = {0};
        int result = engine_model_load(&other, engine, path, &events, &err);

        if (most < all || result) {
            assert_int_equal(result, -1);
            assert_int_equal(err.code, ERR_CANCELLED);
            assert_int_equal(p.asked, most + 1);
            continue;
        }
        all = p.asked;
        assert_true(all > 50 && p.last == 1);
        engine_model_free(other);
    }
    unlink(path);
    free(path);
}

static void test_weights(void **state)
{
    static const struct {
        const char *backend, *weights, *words;
    } refused[] = {{"ref", "int8", "'ref' has no int8 weights"},
                   {NULL, "int4", "no weights 'int4': auto and int8 are known"}};
    struct engine *other;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct engine_options options = {.backend = refused[i].backend,
                                         .weights = refused[i].weights};
        struct err err = {0};

        assert_int_equal(engine_open(&other, &options, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_string_equal(err.param, "weights");
        if (!strstr(err.message, refused[i].words))
            fail_msg("%s", err.message);
    }
    check(engine_open(&other,
                      &(struct engine_options){.backend = "ref", .weights = "auto"},
                      NULL),
          NULL);
    engine_close(other);
}

static void test_no_numbers(void **state)
{
    char *path = small_model_write(
        &(struct small_model){.broken = "first_stage_model.decoder.conv_out.bias"});
    struct engine_model *good = model;
    struct engine_job job;
    struct seen seen = {0};
    struct err err = {0};

    (void)state;
    check(engine_model_load(&model, engine, path, NULL, &err), &err);
    job = a_job();
    job.width = job.height = 32;
    job.steps = 1;
    assert_int_equal(draw(&job, &seen, &err), -1);
    assert_int_equal(err.code, ERR_INTERNAL);
    assert_non_null(strstr(err.message, "not a number"));
    assert_int_equal(seen.images, 0);
    engine_model_free(model);
    model = good;
    unlink(path);
    free(path);
}

/* ---- seamless ---- */

/* A picture of the decoder's, from z [4, 4, 4] shifted by so many columns. */
static float *decoded(const float *z, int shift, int seamless)
{
    struct picture_size size = {.width = 32, .height = 32, .seamless = seamless};
    struct graph *g = checkpoint_decode_graph(model->checkpoint, &size);
    const struct backend_ops *ops = engine->backend->ops;
    float *shifted = aligned_alloc(64, 4 * 4 * 4 * sizeof(float));
    float *picture = aligned_alloc(64, 32 * 32 * 3 * sizeof(float));
    struct program_run how = {.inputs = (void *[]){shifted},
                              .outputs = (void *[]){picture}};
    struct program *program;
    struct err err = {0};

    for (int i = 0; i < 4 * 4 * 4; i++)
        shifted[i / 16 * 16 + (i % 16 + 4 * shift) % 16] = z[i];
    check(ops->compile(engine->backend, g, model->store, &program, &err), &err);
    check(ops->load(program, NULL, &err), &err);
    how.arena = aligned_alloc(64, program->arena_bytes + 64);
    check(ops->run(program, &how, &err), &err);
    ops->program_free(program);
    graph_free(g);
    free(how.arena);
    free(shifted);
    return picture;
}

/* The largest difference between a picture, turned by 8 pixels, and that of the latent that was turned by one column. */
static double turning_changes(int seamless)
{
    float z[4 * 4 * 4], *straight, *turned;
    double largest = 0;

    for (int i = 0; i < 4 * 4 * 4; i++)
        z[i] = (float)((i * 2654435761U >> 12) % 1000) / 500 - 1;
    straight = decoded(z, 0, seamless);
    turned = decoded(z, 1, seamless);
    for (int i = 0; i < 32 * 32 * 3; i++) {
        int to = i / 96 * 96 + (i % 96 + 24) % 96;

        largest = fmax(largest, fabs((double)(straight[i] - turned[to])));
    }
    free(straight);
    free(turned);
    return largest;
}

/* A picture without a left border can be turned: nothing in it knows where it began. */
static void test_seamless(void **state)
{
    struct engine_job job = a_job();
    struct engine_estimate plain, wrapped;
    struct err err = {0};
    int sides = -1;

    (void)state;
    assert_true(turning_changes(ENGINE_SEAMLESS_X) < 1e-4);
    assert_true(turning_changes(ENGINE_SEAMLESS_X | ENGINE_SEAMLESS_Y) < 1e-4);
    assert_true(turning_changes(0) > 1e-2);
    assert_true(turning_changes(ENGINE_SEAMLESS_Y) > 1e-2);
    check(engine_seamless_parse("Both", &sides, &err), &err);
    assert_int_equal(sides, ENGINE_SEAMLESS_X | ENGINE_SEAMLESS_Y);
    assert_int_equal(engine_seamless_parse("sideways", &sides, &err), -1);
    assert_non_null(strstr(err.message, "none, x, y and both"));
    check(engine_estimate(model, &job, &plain, &err), &err);
    job.seamless = sides;
    check(engine_estimate(model, &job, &wrapped, &err), &err);
    assert_true(wrapped.peak_bytes > plain.peak_bytes); /* the borders are copies */
}

/* ---- memory ---- */

static void expect_estimate(const char *prompt, struct engine_estimate small)
{
    struct engine_job job = a_job();
    struct engine_estimate large;
    struct err err = {0};

    job.prompt = prompt;
    job.width = job.height = 256;
    job.steps = 1;
    check(engine_estimate(model, &job, &large, &err), &err);
    assert_int_equal(small.resident_bytes, large.resident_bytes);
    assert_true(large.peak_bytes > small.peak_bytes);
    expect_growth(&job);
}

static void test_estimate(void **state)
{
    struct engine_job job = a_job();
    struct engine_estimate small;
    struct err err = {0};

    (void)state;
    check(engine_estimate(model, &job, &small, &err), &err);
    expect_estimate("a boat", small);
    expect_estimate("a boat AND [a house|a tree] AND the sea :0.5", small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_refuses_other_models),
        cmocka_unit_test(test_job_checks),
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_formats_draw_alike),
        cmocka_unit_test(test_every_sampler_draws),
        cmocka_unit_test(test_every_schedule_draws),
        cmocka_unit_test(test_every_field_counts),
        cmocka_unit_test(test_leaves_the_negative_prompt_out),
        cmocka_unit_test(test_tells_of_the_sampling),
        cmocka_unit_test(test_draws_a_seed),
        cmocka_unit_test(test_ends_early),
        cmocka_unit_test(test_load_ends_early),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_no_numbers),
        cmocka_unit_test(test_seamless),
        cmocka_unit_test(test_estimate),
    };

    return cmocka_run_group_tests(tests, set_up, small_engine_tear_down);
}

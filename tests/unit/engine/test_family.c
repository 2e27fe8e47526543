/* What a file is told to be by its tensors: the family, what the U-Net predicts, the defaults that follow, what is refused
 * as no part of it. That it then computes the right thing is tests/golden/test_families.c. */
#include "engine/family.h"

#include "small_engine.h"
#include "unit.h"

#include <string.h>
#include <unistd.h>

#define BIAS "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"

static int set_up(void **state)
{
    (void)state;
    small_engine_open();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    engine_close(engine);
    return 0;
}

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    uint32_t *sum = user;

    (void)err;
    *sum = 2166136261U;
    for (int i = 0; i < image->width * image->height * 3; i++)
        *sum = (*sum ^ image->rgb[i]) * 16777619U;
    return true;
}

static struct engine_job a_job(const char *dialect)
{
    struct engine_job job;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.negative_prompt = "blue";
    job.width = job.height = 32;
    job.steps = 4;
    job.seed = 1;
    job.dialect = dialect;
    return job;
}

static uint32_t sum_of(const struct engine_job *job)
{
    uint32_t sum = 0;
    struct engine_events events = {.on_image = on_image, .user = &sum};
    struct err err = {0};

    check(engine_generate(model, job, &events, &err), &err);
    return sum;
}

static void expect_info(const struct small_model *what, const char *family,
                        const char *prediction, int side)
{
    struct engine_model_info info;

    model = small_engine_load(what);
    engine_model_info(model, &info);
    assert_string_equal(info.family, family);
    assert_string_equal(info.prediction, prediction);
    assert_int_equal(info.default_width, side);
    assert_int_equal(info.default_height, side);
    engine_model_free(model);
    model = NULL;
}

static void test_sd1(void **state)
{
    (void)state;
    expect_info(&(struct small_model){0}, "sd1", "eps", 512);
    expect_info(&(struct small_model){.extra = "v_pred"}, "sd1", "v", 512);
    expect_info(&(struct small_model){.listing = SMALL_TINY_TENSORS}, "sd1", "eps",
                512);
}

/* The model for 768 pixels predicts v, and that norm is what shows it. */
/* The U-Net reads a mask and a second latent: the family is what its text encoder says. */
static void test_inpainting(void **state)
{
    struct engine_job job;

    (void)state;
    expect_info(&(struct small_model){.listing = SMALL_INPAINT_TENSORS}, "sd1", "eps",
                512);
    model = small_engine_load(&(struct small_model){.listing = SMALL_INPAINT_TENSORS});
    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = job.height = 256;
    job.steps = 1;
    expect_growth(&job);
    /* drawn once more, larger: from the latent, and from the picture */
    job = a_job("a1111");
    job.hires.scale = 1.5;
    for (int i = 0; i < 2; i++) {
        job.hires.upscaler = i ? "lanczos" : "latent";
        assert_int_not_equal(sum_of(&job), 0);
    }
    engine_model_free(model);
    model = NULL;
}

/* Guidance is built in: few steps by default, and the negative prompt plays no part, the scale does. */
static void test_lcm(void **state)
{
    struct engine_model_info info;
    struct engine_job job;
    uint32_t usual;

    (void)state;
    model = small_engine_load(&(struct small_model){.listing = SMALL_LCM_TENSORS});
    engine_model_info(model, &info);
    assert_string_equal(info.family, "sd1");
    assert_int_equal(info.default_steps, 4);
    assert_string_equal(info.default_sampler, "lcm");
    job = a_job("a1111");
    usual = sum_of(&job);
    job.negative_prompt = "a house";
    assert_int_equal(sum_of(&job), usual);
    job.cfg_scale = 3;
    assert_int_not_equal(sum_of(&job), usual);
    engine_model_free(model);
    model = NULL;
}

static void test_sd2(void **state)
{
    static const char *const said[][2] = {
        {"\"mysti.prediction\":\"eps\"", "eps"},
        {"\"mysti.prediction\":\"v\"", "v"},
        {"\"modelspec.prediction_type\":\"epsilon\"", "eps"},
        {"\"modelspec.prediction_type\":\"x0\"", "v"}};

    (void)state;
    expect_info(&(struct small_model){.listing = SMALL_SD2_TENSORS}, "sd2", "v", 768);
    expect_info(&(struct small_model){.listing = SMALL_SD2_TENSORS, .zeroed = BIAS},
                "sd2", "eps", 512);
    for (size_t i = 0; i < sizeof(said) / sizeof(*said); i++)
        expect_info(
            &(struct small_model){.listing = SMALL_SD2_TENSORS, .metadata = said[i][0]},
            "sd2", said[i][1], said[i][1][0] == 'v' ? 768 : 512);
}

static void test_sdxl(void **state)
{
    (void)state;
    expect_info(&(struct small_model){.listing = SMALL_SDXL_TENSORS}, "sdxl", "eps",
                1024);
    expect_info(&(struct small_model){.listing = SMALL_SDXL_TENSORS, .extra = "v_pred"},
                "sdxl", "v", 1024);
}

static void expect_refused(const struct small_model *what, const char *sentence)
{
    char *path = small_model_write(what);
    struct err err = {0};

    assert_int_equal(engine_model_load(&model, engine, path, NULL, &err), -1);
    if (err.code != ERR_BAD_FILE || !strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    model = NULL;
    unlink(path);
    free(path);
}

static void test_refuses(void **state)
{
#define TEXT "cond_stage_model.model."
    static const struct {
        struct small_model what;
        const char *sentence;
    } cases[] = {
        {{.extra = "edm_mean"}, "EDM"},
        {{.listing = SMALL_TINY_TENSORS,
          .extra = "model.diffusion_model.middle_block.0.in_layers.0.bias"},
         "middle_block.0.in_layers.0.bias is not part of a model of the SD 1.x family"},
        {{.listing = SMALL_TINY_TENSORS,
          .without_prefix = "model.diffusion_model.output_blocks.4.0."},
         "more than output blocks"},
        {{.listing = SMALL_INPAINT_TENSORS,
          .without_prefix = "first_stage_model.encoder."},
         "made for inpainting, which needs an encoder"},
        {{.listing = SMALL_SD2_TENSORS, .without = TEXT "positional_embedding"},
         TEXT "positional_embedding is missing"},
        {{.listing = SMALL_SD2_TENSORS,
          .without = TEXT "transformer.resblocks.1.attn.in_proj_weight"},
         TEXT "transformer.resblocks.1.attn.in_proj_weight is missing"},
        {{.listing = SMALL_SD2_TENSORS,
          .doubled = TEXT "transformer.resblocks.1.attn.in_proj_weight"},
         "resblocks.1.attn"},
        {{.listing = SMALL_SD2_TENSORS,
          .extra = TEXT "transformer.resblocks.1.attn.out_proj.lora"},
         "is not part of a model of the SD 2.x family"},
        {{.listing = SMALL_SD2_TENSORS,
          .without_prefix = TEXT "transformer.resblocks."},
         TEXT "transformer.resblocks.0.ln_1.weight is missing"},
        {{.listing = SMALL_SDXL_TENSORS,
          .without_prefix = "conditioner.embedders.1.model.token_embedding"},
         "refiner"},
        {{.listing = SMALL_SDXL_TENSORS,
          .without_prefix = "conditioner.embedders.0.transformer"},
         "tensor conditioner.embedders.0.transformer.text_model.embeddings.token_"
         "embedding.weight is missing"},
        {{.listing = SMALL_SDXL_TENSORS,
          .without = "conditioner.embedders.1.model.text_projection"},
         "conditioner.embedders.1.model.text_projection is missing"},
        {{.listing = SMALL_SDXL_TENSORS,
          .doubled = "conditioner.embedders.1.model.text_projection"},
         "does not fit a text encoder of 128 channels"},
        {{.listing = SMALL_SDXL_TENSORS,
          .without_prefix = "model.diffusion_model.label_emb"},
         "is told 0 numbers beside the text"},
        {{.listing = SMALL_SDXL_TENSORS,
          .doubled_prefix = "model.diffusion_model.label_emb.0.2."},
         "label_emb.0.2.weight makes 512 numbers, the time embedding has 256"},
        {{.listing = SMALL_SDXL_TENSORS,
          .without = "model.diffusion_model.label_emb.0.2.bias"},
         "label_emb.0.2.bias is missing"},
    };
#undef TEXT

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        expect_refused(&cases[i].what, cases[i].sentence);
}

/* ---- clip skip ---- */

static uint32_t sum_with(int clip_skip, const char *dialect)
{
    struct engine_job job = a_job(dialect);

    job.clip_skip = clip_skip;
    return sum_of(&job);
}

/* Models that predict v often end in noise alone: another schedule, another picture. */
static void test_ends_in_noise(void **state)
{
    struct small_model what = {.listing = SMALL_TINY_TENSORS,
                               .metadata = "\"mysti.prediction\":\"v\""};
    struct engine_job job;
    uint32_t usual;

    (void)state;
    model = small_engine_load(&what);
    job = a_job("a1111");
    usual = sum_of(&job);
    engine_model_free(model);
    what.extra = "ztsnr";
    model = small_engine_load(&what);
    assert_int_not_equal(sum_of(&job), usual);
    engine_model_free(model);
    model = NULL;
}

/* SD 2.x never reads the last layer. A1111 leaves it at that, ComfyUI goes further back when it is told to. */
static void test_clip_skip(void **state)
{
    uint32_t usual;

    (void)state;
    model = small_engine_load(&(struct small_model){.listing = SMALL_SD2_TENSORS});
    usual = sum_with(0, "a1111");
    assert_int_equal(sum_with(1, "a1111"), usual);
    assert_int_equal(sum_with(3, "a1111"), usual);
    usual = sum_with(0, "comfy");
    assert_int_equal(sum_with(1, "comfy"), usual);
    assert_int_equal(sum_with(2, "comfy"), usual);
    assert_int_not_equal(sum_with(3, "comfy"), usual);
    engine_model_free(model);
    model = NULL;
}

/* ---- what SDXL alone has ---- */

static int load_sdxl(void **state)
{
    (void)state;
    model = small_engine_load(&(struct small_model){.listing = SMALL_SDXL_TENSORS});
    return 0;
}

static int unload(void **state)
{
    (void)state;
    engine_model_free(model);
    model = NULL;
    return 0;
}

/* Every text's summary is kept and told with it: what never changes is the plain prompt's picture, what changes is not. */
static void test_changing_prompts(void **state)
{
    struct engine_job job = a_job("a1111");
    uint32_t boat = sum_of(&job), house;

    (void)state;
    job.prompt = "a house";
    house = sum_of(&job);
    assert_int_not_equal(house, boat);
    job.prompt = "[a boat:a house:1.0]";
    assert_int_equal(sum_of(&job), boat);
    job.prompt = "[a boat:a house:0]";
    assert_int_equal(sum_of(&job), house);
    job.prompt = "[a boat|a house]";
    assert_int_not_equal(sum_of(&job), boat);
    assert_int_not_equal(sum_of(&job), house);
    job.prompt = "(a:1.0) boat AND a house :0";
    assert_int_equal(sum_of(&job), boat);
}

/* A1111 says nothing where nothing is said; ComfyUI says what the encoders make of "". */
static void test_silence(void **state)
{
    struct engine_job job = a_job("a1111"), spaces;
    uint32_t nothing;

    (void)state;
    job.negative_prompt = "";
    spaces = job;
    spaces.negative_prompt = " "; /* the same ids */
    nothing = sum_of(&job);
    assert_int_not_equal(nothing, sum_of(&spaces));
    job.prompt = "[a boat:a house:1.0]";
    assert_int_equal(sum_of(&job), nothing);
    job.negative_prompt = "[:blue:1.0]";
    assert_int_equal(sum_of(&job), nothing);
    job = a_job("comfy");
    job.negative_prompt = "";
    spaces.dialect = "comfy";
    assert_int_equal(sum_of(&job), sum_of(&spaces));
}

/* Left out they are the picture's own, not cropped; each of them counts. */
static void test_sizes(void **state)
{
    const int own[ENGINE_SIZES] = {32, 32, 0, 0, 32, 32};
    struct engine_job job = a_job("a1111");
    uint32_t usual = sum_of(&job);

    (void)state;
    memcpy(job.sizes, own, sizeof(own));
    assert_int_equal(sum_of(&job), usual);
    for (int i = 0; i < ENGINE_SIZES; i++) {
        memcpy(job.sizes, own, sizeof(own));
        job.sizes[i] = 700;
        assert_int_not_equal(sum_of(&job), usual);
    }
}

static void test_weights_and_lengths(void **state)
{
    struct engine_job job = a_job("a1111");
    uint32_t plain = sum_of(&job);

    (void)state;
    job.prompt = "a (boat:1.3)";
    assert_int_not_equal(sum_of(&job), plain);
    job.prompt = "a boat BREAK a boat"; /* attending twice is attending once */
    assert_int_not_equal(sum_of(&job), 0);
    job = a_job("comfy");
    plain = sum_of(&job);
    job.prompt = "a (boat:1.3)";
    assert_int_not_equal(sum_of(&job), plain);
    assert_int_equal(sum_with(2, "comfy"), plain);
}

/* Every way to draw when memory is short; the exact ones draw the same picture. */
static void expect_ways(const char *listing, int side)
{
    struct engine_job job;
    struct engine_estimate e;
    struct err err = {0};
    uint32_t whole;
    int ways = 0;

    model = small_engine_load(&(struct small_model){.listing = listing});
    job = a_job("a1111");
    job.width = job.height = side;
    job.steps = 1;
    whole = sum_of(&job);
    for (;; ways++) {
        uint64_t growth;

        check(engine_estimate(model, &job, &e, &err), &err);
        growth = e.peak_bytes - e.resident_bytes;
        if (job.budget_bytes && growth > job.budget_bytes)
            break;
        job.budget_bytes = growth;
        if (strstr(e.way, "tiles"))
            assert_int_not_equal(sum_of(&job), whole);
        else
            assert_int_equal(sum_of(&job), whole);
        job.budget_bytes = growth / 100 * 98;
    }
    assert_in_range(ways, 2, 5);
    engine_model_free(model);
    model = NULL;
}

static void test_ways(void **state)
{
    (void)state;
    expect_ways(SMALL_SDXL_TENSORS, 288);
    expect_ways(SMALL_INPAINT_TENSORS, 288);
}

static void test_memory(void **state)
{
    struct engine_job job = a_job("a1111");

    (void)state;
    job.width = job.height = 256;
    job.steps = 1;
    expect_growth(&job);
    job.prompt = "a boat AND [a house|a tree] AND the sea :0.5";
    expect_growth(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sd1),
        cmocka_unit_test(test_inpainting),
        cmocka_unit_test(test_lcm),
        cmocka_unit_test(test_sd2),
        cmocka_unit_test(test_sdxl),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_ends_in_noise),
        cmocka_unit_test(test_clip_skip),
        cmocka_unit_test(test_ways),
        cmocka_unit_test_setup_teardown(test_changing_prompts, load_sdxl, unload),
        cmocka_unit_test_setup_teardown(test_silence, load_sdxl, unload),
        cmocka_unit_test_setup_teardown(test_sizes, load_sdxl, unload),
        cmocka_unit_test_setup_teardown(test_weights_and_lengths, load_sdxl, unload),
        cmocka_unit_test_setup_teardown(test_memory, load_sdxl, unload),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

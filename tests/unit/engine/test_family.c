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
    };
#undef TEXT

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        expect_refused(&cases[i].what, cases[i].sentence);
}

/* ---- clip skip ---- */

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    uint32_t *sum = user;

    (void)err;
    *sum = 2166136261U;
    for (int i = 0; i < image->width * image->height * 3; i++)
        *sum = (*sum ^ image->rgb[i]) * 16777619U;
    return true;
}

static uint32_t sum_with(int clip_skip, const char *dialect)
{
    struct engine_job job;
    struct engine_events events = {.on_image = on_image};
    struct err err = {0};
    uint32_t sum = 0;

    engine_job_defaults(model, &job);
    job.prompt = "a boat";
    job.width = job.height = 32;
    job.steps = 1;
    job.seed = 1;
    job.dialect = dialect;
    job.clip_skip = clip_skip;
    events.user = &sum;
    check(engine_generate(model, &job, &events, &err), &err);
    return sum;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sd1),
        cmocka_unit_test(test_sd2),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_clip_skip),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

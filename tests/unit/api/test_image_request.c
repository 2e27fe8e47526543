#include "unit.h"

#include "server/api/image_request.h"

static const struct image_limits limits = {
    .max_side = 2048, .max_count = 10, .max_steps = 150};

static int parse(const char *body, struct image_ask *ask, struct err *err)
{
    return image_ask_parse(body, strlen(body), &limits, ask, err);
}

static void what_is_left_open_stays_open(void **state)
{
    struct image_ask ask = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(
        parse("{\"prompt\":\"a boat\",\"unknown\":{\"a\":[1]}}", &ask, &err), 0);
    assert_string_equal(ask.request.prompt, "a boat");
    assert_null(ask.request.negative_prompt);
    assert_null(ask.request.sampler);
    assert_null(ask.request.scheduler);
    assert_null(ask.model);
    assert_int_equal(ask.request.width, 0);
    assert_int_equal(ask.request.steps, 0);
    assert_int_equal(ask.request.count, 1);
    assert_int_equal(ask.request.seed, -1);
    assert_true(ask.request.cfg_scale < 0);
    assert_int_equal(ask.delivery, IMAGE_AS_BASE64);
    assert_false(ask.stream);
    image_ask_release(&ask);
}

static void null_is_absent_and_whole_floats_are_whole(void **state)
{
    struct image_ask ask = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(parse("{\"prompt\":\"a\",\"n\":null,\"steps\":20.0,\"seed\":0,"
                           "\"size\":null,\"model\":\"\",\"stream\":null}",
                           &ask, &err),
                     0);
    assert_int_equal(ask.request.steps, 20);
    assert_int_equal(ask.request.seed, 0);
    assert_null(ask.model);
    image_ask_release(&ask);
}

static void a_label_may_carry_its_scheduler(void **state)
{
    static const char *const cases[][3] = {
        {"\"sampler\":\"DPM++ 2M Karras\"", "dpmpp_2m", "karras"},
        {"\"sampler\":\"dpm++2m\"", "dpmpp_2m", NULL},
        {"\"sampler_name\":\"EULER A\"", "euler_a", NULL},
        {"\"sampler\":\"DPM++ 2M Karras\",\"scheduler\":\"normal\"", "dpmpp_2m",
         "normal"},
        {"\"sampler\":\"DPM++ 2M Karras\",\"scheduler\":\"Automatic\"", "dpmpp_2m",
         "karras"},
        {"\"scheduler\":\"discrete\"", NULL, "normal"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct image_ask ask = {0};
        struct err err = {0};
        char body[200];

        snprintf(body, sizeof(body), "{\"prompt\":\"a\",%s}", cases[i][0]);
        assert_int_equal(parse(body, &ask, &err), 0);
        for (int k = 0; k < 2; k++) {
            const char *got = k ? ask.request.scheduler : ask.request.sampler;

            if (cases[i][k + 1])
                assert_string_equal(got, cases[i][k + 1]);
            else
                assert_null(got);
        }
        image_ask_release(&ask);
    }
}

static void sentences_name_field_rule_and_value(void **state)
{
    static const char *const cases[][3] = {
        {"{\"prompt\":\"a\",\"steps\":\"many\"}", "steps",
         "steps must be a whole number from 1 to 150, not \"many\""},
        {"{\"prompt\":\"a\",\"n\":{\"a\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}}",
         "n",
         "n must be a whole number from 1 to 10, not "
         "{\"a\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16..."},
        {"{\"prompt\":\"a\",\"seed\":[1,2],\"n\":3}", "seed",
         "seed has 2 numbers: one for each of 3 pictures is expected"},
        {"{\"prompt\":\"a\",\"seed\":[]}", "seed",
         "seed has 0 numbers: one for each of 1 to 10 pictures is expected"},
        {"{\"prompt\":\"a\",\"seed\":[1,-1]}", "seed",
         "seed must be whole numbers from 0 to 4294967295, not -1"},
        {"{\"prompt\":\"a\",\"seed\":\"1\"}", "seed",
         "seed must be a whole number from -1 to 4294967295, not \"1\""},
        {"{\"prompt\":\"a\",\"variation_strength\":1.5}", "variation_strength",
         "variation_strength must be a number from 0 to 1, not 1.5"},
        {"{\"prompt\":\"a\",\"hires\":2}", "hires",
         "hires must be an object, such as {\"scale\": 2}"},
        {"{\"prompt\":\"a\",\"hires\":{\"scale\":9}}", "hires",
         "hires: scale must be a number from 1 to 8, not 9"},
        {"{\"prompt\":\"a\",\"hires\":{\"scale\":2,\"width\":128}}", "hires",
         "hires: it has a scale and a size: send one of the two"},
        {"{\"prompt\":\"a\",\"hires\":{\"width\":100}}", "hires",
         "hires: width must be a multiple of 8, not 100: 96 and 104 are the nearest"},
        {"{\"prompt\":\"a\",\"hires\":{\"upscaler\":\"../x\"}}", "hires",
         "hires: upscaler must be latent, latent-nearest, lanczos, nearest or "
         "the name of a file in the upscaler folder, not a path to somewhere else"},
        {"{\"prompt\":\"a\",\"vae\":\"../x\"}", "vae",
         "vae must be automatic, none or the name of a file in the VAE folder, not a path to "
         "somewhere else"},
        {"{\"prompt\":\"a\",\"vae\":3}", "vae", "vae must be a text, not 3"},
        {"{\"prompt\":\"a\",\"size\":\"\\u00fc\"}", "size",
         "size must be WIDTHxHEIGHT, such as 512x512, or auto, not \"\\u00FC\""},
        {"{\"prompt\":\"a\",\"width\":2056}", "width",
         "width must be from 64 to 2048 pixels, not 2056"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct image_ask ask = {0};
        struct err err = {0};

        assert_int_equal(parse(cases[i][0], &ask, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_string_equal(err.param, cases[i][1]);
        assert_string_equal(err.message, cases[i][2]);
        assert_null(ask.request.prompt);
    }
}

/* What is kept of a job on disk is all of it. */
static void a_request_survives_the_disk(void **state)
{
    static const char body[] =
        "{\"prompt\":\"a "
        "boat\",\"negative_prompt\":\"rain\",\"size\":\"128x64\",\"n\":2,"
        "\"steps\":7,\"cfg_scale\":3.5,\"seed\":5,\"sampler\":\"DPM++ SDE "
        "Karras\",\"dialect\":\"comfy\",\"rng\":\"cpu\",\"eta\":0,\"s_churn\":3,"
        "\"s_tmin\":0.1,\"s_tmax\":9,\"s_noise\":1.003,\"r\":0.4,\"ensd\":31337,"
        "\"s_min_uncond\":1.5,\"rho\":5,\"vae_tiling\":true,"
        "\"prediction\":\"v\",\"original_height\":1536,\"original_width\":1024,"
        "\"crop_top\":0,\"crop_left\":64,\"target_height\":128,\"target_width\":96,"
        "\"vae\":\"new/"
        "ft-mse\",\"clip_skip\":2,\"seamless\":\"x\",\"variation_strength\":0.25,"
        "\"variation_"
        "seed\":9,"
        "\"hires\":{\"width\":256,\"height\":128,\"upscaler\":\"4x\",\"steps\":3,"
        "\"strength\":0.5}}";
    struct image_ask ask;
    struct image_request again;
    struct err err = {0};

    (void)state;
    assert_int_equal(parse(body, &ask, &err), 0);
    json_t *kept = image_request_json(&ask.request);
    assert_int_equal(image_request_from_json(kept, &again, &err), 0);
    json_t *twice = image_request_json(&again);

    assert_true(json_equal(kept, twice));
    assert_int_equal(json_object_size(kept), 7 + 1 + 4 + 6 + 3 + 2 + 2 + 1 + 1 + 7 + 1);
    assert_string_equal(again.sampler, "dpmpp_sde");
    assert_string_equal(again.scheduler, "karras");
    assert_true(again.eta == 0 && again.r == 0.4 && again.ensd == 31337);
    assert_true(again.s_min_uncond == 1.5 && again.rho == 5 && again.vae_tiling);
    assert_int_equal(again.clip_skip, 2);
    assert_string_equal(again.seamless, "x");
    assert_string_equal(again.prediction, "v");
    assert_string_equal(again.vae, "new/ft-mse");
    assert_int_equal(again.sizes[0], 1536);
    assert_int_equal(again.sizes[3], 64);
    assert_true(again.variation_strength == 0.25 && again.variation_seed == 9);
    assert_true(again.hires.width == 256 && again.hires.height == 128);
    assert_true(again.hires.steps == 3 && again.hires.strength == 0.5);
    assert_string_equal(again.hires.upscaler, "4x");
    json_decref(kept);
    json_decref(twice);
    image_request_release(&again);
    image_ask_release(&ask);
}

static void seeds_may_be_a_list(void **state)
{
    struct image_ask ask = {0};
    struct image_request again;
    struct err err = {0};

    (void)state;
    assert_int_equal(parse("{\"prompt\":\"a\",\"seed\":[7,4294967295,0]}", &ask, &err),
                     0);
    assert_int_equal(ask.request.count, 3);
    json_t *kept = image_request_json(&ask.request);
    assert_int_equal(image_request_from_json(kept, &again, &err), 0);
    assert_int_equal(again.seeds[0], 7);
    assert_int_equal(again.seeds[1], 4294967295);
    assert_int_equal(again.seeds[2], 0);
    json_decref(kept);
    image_request_release(&again);
    image_ask_release(&ask);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_left_open_stays_open),
        cmocka_unit_test(null_is_absent_and_whole_floats_are_whole),
        cmocka_unit_test(a_label_may_carry_its_scheduler),
        cmocka_unit_test(a_request_survives_the_disk),
        cmocka_unit_test(seeds_may_be_a_list),
        cmocka_unit_test(sentences_name_field_rule_and_value),
    };

    return RUN_TESTS(tests);
}

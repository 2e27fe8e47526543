/* The text exactly as AUTOMATIC1111's readers expect it. */
#include "engine/image/parameters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static void everything(void **state)
{
    const struct parameters p = {.prompt = "a boat,\nat night",
                                 .negative_prompt = "blurry: very",
                                 .steps = 20,
                                 .sampler = "DPM++ 2M",
                                 .scheduler = "Karras",
                                 .cfg_scale = 7.5,
                                 .seed = 4294967296,
                                 .width = 512,
                                 .height = 768,
                                 .model_hash = "abcdef1234",
                                 .model = "my, model: \"one\"",
                                 .rng = "NV",
                                 .version = "Mysti 0.1.0"};
    struct buf text = {0};

    (void)state;
    parameters_format(&p, &text);
    assert_string_equal(
        buf_str(&text),
        "a boat,\nat night\n"
        "Negative prompt: blurry: very\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: "
        "7.5, Seed: 4294967296, Size: 512x768, Model hash: abcdef1234, "
        "Model: \"my, model: \\\"one\\\"\", RNG: NV, Version: Mysti "
        "0.1.0");
    buf_release(&text);
}

static void the_least(void **state)
{
    const struct parameters p = {.prompt = "",
                                 .negative_prompt = "",
                                 .steps = 1,
                                 .cfg_scale = 7,
                                 .width = 8,
                                 .height = 8};
    struct buf text = {0};

    (void)state;
    parameters_format(&p, &text);
    assert_string_equal(buf_str(&text), "\nSteps: 1, CFG scale: 7, Seed: 0, Size: 8x8");
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything),
        cmocka_unit_test(the_least),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

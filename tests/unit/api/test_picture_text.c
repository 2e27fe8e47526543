#include "unit.h"

#include "server/store/parameters.h"

static void check(const char *text, const char *expected)
{
    json_t *params = parameters_parse(text);

    assert_non_null(params);
    json_object_del(params, "text");
    char *dump = json_dumps(params, JSON_COMPACT | JSON_SORT_KEYS);

    assert_string_equal(dump, expected);
    free(dump);
    json_decref(params);
}

static void the_three_parts(void **state)
{
    (void)state;
    check("a boat\nNegative prompt: rain\nSteps: 20, Sampler: Euler a, Schedule type: "
          "Karras, CFG scale: 7.5, Seed: 123, Size: 512x768, Model: m",
          "{\"cfg_scale\":7.5,\"height\":768,\"model\":\"m\",\"negative_prompt\":"
          "\"rain\","
          "\"prompt\":\"a boat\",\"sampler\":\"Euler a\",\"scheduler\":\"Karras\","
          "\"seed\":123,\"steps\":20,\"width\":512}");
    check("two\nlines\nNegative prompt: a\nb\n\nSteps: 1, Seed: 2, Size: 8x8\n",
          "{\"height\":8,\"negative_prompt\":\"a\\nb\",\"prompt\":\"two\\nlines\","
          "\"seed\":2,\"steps\":1,\"width\":8}");
    check("Steps: 1, Seed: 2, Size: 8x8",
          "{\"height\":8,\"seed\":2,\"steps\":1,\"width\":8}");
}

static void text_that_only_looks_like_it_is_prompt(void **state)
{
    (void)state;
    check("", "{}");
    check("Steps: 3, a boat", "{\"prompt\":\"Steps: 3, a boat\"}");
    check("one: two, three", "{\"prompt\":\"one: two, three\"}");
}

static void values_in_quotes_and_values_that_are_none(void **state)
{
    (void)state;
    check("p\nSteps: 1, Model: \"a, \\\"b\\\": c\", Seed: 5",
          "{\"model\":\"a, \\\"b\\\": c\",\"prompt\":\"p\",\"seed\":5,\"steps\":1}");
    check("p\nSteps: x, Seed: 99999999999999999999, Size: 1x, CFG scale: nan, Model: ",
          "{\"model\":\"\",\"prompt\":\"p\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_three_parts),
        cmocka_unit_test(text_that_only_looks_like_it_is_prompt),
        cmocka_unit_test(values_in_quotes_and_values_that_are_none),
    };

    return RUN_TESTS(tests);
}

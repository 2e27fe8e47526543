/* Ids against those of another implementation (make_vectors.py says which), bad input. */
#include "engine/text/tokenizer.h"

#include <jansson.h>
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

static void ids_match_the_reference(void **state)
{
    json_error_t error;
    json_t *vectors = json_load_file(VECTORS, 0, &error);
    size_t i;
    json_t *vector;
    unsigned wrong = 0;

    (void)state;
    assert_non_null(vectors);
    assert_true(json_array_size(vectors) > 300);
    json_array_foreach(vectors, i, vector)
    {
        json_t *text = json_array_get(vector, 0);
        json_t *expected = json_array_get(vector, 1);
        int32_t ids[1024];
        size_t count = 0;
        struct err err = {0};

        assert_int_equal(tokenizer_ids(json_string_value(text),
                                       json_string_length(text), ids, 1024, &count,
                                       &err),
                         0);
        bool is_same = count == json_array_size(expected);
        for (size_t k = 0; is_same && k < count; k++)
            is_same = ids[k] == json_integer_value(json_array_get(expected, k));
        if (!is_same) {
            wrong++;
            print_message("vector %zu '%s': %zu ids:", i, json_string_value(text),
                          count);
            for (size_t k = 0; k < count; k++)
                print_message(" %d", ids[k]);
            char *want = json_dumps(expected, JSON_COMPACT);
            print_message("\n  expected %s\n", want);
            free(want);
        }
    }
    json_decref(vectors);
    assert_int_equal(wrong, 0);
}

static void broken_text_is_refused(void **state)
{
    static const char *const broken[] = {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\xaf",
                                         "\xf4\x90\x80\x80"};
    size_t count;

    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct err err = {0};
        assert_int_equal(
            tokenizer_ids(broken[i], strlen(broken[i]), NULL, 0, &count, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, "UTF-8"));
    }
}

static void a_huge_prompt_is_refused_and_a_large_one_is_quick(void **state)
{
    static char text[64 * 1024 + 1];
    struct err err = {0};
    size_t count;

    (void)state;
    memset(text, 'x', sizeof(text));
    assert_int_equal(tokenizer_ids(text, sizeof(text), NULL, 0, &count, &err), -1);
    assert_int_equal(err.code, ERR_TOO_LARGE);
    /* one word of 64 KiB whose letters differ: the worst case of the merges */
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof(text); i++) {
        x = x * 1664525 + 1013904223;
        text[i] = (char)('a' + (x >> 24) % 26);
    }
    assert_int_equal(tokenizer_ids(text, sizeof(text) - 1, NULL, 0, &count, &err), 0);
    assert_true(count > 1000);
    /* nothing but accents */
    for (size_t i = 0; i + 1 < sizeof(text); i += 2)
        memcpy(text + i, i % 4 ? "\xcc\x81" : "\xcc\xa3", 2);
    assert_int_equal(tokenizer_ids(text, sizeof(text) - 1, NULL, 0, &count, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_match_the_reference),
        cmocka_unit_test(broken_text_is_refused),
        cmocka_unit_test(a_huge_prompt_is_refused_and_a_large_one_is_quick),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

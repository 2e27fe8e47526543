#include "unit.h"

#include "base/err.h"

static void sets_and_wraps(void **state)
{
    struct err err = {0};

    (void)state;
    assert_int_equal(err_set_param(&err, ERR_INVALID, "size", "size %d is odd", 7), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.param, "size");
    assert_string_equal(err.message, "size 7 is odd");
    err_wrap(&err, "job %s", "j1");
    assert_string_equal(err.message, "job j1: size 7 is odd");
    assert_int_equal(err.code, ERR_INVALID);
    err_set(&err, ERR_NOT_FOUND, "gone");
    assert_string_equal(err.param, "");
}

static void nobody_wants_to_know(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ERR_INTERNAL, "x"), -1);
    assert_int_equal(err_wrap(NULL, "x"), -1);
}

static void long_sentences_are_cut_not_overrun(void **state)
{
    struct err err = {0};
    char text[2000];

    (void)state;
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    err_set(&err, ERR_INTERNAL, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    err_wrap(&err, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
}

static void codes_travel_as_slugs(void **state)
{
    (void)state;
    assert_int_equal(err_http_status(ERR_CONFLICT), 409);
    assert_string_equal(err_type(ERR_CONFLICT), "conflict_error");
    assert_int_equal(err_code_from_slug("out_of_memory", ERR_INTERNAL), ERR_NO_MEMORY);
    assert_int_equal(err_code_from_slug("never heard of", ERR_INTERNAL), ERR_INTERNAL);
    assert_int_equal(err_code_from_slug(NULL, ERR_BAD_GATEWAY), ERR_BAD_GATEWAY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_and_wraps),
        cmocka_unit_test(nobody_wants_to_know),
        cmocka_unit_test(long_sentences_are_cut_not_overrun),
        cmocka_unit_test(codes_travel_as_slugs),
    };

    return RUN_TESTS(tests);
}

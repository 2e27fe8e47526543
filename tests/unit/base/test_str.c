#include "unit.h"

#include "base/str.h"

static void numbers_are_whole_and_in_range(void **state)
{
    struct err err = {0};
    int64_t v = -1;

    (void)state;
    assert_int_equal(str_to_int("1234", "--listen-port", 0, 65535, &v, &err), 0);
    assert_int_equal(v, 1234);
    const char *const bad[] = {
        "", "x", "12x", "1.5", "65536", "-1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(str_to_int(bad[i], "--listen-port", 0, 65535, &v, &err), -1);
        assert_int_equal(v, 1234);
    }
    assert_string_equal(err.message,
                        "--listen-port must be a whole number from 0 to 65535, "
                        "not \"99999999999999999999\"");
}

static void nearest_is_near_or_nothing(void **state)
{
    static const char *const names[] = {"listen-ip", "listen-port", "verbose"};

    (void)state;
    assert_string_equal(str_nearest("listen_port", names, 3), "listen-port");
    assert_string_equal(str_nearest("VERBOS", names, 3), "verbose");
    assert_null(str_nearest("zzzzzzzzzzzz", names, 3));
    assert_null(str_nearest("", names, 0));
}

static void utf8_as_the_rfc_has_it(void **state)
{
    (void)state;
#define IS(s) str_is_utf8(s, sizeof(s) - 1)
    assert_true(IS("plain"));
    assert_true(IS("h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8e\xa8"));
    assert_true(IS(""));
    assert_false(IS("\xc3"));             /* cut */
    assert_false(IS("\xc0\xaf"));         /* overlong slash */
    assert_false(IS("\xe0\x80\xaf"));     /* overlong */
    assert_false(IS("\xed\xa0\x80"));     /* surrogate */
    assert_false(IS("\xf4\x90\x80\x80")); /* above U+10FFFF */
    assert_false(IS("\xff"));
#undef IS
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_whole_and_in_range),
        cmocka_unit_test(nearest_is_near_or_nothing),
        cmocka_unit_test(utf8_as_the_rfc_has_it),
    };

    return RUN_TESTS(tests);
}

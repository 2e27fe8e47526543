/* What is read without a tree is what a tree would have said; what is not certain is left to it. */
#include "server/api/body_scan.h"

#include "unit.h"

#include <string.h>

struct found {
    struct scanned model, stream, list;
};

static bool scan(const char *text, struct found *ret)
{
    struct scanned f[] = {{.key = "model"}, {.key = "stream"}, {.key = "messages"}};
    bool good = body_scan(text, strlen(text), f, 3);

    *ret = (struct found){f[0], f[1], f[2]};
    return good;
}

static void values_are_found(void **state)
{
    struct found f;

    (void)state;
    assert_true(
        scan(" {\"messages\" : [ {\"role\":\"user\",\"content\":\"a \\\"boat\\\"\"} ],"
             "\"stream\":true,\r\n\t\"model\":\"small one\", \"n\":-1.5e+3 } \n",
             &f));
    assert_int_equal(f.model.kind, SCAN_TEXT);
    assert_int_equal(f.model.len, 9);
    assert_memory_equal(f.model.text, "small one", 9);
    assert_int_equal(f.stream.kind, SCAN_TRUE);
    assert_int_equal(f.list.kind, SCAN_ARRAY);
    assert_false(f.list.is_empty);
}

static void kinds_are_told_apart(void **state)
{
    static const struct {
        const char *text;
        enum scan_kind kind;
    } cases[] = {{"{}", SCAN_ABSENT},
                 {"{\"model\":null}", SCAN_NULL},
                 {"{\"model\":false}", SCAN_FALSE},
                 {"{\"model\":7}", SCAN_NUMBER},
                 {"{\"model\":\"\"}", SCAN_TEXT},
                 {"{\"model\":[]}", SCAN_ARRAY},
                 {"{\"model\":{\"model\":1}}", SCAN_OBJECT},
                 {"{\"x\":{\"model\":1},\"y\":[{\"model\":2}]}", SCAN_ABSENT}};
    struct found f;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_true(scan(cases[i].text, &f));
        assert_int_equal(f.model.kind, cases[i].kind);
    }
    assert_true(scan("{\"messages\":[],\"model\":\"a\",\"model\":\"bc\"}", &f));
    assert_true(f.list.is_empty);
    assert_int_equal(f.model.len, 2); /* of two, the last */
}

static void what_is_not_certain_is_left(void **state)
{
    static const char *const cases[] = {"",
                                        " ",
                                        "[]",
                                        "{",
                                        "{}}",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{,}",
                                        "{\"a\":01}",
                                        "{\"a\":1.}",
                                        "{\"a\":.5}",
                                        "{\"a\":+1}",
                                        "{\"a\":1e}",
                                        "{\"a\":1e400}",
                                        "{\"a\":1234567890123456789}",
                                        "{\"a\":tru}",
                                        "{\"a\":'b'}",
                                        "{\"a\":\"\n\"}",
                                        "{\"a\":\"\\x\"}",
                                        "{\"a\":\"\\u12g4\"}",
                                        "{\"a\":\"\\u0000\"}",
                                        "{\"a\":\"\\ud800\"}",
                                        "{\"a\":\"\xff\"}",
                                        "{\"a\":\"\xc0\x80\"}",
                                        "{\"model\":\"\\u0061\"}",
                                        "{\"mod\\u0065l\":\"a\"}",
                                        "{\"a\":[1 2]}",
                                        "{\"a\":[1,]}",
                                        "{\"a\":[}",
                                        "{\"a\":\"",
                                        "{\"a\":\"\\",
                                        "{\"a\" 1}",
                                        "nul",
                                        "{\"a\":nul"};
    struct found f;
    char deep[300] = "{\"a\":";

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (scan(cases[i], &f))
            fail_msg("taken: %s", cases[i]);
    memset(deep + 5, '[', 100);
    memset(deep + 105, ']', 100);
    deep[205] = '}';
    assert_false(scan(deep, &f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_found),
        cmocka_unit_test(kinds_are_told_apart),
        cmocka_unit_test(what_is_not_certain_is_left),
    };

    return RUN_TESTS(tests);
}

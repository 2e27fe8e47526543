#include "unit.h"

#include "base/buf.h"

static void grows_and_stays_terminated(void **state)
{
    struct buf b = {0};
    char block[1000];

    (void)state;
    memset(block, 'x', sizeof(block));
    for (int i = 0; i < 100; i++)
        buf_append(&b, block, sizeof(block));
    assert_int_equal(b.len, 100000);
    assert_int_equal(b.data[b.len], 0);
    buf_release(&b);
    assert_null(b.data);
    assert_string_equal(buf_str(&b), "");
}

static void consumes_from_the_front(void **state)
{
    struct buf b = {0};

    (void)state;
    buf_printf(&b, "%s-%d", "abc", 42);
    buf_consume(&b, 0);
    buf_consume(&b, 4);
    assert_string_equal(b.data, "42");
    assert_int_equal(b.len, 2);
    buf_consume(&b, 2);
    assert_int_equal(b.len, 0);
    buf_append_str(&b, "again");
    assert_string_equal(b.data, "again");
    buf_release(&b);
}

static void append_of_nothing_is_fine(void **state)
{
    struct buf b = {0};

    (void)state;
    buf_append(&b, NULL, 0);
    assert_int_equal(b.len, 0);
    assert_string_equal(buf_str(&b), "");
    buf_release(&b);
}

static void take_hands_over(void **state)
{
    struct buf b = {0};
    char *s;

    (void)state;
    buf_append_str(&b, "mine");
    s = buf_take(&b);
    assert_string_equal(s, "mine");
    assert_null(b.data);
    free(s);
    s = buf_take(&b);
    assert_string_equal(s, "");
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_stays_terminated),
        cmocka_unit_test(consumes_from_the_front),
        cmocka_unit_test(append_of_nothing_is_fine),
        cmocka_unit_test(take_hands_over),
    };

    return RUN_TESTS(tests);
}

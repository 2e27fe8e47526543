#include "unit.h"

#include "base/mem.h"

static void injected_failures_count_down(void **state)
{
    void *p;

    (void)state;
    mem_fail_after(2);
    p = mem_try_alloc(8);
    assert_non_null(p);
    free(p);
    assert_null(mem_try_zalloc(1, 8));
    p = mem_try_zalloc(1, 8); /* once only */
    assert_non_null(p);
    free(p);
}

static void absurd_sizes_return_null(void **state)
{
    volatile size_t huge = SIZE_MAX / 2; /* volatile: the compiler knows better */

    (void)state;
    assert_null(mem_try_zalloc(huge, 8));
}

static void text_is_copied(void **state)
{
    char *s = mem_strndup("abcdef", 3), *t = mem_printf("%d/%s", 7, s);

    (void)state;
    assert_string_equal(s, "abc");
    assert_string_equal(t, "7/abc");
    free(s);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(injected_failures_count_down),
        cmocka_unit_test(absurd_sizes_return_null),
        cmocka_unit_test(text_is_copied),
    };

    return RUN_TESTS(tests);
}

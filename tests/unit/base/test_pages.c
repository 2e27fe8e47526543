/* Blocks of pages: zeroed, aligned, and how much of one is there. */
#include "base/pages.h"

#include "unit.h"

#include <stdint.h>

static void test_blocks(void **state)
{
    static const size_t sizes[] = {1,       4096,         5000, (2 << 20) - 1,
                                   2 << 20, (5 << 20) + 3};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        char *p = pages_alloc(sizes[i]), *q = pages_alloc(sizes[i]);

        assert_non_null(p);
        assert_non_null(q);
        assert_int_equal((uintptr_t)p % (2 << 20), 0);
        for (size_t k = 0; k < sizes[i]; k += 511)
            assert_int_equal(p[k], 0);
        p[sizes[i] - 1] = 1;
        q[0] = 1;
        pages_free(p, sizes[i]);
        assert_int_equal(q[0], 1);
        pages_free(q, sizes[i]);
    }
    pages_free(NULL, 1);
    assert_null(pages_alloc(SIZE_MAX / 4));
}

static void test_touched(void **state)
{
    (void)state;
    assert_int_equal(pages_touched(100, 5000), 100); /* no whole huge page in it */
    assert_int_equal(pages_touched(100, 2 << 20), 2 << 20);
    assert_int_equal(pages_touched((2 << 20) + 1, 5 << 20), 4 << 20);
    assert_int_equal(pages_touched((4 << 20) + 1, 5 << 20), (4 << 20) + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks),
                                       cmocka_unit_test(test_touched)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

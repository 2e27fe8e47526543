/* The table behind --sharing: its words, and that neither side can be starved. */
#include "base/sharing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const enum sharing all[] = {SHARING_TEXT_FIRST, SHARING_EQUAL,
                                   SHARING_IMAGE_FIRST};

static void words_go_there_and_back(void **state)
{
    char joined[64] = "";

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        enum sharing back = all[(i + 1) % 3];

        assert_int_equal(sharing_parse(sharing_word(all[i]), "x", &back, NULL), 0);
        assert_int_equal(back, all[i]);
        strncat(joined, i ? "|" : "", sizeof(joined) - strlen(joined) - 1);
        strncat(joined, sharing_word(all[i]), sizeof(joined) - strlen(joined) - 1);
    }
    assert_string_equal(joined, SHARING_WORDS);
}

static void another_word_is_a_sentence(void **state)
{
    enum sharing sharing = SHARING_EQUAL;
    struct err err = {0};

    (void)state;
    assert_int_equal(sharing_parse("fair", "--sharing", &sharing, &err), -1);
    assert_int_equal(sharing, SHARING_EQUAL);
    assert_string_equal(
        err.message,
        "--sharing must be text-first, equal or image-first, not \"fair\"");
}

static void the_first_one_is_never_the_lower_one(void **state)
{
    (void)state;
    assert_true(sharing_picture_place(SHARING_TEXT_FIRST).nice > 0);
    assert_false(sharing_text_gives_way(SHARING_TEXT_FIRST));
    assert_int_equal(sharing_picture_place(SHARING_EQUAL).nice, 0);
    assert_false(sharing_text_gives_way(SHARING_EQUAL));
    assert_int_equal(sharing_picture_place(SHARING_IMAGE_FIRST).nice, 0);
    assert_true(sharing_text_gives_way(SHARING_IMAGE_FIRST));
    assert_true(sharing_rest_percent(SHARING_TEXT_FIRST, SHARING_ON_GPU) > 0);
}

static void nobody_starves(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        /* nice 15 weighs 36 of 1024: 3 % of a core that both want */
        assert_in_range(sharing_picture_place(all[i]).nice, 0, 15);
        for (int device = SHARING_ON_CPU; device <= SHARING_ON_GPU; device++)
            assert_in_range(sharing_rest_percent(all[i], (enum sharing_device)device),
                            0, SHARING_REST_MAX_PERCENT);
        assert_int_equal(sharing_rest_percent(SHARING_IMAGE_FIRST, SHARING_ON_GPU), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_go_there_and_back),
        cmocka_unit_test(another_word_is_a_sentence),
        cmocka_unit_test(the_first_one_is_never_the_lower_one),
        cmocka_unit_test(nobody_starves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

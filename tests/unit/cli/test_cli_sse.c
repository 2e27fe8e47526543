/* A stream of events cut at every place gives the same events. */
#include "cli/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static void on_event(void *user, const char *name, const char *data)
{
    buf_printf(user, "[%s|%s]", name, data);
}

static void on_comment(void *user, const char *text)
{
    buf_printf(user, "(%s)", text);
}

static const char stream[] = ": queue position=2\n\n"
                             "event: a\r\ndata: one\r\n\r\n"
                             "data:two\ndata: three\nid: 7\nretry: 10\n\n"
                             ":\n\n\n"
                             "event: empty\n\n"
                             "database: x\ndata\n\n"
                             "data:  padded\n\n"
                             "data: unfinished";
static const char expected[] = "(queue position=2)[a|one][|two\nthree]()[| padded]";

static void any_cut_gives_the_same(void **state)
{
    const size_t len = sizeof(stream) - 1;

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        struct buf seen = {0};
        struct sse s = {.on_event = on_event, .on_comment = on_comment, .user = &seen};

        sse_feed(&s, stream, cut);
        sse_feed(&s, stream + cut, len - cut);
        assert_string_equal(buf_str(&seen), expected);
        sse_release(&s);
        buf_release(&seen);
    }
}

static void byte_by_byte(void **state)
{
    struct buf seen = {0};
    struct sse s = {.on_event = on_event, .on_comment = on_comment, .user = &seen};

    (void)state;
    for (size_t i = 0; i < sizeof(stream) - 1; i++)
        sse_feed(&s, stream + i, 1);
    assert_string_equal(buf_str(&seen), expected);
    sse_release(&s);
    buf_release(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut_gives_the_same),
        cmocka_unit_test(byte_by_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

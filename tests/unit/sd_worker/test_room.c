/* A machine with 8 GiB available, made of text. */
#include "base/file.h"
#include "sd_worker/room.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const uint64_t gib = 1024ULL * 1024 * 1024;
static char path[] = "/tmp/mysti-meminfo-XXXXXX";

static int setup(void **state)
{
    static const char text[] = "MemTotal:       16777216 kB\n"
                               "MemFree:          524288 kB\n"
                               "MemAvailable:    8388608 kB\n"
                               "Buffers:              12 kB\n";

    (void)state;
    int fd = mkstemp(path);
    ssize_t n = fd < 0 ? -1 : write(fd, text, sizeof(text) - 1);

    close(fd);
    return n == sizeof(text) - 1 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static void what_fits_fits(void **state)
{
    struct err err = {0};

    (void)state;
    assert_int_equal(room_check(path, 0, &err), 0);
    assert_int_equal(room_check(path, 8 * gib, &err), 0);
}

static void what_does_not_is_a_sentence_with_both_numbers(void **state)
{
    struct err err = {0};

    (void)state;
    assert_int_equal(room_check(path, 9 * gib + gib / 10, &err), -1);
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_non_null(strstr(err.message, "needs 9.1 GiB, 8.0 GiB"));
    err = (struct err){0};
    assert_int_equal(room_check(path, UINT64_MAX, &err), -1);
}

static void an_unknown_machine_refuses_nothing(void **state)
{
    struct err err = {0};

    (void)state;
    assert_int_equal(room_check("/nowhere", 9 * gib, &err), 0);
    assert_int_equal(room_check("/dev/null", 9 * gib, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_fits),
        cmocka_unit_test(what_does_not_is_a_sentence_with_both_numbers),
        cmocka_unit_test(an_unknown_machine_refuses_nothing),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

#include "unit.h"

#include "base/file.h"

#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/mysti-file-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static void written_is_read(void **state)
{
    struct err err = {0};
    struct buf b = {0};
    char *deep = file_join(folder, "a/b/c"), *path = file_join(deep, "x.json");
    struct stat st;

    (void)state;
    assert_int_equal(file_make_folder(deep, 0700, &err), 0);
    assert_int_equal(file_make_folder(deep, 0700, &err),
                     0); /* is there already: fine */
    assert_int_equal(file_write_atomic(path, "one", 3, 0600, &err), 0);
    assert_int_equal(file_write_atomic(path, "other", 5, 0600, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(file_read(path, 100, &b, &err), 0);
    assert_string_equal(b.data, "other");
    assert_int_equal(file_read(path, 4, &b, &err), -1); /* larger than allowed */
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_string_equal(b.data, "other"); /* what was there stays */
    buf_release(&b);
    free(path);
    free(deep);
}

static void failures_name_the_path(void **state)
{
    struct err err = {0};
    struct buf b = {0};

    (void)state;
    assert_int_equal(file_read("/nowhere/at/all", 10, &b, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere/at/all"));
    assert_int_equal(file_read(folder, 10, &b, &err), -1); /* a folder is no file */
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(file_write_atomic("/proc/none/x", "x", 1, 0600, &err), -1);
    assert_int_equal(err.code, ERR_STORAGE);
    assert_int_equal(file_make_folder("/dev/null/x", 0700, &err), -1);
    buf_release(&b);
}

static void confinement(void **state)
{
    static const char *const good[] = {"a",   "a/b.png", "img-1.png",
                                       "..a", "a..",     "h\xc3\xa9"};
    static const char *const bad[] = {"",       "/a",  "..",   "../a", "a/..",
                                      "a/../b", "./a", "a//b", "a/",   "a\\b",
                                      "a\nb",   ".",   "a/.",  "\x7f"};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(file_is_confined(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (file_is_confined(bad[i]))
            fail_msg("\"%s\" counts as confined", bad[i]);
}

static void joins(void **state)
{
    char *a = file_join("x", "y"), *b = file_join("x/", "y"), *c = file_join("x", "/y");
    char *here = file_program_folder();

    (void)state;
    assert_string_equal(a, "x/y");
    assert_string_equal(b, "x/y");
    assert_string_equal(c, "/y");
    assert_string_equal(file_name("a/b"), "b");
    assert_string_equal(file_name("b"), "b");
    assert_true(file_exists(here));
    free(a);
    free(b);
    free(c);
    free(here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_is_read),
        cmocka_unit_test(failures_name_the_path),
        cmocka_unit_test(confinement),
        cmocka_unit_test(joins),
    };

    return cmocka_run_group_tests(tests, make_folder, NULL);
}

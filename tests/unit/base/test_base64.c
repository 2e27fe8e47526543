#include "unit.h"

#include "base/base64.h"

#include <stdlib.h>
#include <string.h>

static void the_vectors_of_the_rfc(void **state)
{
    static const char *const vectors[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xff\xfe\xfd?>", "//79Pz4="},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        struct buf b = {0};

        buf_append_str(&b, "at the end: ");
        base64_append(&b, vectors[i][0], strlen(vectors[i][0]));
        assert_string_equal(buf_str(&b) + 12, vectors[i][1]);
        assert_int_equal(b.len, 12 + strlen(vectors[i][1]));
        buf_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_vectors_of_the_rfc)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

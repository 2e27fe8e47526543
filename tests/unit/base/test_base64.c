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

static void they_come_back_from_text(void **state)
{
    static const char *const vectors[][2] = {{"", ""},
                                             {"Zg==", "f"},
                                             {"Zm8=", "fo"},
                                             {"Zm9v", "foo"},
                                             {"Zm9vYg", "foob"},
                                             {"Zm9vYmE=", "fooba"},
                                             {"Zm9vYmFy", "foobar"}};

    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        struct buf out = {0};
        struct err err = {0};

        assert_int_equal(base64_decode(vectors[i][0], &out, &err), 0);
        assert_string_equal(buf_str(&out), vectors[i][1]);
        assert_int_equal(out.len, strlen(vectors[i][1]));
        buf_release(&out);
    }
}

static void all_bytes_come_back(void **state)
{
    unsigned char bytes[1000];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    for (size_t len = 0; len < sizeof(bytes); len += 13) {
        struct buf text = {0};
        struct buf out = {0};
        struct err err = {0};

        base64_append(&text, bytes, len);
        assert_int_equal(base64_decode(buf_str(&text), &out, &err), 0);
        assert_int_equal(out.len, len);
        assert_memory_equal(out.len ? out.data : "", len ? (char *)bytes : "", len);
        buf_release(&text);
        buf_release(&out);
    }
}

static void other_characters_are_refused(void **state)
{
    static const char *const wrong[] = {"Zm9v\n", "Zm 9v", "Zm9*", "Zm=9v", "\xff"};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct buf out = {0};
        struct err err = {0};

        assert_int_equal(base64_decode(wrong[i], &out, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_the_rfc),
        cmocka_unit_test(they_come_back_from_text),
        cmocka_unit_test(all_bytes_come_back),
        cmocka_unit_test(other_characters_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

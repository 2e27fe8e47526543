#include "refused_file.h"

#include "engine/files/reader.h"

#include "unit.h"

void expect_refusal(const struct buf *bytes, const char *sentence)
{
    struct weights_file *file;
    struct err err = {0};

    if (weights_memory_open(&file, bytes->data, bytes->len, &err) == 0)
        fail_msg("was read, '%s' was expected", sentence);
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
    assert_int_equal(err.code, ERR_BAD_FILE);
}

void refuse_and_release(struct buf bytes, const char *sentence)
{
    expect_refusal(&bytes, sentence);
    buf_release(&bytes);
}

void expect_cuts_refused(const struct buf *bytes)
{
    for (size_t len = 0; len < bytes->len; len++) {
        /* a block of exactly this size, so that a sanitizer sees a byte too many */
        char *exact = malloc(len ? len : 1);
        struct buf cut = {exact, len, len};

        memcpy(exact, bytes->data, len);
        expect_refusal(&cut, "");
        free(exact);
    }
}

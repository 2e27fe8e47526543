#include "cli/base64.h"

#include <stdint.h>
#include <string.h>

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(const char *text, struct buf *ret, struct err *err)
{
    size_t len = strlen(text);
    uint32_t bits = 0;
    unsigned have = 0;
    char *out;

    while (len && text[len - 1] == '=')
        len--;
    out = buf_reserve(ret, len / 4 * 3 + 3);
    for (size_t i = 0; i < len; i++) {
        int d = digit(text[i]);

        if (d < 0)
            return err_set(err, ERR_BAD_GATEWAY,
                           "the picture in the answer is not base64");
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            *out++ = (char)(bits >> have & 0xFF);
            ret->len++;
        }
    }
    *out = '\0';
    return 0;
}

#include "base/base64.h"

#include <stdint.h>
#include <string.h>

void base64_append(struct buf *b, const void *data, size_t len)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    char *out = buf_reserve(b, (len + 2) / 3 * 4);

    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t three = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                         (n > 2 ? p[i + 2] : 0);

        *out++ = letters[three >> 18];
        *out++ = letters[three >> 12 & 63];
        *out++ = n > 1 ? letters[three >> 6 & 63] : '=';
        *out++ = n > 2 ? letters[three & 63] : '=';
    }
    b->len += (len + 2) / 3 * 4;
    *out = '\0';
}

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
            return err_set(err, ERR_INVALID, "character %zu is none of base64's",
                           i + 1);
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

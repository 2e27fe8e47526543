#include "base/base64.h"

#include <stdint.h>

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

#include "http/field.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

/* RFC 9110's tchar, a bit for each ASCII character: every name of every field of every message comes by here. */
static const uint32_t token_chars[8] = {0x00000000, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};

static bool is_token_char(unsigned char c)
{
    return token_chars[c / 32] >> c % 32 & 1;
}

bool field_is_token(const char *s)
{
    const char *p = s;

    while (is_token_char((unsigned char)*p))
        p++;
    return p > s && !*p;
}

bool field_is_clean(const char *value)
{
    for (; *value; value++) {
        unsigned char c = (unsigned char)*value;

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

bool field_is_host(const char *value)
{
    const char *p = value;

    if (*p == '[') {
        for (p++; isxdigit((unsigned char)*p) || *p == ':' || *p == '.'; p++)
            ;
        if (*p++ != ']')
            return false;
    } else {
        while (isalnum((unsigned char)*p) || (*p && strchr("-._~!$&'()*+,;=", *p)))
            p++;
    }
    if (*p == ':')
        for (p++; isdigit((unsigned char)*p); p++)
            ;
    return *p == '\0';
}

bool field_list_has(const char *list, const char *token)
{
    size_t want = strlen(token);

    while (*list) {
        size_t len;

        list += strspn(list, " \t,");
        len = strcspn(list, ",");
        while (len && (list[len - 1] == ' ' || list[len - 1] == '\t'))
            len--;
        if (len == want && !strncasecmp(list, token, len))
            return true;
        list += strcspn(list, ",");
    }
    return false;
}

bool field_is_hop_by_hop(const char *name)
{
    static const char *const names[] = {
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
        "proxy-authenticate",
        "proxy-authorization",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (field_same(name, names[i]))
            return true;
    return false;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

long field_percent_decode(const char *s, size_t len, char *out)
{
    char *to = out;

    for (size_t i = 0; i < len; i++) {
        int high, low;

        if (s[i] != '%') {
            *to++ = s[i];
            continue;
        }
        if (i + 2 >= len)
            return -1;
        high = hex_value(s[i + 1]);
        low = hex_value(s[i + 2]);
        if (high < 0 || low < 0 || high * 16 + low < 0x20 || high * 16 + low == 0x7f)
            return -1;
        *to++ = (char)(high * 16 + low);
        i += 2;
    }
    *to = '\0';
    return to - out;
}

const char *field_number(uint64_t n, char room[FIELD_NUMBER_BYTES])
{
    char *at = &room[FIELD_NUMBER_BYTES - 1];

    *at = '\0';
    do
        *--at = (char)('0' + n % 10);
    while (n /= 10);
    return at;
}

bool field_path_climbs(const char *path)
{
    while (*path) {
        size_t len = strcspn(path, "/\\");

        if (len == 2 && path[0] == '.' && path[1] == '.')
            return true;
        path += len;
        path += strspn(path, "/\\");
    }
    return false;
}

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool str_has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && strcmp(s + n - m, suffix) == 0;
}

int str_to_int(const char *s, const char *what, int64_t min, int64_t max,
               int64_t *ret_value, struct err *err)
{
    char *end;
    long long v;

    errno = 0;
    v = strtoll(s, &end, 10);
    if (!*s || *end || errno || v < min || v > max)
        return err_set(err, ERR_INVALID,
                       "%s must be a whole number from %lld to %lld, not \"%.60s\"",
                       what, (long long)min, (long long)max, s);
    *ret_value = v;
    return 0;
}

int str_to_size(const char *s, const char *what, int64_t min, int64_t max,
                int64_t *ret_value, struct err *err)
{
    static const char units[] = "KMGT";
    char digits[32];
    size_t n = strlen(s);
    const char *unit = n ? strchr(units, s[n - 1] & ~0x20) : NULL;
    int shift = 0;
    int64_t v = 0;

    if (unit && *unit) {
        shift = 10 * (int)(unit - units + 1);
        n--;
    }
    if (n == 0 || n >= sizeof(digits) || strspn(s, "0123456789") != n)
        return err_set(err, ERR_INVALID,
                       "%s must be a size like 65536, 64K or 2M, not \"%.60s\"", what,
                       s);
    memcpy(digits, s, n);
    digits[n] = '\0';
    if (str_to_int(digits, what, 0, INT64_MAX >> shift, &v, err))
        return -1;
    if (v << shift < min || v << shift > max)
        return err_set(err, ERR_INVALID,
                       "%s must be from %lld to %lld bytes, not %.60s", what,
                       (long long)min, (long long)max, s);
    *ret_value = v << shift;
    return 0;
}

/* Levenshtein's distance, case ignored, on names of at most 63 characters. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(a), m = strlen(b);

    if (n > 63 || m > 63)
        return 64;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t up = row[j];
            size_t best = diagonal + (strncasecmp(a + i - 1, b + j - 1, 1) != 0);

            if (up + 1 < best)
                best = up + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[m];
}

const char *str_nearest(const char *name, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = strlen(name) / 2 + 2; /* further away is no likeness */

    for (size_t i = 0; i < count; i++) {
        size_t d = distance(name, names[i]);

        if (d < best_distance) {
            best_distance = d;
            best = names[i];
        }
    }
    return best;
}

bool str_is_utf8(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + len;

    while (p < end) {
        unsigned c = *p++, low = 0x80, high = 0xbf;
        int more;

        if (c < 0x80)
            continue;
        if (c >= 0xc2 && c <= 0xdf)
            more = 1;
        else if (c >= 0xe0 && c <= 0xef)
            more = 2;
        else if (c >= 0xf0 && c <= 0xf4)
            more = 3;
        else
            return false;
        if (c == 0xe0)
            low = 0xa0;
        else if (c == 0xed)
            high = 0x9f;
        else if (c == 0xf0)
            low = 0x90;
        else if (c == 0xf4)
            high = 0x8f;
        while (more--) {
            if (p == end || *p < low || *p > high)
                return false;
            low = 0x80;
            high = 0xbf;
            p++;
        }
    }
    return true;
}

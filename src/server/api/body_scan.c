/* Why beside jansson: a text request is forwarded as it came, and all that the server wants of it are two values; building
 * and freeing a tree for them was a tenth of what mysti_server spent on a request (docs/bench.md). jansson has no way
 * to look without building. So this accepts a subset of JSON, and only what it is sure of: a text that it accepts
 * jansson accepts too, with the same values (the fuzz target compares them); what it does not accept goes to
 * jansson, which decides and words the complaint. It is a way to be quick, never a second opinion.
 *
 * One function per kind of value; each moves `at` behind what it read, or says false. */
#include "server/api/body_scan.h"

#include "base/str.h"

#include <string.h>

#define DEPTH_MAX 64
#define NUMBER_MAX 18 /* digits in a row: less than an int64 has */

struct scan {
    const char *at, *end;
    int depth;
    bool has_high; /* a byte beyond ASCII: is it all UTF-8? */
};

static void skip_space(struct scan *s)
{
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

static bool take(struct scan *s, char c)
{
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool take_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
        return false;
    s->at += n;
    return true;
}

static bool take_hex(struct scan *s)
{
    unsigned value = 0;

    for (int i = 0; i < 4; i++, s->at++) {
        unsigned char c = s->at < s->end ? (unsigned char)*s->at : 0;

        if (c >= '0' && c <= '9')
            value = value << 4 | (c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            value = value << 4 | ((c | 0x20) - 'a' + 10);
        else
            return false;
    }
    return value && (value < 0xd800 || value > 0xdfff);
}

static bool take_escape(struct scan *s)
{
    char c = s->at < s->end ? *s->at++ : '\0';

    return c == 'u' ? take_hex(s) : c && strchr("\"\\/bfnrt", c);
}

/* From the opening quote to behind the closing one; plain: no escape in it. */
static bool take_string(struct scan *s, const char **text, size_t *len, bool *plain)
{
    if (!take(s, '"'))
        return false;
    *text = s->at;
    *plain = true;
    while (s->at < s->end) {
        unsigned char c = (unsigned char)*s->at++;

        if (c == '"') {
            *len = (size_t)(s->at - 1 - *text);
            return true;
        }
        if (c < 0x20)
            return false;
        s->has_high = s->has_high || c >= 0x80;
        if (c == '\\') {
            *plain = false;
            if (!take_escape(s))
                return false;
        }
    }
    return false;
}

static bool take_digits(struct scan *s, int max)
{
    const char *from = s->at;

    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > from && s->at - from <= max;
}

static bool take_number(struct scan *s)
{
    take(s, '-');
    if (!take(s, '0') && !take_digits(s, NUMBER_MAX))
        return false;
    if (take(s, '.') && !take_digits(s, NUMBER_MAX))
        return false;
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+'))
            take(s, '-');
        return take_digits(s, 2); /* beyond 1e99 lies what a double cannot hold */
    }
    return true;
}

static bool take_value(struct scan *s, struct scanned *ret);

static bool take_array(struct scan *s, struct scanned *ret)
{
    struct scanned ignored = {0};

    ret->kind = SCAN_ARRAY;
    s->at++;
    skip_space(s);
    ret->is_empty = take(s, ']');
    if (ret->is_empty)
        return true;
    do {
        skip_space(s);
        if (!take_value(s, &ignored))
            return false;
        skip_space(s);
    } while (take(s, ','));
    return take(s, ']');
}

static struct scanned *asked_for(struct scanned *found, size_t count, const char *key,
                                 size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(found[i].key) == len && !memcmp(found[i].key, key, len))
            return &found[i];
    return NULL;
}

static bool take_object(struct scan *s, struct scanned *found, size_t count,
                        bool *ret_empty)
{
    s->at++;
    skip_space(s);
    *ret_empty = take(s, '}');
    if (*ret_empty)
        return true;
    do {
        struct scanned ignored = {0}, *value;
        const char *key;
        size_t len;
        bool plain;

        skip_space(s);
        if (!take_string(s, &key, &len, &plain) || (count && !plain))
            return false; /* an escaped key might be one that was asked for */
        value = asked_for(found, count, key, len);
        skip_space(s);
        if (!take(s, ':'))
            return false;
        skip_space(s);
        if (!take_value(s,
                        value ? value : &ignored)) /* the last one of a name counts */
            return false;
        skip_space(s);
    } while (take(s, ','));
    return take(s, '}');
}

static bool take_literal(struct scan *s, struct scanned *ret)
{
    if (take_word(s, "true"))
        ret->kind = SCAN_TRUE;
    else if (take_word(s, "false"))
        ret->kind = SCAN_FALSE;
    else if (take_word(s, "null"))
        ret->kind = SCAN_NULL;
    else
        return false;
    return true;
}

static bool take_value(struct scan *s, struct scanned *ret)
{
    bool plain, good;

    if (s->at == s->end || s->depth == DEPTH_MAX)
        return false;
    switch (*s->at) {
    case '"':
        ret->kind = SCAN_TEXT;
        return take_string(s, &ret->text, &ret->len, &plain) && (plain || !ret->key);
    case '[':
        s->depth++;
        good = take_array(s, ret);
        s->depth--;
        return good;
    case '{':
        s->depth++;
        ret->kind = SCAN_OBJECT;
        good = take_object(s, NULL, 0, &ret->is_empty);
        s->depth--;
        return good;
    case 't':
    case 'f':
    case 'n':
        return take_literal(s, ret);
    default:
        ret->kind = SCAN_NUMBER;
        return take_number(s);
    }
}

bool body_scan(const char *data, size_t len, struct scanned *found, size_t count)
{
    struct scan s = {.at = data, .end = data + len};
    bool is_empty;

    skip_space(&s);
    if (s.at == s.end || *s.at != '{' || !take_object(&s, found, count, &is_empty))
        return false;
    skip_space(&s);
    return s.at == s.end && (!s.has_high || str_is_utf8(data, len));
}

/* The last line of the text is a list "Key: value, Key: value"; before it come the prompt and, from a line that
 * begins so, the negative prompt. Whether the last line is that list is decided as A1111 does it: at least three
 * pairs. A value with a comma in it stands in quotes with JSON's escapes.
 */
#include "server/store/parameters.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum value_kind { VALUE_TEXT, VALUE_WHOLE, VALUE_NUMBER, VALUE_SIZE };

static const struct {
    const char *key; /* A1111's */
    const char *name;
    enum value_kind kind;
} known_keys[] = {
    {"Steps", "steps", VALUE_WHOLE},
    {"Sampler", "sampler", VALUE_TEXT},
    {"Schedule type", "scheduler", VALUE_TEXT},
    {"CFG scale", "cfg_scale", VALUE_NUMBER},
    {"Seed", "seed", VALUE_WHOLE},
    {"Size", "size", VALUE_SIZE},
    {"Model", "model", VALUE_TEXT},
};

static bool is_key_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == ' ' || c == '-' || c == '/';
}

/* One "Key: value" from *at; returns false at the end or when there is none. */
static bool next_pair(const char **at, struct buf *key, struct buf *value)
{
    const char *p = *at;

    buf_clear(key);
    buf_clear(value);
    p += strspn(p, " \t");
    const char *start = p;

    while (is_key_char(*p))
        p++;
    if (*p != ':' || p - start < 2 || *start == ' ')
        return false;
    buf_append(key, start, (size_t)(p - start));
    p++;
    p += strspn(p, " \t");
    if (*p == '"') {
        for (p++; *p && *p != '"'; p++) {
            if (*p == '\\' && p[1])
                p++;
            buf_append(value, p, 1);
        }
        p += strcspn(p, ",");
    } else {
        size_t n = strcspn(p, ",");

        buf_append(value, p, n);
        p += n;
        while (value->len && value->data[value->len - 1] == ' ')
            value->data[--value->len] = '\0';
    }
    *at = *p == ',' ? p + 1 : p;
    return true;
}

static void set_value(json_t *params, size_t known, const char *text)
{
    const char *name = known_keys[known].name;
    char *end = NULL;
    double number;
    long long whole;

    switch (known_keys[known].kind) {
    case VALUE_TEXT:
        json_object_set_new(params, name, json_string(text));
        return;
    case VALUE_WHOLE:
        errno = 0;
        whole = strtoll(text, &end, 10);
        if (end != text && !*end && !errno)
            json_object_set_new(params, name, json_integer(whole));
        return;
    case VALUE_NUMBER:
        number = strtod(text, &end);
        if (end != text && !*end && number > -1e9 && number < 1e9)
            json_object_set_new(params, name, json_real(number));
        return;
    case VALUE_SIZE: {
        unsigned width, height;
        char rest;

        if (sscanf(text, "%7ux%7u%c", &width, &height, &rest) == 2) {
            json_object_set_new(params, "width", json_integer(width));
            json_object_set_new(params, "height", json_integer(height));
        }
        return;
    }
    }
}

/* How many pairs the line is made of; sets the known ones in params unless it is NULL. */
static int read_pairs(const char *line, json_t *params)
{
    struct buf key = {0}, value = {0};
    int count = 0;

    while (next_pair(&line, &key, &value)) {
        count++;
        for (size_t i = 0; params && i < sizeof(known_keys) / sizeof(known_keys[0]);
             i++)
            if (!strcmp(buf_str(&key), known_keys[i].key))
                set_value(params, i, buf_str(&value));
    }
    buf_release(&key);
    buf_release(&value);
    return count;
}

static void set_trimmed(json_t *params, const char *name, const char *text, size_t len)
{
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (len)
        json_object_set_new(params, name, json_stringn(text, len));
}

json_t *parameters_parse(const char *text)
{
    static const char negative_mark[] = "Negative prompt:";
    json_t *params = json_object();
    size_t len = strlen(text);

    while (len && isspace((unsigned char)text[len - 1]))
        len--;
    char *copy = mem_strndup(text, len);
    char *last = strrchr(copy, '\n');

    last = last ? last + 1 : copy;
    size_t words = len;

    if (read_pairs(last, NULL) >= 3) {
        read_pairs(last, params);
        words = (size_t)(last - copy);
    }
    copy[words] = '\0';
    char *negative = str_has_prefix(copy, negative_mark) ? copy : NULL;

    for (char *p = copy; !negative && (p = strchr(p, '\n')); p++)
        if (str_has_prefix(p + 1, negative_mark))
            negative = p + 1;
    if (negative) {
        const char *from = negative + strlen(negative_mark);

        from += strspn(from, " ");
        set_trimmed(params, "negative_prompt", from, strlen(from));
        *negative = '\0';
    }
    set_trimmed(params, "prompt", copy, strlen(copy));
    json_object_set_new(params, "text", json_stringn(text, len));
    free(copy);
    return params;
}

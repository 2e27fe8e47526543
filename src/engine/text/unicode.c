/* Character data by binary search in tables of ranges: a prompt has a few hundred characters, so ten comparisons
 * each are nothing, and the tables stay small enough to read. ICU would bring all of this and 30 MB.
 *
 * NFC (Unicode Standard Annex 15) in its plain form: decompose fully, put each run of combining marks into the
 * order of their classes, join neighbours again. Hangul syllables are arithmetic, everything else is in the
 * tables. Text below U+0300 is its own NFC and is returned untouched, which is nearly every prompt.
 *
 * Invariant of unicode_compose: sorting is stable and takes n log n however the marks are mixed, so that a
 * prompt made of nothing but accents costs no more than another. */
#include "engine/text/tables.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    HANGUL_BASE = 0xAC00,
    HANGUL_L = 0x1100,
    HANGUL_V = 0x1161,
    HANGUL_T = 0x11A7,
    HANGUL_LS = 19,
    HANGUL_VS = 21,
    HANGUL_TS = 28,
    HANGUL_SYLLABLES = HANGUL_LS * HANGUL_VS * HANGUL_TS,
};

static unsigned range_value(const struct unicode_range *ranges, unsigned count,
                            uint32_t c)
{
    unsigned low = 0;
    unsigned high = count;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (c < ranges[middle].first)
            high = middle;
        else if (c > ranges[middle].last)
            low = middle + 1;
        else
            return ranges[middle].value;
    }
    return 0;
}

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

enum unicode_class unicode_class(uint32_t c)
{
    if (is_space(c))
        return UNICODE_SPACE;
    return (enum unicode_class)range_value(unicode_class_ranges, unicode_class_count,
                                           c);
}

static int compare_pair(const void *key, const void *row)
{
    uint32_t c = *(const uint32_t *)key;
    uint32_t from = ((const struct unicode_pair *)row)->from;

    return (c > from) - (c < from);
}

size_t unicode_lower_case(uint32_t c, uint32_t ret[2])
{
    const struct unicode_pair *pair;

    if (c == 0x130) { /* I with dot above: i and a combining dot */
        ret[0] = 'i';
        ret[1] = 0x307;
        return 2;
    }
    pair = bsearch(&c, unicode_lower, unicode_lower_count, sizeof(*pair), compare_pair);
    ret[0] = pair ? pair->to : c;
    return 1;
}

size_t unicode_decode(const char *utf8, size_t len, uint32_t *ret)
{
    size_t n = 0;

    for (size_t i = 0; i < len;) {
        unsigned char lead = (unsigned char)utf8[i++];
        unsigned more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        uint32_t c = more ? lead & (0x3FU >> more) : lead;

        while (more-- && i < len)
            c = c << 6 | ((unsigned char)utf8[i++] & 0x3FU);
        ret[n++] = c;
    }
    return n;
}

size_t unicode_encode(uint32_t c, char ret[4])
{
    if (c < 0x80) {
        ret[0] = (char)c;
        return 1;
    }
    size_t len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        ret[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    ret[0] = (char)(0xF00U >> len | c);
    return len;
}

static int compare_split(const void *key, const void *row)
{
    uint32_t c = *(const uint32_t *)key;
    uint32_t from = ((const struct unicode_split *)row)->from;

    return (c > from) - (c < from);
}

/* 1..4 code points */
static size_t decompose(uint32_t c, uint32_t ret[UNICODE_GROWTH])
{
    const struct unicode_split *split;

    if (c >= HANGUL_BASE && c < HANGUL_BASE + HANGUL_SYLLABLES) {
        uint32_t s = c - HANGUL_BASE;
        uint32_t t = s % HANGUL_TS;

        ret[0] = HANGUL_L + s / (HANGUL_VS * HANGUL_TS);
        ret[1] = HANGUL_V + s % (HANGUL_VS * HANGUL_TS) / HANGUL_TS;
        ret[2] = HANGUL_T + t;
        return t ? 3 : 2;
    }
    split =
        bsearch(&c, unicode_splits, unicode_split_count, sizeof(*split), compare_split);
    if (!split) {
        ret[0] = c;
        return 1;
    }
    memcpy(ret, unicode_split_parts + split->at, split->len * sizeof(*ret));
    return split->len;
}

/* the composed code point, 0 when the two stay apart */
static uint32_t join(uint32_t a, uint32_t b)
{
    unsigned low = 0;
    unsigned high = unicode_join_count;

    if (a >= HANGUL_L && a < HANGUL_L + HANGUL_LS && b >= HANGUL_V &&
        b < HANGUL_V + HANGUL_VS)
        return HANGUL_BASE + ((a - HANGUL_L) * HANGUL_VS + (b - HANGUL_V)) * HANGUL_TS;
    if (a >= HANGUL_BASE && a < HANGUL_BASE + HANGUL_SYLLABLES &&
        (a - HANGUL_BASE) % HANGUL_TS == 0 && b > HANGUL_T && b < HANGUL_T + HANGUL_TS)
        return a + (b - HANGUL_T);
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct unicode_join *j = &unicode_joins[middle];

        if (j->first == a && j->second == b)
            return j->joined;
        if (j->first < a || (j->first == a && j->second < b))
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

static unsigned mark_class(uint32_t c)
{
    return c < 0x300 ? 0 : range_value(unicode_mark_ranges, unicode_mark_count, c);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Runs of marks in the order of their classes; equal classes keep theirs. */
static void order_marks(uint32_t *text, size_t n, uint64_t *keys)
{
    for (size_t start = 0; start < n;) {
        size_t end = start;

        for (unsigned mark; end < n && (mark = mark_class(text[end])) != 0; end++)
            keys[end] =
                (uint64_t)mark << 56 | (uint64_t)(end - start) << 24 | text[end];
        if (end > start + 1) {
            qsort(keys + start, end - start, sizeof(*keys), compare_u64);
            for (size_t i = start; i < end; i++)
                text[i] = (uint32_t)(keys[i] & 0xFFFFFF);
        }
        start = end + 1;
    }
}

static size_t join_all(uint32_t *text, size_t n)
{
    size_t out = 0;
    size_t starter = SIZE_MAX; /* where the last code point of class 0 was put */
    unsigned last = 0;         /* class of what was put last after it */

    for (size_t i = 0; i < n; i++) {
        unsigned mark = mark_class(text[i]);
        /* a mark of the same or a higher class, or any starter in between, blocks */
        bool is_adjacent = starter != SIZE_MAX && out == starter + 1;
        bool can_join =
            starter != SIZE_MAX && (is_adjacent || (last < mark && last > 0));
        uint32_t joined = can_join ? join(text[starter], text[i]) : 0;

        if (joined) {
            text[starter] = joined;
            continue;
        }
        if (mark == 0)
            starter = out;
        last = mark;
        text[out++] = text[i];
    }
    return out;
}

size_t unicode_compose(uint32_t *text, size_t n, uint64_t *scratch)
{
    uint32_t *wide = (uint32_t *)scratch;
    size_t at = 0;
    bool is_plain = true;

    for (size_t i = 0; i < n && is_plain; i++)
        is_plain = text[i] < 0x300;
    if (is_plain)
        return n;
    for (size_t i = 0; i < n; i++)
        at += decompose(text[i], wide + at);
    memcpy(text, wide, at * sizeof(*text));
    order_marks(text, at, scratch);
    return join_all(text, at);
}

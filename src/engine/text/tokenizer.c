/* From text to ids in four passes over an array of code points:
 *   1. canonical composition, white space to single blanks, lower case
 *   2. words: the two special tokens, English contractions, runs of letters, single numbers, runs of the rest
 *   3. each word's UTF-8 bytes become 256 base symbols; the last one carries the end of the word
 *   4. byte-pair merges, lowest rank first, until no pair of neighbours is in the table
 * The order and the classes are those of CLIP's reference tokenizer in the form in which its users run it
 * today (composition first, lower case of each character by itself). What it also did, undoing HTML entities
 * and broken encodings (ftfy), is not done: a prompt comes from a JSON body, not from a scraped page.
 *
 * Ids need no vocabulary: a byte's id is its place in CLIP's table of bytes, + 256 at the end of a word, and the
 * merge of rank r makes id 512 + r. A pair is looked up by binary search over 48,894 sorted keys; a pair's rank
 * is remembered beside its left symbol, so each pass over a word is a scan for the smallest number. That is
 * quadratic in the length of one word, which the limit on the text's length keeps harmless. */
#include "engine/text/tokenizer.h"

#include "base/mem.h"
#include "base/str.h"
#include "engine/text/tables.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MAX_BYTES = 64 * 1024,
    WORD_END = 256,
    FIRST_MERGE = 512,
    NO_RANK = 0xFFFF,
};

struct symbol {
    uint16_t id;
    uint16_t rank; /* of the merge with the next symbol, NO_RANK */
};

struct ids {
    int32_t *ids;
    size_t capacity;
    size_t count; /* may pass the capacity: then only counted */
};

static void ids_add(struct ids *out, int32_t id)
{
    if (out->count < out->capacity)
        out->ids[out->count] = id;
    out->count++;
}

static uint16_t merge_rank(uint16_t left, uint16_t right)
{
    uint32_t key = (uint32_t)left << 16 | right;
    unsigned low = 0;
    unsigned high = CLIP_MERGES;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (clip_pairs[middle] == key)
            return clip_ranks[middle];
        if (clip_pairs[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return NO_RANK;
}

/* Merges every occurrence of the pair with this rank, left to right (of "aaa" the first two), and looks up the
 * ranks of the pairs that are new. Returns the new number of symbols. */
static size_t merge_all(struct symbol *s, size_t n, uint16_t rank)
{
    const uint16_t merged = (uint16_t)(FIRST_MERGE + rank);
    size_t out = 0;

    for (size_t i = 0; i < n; i++, out++) {
        s[out] = s[i];
        if (s[i].rank == rank) {
            s[out].id = merged;
            i++;
        }
    }
    for (size_t i = 0; i + 1 < out; i++)
        if (s[i].id == merged || s[i + 1].id == merged)
            s[i].rank = merge_rank(s[i].id, s[i + 1].id);
    s[out - 1].rank = NO_RANK;
    return out;
}

static void encode_word(struct symbol *s, size_t n, struct ids *out)
{
    for (size_t i = 0; i + 1 < n; i++)
        s[i].rank = merge_rank(s[i].id, s[i + 1].id);
    s[n - 1].rank = NO_RANK;
    for (;;) {
        uint16_t best = NO_RANK;

        for (size_t i = 0; i + 1 < n; i++)
            best = s[i].rank < best ? s[i].rank : best;
        if (best == NO_RANK)
            break;
        n = merge_all(s, n, best);
    }
    for (size_t i = 0; i < n; i++)
        ids_add(out, s[i].id);
}

static bool starts_with(const uint32_t *text, size_t n, const char *ascii)
{
    for (size_t i = 0; ascii[i]; i++)
        if (i >= n || text[i] != (uint32_t)ascii[i])
            return false;
    return true;
}

/* 0 when no special token starts here */
static size_t special_length(const uint32_t *text, size_t n, int32_t *ret_id)
{
    static const struct {
        const char *text;
        int32_t id;
    } specials[] = {{"<|startoftext|>", TOKENIZER_BOS},
                    {"<|endoftext|>", TOKENIZER_EOS}};

    for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++) {
        if (starts_with(text, n, specials[i].text)) {
            *ret_id = specials[i].id;
            return strlen(specials[i].text);
        }
    }
    return 0;
}

/* How many code points from here on are one word. */
static size_t word_length(const uint32_t *text, size_t n)
{
    static const char *const contractions[] = {"'s", "'t",  "'re", "'ve",
                                               "'m", "'ll", "'d"};
    enum unicode_class class = unicode_class(text[0]);
    int32_t id;
    size_t len = 1;

    for (size_t i = 0; i < sizeof(contractions) / sizeof(contractions[0]); i++)
        if (starts_with(text, n, contractions[i]))
            return strlen(contractions[i]);
    if (class == UNICODE_NUMBER)
        return 1;
    while (len < n && unicode_class(text[len]) == class &&
           !special_length(text + len, n - len, &id))
        len++;
    return len;
}

static void encode_text(const uint32_t *text, size_t n, struct symbol *symbols,
                        struct ids *out)
{
    for (size_t at = 0; at < n;) {
        int32_t special;
        size_t bytes = 0;
        size_t len = special_length(text + at, n - at, &special);

        if (len) {
            ids_add(out, special);
            at += len;
            continue;
        }
        if (unicode_class(text[at]) == UNICODE_SPACE) {
            at++;
            continue;
        }
        len = word_length(text + at, n - at);
        for (size_t i = at; i < at + len; i++) {
            char utf8[4];
            size_t k = unicode_encode(text[i], utf8);

            for (size_t b = 0; b < k; b++)
                symbols[bytes++].id = clip_byte_ids[(unsigned char)utf8[b]];
        }
        symbols[bytes - 1].id += WORD_END;
        encode_word(symbols, bytes, out);
        at += len;
    }
}

static size_t lower_all(uint32_t *text, size_t n, uint32_t *scratch)
{
    size_t out = 0;

    for (size_t i = 0; i < n; i++)
        out += unicode_lower_case(text[i], scratch + out);
    memcpy(text, scratch, out * sizeof(*text));
    return out;
}

int tokenizer_ids(const char *text, size_t len, int32_t *ret_ids, size_t capacity,
                  size_t *ret_count, struct err *err)
{
    struct ids out = {.ids = ret_ids, .capacity = capacity};
    size_t room = (len + 1) * UNICODE_GROWTH;

    if (len > TEXT_MAX_BYTES)
        return err_set_param(err, ERR_TOO_LARGE, "prompt",
                             "the prompt has %zu bytes, at most %d are accepted", len,
                             TEXT_MAX_BYTES);
    if (!str_is_utf8(text, len))
        return err_set_param(err, ERR_INVALID, "prompt",
                             "the prompt is not valid UTF-8 text");
    /* code points, then twice as much: keys while composing, symbols (4 bytes of UTF-8 each) afterwards */
    uint32_t *points = mem_try_alloc(room * sizeof(uint32_t));
    uint64_t *scratch = mem_try_alloc(room * sizeof(struct symbol) * 4);
    if (!points || !scratch) {
        free(points);
        free(scratch);
        return err_set(err, ERR_NO_MEMORY, "no memory to read a prompt of %zu bytes",
                       len);
    }
    size_t n = unicode_decode(text, len, points);
    n = unicode_compose(points, n, scratch);
    n = lower_all(points, n, (uint32_t *)scratch);
    encode_text(points, n, (struct symbol *)scratch, &out);
    free(points);
    free(scratch);
    *ret_count = out.count;
    return 0;
}

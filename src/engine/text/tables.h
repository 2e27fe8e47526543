/* tables: constants that make_tables.py writes into the build folder. For unicode.c and tokenizer.c only. */
#ifndef MYSTI_ENGINE_TEXT_TABLES_H
#define MYSTI_ENGINE_TEXT_TABLES_H

#include "engine/text/unicode.h"

#include <stdint.h>

/* Every table is sorted by its first member. */
struct unicode_range {
    uint32_t first;
    uint32_t last;
    unsigned value; /* enum unicode_class, or the canonical combining class */
};
struct unicode_pair {
    uint32_t from;
    uint32_t to;
};
struct unicode_split {
    uint32_t from;
    uint16_t at; /* index into unicode_split_parts */
    uint16_t len;
};
struct unicode_join {
    uint32_t first;
    uint32_t second;
    uint32_t joined;
};

extern const struct unicode_range unicode_class_ranges[];
extern const unsigned unicode_class_count;
extern const struct unicode_range unicode_mark_ranges[];
extern const unsigned unicode_mark_count;
extern const struct unicode_pair unicode_lower[];
extern const unsigned unicode_lower_count;
extern const struct unicode_split unicode_splits[];
extern const unsigned unicode_split_count;
extern const uint32_t unicode_split_parts[];
extern const struct unicode_join unicode_joins[];
extern const unsigned unicode_join_count;

enum { CLIP_MERGES = 48894 };
extern const uint8_t clip_byte_ids[256]; /* byte -> id; + 256 at the end of a word */
extern const uint32_t clip_pairs[CLIP_MERGES]; /* left id << 16 | right id, ascending */
extern const uint16_t
    clip_ranks[CLIP_MERGES]; /* the merge's number; it makes id 512 + rank */

#endif
